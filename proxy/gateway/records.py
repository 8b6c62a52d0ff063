"""What is written down about an attempt: the part known at admission, and the record that stays with the
reservation so that its orphaned event can be written should nobody settle it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from proxy.domain.bounds import Bounds
from proxy.domain.policy import Budget, Model, RateLimits, Target
from proxy.domain.pricing import Price
from proxy.domain.reservations import Counter, Hold, LiveReservation, Source
from proxy.gateway.admission import Admission, Trail
from proxy.gateway.standing import Standing


def opening(
    trail: Trail, standing: Standing, model: Model, target: Target, holds: tuple[Hold, ...]
) -> dict[str, Any]:
    """The usage event as far as admission knows it (DESIGN 5.6)."""
    who, ask = standing.identity, trail.ask
    said = ask.attribution
    return {
        "id": f"{trail.request_id}:{trail.attempts}",
        "request_id": trail.request_id,
        "attempt": trail.attempts,
        "customer_id": who.customer_id,
        "agent_id": who.agent_id,
        "agent_type_id": who.agent_type_id,
        "plan_id": standing.plan.id,
        "plan_version": standing.plan.version,
        "user_id": said.user_id,
        "anonymous_id": said.anonymous_id,
        "run_id": said.run_id,
        "step": said.step,
        "endpoint": ask.endpoint,
        "streamed": ask.streamed,
        "model": ask.model,
        "model_served": model.id,
        "upstream": target.upstream,
        "fallback_from": trail.fallback_from or (model.id if trail.passed_over else None),
        "fallback_reason": trail.fallback_reason or trail.passed_over,
        "kind": "terminal",
        "price_version": model.price.version if model.price else None,
        "held": held(holds),
        "queued_ms": 0,
    }


def held(holds: tuple[Hold, ...]) -> list[dict[str, Any]]:
    """The event's `held`: what the plan's own allowance of each budget holds, and what grants do, if anything."""
    rows = []
    for hold in holds:
        counter = hold.counter
        if not hold.parts:
            rows.append(_held(counter, None, hold.amount))
            continue
        for source, amount in zip(counter.sources, hold.parts, strict=True):
            if amount or source.grant_id is None:
                rows.append(_held(counter, source.grant_id, amount))
    return rows


def _held(counter: Counter, grant_id: str | None, amount: int) -> dict[str, Any]:
    return {
        "budget_id": counter.budget.id,
        "window_start": counter.starts_us,
        "grant_id": grant_id,
        "amount": amount,
    }


def record(event: dict[str, Any], standing: Standing, bounds: Bounds, holds: tuple[Hold, ...]) -> bytes:
    """`Reservation.record`: read again by `recall`."""
    price = bounds.price
    return orjson.dumps(
        {
            "event": event,
            "input_bound": bounds.input_tokens,
            "calls_pico": bounds.calls_pico,
            "price": price and _price_list(price),
            "tokens_per_minute": standing.plan.rate_limits.tokens_per_minute,
            "counters": [_row(hold.counter) for hold in holds],
        }
    )


def live(admission: Admission) -> LiveReservation:
    """A reservation under way, complete enough to be held again by a Redis that has lost it."""
    who = admission.standing.identity
    return LiveReservation(
        admission.ref,
        who.shard,
        who.customer_id,
        admission.held.now_us,
        tuple(name for hold in admission.holds for name in hold.counter.names),
        tuple(amount for hold in admission.holds for amount in hold.parts or (hold.amount,)),
        record(admission.event, admission.standing, admission.bounds, admission.holds).decode(),
    )


class Recalled:
    """A reservation's record, read again: what the sweeper knows of an attempt that nobody finished.

    `names`: the counters that it is held on, which tells where a user's calls were counted.
    """

    def __init__(self, text: bytes, names: Collection[str] = ()) -> None:
        read = orjson.loads(text)
        self.event: dict[str, Any] = read["event"]
        self.input_bound: int = read["input_bound"]
        self.calls_pico: int = read.get("calls_pico", 0)
        self.price = _price(read["price"])
        self.limits = RateLimits(tokens_per_minute=read["tokens_per_minute"])
        self.counters = tuple(_counter(row, names) for row in read["counters"])


def _price_list(price: Price) -> tuple[object, ...]:
    return (
        price.input,
        price.output,
        price.cached_input,
        price.cache_write,
        price.audio_input,
        price.audio_output,
        price.request,
        price.version,
        price.cache_write_1h,
        price.calls,
    )


def _price(row: Sequence[Any] | None) -> Price | None:
    return Price(*row) if row else None


def _row(counter: Counter) -> list[Any]:
    """What the end of an attempt needs of a counter: its sources only where it has several."""
    budget = counter.budget
    row: list[Any] = [counter.name, budget.id, budget.meter, counter.starts_us, counter.ends_us]
    if counter.sources or counter.shared:
        row += (
            budget.rollover_max,
            [(s.name, s.limit, s.starts_us, s.ends_us, s.grant_id) for s in counter.sources],
            counter.shared and _row(counter.shared),
        )
    return row


def _counter(row: Sequence[Any], names: Collection[str]) -> Counter:
    name, budget_id, meter, starts_us, ends_us, *more = row
    if not more:
        return Counter(name, Budget(budget_id, meter, limit=0), starts_us, ends_us)
    rollover_max, sources, shared = more
    if shared and name not in names and shared[0] in names:
        return _counter(shared, names)
    budget = Budget(budget_id, meter, limit=0, rollover_max=rollover_max)
    return Counter(name, budget, starts_us, ends_us, tuple(Source(*source) for source in sources))
