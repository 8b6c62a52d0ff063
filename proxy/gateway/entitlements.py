"""What a plan grants its caller and what is left of it: the shape of DESIGN 5.5, for agents and admins alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.domain.balances import Level, level_of, names_of
from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.reservations import Counter
from proxy.gateway.ports import Balances
from proxy.gateway.standing import Standing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def entitlements(
    standing: Standing, balances: Balances, now_us: int, user_id: str | None = None
) -> dict[str, Any]:
    """The caller's models, features and budgets with what is used, held and left. May raise `StoreAway`.

    Budgets per user are those of `user_id`, or of all calls without a user.

    Amounts are integers in the meter's unit; of `cost_usd` they are decimal strings in USD.
    """
    who, plan = standing.identity, standing.plan
    counters = standing.all_counters(now_us, user_id)
    tallies = await balances.tallies(who.shard, names_of(counters))
    allowed = sorted(model for model in standing.policy.models if plan.allows(model))
    return {
        "customer_id": who.customer_id,
        "plan": plan.id,
        "plan_version": plan.version,
        "models": allowed,
        "features": dict(plan.features),
        "budgets": [_budget(counter, level_of(counter, tallies)) for counter in counters],
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


def _budget(counter: Counter, at: Level) -> dict[str, Any]:
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
        "granted": shown(at.granted),
        "used": shown(at.used),
        "held": shown(at.held),
        "remaining": shown(at.remaining),
        "overage": shown(at.overage),
        "starts_at": None if counter.ends_us is None else time_text(counter.starts_us),
        "resets_at": None if counter.ends_us is None else time_text(counter.ends_us),
    }
