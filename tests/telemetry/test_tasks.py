"""Background tasks are held, heard and ended."""

from __future__ import annotations

import asyncio
import gc

import structlog.testing

from proxy.telemetry import Tasks


async def test_a_task_is_held_until_it_ends() -> None:
    """The loop keeps no reference: a settle whose task is collected mid-flight is lost."""
    tasks = Tasks()
    go = asyncio.Event()
    done = []

    async def settle() -> None:
        await go.wait()
        done.append(True)

    tasks.spawn(settle(), "settle")
    await asyncio.sleep(0)
    gc.collect()
    go.set()
    assert await tasks.finish_all(1) == []
    assert done == [True]
    assert len(tasks) == 0


async def test_a_fault_is_logged_with_the_tasks_name() -> None:
    """A sweeper that died quietly is found when the money is gone."""

    async def fails() -> None:
        raise RuntimeError("x")

    with structlog.testing.capture_logs() as logged:
        tasks = Tasks()
        tasks.spawn(fails(), "sweeper")
        await tasks.finish_all(1)
    assert [(entry["event"], entry["task"]) for entry in logged] == [("task.failed", "sweeper")]
    assert isinstance(logged[0]["exc_info"], RuntimeError)


async def test_cancel_all_ends_those_spawned_meanwhile_and_is_silent_about_it() -> None:
    """A task's farewell may start another; none may outlive the stop."""
    tasks = Tasks()

    async def leaves_another() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tasks.spawn(asyncio.sleep(60), "farewell")

    with structlog.testing.capture_logs() as logged:
        tasks.spawn(leaves_another(), "first")
        await asyncio.sleep(0)
        assert await tasks.cancel_all(5) == []
    assert len(tasks) == 0
    assert logged == []


async def test_a_task_that_will_not_end_is_named() -> None:
    """A stop that hangs must say what it hangs on."""
    tasks = Tasks()
    go = asyncio.Event()

    async def stubborn() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logged:
        assert await tasks.cancel_all(0.05) == ["stubborn"]
    assert logged[0]["event"] == "tasks.would_not_end"
    go.set()
    await tasks.finish_all(1)
