"""The subscription of a customer: its plan, its anchor, what is to become of it, and what became of it before."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from proxy.billing.ports import Page
from proxy.domain.accounts import Customer, SubscriptionChange
from proxy.web.admin import bodies
from proxy.web.admin.answers import Answer
from proxy.web.admin.customers import known_plan
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.values import Instant


class Scheduled(Answer):
    """What a subscription becomes at `at`; with `cancels` it ends then, and `plan` is the default plan."""

    plan: str
    at: Instant
    cancels: bool


class Subscription(Answer):
    """The plan a customer is on, and the time from which its windows count. Not `subscribed`: the default plan."""

    customer_id: str
    subscribed: bool
    plan: str
    anchor: Instant
    timezone: str
    scheduled: Scheduled | None


class Change(Answer):
    """What happened to a subscription: `what` was asked at `changed_at` and holds from `effective_at` on."""

    changed_at: Instant
    what: str = Field(
        description="started, changed, re-anchored, scheduled, unscheduled, canceled, default_changed; or created,"
        " of a customer without a subscription."
    )
    from_plan: str | None
    plan: str
    anchor: Instant
    effective_at: Instant


async def get_subscription(asked: Asked) -> Customer:
    return await asked.deps.accounts.customer(asked.path["customer_id"])


async def put_subscription(asked: Asked) -> Customer:
    body, customer_id = asked.body, asked.path["customer_id"]
    if body.plan is not None:
        await known_plan(asked.deps, body.plan)
    subscriptions = asked.deps.subscriptions.by(asked.deed)
    if body.when == "period_end":
        return await subscriptions.schedule(customer_id, body.plan)
    return await subscriptions.change(customer_id, body.plan, body.anchor, body.usage == "reset")


async def cancel_subscription(asked: Asked) -> Customer:
    default_plan = await known_plan(asked.deps, None)
    subscriptions = asked.deps.subscriptions.by(asked.deed)
    if asked.query.when == "period_end":
        return await subscriptions.schedule(asked.path["customer_id"], default_plan, cancels=True)
    return await subscriptions.cancel(asked.path["customer_id"], default_plan)


async def cancel_scheduled_change(asked: Asked) -> Customer:
    return await asked.deps.subscriptions.by(asked.deed).unschedule(asked.path["customer_id"])


async def list_subscription_changes(asked: Asked) -> Page[SubscriptionChange]:
    query = asked.query
    return await asked.deps.subscriptions.history(asked.path["customer_id"], query.limit, query.cursor)


def _subscription(customer: Customer) -> dict[str, Any]:
    return {
        "customer_id": customer.id,
        "subscribed": customer.subscribed,
        "plan": customer.plan,
        "anchor": customer.anchor,
        "timezone": customer.timezone,
        "scheduled": customer.scheduled,
    }


_ONE = f"{PREFIX}/customers/{{customer_id}}/subscription"

ROUTES = (
    Route(
        "GET", _ONE, get_subscription, "Show which plan a customer is on, and what is to become of that.",
        Subscription, errors=(404,), view=_subscription,
    ),
    Route(
        "PUT", _ONE, put_subscription,
        "Put a customer on a plan, at once or at the end of its period, or re-anchor its windows.", Subscription,
        body=bodies.SubscriptionChange, errors=(404,), view=_subscription,
    ),
    Route(
        "DELETE", _ONE, cancel_subscription,
        "End a subscription, at once or at the end of its period: the customer is on the default plan then.",
        Subscription, query=bodies.CancelQuery, errors=(404,), view=_subscription,
    ),
    Route(
        "DELETE", f"{_ONE}/scheduled", cancel_scheduled_change, "Take a scheduled change back.", Subscription,
        errors=(404,), view=_subscription,
    ),
    Route(
        "GET", f"{_ONE}/history", list_subscription_changes, "List what became of a subscription, newest first.",
        Change, query=bodies.PageQuery, listed=True, errors=(404,),
    ),
)  # fmt: skip
