"""Grants: credit packs, top-ups and promotions, given to one customer on top of whatever plan it is on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import Field

from proxy.billing.ports import Page
from proxy.domain.accounts import IssuedGrant
from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.policy import Budget
from proxy.web.admin import bodies
from proxy.web.admin.answers import Amount, Record
from proxy.web.admin.errors import bad_request
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.values import Instant, nearest


class GrantBalance(Record):
    """What one budget has used of a grant, and holds of it; each budget that it raises has the whole amount."""

    budget_id: str
    used: Amount
    held: Amount
    remaining: Amount


class Grant(Record):
    """An amount given to a customer. It is immutable, but that it can be voided."""

    id: str
    customer_id: str
    meter: str
    amount: Amount
    per: str
    budget_id: str | None
    priority: int
    effective_at: Instant
    expires_at: Instant | None
    reason: str | None
    created_at: Instant
    voided_at: Instant | None
    status: str = Field(description="pending, active, expired or voided, now.")
    balances: list[GrantBalance] | None = Field(
        description="By budget of the customer's plan that it raises; null if Redis is away, or for budgets per"
        " agent or user, of which each has the amount."
    )


async def create_grant(asked: Asked) -> dict[str, Any]:
    fields, customer_id = asked.body.fields(), asked.path["customer_id"]
    now = asked.deps.now()
    if fields["expires_at"] is not None and fields["expires_at"] <= max(now, fields["effective_at"] or now):
        raise bad_request("invalid_value", "`expires_at` must be later than now and `effective_at`.", "expires_at")
    if fields["budget_id"] is not None:
        fields["per"] = await _checked_per(asked, fields)
    fields["per"] = fields["per"] or "customer"
    made = await asked.deps.grants.by(asked.deed).create(customer_id, fields)
    return await _with_balances(asked, made)


async def list_grants(asked: Asked) -> Page[dict[str, Any]]:
    query = asked.query
    page = await asked.deps.grants.grants(
        asked.path["customer_id"], query.limit, query.cursor, only_live=query.live is True
    )
    balances = await asked.deps.grant_balances(asked.path["customer_id"], page.data)
    return Page([_told(asked, grant, balances) for grant in page.data], page.next_cursor)


async def get_grant(asked: Asked) -> dict[str, Any]:
    grant = await asked.deps.grants.grant(asked.path["customer_id"], asked.path["grant_id"])
    return await _with_balances(asked, grant)


async def void_grant(asked: Asked) -> dict[str, Any]:
    return await _with_balances(asked, await _void(asked))


async def delete_grant(asked: Asked) -> None:
    await _void(asked)


async def _void(asked: Asked) -> IssuedGrant:
    return await asked.deps.grants.by(asked.deed).void(asked.path["customer_id"], asked.path["grant_id"])


async def _checked_per(asked: Asked, fields: Mapping[str, Any]) -> str:
    """The `per` of the budget that is named: of this customer or of any plan, and of this meter."""
    id, meter = fields["budget_id"], fields["meter"]
    budgets: list[Budget] = [budget for plan in await asked.deps.plans.plans() for budget in plan.budgets]
    customer = await asked.deps.accounts.customer(asked.path["customer_id"])
    own = customer.overrides.get("budgets", {}).values()
    meters = {(budget.id, budget.meter): budget.per for budget in budgets}
    meters |= {(o["own"]["id"], o["own"]["meter"]): o["own"]["per"] for o in own if o and "own" in o}
    if (id, meter) not in meters:
        known = {other for other, _ in meters}
        if id in known:
            counted = sorted(other for budget_id, other in meters if budget_id == id)
            told = f"The budget {id!r} counts {', '.join(counted)}, not {meter}."
            raise bad_request("invalid_value", told, "meter")
        hint = nearest(id, known) or f" There is {', '.join(sorted(known)[:20])}."
        raise bad_request("budget_not_found", f"No plan has a budget {id!r}.{hint if known else ''}", "budget_id")
    per = str(meters[id, meter])
    if fields["per"] not in (None, per):
        raise bad_request("invalid_value", f"The budget {id!r} is per {per}: leave `per` out.", "per")
    return per


async def _with_balances(asked: Asked, grant: IssuedGrant) -> dict[str, Any]:
    balances = await asked.deps.grant_balances(asked.path["customer_id"], [grant])
    return _told(asked, grant, balances)


def _told(asked: Asked, grant: IssuedGrant, balances: Mapping[str, Any] | None) -> dict[str, Any]:
    now = asked.deps.now()
    status = "voided" if grant.voided_at else "pending" if now < grant.effective_at else "active"
    status = status if grant.voided_at or grant.live(now) else "expired"
    return _view(grant) | {"status": status, "balances": balances.get(grant.id) if balances else None}


def _view(grant: IssuedGrant | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(grant, IssuedGrant):
        return grant
    money = grant.meter == "cost_usd"
    return asdict(grant) | {"amount": usd_text(grant.amount * PICO_PER_MICRO) if money else grant.amount}


_ALL = f"{PREFIX}/customers/{{customer_id}}/grants"
_ONE = f"{_ALL}/{{grant_id}}"
_COMES_AND_GOES = frozenset(("status", "balances"))

ROUTES = (
    Route(
        "POST", _ALL, create_grant, "Give a customer an amount on top of its plan, from the next request on.",
        Grant, 201, body=bodies.NewGrant, errors=(404, 409), view=_view, volatile=_COMES_AND_GOES,
    ),
    Route(
        "GET", _ALL, list_grants, "List the grants of a customer, oldest first.", Grant, query=bodies.GrantsQuery,
        listed=True, errors=(404,),
    ),
    Route(
        "GET", _ONE, get_grant, "Show a grant, and what is left of it.", Grant, errors=(404,), view=_view,
        volatile=_COMES_AND_GOES,
    ),
    Route(
        "POST", f"{_ONE}/void", void_grant, "Void a grant: what was used stays used, the rest stops at once.",
        Grant, errors=(404,), view=_view, volatile=_COMES_AND_GOES,
    ),
    Route("DELETE", _ONE, delete_grant, "Void a grant, as `void` does.", status=204, errors=(404,)),
)  # fmt: skip
