"""A holder for background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from proxy.telemetry.logs import logger

T = TypeVar("T")


class Tasks:
    """Keeps a reference to every task until it ends (the loop keeps none), and reports the fault it ends with."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = logger("tasks")

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Starts it. An exception goes to the log as `task.failed`, also if somebody awaits the task."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel_all(self, timeout_s: float) -> list[str]:
        """Cancels all but the caller, those spawned meanwhile too; names those that did not end in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        cancelled: set[asyncio.Task[Any]] = set()
        while waiting := self._tasks - {asyncio.current_task()}:
            for task in waiting - cancelled:
                task.cancel()
            cancelled |= waiting
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                names = sorted(task.get_name() for task in waiting)
                self._log.error("tasks.would_not_end", tasks=names, timeout_s=timeout_s)
                return names
            await asyncio.wait(waiting, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
        return []

    async def finish_all(self, timeout_s: float) -> list[str]:
        """Waits for all but the caller to end by themselves; names those that did not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while waiting := self._tasks - {asyncio.current_task()}:
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                return sorted(task.get_name() for task in waiting)
            await asyncio.wait(waiting, timeout=remaining_s)
        return []

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            self._log.error("task.failed", task=task.get_name(), exc_info=fault)
