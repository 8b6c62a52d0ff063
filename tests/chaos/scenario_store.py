"""Redis killed, flushed, put back to an older state, failed over, and reached through a bad line."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from chaos_gate import Place, open_place
from chaos_history import add_history
from chaos_load import Load
from chaos_oracle import Verdict, judge
from chaos_servers import Valkey, valkey
from chaos_table import Row, Scale
from faultproxy import FaultProxy, Toxic
from gatehouse import alive, budgets, kill, plan, store_pid, until
from redis.asyncio import Redis

from proxy.demo.scripts import Script

REFUSED_WITHIN_S = 0.3
REOPENED_WITHIN_S = 10.0


async def killed(scale: Scale, seed: int) -> Row:
    """The embedded server, with its append-only file, killed again and again under load."""
    dice, verdict, kills = random.Random(seed), Verdict(), 0
    for _ in range(1 if scale == "small" else 6):
        async with open_place() as place:
            async with Load(place, dice.randrange(1 << 32)) as load:
                await load.until(10)
                for _ in range(2 if scale == "small" else 5):
                    victim = store_pid(place.gate)
                    kill(victim, signal.SIGKILL)
                    kills += 1
                    await until(lambda pid=victim: not alive(pid))
                    await load.until(15)
                    await asyncio.sleep(dice.uniform(0.1, 0.8))
            verdict.add(await judge(place, load.asked))
    return Row(
        "kill -9 of Redis (append-only file) under load", kills, verdict.counts(), verdict.ok, verdict.against
    )


LIMIT = 260
EVENTS_BEFORE = 100_000
Lose = Callable[[Place], Awaitable[None]]


async def flushed(scale: Scale, seed: int) -> Row:
    """FLUSHALL in the middle of the load: nothing beyond the budget, and soon open again."""

    async def flush(place: Place) -> None:
        async with place.store() as store:
            await store.flushall()

    return await _loss("FLUSHALL under load", flush, scale, seed, None)


async def put_back(scale: Scale, seed: int) -> Row:
    """A restart from a copy of the data that is a while old."""
    age_s = 2.0 if scale == "small" else 60.0

    async def restore(place: Place) -> None:
        _put_back(place)

    return await _loss(f"restart from a copy {age_s:.0f} s old, under load", restore, scale, seed, age_s)


def _copy(place: Place) -> None:
    shutil.copytree(place.folder / "var/store", place.folder / "copy", ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".sock", ".pid", "lock", ".log", "socket"))]


def _put_back(place: Place) -> None:
    """The keeper stands still meanwhile, or it would start the server again before the data is exchanged."""
    assert place.gate.process is not None
    place.gate.process.send_signal(signal.SIGSTOP)
    try:
        kill(store_pid(place.gate), signal.SIGKILL)
        for old in (place.folder / "var/store").iterdir():
            if (place.folder / "copy" / old.name).exists():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(place.folder / "copy", place.folder / "var/store", dirs_exist_ok=True)
    finally:
        place.gate.process.send_signal(signal.SIGCONT)


async def _loss(claim: str, lose: Lose, scale: Scale, seed: int, age_s: float | None) -> Row:
    """Load against a budget that it will spend: what is admitted after the loss must know what was before."""
    dice = random.Random(seed)
    plans = {"spent": plan("spent", [("requests", LIMIT)])}
    async with open_place(plans=plans) as place:
        place.secrets["spent"] = await place.gate.customer("spent", "spent")
        if scale == "full":
            await add_history(place, EVENTS_BEFORE)
        async with Load(place, dice.randrange(1 << 32), output_tokens=20) as load:
            await load.until(40)
            if age_s is not None:
                _copy(place)
                await asyncio.sleep(age_s)
            await load.until(20)
            reopened_s = await _lost_and_open_again(place, lose)
            await load.until(60)
            # The rest of the budget, if there is any: it must end where it ends.
            for _ in range(LIMIT):
                answer = await place.gate.chat(place.secrets["spent"], max_tokens=3, user="filler")
                if answer.status != 200:
                    break
        verdict = await judge(place, load.asked)
        spent = (await budgets(place.gate, "spent"))["requests"]
        called = sum(_requests(row) for row in await place.rows() if row["customer_id"] == "spent")
    if max(called, spent["used"]) > LIMIT:
        verdict.against.append(f"{called} requests charged, {spent['used']} used, of {LIMIT}")
    if reopened_s > REOPENED_WITHIN_S:
        verdict.against.append(f"served again only after {reopened_s:.1f} s")
    of_it = {"spent": f"{spent['used']}/{LIMIT}", "in the ledger": called, "open after s": f"{reopened_s:.1f}"}
    counts = {**of_it, **verdict.counts()}
    return Row(claim, 1, counts, verdict.ok, verdict.against)


async def _lost_and_open_again(place: Place, lose: Lose) -> float:
    """How long after the loss every customer is served again, by requests begun after it."""
    loop = asyncio.get_running_loop()
    await lose(place)
    began = loop.time()

    async def open_again() -> bool:
        asked = (
            place.gate.chat(secret, max_tokens=3, user=f"again-{name}") for name, secret in place.secrets.items()
        )
        return {answer.status for answer in await asyncio.gather(*asked, return_exceptions=False)} <= {200, 402}

    with contextlib.suppress(AssertionError):
        await until(open_again, 30)
    return loop.time() - began


def _requests(row: dict[str, Any]) -> int:
    return sum(charge["amount"] for charge in row["charged"] if charge["budget_id"] == "requests")


async def failed_over(scale: Scale, seed: int) -> Row:
    """The replica is behind when it takes over: acknowledged settles are missing in it."""
    dice, verdict, rounds = random.Random(seed), Verdict(), 1 if scale == "small" else 10
    for _ in range(rounds):
        async with valkey() as primary, valkey("--replicaof", "127.0.0.1", str(primary.port)) as replica:
            verdict.add(await _fail_over(primary, replica, dice))
    return Row("failover to a stale replica", rounds, verdict.counts(), verdict.ok, verdict.against)


async def _fail_over(primary: Valkey, replica: Valkey, dice: random.Random) -> Verdict:
    await _in_step(primary, replica)
    async with FaultProxy(f"tcp:127.0.0.1:{primary.port}") as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with open_place(redis_url=url, more=f'[redis]\nurl = "{url}"\n') as place:
            async with Load(place, dice.randrange(1 << 32)) as load:
                await load.until(20)
                replica.signal(signal.SIGSTOP)
                await load.until(20)
                primary.kill()
                replica.signal(signal.SIGCONT)
                await _promote(replica)
                proxy.upstream = f"tcp:127.0.0.1:{replica.port}"
                proxy.cut()
                await load.until(20)
            return await judge(place, load.asked)


async def _in_step(primary: Valkey, replica: Valkey) -> None:
    async with Redis.from_url(replica.url) as client:

        async def linked() -> bool:
            return bool((await client.info("replication"))["master_link_status"] == "up")

        await until(linked, 20)


async def _promote(replica: Valkey) -> None:
    async with Redis.from_url(replica.url) as client:
        await client.execute_command("REPLICAOF", "NO", "ONE")


LINES = {
    "black hole": Toxic("timeout"),
    "half-open": Toxic("half_open"),
    "2 s slow": Toxic("latency", seconds=2),
    "reply dropped after commit": Toxic("drop_reply_after_commit", needle=b"EVALSHA"),
}


async def bad_line(scale: Scale, seed: int) -> Row:
    """Each way in which Redis may be there and not there: refused quickly, nothing forwarded, nothing leaked."""
    repeats = 1 if scale == "small" else 5
    slowest, seen, against = dict.fromkeys(LINES, 0.0), Counter[str](), []
    async with valkey() as server, FaultProxy(f"tcp:127.0.0.1:{server.port}", seed=seed) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with open_place(redis_url=server.url, more=f'[redis]\nurl = "{url}"\n') as place:
            place.upstream.script(Script(times=0, output_tokens=4))
            for name in list(LINES) * repeats:
                await _all_serve(place)
                before = len(place.upstream.calls)
                proxy.toxic = LINES[name]
                for _ in range(3):
                    for status, took_s in await _ask_once_each(place):
                        slowest[name] = max(slowest[name], took_s)
                        seen[str(status)] += 1
                        if status != 503:
                            against.append(f"{name}: answered {status}")
                if len(place.upstream.calls) != before:
                    against.append(f"{name}: {len(place.upstream.calls) - before} calls were forwarded")
                proxy.toxic = None
                proxy.cut()
                await _all_serve(place)
            verdict = await judge(place, [])
            against += verdict.against
    against += [f"{n}: refused after {s * 1000:.0f} ms" for n, s in slowest.items() if s > REFUSED_WITHIN_S]
    counts = {f"{name}, slowest ms": round(s * 1000) for name, s in slowest.items()}
    counts |= {"refused": seen["503"], "forwarded": seen["200"], "left held": verdict.held}
    return Row("Redis behind a bad line", repeats * len(LINES), counts, not against, against)


async def _ask_once_each(place: Place) -> list[tuple[int, float]]:
    loop = asyncio.get_running_loop()

    async def one(secret: str, tag: str) -> tuple[int, float]:
        began = loop.time()
        answer = await place.gate.chat(secret, max_tokens=4, user=tag)
        return answer.status, loop.time() - began

    return await asyncio.gather(
        *(one(secret, f"{name}{at}") for name, secret in place.secrets.items() for at in (1, 2))
    )


async def _all_serve(place: Place) -> None:
    async def serving() -> bool:
        return {status for status, _ in await _ask_once_each(place)} == {200}

    await until(serving, 20)
