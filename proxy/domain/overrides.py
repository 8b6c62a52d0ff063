"""What wins over a customer's plan, as the ledger and the directory keep it, in the units that are counted:

    {"features": {name: value, or null: taken away},
     "models": [ids] or null: every model, or {"add": [ids], "remove": [ids]},
     "rate_limits": {name: number, or null: no such limit},
     "budgets": {id: null                           the plan's is taken away
                   | {"meter", and what differs}    the plan's of that id and meter, changed
                   | {"own": budget document}}}     one that the plan has not

Keys that are absent leave the plan as it is. A change of a budget that the plan has not (any more) does nothing:
it was meant for another plan, and comes to life again with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from proxy.domain.policy import Budget, Plan, RateLimits
from proxy.domain.policy_documents import budget_from_document
from proxy.domain.written_plans import EVERY_MODEL, written_budget


def with_overrides(plan: Plan, overrides: Mapping[str, Any], catalogue: Collection[str]) -> Plan:
    """The plan as it is for this customer. `catalogue`: every model there is, for those that are taken out of all.

    A plan that stays open while Redis is away does not where a limit was added.
    """
    if not overrides:
        return plan
    budgets = _budgets(plan.budgets, overrides.get("budgets", {}))
    limits = replace(plan.rate_limits, **overrides.get("rate_limits", {}))
    features = {**plan.features, **overrides.get("features", {})}
    limited = bool(budgets) or limits != RateLimits()
    return replace(
        plan,
        models=_models(plan.models, overrides["models"], catalogue) if "models" in overrides else plan.models,
        budgets=budgets,
        rate_limits=limits,
        features={name: value for name, value in features.items() if value is not None},
        on_store_failure="closed" if limited else plan.on_store_failure,
    )


def written_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """As the admin plane shows and takes them: money in USD, ["*"] for every model."""
    written = dict(overrides)
    if "models" in overrides and overrides["models"] is None:
        written["models"] = list(EVERY_MODEL)
    if "budgets" in overrides:
        written["budgets"] = {id: _written_budget(id, budget) for id, budget in overrides["budgets"].items()}
    return written


def changed_budget(budget: Budget, change: Mapping[str, Any]) -> Budget:
    """The plan's budget with what differs; itself if the change is for another meter."""
    if change["meter"] != budget.meter:
        return budget
    terms = {name: _kept(name, value) for name, value in change.items() if name != "meter"}
    return replace(budget, **terms)


def _budgets(budgets: tuple[Budget, ...], overrides: Mapping[str, Any]) -> tuple[Budget, ...]:
    """The plan's in its order, then the customer's own by their ids. One of its own wins over the plan's."""
    own = {id: over["own"] for id, over in overrides.items() if over is not None and "own" in over}
    kept = [
        changed_budget(budget, overrides[budget.id]) if budget.id in overrides else budget
        for budget in budgets
        if budget.id not in own and overrides.get(budget.id, {}) is not None
    ]
    return (*kept, *(budget_from_document(own[id]) for id in sorted(own)))


def _models(models: frozenset[str] | None, override: Any, catalogue: Collection[str]) -> frozenset[str] | None:
    if not isinstance(override, Mapping):
        return None if override is None else frozenset(override)
    added, removed = frozenset(override.get("add", ())), frozenset(override.get("remove", ()))
    if models is None and not removed:
        return None
    return ((frozenset(catalogue) if models is None else models) | added) - removed


def _kept(name: str, value: Any) -> Any:
    if name == "models":
        return None if value is None else frozenset(value)
    return tuple(value) if name == "alert_at" else value


def _written_budget(id: str, override: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if override is None:
        return None
    if "own" in override:
        whole = written_budget(budget_from_document(override["own"]))
        return {name: value for name, value in whole.items() if name != "id" and value is not None}
    changed = written_budget(changed_budget(Budget(id, override["meter"], 0, per="user"), override))
    return {name: changed[name] for name in override if name != "meter"}
