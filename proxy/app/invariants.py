"""The invariants over everything (reservation.md 3.5): each shard's own, and Redis against the ledger.

I4 and I7 compare two stores that move. A shard is compared only in a moment in which it stands still: everything
that it has settled is recorded, and nothing was settled while its counters were read. A shard so busy that no
such moment comes is left out, and the answer says how many were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.store import Store
from proxy.budgets.inspection import Inspection
from proxy.gateway.ports import Clock
from proxy.ledger.audit import highest_limits, overrun, unmatched_rows
from proxy.ledger.counter_sums import charged_by_counter

TRIES = 20
WAIT_S = 0.1
SHOWN_MAX = 20


async def invariants(store: Store, engine: AsyncEngine, shards: int, clock: Clock) -> Mapping[str, Any]:
    """`{"ok", "checks": [{"id", "ok", "seen", "expected"}]}`, one check for each invariant over all shards."""
    looks = await asyncio.gather(*(_look(store, engine, shard) for shard in range(shards)))
    checks = _of_shards([inspection for inspection, _ in looks])
    quiet = [(inspection, charged) for inspection, charged in looks if charged is not None]
    checks.append(_recorded(quiet, busy=shards - len(quiet)))
    unmatched = await unmatched_rows(engine, clock.now_us())
    checks.append({"id": "I6", "ok": not unmatched, "seen": unmatched, "expected": []})
    checks.append(await _within_limits(quiet, engine))
    checks.sort(key=lambda check: str(check["id"]))
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


async def _look(store: Store, engine: AsyncEngine, shard: int) -> tuple[Inspection, dict[str, int] | None]:
    """A shard's counters and what the ledger says they were charged; None if it never stood still."""
    inspection = await store.budgets.inspect(shard)
    for _ in range(TRIES):
        charged, recorded_seq = await charged_by_counter(engine, shard)
        # Looked at before, compared after: what was settled in between shows in the sequence.
        still = inspection.events == 0 and recorded_seq == inspection.seq == await store.books.seq(shard)
        if still or (inspection.seq == 0 and not inspection.counters):
            return inspection, charged
        await asyncio.sleep(WAIT_S)
        inspection = await store.budgets.inspect(shard)
    return inspection, None


def _of_shards(inspections: list[Inspection]) -> list[dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for inspection in inspections:
        for check in inspection.checks:
            row = merged.setdefault(check.id, {"id": check.id, "ok": True, "seen": "as expected", "expected": ""})
            if not check.ok:
                row["ok"] = False
                row["seen"] = {"shard": inspection.shard, "seen": check.seen}
                row["expected"] = {"shard": inspection.shard, "expected": check.expected}
    return list(merged.values())


def _recorded(quiet: list[tuple[Inspection, dict[str, int]]], busy: int) -> dict[str, Any]:
    """I4: what Redis counts as used is what the ledger's events were charged."""
    wrong = {
        name: (used, charged.get(name, 0))
        for inspection, charged in quiet
        for name, (used, _) in inspection.counters.items()
        if used != charged.get(name, 0)
    }
    shown = dict(list(wrong.items())[:SHOWN_MAX])
    return {
        "id": "I4",
        "ok": not wrong,
        "seen": {name: used for name, (used, _) in shown.items()} if wrong else {"shards_too_busy": busy},
        "expected": {name: charged for name, (_, charged) in shown.items()},
    }


async def _within_limits(quiet: list[tuple[Inspection, dict[str, int]]], engine: AsyncEngine) -> dict[str, Any]:
    """I7: no counter is beyond the highest limit its budget ever had, but for what was used over the holds."""
    limits = await highest_limits(engine)
    beyond: dict[str, int] = {}
    for inspection, _ in quiet:
        for name, (used, held) in inspection.counters.items():
            _, _, budget_id, meter, window, _ = name.rsplit("/", 5)
            limit = limits.get((budget_id, meter, window))
            if limit is not None and used + held > limit:
                excess = used + held - limit - await overrun(engine, inspection.shard, name)
                if excess > 0:
                    beyond[name] = excess
    return {"id": "I7", "ok": not beyond, "seen": beyond, "expected": {}}
