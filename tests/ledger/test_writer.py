from __future__ import annotations

import asyncio
import contextlib

import orjson
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from proxy.gateway.ports import StoreAway, StreamEntry
from proxy.ledger import writer
from proxy.ledger.denials import deltas_of, record_denials
from proxy.ledger.tables import denial_deltas, denials, set_aside, usage_events
from proxy.ledger.writer import DenialWriter, LedgerWriter


class MemoryStream:
    """The port `EventStream`: what was read and not done stays pending, and can be claimed."""

    def __init__(self, entries) -> None:
        self.waiting, self.pending = list(entries), {}
        self.away = False
        self.emptied = asyncio.Event()
        self.lose_acknowledgements = 0

    async def read(self, consumer, count, block_ms):
        if self.away:
            raise StoreAway
        if not self.waiting:
            await asyncio.sleep(block_ms / 1000)
        some, self.waiting = self.waiting[:count], self.waiting[count:]
        self.pending |= {entry.id: entry for entry in some}
        return some

    async def claim(self, consumer, idle_ms):
        if self.away:
            raise StoreAway
        return list(self.pending.values())

    async def done(self, entries):
        if self.lose_acknowledgements:
            self.lose_acknowledgements -= 1
            raise StoreAway
        for entry in entries:
            del self.pending[entry.id]
        if not self.pending:
            self.emptied.set()


async def count(engine, table=usage_events) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(table))


async def test_events_are_recorded_then_acknowledged(engine, clock, entry) -> None:
    """What is acknowledged is gone from Redis, so it must be in the ledger by then."""
    stream = MemoryStream([entry() for _ in range(1500)])
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    assert await keeper.drain() == 1500
    assert (await count(engine), stream.pending, keeper.lag.recorded) == (1500, {}, 1500)


async def test_a_lost_acknowledgement_doubles_nothing(engine, clock, entry) -> None:
    """Committed, and then Redis was away: the same entries come again."""
    stream = MemoryStream([entry() for _ in range(20)])
    stream.lose_acknowledgements = 2
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    for _ in range(2):
        with pytest.raises(StoreAway):
            await keeper.step(1)
    await keeper.drain()
    assert (await count(engine), stream.pending, keeper.lag.duplicates) == (20, {}, 40)


async def test_what_a_dead_keeper_left_behind_is_taken_over_at_once(engine, clock, entry) -> None:
    """A restart after `kill -9` must not wait a minute to show what was spent."""
    stream = MemoryStream([entry() for _ in range(7)])
    await stream.read("dead", 5, 1)
    await LedgerWriter(stream, engine, clock, "keeper").drain()
    assert (await count(engine), stream.pending) == (7, {})


async def test_a_database_that_was_away_gets_everything_once(engine, clock, entry, monkeypatch) -> None:
    """Traffic goes on while the ledger is down: nothing is lost, doubled, or acknowledged before its commit."""
    monkeypatch.setattr(writer, "BACKOFF_S", (0.005, 0.01))
    real, failures = writer.record_events, iter([False, False, True, True])
    second_failure = asyncio.Event()

    async def record(engine, rows, now_us):
        # Twice the database is gone before, twice after the commit, as when its reply is lost.
        committed = next(failures, None)
        if keeper.lag.failures_in_a_row == 2:
            assert (len(stream.pending), keeper.lag.waiting_since_us) == (30, clock.now_us())
            second_failure.set()
        if committed is not False:
            recorded = await real(engine, rows, now_us)
            if committed is None:
                return recorded
        raise OperationalError("INSERT", {}, Exception("the connection is gone"))

    monkeypatch.setattr(writer, "record_events", record)
    stream = MemoryStream([entry() for _ in range(30)])
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    running = asyncio.create_task(keeper.run())
    await asyncio.wait_for(second_failure.wait(), 10)
    await asyncio.wait_for(stream.emptied.wait(), 10)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert await count(engine) == 30
    assert (keeper.lag.waiting_since_us, keeper.lag.failures_in_a_row) == (None, 0)


async def test_connections_that_were_cut_are_made_anew(postgres_engine, clock, entry) -> None:
    """A restarted Postgres leaves a pool of dead connections; the writer must not need a restart of its own."""
    stream = MemoryStream([entry() for _ in range(2)])
    keeper = LedgerWriter(stream, postgres_engine, clock, "keeper")
    await keeper.drain()
    async with postgres_engine.connect() as connection:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    stream.waiting = [entry()]
    await keeper.drain()
    assert await count(postgres_engine) == 3


