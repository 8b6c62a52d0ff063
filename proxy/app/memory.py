"""What a worker remembers of what Redis acknowledged, until the ledger has it or Redis has lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog

from proxy.budgets.recovery import Recovery
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.budgets.unrecorded import Acknowledged, Unrecorded, Verb
from proxy.domain.reservations import Settlement
from proxy.gateway.leases import Leases
from proxy.gateway.ports import Spool, StoreAway
from proxy.ledger.spool import FileSpool

log = structlog.get_logger(__name__)

LOOK_S = 1.0


class Memory:
    """Looks once a second how far the record goes."""

    def __init__(
        self,
        unrecorded: Unrecorded,
        recovery: Recovery,
        budgets: RedisBudgets,
        spool: FileSpool,
        spilled: FileSpool,
        leases: Leases,
    ) -> None:
        self._unrecorded = unrecorded
        self._recovery = recovery
        self._budgets = budgets
        self._spool = spool
        self._spilled = spilled
        self._spilled_through: dict[int, tuple[bytes, int]] = {}
        self._leases = leases

    async def run(self, tell_behind: Callable[[list[tuple[int, int]]], None]) -> None:
        """Forgets what is recorded, and tells of shards that were put back to an older state."""
        while True:
            await asyncio.sleep(LOOK_S)
            if behind := self._budgets.behind():
                tell_behind(behind)
            try:
                if not await self._budgets.is_vouched():
                    continue
                await self._look()
            except StoreAway:
                continue

    async def _look(self) -> None:
        await self._spill()
        for shard in {*self._unrecorded.shards(), *self._spilled_through}:
            epoch, through = await self._recovery.recorded(shard)
            if not epoch:
                continue
            await _keep(self._unrecorded.recorded(shard, epoch, through), self._spool)
            await self._look_at_spilled(shard, epoch, through)

    async def _spill(self) -> None:
        """What there is no room for in memory waits on disk: the ledger is far behind."""
        overflow = self._unrecorded.take_overflow()
        for entry in overflow:
            self._spilled_through[entry.settlement.shard] = entry.epoch, entry.seq
        await _keep(overflow, self._spilled)

    async def _look_at_spilled(self, shard: int, epoch: bytes, through: int) -> None:
        """Removes what was spilled once the ledger has all of it; what an earlier epoch took is for the keeper."""
        if shard not in self._spilled_through:
            return
        spilled_epoch, seq = self._spilled_through[shard]
        if spilled_epoch != epoch:
            self._spilled_through.clear()
            await self._spilled.hand_over()
        elif seq <= through:
            del self._spilled_through[shard]
            if not self._spilled_through:
                await self._spilled.drain(_has_it)

    def seqs(self) -> dict[int, int]:
        """How far this worker has seen each shard come."""
        return self._budgets.seqs()

    async def hand_over(self) -> list[dict[str, Any]]:
        """Everything acknowledged goes into the spool, for the keeper; returns what is under way."""
        live = [asdict(reservation) for reservation in self._leases.live()]
        taken = self._unrecorded.take_all()
        await _keep(taken, self._spool)
        await self._spool.hand_over()
        self._spilled_through.clear()
        await self._spilled.hand_over()
        log.warning("store.handed_over", acknowledged=len(taken), under_way=len(live))
        return live


async def _has_it(settlement: Settlement, verb: Verb) -> bool:
    """The ledger has it: nothing is left to do."""
    return True


async def _keep(entries: list[Acknowledged], spool: Spool) -> None:
    """Into the spool, together: they share the syncs."""
    await asyncio.gather(*(spool.keep(entry.settlement, entry.verb) for entry in entries))
