"""plans/*.toml: one plan a file."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, Literal

from proxy.domain.denials import template_faults
from proxy.domain.features import GATE_FEATURES
from proxy.domain.money import microusd
from proxy.domain.policy import ATTEMPT_METERS, Budget, DenialTexts, Plan, RateLimits
from proxy.domain.windows import check_window
from proxy.policy_files.tables import WHOLE_MOST, Table, shown
from proxy.settings import nearest

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_plan(root: Table, catalogue: Collection[str] | None) -> Plan | None:
    """The plan at version 0; None if it has no id. `catalogue` None: it cannot be read, so any model passes."""
    id = root.needed("id", "starter")
    if id and not _SLUG.fullmatch(id):
        root.fault(f'"{id[:40]}" is no plan id: letters, digits and . _ - only, at most 64 of them', "id")
    plan_id = id or ""
    plan = Plan(
        id=plan_id,
        name=root.text("name", plan_id.replace("-", " ").title()),
        version=0,
        models=_models(root, catalogue, default=frozenset()),
        features=_features(root.table("features")),
        default_max_output_tokens=root.whole("default_max_output_tokens", None),
        min_output_tokens=root.whole("min_output_tokens", 16) or 16,
        on_exceed=root.one_of("on_exceed", ("refuse", "clamp"), "refuse"),
        hold=root.one_of("hold", ("strict", "rolling"), "strict"),
        budgets=_budgets(root.tables("budgets"), catalogue),
        rate_limits=_rate_limits(root.table("rate_limits")),
        denial=_denial(root.table("denial")),
    )
    root.only("on_store_failure", "closed")
    root.only("mode", "enforce")
    root.only("require_user", False)
    root.finish()
    return plan if id else None


def _models(
    table: Table, catalogue: Collection[str] | None, default: frozenset[str] | None
) -> frozenset[str] | None:
    names = table.names("models")
    if names is None:
        return default
    if "*" in names:
        if len(names) > 1:
            table.fault('"*" means every model: write ["*"] alone, or the models one by one', "models")
        return None
    for position, name in enumerate(table.values["models"]):
        if isinstance(name, str) and catalogue is not None and name not in catalogue:
            table.fault(f'unknown model "{name}"{nearest(name, catalogue)}', "models", position)
    return frozenset(names)


def _features(table: Table) -> dict[str, Any]:
    """Boolean features and static ones. Those that the gate looks at are true or false; the others are the seller's
    own, and may be anything that JSON keeps exactly."""
    features: dict[str, Any] = {}
    for name in table.values:
        value = table.given(name)
        if name in GATE_FEATURES:
            features[name] = table.one_of(name, (True, False), False)
        elif not _SLUG.fullmatch(name):
            table.fault(f'"{name[:40]}" is no feature: letters, digits and . _ - only, at most 64 of them', name)
        elif near := get_close_matches(name.lower().replace("-", "_"), GATE_FEATURES, n=1, cutoff=0.85):
            table.fault(f'unknown feature "{name}"; did you mean "{near[0]}"?', name)
        elif inexact := _inexact(value):
            table.fault(f"`{name}` holds {inexact}; write it as text", name)
        else:
            features[name] = value
    table.finish()
    return {"priority": False, **features}


def _inexact(value: Any) -> str | None:
    """What of a value JSON would not keep exactly: a decimal, a date."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return next((found for found in map(_inexact, parts) if found), None)
    if isinstance(value, float):
        return f"the decimal {value}"
    return None if isinstance(value, str | int) else f"a date or time, {value}"


def _budgets(tables: list[Table], catalogue: Collection[str] | None) -> tuple[Budget, ...]:
    budgets: list[Budget] = []
    for table in tables:
        budget = _budget(table, catalogue)
        if any(budget.id == other.id for other in budgets):
            hint = "" if "id" in table.values else f'; give it one of its own: id = "{budget.id}-2"'
            table.fault(f'a second budget "{budget.id}": ids must differ within a plan{hint}', "id")
        budgets.append(budget)
    return tuple(budgets)


def _budget(table: Table, catalogue: Collection[str] | None) -> Budget:
    meter = _meter(table)
    window = _window(table)
    per = _per(table)
    id = table.text("id", f"{meter}-{per}-{window}")
    if not _SLUG.fullmatch(id):
        table.fault(f'"{id[:40]}" is no budget id: letters, digits and . _ - only, at most 64 of them', "id")
    limit = _limit_usd(table) if meter == "cost_usd" else _limit(table)
    models = _models(table, catalogue, default=None)
    table.only("anchor", "subscription")
    table.only("hard", True)
    table.only("overage_limit", 0)
    table.only("rollover_max", 0)
    table.only("alert_at", [0.8, 0.95, 1.0])
    table.finish()
    return Budget(id, meter, limit, window, per, models)


def _meter(table: Table) -> str:
    meter = table.text("meter", "tokens")
    if meter not in ATTEMPT_METERS:
        near = nearest(meter, ATTEMPT_METERS)
        table.fault(f'the meter "{meter}" is not available (actions cannot be metered yet){near}', "meter")
    return meter


def _per(table: Table) -> Literal["customer", "agent"]:
    if table.values.get("per") == "user":
        table.only("per", "customer")
        return "customer"
    per: Literal["customer", "agent"] = table.one_of("per", ("customer", "agent"), "customer")
    return per


def _window(table: Table) -> str:
    window = table.text("window", "P1M")
    try:
        check_window(window)
    except ValueError as fault:
        table.fault(f"`window`: {fault}", "window")
        return "P1M"
    return window


def _limit(table: Table) -> int:
    if table.given("limit") is None:
        table.fault("`limit` is missing; write for example limit = 1_000_000")
    return table.whole("limit", 0, least=0) or 0


def _limit_usd(table: Table) -> int:
    value = table.given("limit")
    if value is None:
        table.fault('`limit` is missing; write for example limit = "12.50", in USD')
        return 0
    if type(value) is not int and not isinstance(value, str):
        text = shown(value) if isinstance(value, float) else "12.50"
        table.fault(f'`limit` of cost_usd is in USD, a whole number or text: limit = "{text}"', "limit")
        return 0
    try:
        limit = microusd(value)
    except ValueError as fault:
        table.fault(f"`limit`: {fault}", "limit")
        return 0
    if limit > WHOLE_MOST:
        table.fault("`limit` must be at most a billion USD", "limit")
    return limit


def _rate_limits(table: Table) -> RateLimits:
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