async def test_an_unreadable_entry_is_set_aside_and_the_others_recorded(engine, clock, entry) -> None:
    """One entry of garbage must not stand in the way of every bill."""
    garbage = StreamEntry(1, "5-1", {"event": "{", "kind": "terminal", "seq": "1"})
    stream = MemoryStream([entry(), garbage, entry(), entry(input_tokens="many")])
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    await keeper.drain()
    assert (await count(engine), stream.pending, keeper.lag.set_aside) == (2, {}, 2)
    async with engine.connect() as connection:
        kept = {row.id: row.reason for row in await connection.execute(select(set_aside))}
    assert "event is no JSON" in kept["stream:1:5-1"]
    assert "input_tokens must be int, not str" in kept.values()


def delta(id: str, **changes) -> dict:
    return {
        "id": id,
        "minute": 29_920_000,
        "customer_id": "acme",
        "agent_id": "agt_1",
        "model": "gpt-4o-mini",
        "reason": "budget",
        "count": 3,
        "sample_request_id": f"req_{id}",
        "sample_message": "Spent.",
    } | changes


def denial_entry(number: int, *deltas: dict) -> StreamEntry:
    return StreamEntry(2, f"9-{number}", {"deltas": orjson.dumps(deltas).decode()})


async def test_denials_add_up_and_a_redelivered_delta_counts_once(engine, clock) -> None:
    """Support reads these counts; a retry must not look like a storm."""
    entries = [
        denial_entry(1, delta("a"), delta("b", count=4)),
        denial_entry(2, delta("b", count=4), delta("c", model="x" * 5000)),
    ]
    stream = MemoryStream([*entries, denial_entry(3, delta("d", count="many"))])
    await DenialWriter(stream, engine, clock, "keeper").drain()
    await DenialWriter(MemoryStream(entries), engine, clock, "keeper").drain()
    async with engine.connect() as connection:
        rows = (await connection.execute(select(denials).order_by(denials.c.model))).all()
    assert [(row.model[:11], row.count, row.sample_request_id) for row in rows] == [
        ("gpt-4o-mini", 7, "req_a"),
        ("xxxxxxxxxxx", 3, "req_c"),
    ]
    assert await count(engine, set_aside) == 1


async def test_what_was_only_shadowed_is_counted_apart(engine, clock) -> None:
    """An adopter reads what would have been refused, and must not take it for what was."""
    deltas = [delta("a"), delta("b", reason="shadow:budget"), delta("c", reason="shadow:budget", count=2)]
    await record_denials(engine, deltas_of({"deltas": orjson.dumps(deltas)}), clock.now_us())
    async with engine.connect() as connection:
        rows = (await connection.execute(select(denials).order_by(denials.c.shadow))).all()
    assert [(row.reason, row.shadow, row.count) for row in rows] == [("budget", False, 3), ("budget", True, 5)]


async def test_deltas_are_forgotten_after_a_day(engine, clock) -> None:
    """The ids of deltas are needed for redelivery, not forever."""
    await record_denials(engine, deltas_of({"deltas": orjson.dumps([delta("old")])}), clock.now_us())
    clock.us += 86_400_000_001
    await record_denials(engine, deltas_of({"deltas": orjson.dumps([delta("new")])}), clock.now_us())
    async with engine.connect() as connection:
        assert list(await connection.scalars(select(denial_deltas.c.id))) == ["new"]


async def test_a_fault_that_is_no_absence_is_seen(engine, clock, entry, monkeypatch) -> None:
    """A mistake of ours must end the loop where the keeper reports it, not be retried forever."""

    async def record(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(writer, "record_events", record)
    with pytest.raises(ZeroDivisionError):
        await LedgerWriter(MemoryStream([entry()]), engine, clock, "keeper").run()


async def test_what_an_older_redis_still_has_pending_is_cleared_at_once_when_told(engine, clock, entry) -> None:
    """Put back to an older state, Redis has entries pending that we finished long ago."""
    stream = MemoryStream([entry() for _ in range(3)])
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    await keeper.drain()
    older = entry()
    stream.pending[older.id] = older
    assert await keeper.drain() == 0
    keeper.take_over_at_once()
    assert await keeper.drain() == 1
    assert (await count(engine), stream.pending) == (4, {})


async def test_entries_whose_reply_to_a_read_was_lost_are_taken_up_at_once(engine, clock, entry) -> None:
    """Redis counts them as read, so nobody is given them again for a minute unless they are claimed."""
    stream = MemoryStream([entry() for _ in range(3)])
    keeper = LedgerWriter(stream, engine, clock, "keeper")
    await keeper.step(1)
    read, stream.waiting = stream.read, [entry() for _ in range(5)]

    async def lost(*asked):
        await read(*asked)
        stream.read = read
        raise StoreAway

    stream.read = lost
    with pytest.raises(StoreAway):
        await keeper.step(1)
    assert await keeper.step(1) == 5
    assert (await count(engine), stream.pending) == (8, {})
