"""A plan as admins write it: the keys of the plan files, sets as lists, money in USD.

The keys are those of the dataclasses, so a key that is added there is written here without more. `KEPT_OTHERWISE`
names the few whose written form is not the kept one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.policy import Budget, Plan

EVERY_MODEL = ["*"]


def _models(kept: frozenset[str] | None, of: Any) -> list[str]:
    return list(EVERY_MODEL) if kept is None else sorted(kept)


def _amount(kept: int, of: Any) -> int | str:
    """Of a budget: its meter's unit, or USD as text."""
    return usd_text(kept * PICO_PER_MICRO) if of.meter == "cost_usd" else kept


def _alerts(kept: tuple[str, ...], of: Any) -> list[str]:
    """Percentages as they are; amounts in the meter's unit, or in USD."""
    return [alert if alert.endswith("%") else str(_amount(int(alert), of)) for alert in kept]


def _users_max(kept: int, of: Any) -> int | None:
    return kept if of.per == "user" else None


KEPT_OTHERWISE: Mapping[str, Callable[[Any, Any], Any]] = {
    "models": _models,
    "limit": _amount,
    "overage_limit": _amount,
    "rollover_max": _amount,
    "rollover_min": _amount,
    "alert_at": _alerts,
    "users_max": _users_max,
}
"""Key -> what is written for (what is kept, the plan or budget it stands in)."""


def written_plan(plan: Plan) -> dict[str, Any]:
    """Every key, as JSON values and without `version`; what is absent in a file is None."""
    document = _written(plan)
    del document["version"]
    return document


def written_budget(budget: Budget) -> dict[str, Any]:
    """Every key of one budget, as in `written_plan`."""
    return _written(budget)


def shown_plan(plan: Plan, owner: str, file: str | None) -> dict[str, Any]:
    """As the admin plane shows it and the audit log compares it: with its version, and where it is edited."""
    return written_plan(plan) | {"version": plan.version, "owner": owner, "file": file}


def shortest_plan(plan: Plan) -> dict[str, Any]:
    """As `written_plan`, without what a reader takes as the default anyhow; nothing is None."""
    document = _written(plan, at_default=False)
    del document["version"]
    return document


def _written(value: Any, at_default: bool = True) -> dict[str, Any]:
    wanted = (field for field in fields(value) if at_default or getattr(value, field.name) != _default(field))
    forms = {field.name: _form(field.name, getattr(value, field.name), value, at_default) for field in wanted}
    return {key: form for key, form in forms.items() if at_default or form is not None}


def _form(key: str, kept: Any, of: Any, at_default: bool) -> Any:
    if key in KEPT_OTHERWISE:
        return KEPT_OTHERWISE[key](kept, of)
    if is_dataclass(kept):
        return _written(kept, at_default)
    if isinstance(kept, tuple):
        return [_form("", item, of, at_default) for item in kept]
    if isinstance(kept, frozenset):
        return sorted(kept)
    return dict(sorted(kept.items())) if isinstance(kept, dict) else kept


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default
