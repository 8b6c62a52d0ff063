"""The audit log: who changed what from what to what. Append-only, and each entry seals the one before it.

For whoever writes anything that an admin may change: call, as the *last* statement of the same transaction,

    async with writing(engine) as connection:
        ...                                     # read `before` under a lock, change, read or make `after`
        await audit(connection, deed, now, "plan", plan_id, before, after)

`deed` (`domain.deeds.Deed`) comes from the admin plane as `asked.deed`; `by_the_gate("policy files")` is for what
nobody asked. `before` and `after` are the resource as dataclass or mapping, None where there is none. This also
compares the client's `If-Match` with `before` and marks its `Idempotency-Key` as done: either may refuse by an
exception, which takes the whole transaction back. If one deed changes several resources, the first call is for the
one that the path names; the others get `replace(deed, precondition=None)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import ChainHead, Page, Verification
from proxy.domain.deeds import Deed, difference
from proxy.gateway.ports import Clock
from proxy.ledger.engine import reading, writing
from proxy.ledger.idempotency import mark_done
from proxy.ledger.paging import after as following
from proxy.ledger.paging import page_of
from proxy.ledger.tables import audit_log, micros, moment

# See ADVISORY_LOCK of migrate.py for what the number is.
CHAIN_LOCK = 32734286
GENESIS = "0" * 64
BATCH = 1000


async def audit(
    connection: AsyncConnection,
    deed: Deed,
    now: datetime,
    kind: str,
    id: str,
    before: Any | None,
    after: Any | None,
) -> None:
    """Writes one change down; the chapter above says when and how. What changed nothing leaves no entry."""
    deed.require(before)
    await mark_done(connection, deed, now, kind, id)
    if changes := difference(before, after):
        await _append(connection, deed, now, "done", kind, id, changes)


@dataclass(frozen=True, slots=True)
class SqlAuditLog:
    """Implements `AuditLog`."""

    engine: AsyncEngine
    clock: Clock

    async def refused(self, deed: Deed) -> None:
        """Writes down that somebody tried what the role does not allow."""
        async with writing(self.engine) as connection:
            await _append(connection, deed, moment(self.clock.now_us()), "refused", "", "", {})

    async def entries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        wanted = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit + 1)
        for name, condition in _FILTERS.items():
            if name in filters:
                wanted = wanted.where(condition(filters[name]))
        if cursor is not None:
            wanted = wanted.where(following([audit_log.c.seq], cursor, newest_first=True))
        async with reading(self.engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: [row["seq"]])
        return Page([_entry(dict(row)) for row in page.data], page.next_cursor)

    async def verify(self, anchor: ChainHead | None = None, last: int | None = None) -> Verification:
        """Computes the chain anew: the whole of it, or its `last` entries.

        `anchor` is a head that was noted down earlier, outside the database: it must still be part of the chain,
        else entries were cut off or the whole was written anew.
        """
        async with reading(self.engine) as connection:
            head = await _head(connection)
            if anchor is not None and anchor.seq > head.seq:
                return Verification(0, head, f"The log ends at entry {head.seq}, before entry {anchor.seq}.")
            since = max(0, head.seq - last) if last is not None else 0
            return await _verified(connection, since, head, anchor)


async def _append(
    connection: AsyncConnection,
    deed: Deed,
    now: datetime,
    outcome: str,
    kind: str,
    id: str,
    changes: Mapping[str, Any],
) -> None:
    if connection.dialect.name == "postgresql":
        # Held until the transaction ends: one writer at a time extends the chain, as on SQLite anyway.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CHAIN_LOCK})
    head = await _head(connection)
    row = {
        "seq": head.seq + 1,
        "at": now,
        "actor_id": deed.actor.id,
        "actor_name": deed.actor.name,
        "actor_role": deed.actor.role,
        "method": deed.method,
        "route": deed.route,
        "resource_kind": kind,
        "resource_id": id,
        "outcome": outcome,
        "changes": orjson.dumps(changes, option=orjson.OPT_SORT_KEYS).decode(),
        "request_id": deed.request_id,
        "idempotency_key": deed.idempotency_key,
        "network": deed.network,
    }
    await connection.execute(insert(audit_log).values(**row, hash=_seal(head.hash, row)))


async def _head(connection: AsyncConnection) -> ChainHead:
    newest = select(audit_log.c.seq, audit_log.c.hash).order_by(audit_log.c.seq.desc()).limit(1)
    row = (await connection.execute(newest)).first()
    return ChainHead(0, GENESIS) if row is None else ChainHead(row.seq, row.hash)


def _seal(previous: str, row: Mapping[str, Any]) -> str:
    """SHA-256 over the hash before and the entry as JSON with sorted keys; its time as microseconds."""
    stated = {str(name): value for name, value in row.items() if name != "hash"} | {"at": micros(row["at"])}
    written = orjson.dumps(stated, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(previous.encode() + b"\n" + written).hexdigest()


async def _verified(
    connection: AsyncConnection, since: int, head: ChainHead, anchor: ChainHead | None
) -> Verification:
    at = ChainHead(since, GENESIS)
    if since:
        before = await connection.scalar(select(audit_log.c.hash).where(audit_log.c.seq == since))
        at = ChainHead(since, str(before))
    while rows := await _rows_after(connection, at.seq):
        for row in rows:
            if row["seq"] != at.seq + 1:
                return Verification(at.seq - since, head, f"Entry {at.seq + 1} is missing.")
            if row["hash"] != _seal(at.hash, row):
                return Verification(at.seq - since, head, f"Entry {row['seq']} is not what was written.")
            at = ChainHead(row["seq"], row["hash"])
            if anchor is not None and anchor.seq == at.seq and anchor.hash != at.hash:
                return Verification(at.seq - since, head, f"Entry {at.seq} is not the one that was noted down.")
    return Verification(at.seq - since, head, None)


async def _rows_after(connection: AsyncConnection, seq: int) -> Sequence[Mapping[str, Any]]:
    wanted = select(audit_log).where(audit_log.c.seq > seq).order_by(audit_log.c.seq).limit(BATCH)
    return [dict(row) for row in (await connection.execute(wanted)).mappings()]


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seq": row["seq"],
        "at": row["at"],
        "actor": {"id": row["actor_id"], "name": row["actor_name"], "role": row["actor_role"]},
        "method": row["method"],
        "route": row["route"],
        "resource": {"kind": row["resource_kind"], "id": row["resource_id"]} if row["resource_kind"] else None,
        "outcome": row["outcome"],
        "changes": orjson.loads(row["changes"]),
        "request_id": row["request_id"],
        "idempotency_key": row["idempotency_key"],
        "network": row["network"],
        "hash": row["hash"],
    }


_FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "resource_kind": lambda value: audit_log.c.resource_kind == value,
    "resource_id": lambda value: audit_log.c.resource_id == value,
    "actor": lambda value: audit_log.c.actor_id == value,
    "outcome": lambda value: audit_log.c.outcome == value,
    "from": lambda value: audit_log.c.at >= value,
    "to": lambda value: audit_log.c.at < value,
}
