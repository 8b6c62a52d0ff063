"""The invariants: that a sound shard passes, and that each fault is found and named."""

from __future__ import annotations

from typing import Any

import pytest
from books import KEYS, LEASE_US, NOW_US, SHARD, Books, counter, reservation, settlement

from proxy.budgets import inspection
from proxy.budgets.inspection import Check

TOKENS, COST = counter("tokens", 100), counter("cost_usd", 100)


async def some_business(books: Books) -> None:
    for n in (1, 2, 3):
        await books.budgets.reserve(reservation(f"req_{n}:1", (TOKENS, 10), (COST, n)))
    await books.budgets.settle(settlement("req_1:1", (TOKENS, 7), (COST, 1)))
    await books.budgets.release(settlement("req_2:1", (TOKENS, 0), (COST, 0)))


async def test_a_sound_shard_passes_and_tells_its_balances(books: Books) -> None:
    """What doctor prints, and what the ledger's sums are compared with."""
    await some_business(books)
    seen = await books.budgets.inspect(SHARD)
    assert seen.ok
    assert [check.id for check in seen.checks] == ["I1", "I2", "I3", "I5", "I5"]
    assert seen.counters == {TOKENS.name: (7, 10), COST.name: (1, 3)}
    assert (seen.epoch, seen.seq, seen.held, seen.events, seen.now_us) == ("epoch-1", 2, 1, 2, NOW_US)


@pytest.mark.parametrize(("command", "id", "seen", "expected"), [
    (("HINCRBY", KEYS.counter(TOKENS.name), "held", 5), "I1", {TOKENS.name: 15}, {TOKENS.name: 10}),
    (("DEL", KEYS.counter(TOKENS.name)), "I1", {TOKENS.name: 0}, {TOKENS.name: 10}),
    (("HSET", KEYS.counter("stray"), "held", 5), "I1", {"stray": 5}, {"stray": 0}),
    (("HSET", KEYS.counter(COST.name), "used", -1), "I2", {COST.name: (-1, 3)}, {}),
    (("HINCRBY", KEYS.shard, "admitted", 1), "I3", 4, 3),
    (("ZREM", KEYS.leases, "req_3:1"), "I5", ["req_3:1"], []),
    (("ZADD", KEYS.leases, 1 + NOW_US, "req_9:1"), "I5", ["req_9:1"], []),
])  # fmt: skip
async def test_each_fault_is_found_and_named(
    books: Books, command: tuple[Any, ...], id: str, seen: Any, expected: Any
) -> None:
    """An invariant that cannot fail checks nothing."""
    await some_business(books)
    await books.redis.execute_command(*command)
    found = await books.budgets.inspect(SHARD)
    assert [check for check in found.checks if not check.ok] == [Check(id, False, seen, expected)]


async def test_what_the_sweeper_has_missed_for_long_is_found(books: Books) -> None:
    """A sweeper that has stopped leaves budgets held for nobody; this is how it shows."""
    await some_business(books)
    await books.turn_clock(NOW_US + LEASE_US + 10_000_000)
    assert (await books.budgets.inspect(SHARD)).ok
    await books.turn_clock(NOW_US + 2 * LEASE_US + 20_000_000)
    (late,) = [check for check in (await books.budgets.inspect(SHARD)).checks if not check.ok]
    assert (late.id, late.seen) == ("I5", "overdue for 80000000 us")


async def test_many_counters_are_looked_at_in_batches(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of a large installation has tens of thousands: no single script may hold Redis up for them."""
    monkeypatch.setattr(inspection, "BATCH", 7)
    for n in range(40):
        of = counter("tokens", 100, n)
        await books.budgets.reserve(reservation(f"req_{n}:1", (of, 1)))
    seen = await books.budgets.inspect(SHARD)
    assert seen.ok
    assert len(seen.counters) == 40


async def test_counters_of_other_shards_are_left_out(books: Books) -> None:
    """Shard 5's checks must not trip over shard 15's counters."""
    await books.redis.hset("faregate:{s15}:b:other", mapping={"used": 1, "held": 1})
    assert (await books.budgets.inspect(SHARD)).counters == {}
