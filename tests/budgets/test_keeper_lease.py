"""Two keepers must never do at once what is to be done once, and neither for long: one of them may die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.keeper_lease import KeeperLease
from proxy.budgets.store_client import connect
from proxy.gateway.ports import StoreAway


class FakeClock:
    def __init__(self) -> None:
        self.us = 5

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


@pytest.fixture
async def client(store: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    async with connect(valkey_url, 5.0) as client:
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_one_holds_it_and_the_other_learns_who(client: Redis, clock: FakeClock) -> None:
    """The other's admin wants to know whom to ask."""
    a, b = (KeeperLease(client, "policy files", name, clock) for name in "ab")
    assert not a.held
    assert (await a.take(), await b.take(), await a.take()) == (True, False, True)
    assert (a.held, b.held, b.holder) == (True, False, "a")
    assert 8_000 < await client.pttl(keys.keeper_lease("policy files")) <= 10_000
    assert await KeeperLease(client, "alerts", "b", clock).take()


async def test_of_many_at_once_one_has_it(client: Redis, clock: FakeClock) -> None:
    """Replicas start in the same second."""
    leases = [KeeperLease(client, "w", str(n), clock) for n in range(20)]
    assert sum(await asyncio.gather(*(lease.take() for lease in leases))) == 1


async def test_it_goes_to_the_next_when_it_is_given_up_or_nobody_renews_it(
    client: Redis, clock: FakeClock
) -> None:
    """A stopped keeper hands over at once, a killed one after its time."""
    a, b = (KeeperLease(client, "w", name, clock, lease_s=0.2) for name in "ab")
    await a.take()
    await b.give_up()
    assert not await b.take()
    await a.give_up()
    assert not a.held
    assert await b.take()
    async with asyncio.timeout(5):
        while not await a.take():
            await asyncio.sleep(0.02)


async def test_a_restarted_keeper_has_its_own_again(client: Redis, clock: FakeClock) -> None:
    """It died a second ago; waiting for its own lease to end would only delay its policy."""
    assert await KeeperLease(client, "w", "a", clock).take()
    assert await KeeperLease(client, "w", "a", clock).take()


async def test_a_keeper_without_redis_stops_in_time(client: Redis, clock: FakeClock) -> None:
    """Another may have taken over on the other side of the cut."""
    lease = KeeperLease(client, "w", "a", clock)
    await lease.take()
    clock.us += 9_999_999
    assert lease.held
    clock.us += 1
    assert not lease.held


async def test_a_redis_that_is_away_is_told_as_that(clock: FakeClock) -> None:
    """It is no answer: nobody has said that another holds it."""
    async with connect("redis://127.0.0.1:9") as nowhere:
        with pytest.raises(StoreAway):
            await KeeperLease(nowhere, "w", "a", clock).take()
