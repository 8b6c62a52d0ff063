"""Corrections of counters: exact, and void as soon as anything has moved."""

from __future__ import annotations

import pytest
from books import KEYS, SHARD, Books, counter, reservation, settlement

from proxy.budgets.correcting import Corrections
from proxy.budgets.scripts import StoreRefused

NAME = "acme/customer/b/tokens/P1D/3999999974400000000"
DAY = counter("tokens")


@pytest.fixture
def corrections(books: Books) -> Corrections:
    return Corrections(books.connection, 16)


async def held_and_settled(books: Books) -> None:
    """used 7, held 10, seq 1."""
    for n in (1, 2):
        await books.budgets.reserve(reservation(f"req_{n}:1", (DAY, 10)))
    await books.budgets.settle(settlement("req_1:1", (DAY, 7)))


@pytest.mark.parametrize(("epoch", "seq", "seen", "corrected"), [
    ("epoch-1", 1, 7, True),
    ("epoch-2", 1, 7, False),
    ("epoch-1", 0, 7, False),
    ("epoch-1", 2, 7, False),
    ("epoch-1", 1, 8, False),
])  # fmt: skip
async def test_used_is_put_right_only_if_shard_and_counter_stand_as_seen(
    books: Books, corrections: Corrections, epoch: str, seq: int, seen: int, corrected: bool
) -> None:
    """A settle that came in between is money: a correction must not take it back."""
    await held_and_settled(books)
    assert await corrections.used(SHARD, DAY.name, epoch, seq, seen, 3) is corrected
    assert await books.balance(DAY) == ((3 if corrected else 7), 10)


async def test_a_lost_counter_comes_back_with_its_expiry(books: Books, corrections: Corrections) -> None:
    """A counter that is gone is a budget given anew; without an expiry it would stay for ever."""
    await held_and_settled(books)
    assert await corrections.used(SHARD, NAME, "epoch-1", 1, None, 43)
    assert await books.redis.hgetall(KEYS.counter(NAME)) == {b"used": b"43", b"held": b"0"}
    kept_us = 3999999974400000000 // 1000 + 37 * 86_400_000
    assert await books.redis.pexpiretime(KEYS.counter(NAME)) == kept_us
    assert not await corrections.used(SHARD, NAME, "epoch-1", 1, None, 50)


@pytest.mark.parametrize("drift", [5, -3])
async def test_held_is_put_right_while_reservations_come_and_go(
    books: Books, corrections: Corrections, drift: int
) -> None:
    """The sum is taken in the moment of the correction, so that it need not wait for a pause."""
    await held_and_settled(books)
    await books.redis.hincrby(KEYS.counter(DAY.name), "held", drift)
    await books.budgets.reserve(reservation("req_3:1", (counter("cost_usd"), 4), (DAY, 20)))
    assert not await corrections.held(SHARD, DAY.name, "epoch-1", drift + 1)
    assert await corrections.held(SHARD, DAY.name, "epoch-1", drift)
    assert await books.balance(DAY) == (7, 30)
    assert not await corrections.held(SHARD, DAY.name, "epoch-1", drift)
    assert (await books.budgets.inspect(SHARD)).ok


async def test_held_for_nobody_is_given_back(books: Books, corrections: Corrections) -> None:
    """The usual drift: a hold whose reservation is gone starves its customer for the rest of the window."""
    await held_and_settled(books)
    await books.budgets.settle(settlement("req_2:1", (DAY, 0)))
    await books.redis.hset(KEYS.counter(DAY.name), "held", 25)
    assert not await corrections.held(SHARD, DAY.name, "epoch-0", 25)
    assert await corrections.held(SHARD, DAY.name, "epoch-1", 25)
    assert await books.balance(DAY) == (7, 0)


async def test_what_is_no_integer_is_refused(books: Books, corrections: Corrections) -> None:
    """NaN would be written as a balance, and every comparison with it admits."""
    for bad in ("nan", "1.5", "", "0"):
        with pytest.raises(StoreRefused, match="BADARG"):
            await corrections.held(SHARD, DAY.name, "epoch-1", bad)  # type: ignore[arg-type]
    with pytest.raises(StoreRefused, match="BADARG"):
        await corrections.used(SHARD, DAY.name, "epoch-1", 1, 7, "nan")  # type: ignore[arg-type]
