"""`faregate webhooks`"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from proxy.cli.client import CliFault, Gate
from proxy.cli.printing import print_facts, print_json, print_listed
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Webhooks: where alerts are sent, and what became of them on their way.")

Endpoint = Annotated[str, typer.Argument(help="The endpoint's id.")]

# As long as a call may take, and a little for its turn to come.
TESTED_WITHIN_S = 30.0
LOOK_S = 0.5

_ENDPOINT = [
    ("id", "id"),
    ("url", "url"),
    ("events", "events"),
    ("customer", "customer_id"),
    ("enabled", "enabled"),
    ("disabled because", "disabled_reason"),
]
_DELIVERY = [
    ("id", "id"),
    ("created at", "created_at"),
    ("type", "type"),
    ("endpoint", "endpoint_id"),
    ("status", "status"),
    ("attempts", "attempts"),
    ("next at", "next_at"),
    ("last fault", "last_error"),
]


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    receiver: Annotated[str, typer.Argument(help="The URL that alerts are to be sent to; https://.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Only this type of alert; may be given again.  [default: all]")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="Only what concerns this customer.")] = None,
    id: Annotated[str | None, typer.Option(help="Its id.  [default: one is made]")] = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Have alerts sent to a URL. The secret that verifies them is printed this once.

    \b
    faregate webhooks create https://example.com/hooks --event budget.exhausted --event budget.renewed
    """
    body = given(id=id, url=receiver, events=event or None, customer_id=customer, description=description)
    answer = gate.ask("POST", "/webhook-endpoints", body)
    if as_json:
        return print_json(answer)
    typer.echo(f"Signing secret of endpoint {answer['id']}, shown this once:", err=True)
    return typer.echo(answer["secret"])


@verb(app, "list")
def list_endpoints(gate: Gate, as_json: bool, limit: Limit = 100) -> None:
    """List where alerts are sent."""
    nothing = "Alerts are sent nowhere yet: faregate webhooks create https://…"
    print_listed(gate.listed("/webhook-endpoints", {}, limit), _ENDPOINT, nothing, as_json)


@verb(app, "test")
def test(gate: Gate, as_json: bool, endpoint: Endpoint) -> None:
    """Send an endpoint a `webhook.test`, and say what became of it.

    \b
    faregate webhooks test whe_019… || echo "look at the receiver"
    """
    answer = gate.ask("POST", f"/webhook-endpoints/{quoted(endpoint)}/test")
    deadline = time.monotonic() + TESTED_WITHIN_S
    while answer["attempts"] == 0 and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        answer = gate.get(f"/webhook-deliveries/{quoted(answer['id'])}")
    _print_delivery(answer, as_json)
    if answer["status"] != "delivered":
        raise CliFault(f"It was not delivered: {answer['last_error'] or 'no keeper has tried it yet'}.", 1)


@verb(app, "deliveries")
def deliveries(
    gate: Gate,
    as_json: bool,
    status: Annotated[str | None, typer.Option(help="pending, delivered or dead.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.")] = None,
    type: Annotated[str | None, typer.Option(help="Only of this type, as budget.exhausted.")] = None,
    limit: Limit = 100,
) -> None:
    """List deliveries, newest first.

    \b
    faregate webhooks deliveries --status dead
    """
    filters = given(status=status, endpoint_id=endpoint, type=type)
    print_listed(gate.listed("/webhook-deliveries", filters, limit), _DELIVERY, "No such delivery.", as_json)


@verb(app, "replay")
def replay(gate: Gate, as_json: bool, delivery: Annotated[str, typer.Argument(help="The delivery's id.")]) -> None:
    """Send a delivery again, with the same webhook-id."""
    _print_delivery(gate.ask("POST", f"/webhook-deliveries/{quoted(delivery)}/replay"), as_json)


def _print_delivery(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_facts(answer, _DELIVERY)
