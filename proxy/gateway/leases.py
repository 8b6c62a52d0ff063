"""Leases: every reservation under way is renewed every 20 s with the output observed so far.

A lease lasts 60 s, so two renewals may be missed. Whoever is killed stops renewing, and the sweeper ends the
attempt as an orphan. A lost lease needs no action here: the settle that follows is recorded as late.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from proxy.domain.reservations import LiveReservation
from proxy.gateway import records
from proxy.gateway.admission import Admission
from proxy.gateway.ports import Budgets, Meters, StoreAway
from proxy.telemetry.failpoints import reach

RENEW_S = 20.0


class Leases:
    """The attempts under way in this worker."""

    def __init__(self, budgets: Budgets, meters: Meters, renew_s: float = RENEW_S) -> None:
        self._budgets = budgets
        self._renew_s = renew_s
        self._meters = meters
        self._live: dict[str, tuple[Admission, Callable[[], int]]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def begin(self, admission: Admission, observed: Callable[[], int]) -> None:
        """From now on it is renewed; `observed()` says how many output tokens were seen so far."""
        self._live[admission.ref] = (admission, observed)

    def end(self, ref: str) -> None:
        self._live.pop(ref, None)

    def live(self) -> list[LiveReservation]:
        """Everything under way, for whoever rebuilds the shards that have lost it."""
        return [records.live(admission) for admission, _ in self._live.values()]

    async def run(self) -> None:
        """Renews for as long as the worker lives."""
        while True:
            await asyncio.sleep(self._renew_s)
            await self.renew()

    async def renew(self) -> None:
        """One round: a batch for each shard that has an attempt under way."""
        by_shard: dict[int, dict[str, int]] = defaultdict(dict)
        for ref, (admission, observed) in self._live.items():
            by_shard[admission.standing.identity.shard][ref] = observed()
        for shard, observed_by_ref in by_shard.items():
            try:
                lost = await self._budgets.extend(shard, observed_by_ref)
            except StoreAway:
                self._meters.fault("lease_not_renewed")
                continue
            reach("mid_extend")
            for _ in lost.intersection(self._live):
                self._meters.fault("lease_lost")
