"""`faregate plans`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from proxy.cli.client import CliFault, Gate
from proxy.cli.plan_files import compared, plan_of, print_changed, send, write_files
from proxy.cli.printing import harmless, print_facts, print_json, print_listed, print_table
from proxy.cli.verbs import Limit, given, group, quoted, verb

app = group("Plans that are live: their versions, and their way between files and the store.")

PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id.")]
Message = Annotated[str, typer.Option(help="Why, for whoever reads the versions later.")]
Dir = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="A policies/ directory of this machine, instead of the gate's own files."),
]

_FACTS = [
    ("id", "id"),
    ("name", "name"),
    ("version", "version"),
    ("owner", "owner"),
    ("file", "file"),
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
    columns = [("id", "id"), ("name", "name"), ("version", "version"), ("owner", "owner"), ("models", "models")]
    print_listed(gate.listed("/plans", {}, limit), columns, "There is no plan.", as_json)


@verb(app, "show")
def show(gate: Gate, as_json: bool, plan: PlanId) -> None:
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
def versions(gate: Gate, as_json: bool, plan: PlanId, limit: Limit = 100) -> None:
    """List a plan's versions, newest first: when, by whom, why, and what changed."""
    from proxy.domain.plan_changes import told

    answer = gate.listed(f"/plans/{quoted(plan)}/versions", {}, limit)
    if as_json:
        return print_json(answer)
    rows = [one | {"what": "\n".join(map(told, one["changes"])) if one["version"] > 1 else "made"}
            for one in answer["data"]]  # fmt: skip
    columns = [("version", "version"), ("applied at", "applied_at"), ("by", "applied_by"), ("why", "message")]
    return print_listed({**answer, "data": rows}, [*columns, ("what", "what")], "No versions.", as_json)


@verb(app, "diff")
def diff(gate: Gate, as_json: bool, dir: Dir = None) -> None:
    """Compare plan files with what is live; nothing is changed.

    \b
    faregate plans diff                      the gate's own files
    faregate plans diff --dir policies       those of this machine
    """
    if dir is None:
        answer = gate.ask("POST", "/plans/apply", {"dry_run": True})
    else:
        answer = {"dry_run": True, "plans": compared(gate, dir), "notices": []}
    return print_json(answer) if as_json else print_changed(answer)


@verb(app, "apply")
def apply_files(
    gate: Gate,
    as_json: bool,
    dir: Dir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    message: Message = "",
) -> None:
    """Make live what plan files say: the gate's own, or with --dir this machine's, which the store then owns.

    \b
    faregate plans apply --message "Prices of December"
    faregate plans apply --dir policies --dry-run
    """
    if dir is None:
        answer = gate.ask("POST", "/plans/apply", {"dry_run": dry_run, "message": message})
    else:
        answer = send(gate, dir, dry_run, message)
    return print_json(answer) if as_json else print_changed(answer)


@verb(app, "export")
def export(
    gate: Gate,
    as_json: bool,
    plans: Annotated[list[str] | None, typer.Argument(metavar="[PLAN]...", help="Which; all if none.")] = None,
    dir: Annotated[Path | None, typer.Option(file_okay=False, help="Write plans/ID.toml below this.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="An earlier version of the one plan.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files; their comments are lost.")] = False,
) -> None:
    """Write plans as files that read back as the same plans. Comments are not kept anywhere.

    \b
    faregate plans export starter                          to the screen
    faregate plans export --dir policies                   all, as policies/plans/ID.toml
    faregate plans export starter --version 3 --dir policies --force
    """
    wanted = plans or [one["id"] for one in gate.listed("/plans", {}, 1_000_000)["data"]]
    if len(wanted) != 1 and (version is not None or (dir is None and not as_json)):
        raise CliFault(
            "Several plans are written to a directory, at their newest versions: name it with --dir.", 2
        )
    documents = [_document(gate, id, version) for id in wanted]
    found = [plan_of(document) for document in documents]
    if dir is not None:
        paths = write_files(found, dir, force)
        if not as_json:
            for path in paths:
                typer.echo(str(path))
    elif not as_json:
        from proxy.policy_files import plan_toml

        typer.echo(plan_toml(found[0]), nl=False)
    if as_json:
        print_json({"data": documents})


@verb(app, "adopt")
def adopt(
    gate: Gate,
    as_json: bool,
    plan: PlanId,
    to: Annotated[Literal["files", "store"], typer.Option(help="Where it is edited from now on.")],
) -> None:
    """Move a plan between the files and the store; what it says stays as it is.

    To the store: its file gets a name that nobody reads. To the files: its file is written on the gate's machine.

    \b
    faregate plans adopt starter --to store
    """
    answer = gate.ask("POST", f"/plans/{quoted(plan)}/adopt", {"to": to})
    if as_json:
        return print_json(answer)
    where = f"policies/{answer['file']}" if answer["file"] else "the store"
    typer.echo(harmless(f"{plan} is edited in {where} now."))
    for notice in answer["notices"]:
        typer.echo(harmless(notice))
    return None


@verb(app, "rollback")
def rollback(
    gate: Gate,
    as_json: bool,
    plan: PlanId,
    version: Annotated[int, typer.Argument(min=1, help="The version whose content is wanted again.")],
    message: Message = "",
) -> None:
    """Make an earlier version of a plan the newest again, if the store owns it.

    \b
    faregate plans rollback starter 3 --message "Version 4 was too strict"
    """
    body = given(version=version, message=message)
    answer = gate.ask("POST", f"/plans/{quoted(plan)}/rollback", body)
    if as_json:
        return print_json(answer)
    typer.echo(harmless(f"{plan} is as it was at version {version}; that is version {answer['version']} now."))
    return None


@verb(app, "delete")
def delete(gate: Gate, as_json: bool, plan: PlanId) -> None:
    """Take a plan away that the store owns and no customer is on; its versions stay."""
    gate.ask("DELETE", f"/plans/{quoted(plan)}")
    if as_json:
        return print_json({"id": plan})
    typer.echo(harmless(f"{plan} is gone."))
    return None


def _document(gate: Gate, id: str, version: int | None) -> dict[str, Any]:
    if version is None:
        shown: dict[str, Any] = gate.get(f"/plans/{quoted(id)}")
        return shown
    document: dict[str, Any] = gate.get(f"/plans/{quoted(id)}/versions/{version}")["document"]
    return document
