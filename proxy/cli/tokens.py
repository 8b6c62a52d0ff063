"""`faregate tokens`"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_json, print_listed
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Admin tokens: who may do what over the admin API. Only owners may use these verbs.")


@verb(app, "create")
def create(
    gate: Gate,
    as_json: bool,
    name: Annotated[str, typer.Argument(help="What it is for, as it will stand in the audit log.")],
    role: Annotated[
        str,
        typer.Option(
            help="owner (everything), operator (everything but tokens) or read-only (looks, changes nothing)."
        ),
    ],
    expires_at: Annotated[
        str | None, typer.Option(help="When it ends, as 2026-12-01T00:00:00Z.  [default: never]")
    ] = None,
) -> None:
    """Make an admin token. It is printed this once; only its digest is kept.

    \b
    faregate tokens create "billing job" --role operator --expires-at 2027-06-01T00:00:00Z
    faregate tokens create prometheus --role read-only > /etc/prometheus/faregate-token
    """
    answer = gate.ask("POST", "/tokens", {"name": name, "role": role, **given(expires_at=expires_at)})
    if as_json:
        return print_json(answer)
    # The token alone goes to stdout, so that a shell can take it.
    typer.echo(f"Token {answer['id']} ({answer['role']}), shown this once:", err=True)
    return typer.echo(answer["token"])


@verb(app, "list")
def list_tokens(gate: Gate, as_json: bool, limit: Limit = 100) -> None:
    """List the admin tokens: what each may do, who made it, when it was used last. Never the tokens themselves.

    `bootstrap` is the one that the gate was started with; it is changed there, not here.
    """
    columns = [
        ("id", "id"),
        ("name", "name"),
        ("role", "role"),
        ("created at", "created_at"),
        ("created by", "created_by"),
        ("expires at", "expires_at"),
        ("revoked at", "revoked_at"),
        ("last used at", "last_used_at"),
    ]
    print_listed(gate.listed("/tokens", {}, limit), columns, "There is no token.", as_json)


@verb(app, "revoke")
def revoke(
    gate: Gate,
    as_json: bool,
    token: Annotated[str, typer.Argument(help="The token's id, as `faregate tokens list` shows it.")],
) -> None:
    """Revoke an admin token: the next request with it is refused.

    \b
    faregate tokens revoke k3J9xQ0b2Z
    """
    gate.ask("DELETE", f"/tokens/{quoted(token)}")
    if as_json:
        return print_json({"id": token, "revoked": True})
    return typer.echo(f"Token {token} is revoked: the next request with it is refused.")
