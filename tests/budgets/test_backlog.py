"""How much waits for the ledger, and the mark that keeps more from being admitted."""

from __future__ import annotations

import pytest
from books import KEYS, SHARD, Books, counter, reservation, settlement

from proxy.budgets.backlog import ShardBacklog
from proxy.budgets.keys import ShardKeys
from proxy.domain.policy import RateLimits
from proxy.domain.reservations import Exceeded, Full, Held, Limited, Stale


@pytest.fixture
def backlog(books: Books) -> ShardBacklog:
    return ShardBacklog(books.connection, 16)


async def test_while_full_nothing_is_admitted_and_everything_begun_ends(
    books: Books, backlog: ShardBacklog
) -> None:
    """The bound must not cost what is already bought: it is settled, released, extended and swept as ever."""
    for n in (1, 2, 3):
        await books.budgets.reserve(reservation(f"req_{n}:1", (counter(), 10)))
    await backlog.mark(True)
    before = await books.everything()
    assert await books.budgets.reserve(reservation("req_4:1")) == Full()
    assert await books.everything() == before
    assert isinstance(await books.budgets.reserve(reservation("req_1:1")), Held)
    assert await books.budgets.extend(SHARD, {"req_3:1": 2}) == frozenset()
    assert (await books.budgets.settle(settlement("req_1:1"))).outcome == "settled"
    assert (await books.budgets.release(settlement("req_2:1", (counter(), 0)))).outcome == "released"
    await backlog.mark(False)
    assert isinstance(await books.budgets.reserve(reservation("req_4:1")), Held)


async def test_whoever_would_be_refused_anyway_is_told_why(books: Books, backlog: ShardBacklog) -> None:
    """503 says come again: to a client whose budget is spent, or whose secret is revoked, that would be a lie."""
    await backlog.mark(True)
    assert isinstance(await books.budgets.reserve(reservation("r:1", (counter(limit=5), 10))), Exceeded)
    assert await books.budgets.reserve(reservation(secret_id="revoked")) == Stale("secret")
    none_at_once = RateLimits(None, None, 0)
    assert isinstance(await books.budgets.reserve(reservation(limits=none_at_once)), Limited)


async def test_a_full_shard_is_not_taken_for_one_that_has_lost_its_data(
    books: Books, backlog: ShardBacklog
) -> None:
    """Else its epoch would be read again before every call, and settles would go into the spool."""
    await books.budgets.reserve(reservation("req_9:1"))
    await backlog.mark(True)
    sent: list[object] = []
    send = books.connection.send
    books.connection.send = lambda command: sent.append(command[0]) or send(command)  # type: ignore[method-assign, func-returns-value]
    for _ in range(3):
        assert await books.budgets.reserve(reservation()) == Full()
    assert sent == ["EVALSHA"] * 3
    assert books.budgets.behind() == []


async def test_a_look_counts_every_shard_and_the_age_of_the_oldest(books: Books, backlog: ShardBacklog) -> None:
    """The bound is on the whole, since the memory is."""
    empty = await backlog.look()
    assert (empty.events, empty.oldest_us, empty.full, empty.open) == (0, 0, False, True)
    seconds, micros = await books.redis.time()
    now_ms = seconds * 1000 + micros // 1000
    for number, age_ms in ((0, 5_000), (7, 90_000), (15, 10)):
        await books.redis.xadd(ShardKeys(number).events, {"event": "{}"}, id=f"{now_ms - age_ms}-1")
    await books.redis.xadd(ShardKeys(7).events, {"event": "{}"}, id=f"{now_ms}-1")
    looked = await backlog.look()
    assert looked.events == 4
    assert 90_000_000 <= looked.oldest_us < 95_000_000
    await backlog.mark(True)
    assert ((await backlog.look()).full, (await backlog.look()).open) == (True, False)
    await books.redis.hdel(KEYS.shard, "full")
    assert ((await backlog.look()).full, (await backlog.look()).open) == (True, True)
