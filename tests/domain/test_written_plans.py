"""The written plan is what admins see everywhere: files, API, diffs."""

from __future__ import annotations

from dataclasses import fields

from proxy.domain.policy import Budget, DenialTexts, Plan, RateLimits
from proxy.domain.written_plans import shortest_plan, written_plan

PLAN = Plan(
    "pro", "Pro", 3, None, (Budget("m", "cost_usd", 12_500_000, models=frozenset("ba")), Budget("t", "tokens", 7))
)


def test_every_key_is_written_in_the_words_of_the_files() -> None:
    """A key that is left out here is lost in an export; money is in USD, or nobody can read it."""
    document = written_plan(PLAN)
    assert set(document) == {field.name for field in fields(Plan)} - {"version"}
    assert document["models"] == ["*"]
    assert [(one["limit"], one["models"]) for one in document["budgets"]] == [("12.5", ["a", "b"]), (7, ["*"])]
    assert set(document["denial"]) == {field.name for field in fields(DenialTexts)}
    assert document["rate_limits"] == dict.fromkeys((field.name for field in fields(RateLimits)), None)


def test_the_shortest_says_only_what_is_no_default() -> None:
    """An exported file should look like one that a person wrote."""
    assert shortest_plan(PLAN) == {
        "id": "pro",
        "name": "Pro",
        "models": ["*"],
        "budgets": [
            {"id": "m", "meter": "cost_usd", "limit": "12.5", "models": ["a", "b"]},
            {"id": "t", "meter": "tokens", "limit": 7},
        ],
    }
