"""The invariants over everything (reservation.md 3.5): each shard's own, and Redis against the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.store import Store
from proxy.budgets.inspection import Inspection


async def invariants(store: Store, engine: AsyncEngine, shards: int) -> Mapping[str, Any]:
    """`{"ok", "checks": [{"id", "ok", "seen", "expected"}]}`, one check for each invariant over all shards."""
    inspections = [await store.budgets.inspect(shard) for shard in range(shards)]
    checks = _by_id(inspections)
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _by_id(inspections: list[Inspection]) -> list[dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for inspection in inspections:
        for check in inspection.checks:
            row = merged.setdefault(check.id, {"id": check.id, "ok": True, "seen": 0, "expected": 0})
            if not check.ok:
                row["ok"] = False
                row["seen"] = {"shard": inspection.shard, "seen": check.seen}
                row["expected"] = {"shard": inspection.shard, "expected": check.expected}
    return list(merged.values())
