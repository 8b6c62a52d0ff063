"""`faregate secrets`"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_json, print_listed
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Agent secrets: what agents send as their API key.")

Agent = Annotated[str, typer.Argument(help="The agent's id.")]


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    agent: Agent,
    expires_at: Annotated[
        str | None, typer.Option(help="When it ends, as 2026-12-01T00:00:00Z.  [default: never]")
    ] = None,
) -> None:
    """Make a secret for an agent. It is printed this once; only its digest is kept.

    An agent may have several, so that the next one can be put in place before the old one ends.

    \b
    export OPENAI_API_KEY=$(faregate secrets create acme-research)
    """
    answer = gate.ask("POST", f"/agents/{quoted(agent)}/secrets", given(expires_at=expires_at))
    if as_json:
        return print_json(answer)
    # The secret alone goes to stdout, so that a shell can take it.
    typer.echo(f"Secret {answer['id']} of agent {answer['agent_id']}, shown this once:", err=True)
    return typer.echo(answer["secret"])


@verb(app, "list")
def list_secrets(gate: Gate, as_json: bool, agent: Agent, limit: Limit = 100) -> None:
    """List an agent's secrets: when each was made, ends and was revoked. Never the secrets themselves."""
    columns = [
        ("id", "id"),
        ("created at", "created_at"),
        ("expires at", "expires_at"),
        ("revoked at", "revoked_at"),
    ]
    answer = gate.listed(f"/agents/{quoted(agent)}/secrets", {}, limit)
    print_listed(answer, columns, f"Agent {agent} has no secrets yet.", as_json)


@verb(app, "revoke")
def revoke(
    gate: Gate, as_json: bool, agent: Agent, secret: Annotated[str, typer.Argument(help="The secret's id.")]
) -> None:
    """Revoke a secret: the next request with it is refused, on every replica.

    \b
    faregate secrets revoke acme-research k3J9xQ0b2Z
    """
    gate.ask("DELETE", f"/agents/{quoted(agent)}/secrets/{quoted(secret)}")
    if as_json:
        return print_json({"id": secret, "revoked": True})
    return typer.echo(f"Secret {secret} is revoked: the next request with it is refused.")
