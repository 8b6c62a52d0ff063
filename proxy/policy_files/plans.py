"""plans/*.toml: one plan a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from proxy.domain.denials import template_faults
from proxy.domain.features import GATE_FEATURES
from proxy.domain.policy import Budget, DenialTexts, Plan, RateLimits
from proxy.policy_files.budgets import SLUG, read_budget, read_models
from proxy.policy_files.tables import Table, unkept

# Whatever reads JSON reads integers up to here alike.
EXACT_MOST = 2**53 - 1
DEPTH_MOST = 20


def read_plan(root: Table, catalogue: Collection[str] | None) -> Plan | None:
    """The plan at version 0; None if it has no id. `catalogue` None: it cannot be read, so any model passes."""
    id = root.needed("id", "starter")
    if id and not SLUG.fullmatch(id):
        root.fault(f'"{id[:40]}" is no plan id: letters, digits and . _ - only, at most 64 of them', "id")
    plan_id = id or ""
    plan = Plan(
        id=plan_id,
        name=root.text("name", plan_id.replace("-", " ").title()),
        version=0,
        models=read_models(root, catalogue, default=frozenset()),
        features=read_features(root.table("features")),
        default_max_output_tokens=root.whole("default_max_output_tokens", None),
        min_output_tokens=root.whole("min_output_tokens", 16) or 16,
        on_exceed=root.one_of("on_exceed", ("refuse", "clamp"), "refuse"),
        hold=root.one_of("hold", ("strict", "rolling"), "strict"),
        budgets=_budgets(root.tables("budgets"), catalogue),
        rate_limits=read_rate_limits(root.table("rate_limits")),
        denial=_denial(root.table("denial")),
        mode=root.one_of("mode", ("enforce", "shadow"), "enforce"),
        require_user=root.one_of("require_user", (True, False), False),
        on_store_failure=root.one_of("on_store_failure", ("closed", "open"), "closed"),
    )
    if plan.on_store_failure == "open" and (plan.budgets or plan.rate_limits != RateLimits()):
        root.fault(
            '`on_store_failure = "open"` lets calls through uncounted while Redis is away, so it is for plans'
            ' without budgets and rate limits: leave it out or write "closed"',
            "on_store_failure",
        )
    root.finish()
    return plan if id else None


def _budgets(tables: list[Table], catalogue: Collection[str] | None) -> tuple[Budget, ...]:
    budgets: list[Budget] = []
    for table in tables:
        budget = read_budget(table, catalogue)
        if any(budget.id == other.id for other in budgets):
            hint = "" if "id" in table.values else f'; give it one of its own: id = "{budget.id}-2"'
            table.fault(f'a second budget "{budget.id}": ids must differ within a plan{hint}', "id")
        budgets.append(budget)
    return tuple(budgets)


def read_features(table: Table) -> dict[str, Any]:
    """Boolean features and static ones.

    Those that the gate looks at are true or false; the others are the seller's own, and may be anything that JSON
    keeps exactly.
    """
    features: dict[str, Any] = {}
    for name in table.values:
        value = table.given(name)
        if name in GATE_FEATURES:
            features[name] = table.one_of(name, (True, False), False)
        elif not SLUG.fullmatch(name):
            table.fault(f'"{name[:40]}" is no feature: letters, digits and . _ - only, at most 64 of them', name)
        elif near := get_close_matches(name.lower().replace("-", "_"), GATE_FEATURES, n=1, cutoff=0.85):
            table.fault(f'unknown feature "{name}"; did you mean "{near[0]}"?', name)
        elif inexact := _inexact(value):
            table.fault(f"`{name}` holds {inexact}; write it as text", name)
        else:
            features[name] = value
    table.finish()
    return {"priority": False, **features}


def _inexact(value: Any, depth: int = 0) -> str | None:
    """What of a value JSON, TOML and the databases would not all keep exactly: a decimal, a date, null."""
    if depth > DEPTH_MOST:
        return f"more than {DEPTH_MOST} tables in one another"
    match value:
        case dict():
            names = (f"the name {name!r}" for name in value if unkept(name))
            return next(names, None) or _first_inexact(value.values(), depth)
        case list():
            return _first_inexact(value, depth)
        case str():
            return "a control character" if unkept(value) else None
        case bool():
            return None
        case int():
            return None if -EXACT_MOST <= value <= EXACT_MOST else "a number beyond 2^53"
        case float():
            return f"the decimal {value}"
    return "null" if value is None else f"a date or time, {value}"


def _first_inexact(values: Iterable[Any], depth: int) -> str | None:
    return next((found for value in values if (found := _inexact(value, depth + 1))), None)


def read_rate_limits(table: Table) -> RateLimits:
    limits = RateLimits(
        table.whole("requests_per_minute", None),
        table.whole("tokens_per_minute", None),
        table.whole("concurrent_requests", None),
    )
    table.finish()
    return limits


def _denial(table: Table) -> DenialTexts:
    usual = DenialTexts()
    url = table.text("upgrade_url", "")
    if url and not url.startswith(("https://", "http://")):
        table.fault("`upgrade_url` must be empty or begin with https://", "upgrade_url")
    denial = DenialTexts(
        status=table.one_of("status", (402, 429, 400), 402),
        message_exhausted=_template(table, "message_exhausted", usual.message_exhausted),
        message_too_large=_template(table, "message_too_large", usual.message_too_large),
        message_lifetime=_template(table, "message_lifetime", usual.message_lifetime),
        upgrade_url=url,
    )
    table.finish()
    return denial


def _template(table: Table, key: str, default: str) -> str:
    text = table.text(key, default)
    for fault in template_faults(text):
        table.fault(f"`{key}` {fault}", key)
    if not text.strip():
        table.fault(f"`{key}` is empty: the end user would read nothing; leave it out for the default", key)
    return text
