"""The sums beside the events: what Redis is compared with, and rebuilt from."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.ledger.counter_sums import charged_by_counter
from proxy.ledger.entries import record_events
from proxy.ledger.rows import row_of


def charged(row: dict[str, Any], **amounts: int) -> dict[str, Any]:
    charges = [
        {"budget_id": "b", "window_start": 0, "grant_id": None, "amount": amount, "counter": counter}
        for counter, amount in amounts.items()
    ]
    return {**row, "charged": charges}


async def test_only_rows_really_inserted_are_summed(engine: AsyncEngine, entry: Any) -> None:
    """A redelivery must not make Redis look as if it had counted too little."""
    made = [row_of(e.fields, e.shard) for e in (entry("req_a"), entry("req_b"), entry("req_c"))]
    rows = [charged(made[0], a=5, b=1), charged(made[1], a=7)]
    for delivery in (rows, rows, [rows[0]]):
        await record_events(engine, delivery, 1)
    correction = charged(made[2], a=-2)
    await record_events(engine, [correction, rows[1]], 1)
    sums, seq = await charged_by_counter(engine, rows[0]["shard"])
    assert sums == {"a": 10, "b": 1}
    assert seq == max(row["seq"] for row in (*rows, correction))
