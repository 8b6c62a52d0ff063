"""The invariants of both stores together: what agrees, what does not, and in which moment one may say so."""

from __future__ import annotations

from typing import Any

import pytest
from keepers_books import KEYS, NAME, SHARD, Business
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app import invariants
from proxy.app.invariants import Drift, examine
from proxy.app.store import Store
from proxy.ledger.tables import EPOCH, plan_versions

SHARDS = 4


@pytest.fixture
def business(keeper_store: Store, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Business:
    monkeypatch.setattr(invariants, "TRIES", 2)
    monkeypatch.setattr(invariants, "WAIT_S", 0.01)
    return Business(keeper_store, engine)


async def look(business: Business) -> Any:
    return await examine(business.store, business.engine, SHARDS, business.clock)


async def test_sound_books_pass_every_invariant(business: Business) -> None:
    """What is recorded, what is held, and what nobody has touched."""
    await business.attempts(1, 2, 3)
    await business.reserve(4)
    found = await look(business)
    assert [check["id"] for check in found.checks] == ["I1", "I2", "I3", "I4", "I5", "I6", "I7"]
    assert found.report()["ok"], found.checks
    assert (found.drifts, found.busy) == ([], [])


@pytest.mark.parametrize(("command", "id", "drift"), [
    (("HINCRBY", KEYS.counter(NAME), "used", 5), "I4", ("used", 19, 14)),
    (("HINCRBY", KEYS.counter(NAME), "used", -5), "I4", ("used", 9, 14)),
    (("HINCRBY", KEYS.counter(NAME), "held", 3), "I1", ("held", 13, 10)),
])  # fmt: skip
async def test_a_drift_is_found_with_what_would_be_right(
    business: Business, command: tuple[Any, ...], id: str, drift: tuple[str, int, int]
) -> None:
    """It is what the doctor corrects by."""
    await business.attempts(1, 2)
    await business.reserve(3)
    await business.store.cold.execute_command(*command)
    found = await look(business)
    assert [check["id"] for check in found.checks if not check["ok"]] == [id]
    field, seen, right = drift
    assert found.drifts == [Drift(SHARD, "epoch-1", 2, NAME, field, seen, right)]  # type: ignore[arg-type]


async def test_a_counter_that_redis_has_lost_is_found(business: Business) -> None:
    """Its customer would have the whole budget once more; a window long past needs no counter."""
    await business.attempts(1, 2)
    await business.store.cold.delete(KEYS.counter(NAME))
    past = "acme/customer/b/tokens/P1D/86400000000"
    async with business.engine.begin() as connection:
        await connection.execute(
            text(f"INSERT INTO counter_sums (counter, shard, amount) VALUES ('{past}', {SHARD}, 9)")
        )
    found = await look(business)
    assert found.drifts == [Drift(SHARD, "epoch-1", 2, NAME, "used", None, 14)]


async def test_a_shard_with_events_on_their_way_is_not_compared(business: Business) -> None:
    """Settled and not yet recorded is no drift; the shard's own invariants are looked at all the same."""
    await business.attempts(1)
    await business.reserve(2)
    await business.settle(2)
    await business.store.cold.hincrby(KEYS.counter(NAME), "held", 1)
    found = await look(business)
    assert found.busy == [SHARD]
    assert [drift.field for drift in found.drifts] == ["held"]
    [recorded] = [check for check in found.checks if check["id"] == "I4"]
    assert recorded == {"id": "I4", "ok": True, "seen": {"shards_too_busy": 1}, "expected": {}}


async def test_a_correction_without_its_attempt_is_found(business: Business) -> None:
    """I6, on both databases: a difference of nothing bills nothing, or twice."""
    await business.attempts(1, 2)
    async with business.engine.begin() as connection:
        await connection.execute(text("UPDATE usage_events SET kind = 'correction' WHERE request_id = 'req_1'"))
    found = await look(business)
    assert {check["id"]: check["seen"] for check in found.checks if not check["ok"]} == {"I6": ["req_1:1"]}


async def test_a_counter_beyond_every_limit_is_found_unless_its_attempts_used_more_than_was_held(
    business: Business,
) -> None:
    """I7: overshoot is what must never be; what a provider bills over the bound is taken, and known."""
    budget = {"id": "b", "meter": "tokens", "window": "lifetime", "limit": 20}
    version = {"id": "p", "version": 1, "document": {"budgets": [budget]}, "applied_at": EPOCH}
    async with business.engine.begin() as connection:
        await connection.execute(plan_versions.insert(), version)
    await business.reserve(1)
    await business.settle(1, used=25)
    await business.writer.drain()
    assert (await look(business)).report()["ok"]
    await business.reserve(2, amount=25)
    found = await look(business)
    assert {check["id"]: check["seen"] for check in found.checks if not check["ok"]} == {"I7": {NAME: 15}}


async def test_a_shard_that_moves_while_it_is_read_is_read_again(business: Business) -> None:
    """Counters of before a settle and sums of after it differ by it: a drift that never was."""
    await business.attempts(1)
    inspect, moved = business.store.budgets.inspect, []

    async def inspect_and_move(*asked: Any) -> Any:
        inspection = await inspect(*asked)
        if inspection.shard == SHARD and not moved:
            moved.append(inspection)
            await business.attempts(2)
        return inspection

    business.store.budgets.inspect = inspect_and_move  # type: ignore[method-assign]
    found = await look(business)
    assert moved
    assert (found.drifts, found.busy) == ([], [])
    assert found.report()["ok"]
