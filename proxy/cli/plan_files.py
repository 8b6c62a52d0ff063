"""Plans between this machine's files and a gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from proxy.cli.client import CliFault, Gate
from proxy.cli.printing import harmless
from proxy.cli.verbs import quoted

if TYPE_CHECKING:
    from proxy.domain.policy import Plan

_PLANS_MOST = 1_000_000
_NOT_CONTENT = ("version", "owner", "file")


def plan_of(document: Mapping[str, Any]) -> Plan:
    """The plan that a gate has shown."""
    from proxy.policy_files import read_document

    content = {key: value for key, value in document.items() if key not in _NOT_CONTENT}
    plan, faults = read_document(content, None)
    if plan is None or faults:
        told = faults[0][1] if faults else "it has no id"
        raise CliFault(
            f"This Faregate does not understand the plan {document.get('id')!r} of that gate: {told}."
            " Use the version of Faregate that the gate runs.",
            1,
        )
    return plan


def plans_of(directory: Path) -> dict[str, Plan]:
    """The plans of a directory; raises `CliFault` with every fault."""
    from proxy.policy_files import PolicyFaults, read_plan_files

    try:
        return read_plan_files(directory).plans
    except PolicyFaults as refused:
        raise CliFault(str(refused), 1) from None


def compared(gate: Gate, directory: Path) -> list[dict[str, Any]]:
    """What the files here would change of what is live; plans that no file here has are left out.

    `owner` is None for a plan that is not live yet.
    """
    from proxy.domain.plan_changes import plan_changes, told

    live = {one["id"]: one for one in gate.listed("/plans", {}, _PLANS_MOST)["data"]}
    found = []
    for id, plan in sorted(plans_of(directory).items()):
        there = live.get(id)
        changes = plan_changes(None if there is None else plan_of(there), plan)
        if changes:
            owner = None if there is None else there["owner"]
            text = [told(one) for one in changes]
            found.append({"id": id, "owner": owner, "version": None, "changes": changes, "text": text})
    return found


def send(gate: Gate, directory: Path, dry_run: bool, message: str) -> dict[str, Any]:
    """Makes the store's plans what the files here say: all of them are right, or none is sent."""
    from proxy.domain.written_plans import written_plan

    differing = compared(gate, directory)
    if theirs := [one["id"] for one in differing if one["owner"] == "files"]:
        raise CliFault(
            f"The gate takes {', '.join(theirs)} from its own policy files: edit them there, or let the store own"
            f" them with `faregate plans adopt {theirs[0]} --to store`. Nothing was sent.",
            1,
        )
    plans = plans_of(directory)
    faults = [fault for one in differing for fault in _faults(gate, written_plan(plans[one["id"]]))]
    if faults:
        raise CliFault("\n".join(faults) + "\nNothing was sent.", 1)
    for one in [] if dry_run else differing:
        document, query = written_plan(plans[one["id"]]), {"message": message or None}
        if one["owner"] is None:
            answer = gate.ask("POST", "/plans", document, query)
        else:
            answer = gate.ask("PUT", f"/plans/{quoted(one['id'])}", document, query)
        one["version"] = answer["version"]
    return {"dry_run": dry_run, "plans": differing, "notices": []}


def print_changed(answer: Mapping[str, Any]) -> None:
    """The plans that differ, a line for each change."""
    for one in answer["plans"]:
        version = f" (version {one['version']})" if one.get("version") else ""
        typer.echo(harmless(f"{one['id']}{version}"))
        for line in one["text"]:
            typer.echo(harmless(f"  {line}"))
    if not answer["plans"]:
        typer.echo("The files and what is live say the same.")
    for notice in answer["notices"]:
        typer.echo(harmless(notice), err=True)


def write_files(plans: list[Plan], directory: Path, force: bool) -> list[Path]:
    """Writes `plans/<id>.toml` below a directory, or over the file that has the plan now."""
    from proxy.policy_files import PLANS_FOLDER, plan_toml, write_plan

    present = _files_of(directory)
    places = [(present.get(plan.id) or directory / PLANS_FOLDER / f"{plan.id}.toml", plan) for plan in plans]
    written = []
    for path, plan in places:
        if path.exists() and path.read_text(encoding="utf-8") != plan_toml(plan) and not force:
            raise CliFault(f"{path} is there already; --force writes over it, and its comments are lost.", 1)
    for path, plan in places:
        try:
            write_plan(path, plan)
        except OSError as fault:
            raise CliFault(f"{path} cannot be written: {fault.strerror}.", 1) from None
        written.append(path)
    return written


def _files_of(directory: Path) -> dict[str, Path]:
    """Plan files may have any name; a faulty one is found by nobody, and so not written over by chance."""
    from proxy.policy_files import PLANS_FOLDER, PolicyFaults, read_plan_files

    if not (directory / PLANS_FOLDER).is_dir() or not any((directory / PLANS_FOLDER).glob("*.toml")):
        return {}
    try:
        return read_plan_files(directory).written_in
    except PolicyFaults as refused:
        raise CliFault(f"{refused}\nPut these files right first.", 1) from None


def _faults(gate: Gate, document: dict[str, Any]) -> list[str]:
    answer = gate.ask("POST", "/plans/validate", document)
    return [f"{document['id']}: {one['path']}: {one['message']}" for one in answer["faults"]]
