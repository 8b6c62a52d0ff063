"""A settlement that Redis cannot take any more goes into the ledger directly, once, by the same rules.

It happens when Redis has lost its data, or has forgotten a reference that was finished long ago. An attempt that
the ledger knows as an orphan gets the correction that Redis would have written; one it knows otherwise is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.domain.money import pico_of
from proxy.domain.reservations import Settlement, shares, sources_of
from proxy.ledger.engine import reading
from proxy.ledger.entries import record_events
from proxy.ledger.rows import Row, row_of
from proxy.ledger.spool_records import Verb
from proxy.ledger.tables import usage_events

Amounts = tuple[int, ...]


async def take_over(engine: AsyncEngine, settlement: Settlement, verb: Verb, now_us: int) -> Amounts | None:
    """Records a settlement; returns what each of its `sources_of` is to be charged, or None if the ledger had it.

    Raises what the driver says when the database is away, and ValueError for an event that is none.
    """
    charged = shares(settlement) if verb == "settle" else [0] * len(sources_of(settlement))
    row = _row(settlement, charged, kind="terminal", prior=(0, 0, 0))
    if (await record_events(engine, [row], now_us)).inserted:
        return tuple(charged)
    earlier = await _orphan(engine, row["id"]) if verb == "settle" else None
    if earlier is None:
        return None
    before = {charge["counter"]: charge["amount"] for charge in earlier["charged"] if "counter" in charge}
    difference = [
        amount - before.get(source.name, 0)
        for (_, source), amount in zip(sources_of(settlement), charged, strict=True)
    ]
    prior = (earlier["input_tokens"], earlier["output_tokens"], pico_of(earlier["cost_usd"] or "0"))
    correction = _row(settlement, difference, kind="correction", prior=prior)
    return tuple(difference) if (await record_events(engine, [correction], now_us)).inserted else None


def _row(settlement: Settlement, amounts: Sequence[int], kind: str, prior: tuple[int, int, int]) -> Row:
    """The row that the stream entry would have become; it has no `seq`, for no shard has counted it."""
    charged = [
        {
            "budget_id": counter.budget.id,
            "window_start": counter.starts_us,
            "grant_id": source.grant_id,
            "amount": amount,
            "counter": source.name,
        }
        for (counter, source), amount in zip(sources_of(settlement), amounts, strict=True)
        if amount
    ]
    fields = {
        "event": settlement.event.decode(),
        "kind": kind,
        "seq": "0",
        "charged": orjson.dumps(charged).decode(),
        "late": "1" if kind == "correction" else "0",
        "disputed": "0",
        "prior": ",".join(map(str, prior)),
    }
    return row_of(fields, settlement.shard)


async def _orphan(engine: AsyncEngine, id: str) -> dict[str, Any] | None:
    """The attempt's terminal row if it is an orphan that nothing has corrected yet."""
    request_id, _, attempt = id.rpartition(":")
    mine = (usage_events.c.request_id == request_id, usage_events.c.attempt == int(attempt))
    async with reading(engine) as connection:
        rows = await connection.scalar(select(func.count()).select_from(usage_events).where(*mine))
        found = await connection.execute(select(usage_events).where(usage_events.c.id == id))
        row = found.mappings().first()
    return dict(row) if row is not None and rows == 1 and row["status"] == "orphaned" else None
