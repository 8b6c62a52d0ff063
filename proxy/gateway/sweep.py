"""The sweeper: what nobody finished is ended as an orphan when its lease has run out.

Its budget is charged the input bound and the output observed so far; its event says `orphaned`, `estimated`
and not billable. Should the worker live after all and settle, that becomes a correction.
"""

from __future__ import annotations

import asyncio

import orjson

from proxy.domain.money import usd_text
from proxy.domain.pricing import cost_pico
from proxy.domain.reservations import Hold, Settlement, by_counter
from proxy.domain.usage import Usage
from proxy.gateway import records
from proxy.gateway.ports import Meters, OverdueReservation, StoreAway, Sweepable
from proxy.gateway.records import Recalled
from proxy.gateway.settle import Ending, charged_amounts, closing

SWEEP_S = 5.0
BATCH = 100


class Sweeper:
    """Sweeps the shards, one after another, every five seconds. `expired`: how many it has ended so far."""

    def __init__(self, store: Sweepable, shards: int, meters: Meters, sweep_s: float = SWEEP_S) -> None:
        self._store = store
        self._sweep_s = sweep_s
        self._shards = shards
        self._meters = meters
        self.expired = 0

    async def run(self) -> None:
        while True:
            await self.sweep()
            await asyncio.sleep(self._sweep_s)

    async def sweep(self) -> int:
        """One round; returns how many reservations were expired."""
        expired = 0
        for shard in range(self._shards):
            try:
                expired += await self._sweep_shard(shard)
            except StoreAway:
                self._meters.fault("sweep_store_away")
                return expired
        return expired

    async def _sweep_shard(self, shard: int) -> int:
        """Batch after batch, for as long as each brings something to an end: a closed shard does not."""
        total = 0
        while overdue := await self._store.overdue(shard, BATCH):
            ended = 0
            for reservation in overdue:
                settled = await self._store.expire(reservation, orphaned(reservation))
                ended += settled.outcome == "settled"
            self.expired += ended
            total += ended
            if ended == 0 or len(overdue) < BATCH:
                break
        return total


def orphaned(overdue: OverdueReservation) -> Settlement:
    """The charge and the event of an attempt whose lease ran out (DESIGN 4, Lease)."""
    known = Recalled(overdue.record, overdue.names)
    usage = Usage(known.input_bound, overdue.observed_output_tokens, source="estimated")
    cost = cost_pico(usage, known.price) + known.calls_pico if known.price else 0
    parts = by_counter(known.counters, overdue.amounts)
    of_counters = list(zip(known.counters, parts, strict=True))
    requests = next((sum(own) for counter, own in of_counters if counter.budget.meter == "requests"), 0)
    ending = Ending("orphaned", "usage", usage, error_type="lease_expired")
    times: dict[str, int | None] = {
        "admitted_at": overdue.admitted_us,
        "first_byte_at": None,
        "finished_at": None,
        "latency_ms": None,
        "ttft_ms": None,
    }
    # A rolling hold may have been raised since its record was written.
    held = records.held(tuple(Hold(c, sum(own), own if c.sources else ()) for c, own in of_counters))
    event = closing({**known.event, "held": held}, ending, usd_text(cost) if known.price else None, times)
    return Settlement(
        overdue.ref,
        known.event["customer_id"],
        overdue.shard,
        known.counters,
        charged_amounts(known.counters, usage, cost, requests),
        usage.input_tokens + usage.output_tokens,
        known.limits,
        (usage.input_tokens, usage.output_tokens, cost),
        orjson.dumps(event),
        parts,
    )
