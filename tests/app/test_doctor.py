"""The doctor: what it corrects, what it leaves alone, and what it tells."""

from __future__ import annotations

import asyncio

import pytest
from keepers_books import KEYS, NAME, Business
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app import invariants
from proxy.app.doctor import Doctor
from proxy.app.invariants import examine
from proxy.app.store import Store
from proxy.ledger.audit import events_set_aside
from proxy.ledger.entries import SetAside, put_aside
from proxy.telemetry import Counters, Merged

SHARDS = 4


class Practice(Business):
    """Business with a doctor."""

    def __init__(self, store: Store, engine: AsyncEngine) -> None:
        super().__init__(store, engine)
        self.counters = Counters()
        self.doctor = Doctor(
            lambda: examine(store, engine, SHARDS, self.clock),
            store.corrections,
            lambda: events_set_aside(engine),
            self.counters,
        )

    async def drift(self, field: str, by: int) -> None:
        await self.store.cold.hincrby(KEYS.counter(NAME), field, by)

    def seen(self, id: str) -> float:
        return Merged().total([self.counters.snapshot()]).gauges["invariant_ok"][id,]

    def corrected(self) -> dict[tuple[str, ...], int]:
        return Merged().total([self.counters.snapshot()]).counters.get("drift_corrected", {})


@pytest.fixture
def practice(keeper_store: Store, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Practice:
    monkeypatch.setattr(invariants, "TRIES", 2)
    monkeypatch.setattr(invariants, "WAIT_S", 0.01)
    return Practice(keeper_store, engine)


@pytest.mark.parametrize("by", [5, -5])
async def test_a_drift_of_used_found_twice_is_corrected_to_the_ledger(practice: Practice, by: int) -> None:
    """Once may be a moment between two stores; twice is an account that is wrong, for or against the customer."""
    await practice.attempts(1, 2)
    await practice.drift("used", by)
    assert await practice.doctor.round() == 0
    assert (practice.seen("I4"), practice.seen("I1")) == (0, 1)
    assert await practice.balance() == (14 + by, 0)
    assert await practice.doctor.round() == 1
    assert await practice.balance() == (14, 0)
    assert practice.corrected() == {("I4",): 1}
    assert await practice.doctor.round() == 0
    assert practice.seen("I4") == 1


async def test_a_lost_counter_is_put_back(practice: Practice) -> None:
    """Without it the whole budget could be spent a second time."""
    await practice.attempts(1, 2)
    await practice.store.cold.delete(KEYS.counter(NAME))
    assert [await practice.doctor.round() for _ in range(3)] == [0, 1, 0]
    assert await practice.balance() == (14, 0)


async def test_held_without_reservations_is_given_back_even_on_a_busy_shard(practice: Practice) -> None:
    """Reservations are in Redis themselves, so nothing has to be quiet for it."""
    await practice.attempts(1)
    await practice.reserve(2)
    await practice.drift("held", 30)
    await practice.settle(2)
    assert await practice.doctor.round() == 0
    await practice.reserve(3)
    assert await practice.doctor.round() == 1
    assert await practice.balance() == (14, 10)
    assert practice.corrected() == {("I1",): 1}


async def test_a_drift_that_changes_is_looked_at_again_before_anything_is_done(practice: Practice) -> None:
    """What still moves is not understood, and a correction of it would be a guess."""
    await practice.attempts(1)
    for by in (1, 2, 4):
        await practice.drift("used", by)
        assert await practice.doctor.round() == 0
    assert await practice.balance() == (14, 0)
    assert await practice.doctor.round() == 1


async def test_a_drift_that_mends_itself_is_never_touched(practice: Practice) -> None:
    """An event that was late, or a charge on its way."""
    await practice.attempts(1)
    for by in (3, -3, 3, -3):
        await practice.drift("used", by)
        assert await practice.doctor.round() == 0
    assert practice.corrected() == {}


async def test_what_was_found_on_a_shard_is_not_forgotten_while_it_is_too_busy_to_be_compared(
    practice: Practice,
) -> None:
    """Else a customer with steady traffic would keep a wrong account for ever."""
    await practice.attempts(1)
    await practice.drift("used", 4)
    assert await practice.doctor.round() == 0
    await practice.reserve(2)
    await practice.settle(2)
    assert await practice.doctor.round() == 0
    await practice.writer.drain()
    assert await practice.doctor.round() == 1
    assert await practice.balance() == (14, 0)


async def test_while_an_event_is_set_aside_nothing_is_corrected_downwards(practice: Practice) -> None:
    """What a refused event was charged was spent: giving it back would be giving budget away."""
    await practice.attempts(1)
    await practice.drift("used", 6)
    await put_aside(practice.engine, [SetAside("req_9:1", "refused", {})], practice.clock.now_us())
    assert [await practice.doctor.round() for _ in range(3)] == [0, 0, 0]
    assert await practice.balance() == (13, 0)
    async with practice.engine.begin() as connection:
        await connection.execute(text("DELETE FROM set_aside"))
    assert await practice.doctor.round() == 1


async def test_a_store_that_is_away_ends_no_doctor(practice: Practice) -> None:
    """It runs for as long as the keeper does, and looks again a minute later."""
    rounds = 0

    async def away() -> int:
        nonlocal rounds
        rounds += 1
        raise OSError("away")

    practice.doctor._every_s = 0.001
    practice.doctor.round = away  # type: ignore[method-assign]
    running = asyncio.ensure_future(practice.doctor.run())
    async with asyncio.timeout(5):
        while rounds < 3:
            await asyncio.sleep(0.001)
    assert not running.done()
    running.cancel()
