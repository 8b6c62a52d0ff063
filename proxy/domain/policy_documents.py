"""The policy as plain JSON values and back: how it is kept in the ledger, projected into Redis and compared.

Shapes: a document holds only dicts, lists, strings, ints, bools and None, so any JSON writer keeps it exactly.
Sets become sorted lists, so that equal policies have equal documents. A document of an older Faregate lacks the
keys that came later, which then take their defaults; a key that this Faregate does not know is a `ValueError`,
since half a policy is not a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from proxy.domain.policy import Budget, DenialTexts, Model, Plan, Policy, RateLimits, Target
from proxy.domain.pricing import Price

T = TypeVar("T")


def policy_document(policy: Policy) -> dict[str, Any]:
    """`{"revision", "models": {id: …}, "plans": {id: …}}`."""
    return {
        "revision": policy.revision,
        "models": {id: model_document(model) for id, model in policy.models.items()},
        "plans": {id: plan_document(plan) for id, plan in policy.plans.items()},
    }


def policy_from_document(document: Mapping[str, Any]) -> Policy:
    """The policy that `policy_document` wrote; ValueError says what it does not understand."""
    return _built(
        Policy,
        document,
        models={id: model_from_document(model) for id, model in _part(document, "models").items()},
        plans={id: plan_from_document(plan) for id, plan in _part(document, "plans").items()},
    )


def model_document(model: Model) -> dict[str, Any]:
    return _shallow(model) | {
        "targets": [_shallow(target) for target in model.targets],
        "fallbacks": list(model.fallbacks),
        "price": None if model.price is None else _shallow(model.price) | {"calls": dict(model.price.calls)},
    }


def model_from_document(document: Mapping[str, Any]) -> Model:
    price = document.get("price")
    return _built(
        Model,
        document,
        targets=tuple(_built(Target, target) for target in document.get("targets", ())),
        fallbacks=tuple(document.get("fallbacks", ())),
        price=None if price is None else _built(Price, price),
    )


def plan_document(plan: Plan) -> dict[str, Any]:
    """One plan, its `version` included; without that key it is the plan's content."""
    return _shallow(plan) | {
        "models": _listed(plan.models),
        "budgets": [budget_document(budget) for budget in plan.budgets],
        "rate_limits": _shallow(plan.rate_limits),
        "denial": _shallow(plan.denial),
        "features": dict(sorted(plan.features.items())),
    }


def budget_document(budget: Budget) -> dict[str, Any]:
    return _shallow(budget) | {"models": _listed(budget.models), "alert_at": list(budget.alert_at)}


def plan_from_document(document: Mapping[str, Any]) -> Plan:
    budgets = (budget_from_document(budget) for budget in document.get("budgets", ()))
    return _built(
        Plan,
        document,
        models=_named(document["models"]) if "models" in document else frozenset(),
        budgets=tuple(budgets),
        rate_limits=_built(RateLimits, document.get("rate_limits", {})),
        denial=_built(DenialTexts, document.get("denial", {})),
        features=dict(document.get("features", {})),
    )


def budget_from_document(document: Mapping[str, Any]) -> Budget:
    alert_at = {"alert_at": tuple(document["alert_at"])} if "alert_at" in document else {}
    return _built(Budget, document, models=_named(document.get("models")), **alert_at)


def _shallow(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _built(kind: type[T], document: Mapping[str, Any], **parts: Any) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(document.keys() - known):
        raise ValueError(f"{kind.__name__} document: unknown key {unknown[0]!r}; a newer Faregate wrote it")
    try:
        return kind(**{**document, **parts})
    except TypeError as fault:
        raise ValueError(f"{kind.__name__} document: {fault}") from None


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(part := document.get(key), Mapping):
        raise ValueError(f"Policy document: {key!r} must be an object, not {type(part).__name__}")
    return part


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _named(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
