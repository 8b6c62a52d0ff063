"""`faregate audit`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli.client import CliFault, Gate
from proxy.cli.printing import print_json, print_listed
from proxy.cli.verbs import Limit, given, group, verb

app = group("The audit log: who changed what from what to what.")

_COLUMNS = [
    ("entry", "seq"),
    ("at", "at"),
    ("who", "who"),
    ("what", "what"),
    ("resource", "resource"),
    ("changes", "changes"),
    ("from network", "network"),
]


@verb(app, "list")
def list_entries(
    gate: Gate,
    as_json: bool,
    resource: Annotated[
        str | None, typer.Option(help="Only of this kind, as customer, or of this one, as customer/acme.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Only by this token (its id); system: by the gate itself.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="done, or refused for want of a role.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on, as 2026-11-01T00:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this time.")] = None,
    limit: Limit = 100,
) -> None:
    """List what was changed, newest first.

    \b
    faregate audit list --resource customer/acme
    faregate audit list --actor k3J9xQ0b2Z --from 2026-11-01T00:00:00Z --json
    """
    filters = given(resource=resource, actor=actor, outcome=outcome, **{"from": since, "to": until})
    answer = gate.listed("/audit-log", filters, limit)
    if as_json:
        return print_json(answer)
    shown = {**answer, "data": [_row(entry) for entry in answer["data"]]}
    return print_listed(shown, _COLUMNS, "Nothing was changed.", as_json=False)


@verb(app, "verify")
def verify(
    gate: Gate,
    as_json: bool,
    anchor: Annotated[
        str | None,
        typer.Option(help="A head that was noted down earlier, as ENTRY:HASH; it must still be in the chain."),
    ] = None,
) -> None:
    """Compute the audit log's chain anew; exit 1 if an entry was changed or taken out.

    Each entry is sealed by a hash over itself and the one before. Whoever owns the database could compute all of
    them anew, or cut off the newest: so note the head that is printed somewhere else, and name it next time.

    \b
    faregate audit verify
    faregate audit verify --anchor 1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    answer = gate.get("/audit-log/verification", _anchor(anchor))
    head = f"{answer['head']['seq']}:{answer['head']['hash']}"
    if as_json:
        print_json(answer)
    elif answer["ok"]:
        typer.echo(f"All {answer['entries']:,} entries are as they were written. The head is {head}")
    else:
        typer.echo(f"{answer['fault']} The {answer['entries']:,} entries before it are as they were written.")
    if not answer["ok"]:
        raise typer.Exit(1)


def _anchor(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    entry, colon, hash = given.partition(":")
    if not (colon and entry.isdecimal()):
        raise CliFault("--anchor takes ENTRY:HASH, as `faregate audit verify` prints the head.", 2)
    return {"seq": int(entry), "hash": hash}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    actor, resource = entry["actor"], entry["resource"]
    changes = [
        f"{name}: {_short(change['from'])} → {_short(change['to'])}" for name, change in entry["changes"].items()
    ]
    return {
        "seq": str(entry["seq"]),
        "at": entry["at"],
        "who": f"{actor['name']} ({actor['id']}, {actor['role']})",
        "what": f"{entry['method']} {entry['route']}".strip() or "-",
        "resource": f"{resource['kind']}/{resource['id']}" if resource else "refused",
        "changes": "; ".join(changes) or "-",
        "network": entry["network"] or "-",
    }


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
