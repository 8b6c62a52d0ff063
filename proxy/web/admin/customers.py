"""Customers and their contacts."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import Page
from proxy.domain.accounts import Contact, Customer
from proxy.web.admin import answers, bodies
from proxy.web.admin.deps import AdminDeps
from proxy.web.admin.errors import bad_request
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.values import nearest


async def create_customer(asked: Asked) -> Customer:
    fields = asked.body.model_dump()
    fields["subscribed"] = fields["plan"] is not None
    fields["plan"] = await known_plan(asked.deps, fields["plan"])
    fields["anchor"] = fields["anchor"] or asked.deps.now()
    return await asked.accounts.create_customer(_with_optional_id(fields))


async def list_customers(asked: Asked) -> Page[Customer]:
    return await asked.deps.accounts.customers(asked.query.limit, asked.query.cursor)


async def get_customer(asked: Asked) -> Customer:
    return await asked.deps.accounts.customer(asked.path["customer_id"])


async def change_customer(asked: Asked) -> Customer:
    return await _change(asked, asked.body.model_dump(exclude_unset=True))


async def create_contact(asked: Asked) -> Contact:
    fields = _with_optional_id(asked.body.model_dump())
    return await asked.accounts.create_contact(asked.path["customer_id"], fields)


async def list_contacts(asked: Asked) -> Page[Contact]:
    query = asked.query
    return await asked.deps.accounts.contacts(asked.path["customer_id"], query.limit, query.cursor)


async def _change(asked: Asked, changes: dict[str, Any]) -> Customer:
    customer_id = asked.path["customer_id"]
    if "plan" in changes:
        await known_plan(asked.deps, changes["plan"])
    if not changes:
        present = await asked.deps.accounts.customer(customer_id)
        asked.deed.require(present)
        return present
    return await asked.accounts.change_customer(customer_id, changes)


async def known_plan(deps: AdminDeps, asked: str | None) -> str:
    """The plan that was named, or the default plan; raises `AdminError` if there is no such plan."""
    known = sorted(plan.id for plan in await deps.plans.plans())
    plan = asked if asked is not None else deps.default_plan
    if plan is None:
        raise bad_request("missing_required_parameter", f"Name a plan: one of {', '.join(known)}.", "plan")
    if plan not in known:
        hint = nearest(plan, known) or f" The plans are {', '.join(known)}."
        raise bad_request("plan_not_found", f"There is no plan {plan!r}.{hint}", "plan")
    return plan


def _with_optional_id(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "id" or value is not None}


_ALL = f"{PREFIX}/customers"
_ONE = f"{PREFIX}/customers/{{customer_id}}"

ROUTES = (
    Route(
        "POST", _ALL, create_customer, "Make a customer.", answers.Customer, 201,
        body=bodies.NewCustomer, errors=(409,),
    ),
    Route(
        "GET", _ALL, list_customers, "List the customers.", answers.Customer,
        query=bodies.PageQuery, listed=True,
    ),
    Route("GET", _ONE, get_customer, "Show a customer.", answers.Customer, errors=(404,)),
    Route(
        "PATCH", _ONE, change_customer,
        "Change a customer; `status` suspends it or lets it in again from the next request on.",
        answers.Customer, body=bodies.CustomerChanges, errors=(404,),
    ),
    Route(
        "POST", f"{_ONE}/contacts", create_contact, "Add a person to a customer.", answers.Contact, 201,
        body=bodies.NewContact, errors=(404, 409),
    ),
    Route(
        "GET", f"{_ONE}/contacts", list_contacts, "List the persons of a customer.", answers.Contact,
        query=bodies.PageQuery, listed=True, errors=(404,),
    ),
)  # fmt: skip
