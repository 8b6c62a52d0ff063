"""`faregate grants`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_facts, print_json, print_listed, print_table
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Grants: credit packs, top-ups and promotions.")

Customer = Annotated[str, typer.Argument(help="The customer's id.")]
GrantId = Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id.")]

_FACTS = [
    ("id", "id"),
    ("status", "status"),
    ("meter", "meter"),
    ("amount", "amount"),
    ("per", "per"),
    ("budget", "budget_id"),
    ("priority", "priority"),
    ("effective at", "effective_at"),
    ("expires at", "expires_at"),
    ("voided at", "voided_at"),
    ("reason", "reason"),
]


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    amount: Annotated[str, typer.Argument(help="In the meter's unit; of cost_usd USD, as 12.50.")],
    meter: Annotated[str, typer.Option(help="tokens, cost_usd, requests, …")] = "tokens",
    id: Annotated[str | None, typer.Option(help="Its id.  [default: one is made]")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Only this budget.  [default: every one of the meter]")
    ] = None,
    per: Annotated[str | None, typer.Option(help="customer, agent or user.  [default: customer]")] = None,
    priority: Annotated[int | None, typer.Option(help="1 to 255; lower burns first.  [default: 128]")] = None,
    effective_at: Annotated[str | None, typer.Option(help="As 2026-12-01T00:00:00Z.  [default: now]")] = None,
    expires_at: Annotated[str | None, typer.Option(help="[default: never]")] = None,
    reason: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Give a customer an amount on top of its plan, from the next request on.

    \b
    faregate grants create acme 500000
    faregate grants create acme 25.00 --meter cost_usd --expires-at 2027-01-01T00:00:00Z --reason "sorry"
    """
    counted: int | str = int(amount) if meter != "cost_usd" and amount.isdecimal() else amount
    body = given(id=id, meter=meter, amount=counted, budget_id=budget, per=per, priority=priority)
    body |= given(effective_at=effective_at, expires_at=expires_at, reason=reason)
    _show(gate.ask("POST", _path(customer), body), as_json)


@verb(app, "list")
def list_grants(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    live: Annotated[bool, typer.Option("--live", help="Leave out those that are over.")] = False,
    limit: Limit = 100,
) -> None:
    """List the grants of a customer, oldest first.

    \b
    faregate grants list acme --live
    """
    columns = [*_FACTS[:6], ("expires at", "expires_at"), ("reason", "reason")]
    answer = gate.listed(_path(customer), {"live": "true"} if live else {}, limit)
    print_listed(answer, columns, f"Customer {customer} has no grants.", as_json)


@verb(app, "show")
def show(gate: Gate, as_json: bool, customer: Customer, grant: GrantId) -> None:
    """Show a grant, and what is left of it."""
    _show(gate.get(f"{_path(customer)}/{quoted(grant)}"), as_json)


@verb(app, "void")
def void(gate: Gate, as_json: bool, customer: Customer, grant: GrantId) -> None:
    """Void a grant: what was used stays used, the rest stops at once.

    \b
    faregate grants void acme grt_0193
    """
    _show(gate.ask("POST", f"{_path(customer)}/{quoted(grant)}/void"), as_json)


def _path(customer: str) -> str:
    return f"/customers/{quoted(customer)}/grants"


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    print_facts(answer, _FACTS)
    if answer["balances"]:
        columns = [("budget", "budget_id"), ("used", "used"), ("held", "held"), ("remaining", "remaining")]
        print_table(answer["balances"], columns)
    return None
