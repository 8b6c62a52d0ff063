"""Counts denials per minute, customer, agent, model and reason, each delta once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.gateway.shadow import SHADOW
from proxy.ledger.engine import writing
from proxy.ledger.tables import denial_deltas, denials, moment

DAY_US = 86_400_000_000
# One transaction's worth, so that other writers get in between.
BATCH_DELTAS = 2000
# A model's name comes from the client; Postgres indexes no value longer than a third of a page.
NAME_CHARACTERS = 256
MESSAGE_CHARACTERS = 1000

KEY = ("minute", "customer_id", "agent_id", "model", "reason")
Key = tuple[int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Delta:
    """So many more denials of one key, as one worker counted them, with a sample.

    `shadow`: a plan in shadow mode would have refused them, and let them through.
    """

    id: str
    key: Key
    count: int
    sample_request_id: str
    sample_message: str
    shadow: bool = False


def deltas_of(fields: Mapping[str, Any]) -> list[Delta]:
    """The deltas of a stream entry's fields (`StreamEntry`); ValueError says what is wrong with it."""
    try:
        return [_delta(part) for part in orjson.loads(fields["deltas"])]
    except KeyError as missing:
        raise ValueError(f"the entry, or a delta of it, has no {missing.args[0]}") from None
    except (TypeError, ValueError) as fault:
        raise ValueError(f"deltas is no list of counts: {fault}") from None


def _delta(part: Mapping[str, Any]) -> Delta:
    customer_id, agent_id, model, reason = (_text(part[name], NAME_CHARACTERS) for name in KEY[1:])
    return Delta(
        _text(part["id"], NAME_CHARACTERS),
        (int(part["minute"]), customer_id, agent_id, model, reason.removeprefix(SHADOW)),
        int(part["count"]),
        _text(part["sample_request_id"], NAME_CHARACTERS),
        _text(part["sample_message"], MESSAGE_CHARACTERS),
        reason.startswith(SHADOW),
    )


async def record_denials(engine: AsyncEngine, deltas: Sequence[Delta], now_us: int) -> int:
    """Adds the deltas that were not added before and commits; returns how many those were."""
    unique = list({delta.id: delta for delta in deltas}.values())
    added = 0
    for first in range(0, len(unique), BATCH_DELTAS):
        added += await _add(engine, unique[first : first + BATCH_DELTAS], now_us)
    return added


async def _add(engine: AsyncEngine, deltas: Sequence[Delta], now_us: int) -> int:
    by_id = {delta.id: delta for delta in deltas}
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    marked = insert(denial_deltas).on_conflict_do_nothing().returning(denial_deltas.c.id)
    added = insert(denials)
    added = added.on_conflict_do_update(
        index_elements=[*KEY, "shadow"], set_={"count": denials.c.count + added.excluded.count}
    )
    async with writing(engine) as connection:
        marks = [{"id": id, "applied_at": moment(now_us)} for id in sorted(by_id)]
        new = list((await connection.execute(marked, marks)).scalars())
        if rows := _summed(by_id[id] for id in new):
            await connection.execute(added, rows)
        await connection.execute(delete(denial_deltas).where(denial_deltas.c.applied_at < moment(now_us - DAY_US)))
    return len(new)


def _summed(deltas: Iterable[Delta]) -> list[dict[str, Any]]:
    """One row per key, in the keys' order: two keepers that lock in one order do not lock each other out."""
    sums: dict[tuple[Key, bool], dict[str, Any]] = {}
    for delta in deltas:
        row = sums.setdefault(
            (delta.key, delta.shadow),
            dict(zip(KEY, delta.key, strict=True))
            | {
                "shadow": delta.shadow,
                "count": 0,
                "sample_request_id": delta.sample_request_id,
                "sample_message": delta.sample_message,
            },
        )
        row["count"] += delta.count
    return [row for _, row in sorted(sums.items())]


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is due")
    return value[:most].replace("\0", "\\0")
