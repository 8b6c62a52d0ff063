"""What the invariants ask of the record, on both databases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.ledger.audit import DAY_US, events_set_aside, overrun, unmatched_rows
from proxy.ledger.entries import SetAside, put_aside, record_events
from proxy.ledger.rows import row_of

NOW_US = 1_795_200_000_123_456
COUNTER = "acme/customer/monthly/tokens/P1M/1795000000000000"


async def test_a_correction_of_the_last_day_without_its_terminal_row_is_found(
    engine: AsyncEngine, entry: Any
) -> None:
    """A difference to nothing: its attempt was lost."""
    rows = [row_of(e.fields, e.shard) for e in (entry("req_a"), entry("req_b"), entry("req_c"))]
    orphan = {**rows[1], "id": "req_b:1:c9", "kind": "correction"}
    matched = {**rows[0], "id": "req_a:1:c8", "kind": "correction"}
    old = {**rows[2], "id": "req_c:1:c7", "kind": "correction", "admitted_at": NOW_US - 2 * DAY_US}
    await record_events(engine, [rows[0], matched, orphan, old], 1)
    assert await unmatched_rows(engine, NOW_US) == ["req_b:1:c9"]


async def test_the_index_of_corrections_is_used(sqlite_engine: AsyncEngine) -> None:
    """It is asked every minute: without the index it would read a day's events each time."""
    seen: list[str] = []
    async with sqlite_engine.connect() as connection:
        plan = await connection.execute(
            text("EXPLAIN QUERY PLAN SELECT id FROM usage_events WHERE admitted_at >= 5 AND kind != 'terminal'")
        )
        seen = [row[3] for row in plan]
    assert "ix_usage_events_kind" in seen[0]


async def test_only_what_was_charged_over_the_holds_of_the_window_counts_as_overrun(
    engine: AsyncEngine, entry: Any
) -> None:
    """What the provider billed beyond the bound is taken; anything else beyond a limit is overshoot."""

    def row(id: str, held: int, charged: int, **changes: Any) -> dict[str, Any]:
        made = row_of(entry(id).fields, 3)
        of = {"budget_id": "monthly", "window_start": 5, "grant_id": None}
        charges = [{**of, "amount": charged, "counter": COUNTER}]
        return {**made, "customer_id": "acme", "held": [{**of, "amount": held}], "charged": charges, **changes}

    rows = [
        row("req_a", 10, 25),
        row("req_b", 10, 7),
        row("req_c", 10, 90, admitted_at=1_700_000_000_000_000),
        row("req_d", 10, 40, customer_id="globex"),
    ]
    await record_events(engine, rows, 1)
    assert await overrun(engine, 3, COUNTER) == 15


async def test_events_set_aside_are_counted(engine: AsyncEngine) -> None:
    """While there are any the sums lack what they were charged."""
    assert await events_set_aside(engine) == 0
    await put_aside(engine, [SetAside("a", "r", {}), SetAside("b", "r", {})], NOW_US)
    assert await events_set_aside(engine) == 2
