"""How a spooled settlement is carried out after all: by Redis if it knows the reference, else by the ledger."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.budgets.recovery import Recovery
from proxy.domain.reservations import Settlement
from proxy.gateway.ports import Budgets, Clock
from proxy.ledger.spool import Replay
from proxy.ledger.spool_records import Verb
from proxy.ledger.taking_over import take_over

# What Redis has not taken: the shard is closed, or does not know the reference (any more).
NOT_TAKEN = ("closed", "unknown")


def replay_into(budgets: Budgets) -> Replay:
    """Settles or releases by reference; True once Redis has it, now or before. Raises `StoreAway`."""

    async def replay(settlement: Settlement, verb: Verb) -> bool:
        act = budgets.release if verb == "release" else budgets.settle
        return (await act(settlement)).outcome not in NOT_TAKEN

    return replay


class Replaying:
    """The keeper's ways: it has the ledger at hand for what Redis does not know."""

    def __init__(self, budgets: Budgets, recovery: Recovery, engine: AsyncEngine, clock: Clock) -> None:
        self._budgets = budgets
        self._recovery = recovery
        self._engine = engine
        self._clock = clock

    async def into_redis(self, settlement: Settlement, verb: Verb) -> bool:
        """As `replay_into`; a reference that Redis does not know is recorded, and charged if that was news."""
        act = self._budgets.release if verb == "release" else self._budgets.settle
        outcome = (await act(settlement)).outcome
        if outcome == "closed":
            return False
        if outcome == "unknown":
            amounts = await take_over(self._engine, settlement, verb, self._clock.now_us())
            if amounts is not None:
                await self._recovery.charge(settlement, amounts)
        return True

    def into_ledger(self, blank: Collection[int]) -> Replay:
        """For shards that are being rebuilt: recorded first, the counters are summed up afterwards."""

        async def replay(settlement: Settlement, verb: Verb) -> bool:
            if settlement.shard not in blank:
                return await self.into_redis(settlement, verb)
            await take_over(self._engine, settlement, verb, self._clock.now_us())
            return True

        return replay
