"""What every counter was charged in all, kept beside the events in the very transaction that inserts them.

So Redis can be compared with the ledger every minute, and rebuilt from it in a moment, without reading a year of
events. Only rows that were really inserted count: a redelivered event adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.ledger.engine import reading
from proxy.ledger.tables import counter_sums, usage_events


async def add(connection: AsyncConnection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds what these new rows were charged."""
    amounts: Counter[tuple[str, int]] = Counter()
    for row in rows:
        for charge in row["charged"]:
            if charge.get("counter") is not None:
                amounts[charge["counter"], row["shard"]] += charge["amount"]
    if not amounts:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    given = insert(counter_sums)
    upsert = given.on_conflict_do_update(
        index_elements=[counter_sums.c.counter],
        set_={"amount": counter_sums.c.amount + given.excluded.amount},
    )
    # In one order everywhere: two writers that lock the same rows must not wait for each other.
    values = [{"counter": name, "shard": shard, "amount": n} for (name, shard), n in sorted(amounts.items())]
    await connection.execute(upsert, values)


async def charged_by_counter(engine: AsyncEngine, shard: int) -> tuple[dict[str, int], int]:
    """(counter -> amount, highest `seq` recorded) of a shard, from one snapshot."""
    async with reading(engine) as connection:
        sums = await connection.execute(
            select(counter_sums.c.counter, counter_sums.c.amount).where(counter_sums.c.shard == shard)
        )
        by_counter = {counter: int(amount) for counter, amount in sums}
        seq = await connection.scalar(select(func.max(usage_events.c.seq)).where(usage_events.c.shard == shard))
    return by_counter, int(seq or 0)


async def highest_seqs(engine: AsyncEngine, shards: Iterable[int]) -> dict[int, int]:
    """The highest `seq` recorded of each of these shards, 0 for none. Each is one step down an index."""
    asked = list(shards)
    highest = [
        select(func.max(usage_events.c.seq))
        .where(usage_events.c.shard == shard)
        .scalar_subquery()
        .label(f"s{shard}")
        for shard in asked
    ]
    async with reading(engine) as connection:
        row = (await connection.execute(select(*highest))).one()
    return {shard: int(seq or 0) for shard, seq in zip(asked, row, strict=True)}
