"""top_up.lua, case by case: more is held for a stream under way, on every budget of it or on none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from books import KEYS, LEASE_US, NOW_US, SHARD, Books, counter, reservation, settlement
from redis.asyncio import Redis

from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.scripts import StoreRefused
from proxy.budgets.top_ups import TOP_UP
from proxy.domain.reservations import Balance, Closed, Counter, Exceeded, Hold, Lost, ToppedUp, TopUp

TOKENS, COST = counter("tokens", 100), counter("cost_usd", 100)


def top_up(*holds: tuple[Counter, int], observed: int = 0, ref: str = "req_1:1") -> TopUp:
    return TopUp(ref, SHARD, tuple(Hold(of, amount) for of, amount in holds), observed)


async def test_every_budget_is_raised_to_its_new_total(books: Books) -> None:
    """The balances, the reservation and its lease move in one moment, so that the books stay right."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 20)))
    await books.turn_clock(NOW_US + 5)
    assert await books.budgets.top_up(top_up((TOKENS, 60), (COST, 25), observed=8)) == ToppedUp(
        NOW_US + 5, (Hold(TOKENS, 60), Hold(COST, 25))
    )
    assert (await books.balance(TOKENS), await books.balance(COST)) == ((0, 60), (0, 25))
    assert await books.redis.zscore(KEYS.leases, "req_1:1") == NOW_US + 5 + LEASE_US
    assert await books.redis.hget(KEYS.observed, "req_1:1") == b"8"
    held = await books.redis.hget(KEYS.held, "req_1:1")
    head, record = held.split(b"\n")
    assert head.split(b"|")[3] == b"60,25"
    assert record == b'{"model":"a|b"}'
    assert (await books.budgets.inspect(SHARD)).ok


# used by others, held by others, asked in total; the reservation holds 10 of 100
@pytest.mark.parametrize(
    ("used", "held", "total", "fits"),
    [(0, 0, 100, True), (0, 0, 101, False), (20, 30, 50, True), (20, 30, 51, False), (100, 0, 10, False)],
)
async def test_what_is_held_never_passes_a_limit(
    books: Books, used: int, held: int, total: int, fits: bool
) -> None:
    """Zero overshoot is promised of what is held, however it came to be held."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 0)))
    await books.redis.hincrby(KEYS.counter(TOKENS.name), "used", used)
    await books.redis.hincrby(KEYS.counter(TOKENS.name), "held", held)
    before = await books.everything()
    reply = await books.budgets.top_up(top_up((TOKENS, total), (COST, 5), observed=3))
    assert isinstance(reply, ToppedUp) is fits
    if not fits:
        assert reply == Exceeded(NOW_US, (Balance(used, held + 10, 0, 90 - used - held), Balance(0, 0, 0, 100)))
        assert await books.everything() == before


async def test_asking_again_holds_nothing_twice_and_what_is_held_never_shrinks(books: Books) -> None:
    """A reply that was lost leaves the caller no choice but to ask again."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 20)))
    for holds in (((TOKENS, 30), (COST, 40)), ((TOKENS, 30), (COST, 40)), ((TOKENS, 5), (COST, 50))):
        assert isinstance(await books.budgets.top_up(top_up(*holds, observed=4)), ToppedUp)
    assert (await books.balance(TOKENS), await books.balance(COST)) == ((0, 30), (0, 50))
    await books.budgets.top_up(top_up((TOKENS, 31), (COST, 50), observed=2))
    assert await books.redis.hget(KEYS.observed, "req_1:1") == b"4"
    assert (await books.balance(TOKENS), await books.balance(COST)) == ((0, 31), (0, 50))
    assert (await books.budgets.inspect(SHARD)).ok


async def test_racers_for_the_rest_of_a_budget_never_hold_more_than_it(books: Books) -> None:
    """Ten streams that run out at the same moment share what is left, and no token more."""
    for n in range(10):
        await books.budgets.reserve(reservation(f"req_{n}:1", (TOKENS, 4)))
    replies = await asyncio.gather(
        *(books.budgets.top_up(top_up((TOKENS, 19), ref=f"req_{n}:1")) for n in range(10))
    )
    assert sum(isinstance(reply, ToppedUp) for reply in replies) == 4
    assert await books.balance(TOKENS) == (0, 100)
    assert (await books.budgets.inspect(SHARD)).ok


