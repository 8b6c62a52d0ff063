"""What wins over a customer's plan, as somebody wrote it: read by what reads the plan files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxy.domain.overrides import changed_budget
from proxy.domain.policy import Budget, Plan
from proxy.domain.policy_documents import budget_document
from proxy.policy_files.budgets import SLUG, check_budget, read_budget, read_budget_terms, read_models
from proxy.policy_files.plans import read_features, read_rate_limits
from proxy.policy_files.tables import Table, shown
from proxy.settings import nearest
from proxy.settings.toml_text import Place

BUDGETS_MOST = 50
WHAT_IS_COUNTED = ("id", "meter", "window", "per", "anchor")


def read_overrides(
    document: Mapping[str, Any], plan: Plan, catalogue: Collection[str], present: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[Place, str]]]:
    """The overrides as `domain.overrides` keeps them, and every fault with its place: they count only without any.

    `plan` is the customer's. `present` are its overrides until now: what they name may be named again, although
    the plan has it no more.
    """
    faults: list[tuple[Place, str]] = []
    root = Table(dict(document), lambda place, message: faults.append((place, message)))
    overrides: dict[str, Any] = {}
    if root.given("features") is not None:
        overrides["features"] = _features(root.table("features"))
    if (models := root.given("models")) is not None:
        overrides["models"] = _models(root, models, catalogue)
    if root.given("rate_limits") is not None:
        overrides["rate_limits"] = _rate_limits(root.table("rate_limits"))
    if root.given("budgets") is not None:
        overrides["budgets"] = _budgets(root.table("budgets"), plan, catalogue, present.get("budgets", {}))
    root.finish()
    return {key: value for key, value in overrides.items() if value != {}}, faults


def _features(table: Table) -> dict[str, Any]:
    read = read_features(table.given_only())
    taken_away = {name for name, value in table.values.items() if value is None}
    for name in sorted(taken_away):
        if not SLUG.fullmatch(name):
            table.fault(f'"{name[:40]}" is no feature: letters, digits and . _ - only, at most 64 of them', name)
    read |= dict.fromkeys(taken_away)
    return {name: read[name] for name in table.values if name in read}


def _models(root: Table, value: Any, catalogue: Collection[str]) -> Any:
    if not isinstance(value, Mapping):
        models = read_models(root, catalogue, default=None)
        return None if models is None else sorted(models)
    table = root.table("models")
    changes: dict[str, list[str]] = {}
    for key in ("add", "remove"):
        names = read_models(table, catalogue, default=frozenset(), key=key)
        if names is None:
            table.fault(f'"*" cannot stand in `{key}`: for every model write models = ["*"]', key)
        elif names:
            changes[key] = sorted(names)
    for name in sorted(set(changes.get("add", ())) & set(changes.get("remove", ()))):
        table.fault(f'"{name}" is both added and removed', "remove")
    table.finish()
    return changes


def _rate_limits(table: Table) -> dict[str, int | None]:
    read = read_rate_limits(table.given_only())
    known = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
    for name, value in table.values.items():
        if value is None and name not in known:
            table.fault(f'unknown key "{name}"{nearest(name, known)}', name)
    return {name: getattr(read, name) for name in table.values if name in known}


def _budgets(table: Table, plan: Plan, catalogue: Collection[str], present: Mapping[str, Any]) -> dict[str, Any]:
    budgets = {budget.id: budget for budget in plan.budgets}
    if len(table.values) > BUDGETS_MOST:
        table.fault(f"there are {len(table.values)} budgets; a customer may have overrides of {BUDGETS_MOST}")
    read: dict[str, Any] = {}
    for id, value in table.values.items():
        earlier = present.get(id)
        if value is None:
            read[id] = None
            if id not in budgets and id not in present:
                table.fault(f'the plan "{plan.id}" has no budget "{id[:40]}"{nearest(id, budgets)}', id)
        elif not isinstance(value, dict):
            table.fault(f"`{id[:40]}` must be an object of what differs, or null, not {shown(value)}", id)
        elif earlier is not None and "meter" in earlier and id not in budgets:
            read[id] = _change(table.table(id), Budget(id, earlier["meter"], 0, per="user"), catalogue)
        elif id in budgets and not (earlier and "own" in earlier):
            read[id] = _change(table.table(id), budgets[id], catalogue)
        else:
            read[id] = {"own": _own(table.table(id), id, catalogue)}
    return read


def _change(written: Table, budget: Budget, catalogue: Collection[str]) -> dict[str, Any]:
    table = written.given_only()
    for key in WHAT_IS_COUNTED:
        if table.given(key) is not None:
            table.fault(
                f'`{key}` says what is counted, and the plan\'s budget "{budget.id}" counts that for all: set this'
                " one to null, and add a budget of the customer's own under another id",
                key,
            )
    kept: dict[str, Any] = {"meter": budget.meter}
    for key, value in read_budget_terms(table, budget.meter, catalogue).items():
        match value:
            case frozenset():
                kept[key] = sorted(value)
            case tuple():
                kept[key] = list(value)
            case _:
                kept[key] = value
    check_budget(table, changed_budget(budget, kept))
    table.finish()
    return kept


def _own(written: Table, id: str, catalogue: Collection[str]) -> dict[str, Any]:
    table = written.given_only()
    if table.values.get("id", id) != id:
        table.fault(f'`id` is "{id[:40]}" already, by which this budget stands: leave it out', "id")
    table.values["id"] = id
    return budget_document(read_budget(table, catalogue))
