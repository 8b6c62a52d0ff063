"""`faregate alerts`"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_listed
from proxy.cli.verbs import Limit, given, group, verb

app = group("What was raised: budgets reached or spent, plans changed, upstreams down.")

_ALERT = [
    ("raised at", "raised_at"),
    ("type", "type"),
    ("customer", "customer_id"),
    ("of", "subject"),
    ("budget", "budget_id"),
    ("threshold", "threshold"),
    ("window until", "window_end"),
]


@verb(app, "list")
def list_alerts(
    gate: Gate,
    as_json: bool,
    customer: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
    type: Annotated[str | None, typer.Option(help="Only of this type, as budget.exhausted.")] = None,
    budget: Annotated[str | None, typer.Option(help="Only of this budget.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on, as 2026-11-01T00:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this time.")] = None,
    limit: Limit = 100,
) -> None:
    """List alerts, newest first.

    \b
    faregate alerts list --customer acme
    faregate alerts list --type budget.exhausted --json
    """
    filters = given(customer_id=customer, type=type, budget_id=budget, **{"from": since, "to": until})
    print_listed(gate.listed("/alerts", filters, limit), _ALERT, "Nothing was raised.", as_json)
