"""`faregate doctor`"""

from __future__ import annotations

from typing import Any

import typer

from proxy.cli.client import CliFault, Gate
from proxy.cli.printing import print_checks, print_json


def doctor(gate: Gate, as_json: bool) -> None:
    """Check a running gate and its counters.

    Connections, versions, lag, and every invariant; exits 1 if anything is wrong.

    \b
    faregate doctor
    """
    found: dict[str, Any] = {}
    for subject in ("health", "invariants"):
        found[subject] = _asked(gate, subject)
        if not as_json:
            typer.echo(f"{subject.capitalize()} of {gate.url}")
            print_checks(found[subject])
    if as_json:
        print_json(found)
    if not all(_holds(answer) for answer in found.values()):
        raise typer.Exit(1)
    if not as_json:
        typer.echo("Everything holds.")


def _asked(gate: Gate, subject: str) -> Any:
    """The checks; a gate that cannot even run them has failed one."""
    try:
        return gate.get(f"/{subject}")
    except CliFault as fault:
        if fault.exit_code != 1 or fault.status in (401, 429):
            raise
        return {
            "ok": False,
            "checks": [{"id": subject, "ok": False, "seen": fault.message, "expected": "an answer"}],
        }


def _holds(answer: Any) -> bool:
    return bool(answer["ok"]) and all(check["ok"] for check in answer["checks"])
