"""Grants as they were issued: written once, voided at most once, never deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger

from proxy.billing.ports import NotFound, Page, TooManyGrants
from proxy.domain.accounts import IssuedGrant
from proxy.domain.deeds import Deed
from proxy.domain.grants import PRIORITY_USUAL
from proxy.ledger.directory import SqlAccounts, Written, insert_row
from proxy.ledger.engine import reading
from proxy.ledger.paging import after, page_of
from proxy.ledger.tables import grants, micros, moment

LIVE_MOST = 100


class SqlGrants:
    """Implements `Grants`, by the same deed as `accounts`."""

    def __init__(self, accounts: SqlAccounts) -> None:
        self._accounts = accounts

    def by(self, deed: Deed) -> SqlGrants:
        return SqlGrants(self._accounts.by(deed))

    async def create(self, customer_id: str, fields: Mapping[str, Any]) -> IssuedGrant:
        """Usable from the next request on, or when it is effective. Raises `AlreadyExists`, `TooManyGrants`."""
        now = self._accounts.now()
        row = {"per": "customer", "budget_id": None, "expires_at": None, "reason": None, **fields}
        row["id"] = fields.get("id") or self._accounts.new_id("grt")
        row["priority"] = fields.get("priority") or PRIORITY_USUAL
        row["effective_at"] = fields.get("effective_at") or now
        row |= {"customer_id": customer_id, "created_at": now, "voided_at": None}

        async def act(connection: AsyncConnection) -> Written:
            theirs = and_(grants.c.customer_id == customer_id, live(now))
            count = await connection.scalar(select(func.count()).select_from(grants).where(theirs)) or 0
            if count >= LIVE_MOST and IssuedGrant(**row).live(now):
                raise TooManyGrants(customer_id, LIVE_MOST)
            await insert_row(connection, grants, row, "grant")
            return "grant", row["id"], None, await _grant(connection, customer_id, row["id"])

        made: IssuedGrant = await self._accounts.change(customer_id, act)
        return made

    async def grant(self, customer_id: str, id: str) -> IssuedGrant:
        async with reading(self._accounts.engine) as connection:
            return await _grant(connection, customer_id, id)

    async def grants(
        self, customer_id: str, limit: int, cursor: str | None, only_live: bool = False
    ) -> Page[IssuedGrant]:
        """Oldest first; with `only_live` those that are over are left out."""
        await self._accounts.customer(customer_id)
        key = (type_coerce(grants.c.created_at, BigInteger), grants.c.id)
        wanted = select(grants).where(grants.c.customer_id == customer_id).order_by(*key).limit(limit + 1)
        if only_live:
            wanted = wanted.where(live(self._accounts.now()))
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=False))
        async with reading(self._accounts.engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["created_at"]), row["id"]))
        return Page([IssuedGrant(**row) for row in page.data], page.next_cursor)

    async def void(self, customer_id: str, id: str) -> IssuedGrant:
        """The unused part stops at the next request; what was used stays used. A second time changes nothing."""

        async def act(connection: AsyncConnection) -> Written:
            before = await _grant(connection, customer_id, id)
            usable = and_(grants.c.id == id, grants.c.voided_at.is_(None))
            await connection.execute(update(grants).where(usable).values(voided_at=self._accounts.now()))
            return "grant", id, before, await _grant(connection, customer_id, id)

        voided: IssuedGrant = await self._accounts.change(customer_id, act)
        return voided


def live(now: datetime) -> ColumnElement[bool]:
    return and_(grants.c.voided_at.is_(None), or_(grants.c.expires_at.is_(None), grants.c.expires_at > now))


async def live_documents(
    connection: AsyncConnection, customer_ids: Sequence[str], now_us: int
) -> dict[str, list[dict[str, Any]]]:
    """What is projected: by customer its grants that are not over, in the order of their making."""
    wanted = select(grants).where(grants.c.customer_id.in_(customer_ids), live(moment(now_us)))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (await connection.execute(wanted.order_by(grants.c.created_at, grants.c.id))).mappings():
        found.setdefault(row["customer_id"], []).append(
            {
                **{name: row[name] for name in ("id", "meter", "amount", "per", "budget_id", "priority")},
                "effective_at_us": micros(row["effective_at"]),
                "expires_at_us": None if row["expires_at"] is None else micros(row["expires_at"]),
                "created_at_us": micros(row["created_at"]),
            }
        )
    return found


async def _grant(connection: AsyncConnection, customer_id: str, id: str) -> IssuedGrant:
    wanted = select(grants).where(grants.c.id == id, grants.c.customer_id == customer_id)
    row = (await connection.execute(wanted)).mappings().first()
    if row is None:
        raise NotFound("grant", id)
    return IssuedGrant(**row)
