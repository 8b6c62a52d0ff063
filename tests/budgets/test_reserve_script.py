"""reserve.lua, case by case: what it admits, what it refuses with which word, and what it writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from books import KEYS, LEASE_US, NOW_US, SHARD, Books, counter, reservation, settlement

from proxy.budgets import scripts
from proxy.budgets.keys import secret_field
from proxy.budgets.scripts import StoreRefused
from proxy.domain.policy import RateLimits
from proxy.domain.reservations import Balance, Closed, Exceeded, Finished, Held, Limited, Stale, WindowPassed

HOUR_US = 3_600_000_000
EXACT_MOST = 2**53 - 1


async def test_what_is_held_is_held_on_every_budget_with_its_lease_and_its_record(books: Books) -> None:
    """Everything that the other scripts and the sweeper go by is written in this one call."""
    tokens, cost = counter("tokens", 100), counter("cost_usd", 50)
    reply = await books.budgets.reserve(reservation("req_1:1", (tokens, 10), (cost, 50)))
    assert reply == Held(NOW_US, 0, 0)
    assert await books.balance(tokens) == (0, 10)
    assert await books.balance(cost) == (0, 50)
    assert await books.redis.zscore(KEYS.leases, "req_1:1") == NOW_US + LEASE_US
    assert await books.redis.smembers(KEYS.holding("acme")) == {b"req_1:1"}
    held = await books.redis.hget(KEYS.held, "req_1:1")
    names = f"{KEYS.counter(tokens.name)}\t{KEYS.counter(cost.name)}"
    assert held == f'{NOW_US}|0|0|10,50|{names}\n{{"model":"a|b"}}'.encode()


@pytest.mark.parametrize(("used", "held", "asked", "fits"), [
    (0, 0, 100, True),
    (0, 0, 101, False),
    (60, 30, 10, True),
    (60, 30, 11, False),
    (130, 0, 0, False),
    (100, 0, 0, True),
    (0, 0, EXACT_MOST, False),
])  # fmt: skip
async def test_a_budget_admits_exactly_up_to_its_limit(
    books: Books, used: int, held: int, asked: int, fits: bool
) -> None:
    """Zero overshoot is the promise; one off in either direction breaks it or starves the customer."""
    await books.redis.hset(KEYS.counter(counter().name), mapping={"used": used, "held": held})
    reply = await books.budgets.reserve(reservation("req_1:1", (counter(limit=100), asked)))
    exceeded = Exceeded(NOW_US, (Balance(used, held, 0, 100 - used - held),))
    assert reply == (Held(NOW_US, 0, 0) if fits else exceeded)
    assert await books.balance(counter()) == (used, held + asked * fits)


async def test_one_budget_that_does_not_fit_holds_nothing_anywhere(books: Books) -> None:
    """A half-made hold would starve the budgets that did fit, for ever."""
    tokens, requests, cost = counter("tokens", 100), counter("requests", 0), counter("cost_usd", 100)
    before = await books.everything()
    reply = await books.budgets.reserve(reservation("req_1:1", (tokens, 5), (requests, 1), (cost, 5)))
    assert reply == Exceeded(NOW_US, (Balance(0, 0, 0, 100), Balance(0, 0, 0, 0), Balance(0, 0, 0, 100)))
    assert await books.everything() == before


async def test_counters_outlive_their_window_by_the_longest_late_settle_and_a_lifetime_stays(books: Books) -> None:
    """A late settle must find the counter it was admitted on; no other key may stay behind for ever."""
    day = counter("tokens", 100, NOW_US - HOUR_US, NOW_US + HOUR_US)
    lifetime = counter("requests", 100)
    await books.budgets.reserve(reservation("req_1:1", (day, 1), (lifetime, 1)))
    kept_until_ms = (day.ends_us + day.ends_us - day.starts_us) // 1_000 + 35 * 86_400_000
    assert await books.redis.pexpiretime(KEYS.counter(day.name)) == kept_until_ms
    assert await books.redis.pexpiretime(KEYS.counter(lifetime.name)) == -1


@pytest.mark.parametrize(("starts_us", "ends_us", "holds"), [
    (NOW_US, NOW_US + 1, True),
    (NOW_US + 1, NOW_US + 2, False),
    (NOW_US - 1, NOW_US, False),
    (0, None, True),
])  # fmt: skip
async def test_a_window_must_hold_the_present_of_redis(
    books: Books, starts_us: int, ends_us: int | None, holds: bool
) -> None:
    """Workers' clocks may be wrong; a request charged to yesterday's window would be free."""
    reply = await books.budgets.reserve(reservation("req_1:1", (counter("tokens", 9, starts_us, ends_us), 1)))
    assert reply == (Held(NOW_US, 0, 0) if holds else WindowPassed(NOW_US))


@pytest.mark.parametrize(("change", "what"), [
    ({"customer_revision": 2}, "customer"),
    ({"customer_revision": 4}, "customer"),
    ({"customer_id": "nobody"}, "customer"),
    ({"secret_id": "revoked"}, "secret"),
    ({"policy_revision": 1}, "policy"),
])  # fmt: skip
async def test_knowledge_out_of_date_is_told_so(books: Books, change: dict[str, Any], what: str) -> None:
    """A revoked secret or an applied plan acts on the very next request, without a round trip more."""
    before = await books.everything()
    assert await books.budgets.reserve(reservation(**change)) == Stale(what)  # type: ignore[arg-type]
    assert await books.everything() == before


async def test_a_worker_may_be_ahead_of_a_shard_with_its_policy(books: Books) -> None:
    """While a new policy is written to one shard after another, nobody may be refused for knowing it."""
    assert isinstance(await books.budgets.reserve(reservation(policy_revision=3)), Held)


@pytest.mark.parametrize(("expires_at_ms", "alive"), [(NOW_US // 1_000, False), (NOW_US // 1_000 + 1, True)])
async def test_a_secret_ends_when_its_time_has_come(books: Books, expires_at_ms: int, alive: bool) -> None:
    """An old secret overlaps a new one for exactly as long as the admin said."""
    await books.redis.hset(KEYS.customer("acme"), secret_field("sec_1"), expires_at_ms)
    assert isinstance(await books.budgets.reserve(reservation()), Held if alive else Stale)


async def test_the_same_reference_holds_once(books: Books) -> None:
    """A call that is sent twice must not cost the customer twice."""
    for _ in range(2):
        assert await books.budgets.reserve(reservation("req_1:1", (counter(limit=10), 10))) == Held(NOW_US, 0, 0)
    assert await books.balance(counter()) == (0, 10)
    assert await books.redis.hget(KEYS.shard, "admitted") == b"1"


async def test_a_finished_or_barred_reference_holds_nothing_again(books: Books) -> None:
    """A delayed reserve, arriving after its release, would hold until its lease ends, for nobody."""
    await books.budgets.release(settlement("req_9:1"))
    assert await books.budgets.reserve(reservation("req_9:1")) == Finished("released")
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    assert await books.budgets.reserve(reservation()) == Finished("settled")
    assert await books.balance(counter()) == (7, 0)


async def test_requests_of_a_minute_may_come_at_once_and_then_one_by_one(books: Books) -> None:
    """Sixty a minute means sixty now, and the next one a second later."""
    limits = RateLimits(requests_per_minute=60)
    for n in range(60):
        reply = await books.budgets.reserve(reservation(f"req_{n}:1", (counter(), 0), limits=limits))
        assert isinstance(reply, Held)
    refused = await books.budgets.reserve(reservation("req_60:1", (counter(), 0), limits=limits))
    assert refused == Limited(NOW_US, "requests", 1_000_000)
    await books.turn_clock(NOW_US + 1_000_000)
    assert isinstance(await books.budgets.reserve(reservation("req_61:1", (counter(), 0), limits=limits)), Held)


async def test_later_attempts_of_a_request_are_not_counted_as_requests_again(books: Books) -> None:
    """A fallback is no new request of the customer's, whose rate and concurrency it must not eat up."""
    limits = RateLimits(requests_per_minute=1, concurrent_requests=1)
    first = await books.budgets.reserve(reservation("req_1:1", limits=limits))
    assert first == Held(NOW_US, NOW_US + 60_000_000, 0)
    await books.budgets.release(settlement("req_1:1", (counter(), 0)))
    assert await books.budgets.reserve(reservation("req_1:2", limits=limits, first=False)) == first