@pytest.mark.parametrize("ending", ["settle", "release", "expire"])
async def test_whatever_ends_it_gives_all_of_it_back(books: Books, ending: str) -> None:
    """Had the reservation kept its first amount, the difference would be held for ever."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10)))
    await books.budgets.top_up(top_up((TOKENS, 70), observed=6))
    amount = 0 if ending == "release" else 42
    if ending == "expire":
        await books.turn_clock(NOW_US + LEASE_US)
        (overdue,) = await books.budgets.overdue(SHARD, 10)
        assert (overdue.amounts, overdue.observed_output_tokens) == ((70,), 6)
        await books.budgets.expire(overdue, settlement("req_1:1", (TOKENS, amount)))
    else:
        await getattr(books.budgets, ending)(settlement("req_1:1", (TOKENS, amount)))
    assert await books.balance(TOKENS) == (amount, 0)
    assert (await books.budgets.inspect(SHARD)).ok


async def test_what_is_not_held_is_not_topped_up(books: Books) -> None:
    """A reservation that the sweeper has charged as an orphan must not begin to hold again."""
    assert await books.budgets.top_up(top_up((TOKENS, 10))) == Lost()
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    before = await books.everything()
    assert await books.budgets.top_up(top_up((TOKENS, 10))) == Lost()
    assert await books.everything() == before


async def test_a_reservation_without_budgets_only_renews_its_lease(books: Books) -> None:
    """A plan may roll and limit nothing."""
    await books.budgets.reserve(reservation(holds=()))
    assert isinstance(await books.budgets.top_up(top_up()), ToppedUp)


async def test_a_closed_shard_holds_nothing_more(books: Books) -> None:
    """Its counters are unknown, so nothing may be promised from them."""
    await books.budgets.reserve(reservation())
    await books.redis.hset(KEYS.shard, "epoch", "another")
    before = await books.everything()
    assert await books.budgets.top_up(top_up((TOKENS, 20))) == Closed()
    assert await books.everything() == before


async def test_a_full_store_tops_nothing_up(start_valkey: Any) -> None:
    """As with reserve: short memory is for the endings."""
    server = start_valkey()
    connection = HotConnection(server.url)
    await connection.start()
    redis: Redis = Redis.from_url(server.url)
    books = Books(redis, connection)
    await books.open()
    await books.budgets.reserve(reservation())
    await redis.config_set("maxmemory", 1)
    with pytest.raises(StoreRefused, match="OOM"):
        await books.budgets.top_up(top_up((TOKENS, 20)))
    assert await books.balance(TOKENS) == (0, 10)
    await connection.close()
    await redis.aclose()


@pytest.mark.parametrize("bad", ["nan", "-1", "007", "1.5", "1e3", "", str(2**53)])
async def test_an_amount_that_is_no_integer_is_refused_without_a_write(books: Books, bad: str) -> None:
    """NaN passes every comparison, and there is no rollback."""
    await books.budgets.reserve(reservation())
    before = await books.everything()
    keys = [KEYS.shard, KEYS.held, KEYS.leases, KEYS.observed, KEYS.counter(TOKENS.name)]
    usual: list[Any] = ["epoch-1", 0, 60, "req_1:1", 4, "20 100"]
    for position, text in ((1, bad), (2, bad), (4, bad), (5, f"{bad} 100"), (5, f"20 {bad}")):
        changed = [text if n == position else argument for n, argument in enumerate(usual)]
        with pytest.raises(StoreRefused, match="BADARG"):
            await TOP_UP.run(books.connection, keys, changed)
    assert await books.everything() == before


async def test_other_counters_than_were_reserved_are_refused(books: Books) -> None:
    """What was raised on them nobody would ever give back."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 10)))
    before = await books.everything()
    for holds in (((TOKENS, 20),), ((COST, 20), (TOKENS, 20)), ((TOKENS, 20), (counter("requests"), 20))):
        with pytest.raises(StoreRefused, match="other counters"):
            await books.budgets.top_up(top_up(*holds))
    assert await books.everything() == before
