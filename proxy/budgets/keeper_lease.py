"""What must be done once among several keepers is done by the one that holds a lease in Redis.

    lease = KeeperLease(client, "policy files", keeper_id, clock)
    if await lease.take():      # again and again, well within LEASE_S
        ...                     # nobody else does it now
    await lease.give_up()       # at the end, so that the next keeper need not wait

Redis decides who holds it; how long it is held is also counted here, from before the question was sent, so that a
keeper whose Redis is away stops in time. What a lease cannot do is stop a keeper that sleeps in the middle of its
work: where that matters, the work itself must bear being done twice.
"""

from __future__ import annotations

from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.scripts import Script
from proxy.budgets.store_client import store_away
from proxy.gateway.ports import Clock

LEASE_S = 10.0
_US = 1_000_000


class KeeperLease:
    """One keeper's part in one lease. `keeper` outlives a restart, so that one needs not wait for its own end."""

    def __init__(self, client: Redis, work: str, keeper: str, clock: Clock, lease_s: float = LEASE_S) -> None:
        self.keeper = keeper
        self.holder = ""
        """Who held it when it was last asked for; empty before."""
        self._key = keys.keeper_lease(work)
        self._clock = clock
        self._lease_us = int(lease_s * _US)
        self._until_us = 0
        self._take = client.register_script(Script("take_lease").source)
        self._give_up = client.register_script(Script("give_up_lease").source)

    @property
    def held(self) -> bool:
        """Whether it is ours, and will be for at least a moment."""
        return self._clock.monotonic_us() < self._until_us

    async def take(self) -> bool:
        """Takes or renews it; False: another keeper has it. Raises `StoreAway`, which says nothing about it."""
        asked_us = self._clock.monotonic_us()
        with store_away():
            self.holder = await self._take(keys=[self._key], args=[self.keeper, self._lease_us // 1000])
        mine = self.holder == self.keeper
        self._until_us = asked_us + self._lease_us if mine else 0
        return mine

    async def give_up(self) -> None:
        """Raises `StoreAway`: then it ends by itself."""
        self._until_us = 0
        with store_away():
            await self._give_up(keys=[self._key], args=[self.keeper])
