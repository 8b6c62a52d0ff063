"""What the pages and the courier need of alerts and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from proxy.billing.ports import Page
from proxy.domain.deeds import Deed

DeliveryStatus = Literal["pending", "delivered", "dead"]


class EndpointDisabled(Exception):
    """Nothing is delivered to this webhook endpoint while it is disabled."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The webhook endpoint {id!r} is disabled: enable it first.")
        self.id = id


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Where alerts are sent. `events` are types of alerts, or `("*",)`; `customer_id`: only what concerns it.

    `disabled_reason` says why the gate itself has disabled it. `salt` and `previous_salt` make its secrets,
    together with what only the gate knows; the previous one is still signed with for a day after `rotated_at`.
    """

    id: str
    url: str
    events: tuple[str, ...]
    description: str | None
    customer_id: str | None
    enabled: bool
    disabled_reason: str | None
    salt: str
    previous_salt: str | None
    rotated_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one endpoint. `message_id` and `body` are the same at every attempt."""

    id: str
    endpoint_id: str
    message_id: str
    type: str
    body: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    next_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `status`: the HTTP status, if there was one. `error` None: it was delivered.

    `gone`: the endpoint wants nothing more, ever.
    """

    status: int | None
    error: str | None
    gone: bool = False


class Alerts(Protocol):
    """The alerts that were raised."""

    async def alerts(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        """Newest first; filters `type, customer_id, budget_id, from, to`, all optional."""
        ...

    async def alert(self, id: str) -> Mapping[str, Any]: ...


class Webhooks(Protocol):
    """Webhook endpoints and what is delivered to them. Unknown ids raise `NotFound`."""

    def by(self, deed: Deed) -> Self: ...

    async def create_endpoint(self, fields: Mapping[str, Any]) -> WebhookEndpoint:
        """`id` is made if absent; raises `AlreadyExists`, or `NotFound` for the customer."""
        ...

    async def endpoints(self, limit: int, cursor: str | None) -> Page[WebhookEndpoint]: ...

    async def endpoint(self, id: str) -> WebhookEndpoint: ...

    async def change_endpoint(self, id: str, changes: Mapping[str, Any]) -> WebhookEndpoint: ...

    async def delete_endpoint(self, id: str) -> None:
        """With all that was, or was to be, delivered to it."""
        ...

    async def rotate_secret(self, id: str) -> WebhookEndpoint: ...

    async def send_test(self, id: str) -> Delivery:
        """Puts a `webhook.test` into its queue; raises `EndpointDisabled`."""
        ...

    async def deliveries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Delivery]:
        """Newest first; filters `status, endpoint_id, type`, all optional."""
        ...

    async def delivery(self, id: str) -> Delivery: ...

    async def replay(self, id: str) -> Delivery:
        """Due at once, with all its attempts before it; one that is pending is only made due."""
        ...


class DeliveryQueue(Protocol):
    """What the courier takes deliveries from."""

    async def claim(
        self, most: int, of_each: int, busy: Mapping[str, int], now_us: int, lease_us: int
    ) -> Sequence[tuple[Delivery, WebhookEndpoint, str]]:
        """At most `most` that are due, each ours until the lease ends, with its claim.

        No more of one endpoint than `of_each`, those in `busy` (by endpoint, under way already) included.
        """
        ...

    async def finish(
        self, delivery: Delivery, claim: str, outcome: Outcome, now_us: int, next_us: int | None
    ) -> bool:
        """Writes an attempt down; `next_us` None: there is no further. False: the claim was no longer ours."""
        ...

    async def lengths(self) -> tuple[int, int]:
        """(pending, dead)."""
        ...

    async def forget_delivered(self, before_us: int) -> int:
        """Deletes what was delivered before then; returns how many."""
        ...
