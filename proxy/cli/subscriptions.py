"""`faregate subscriptions`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_json, print_listed
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Subscriptions: start, change, end, and what became of them.")

Customer = Annotated[str, typer.Argument(help="The customer's id.")]
AtPeriodEnd = Annotated[
    bool, typer.Option("--at-period-end", help="When the month that counts from its anchor ends, instead of now.")
]


@verb(app, "show")
def show(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Show which plan a customer is on, and what is to become of that.

    \b
    faregate subscriptions show acme
    """
    _tell(gate.get(_path(customer)), as_json)


@verb(app, "start")
def start(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    plan: Annotated[str, typer.Argument(help="The plan's id.")],
    at_period_end: AtPeriodEnd = False,
    anchor: Annotated[
        str | None, typer.Option(help="From which its windows count anew, as 2026-12-01T00:00:00Z.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Its windows begin anew now.")] = False,
) -> None:
    """Put a customer on a plan, or on another; what it has used is carried over unless its windows begin anew.

    \b
    faregate subscriptions start acme pro
    faregate subscriptions start acme starter --at-period-end
    faregate subscriptions start acme pro --reset
    """
    body = given(plan=plan, anchor=anchor, when="period_end" if at_period_end else None)
    _tell(gate.ask("PUT", _path(customer), body | ({"usage": "reset"} if reset else {})), as_json)


@verb(app, "anchor")
def anchor(
    gate: Gate,
    as_json: bool,
    customer: Customer,
    anchor: Annotated[str, typer.Argument(help="As 2026-12-01T00:00:00Z.")],
) -> None:
    """Count a customer's windows from another moment; those that begin anew begin at nothing.

    \b
    faregate subscriptions anchor acme 2026-12-01T00:00:00+01:00
    """
    _tell(gate.ask("PUT", _path(customer), {"anchor": anchor}), as_json)


@verb(app, "cancel")
def cancel(gate: Gate, as_json: bool, customer: Customer, at_period_end: AtPeriodEnd = False) -> None:
    """End a subscription: the customer is on the default plan then.

    \b
    faregate subscriptions cancel acme --at-period-end
    """
    query = "?when=period_end" if at_period_end else ""
    _tell(gate.ask("DELETE", _path(customer) + query), as_json)


@verb(app, "keep")
def keep(gate: Gate, as_json: bool, customer: Customer) -> None:
    """Take back what is scheduled: a subscription that was to end or to change stays as it is.

    \b
    faregate subscriptions keep acme
    """
    _tell(gate.ask("DELETE", f"{_path(customer)}/scheduled"), as_json)


@verb(app, "history")
def history(gate: Gate, as_json: bool, customer: Customer, limit: Limit = 100) -> None:
    """List what became of a customer's subscription, newest first."""
    columns = [
        ("asked at", "changed_at"),
        ("what", "what"),
        ("from", "from_plan"),
        ("plan", "plan"),
        ("in force from", "effective_at"),
    ]
    answer = gate.listed(f"{_path(customer)}/history", {}, limit)
    print_listed(answer, columns, f"Nothing is written down of a subscription of {customer}.", as_json)


def _path(customer: str) -> str:
    return f"/customers/{quoted(customer)}/subscription"


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    how = "is on plan" if answer["subscribed"] else "has no subscription, so it is on the default plan"
    typer.echo(
        f"Customer {answer['customer_id']} {how} {answer['plan']}; its windows count from {answer['anchor']}."
    )
    if (scheduled := answer["scheduled"]) is not None:
        what = "ends" if scheduled["cancels"] else "changes"
        typer.echo(f"It {what} at {scheduled['at']}: on plan {scheduled['plan']} from then on.")
    return None
