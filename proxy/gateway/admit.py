"""Admit: bound the attempt, and hold that much of every budget or of none.

What is remembered decides nothing for good: the script answers `Stale` and the knowledge is read again;
a refusal that no script has seen is confirmed before it is given.
"""

from __future__ import annotations

from typing import Any

from proxy.domain.bounds import Bounds, affordable_output, amount
from proxy.domain.hosted_tools import calls_bound_pico, most_input
from proxy.domain.policy import Model, Target
from proxy.domain.refusals import Refused
from proxy.domain.reservations import (
    Closed,
    Exceeded,
    Finished,
    Full,
    Held,
    Hold,
    Limited,
    Reservation,
    ReserveReply,
    Stale,
    WindowPassed,
)
from proxy.gateway import records, refuse
from proxy.gateway.admission import Admission, Trail
from proxy.gateway.extras import check_extras
from proxy.gateway.house import House
from proxy.gateway.identify import SUSPENDED, UNAUTHENTICATED, UNAVAILABLE
from proxy.gateway.ports import DirectoryIncomplete, StoreAway
from proxy.gateway.rolling import first_slice, rolls
from proxy.gateway.settle import withdraw
from proxy.gateway.shadow import Lowered, laid_open
from proxy.gateway.standing import Standing
from proxy.gateway.targets import next_target
from proxy.telemetry.failpoints import reach

# Each turn either admits, refuses, or has learned something new (a revision, a window, a smaller remainder).
# Whoever is still racing after this many is told to come again.
TURNS_MAX = 8

# A plan that stays open while Redis is away knows its callers for so long: revocation waits no longer than this.
VERIFIED_US = 60_000_000


async def admit(
    trail: Trail, standing: Standing, model_id: str, house: House, only: Target | None = None
) -> Admission:
    """Hold what one attempt at `model_id` may use, at its next target or at `only` that one; raises `Refused`.

    The first attempt also passes the limits that count once per request.
    """
    output_limit: int | None = None
    target: Target | None = None
    try:
        for _ in range(TURNS_MAX):
            try:
                model = entitled(standing, model_id, trail)
                target = next_target(model, trail, standing, house, only)
                rolling = rolls(standing.plan, trail.ask) and standing.plan.mode == "enforce"
                whole = bound(standing, model, target, trail, None if rolling else output_limit)
            except Refused as refused:
                if not await _confirmed(standing, house):
                    standing, output_limit = await _refreshed(standing, house), None
                elif refused.refusal.reason != "request_too_large" or not await _tighten(trail, target, house):
                    raise
                continue
            bounds = first_slice(whole, output_limit) if rolling else whole
            reservation, event = _reservation(trail, standing, model, target, bounds, whole.tokens, house)
            reply = await _reserve(reservation, event, standing, house)
            if type(reply) is Held:
                return _admitted(
                    trail, standing, model, target, bounds, whole.output_limit, reservation, reply, event, house
                )
            if isinstance(reply, Stale):
                # What was affordable under the old is no part of a decision under the new.
                standing, output_limit = await _refreshed(standing, house, reply), None
            elif isinstance(reply, WindowPassed):
                house.clock.store_said(reply.now_us)
                standing = house.knowledge.in_force(standing, reply.now_us)
                standing.turn_windows(reply.now_us)
            elif _may_hang_on_tokens(reply) and await _tighten(trail, target, house):
                continue
            elif isinstance(reply, Exceeded):
                output_limit = _smaller(reply, reservation, bounds, standing, trail)
            elif isinstance(reply, Limited):
                raise Refused(refuse.rate_limited(reply, standing.plan.rate_limits))
            elif isinstance(reply, Closed | Finished | Full):
                raise Refused(UNAVAILABLE)
        raise Refused(UNAVAILABLE)
    except BaseException as end:
        if trail.probe is not None:
            house.rests.abandoned(trail)
        lenient = laid_open(end, model_id, trail, standing, house) if isinstance(end, Refused) else None
        if lenient is None:
            raise
    return await admit(trail, lenient, model_id, house, only)


