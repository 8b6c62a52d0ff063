"""Candidates: at which model and target a request is tried, in which order, and whether once more.

The asked model's targets in their order, then those of each fallback that the plan allows. Each attempt has its
own reservation and event, and none begins once a byte has reached the client. A target is tried again where that
may help and costs nothing: what it refused for the moment, or never got. What was sent and left unanswered has
been charged its input; it is not sent there again, but may go to the next candidate.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.domain.refusals import Refusal, Refused
from proxy.gateway import refuse
from proxy.gateway.admission import Admission, Trail
from proxy.gateway.admit import admit
from proxy.gateway.house import House
from proxy.gateway.ports import Call, UpstreamFailed
from proxy.gateway.retries import LONGEST_WAIT_S, NO_RETRIES, may_pass, wait_s
from proxy.gateway.standing import Standing
from proxy.gateway.targets import TARGET_RESTED, TARGET_SATURATED, can_be_tried

# Refusals of a target that may pass, by their codes: another candidate may be well.
ELSEWHERE = {"upstream_resting": TARGET_RESTED, "upstream_saturated": TARGET_SATURATED}


async def first_attempt(trail: Trail, standing: Standing, house: House) -> Admission:
    """Admitted at the asked model, or at a fallback while that rests or is overrun; raises `Refused`."""
    try:
        return await admit(trail, standing, trail.ask.model, house)
    except Refused as refused:
        if refused.refusal.code not in ELSEWHERE:
            raise
        told = refused.refusal
    trail.fallback_from, trail.fallback_reason = trail.ask.model, ELSEWHERE[str(told.code)]
    found = await _elsewhere(trail, standing, house, but=trail.ask.model)
    if isinstance(found, Admission):
        return found
    told = min((told, *found), key=lambda refusal: refusal.retry_after_s or 0)
    trail.last_resort, trail.skipped = True, None
    trail.fallback_from = trail.fallback_reason = None
    found = await _elsewhere(trail, standing, house)
    if isinstance(found, Admission):
        return found
    raise Refused(told)


async def next_attempt(failed: UpstreamFailed, admission: Admission, call: Call, house: House) -> Admission | None:
    """What follows a failed attempt: the same target again, or the next candidate that is allowed and affordable.

    None if the client has left meanwhile. Raises `Refused` with the upstream's error if nothing is left to try.
    """
    trail, standing = admission.trail, admission.standing
    if failed.blame == "request" and not call.gone:
        raise Refused(refuse.upstream(failed, trail.skipped, trail.ask.prompt()))
    pause_s = None if call.gone else retry_after_s(failed, admission, house)
    if pause_s is not None:
        await house.pause(pause_s, call)
    if call.gone:
        return None
    again = await _again(failed, admission, house) if pause_s is not None else None
    if again is not None:
        return again
    trail.tried += ((admission.model.id, admission.target),)
    trail.retries = 0
    trail.fallback_from, trail.fallback_reason = admission.model.id, failed.error_type
    found = await _elsewhere(trail, standing, house)
    if isinstance(found, Admission):
        return found
    raise Refused(refuse.upstream(failed, trail.skipped, trail.ask.prompt()))


def retry_after_s(failed: UpstreamFailed, admission: Admission, house: House) -> float | None:
    """How long to wait before the same target is tried again; None: it is not.

    Where the upstream asks for more than a moment, another candidate that is ready now goes before.
    """
    trail, target = admission.trail, admission.target
    rule = house.retries.get(target.upstream, NO_RETRIES)
    if trail.retries >= rule.max_retries or not may_pass(failed) or (house.rests and house.rests.wait_us(target)):
        return None
    pause_s = wait_s(trail.retries, failed.retry_after_s, house.chance)
    spent_s = (house.clock.monotonic_us() - trail.came_us) / 1_000_000
    if spent_s + pause_s > rule.within_s or (pause_s > LONGEST_WAIT_S and _another_is_ready(admission, house)):
        return None
    return pause_s


async def _again(failed: UpstreamFailed, admission: Admission, house: House) -> Admission | None:
    """The same target, admitted anew; None if that is refused by now: then the next candidate is looked for."""
    trail, target = admission.trail, admission.target
    trail.fallback_from, trail.fallback_reason = None, failed.error_type
    try:
        again = await admit(trail, admission.standing, admission.model.id, house, only=target)
    except Refused:
        return None
    trail.retries += 1
    house.meters.retried(target.upstream, target.upstream_model, failed.error_type)
    return again


async def _elsewhere(
    trail: Trail, standing: Standing, house: House, but: str | None = None
) -> Admission | list[Refusal]:
    """An attempt at the next candidate that takes it, leaving a model out; else the refusals that may pass."""
    passing: list[Refusal] = []
    for model_id in _models(trail, standing):
        if model_id == but:
            continue
        try:
            return await admit(trail, standing, model_id, house)
        except Refused as refused:
            said = refused.refusal
        if said.code in ELSEWHERE:
            passing.append(said)
        if model_id != trail.ask.model:
            why = said.code if said.code in ELSEWHERE else said.reason
            trail.skipped = {**(trail.skipped or {}), model_id: str(why).replace("_", " ")}
    return passing


def _models(trail: Trail, standing: Standing) -> Iterator[str]:
    """The asked model and its fallbacks, as far as one of their targets is left and they were not skipped."""
    asked = standing.policy.models.get(trail.ask.model)
    for model_id in (asked.id, *asked.fallbacks) if asked else ():
        model = standing.policy.models.get(model_id)
        left = model is None or any((model_id, target) not in trail.tried for target in model.targets)
        if left and not (trail.skipped and model_id in trail.skipped):
            yield model_id


def _another_is_ready(admission: Admission, house: House) -> bool:
    trail, standing = admission.trail, admission.standing
    failing = (admission.model.id, admission.target)
    before, trail.tried = trail.tried, (*trail.tried, failing)
    try:
        models = [standing.policy.models.get(model_id) for model_id in _models(trail, standing)]
        return any(
            model is not None and standing.plan.allows(model.id) and can_be_tried(model, trail, standing, house)
            for model in models
        )
    finally:
        trail.tried = before
