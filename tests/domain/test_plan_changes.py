"""What an edit changed: told to the admin who reviews it, and to programs that act on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.domain.plan_changes import path_of, plan_changes, told
from proxy.domain.policy import Budget, DenialTexts, Plan, RateLimits

TOKENS = Budget("monthly", "tokens", 1_000_000)
MONEY = Budget("money", "cost_usd", 12_500_000)
PLAN = Plan("pro", "Pro", 3, frozenset({"a", "b"}), (TOKENS, MONEY), features={"priority": False})


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        (replace(PLAN, version=9), []),
        (replace(PLAN, name="P"), [("name", "Pro", "P")]),
        (replace(PLAN, models=None), [("models", ["a", "b"], ["*"])]),
        (
            replace(PLAN, budgets=(replace(TOKENS, limit=5), MONEY)),
            [("budgets[monthly].limit", 1_000_000, 5)],
        ),
        (
            replace(PLAN, budgets=(TOKENS, replace(MONEY, limit=250_000))),
            [("budgets[money].limit", "12.5", "0.25")],
        ),
        (replace(PLAN, budgets=(MONEY, TOKENS)), [("budgets", ["monthly", "money"], ["money", "monthly"])]),
        (replace(PLAN, rate_limits=RateLimits(60)), [("rate_limits.requests_per_minute", None, 60)]),
        (replace(PLAN, denial=DenialTexts(status=429)), [("denial.status", 402, 429)]),
        (replace(PLAN, features={"priority": 0}), [("features.priority", False, 0)]),
        (
            replace(PLAN, features={"priority": False, "max.agents": {"n": 1}}),
            [("features[max.agents]", None, {"n": 1})],
        ),
    ],
)
def test_a_change_says_where_and_from_what_to_what(after: Plan, changes: list[tuple[object, ...]]) -> None:
    """In the words of the files, money in USD; what did not change is not listed."""
    assert [(one["path"], one["from"], one["to"]) for one in plan_changes(PLAN, after)] == changes


def test_a_budget_that_came_or_went_is_told_whole() -> None:
    """A reviewer wants to read it, not its keys one by one."""
    (gone,) = plan_changes(PLAN, replace(PLAN, budgets=(TOKENS,)))
    assert (gone["path"], gone["from"]["limit"], gone["to"]) == ("budgets[money]", "12.5", None)
    (came,) = plan_changes(replace(PLAN, budgets=(TOKENS,)), PLAN)
    assert (came["path"], came["from"], came["to"]["meter"]) == ("budgets[money]", None, "cost_usd")


def test_lists_of_the_sellers_own_are_compared_whole() -> None:
    """Two entries of one id in a feature must not hide each other."""
    one, other = [{"id": "x", "n": 1}, {"id": "x", "n": 2}], [{"id": "x", "n": 3}, {"id": "x", "n": 2}]
    changes = plan_changes(replace(PLAN, features={"f": one}), replace(PLAN, features={"f": other}))
    assert changes == [{"path": "features.f", "from": one, "to": other}]


def test_a_new_plan_and_one_that_went_are_changes_too() -> None:
    """The first version has a diff as well: everything that it says."""
    assert {one["path"]: one["to"] for one in plan_changes(None, PLAN)}["models"] == ["a", "b"]
    assert all(one["to"] is None for one in plan_changes(PLAN, None))


def test_a_line_for_people() -> None:
    """What `faregate plans diff` prints."""
    assert told({"path": "a", "from": 1_000_000, "to": None}) == "a: 1,000,000 -> nothing"
    assert told({"path": "a", "from": ["x"], "to": [True]}) == 'a: ["x"] -> [true]'
    assert len(told({"path": "a", "from": "x" * 500, "to": {"b": "y" * 500}})) < 140


def test_a_path_can_be_followed() -> None:
    """Features may have dots in their names."""
    assert path_of(("budgets", 0, "limit")) == "budgets[0].limit"
    assert path_of(("features", "max.agents", "x")) == "features[max.agents].x"
    assert path_of(()) == ""
