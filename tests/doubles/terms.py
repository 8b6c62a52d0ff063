"""Subscriptions and grants in memory, over the directory in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from proxy.billing.ports import AlreadyExists, NotFound, Page, TooManyGrants
from proxy.domain.accounts import Customer, IssuedGrant, ScheduledChange, SubscriptionChange
from proxy.domain.deeds import Deed
from tests.doubles.directory import NOW, MemoryAccounts, page

LIVE_MOST = 3


class MemorySubscriptions:
    def __init__(self, accounts: MemoryAccounts) -> None:
        self.accounts = accounts
        self.changes: list[SubscriptionChange] = []

    def by(self, deed: Deed) -> MemorySubscriptions:
        bound = copy.copy(self)
        bound.accounts = self.accounts.by(deed)
        return bound

    async def change(
        self, customer_id: str, plan: str | None, anchor: datetime | None, reset: bool = False
    ) -> Customer:
        values: dict[str, Any] = {"plan": plan, "subscribed": True, "scheduled": None} if plan else {}
        if anchor or reset:
            values["anchor"] = anchor or NOW
        return await self._change(customer_id, "changed", values)

    async def schedule(self, customer_id: str, plan: str, cancels: bool = False) -> Customer:
        self._subscribed(await self.accounts.customer(customer_id))
        later = ScheduledChange(plan, NOW + timedelta(days=10), cancels)
        return await self._change(customer_id, "scheduled", {"scheduled": later})

    async def unschedule(self, customer_id: str) -> Customer:
        if (await self.accounts.customer(customer_id)).scheduled is None:
            raise NotFound("scheduled change of customer", customer_id)
        return await self._change(customer_id, "unscheduled", {"scheduled": None})

    async def cancel(self, customer_id: str, default_plan: str) -> Customer:
        self._subscribed(await self.accounts.customer(customer_id))
        ended = {"plan": default_plan, "subscribed": False, "scheduled": None}
        return await self._change(customer_id, "canceled", ended)

    async def history(self, customer_id: str, limit: int, cursor: str | None) -> Page[SubscriptionChange]:
        await self.accounts.customer(customer_id)
        return page([c for c in reversed(self.changes) if c.customer_id == customer_id], limit, cursor)

    def _subscribed(self, customer: Customer) -> None:
        if not customer.subscribed:
            raise NotFound("subscription of customer", customer.id)

    async def _change(self, id: str, what: str, values: Mapping[str, Any]) -> Customer:
        before = await self.accounts.customer(id)
        after = await self.accounts.change_customer(id, values)
        number = len(self.changes) + 1
        self.changes.append(SubscriptionChange(number, id, NOW, what, before.plan, after.plan, after.anchor, NOW))
        return after


class MemoryGrants:
    def __init__(self, accounts: MemoryAccounts) -> None:
        self.accounts = accounts
        self.kept: dict[str, IssuedGrant] = {}

    def by(self, deed: Deed) -> MemoryGrants:
        bound = copy.copy(self)
        bound.accounts = self.accounts.by(deed)
        return bound

    async def create(self, customer_id: str, fields: Mapping[str, Any]) -> IssuedGrant:
        await self.accounts.customer(customer_id)
        id = fields["id"] or f"grant_{len(self.kept) + 1}"
        if id in self.kept:
            raise AlreadyExists("grant", id)
        if len(self.kept) >= LIVE_MOST:
            raise TooManyGrants(customer_id, LIVE_MOST)
        given = {**fields, "id": id, "effective_at": fields["effective_at"] or NOW}
        self.kept[id] = IssuedGrant(**given, customer_id=customer_id, created_at=NOW, voided_at=None)
        self.accounts._project()
        return self.kept[id]

    async def grant(self, customer_id: str, id: str) -> IssuedGrant:
        if id not in self.kept or self.kept[id].customer_id != customer_id:
            raise NotFound("grant", id)
        return self.kept[id]

    async def grants(
        self, customer_id: str, limit: int, cursor: str | None, only_live: bool = False
    ) -> Page[IssuedGrant]:
        await self.accounts.customer(customer_id)
        theirs = [grant for grant in self.kept.values() if grant.customer_id == customer_id]
        return page([grant for grant in theirs if grant.live(NOW) or not only_live], limit, cursor)

    async def void(self, customer_id: str, id: str) -> IssuedGrant:
        grant = await self.grant(customer_id, id)
        self.accounts.deed.require(grant)
        self.kept[id] = replace(grant, voided_at=grant.voided_at or NOW)
        self.accounts._project()
        return self.kept[id]
