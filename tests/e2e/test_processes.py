"""Processes: an orderly end when asked, and no end of the world when killed.

Whatever is killed, by whomever and when: the next start finds its ports free, its counters and events there, and
nothing left over that would serve beside it. Processes are known by descent from the keeper, never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gatehouse import (
    House,
    alive,
    assert_sound,
    budgets,
    family,
    kill,
    open_house,
    plan,
    store_pid,
    until,
    worker_pids,
)

from proxy.demo.scripts import Script

PLANS = {"counted": plan("counted", [("requests", 1_000_000), ("tokens", 100_000_000)])}


# Of these a worker keeps a second and a half for its last words.
DRAIN_S = 4


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    folder = tmp_path / "gate"
    folder.mkdir()
    async with open_house(
        folder, PLANS, workers=2, environment={"FAREGATE_SERVER__DRAIN_S": str(DRAIN_S)}
    ) as opened:
        yield opened
        opened.upstream.release()


def _keeper(house: House) -> int:
    assert house.gate.process is not None
    return house.gate.process.pid


async def _gone(pids: set[int], within_s: float = 8) -> None:
    await until(lambda: not [pid for pid in pids if alive(pid)], within_s)


# -- orderly ends ------------------------------------------------------------------------------------------


async def test_a_signal_ends_everything_in_order_and_an_open_stream_finishes(house: House) -> None:
    """A deploy must not cut the answer that a customer is reading, nor lose its usage."""
    gate = house.gate
    secret = await gate.customer("acme", "counted")
    for count, sig in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        await _ended_with_a_stream_open(house, secret, sig)
        await gate.start()
        event = (await gate.events(count))[0]
        assert (event["status"], event["usage_source"], event["output_tokens"]) == ("succeeded", "provider", 20)
        assert (await budgets(gate, "acme"))["requests"]["used"] == count
        await assert_sound(gate)


async def _ended_with_a_stream_open(house: House, secret: str, sig: signal.Signals) -> None:
    gate, upstream = house.gate, house.upstream
    upstream.forget()
    pids = family(_keeper(house))
    assert len(pids) == 4, "a keeper, two workers and a store"
    upstream.script(Script(output_tokens=20, chunk_delay_s=0.03))
    stream = asyncio.create_task(gate.chat(secret, stream=True, max_tokens=50))
    await house.arrived(1)
    began = asyncio.get_running_loop().time()
    if sig == signal.SIGINT:
        # As a terminal does it: to the whole group.
        os.killpg(_keeper(house), sig)
    else:
        kill(_keeper(house), sig)
    assert (await stream).body.endswith(b"data: [DONE]\n\n")
    assert await house.ended() == 0
    assert asyncio.get_running_loop().time() - began < DRAIN_S + 2
    await _gone(pids)


async def test_new_connections_are_refused_while_it_drains(house: House) -> None:
    """The next keeper's workers share the port: whoever still accepted would take their requests."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("acme", "counted")
    upstream.hold()
    under_way = asyncio.create_task(gate.chat(secret, max_tokens=20))
    await house.arrived(1)
    kill(_keeper(house), signal.SIGTERM)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await until(refused, 3)
    upstream.release()
    assert (await under_way).status == 200
    assert await house.ended() == 0


