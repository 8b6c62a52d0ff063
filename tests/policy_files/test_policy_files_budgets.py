"""Limits of every kind, as admins write them, become what is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.policy import Budget
from proxy.policy_files import read_policies
from proxy.policy_files.budgets import read_budget
from proxy.policy_files.tables import Table
from proxy.settings import Settings

Policies = Callable[..., Path]


LIMITS = """id = "limits"
mode = "shadow"
require_user = true
features = { web_search = true, seats = 5, regions = ["eu", "us"], support = { hours = "9-17" } }
[[budgets]]
id = "fair"
limit = 1000
per = "user"
users_max = 50
anchor = "calendar"
overage_limit = 200
rollover_max = 300
rollover_min = 100
alert_at = [0.8, "99.5%", 500, "1", 2.0]
[[budgets]]
meter = "cost_usd"
limit = "10.50"
hard = false
rollover_max = "2.50"
alert_at = ["5.25", 9]
[[budgets]]
limit = 5
meter = "cost_usd"
window = "P1W"
overage_limit = "0.5"
alert_at = []
"""


def test_limits_of_every_kind_are_read(policies: Policies) -> None:
    """Soft, with overage, rolled over, per user, by the calendar; money in microdollars, never floats."""
    plan = read_policies(policies(limits=LIMITS), Settings()).plans["limits"]
    assert (plan.mode, plan.require_user, plan.on_store_failure) == ("shadow", True, "closed")
    assert plan.features == {
        "priority": False,
        "web_search": True,
        "seats": 5,
        "regions": ["eu", "us"],
        "support": {"hours": "9-17"},
    }
    fair, soft, weekly = plan.budgets
    assert (fair.per, fair.users_max, fair.anchor, fair.hard) == ("user", 50, "calendar", True)
    assert (fair.overage_limit, fair.rollover_max, fair.rollover_min) == (200, 300, 100)
    assert fair.alert_at == ("80%", "99.5%", "500", "1", "200%")
    assert (soft.limit, soft.hard, soft.rollover_max) == (10_500_000, False, 2_500_000)
    assert soft.alert_at == ("5250000", "9000000")
    assert (weekly.id, weekly.overage_limit, weekly.alert_at) == ("cost_usd-customer-P1W", 500_000, ())


def test_a_plan_without_any_limit_may_stay_open(policies: Policies) -> None:
    """There is nothing that a call could overshoot while Redis is away."""
    text = 'id = "x"\non_store_failure = "open"\n[rate_limits]\n'
    assert read_policies(policies(x=text), Settings()).plans["x"].on_store_failure == "open"


def read(**values: Any) -> tuple[Budget, list[str]]:
    faults: list[str] = []
    table = Table({"limit": 100, **values}, lambda place, message: faults.append(f"{place}: {message}"))
    return read_budget(table, ("gpt-4o-mini",)), faults


@pytest.mark.parametrize(
    ("meter", "written", "kept"),
    [
        ("tokens", 0.8, "80%"),
        ("tokens", 1.0, "100%"),
        ("tokens", 0.995, "99.5%"),
        ("tokens", 0.0001, "0.01%"),
        ("tokens", 10.0, "1000%"),
        ("tokens", 0.29, "29%"),
        ("tokens", "80%", "80%"),
        ("tokens", "80.00 %", "80%"),
        ("tokens", "100%", "100%"),
        ("tokens", 500_000, "500000"),
        ("tokens", "1", "1"),
        ("cost_usd", 12, "12000000"),
        ("cost_usd", "12.50", "12500000"),
        ("cost_usd", "50%", "50%"),
    ],
)
def test_a_threshold_has_one_form_however_it_is_written(meter: str, written: Any, kept: str) -> None:
    """Once per window and threshold: two forms of one threshold would alert twice. And 0.29 is no 28.999999 %."""
    budget, faults = read(meter=meter, alert_at=[written])
    assert (budget.alert_at, faults) == ((kept,), [])


def test_the_default_thresholds_are_those_of_the_domain() -> None:
    """What is shown in the docs, and what a plan has that says nothing."""
    assert read()[0].alert_at == Budget("x", "tokens", 1).alert_at == ("80%", "95%", "100%")


def test_what_is_null_in_json_is_as_good_as_absent() -> None:
    """The same reader reads what the admin plane is sent."""
    budget, faults = read(hard=None, overage_limit=None, models=None, users_max=None)
    assert (budget, faults) == (Budget("tokens-customer-P1M", "tokens", 100), [])
