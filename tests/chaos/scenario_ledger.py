"""The ledger: the same events delivered again and again to four writers, commits whose replies are lost, and a
database that is away for a minute."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from chaos_gate import Place, open_place
from chaos_history import fields
from chaos_load import Load
from chaos_oracle import judge
from chaos_servers import Postgres, postgres, valkey
from chaos_table import Row, Scale
from faultproxy import FaultProxy, Toxic
from gatehouse import until
from sqlalchemy import text

from proxy.app.clock import SystemClock
from proxy.budgets.event_stream import RedisEventStream
from proxy.budgets.keys import ShardKeys
from proxy.budgets.store_client import connect
from proxy.ledger.engine import open_ledger, reading
from proxy.ledger.migrate import migrate
from proxy.ledger.writer import AWAY, LedgerWriter

WRITERS = 4
SHARDS = 16
TOKENS = 7
COUNTER = "acme:tokens:0"
CATCH_UP_PER_S = 5000


async def duplicates(scale: Scale, seed: int) -> Row:
    """Each event several times, shuffled, over four writers of one group whose COMMIT replies are dropped."""
    deliveries = 6_000 if scale == "small" else 100_000
    dice = random.Random(seed)
    with postgres() as database:
        async with (
            valkey("--appendonly", "no") as store,
            FaultProxy(f"unix:{database.socket}", seed=seed) as proxy,
        ):
            await migrate(database.url)
            events = deliveries // 4
            await _deliver(store.url, events, deliveries, dice)
            proxy.toxic = Toxic("drop_reply_after_commit", needle=b"COMMIT", chance=0.3)
            lag = await _record_all(store.url, database.through(proxy.port))
            found = await _recorded(database.url)
    against = []
    if found["rows"] != events or found["charged"] != events * TOKENS:
        against.append(f"{found} in the ledger, of {events} events that charge {events * TOKENS}")
    if proxy.hurt == 0:
        against.append("no COMMIT reply was dropped, so nothing was tried")
    counts = {
        "events": events, "rows": found["rows"], "double": found["rows"] - events,
        "COMMIT replies lost": proxy.hurt, "recognised": lag["duplicates"],
    }  # fmt: skip
    return Row(f"duplicate deliveries over {WRITERS} writers", deliveries, counts, not against, against)


async def _deliver(url: str, events: int, deliveries: int, dice: random.Random) -> None:
    order = list(range(events)) + [dice.randrange(events) for _ in range(deliveries - events)]
    dice.shuffle(order)
    async with connect(url, 10) as client:
        for first in range(0, len(order), 1000):
            async with client.pipeline(transaction=False) as write:
                for number in order[first : first + 1000]:
                    write.xadd(ShardKeys(number % SHARDS).events, fields(number, TOKENS, COUNTER))
                await write.execute()


async def _record_all(store_url: str, ledger_url: str) -> Counter[str]:
    """Four writers until nothing waits any more; one of them ends in the middle, and the others take over."""
    seen, writers, engines, tasks = Counter[str](), [], [], []
    async with contextlib.AsyncExitStack() as closing:
        for number in range(WRITERS):
            client = await closing.enter_async_context(connect(store_url, 5))
            engine = open_ledger(ledger_url)
            engines.append(engine)
            writer = LedgerWriter(RedisEventStream(client, SHARDS), engine, SystemClock(), f"writer-{number}")
            writers.append(writer)
            tasks.append(asyncio.create_task(_keep_recording(writer)))
        watch = await closing.enter_async_context(connect(store_url, 5))
        stream = RedisEventStream(watch, SHARDS)

        async def empty() -> bool:
            return sum(await stream.backlog()) == 0

        try:
            await until(empty, 300)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for engine in engines:
                await engine.dispose()
    for writer in writers:
        seen.update(recorded=writer.lag.recorded, duplicates=writer.lag.duplicates)
    return seen


async def _keep_recording(writer: LedgerWriter) -> None:
    while True:
        with contextlib.suppress(*AWAY):
            await writer.step(block_ms=50)


async def _recorded(url: str) -> dict[str, int]:
    engine = open_ledger(url)
    async with reading(engine) as connection:
        rows = await connection.scalar(text("SELECT count(*) FROM usage_events"))
        charged = await connection.scalar(text("SELECT coalesce(sum(amount), 0) FROM counter_sums"))
    await engine.dispose()
    return {"rows": int(rows or 0), "charged": int(charged or 0)}


async def away(scale: Scale, seed: int) -> Row:
    """Postgres stopped under load and started again: traffic goes on, and the ledger catches up."""
    away_s = 2.0 if scale == "small" else 60.0
    with postgres() as database:
        more = f'[ledger]\nurl = "{database.url}"\n'
        async with open_place(ledger_url=database.url, more=more) as place:
            clients = 12 if scale == "small" else 60
            async with Load(place, seed, clients=clients, output_tokens=20 if scale == "small" else 5) as load:
                await load.until(20)
                database.stop()
                served = load.served
                await asyncio.sleep(away_s)
                served = load.served - served
                rate, backlog = await _catch_up(place, database)
                await load.until(10)
            verdict = await judge(place, load.asked, 60)
    if served < 10:
        verdict.against.append(f"only {served} served while the database was away")
    if scale == "full" and rate < CATCH_UP_PER_S:
        verdict.against.append(f"caught up at {rate:.0f} events/s")
    counts = {"served meanwhile": served, "backlog": backlog, "catch-up per s": round(rate), **verdict.counts()}
    return Row(f"Postgres stopped {away_s:.0f} s under load", 1, counts, verdict.ok, verdict.against)


async def _catch_up(place: Place, database: Postgres) -> tuple[float, int]:
    """Events per second from the first that is recorded again until nothing of the backlog is left."""
    loop = asyncio.get_running_loop()
    backlog = await place.unrecorded()
    await asyncio.to_thread(database.start)
    await until(lambda: _fewer(place, backlog), 30)
    began = loop.time()
    before = (await _recorded(database.url))["rows"]
    await until(lambda: _fewer(place, max(1, backlog // 20)), 60)
    took_s = loop.time() - began
    return ((await _recorded(database.url))["rows"] - before) / took_s, backlog


async def _fewer(place: Place, than: int) -> bool:
    async with place.store() as store:
        return sum([await store.xlen(ShardKeys(shard).events) for shard in range(SHARDS)]) < than
