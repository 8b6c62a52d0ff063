"""What a plan grants its caller and what is left of it: the shape of DESIGN 5.5, for agents and admins alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.reservations import Counter
from proxy.gateway.ports import Balances
from proxy.gateway.standing import Standing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def entitlements(standing: Standing, balances: Balances, now_us: int) -> dict[str, Any]:
    """The caller's models, features and budgets with what is used, held and left. May raise `StoreAway`.

    Amounts are integers in the meter's unit; of `cost_usd` they are decimal strings in USD.
    """
    who, plan = standing.identity, standing.plan
    counters = standing.all_counters(now_us)
    states = await balances.balances(who.shard, [counter.name for counter in counters])
    allowed = sorted(model for model in standing.policy.models if plan.allows(model))
    return {
        "customer_id": who.customer_id,
        "plan": plan.id,
        "plan_version": plan.version,
        "models": allowed,
        "features": dict(plan.features),
        "budgets": [_budget(counter, *state) for counter, state in zip(counters, states, strict=True)],
    }


def models(standing: Standing) -> list[dict[str, Any]]:
    """The models of the plan in OpenAI's shape; `created` is no fact the gate has, hence 0."""
    return [
        {"id": model.id, "object": "model", "created": 0, "owned_by": model.targets[0].upstream}
        for model in standing.policy.models.values()
        if standing.plan.allows(model.id)
    ]


def time_text(us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC: "2026-12-01T00:00:00Z"."""
    moment = EPOCH + timedelta(microseconds=us)
    return moment.isoformat(timespec="auto").replace("+00:00", "Z")


def _budget(counter: Counter, used: int, held: int) -> dict[str, Any]:
    budget = counter.budget
    money = budget.meter == "cost_usd"

    def shown(amount: int) -> int | str:
        return usd_text(amount * PICO_PER_MICRO) if money else amount

    return {
        "budget_id": budget.id,
        "meter": budget.meter,
        "per": budget.per,
        "window": budget.window,
        "limit": shown(budget.limit),
        "granted": shown(0),
        "used": shown(used),
        "held": shown(held),
        "remaining": shown(max(0, budget.limit - used - held)),
        "starts_at": None if counter.ends_us is None else time_text(counter.starts_us),
        "resets_at": None if counter.ends_us is None else time_text(counter.ends_us),
    }
