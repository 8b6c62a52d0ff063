"""`faregate plans`"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.client import Gate
from proxy.cli.printing import print_facts, print_json, print_listed, print_table
from proxy.cli.verbs import Limit, group, quoted, verb

app = group("Plans that are live (edited in policies/).")

_FACTS = [
    ("id", "id"),
    ("name", "name"),
    ("version", "version"),
    ("models", "models"),
    ("features", "features"),
    ("default output", "default_max_output_tokens"),
    ("rate limits", "rate_limits"),
    ("on exceed", "on_exceed"),
    ("hold", "hold"),
]
_BUDGETS = [
    ("budget", "id"),
    ("meter", "meter"),
    ("limit", "limit"),
    ("window", "window"),
    ("per", "per"),
    ("models", "models"),
]


@verb(app, "list")
def list_plans(gate: Gate, as_json: bool, limit: Limit = 100) -> None:
    """List the plans."""
    columns = [("id", "id"), ("name", "name"), ("version", "version"), ("models", "models")]
    print_listed(gate.listed("/plans", {}, limit), columns, "There is no plan.", as_json)


@verb(app, "show")
def show(gate: Gate, as_json: bool, plan: Annotated[str, typer.Argument(help="The plan's id.")]) -> None:
    """Show a plan at its newest version.

    \b
    faregate plans show starter
    """
    answer = gate.get(f"/plans/{quoted(plan)}")
    if as_json:
        return print_json(answer)
    print_facts(answer, _FACTS)
    if answer["budgets"]:
        print_table(answer["budgets"], _BUDGETS)
    return None


@verb(app, "versions")
def versions(
    gate: Gate, as_json: bool, plan: Annotated[str, typer.Argument(help="The plan's id.")], limit: Limit = 100
) -> None:
    """List a plan's versions, newest first."""
    answer = gate.listed(f"/plans/{quoted(plan)}/versions", {}, limit)
    print_listed(answer, [("version", "version"), ("applied at", "applied_at")], "No versions.", as_json)
