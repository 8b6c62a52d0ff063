"""What a worker remembers of what Redis acknowledged, until the ledger has it or Redis has lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog

from proxy.budgets.recovery import Recovery
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.budgets.unrecorded import Acknowledged, Unrecorded
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
        leases: Leases,
    ) -> None:
        self._unrecorded = unrecorded
        self._recovery = recovery
        self._budgets = budgets
        self._spool = spool
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
                for shard in self._unrecorded.shards():
                    epoch, through = await self._recovery.recorded(shard)
                    if epoch:
                        await _keep(self._unrecorded.recorded(shard, epoch, through), self._spool)
            except StoreAway:
                continue

    def seqs(self) -> dict[int, int]:
        """How far this worker has seen each shard come."""
        return self._budgets.seqs()

    async def hand_over(self) -> list[dict[str, Any]]:
        """Everything acknowledged goes into the spool, for the keeper; returns what is under way."""
        live = [asdict(reservation) for reservation in self._leases.live()]
        taken = self._unrecorded.take_all()
        await _keep(taken, self._spool)
        await self._spool.hand_over()
        log.warning("store.handed_over", acknowledged=len(taken), under_way=len(live))
        return live


async def _keep(entries: list[Acknowledged], spool: Spool) -> None:
    """Into the spool, together: they share the syncs."""
    await asyncio.gather(*(spool.keep(entry.settlement, entry.verb) for entry in entries))
