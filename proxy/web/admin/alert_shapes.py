"""What may be asked of alerts and webhooks, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from proxy.domain.alerts import ALERT_TYPES, AlertType
from proxy.web.admin.answers import Answer, Record
from proxy.web.admin.bodies import Body, PageQuery, Span, untouched
from proxy.web.admin.values import Filter, Id, Instant, Text, nearest


def _known(event: str) -> str:
    if event != "*" and event not in ALERT_TYPES:
        hint = nearest(event, ALERT_TYPES) or f" There is *, {', '.join(ALERT_TYPES)}."
        raise ValueError(f"{event!r} is no event.{hint}")
    return event


Event = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": ["*", *ALERT_TYPES]})]


def _once(events: list[Any]) -> list[Any]:
    if len(set(events)) < len(events):
        raise ValueError("it names an event twice")
    if "*" in events and len(events) > 1:
        raise ValueError('"*" means every event: write ["*"] alone, or the events one by one')
    return events


Events = Annotated[list[Event], Field(min_length=1, max_length=20), AfterValidator(_once)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[\x21-\x7e]+$")]


class NewWebhookEndpoint(Body):
    """Where alerts are to be sent. With `customer_id` only those that concern that customer are."""

    id: Id | None = None
    url: Url
    events: Events = Field(default=["*"])
    description: Text | None = None
    customer_id: Id | None = None


class WebhookEndpointChanges(Body):
    """What is to change; fields that are absent stay as they are."""

    url: Url = untouched()
    events: Events = untouched()
    description: Text | None = untouched()
    enabled: bool = untouched()


class AlertsQuery(Span, PageQuery):
    type: AlertType | None = None
    customer_id: Id | None = None
    budget_id: Filter | None = None


class DeliveriesQuery(PageQuery):
    status: Literal["pending", "delivered", "dead"] | None = None
    endpoint_id: Id | None = None
    type: Filter | None = None


class Alert(Record):
    """Something of note, raised once. `data` is what webhooks carry of it; `window_end` null: it never renews."""

    id: str
    type: str
    raised_at: Instant
    customer_id: str | None
    subject: str | None
    budget_id: str | None
    threshold: str | None
    window_start: Instant | None
    window_end: Instant | None
    data: dict[str, Any]


class WebhookEndpoint(Answer):
    """Where alerts are sent. `disabled_reason`: why the gate itself has disabled it."""

    id: str
    url: str
    events: list[str]
    description: str | None
    customer_id: str | None
    enabled: bool
    disabled_reason: str | None
    rotated_at: Instant | None
    created_at: Instant


class CreatedWebhookEndpoint(WebhookEndpoint):
    """With the secret that its receiver verifies signatures by, the only time that it is shown."""

    secret: str


class WebhookDelivery(Answer):
    """An alert on its way to an endpoint. `message_id` is the `webhook-id`, the same at every attempt; `next_at`
    is null unless it is pending; `last_status` is null if no answer came."""

    id: str
    endpoint_id: str
    message_id: str
    type: str
    status: str
    attempts: int
    created_at: Instant
    next_at: Instant | None
    last_attempt_at: Instant | None
    last_status: int | None
    last_error: str | None
