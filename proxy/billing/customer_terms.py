"""What a customer has beside its plan, as pages and routes ask for it: subscription, grants, overrides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from proxy.billing.ports import Page
from proxy.domain.accounts import Customer, IssuedGrant, SubscriptionChange
from proxy.domain.deeds import Deed


class Subscriptions(Protocol):
    """Every write returns the customer as it is then, once the gate obeys it, or raises `NotProjected`.

    What needs a subscription or a scheduled change where there is none raises `NotFound`.
    """

    def by(self, deed: Deed) -> Subscriptions: ...

    async def change(
        self, customer_id: str, plan: str | None, anchor: datetime | None, reset: bool = False
    ) -> Customer:
        """From the next request on; a plan takes the place of what is scheduled. `reset` re-anchors now."""
        ...

    async def schedule(self, customer_id: str, plan: str, cancels: bool = False) -> Customer:
        """At the end of the present period; the plan that it is on takes back what is scheduled."""
        ...

    async def unschedule(self, customer_id: str) -> Customer: ...

    async def cancel(self, customer_id: str, default_plan: str) -> Customer: ...

    async def history(self, customer_id: str, limit: int, cursor: str | None) -> Page[SubscriptionChange]:
        """Newest first."""
        ...


class Grants(Protocol):
    """Writes return once the gate obeys them, or raise `NotProjected`."""

    def by(self, deed: Deed) -> Grants: ...

    async def create(self, customer_id: str, fields: Mapping[str, Any]) -> IssuedGrant:
        """`meter` and `amount` (in its unit) at least. Raises `AlreadyExists`, `TooManyGrants`."""
        ...

    async def grant(self, customer_id: str, id: str) -> IssuedGrant: ...

    async def grants(
        self, customer_id: str, limit: int, cursor: str | None, only_live: bool = False
    ) -> Page[IssuedGrant]:
        """Oldest first."""
        ...

    async def void(self, customer_id: str, id: str) -> IssuedGrant: ...