def entitled(standing: Standing, model_id: str, trail: Trail) -> Model:
    """The model, if it exists and the plan grants it; raises `Refused` in the contract's order."""
    if standing.identity.status == "suspended":
        raise Refused(SUSPENDED)
    plan = standing.plan
    if plan.require_user and not trail.ask.attribution.user_id and not standing.lenient:
        raise Refused(refuse.user_required())
    model = standing.policy.models.get(model_id)
    if model is None:
        raise Refused(refuse.model_not_found(model_id))
    if standing.lenient and model_id == trail.ask.model:
        return model
    if not plan.allows(model_id):
        raise Refused(refuse.model_not_allowed(model_id, plan, standing.policy))
    if standing.lenient:
        return model
    if trail.ask.extras:
        check_extras(trail.ask.extras, model, plan, standing.policy)
    if any(b.meter == "cost_usd" and b.counts(model_id) for b in plan.budgets):
        if model.price is None:
            raise Refused(refuse.model_unpriced(model_id))
        if trail.ask.unknown_fields:
            raise Refused(refuse.unknown_parameter(trail.ask.unknown_fields[0]))
    return model


def bound(standing: Standing, model: Model, target: Target, trail: Trail, output_limit: int | None) -> Bounds:
    """The bounds of an attempt. `output_limit` is a smaller one found affordable on an earlier turn."""
    ask, plan = trail.ask, standing.plan
    input_bound = most_input(ask, trail.tightened.get(target, ask.input_bound), model.context_tokens)
    limit = output_limit or ask.output_limit
    if not ask.generates:
        limit = 0
    elif limit is None:
        limit = min(plan.default_max_output_tokens or model.max_output_tokens, model.max_output_tokens)
    bounds = Bounds(
        input_bound, limit, ask.choices, 0 if trail.charged_request or not ask.counts_request else 1, model.price
    )
    if ask.extras and model.price is not None:
        bounds.calls_pico = calls_bound_pico(ask.extras, model.price)
    per_minute = plan.rate_limits.tokens_per_minute
    if per_minute is not None and bounds.tokens > per_minute:
        fits = (per_minute - input_bound) // ask.choices
        if ask.output_limit is not None or not ask.generates or fits < plan.min_output_tokens:
            raise Refused(refuse.request_too_large(bounds.tokens, per_minute))
        if plan.mode == "shadow":
            raise Lowered(refuse.request_too_large(bounds.tokens, per_minute))
        bounds.output_limit = fits
    return bounds


def _reservation(
    trail: Trail,
    standing: Standing,
    model: Model,
    target: Target,
    bounds: Bounds,
    rate_tokens: int,
    house: House,
) -> tuple[Reservation, dict[str, Any]]:
    who = standing.identity
    counters = standing.counters(model.id, house.clock.store_now_us(), trail.ask.attribution.user_id)
    if standing.lenient and model.price is None:
        counters = tuple([counter for counter in counters if counter.budget.meter != "cost_usd"])
    if not bounds.requests:
        counters = tuple([counter for counter in counters if counter.budget.meter != "requests"])
    holds = tuple([Hold(counter, amount(counter.budget.meter, bounds)) for counter in counters])
    event = records.opening(trail, standing, model, target, holds)
    reservation = Reservation(
        event["id"],
        who.customer_id,
        who.shard,
        who.secret_id,
        who.revision,
        standing.policy.revision,
        trail.attempts == 0,
        holds,
        standing.plan.rate_limits,
        rate_tokens,
        records.record(event, standing, bounds, holds),
    )
    return reservation, event


def _admitted(
    trail: Trail,
    standing: Standing,
    model: Model,
    target: Target,
    bounds: Bounds,
    output_limit: int,
    reservation: Reservation,
    held: Held,
    event: dict[str, Any],
    house: House,
) -> Admission:
    reach("after_reserve")
    if held.holds is not None:
        event["held"] = records.held(held.holds)
    admission = Admission(
        reservation.ref,
        trail.attempts,
        trail,
        standing,
        model,
        target,
        bounds,
        output_limit,
        held.holds or reservation.holds,
        held,
        event,
        house.clock.monotonic_us(),
    )
    trail.attempts += 1
    return admission