async def test_what_does_not_finish_within_drain_s_is_cut(house: House) -> None:
    """A stop is a stop: the longest it may take is `drain_s` and a moment."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("acme", "counted")
    pids = family(_keeper(house))
    upstream.hold()
    hanging = asyncio.create_task(gate.chat(secret, max_tokens=20))
    await house.arrived(1)
    began = asyncio.get_running_loop().time()
    kill(_keeper(house), signal.SIGTERM)
    code = await house.ended()
    took_s = asyncio.get_running_loop().time() - began
    assert code == 0
    assert DRAIN_S - 2 < took_s < DRAIN_S + 4
    with contextlib.suppress(aiohttp.ClientError):
        assert (await hanging).status >= 500
    await _gone(pids)
    upstream.release()
    await gate.start()
    # It may have been billed: what nobody settled stays held until its lease ends.
    now = await budgets(gate, "acme")
    assert now["requests"]["held"] + now["requests"]["used"] == 1
    await assert_sound(gate)


# -- kill -9 -----------------------------------------------------------------------------------------------


class Traffic:
    """Calls without a pause, plain and streamed. `whole`: the ids of those that were answered to the end."""

    def __init__(self, house: House, secret: str) -> None:
        self.whole: set[str] = set()
        self._house = house
        self._secret = secret
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Traffic:
        self._tasks = [asyncio.create_task(self._ask(at % 2 == 0)) for at in range(8)]
        await until(lambda: len(self.whole) > 40)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self, streamed: bool) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            try:
                answer = await self._house.gate.chat(
                    self._secret, stream=streamed, max_tokens=20, metadata={"n": str(number)}
                )
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)
                continue
            whole = answer.body.endswith(b"data: [DONE]\n\n") if streamed else bool(answer.body)
            if answer.status == 200 and whole:
                self.whole.add(answer.headers["x-request-id"])
            else:
                await asyncio.sleep(0.02)


async def _assert_kept(house: House, customer: str, whole: set[str]) -> None:
    """Each whole answer has exactly one event, and the counters are what the events have charged."""

    async def recorded() -> bool:
        return whole <= {event["request_id"] for event in await _all_events(house, customer)}

    await until(recorded)
    events = await _all_events(house, customer)
    ids = [event["id"] for event in events]
    assert len(ids) == len(set(ids))
    charged = {"requests": 0, "tokens": 0}
    for charge in (charge for event in events for charge in event["charged"]):
        charged[charge["budget_id"]] += charge["amount"]
    now = await budgets(house.gate, customer)
    assert {meter: now[meter]["used"] for meter in charged} == charged
    await assert_sound(house.gate)


async def _all_events(house: House, customer: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = await house.gate.admin("GET", f"/usage-events?customer_id={customer}&limit=1000{cursor}")
        events += page["data"]
        cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None  # type: ignore[assignment]
    return events


def _one_worker(house: House) -> list[int]:
    return worker_pids(house.gate)[:1]


def _the_keeper(house: House) -> list[int]:
    return [_keeper(house)]


def _the_store(house: House) -> list[int]:
    return [store_pid(house.gate)]


def _everything(house: House) -> list[int]:
    return sorted(family(_keeper(house)))


VICTIMS: dict[str, Callable[[House], list[int]]] = {
    "worker": _one_worker,
    "keeper": _the_keeper,
    "store": _the_store,
    "everything": _everything,
}


@pytest.mark.parametrize("victim", VICTIMS)
async def test_kill_9_hinders_no_next_start_and_loses_nothing(house: House, victim: str) -> None:
    """Idle first, then under load: out of memory comes when there is most to do."""
    gate = house.gate
    secret = await gate.customer("acme", "counted")
    whole = {(await gate.chat(secret, max_tokens=20)).headers["x-request-id"]}
    await _kill(house, victim, stop=False)
    await _assert_kept(house, "acme", whole)
    async with Traffic(house, secret) as traffic:
        await _kill(house, victim, stop=True)
        before = len(traffic.whole)
        await until(lambda: len(traffic.whole) > before + 40)
    await _assert_kept(house, "acme", whole | traffic.whole)


async def _kill(house: House, victim: str, *, stop: bool) -> None:
    """Kills, and has it serve again: by itself where the keeper lives, else (or with `stop`) by a new start."""
    gate = house.gate
    pids = family(_keeper(house))
    killed = VICTIMS[victim](house)
    assert killed
    for pid in killed:
        kill(pid, signal.SIGKILL)
    if victim in ("worker", "store"):
        await until(lambda: _in_place(house, killed), 10)
        if not stop:
            return
        assert await gate.stop() == 0
    else:
        await house.ended()
    survivors = pids - {store_pid(gate)} if victim == "keeper" else pids
    if victim != "keeper":
        await _gone(survivors)
    # At once, with the old keeper's workers perhaps not yet gone: same config, same ports.
    await gate.start()
    await _gone(survivors)
    assert len(family(_keeper(house))) == (3 if victim == "keeper" else 4)


async def _in_place(house: House, killed: list[int]) -> bool:
    """Two workers and a store live and serve, and those killed do not."""
    if any(map(alive, killed)) or len(worker_pids(house.gate)) != 2:
        return False
    with contextlib.suppress(aiohttp.ClientError, FileNotFoundError, ValueError):
        return alive(store_pid(house.gate)) and (await house.gate.get("/readyz")).status == 200
    return False