async def test_tokens_per_minute_get_back_what_was_not_used(books: Books) -> None:
    """The limit takes the upper bound; without the difference back a customer would get a tenth of it."""
    limits = RateLimits(tokens_per_minute=100)
    asked = reservation("req_1:1", limits=limits, rate_tokens=90)
    assert await books.budgets.reserve(asked) == Held(NOW_US, 0, NOW_US + 54_000_000)
    refused = await books.budgets.reserve(reservation("req_2:1", limits=limits, rate_tokens=20))
    assert refused == Limited(NOW_US, "tokens", 6_000_000)
    await books.budgets.settle(settlement(limits=limits, rate_tokens=10))
    again = await books.budgets.reserve(reservation("req_2:1", limits=limits, rate_tokens=90))
    assert again == Held(NOW_US, 0, NOW_US + 60_000_000)


async def test_what_the_tokens_rate_leaked_meanwhile_is_not_returned_twice(books: Books) -> None:
    """Time has given these tokens back already: returning them again would admit more than the limit."""
    limits = RateLimits(tokens_per_minute=100)
    await books.budgets.reserve(reservation("req_1:1", limits=limits, rate_tokens=100))
    await books.turn_clock(NOW_US + 45_000_000)
    await books.budgets.settle(settlement(limits=limits, rate_tokens=10))
    tat_us = int(await books.redis.hget(KEYS.rates("acme"), "tokens"))
    assert tat_us == NOW_US + 45_000_000


