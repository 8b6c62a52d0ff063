"""`faregate customers`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_facts, print_json, print_listed, print_table
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Customers, contacts and subscriptions.")

Customer = Annotated[str, typer.Argument(help="The customer's id.")]
Plan = Annotated[str | None, typer.Option(help="The plan's id.  [default: the gate's default plan]")]
Anchor = Annotated[
    str | None, typer.Option(help="When its windows begin, as 2026-12-01T00:00:00Z.  [default: now]")
]

_COLUMNS = [("id", "id"), ("name", "name"), ("status", "status"), ("plan", "plan"), ("timezone", "timezone")]
_FACTS = [
    *_COLUMNS,
    ("anchor", "anchor"),
    ("email", "email"),
    ("phone", "phone"),
    ("address", "address"),
    ("description", "description"),
    ("created at", "created_at"),
]
_BUDGETS = [
    ("meter", "meter"),
    ("per", "per"),
    ("window", "window"),
    ("limit", "limit"),
    ("used", "used"),
    ("held", "held"),
    ("remaining", "remaining"),
    ("resets at", "resets_at"),
]


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    name: Annotated[str, typer.Argument(help="The customer's name.")],
    id: Annotated[str | None, typer.Option(help="Its id.  [default: one is made]")] = None,
    plan: Plan = None,
    anchor: Anchor = None,
    timezone: Annotated[str | None, typer.Option(help="In which its windows run.  [default: UTC]")] = None,
    email: Annotated[str | None, typer.Option()] = None,
    phone: Annotated[str | None, typer.Option()] = None,
    address: Annotated[str | None, typer.Option()] = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Make a customer.

    \b
    faregate customers create "Acme Corp" --id acme --plan starter
    faregate customers create "Globex" --timezone Europe/Berlin --anchor 2026-12-01T00:00:00+01:00
    """
    body = given(id=id, name=name, plan=plan, anchor=anchor, timezone=timezone)
    body |= given(email=email, phone=phone, address=address, description=description)
    _show(gate.ask("POST", "/customers", body), as_json)


@verb(app, "list")
def list_customers(gate: Gate, as_json: bool, limit: Limit = 100) -> None:
    """List the customers."""
    print_listed(gate.listed("/customers", {}, limit), _COLUMNS, "There is no customer yet.", as_json)


@verb(app, "show")
def show(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Show a customer.

    \b
    faregate customers show acme
    """
    _show(gate.get(f"/customers/{quoted(customer)}"), as_json)


@verb(app, "entitlements")
def entitlements(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Show what a customer may use now, and what is left of it.

    \b
    faregate customers entitlements acme
    """
    _entitlements(gate.get(f"/customers/{quoted(customer)}/entitlements"), as_json)


@verb(app, "override")
def override(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    file: Annotated[
        typer.FileText, typer.Argument(help="JSON with features, models, budgets and rate_limits; - reads stdin.")
    ],
) -> None:
    """Replace what wins over a customer's plan, from the next request on; {} leaves nothing of it.

    \b
    faregate customers override acme overrides.json
    echo '{"budgets": {"monthly-tokens": {"limit": 5000000}}}' | faregate customers override acme -
    """
    try:
        body = json.load(file)
    except ValueError as fault:
        raise typer.BadParameter(f"{file.name} is no JSON: {fault}") from None
    _entitlements(gate.ask("PUT", f"/customers/{quoted(customer)}/entitlements", body), as_json)


@verb(app, "suspend")
def suspend(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Refuse every further request of a customer, from the next one on.

    \b
    faregate customers suspend acme
    """
    _change(gate, customer, {"status": "suspended"}, "suspended: its next request is refused", as_json)


@verb(app, "resume")
def resume(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Let a suspended customer in again.

    \b
    faregate customers resume acme
    """
    _change(gate, customer, {"status": "active"}, "active again", as_json)


@verb(app, "plan")
def plan(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    plan: Annotated[str | None, typer.Argument(help="The plan to put it on.  [default: only show]")] = None,
    anchor: Annotated[str | None, typer.Option(help="Where its windows begin.  [default: as before]")] = None,
) -> None:
    """Show which plan a customer is on, or put it on another from the next request on.

    \b
    faregate customers plan acme
    faregate customers plan acme pro
    """
    path = f"/customers/{quoted(customer)}/subscription"
    if plan is None and anchor is not None:
        raise typer.BadParameter("Name the plan too: faregate customers plan CUSTOMER PLAN --anchor …")
    answer = gate.get(path) if plan is None else gate.ask("PUT", path, given(plan=plan, anchor=anchor))
    if as_json:
        return print_json(answer)
    return typer.echo(f"Customer {answer['customer_id']} is on plan {answer['plan']} since {answer['anchor']}.")


@verb(app, "contacts")
def contacts(gate: Gate, as_json: bool, customer: Customer, limit: Limit = 100) -> None:
    """List the persons of a customer."""
    columns = [("id", "id"), ("name", "name"), ("email", "email"), ("phone", "phone")]
    answer = gate.listed(f"/customers/{quoted(customer)}/contacts", {}, limit)
    print_listed(answer, columns, f"Customer {customer} has no contacts yet.", as_json)


@verb(app, "add-contact")
def add_contact(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    name: Annotated[str, typer.Argument(help="The person's name.")],
    id: Annotated[str | None, typer.Option(help="Its id.  [default: one is made]")] = None,
    email: Annotated[str | None, typer.Option()] = None,
    phone: Annotated[str | None, typer.Option()] = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Add a person to a customer.

    \b
    faregate customers add-contact acme "Ada Lovelace" --email ada@acme.example
    """
    body = given(id=id, name=name, email=email, phone=phone, description=description)
    answer = gate.ask("POST", f"/customers/{quoted(customer)}/contacts", body)
    if as_json:
        return print_json(answer)
    return typer.echo(f"Contact {answer['id']} of customer {answer['customer_id']} is written down.")


def _entitlements(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    facts = [("plan", "plan"), ("models", "models"), ("features", "features"), ("its own", "overrides")]
    print_facts(answer, [fact for fact in facts if answer[fact[1]] or fact[1] != "overrides"])
    if answer["budgets"]:
        print_table(answer["budgets"], _BUDGETS)
    return None


def _change(gate: Gate, customer: str, changes: dict[str, Any], now: str, as_json: bool) -> None:
    answer = gate.ask("PATCH", f"/customers/{quoted(customer)}", changes)
    if as_json:
        return print_json(answer)
    return typer.echo(f"Customer {answer['id']} is {now}.")


def _show(customer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(customer)
    else:
        print_facts(customer, _FACTS)
