"""Counts denials per minute, customer, agent, model and reason, each delta once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.ledger.engine import writing
from proxy.ledger.tables import denial_deltas, denials, moment

DAY_US = 86_400_000_000
# A model's name comes from the client; Postgres indexes no value longer than a third of a page.
NAME_CHARACTERS = 256
MESSAGE_CHARACTERS = 1000

KEY = ("minute", "customer_id", "agent_id", "model", "reason")
Key = tuple[int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Delta:
    """What one worker counted since it last told: by key the count, a sample's request id and its message."""

    id: str
    counts: Mapping[Key, tuple[int, str, str]]


def delta_of(fields: Mapping[str, Any]) -> Delta:
    """The delta of a stream entry's fields (`StreamEntry`); ValueError says what is wrong with it."""
    try:
        counts = {}
        for part in orjson.loads(fields["denials"]):
            minute, *names = (part[name] for name in KEY)
            key = (int(minute), *(_text(name, NAME_CHARACTERS) for name in names))
            counts[key] = (
                int(part["count"]),
                _text(part["sample_request_id"], NAME_CHARACTERS),
                _text(part["sample_message"], MESSAGE_CHARACTERS),
            )
        return Delta(_text(fields["id"], NAME_CHARACTERS), counts)
    except KeyError as missing:
        raise ValueError(f"the delta has no {missing.args[0]}") from None
    except (TypeError, ValueError) as fault:
        raise ValueError(f"denials is not a list of counts: {fault}") from None


async def record_denials(engine: AsyncEngine, deltas: Sequence[Delta], now_us: int) -> int:
    """Adds the deltas that were not added before, in one transaction; returns how many those were."""
    by_id = {delta.id: delta for delta in deltas}
    if not by_id:
        return 0
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    marked = insert(denial_deltas).on_conflict_do_nothing().returning(denial_deltas.c.id)
    added = insert(denials)
    added = added.on_conflict_do_update(
        index_elements=list(KEY), set_={"count": denials.c.count + added.excluded.count}
    )
    async with writing(engine) as connection:
        applied_at = moment(now_us)
        marks = [{"id": id, "applied_at": applied_at} for id in sorted(by_id)]
        new = list((await connection.execute(marked, marks)).scalars())
        if rows := _summed(by_id[id] for id in new):
            await connection.execute(added, rows)
        await connection.execute(delete(denial_deltas).where(denial_deltas.c.applied_at < moment(now_us - DAY_US)))
    return len(new)


def _summed(deltas: Iterable[Delta]) -> list[dict[str, Any]]:
    """One row per key, in the keys' order: two keepers that lock in one order do not lock each other out."""
    sums: dict[Key, tuple[int, str, str]] = {}
    for delta in deltas:
        for key, (count, request_id, message) in delta.counts.items():
            before, first_id, first_message = sums.get(key, (0, request_id, message))
            sums[key] = (before + count, first_id, first_message)
    return [
        dict(zip(KEY, key, strict=True))
        | {"count": count, "sample_request_id": request_id, "sample_message": message}
        for key, (count, request_id, message) in sorted(sums.items())
    ]


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is due")
    return value[:most].replace("\0", "\\0")