async def _reserve(
    reservation: Reservation, event: dict[str, Any], standing: Standing, house: House
) -> ReserveReply:
    stays_open = standing.plan.on_store_failure == "open"
    try:
        reply = await house.budgets.reserve(reservation)
        if not stays_open:
            return reply
        if isinstance(reply, Held):
            standing.verified_us = house.clock.monotonic_us()
        return _unreserved(standing, house) or reply if isinstance(reply, Closed) else reply
    except StoreAway as away:
        if stays_open and (unreserved := _unreserved(standing, house)) is not None:
            return unreserved
        if away.sent:
            house.spawn(withdraw(reservation, event, house), "withdraw a reserve without a reply")
        raise Refused(UNAVAILABLE) from None


def _unreserved(standing: Standing, house: House) -> Held | None:
    """Admitted without Redis, which would have had nothing to limit; None: too long ago that it knew the caller.

    Its settlement finds no reservation, so it takes the way of those that Redis has lost.
    """
    verified_us = standing.verified_us
    if verified_us is None or house.clock.monotonic_us() - verified_us > VERIFIED_US:
        return None
    house.meters.fault("admitted_without_store")
    return Held(house.clock.store_now_us(), 0, 0)


def _smaller(reply: Exceeded, reservation: Reservation, bounds: Bounds, standing: Standing, trail: Trail) -> int:
    """A smaller output limit to try, where the rules allow one; raises `Refused` where they do not."""
    plan = standing.plan
    left = [(hold.counter.budget, state.left) for hold, state in zip(reservation.holds, reply.states, strict=True)]
    affordable = affordable_output(bounds, left) if trail.ask.generates else 0
    chosen_by_client = trail.ask.output_limit is not None
    if rolls(plan, trail.ask):
        # Whose limit it is does not matter: the rest is held later, or the stream ends earlier.
        may_lower, least = True, min(plan.min_output_tokens, bounds.output_limit)
    else:
        may_lower = not chosen_by_client or plan.on_exceed == "clamp"
        least = 1 if chosen_by_client else plan.min_output_tokens
    fits = may_lower and least <= affordable < bounds.output_limit
    if fits and plan.mode == "enforce":
        return affordable
    refusal = refuse.budget(reply, reservation.holds, affordable, standing)
    raise Lowered(refusal) if fits else Refused(refusal)


def _may_hang_on_tokens(reply: ReserveReply) -> bool:
    return isinstance(reply, Exceeded) or (isinstance(reply, Limited) and reply.limit == "tokens")


async def _tighten(trail: Trail, target: Target | None, house: House) -> bool:
    """Once per target, and only where a decision hangs on it: count the input's tokens instead of its bytes."""
    if target is None or target in trail.tightened:
        return False
    bound = await house.tokenizers.bound(target, trail.ask)
    trail.tightened[target] = trail.ask.input_bound if bound is None else min(bound, trail.ask.input_bound)
    return trail.tightened[target] < trail.ask.input_bound


async def _confirmed(standing: Standing, house: House) -> bool:
    try:
        return await house.knowledge.confirm(standing)
    except (StoreAway, DirectoryIncomplete):
        raise Refused(UNAVAILABLE) from None


async def _refreshed(standing: Standing, house: House, stale: Stale | None = None) -> Standing:
    fresh: Standing | None
    try:
        if stale is not None and stale.what == "policy":
            fresh = await house.knowledge.follow_policy(standing)
        else:
            fresh = await house.knowledge.refresh(standing.digest)
    except (StoreAway, DirectoryIncomplete):
        raise Refused(UNAVAILABLE) from None
    if fresh is None:
        raise Refused(UNAUTHENTICATED)
    return house.knowledge.in_force(fresh, house.clock.store_now_us())
