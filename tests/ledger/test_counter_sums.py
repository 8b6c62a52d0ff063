"""The sums beside the events: what Redis is compared with, and rebuilt from."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.ledger.counter_sums import charged_by_counter, highest_seqs
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


async def test_the_highest_seq_of_every_shard_is_known_at_once(engine: AsyncEngine, entry: Any) -> None:
    """By it a Redis that was put back to an older state is told from one that is not."""
    rows = [row_of({**entry(f"req_{n}").fields, "seq": str(seq)}, shard) for n, (shard, seq) in enumerate(
        [(0, 3), (0, 7), (2, 5), (15, 1)]
    )]  # fmt: skip
    assert await highest_seqs(engine, range(4)) == {0: 0, 1: 0, 2: 0, 3: 0}
    await record_events(engine, rows, 1)
    assert await highest_seqs(engine, [0, 1, 2, 15]) == {0: 7, 1: 0, 2: 5, 15: 1}
