"""What a customer was promised beside its plan holds whatever the plan becomes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.overrides import with_overrides, written_overrides
from proxy.domain.policy import Budget, Plan, RateLimits
from proxy.domain.policy_documents import budget_document

CATALOGUE = ("a", "b", "c")
PLAN = Plan(
    "starter",
    "Starter",
    1,
    models=frozenset({"a"}),
    budgets=(Budget("day", "tokens", 10, "P1D"), Budget("month", "tokens", 100)),
    rate_limits=RateLimits(60, None, None),
    features={"priority": False, "seats": 3},
)


def test_nothing_overridden_is_the_plan_itself() -> None:
    """Almost every customer: no copy is made of a plan that thousands share."""
    assert with_overrides(PLAN, {}, CATALOGUE) is PLAN


def test_what_is_overridden_wins_and_the_rest_stays() -> None:
    """One changed limit must not take the other terms of the budget, or the other budgets, along."""
    plan = with_overrides(
        PLAN,
        {
            "features": {"priority": True, "seats": None},
            "rate_limits": {"requests_per_minute": None, "tokens_per_minute": 7},
            "budgets": {"month": {"meter": "tokens", "limit": 500, "alert_at": ["50%"]}},
        },
        CATALOGUE,
    )
    assert plan.features == {"priority": True}
    assert plan.rate_limits == RateLimits(None, 7, None)
    assert plan.budgets == (
        Budget("day", "tokens", 10, "P1D"),
        Budget("month", "tokens", 500, alert_at=("50%",)),
    )
    assert (plan.id, plan.version, plan.models) == ("starter", 1, frozenset({"a"}))


def test_budgets_are_taken_away_and_added() -> None:
    """A limit of the customer's own stands beside the plan's, and goes first of two with one id."""
    own = Budget("own", "requests", 5, "PT1H")
    other_day = Budget("day", "requests", 1, "PT1H")
    overrides = {
        "month": None,
        "own": {"own": budget_document(own)},
        "day": {"own": budget_document(other_day)},
    }
    assert with_overrides(PLAN, {"budgets": overrides}, CATALOGUE).budgets == (other_day, own)


def test_a_change_waits_for_the_budget_that_it_was_meant_for() -> None:
    """12.50 USD must not become 12,500,000 tokens on a plan whose budget of that name counts tokens."""
    overrides = {
        "budgets": {"month": {"meter": "cost_usd", "limit": 12_500_000}, "gone": {"meter": "tokens", "limit": 1}}
    }
    assert with_overrides(PLAN, overrides, CATALOGUE).budgets == PLAN.budgets


def test_models_are_named_anew_or_added_and_removed() -> None:
    """Taking one out of all leaves all others that there are."""

    def models(override: Any, plan: Plan = PLAN) -> Any:
        return with_overrides(plan, {"models": override}, CATALOGUE).models

    everything = Plan("all", "All", 1, models=None)
    assert models(["b"]) == {"b"}
    assert models([]) == frozenset()
    assert models(None) is None
    assert models({"add": ["b"]}) == {"a", "b"}
    assert models({"add": ["b"], "remove": ["a"]}) == {"b"}
    assert models({"remove": ["a"]}, everything) == {"b", "c"}
    assert models({"add": ["a"]}, everything) is None


def test_a_plan_that_stays_open_closes_where_a_limit_was_added() -> None:
    """Else a customer with a limit of its own would pass it whenever Redis is away."""
    open_plan = Plan("o", "O", 1, on_store_failure="open")
    limit = {"budgets": {"x": {"own": budget_document(Budget("x", "tokens", 1))}}}
    assert with_overrides(open_plan, limit, CATALOGUE).on_store_failure == "closed"
    assert with_overrides(open_plan, {"rate_limits": {"concurrent_requests": 1}}, ()).on_store_failure == "closed"
    assert with_overrides(open_plan, {"features": {"x": 1}}, ()).on_store_failure == "open"


names = st.sampled_from(CATALOGUE)
lists = st.lists(names, unique=True).map(sorted)
ids = st.sampled_from(("day", "month", "own", "other"))
changes = st.fixed_dictionaries(
    {"meter": st.sampled_from(("tokens", "cost_usd"))},
    optional={
        "limit": st.integers(0, 10**15),
        "hard": st.booleans(),
        "overage_limit": st.integers(0, 10**9),
        "models": st.none() | lists,
        "alert_at": st.lists(st.sampled_from(("80%", "500000")), unique=True),
    },
)
own = st.builds(
    lambda limit, per: {"limit": limit, "per": per}, st.integers(0, 99), st.sampled_from(("agent", "user"))
)


@st.composite
def overrides(draw: st.DrawFn) -> dict[str, Any]:
    budgets: dict[str, Any] = {}
    for id in draw(st.lists(ids, unique=True)):
        kind = draw(st.sampled_from(("none", "change", "own")))
        if kind == "own":
            budgets[id] = {"own": budget_document(Budget(id, "tokens", **draw(own)))}
        else:
            budgets[id] = None if kind == "none" else draw(changes)
    parts = {
        "features": draw(st.dictionaries(st.sampled_from(("priority", "seats", "x")), st.none() | st.booleans())),
        "models": draw(st.none() | lists | st.fixed_dictionaries({}, optional={"add": lists, "remove": lists})),
        "rate_limits": draw(
            st.dictionaries(
                st.sampled_from(("requests_per_minute", "tokens_per_minute")), st.none() | st.integers(1, 99)
            )
        ),
        "budgets": budgets,
    }
    wanted = draw(st.lists(st.sampled_from(sorted(parts)), unique=True))
    return {key: parts[key] for key in wanted}


plans = st.builds(
    lambda models, limits, features: Plan(
        "p", "P", 1, models=models, budgets=PLAN.budgets, rate_limits=limits, features=features
    ),
    st.none() | lists.map(frozenset),
    st.sampled_from((RateLimits(), RateLimits(1, 2, 3))),
    st.dictionaries(st.sampled_from(("priority", "y")), st.booleans()),
)


@given(plans, overrides())
def test_applying_twice_is_applying_once(plan: Plan, given: dict[str, Any]) -> None:
    """Standings are compiled again and again, and a plan that was overridden already must not drift."""
    once = with_overrides(plan, given, CATALOGUE)
    assert with_overrides(once, given, CATALOGUE) == once


@given(plans, overrides())
def test_the_order_of_writing_does_not_matter(plan: Plan, given: dict[str, Any]) -> None:
    """JSON objects have no order: two databases may give the same overrides back in two."""
    turned = {
        key: dict(reversed(part.items())) if isinstance(part, dict) else part
        for key, part in reversed(given.items())
    }
    assert with_overrides(plan, turned, CATALOGUE) == with_overrides(plan, given, CATALOGUE)


@given(plans, overrides())
def test_what_is_overridden_is_what_is_shown(plan: Plan, given: dict[str, Any]) -> None:
    """Everything that acts is seen by whoever looks the overrides up."""
    shown = written_overrides(given)
    assert shown.keys() == given.keys()
    for id, budget in given.get("budgets", {}).items():
        assert (shown["budgets"][id] is None) == (budget is None)
        if budget and "own" not in budget:
            assert shown["budgets"][id].keys() == budget.keys() - {"meter"}
