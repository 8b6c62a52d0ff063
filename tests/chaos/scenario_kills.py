"""`kill -9` of workers and of the keeper, at every failpoint and at moments nobody chose, under mixed load."""

from __future__ import annotations

import asyncio
import random
import signal

from chaos_gate import Place, open_place
from chaos_load import Load
from chaos_oracle import Verdict, judge
from chaos_table import Row, Scale
from gatehouse import alive, kill, logged, store_pid, until, worker_pids

from proxy.telemetry.failpoints import POINTS

KEEPERS = ("writer_before_commit", "committed_before_acknowledge")
WORKERS = tuple(point for point in POINTS if point not in KEEPERS)
STALL_S = 0.4


async def failpoints(scale: Scale, seed: int) -> Row:
    """Each point once, or ten times; in a new order, and at another of its reachings, every time."""
    dice, verdict, kills = random.Random(seed), Verdict(), 0
    for _ in range(1 if scale == "small" else 10):
        order = dice.sample(WORKERS, len(WORKERS))
        worker_kills = [
            [point, dice.randint(1, 2 if point in ("mid_extend", "spool_written") else 9)] for point in order
        ]
        async with open_place(workers=3, worker_kills=worker_kills) as place:
            async with Load(place, dice.randrange(1 << 32)) as load:
                stalling = asyncio.create_task(_stall_the_store(place))
                try:
                    await until(lambda at=place: len(_killed(at)) >= len(WORKERS), 90)
                finally:
                    stalling.cancel()
                    await asyncio.gather(stalling, return_exceptions=True)
                await load.until(10)
            kills += len(_killed(place))
            verdict.add(await judge(place, load.asked))
        for point in KEEPERS:
            verdict.add(await _keeper_killed(point, dice))
            kills += 1
    return _row("kill -9 at each of 12 failpoints", kills, verdict)


async def _keeper_killed(point: str, dice: random.Random) -> Verdict:
    async with open_place(workers=2, keeper_kill=[point, dice.randint(1, 6)]) as place:
        async with Load(place, dice.randrange(1 << 32)) as load:
            assert place.gate.process is not None
            async with asyncio.timeout(30):
                assert await place.gate.process.wait() == -signal.SIGKILL, place.gate.log()[-2000:]
            place.chaos()
            await place.gate.start()
            await load.until(10)
        return await judge(place, load.asked)


async def at_random(scale: Scale, seed: int) -> Row:
    """A worker, or one time in four the keeper, at a random moment."""
    dice, verdict, kills = random.Random(seed), Verdict(), 0
    for _ in range(1 if scale == "small" else 10):
        async with open_place(workers=3) as place:
            async with Load(place, dice.randrange(1 << 32)) as load:
                await load.until(20)
                for _ in range(2 if scale == "small" else 8):
                    await asyncio.sleep(dice.uniform(0.1, 1.0))
                    await _kill_somebody(place, dice)
                    kills += 1
                await load.until(10)
            verdict.add(await judge(place, load.asked))
    return _row("kill -9 of workers and keeper at random moments", kills, verdict)


async def _kill_somebody(place: Place, dice: random.Random) -> None:
    pids = worker_pids(place.gate)
    if pids and dice.random() < 0.75:
        victim = dice.choice(pids)
        kill(victim, signal.SIGKILL)
        await until(lambda: not alive(victim))
        return
    assert place.gate.process is not None
    place.gate.process.kill()
    await place.gate.process.wait()
    await place.gate.start()


async def _stall_the_store(place: Place) -> None:
    """Redis stands still now and then, so that settles go to the spool."""
    while True:
        await asyncio.sleep(1.0)
        pid = store_pid(place.gate)
        kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STALL_S)
        finally:
            kill(pid, signal.SIGCONT)


def _killed(place: Place) -> list[str]:
    return [line["how"] for line in logged(place.gate, "worker.ended") if line["how"].startswith("SIGKILL")]


def _row(claim: str, kills: int, verdict: Verdict) -> Row:
    return Row(claim, kills, verdict.counts(), verdict.ok, verdict.against)
