"""`faregate agents`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_facts, print_json, print_listed
from proxy.cli.verbs import Limit, given, group, quoted, verb
from proxy.domain.accounts import AGENT_KINDS

app = group("Agents and agent types.")

Id = Annotated[str | None, typer.Option(help="Its id.  [default: one is made]")]

_TYPE = [("id", "id"), ("name", "name"), ("kind", "kind"), ("description", "description")]
_AGENT = [("id", "id"), ("name", "name"), ("customer", "customer_id"), ("type", "agent_type_id")]
_FACTS = [
    *_AGENT,
    ("contact", "contact_id"),
    ("description", "description"),
    ("created at", "created_at"),
]


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    customer: Annotated[str, typer.Option(help="Whose it is: the customer's id.")],
    type: Annotated[str, typer.Option(help="What it is a copy of: the agent type's id.")],
    id: Id = None,
    contact: Annotated[str | None, typer.Option(help="The contact who looks after it.")] = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Make an agent of a type for a customer.

    \b
    faregate agents create "Acme's researcher" --id acme-research --customer acme --type research
    """
    body = given(id=id, name=name, customer_id=customer, agent_type_id=type)
    body |= given(contact_id=contact, description=description)
    _show(gate.ask("POST", "/agents", body), _FACTS, as_json)


@verb(app, "list")
def list_agents(
    gate: Gate,
    as_json: bool,
    customer: Annotated[str | None, typer.Option(help="Only those of this customer.")] = None,
    limit: Limit = 100,
) -> None:
    """List the agents, of one customer or of all.

    \b
    faregate agents list --customer acme
    """
    answer = gate.listed("/agents", given(customer_id=customer), limit)
    print_listed(answer, _AGENT, "There is no such agent yet.", as_json)


@verb(app, "show")
def show(gate: Gate, as_json: bool, agent: Annotated[str, typer.Argument(help="The agent's id.")]) -> None:
    """Show an agent."""
    _show(gate.get(f"/agents/{quoted(agent)}"), _FACTS, as_json)


@verb(app, "types")
def types(gate: Gate, as_json: bool, limit: Limit = 100) -> None:
    """List the agent types."""
    print_listed(gate.listed("/agent-types", {}, limit), _TYPE, "There is no agent type yet.", as_json)


@verb(app, "create-type")
def create_type(
    gate: Gate,
    as_json: bool,
    name: Annotated[str, typer.Argument(help="The agent type's name.")],
    id: Id = None,
    kind: Annotated[str | None, typer.Option(help=f"One of {', '.join(AGENT_KINDS)}.  [default: custom]")] = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Add an agent type to the catalogue.

    \b
    faregate agents create-type "Research Agent" --id research --kind langgraph
    """
    body = given(id=id, name=name, kind=kind, description=description)
    _show(gate.ask("POST", "/agent-types", body), _TYPE, as_json)


def _show(answer: dict[str, Any], facts: list[tuple[str, str]], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_facts(answer, facts)
