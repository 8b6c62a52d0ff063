from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from proxy.domain.policy import Budget, DenialTexts, Model, Plan, Policy, RateLimits, Target
from proxy.domain.policy_documents import (
    plan_document,
    plan_from_document,
    policy_document,
    policy_from_document,
)
from proxy.domain.pricing import Price

PRICE = Price(150_000, 600_000, 75_000, 1, 2, 3, 4, "models.toml", 5, {"web_search": 6, "mcp": 0})
TARGETS = (Target("openai", "gpt-4o-mini-2024"), Target("azure", "mini"))
MODEL = Model("gpt-4o-mini", TARGETS, 16_384, 128_000, "max_tokens", ("claude",), PRICE)
PLAN = Plan(
    id="starter",
    name="Starter",
    version=7,
    models=frozenset({"b", "a", "c"}),
    budgets=(
        Budget(
            "tokens",
            "tokens",
            1_000_000,
            "P1D",
            "agent",
            frozenset({"b", "a"}),
            "calendar",
            False,
            5,
            6,
            7,
            8,
            ("50%", "900"),
        ),
        Budget("money", "cost_usd", 9_000_000_000_000_000),
    ),
    rate_limits=RateLimits(60, 100_000, 10),
    denial=DenialTexts(429, "spent", "too large", "for life", "https://example.test/upgrade"),
    features={"priority": True, "beta": False},
    default_max_output_tokens=4096,
    min_output_tokens=8,
    on_exceed="clamp",
    hold="rolling",
    mode="shadow",
    require_user=True,
    on_store_failure="open",
)
POLICY = Policy(3, {MODEL.id: MODEL, "bare": replace(MODEL, id="bare", price=None, fallbacks=())}, {PLAN.id: PLAN})


def test_a_policy_survives_the_way_through_json() -> None:
    """What is applied is what every worker obeys after reading it back; a lost field would be a lost limit."""
    assert policy_from_document(json.loads(json.dumps(policy_document(POLICY)))) == POLICY


def test_every_field_is_in_the_document_with_another_value_than_its_default() -> None:
    """A field added to the domain and forgotten here would silently fall back to its default."""
    for value in (MODEL, PRICE, PLAN, PLAN.budgets[0], PLAN.rate_limits, PLAN.denial):
        for field in fields(value):
            assert getattr(value, field.name) != field.default, (
                f"give {field.name} a value of its own in this test"
            )
    document = policy_document(POLICY)
    assert set(document["models"]["gpt-4o-mini"]) == {field.name for field in fields(Model)}
    assert set(document["models"]["gpt-4o-mini"]["price"]) == {field.name for field in fields(Price)}
    plan = document["plans"]["starter"]
    assert set(plan) == {field.name for field in fields(Plan)}
    assert set(plan["budgets"][0]) == {field.name for field in fields(Budget)}


def test_all_models_and_no_models_stay_apart() -> None:
    """None means every model, the empty set means none: confusing them opens or closes a plan."""
    for models in (None, frozenset[str]()):
        plan = replace(PLAN, models=models, budgets=(replace(PLAN.budgets[0], models=models),))
        assert plan_from_document(plan_document(plan)) == plan


def test_equal_plans_have_equal_documents() -> None:
    """Versions are given by comparing content; the order of a set must not make a new version."""
    shuffled = replace(PLAN, models=frozenset(["c", "a", "b"]), features={"beta": False, "priority": True})
    assert json.dumps(plan_document(shuffled)) == json.dumps(plan_document(PLAN))


def test_an_older_document_takes_the_defaults() -> None:
    """A ledger outlives releases: what an older Faregate wrote is still read."""
    assert plan_from_document({"id": "x", "name": "X", "version": 1}) == Plan("x", "X", 1)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"revision": 1, "models": {}, "plans": {}, "hold": 1}, "Policy document: unknown key 'hold'"),
        ({"revision": 1, "models": [], "plans": {}}, "'models' must be an object, not list"),
        ({"models": {}, "plans": {}}, "revision"),
        (
            {"revision": 1, "models": {}, "plans": {"p": {"id": "p", "name": "P", "version": 1, "z": 0}}},
            "Plan doc",
        ),
    ],
)
def test_a_document_that_is_not_understood_is_refused(document: dict[str, object], complaint: str) -> None:
    """Half a policy must never be enforced as a whole one."""
    with pytest.raises(ValueError, match=complaint):
        policy_from_document(document)
