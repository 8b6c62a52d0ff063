"""What wins over a plan is read by the same code as the plan, and every fault is told with its place."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.overrides import with_overrides, written_overrides
from proxy.domain.policy import Budget, Plan
from proxy.policy_files import read_overrides

CATALOGUE = ("gpt-4o-mini", "gpt-4o", "o3")
PLAN = Plan(
    "starter",
    "Starter",
    2,
    models=frozenset({"gpt-4o-mini"}),
    budgets=(Budget("monthly", "tokens", 1000), Budget("money", "cost_usd", 5_000_000)),
)

WRITTEN: dict[str, Any] = {
    "features": {"priority": None, "web_search": True, "seats": 5},
    "models": {"add": ["gpt-4o"], "remove": ["gpt-4o-mini"]},
    "rate_limits": {"requests_per_minute": 5, "tokens_per_minute": None},
    "budgets": {
        "monthly": None,
        "money": {"limit": "12.50", "overage_limit": "1", "alert_at": ["50%", "2.5"], "models": ["gpt-4o"]},
        "hourly": {"meter": "tokens", "limit": 50, "window": "PT1H", "per": "user", "users_max": 7},
    },
}


def read(document: dict[str, Any], present: dict[str, Any] | None = None) -> dict[str, Any]:
    overrides, faults = read_overrides(document, PLAN, CATALOGUE, present or {})
    assert faults == []
    return overrides


def test_overrides_are_kept_in_the_units_that_are_counted() -> None:
    """Money in microdollars, and each change with the meter that it was written for."""
    overrides = read(WRITTEN)
    assert overrides["features"] == {"priority": None, "web_search": True, "seats": 5}
    assert overrides["models"] == {"add": ["gpt-4o"], "remove": ["gpt-4o-mini"]}
    assert overrides["rate_limits"] == {"requests_per_minute": 5, "tokens_per_minute": None}
    assert overrides["budgets"]["monthly"] is None
    assert overrides["budgets"]["money"] == {
        "meter": "cost_usd",
        "limit": 12_500_000,
        "overage_limit": 1_000_000,
        "alert_at": ["50%", "2500000"],
        "models": ["gpt-4o"],
    }
    own = overrides["budgets"]["hourly"]["own"]
    assert (own["id"], own["limit"], own["window"], own["per"]) == ("hourly", 50, "PT1H", "user")


def test_what_is_shown_may_be_sent_back(policies: Any) -> None:
    """An admin reads the overrides, changes one thing and sends all of it: nothing else may change."""
    overrides = read(WRITTEN)
    shown = written_overrides(overrides)
    assert shown["budgets"]["money"]["limit"] == "12.5"
    assert read(shown, overrides) == overrides


def test_what_is_shown_may_be_sent_back_on_another_plan() -> None:
    """A plan without these budgets: a change waits for the old plan, one of its own stays one of its own."""
    overrides = read(WRITTEN)
    other = Plan("pro", "Pro", 1, budgets=(Budget("hourly", "tokens", 9),))
    again, faults = read_overrides(written_overrides(overrides), other, CATALOGUE, overrides)
    assert (again, faults) == (overrides, [])
    (hourly,) = with_overrides(other, overrides, CATALOGUE).budgets
    assert (hourly.limit, hourly.window) == (50, "PT1H")


def test_every_model_and_none() -> None:
    """An empty list takes everything away; that must not read like nothing said."""
    assert read({"models": ["*"]}) == {"models": None}
    assert read({"models": []}) == {"models": []}
    assert read({}) == {}
    assert read({"features": {}, "budgets": {}, "models": {"add": []}}) == {}


@pytest.mark.parametrize(
    ("document", "place", "told"),
    [
        ({"feature": {}}, ("feature",), 'unknown key "feature"; did you mean "features"?'),
        ({"features": 3}, ("features",), "must be a table"),
        ({"features": {"web_search": "yes"}}, ("features", "web_search"), "must be true or false"),
        ({"features": {"web_serch": True}}, ("features", "web_serch"), 'did you mean "web_search"?'),
        ({"features": {"a b": None}}, ("features", "a b"), "is no feature"),
        ({"models": ["gpt-5"]}, ("models", 0), 'unknown model "gpt-5"'),
        ({"models": {"add": ["*"]}}, ("models", "add"), 'write models = ["*"]'),
        ({"models": {"add": ["o3"], "remove": ["o3"]}}, ("models", "remove"), "both added and removed"),
        ({"models": {"plus": ["o3"]}}, ("models", "plus"), "unknown key"),
        ({"rate_limits": {"rpm": None}}, ("rate_limits", "rpm"), "unknown key"),
        ({"rate_limits": {"requests_per_minute": 0}}, ("rate_limits", "requests_per_minute"), "must be from 1"),
        ({"budgets": {"montly": None}}, ("budgets", "montly"), 'did you mean "monthly"?'),
        ({"budgets": {"monthly": 5}}, ("budgets", "monthly"), "an object of what differs"),
        ({"budgets": {"monthly": {"window": "P1D"}}}, ("budgets", "monthly", "window"), "of the customer's own"),
        ({"budgets": {"monthly": {"limit": 1.5}}}, ("budgets", "monthly", "limit"), "whole number"),
        ({"budgets": {"money": {"limit": 1.5}}}, ("budgets", "money", "limit"), "in USD"),
        ({"budgets": {"monthly": {"limt": 1}}}, ("budgets", "monthly", "limt"), 'did you mean "limit"?'),
        ({"budgets": {"new": {"meter": "tokens"}}}, ("budgets", "new"), "`limit` is missing"),
        ({"budgets": {"new": {"limit": 1, "id": "x"}}}, ("budgets", "new", "id"), "leave it out"),
        ({"budgets": {"a b": {"limit": 1}}}, ("budgets", "a b", "id"), "is no budget id"),
        (
            {"budgets": {"monthly": {"hard": False, "overage_limit": 5}}},
            ("budgets", "monthly", "overage_limit"),
            "leave one of the two out",
        ),
        ({"budgets": {f"b{n}": {"limit": 1} for n in range(51)}}, ("budgets",), "may have overrides of 50"),
    ],
)
def test_each_fault_is_told_with_its_place(document: dict[str, Any], place: tuple[Any, ...], told: str) -> None:
    """The same sentences as for the files, for the same mistakes."""
    _, ((where, message),) = read_overrides(document, PLAN, CATALOGUE, {})
    assert (where, told in message) == (place, True), message
