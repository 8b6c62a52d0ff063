"""Shards put back to an older state: closed by a script that sees for itself, and emptied before a rebuild."""

from __future__ import annotations

import pytest
from books import KEYS, SHARD, Books, counter, reservation, settlement

from proxy.budgets.keys import ShardKeys
from proxy.budgets.restoring import ShardBooks
from proxy.domain.reservations import Closed, Held

OTHER = ShardKeys(SHARD + 1)


@pytest.fixture
def shard_books(books: Books) -> ShardBooks:
    return ShardBooks(books.connection, 16)


@pytest.mark.parametrize(("recorded", "closed"), [(0, False), (1, False), (2, False), (3, True), (2**50, True)])
async def test_a_shard_is_closed_only_if_the_ledger_knows_more_of_it(
    books: Books, shard_books: ShardBooks, recorded: int, closed: bool
) -> None:
    """Closing a sound shard would refuse its customers; leaving an older one open gives budgets away."""
    await books.redis.hset(KEYS.shard, "seq", 2)
    assert await shard_books.close(SHARD, recorded) is closed
    assert (await books.redis.hget(KEYS.shard, "epoch") is None) is closed
    assert (SHARD in await shard_books.seqs()) is not closed
    assert (await books.budgets.reserve(reservation()) == Closed()) is closed
    assert await shard_books.close(SHARD, recorded) is False


async def test_what_an_older_shard_remembers_of_spending_is_gone_and_the_rest_stays(
    books: Books, shard_books: ShardBooks
) -> None:
    """A hold of a time that never was would be charged, or keep a budget from its customer; events that the ledger
    may lack are worth money."""
    for n in (1, 2):
        await books.budgets.reserve(reservation(f"req_{n}:1", (counter(), 10)))
    await books.budgets.extend(SHARD, {"req_2:1": 4})
    await books.budgets.settle(settlement("req_1:1"))
    await books.redis.xadd(KEYS.denials, {"deltas": "[]"})
    other = await books.redis.hset(OTHER.counter("stays"), "used", 1)
    assert other
    await books.redis.hdel(KEYS.shard, "epoch")
    deleted = await shard_books.clear(SHARD)
    assert deleted == 6
    left = {key.decode() for key in await books.redis.keys(f"faregate:{{s{SHARD}}}:*")}
    assert left == {KEYS.shard, KEYS.customer("acme"), KEYS.events, KEYS.denials}
    assert set(await books.redis.hkeys(KEYS.shard)) == {b"clock_us", b"policy"}
    assert await books.redis.exists(OTHER.counter("stays"))


async def test_a_cleared_shard_opens_with_what_the_ledger_says(books: Books, shard_books: ShardBooks) -> None:
    """Closed, cleared, restored: and a reference that an older state held is not held any more."""
    await books.budgets.reserve(reservation("req_1:1", (counter(), 10)))
    assert await shard_books.close(SHARD, 9)
    await shard_books.clear(SHARD)
    name = "acme/customer/b/tokens/lifetime/0"
    await shard_books.restore(SHARD, {name: 60}, 9, "epoch-2")
    assert await books.redis.hgetall(KEYS.counter(name)) == {b"used": b"60", b"held": b"0"}
    assert await books.budgets.reserve(reservation("req_1:1")) == Closed()
    assert isinstance(await books.budgets.reserve(reservation("req_1:1")), Held)
    assert (await books.budgets.inspect(SHARD)).ok
    assert (await shard_books.seqs())[SHARD] == 9


async def test_an_open_shard_is_never_cleared(books: Books, shard_books: ShardBooks) -> None:
    """It would forget what is under way, and what was spent."""
    await books.budgets.reserve(reservation())
    before = await books.everything()
    with pytest.raises(ValueError, match=r"\[5\] are open"):
        await shard_books.clear(SHARD)
    assert await books.everything() == before


async def test_many_shards_are_cleared_in_one_walk(books: Books, shard_books: ShardBooks) -> None:
    """At a hundred thousand counters sixteen walks through all of Redis would keep the gate shut for longer."""
    for number in range(16):
        keys = ShardKeys(number)
        for n in range(50):
            await books.redis.hset(keys.counter(f"c{n}"), "used", 1)
        await books.redis.hdel(keys.shard, "epoch")
    sent: list[object] = []
    send = books.connection.send
    shard_books._connection.send = lambda command: sent.append(command[0]) or send(command)  # type: ignore[method-assign, func-returns-value]
    assert await shard_books.clear(*range(16)) == 800
    assert sent.count("SCAN") < 20