async def test_more_than_the_whole_minute_never_fits(books: Books) -> None:
    """The wait is told as a minute at most, however absurd the ask."""
    asked = reservation(limits=RateLimits(tokens_per_minute=1), rate_tokens=EXACT_MOST)
    assert await books.budgets.reserve(asked) == Limited(NOW_US, "tokens", 60_000_000)


async def test_requests_at_once_are_the_references_held(books: Books) -> None:
    """A counter of its own would be wrong for ever after a crash."""
    limits = RateLimits(concurrent_requests=2)
    for ref in ("req_1:1", "req_2:1"):
        assert isinstance(await books.budgets.reserve(reservation(ref, limits=limits)), Held)
    refused = await books.budgets.reserve(reservation("req_3:1", limits=limits))
    assert refused == Limited(NOW_US, "concurrent_requests", 0)
    await books.budgets.settle(settlement("req_1:1"))
    assert isinstance(await books.budgets.reserve(reservation("req_3:1", limits=limits)), Held)


async def test_a_spent_budget_is_told_before_a_rate_limit(books: Books) -> None:
    """402 wins over 429: waiting does not help somebody who has spent everything."""
    limits = RateLimits(requests_per_minute=1, tokens_per_minute=1, concurrent_requests=0)
    reply = await books.budgets.reserve(reservation("req_1:1", (counter(limit=0), 1), limits=limits))
    assert reply == Exceeded(NOW_US, (Balance(0, 0, 0, 0),))


async def test_a_hundred_places_go_to_a_hundred_of_three_hundred(books: Books) -> None:
    """The race that every check-then-charge gate loses."""
    replies = await asyncio.gather(
        *(books.budgets.reserve(reservation(f"req_{n}:1", (counter(limit=100), 1))) for n in range(300))
    )
    assert [type(reply) for reply in replies].count(Held) == 100
    assert await books.balance(counter()) == (0, 100)


async def test_an_unknown_epoch_or_a_sequence_that_lies_behind_closes_the_shard(books: Books) -> None:
    """Counters that were flushed or restored say too little, and would let everything be spent again."""
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    await books.redis.hset(KEYS.shard, "seq", 0)
    assert await books.budgets.reserve(reservation("req_2:1")) == Closed()
    assert (await books.budgets.settle(settlement("req_2:1"))).outcome == "closed"
    await books.redis.flushall()
    assert await books.budgets.reserve(reservation("req_2:1")) == Closed()


