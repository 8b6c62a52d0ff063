"""Idempotency keys: a write that is sent twice is done once, and both times answered the same.

A key is claimed before the write. The write's own transaction marks the claim as done (`mark_done`, called by
`audit`), so that however a process ends, either both are there or neither. A claim that was left behind undone
may be taken over; whoever still holds the old claim then finds, at the end of its transaction, that it is no
longer its own, and its change is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import ClaimLost, Earlier, KeptAnswer
from proxy.domain.deeds import Deed
from proxy.gateway.ports import Clock
from proxy.ledger.engine import writing
from proxy.ledger.tables import idempotency_keys, moment

KEPT = timedelta(hours=24)
# Longer than any write may take from its claim to its commit; see DEADLINE_S of the admin plane.
ABANDONED = timedelta(seconds=60)
KEYS = idempotency_keys.c


@dataclass(frozen=True, slots=True)
class SqlIdempotency:
    """Implements `Idempotency`."""

    engine: AsyncEngine
    clock: Clock

    async def claim(self, token_id: str, key: str, fingerprint: str, claim: str) -> Earlier | None:
        now = moment(self.clock.now_us())
        row = {"token_id": token_id, "key": key, "fingerprint": fingerprint, "claim": claim, "claimed_at": now}
        async with writing(self.engine) as connection:
            insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
            over = or_(
                KEYS.claimed_at < now - KEPT,
                and_(KEYS.claimed_at < now - ABANDONED, KEYS.done_at.is_(None), KEYS.status.is_(None)),
            )
            fresh = dict.fromkeys(("done_at", "resource_kind", "resource_id", "status", "body", "etag"))
            taken = insert(idempotency_keys).values(**row)
            taken = taken.on_conflict_do_update(
                index_elements=[KEYS.token_id, KEYS.key], set_={**row, **fresh}, where=over
            )
            if (await connection.execute(taken.returning(KEYS.claim))).first() is not None:
                return None
            there = select(idempotency_keys).where(KEYS.token_id == token_id, KEYS.key == key)
            return _earlier((await connection.execute(there)).mappings().one(), fingerprint)

    async def keep(self, token_id: str, key: str, claim: str, answer: KeptAnswer) -> None:
        await self._change(
            update(idempotency_keys)
            .where(*_ours(token_id, key, claim))
            .values(status=answer.status, body=answer.body, etag=answer.etag)
        )

    async def release(self, token_id: str, key: str, claim: str) -> None:
        undone = (KEYS.done_at.is_(None), KEYS.status.is_(None))
        await self._change(delete(idempotency_keys).where(*_ours(token_id, key, claim), *undone))

    async def sweep(self) -> int:
        """Forgets keys that are older than a day; returns how many."""
        old = KEYS.claimed_at < moment(self.clock.now_us()) - KEPT
        return await self._change(delete(idempotency_keys).where(old))

    async def _change(self, statement: Any) -> int:
        async with writing(self.engine) as connection:
            return int((await connection.execute(statement)).rowcount)


async def mark_done(connection: AsyncConnection, deed: Deed, now: datetime, kind: str, id: str) -> None:
    """In the transaction of the write; raises `ClaimLost` if somebody else has taken the key over."""
    if deed.claim is None or deed.idempotency_key is None:
        return
    marked = (
        update(idempotency_keys)
        .where(*_ours(deed.actor.id, deed.idempotency_key, deed.claim))
        .values(done_at=now, resource_kind=kind, resource_id=id)
    )
    if (await connection.execute(marked)).rowcount == 0:
        raise ClaimLost()


def _ours(token_id: str, key: str, claim: str) -> tuple[Any, ...]:
    return KEYS.token_id == token_id, KEYS.key == key, KEYS.claim == claim


def _earlier(row: Any, fingerprint: str) -> Earlier:
    resource = f"{row['resource_kind']} {row['resource_id']}" if row["resource_kind"] else None
    if row["fingerprint"] != fingerprint:
        return Earlier("reused", resource, None)
    if row["status"] is not None:
        return Earlier("answered", resource, KeptAnswer(row["status"], row["body"], row["etag"]))
    return Earlier("done" if row["done_at"] is not None else "under_way", resource, None)
