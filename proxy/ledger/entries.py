"""Appends to the record: each event once, whatever is delivered again, and none held up by another.

Nothing here updates or deletes a row of `usage_events`. What is recorded stays as it is; a later truth is a
correction, a row of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.ledger import counter_sums
from proxy.ledger.engine import reading, writing
from proxy.ledger.rows import COLUMNS, Row
from proxy.ledger.tables import moment, set_aside, usage_events
from proxy.telemetry.failpoints import reach

# One transaction: large enough to pay for its fsync, small enough to let another writer in within 50 ms.
BATCH_ROWS = 500
# SQLSTATE classes in which Postgres refuses a row for what it holds: data, integrity, size.
REFUSING = ("22", "23", "54")

_NAMES = ", ".join(COLUMNS)
_JSON = frozenset({"raw_usage", "held", "charged"})
_SQLITE_KNOWN = "SELECT id FROM usage_events WHERE id IN (SELECT value FROM json_each(?))"
_SQLITE_INSERT = f"INSERT INTO usage_events ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"
_POSTGRES_TYPES = ", ".join(
    f"{name} {usage_events.c[name].type.compile(postgresql.dialect())}"  # type: ignore[no-untyped-call]
    for name in COLUMNS
)
# All rows travel as one JSON parameter, and the answer says which were new: with many parameters it can only
# say how many, and only one row at a time.
_POSTGRES_INSERT = (
    f"INSERT INTO usage_events ({_NAMES}) SELECT {_NAMES} FROM json_to_recordset($1::json) AS given"
    f" ({_POSTGRES_TYPES}) ON CONFLICT (id) DO NOTHING RETURNING id"
)


@dataclass(slots=True)
class Recorded:
    """What became of the rows given to `record_events`: ids of new ones, and for each refused one the reason."""

    inserted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetAside:
    """An event that could not be recorded: its id (or its stream entry's), why, and what it said."""

    id: str
    reason: str
    document: Any


async def record_events(engine: AsyncEngine, rows: Sequence[Row], now_us: int) -> Recorded:
    """Inserts the rows whose ids are new and commits; everything that it returns is on disk.

    A row that the database refuses is set aside in the table of that name, alone. Raises what the driver says
    when the database is away: then some batches may be recorded, and the same call may simply be made again.
    """
    recorded = Recorded()
    first_of_each: dict[str, Row] = {}
    for row in rows:
        first_of_each.setdefault(row["id"], row)
    unique = list(first_of_each.values())
    for first in range(0, len(unique), BATCH_ROWS):
        await _record(engine, unique[first : first + BATCH_ROWS], recorded, now_us)
    return recorded


async def recorded_among(engine: AsyncEngine, ids: Sequence[str]) -> set[str]:
    """Which of these events the ledger has."""
    found: set[str] = set()
    async with reading(engine) as connection:
        for first in range(0, len(ids), BATCH_ROWS):
            some = select(usage_events.c.id).where(usage_events.c.id.in_(ids[first : first + BATCH_ROWS]))
            found.update(await connection.scalars(some))
    return found


async def put_aside(engine: AsyncEngine, items: Sequence[SetAside], now_us: int) -> None:
    """Keeps what could not be recorded; what was set aside before stays as it was."""
    if not items:
        return
    rows = [
        {
            "id": _storable(item.id),
            "reason": _storable(item.reason),
            "document": json.dumps(item.document, default=str),
            "set_aside_at": moment(now_us),
        }
        for item in items
    ]
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    async with writing(engine) as connection:
        await connection.execute(insert(set_aside).on_conflict_do_nothing(), rows)


async def _record(engine: AsyncEngine, batch: list[Row], recorded: Recorded, now_us: int) -> None:
    """Records a batch whole; if it is refused, its halves, down to the row that is at fault."""
    try:
        async with writing(engine) as connection:
            inserted = await _insert(connection, batch)
            await counter_sums.add(connection, [row for row in batch if row["id"] in inserted])
            reach("writer_before_commit")
    except (DBAPIError, OverflowError, orjson.JSONEncodeError) as fault:
        if not _refuses(fault):
            raise
        reason = _reason(fault)
    else:
        recorded.inserted |= inserted
        return
    if len(batch) == 1:
        await put_aside(engine, [SetAside(batch[0]["id"], reason, batch[0])], now_us)
        recorded.refused[batch[0]["id"]] = reason
        return
    half = len(batch) // 2
    await _record(engine, batch[:half], recorded, now_us)
    await _record(engine, batch[half:], recorded, now_us)


async def _insert(connection: AsyncConnection, batch: list[Row]) -> set[str]:
    """Inserts what is new, by the database's shortest way; returns the ids of the new rows."""
    if connection.dialect.name == "postgresql":
        result = await connection.exec_driver_sql(_POSTGRES_INSERT, (orjson.dumps(batch).decode(),))
        return set(result.scalars())
    # The write lock is ours already, so nothing can come between this question and the insert.
    ids = orjson.dumps([row["id"] for row in batch]).decode()
    known = set((await connection.exec_driver_sql(_SQLITE_KNOWN, (ids,))).scalars())
    new = [row for row in batch if row["id"] not in known]
    if new:
        await connection.exec_driver_sql(_SQLITE_INSERT, [_sqlite_values(row) for row in new])
    return {row["id"] for row in new}


def _sqlite_values(row: Row) -> tuple[Any, ...]:
    return tuple(
        orjson.dumps(row[name]).decode() if name in _JSON and row[name] is not None else row[name]
        for name in COLUMNS
    )


def _refuses(fault: Exception) -> bool:
    """Whether a row is at fault, and not the database, the disk or the way there."""
    if not isinstance(fault, DBAPIError):
        return True
    sqlstate = getattr(fault.orig, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate)[:2] in REFUSING
    return isinstance(fault, IntegrityError | DataError) or isinstance(fault.orig, OverflowError)


def _reason(fault: Exception) -> str:
    return str(fault.orig if isinstance(fault, DBAPIError) else fault)


def _storable(text: str) -> str:
    """Postgres stores no NUL in text."""
    return text.replace("\0", "\\0")