def raw_call(**changes: Any) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of a plain reserve, with arguments changed by their name in the header."""
    keys = [KEYS.shard, KEYS.customer("acme"), KEYS.rates("acme"), KEYS.holding("acme"), KEYS.held]
    keys += [KEYS.leases, KEYS.done("req_1:1"), KEYS.counter("a"), KEYS.counter("b")]
    arguments = {
        "epoch": "epoch-1", "seq_known": 0, "ref": "req_1:1", "secret_field": secret_field("sec_1"),
        "revision": 3, "policy": 2, "first": 1, "requests_limit": 9, "tokens_limit": 9, "at_once_limit": 9,
        "rate_tokens": 1, "lease_us": LEASE_US, "record": "{}", "a": "1 100 0 -", "b": "1 100 0 -",
    }  # fmt: skip
    assert changes.keys() <= arguments.keys()
    return keys, list((arguments | changes).values())


BAD_INTEGERS = ("nan", "inf", "-1", "-0", "+1", "1e3", "0x10", " 1", "1 ", "1.5", "", "9" * 40, str(2**53))


@pytest.mark.parametrize("bad", BAD_INTEGERS)
async def test_what_is_no_integer_is_refused_without_a_write(books: Books, bad: str) -> None:
    """NaN compares false with every limit, and a negative amount earns budget: neither may get that far."""
    names = ("seq_known", "policy", "requests_limit", "tokens_limit", "at_once_limit", "rate_tokens", "lease_us")
    cases = [{name: bad} for name in names]
    cases += [{"b": text} for text in (f"{bad} 100 0 -", f"1 {bad} 0 -")]
    before = await books.everything()
    for case in cases:
        with pytest.raises(StoreRefused, match="BADARG"):
            await scripts.RESERVE.run(books.connection, *raw_call(**case))
    assert await books.everything() == before


@pytest.mark.parametrize("change", [
    {"requests_limit": 0}, {"tokens_limit": 0}, {"a": "1 100 0"}, {"a": "1 100 0 - 5"}, {"b": "1 100 x -"},
])  # fmt: skip
async def test_a_misshapen_call_is_refused_without_a_write(books: Books, change: dict[str, Any]) -> None:
    """A fault of ours must not become a hold that nobody can explain."""
    before = await books.everything()
    with pytest.raises(StoreRefused, match="BADARG"):
        await scripts.RESERVE.run(books.connection, *raw_call(**change))
    assert await books.everything() == before


async def test_a_counter_named_twice_is_refused(books: Books) -> None:
    """Each would be checked without the other, and together they could overshoot."""
    with pytest.raises(StoreRefused, match="named once"):
        await books.budgets.reserve(reservation("req_1:1", (counter(limit=10), 6), (counter(limit=10), 6)))
    assert await books.balance(counter()) == (0, 0)


async def test_figures_stay_exact_up_to_the_largest(books: Books) -> None:
    """Lua counts in doubles: up to 2^53 - 1 nothing may be rounded or written with an exponent."""
    largest = counter(limit=EXACT_MOST)
    await books.turn_clock(EXACT_MOST - LEASE_US)
    assert isinstance(await books.budgets.reserve(reservation("req_1:1", (largest, EXACT_MOST))), Held)
    assert await books.redis.hgetall(KEYS.counter(largest.name)) == {b"used": b"0", b"held": b"%d" % EXACT_MOST}
    assert await books.redis.hget(KEYS.shard, "clock_us") == b"%d" % (EXACT_MOST - LEASE_US)
    assert await books.redis.zscore(KEYS.leases, "req_1:1") == EXACT_MOST
    await books.budgets.settle(settlement("req_1:1", (largest, EXACT_MOST - 1)))
    assert await books.balance(largest) == (EXACT_MOST - 1, 0)
    assert f'"amount":{EXACT_MOST - 1}}}' in (await books.events())[0]["charged"]


async def test_a_clock_that_jumps_back_does_not_take_the_gate_with_it(books: Books) -> None:
    """Redis moved to a machine whose clock is behind: time stands still for a while, and never runs backwards."""
    await books.budgets.reserve(reservation())
    assert await books.redis.hget(KEYS.shard, "clock_us") == b"%d" % NOW_US
    assert await books.budgets.reserve(reservation("req_2:1")) == Held(NOW_US, 0, 0)
    assert KEYS.number == SHARD
