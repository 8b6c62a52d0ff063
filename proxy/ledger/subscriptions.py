"""Subscriptions: which plan a customer is on, from when on, and what is to become of that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import ColumnElement, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import NotFound, Page
from proxy.domain.accounts import Customer, SubscriptionChange
from proxy.domain.deeds import Deed, by_the_gate
from proxy.domain.subscriptions import period_end_us
from proxy.ledger.audit_log import audit
from proxy.ledger.directory import SqlAccounts, Written
from proxy.ledger.engine import reading, writing
from proxy.ledger.paging import after as following
from proxy.ledger.paging import page_of
from proxy.ledger.subscription_history import NOTHING_SCHEDULED, SUBSCRIBED, customer_of, note, what_changed
from proxy.ledger.tables import customers, micros, moment, outbox, subscription_changes

log = structlog.get_logger(__name__)

BATCH = 200


class SqlSubscriptions:
    """Implements `Subscriptions`, by the same deed as `accounts`."""

    def __init__(self, accounts: SqlAccounts) -> None:
        self._accounts = accounts

    def by(self, deed: Deed) -> SqlSubscriptions:
        return SqlSubscriptions(self._accounts.by(deed))

    async def change(
        self, customer_id: str, plan: str | None, anchor: datetime | None, reset: bool = False
    ) -> Customer:
        """From the next request on. `reset`: the windows begin anew now, as if re-anchored."""

        def values(before: Customer, now: datetime) -> Mapping[str, Any]:
            wanted: dict[str, Any] = {} if plan is None else {"plan": plan, **SUBSCRIBED}
            if anchor is not None or reset:
                wanted["anchor"] = anchor or now
            if before.scheduled is not None and plan is None and "anchor" in wanted:
                wanted["scheduled_at"] = _period_end(before, wanted["anchor"], now)
            return wanted

        return await self._rewrite(customer_id, values)

    async def schedule(self, customer_id: str, plan: str, cancels: bool = False) -> Customer:
        """At the end of the present period. The plan that it is on already: nothing will change after all."""

        def values(before: Customer, now: datetime) -> Mapping[str, Any]:
            if not before.subscribed:
                raise NotFound("subscription of customer", customer_id)
            if plan == before.plan and not cancels:
                return NOTHING_SCHEDULED
            at = _period_end(before, before.anchor, now)
            return {"scheduled_plan": plan, "scheduled_at": at, "scheduled_cancel": cancels}

        return await self._rewrite(customer_id, values)

    async def unschedule(self, customer_id: str) -> Customer:
        def values(before: Customer, now: datetime) -> Mapping[str, Any]:
            if before.scheduled is None:
                raise NotFound("scheduled change of customer", customer_id)
            return NOTHING_SCHEDULED

        return await self._rewrite(customer_id, values)

    async def cancel(self, customer_id: str, default_plan: str) -> Customer:
        """From the next request on it is on the default plan; what was used stays used."""

        def values(before: Customer, now: datetime) -> Mapping[str, Any]:
            if not before.subscribed:
                raise NotFound("subscription of customer", customer_id)
            return {"plan": default_plan, "subscribed": False, **NOTHING_SCHEDULED}

        return await self._rewrite(customer_id, values)

    async def history(self, customer_id: str, limit: int, cursor: str | None) -> Page[SubscriptionChange]:
        """Newest first."""
        await self._accounts.customer(customer_id)
        key = [subscription_changes.c.id]
        wanted = select(subscription_changes).where(subscription_changes.c.customer_id == customer_id)
        wanted = wanted.order_by(key[0].desc()).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(following(key, cursor, newest_first=True))
        async with reading(self._accounts.engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: [row["id"]])
        return Page([SubscriptionChange(**row) for row in page.data], page.next_cursor)

    async def _rewrite(self, customer_id: str, values: Any) -> Customer:
        now = self._accounts.now()

        async def act(connection: AsyncConnection) -> Written:
            before = await _customer(connection, customer_id)
            wanted = values(before, now)
            if wanted:
                await connection.execute(update(customers).where(customers.c.id == customer_id).values(**wanted))
            after = await _customer(connection, customer_id)
            if what := what_changed(before, after):
                await note(connection, what, before, after, now)
            return "customer", customer_id, before, after

        changed: Customer = await self._accounts.change(customer_id, act)
        return changed


async def apply_due(engine: AsyncEngine, now_us: int) -> int:
    """Makes the scheduled changes whose time has come, each once, however many keepers try; returns how many.

    Workers have obeyed them since their time. What is due is announced in the outbox.
    """
    due = customers.c.scheduled_at <= moment(now_us)
    applied = 0
    async with reading(engine) as connection:
        ids = list((await connection.execute(select(customers.c.id).where(due).limit(BATCH))).scalars())
    for id in ids:
        applied += await _become(engine, and_(customers.c.id == id, due), id, now_us)
    return applied


async def adopt_default_plan(engine: AsyncEngine, default_plan: str, now_us: int) -> None:
    """Puts every customer without a subscription on the default plan of the settings; to be projected after."""
    ending = and_(customers.c.scheduled_cancel, customers.c.scheduled_plan != default_plan)
    unsubscribed = and_(~customers.c.subscribed, customers.c.plan != default_plan)
    async with writing(engine) as connection:
        wanted = select(customers).where(unsubscribed).order_by(customers.c.id)
        if engine.dialect.name == "postgresql":
            wanted = wanted.with_for_update()
        changed = [customer_of(row) for row in (await connection.execute(wanted)).mappings()]
        if not changed and not await connection.scalar(select(customers.c.id).where(ending).limit(1)):
            return
        later = customers.c.revision + 1
        await connection.execute(
            update(customers).where(ending).values(scheduled_plan=default_plan, revision=later)
        )
        await connection.execute(update(customers).where(unsubscribed).values(plan=default_plan, revision=later))
        for before in changed:
            after = await _customer(connection, before.id)
            await note(connection, "default_changed", before, after, moment(now_us))
    log.info("default_plan.adopted", plan=default_plan, customers=len(changed))


async def _become(engine: AsyncEngine, still_due: ColumnElement[bool], id: str, now_us: int) -> int:
    now = moment(now_us)
    async with writing(engine) as connection:
        row = select(customers).where(still_due)
        if engine.dialect.name == "postgresql":
            row = row.with_for_update()
        found = (await connection.execute(row)).mappings().first()
        if found is None:
            return 0
        before = customer_of(found)
        assert before.scheduled is not None
        values = {"plan": before.scheduled.plan, "subscribed": not before.scheduled.cancels, **NOTHING_SCHEDULED}
        values["revision"] = customers.c.revision + 1
        await connection.execute(update(customers).where(customers.c.id == id).values(**values))
        after = await _customer(connection, id)
        what = what_changed(before, after) or "changed"
        await note(connection, what, before, after, now, before.scheduled.at)
        await connection.execute(insert(outbox).values(customer_id=id, created_at=now))
        await audit(connection, by_the_gate("subscription schedule"), now, "customer", id, before, after)
    return 1


async def _customer(connection: AsyncConnection, id: str) -> Customer:
    row = (await connection.execute(select(customers).where(customers.c.id == id))).mappings().first()
    if row is None:
        raise NotFound("customer", id)
    return customer_of(row)


def _period_end(customer: Customer, anchor: datetime, now: datetime) -> datetime:
    return moment(period_end_us(micros(anchor), ZoneInfo(customer.timezone), micros(now)))
