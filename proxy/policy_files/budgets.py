"""A budget of a plan, or of one customer, as somebody wrote it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal
from typing import Any

from proxy.domain.money import microusd
from proxy.domain.policy import ATTEMPT_METERS, Budget
from proxy.domain.windows import LIFETIME, check_window
from proxy.policy_files.tables import WHOLE_MOST, Table, shown
from proxy.settings import nearest

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ALERTS_MOST = 10
PERCENT_MOST = 1000
USERS_MOST = 1_000_000

_PERCENT = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,2})?) ?%")
AMOUNTS = ("limit", "overage_limit", "rollover_max", "rollover_min")


def read_models(
    table: Table, catalogue: Collection[str] | None, default: frozenset[str] | None, key: str = "models"
) -> frozenset[str] | None:
    """The models that are named, None for every model. `catalogue` None: it cannot be read, so any passes."""
    names = table.names(key)
    if names is None:
        return default
    if "*" in names:
        if len(names) > 1:
            table.fault('"*" means every model: write ["*"] alone, or the models one by one', key)
        return None
    for position, name in enumerate(table.values[key]):
        if isinstance(name, str) and catalogue is not None and name not in catalogue:
            table.fault(f'unknown model "{name}"{nearest(name, catalogue)}', key, position)
    return frozenset(names)


def read_budget(table: Table, catalogue: Collection[str] | None, default_id: str | None = None) -> Budget:
    """A whole budget. Its id is `default_id`, or made of what it counts, where none is written."""
    meter = _meter(table)
    window = _window(table)
    per = table.one_of("per", ("customer", "agent", "user"), "customer")
    id = table.text("id", default_id or f"{meter}-{per}-{window}")
    if not SLUG.fullmatch(id):
        table.fault(f'"{id[:40]}" is no budget id: letters, digits and . _ - only, at most 64 of them', "id")
    if "limit" not in table.values:
        example = '"12.50", in USD' if meter == "cost_usd" else "1_000_000"
        table.fault(f"`limit` is missing; write for example limit = {example}")
    budget = Budget(
        id=id,
        meter=meter,
        limit=0,
        window=window,
        per=per,
        anchor=table.one_of("anchor", ("subscription", "calendar"), "subscription"),
    )
    budget = replace(budget, **read_budget_terms(table, meter, catalogue))
    check_budget(table, budget)
    table.finish()
    return budget


def read_budget_terms(table: Table, meter: str, catalogue: Collection[str] | None) -> dict[str, Any]:
    """What is written of how much a budget allows, by the names of `Budget`; not what it counts."""
    terms: dict[str, Any] = {key: _amount(table, key, meter) for key in AMOUNTS if table.given(key) is not None}
    if table.given("models") is not None:
        terms["models"] = read_models(table, catalogue, default=None)
    if table.given("hard") is not None:
        terms["hard"] = table.one_of("hard", (True, False), True)
    if table.given("users_max") is not None:
        terms["users_max"] = _users_max(table)
    if table.given("alert_at") is not None:
        terms["alert_at"] = _alerts(table, meter)
    return terms


def check_budget(table: Table, budget: Budget) -> None:
    """Notes what contradicts itself. Faults stand at the keys that were written."""
    if not budget.hard and budget.overage_limit:
        table.fault(
            "`overage_limit` says how far a hard budget may be passed; with hard = false there is no end to it:"
            " leave one of the two out",
            "overage_limit",
        )
    if budget.rollover_min > budget.rollover_max:
        table.fault(
            f"`rollover_min` is above `rollover_max` ({budget.rollover_max:,}), which is the most that is carried"
            " over",
            "rollover_min",
        )
    if budget.window == LIFETIME and (budget.rollover_max or budget.rollover_min):
        table.fault(
            'window = "lifetime" never renews, so nothing is carried over: leave `rollover_max` out',
            "rollover_max",
        )
    if budget.window == LIFETIME and budget.anchor == "calendar":
        table.fault('window = "lifetime" never begins anew, so it has no calendar: leave `anchor` out', "anchor")
    if table.values.get("users_max") is not None and budget.per != "user":
        table.fault('`users_max` bounds the users of a budget with per = "user"; this one has none', "users_max")


def _meter(table: Table) -> str:
    meter = table.text("meter", "tokens")
    if meter not in ATTEMPT_METERS:
        near = nearest(meter, ATTEMPT_METERS)
        table.fault(f'the meter "{meter}" is not available (actions cannot be metered yet){near}', "meter")
    return meter


def _window(table: Table) -> str:
    window = table.text("window", "P1M")
    try:
        check_window(window)
    except ValueError as fault:
        table.fault(f"`window`: {fault}", "window")
        return "P1M"
    return window


def _amount(table: Table, key: str, meter: str) -> int:
    return usd_amount(table, key) if meter == "cost_usd" else table.whole(key, 0, least=0) or 0


def usd_amount(table: Table, key: str) -> int:
    """Microdollars of an amount in USD, written as a whole number or as text."""
    value = table.given(key)
    if type(value) is not int and not isinstance(value, str):
        text = shown(value) if isinstance(value, float) else "12.50"
        table.fault(f'`{key}` of cost_usd is in USD, a whole number or text: {key} = "{text}"', key)
        return 0
    try:
        amount = microusd(value)
    except ValueError as fault:
        table.fault(f"`{key}`: {fault}", key)
        return 0
    if amount > WHOLE_MOST:
        table.fault(f"`{key}` must be at most a billion USD", key)
    return amount


def _users_max(table: Table) -> int:
    """Each user of a window is a counter in Redis, so that there is an end to them."""
    value = table.whole("users_max", 1) or 1
    if value > USERS_MOST:
        table.fault(f"`users_max` must be at most {USERS_MOST:,}, not {value:,}", "users_max")
    return value


def _alerts(table: Table, meter: str) -> tuple[str, ...]:
    value = table.given("alert_at")
    if not isinstance(value, list):
        table.fault(f"`alert_at` must be a list, such as alert_at = [0.8, 1.0], not {shown(value)}", "alert_at")
        return ()
    if len(value) > ALERTS_MOST:
        table.fault(f"`alert_at` has {len(value)} thresholds; there may be {ALERTS_MOST}", "alert_at")
    alerts: list[str] = []
    for position, item in enumerate(value):
        try:
            alert = _alert(item, meter)
        except ValueError as fault:
            table.fault(f"`alert_at`: {fault}", "alert_at", position)
            continue
        if alert in alerts:
            table.fault(f"`alert_at`: {shown(item)} is the same as one before it", "alert_at", position)
        alerts.append(alert)
    return tuple(alerts)


def _alert(item: Any, meter: str) -> str:
    """ "80%", or an amount in the meter's unit; ValueError says what would be right."""
    if isinstance(item, float):
        return _percent(Decimal(repr(item)) * 100, item)
    if isinstance(item, str) and "%" in item:
        match = _PERCENT.fullmatch(item)
        if match is None:
            raise ValueError(f'{shown(item)} is no percentage, such as "80%" or "99.5%"')
        return _percent(Decimal(match[1]), item)
    if type(item) is int and item == 1:
        raise ValueError('1 could be the whole limit or an amount of 1: write 1.0 or "100%", or as text "1"')
    if isinstance(item, str) or type(item) is int:
        return str(_alert_amount(item, meter))
    raise ValueError(f'{shown(item)} is no threshold: write a fraction such as 0.8, "80%", or an amount')


def _percent(percent: Decimal, item: Any) -> str:
    if not 0 < percent <= PERCENT_MOST or percent != round(percent, 2):
        raise ValueError(
            f"{shown(item)} is out of range: a threshold is above 0 and at most {PERCENT_MOST // 100}.0"
            f' ("{PERCENT_MOST}%"), in hundredths of a percent'
        )
    return f"{percent.normalize():f}%"


def _alert_amount(item: str | int, meter: str) -> int:
    if meter == "cost_usd":
        amount = microusd(item)
    else:
        try:
            amount = int(str(item))
        except ValueError:
            raise ValueError(f"{shown(item)} is no whole number of {meter}") from None
    if not 0 < amount <= WHOLE_MOST:
        raise ValueError(f"{shown(item)} is out of range: an amount is above 0 and at most {WHOLE_MOST:,}")
    return amount
