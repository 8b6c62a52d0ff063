"""Settle: what an attempt came to is charged and written down in one script, before its last byte goes out.

Where Redis does not answer, the settlement goes to the local spool instead and is carried out later: it is
idempotent by its reference. Nothing here is ever cancelled by a client that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from proxy.domain.bounds import amount
from proxy.domain.money import microusd_charged, usd_text
from proxy.domain.pricing import cost_pico
from proxy.domain.reservations import Counter, Reservation, Settlement
from proxy.domain.usage import NOTHING_USED, Status, Usage, billable
from proxy.gateway.admission import Admission
from proxy.gateway.house import House
from proxy.gateway.ports import StoreAway
from proxy.telemetry.failpoints import reach

Charge = Literal["usage", "input_bound", "nothing"]


@dataclass(slots=True)
class Ending:
    """How an attempt ended.

    `charge`: by the `usage` itself; the `input_bound`, where the request was sent and nobody knows what
    became of it; or `nothing`, where it never left or was definitively refused.
    """

    status: Status
    charge: Charge
    usage: Usage = NOTHING_USED
    http_status: int | None = None
    error_type: str | None = None
    provider_request_id: str | None = None


async def settle(admission: Admission, ending: Ending, house: House) -> None:
    """Charge and record an attempt's ending; returns once it is durable in Redis or in the spool."""
    settlement = settlement_of(admission, ending, house)
    verb: Literal["settle", "release"] = "release" if ending.charge == "nothing" else "settle"
    if verb == "settle":
        admission.trail.charged_request = True
    reach("before_settle")
    try:
        act = house.budgets.release if verb == "release" else house.budgets.settle
        settled = await act(settlement)
        kept = settled.outcome in ("unknown", "closed")
        if settled.outcome in ("late", "conflict", "unknown", "closed"):
            house.meters.fault(f"settle_{settled.outcome}")
    except StoreAway:
        kept = True
    if kept:
        await house.spool.keep(settlement, verb)
        reach("spool_written")
    house.leases.end(admission.ref)
    _note(admission, ending, house)


def _note(admission: Admission, ending: Ending, house: House) -> None:
    usage, model, trail = ending.usage, admission.model, admission.trail
    first_us = admission.first_byte_us
    trail.ttft_ms = (first_us - admission.started_us - admission.queued_us) // 1000 if first_us else None
    trail.usage, trail.model_served = usage, model.id
    house.meters.attempt(
        admission.target.upstream,
        model.id,
        ending.status,
        usage.source,
        usage.input_tokens,
        usage.output_tokens,
        trail.ttft_ms if trail.ask.streamed else None,
    )


def settlement_of(admission: Admission, ending: Ending, house: House) -> Settlement:
    """The settlement: amounts by counter, and the whole usage event."""
    bounds, usage = admission.bounds, ending.usage
    counters = tuple([hold.counter for hold in admission.holds])
    cost = cost_pico(usage, bounds.price) if bounds.price and usage.source != "none" else 0
    if ending.charge == "usage":
        amounts = charged_amounts(counters, usage, cost, bounds.requests)
        if usage.disputed:
            # What nobody can believe is charged as if all that was held had been used (reservation.md, F27).
            amounts = tuple(max(a, hold.amount) for a, hold in zip(amounts, admission.holds, strict=True))
        rate_tokens = usage.input_tokens + usage.output_tokens
    elif ending.charge == "input_bound":
        spent = replace(bounds, output_limit=0)
        amounts = tuple(amount(c.budget.meter, spent) for c in counters)
        rate_tokens = bounds.input_tokens
    else:
        amounts, rate_tokens = (0,) * len(counters), 0
    priced = bounds.price is not None and ending.charge == "usage" and bounds.price.knows(usage)
    cost_usd = usd_text(cost) if priced else "0" if ending.charge == "nothing" else None
    event = closing(admission.event, ending, cost_usd, _times(admission, house))
    who = admission.standing.identity
    return Settlement(
        admission.ref,
        who.customer_id,
        who.shard,
        counters,
        amounts,
        rate_tokens,
        admission.standing.plan.rate_limits,
        (usage.input_tokens, usage.output_tokens, cost),
        orjson.dumps(event),
        tuple([hold.parts for hold in admission.holds]),
    )


def charged_amounts(counters: Iterable[Counter], usage: Usage, cost: int, requests: int) -> tuple[int, ...]:
    """What a usage charges each counter, in the meter's unit; a cost is rounded up to the microdollar."""
    by_meter = {
        "tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "requests": requests,
        "cost_usd": microusd_charged(cost),
    }
    return tuple([by_meter[counter.budget.meter] for counter in counters])


def closing(
    event: dict[str, Any], ending: Ending, cost_usd: str | None, times: dict[str, int | None]
) -> dict[str, Any]:
    """The usage event, complete but for what only Redis knows (`seq`, `charged`, `late`)."""
    usage = ending.usage
    return {
        **event,
        **times,
        "provider_request_id": ending.provider_request_id,
        "status": ending.status,
        "http_status": ending.http_status,
        "error_type": ending.error_type,
        "usage_source": usage.source,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "uncached_input_tokens": usage.uncached_input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_input_tokens": usage.audio_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_output_tokens": usage.audio_output_tokens,
        "raw_usage": {**(usage.raw or {}), "calls": usage.calls} if usage.calls else usage.raw,
        "cost_usd": cost_usd,
        "disputed": usage.disputed,
        "billable": billable(ending.status, usage.source, usage.disputed),
    }


def _times(admission: Admission, house: House) -> dict[str, int | None]:
    finished_us = house.clock.monotonic_us()
    took_us = finished_us - admission.started_us
    first = admission.first_byte_us - admission.started_us if admission.first_byte_us else None
    admitted_at, queued_us = admission.held.now_us, admission.queued_us
    return {
        "admitted_at": admitted_at,
        "first_byte_at": None if first is None else admitted_at + first,
        "finished_at": admitted_at + took_us,
        # From when it was sent: what it had waited before is `queued_ms`.
        "latency_ms": (took_us - queued_us) // 1000,
        "ttft_ms": None if first is None else (first - queued_us) // 1000,
    }


# A reserve whose reply was lost is withdrawn within this many tries; after that its lease runs out.
WITHDRAW_WAITS_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)


async def withdraw(reservation: Reservation, event: dict[str, Any], house: House) -> None:
    """Release a reservation of which nobody knows whether it was made: a tombstone stops a delayed one."""
    nothing = Ending("cancelled", "nothing", error_type="gate_unavailable")
    now_us = house.clock.now_us()
    times: dict[str, int | None] = {
        "admitted_at": now_us,
        "first_byte_at": None,
        "finished_at": now_us,
        "latency_ms": 0,
        "ttft_ms": None,
    }
    settlement = Settlement(
        reservation.ref,
        reservation.customer_id,
        reservation.shard,
        tuple(hold.counter for hold in reservation.holds),
        (0,) * len(reservation.holds),
        0,
        reservation.limits,
        (0, 0, 0),
        orjson.dumps(closing(event, nothing, "0", times)),
    )
    for wait_s in WITHDRAW_WAITS_S:
        await asyncio.sleep(wait_s)
        try:
            await house.budgets.release(settlement)
        except StoreAway:
            continue
        return
    house.meters.fault("withdraw_given_up")
