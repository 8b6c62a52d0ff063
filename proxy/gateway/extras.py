"""Fields that may cost more than the client's own tokens: let through where allowed, priced and bounded."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.domain.asks import Extra
from proxy.domain.features import HOSTED_TOOLS
from proxy.domain.policy import Model, Plan, Policy
from proxy.domain.refusals import Refused
from proxy.gateway import refuse

# What another turn of the model's is paid for in. It makes no more output than its limit says.
PAID_BY_TURNS = frozenset(("tokens", "input_tokens", "cost_usd"))


def check_extras(extras: Sequence[Extra], model: Model, plan: Plan, policy: Policy) -> None:
    """Raises `Refused` for one that the plan has not, or that a budget could not be sure to pay for."""
    for extra in extras:
        if not plan.features.get(extra.feature):
            raise Refused(refuse.feature_not_allowed(extra, plan, policy))
    meters = {budget.meter for budget in plan.budgets if budget.counts(model.id)}
    if "cost_usd" in meters:
        for extra in extras:
            if not _priced(extra, model):
                raise Refused(refuse.extra_unpriced(extra, model.id))
    if meters & PAID_BY_TURNS:
        for extra in extras:
            if extra.feature in HOSTED_TOOLS and extra.calls is None:
                raise Refused(refuse.unbounded_tool(extra))


def _priced(extra: Extra, model: Model) -> bool:
    """An image by its URL costs its tokens alone; a tier has prices of its own, which no catalogue entry has."""
    if extra.feature in HOSTED_TOOLS:
        return model.price is None or extra.feature in model.price.calls
    return extra.feature != "priority_tier"
