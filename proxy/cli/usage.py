"""`faregate usage`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import console, print_listed
from proxy.cli.verbs import Limit, given, group, verb

app = group("What was used, what it cost, what was refused.")

Customer = Annotated[str | None, typer.Option(help="Only of this customer.")]
Agent = Annotated[str | None, typer.Option(help="Only of this agent.")]
Model = Annotated[str | None, typer.Option(help="Only of this model.")]
User = Annotated[str | None, typer.Option(help="Only of this end user.")]
Run = Annotated[str | None, typer.Option(help="Only of this run.")]
Step = Annotated[str | None, typer.Option(help="Only of this step.")]
Status = Annotated[str | None, typer.Option(help="succeeded, failed, cancelled or orphaned.")]
From = Annotated[str | None, typer.Option("--from", help="From this time on, as 2026-11-01T00:00:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="Before this time.")]

_EVENT = [
    ("event", "id"),
    ("finished at", "finished_at"),
    ("customer", "customer_id"),
    ("agent", "agent_id"),
    ("model", "model_served"),
    ("status", "status"),
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cost USD", "cost_usd"),
    ("source", "usage_source"),
]
_DENIAL = [
    ("minute", "minute"),
    ("customer", "customer_id"),
    ("agent", "agent_id"),
    ("model", "model"),
    ("reason", "reason"),
    ("shadow", "shadow"),
    ("count", "count"),
]


@verb(app, "events")
def events(
    gate: Gate,
    as_json: bool,
    customer: Customer = None,
    agent: Agent = None,
    request: Annotated[str | None, typer.Option(help="Only of this request.")] = None,
    user: User = None,
    run: Run = None,
    step: Step = None,
    model: Model = None,
    status: Status = None,
    since: From = None,
    until: To = None,
    limit: Limit = 100,
) -> None:
    """List usage events, newest first: one per attempt.

    \b
    faregate usage events --customer acme --limit 20
    faregate usage events --status failed --from 2026-11-01T00:00:00Z --json
    """
    filters = given(customer_id=customer, agent_id=agent, request_id=request, user_id=user, run_id=run)
    filters |= given(step=step, model=model, status=status, **{"from": since, "to": until})
    with console(stderr=True).status("Reading usage events …"):
        answer = gate.listed("/usage-events", filters, limit)
    print_listed(answer, _EVENT, "No such usage event.", as_json)


@verb(app, "summary")
def summary(
    gate: Gate,
    as_json: bool,
    by: Annotated[
        str | None, typer.Option(help="Group by one or more of customer, agent, model, step, user, day.")
    ] = None,
    customer: Customer = None,
    agent: Agent = None,
    user: User = None,
    run: Run = None,
    step: Step = None,
    model: Model = None,
    status: Status = None,
    since: From = None,
    until: To = None,
) -> None:
    """Sum usage up.

    \b
    faregate usage summary --by customer,model
    faregate usage summary --by day --customer acme --from 2026-11-01T00:00:00Z
    """
    filters = given(group_by=by, customer_id=customer, agent_id=agent, user_id=user, run_id=run)
    filters |= given(step=step, model=model, status=status, **{"from": since, "to": until})
    with console(stderr=True).status("Adding up …"):
        answer = gate.get("/usage", filters)
    print_listed(answer, _columns(answer), "Nothing was used.", as_json)


@verb(app, "denials")
def denials(
    gate: Gate,
    as_json: bool,
    customer: Customer = None,
    agent: Agent = None,
    model: Model = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason, as budget or rate_limited.")] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow/--enforced", help="Only what was let through in shadow mode, or only the others."),
    ] = None,
    since: From = None,
    until: To = None,
    limit: Limit = 100,
) -> None:
    """List how often requests were refused, and why, newest first.

    \b
    faregate usage denials --customer acme --reason budget
    """
    filters = given(customer_id=customer, agent_id=agent, model=model, reason=reason)
    filters |= given(**{"from": since, "to": until}, shadow=None if shadow is None else str(shadow).lower())
    print_listed(gate.listed("/denials", filters, limit), _DENIAL, "Nothing was refused.", as_json)


def _columns(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The group's own keys, then the sums, in the order in which the gate gives them."""
    names = list(answer["data"][0]) if answer["data"] else []
    return [(name.removesuffix("_id").replace("_", " "), name) for name in names]
