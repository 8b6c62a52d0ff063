"""Targets: where a model's next attempt goes, of those places that are configured, well and not overrun."""

from __future__ import annotations

from proxy.domain.policy import Model, Target
from proxy.domain.refusals import Refusal, Refused
from proxy.gateway import refuse
from proxy.gateway.admission import Trail
from proxy.gateway.house import House
from proxy.gateway.standing import Standing

TARGET_RESTED = "target_rested"
TARGET_SATURATED = "upstream_saturated"
"""`fallback_reason` of an attempt that went elsewhere although nothing had failed in this request."""


def next_target(
    model: Model, trail: Trail, standing: Standing, house: House, only: Target | None = None
) -> Target:
    """The first of the model's targets that can be tried now, and was not given up; raises `Refused`.

    Its breaker counts the attempt as begun. What may pass (a rest, a full queue) is told rather than what
    stays (no key, another endpoint), with the shortest wait.
    """
    if trail.probe is not None:
        house.rests.abandoned(trail)
    trail.passed_over = None
    trouble: Refusal | None = None
    for target in model.targets:
        if trail.tried and (model.id, target) in trail.tried:
            continue
        if (only is not None and target != only) or (trail.pinned_upstream or target.upstream) != target.upstream:
            continue
        found = _lasting(target, model, trail, house) or _passing(target, trail, standing, house)
        if found is None:
            if house.rests:
                house.rests.begin(trail, target)
            return target
        if trouble is None or (found.retry_after_s or 1 << 30) < (trouble.retry_after_s or 1 << 30):
            trouble = found
    if trouble is None:
        raise Refused(refuse.kept_elsewhere() if trail.pinned_upstream else refuse.no_target(model.id))
    raise Refused(trouble)


def can_be_tried(model: Model, trail: Trail, standing: Standing, house: House) -> bool:
    """Whether `next_target` would find one; begins nothing."""
    return any(
        (model.id, target) not in trail.tried
        and (trail.pinned_upstream or target.upstream) == target.upstream
        and _lasting(target, model, trail, house) is None
        and _passing(target, trail, standing, house) is None
        for target in model.targets
    )


def _lasting(target: Target, model: Model, trail: Trail, house: House) -> Refusal | None:
    """Why it can never take this call, as it is configured."""
    provider = house.providers.get(target.upstream)
    if provider is None or not provider.configured:
        return refuse.upstream_not_configured(target.upstream)
    if not provider.serves(trail.ask.endpoint):
        return refuse.endpoint_not_served(model.id, trail.ask.endpoint)
    return None


def _passing(target: Target, trail: Trail, standing: Standing, house: House) -> Refusal | None:
    """Why it does not take this call just now; the next target is then taken for that reason."""
    if house.rests and (wait_us := house.rests.wait_us(target, trail.last_resort)):
        trail.passed_over = trail.passed_over or TARGET_RESTED
        return refuse.upstream_resting(wait_us)
    turns = house.turns.get(target.upstream) if house.turns else None
    if turns is not None and not turns.has_room(
        standing.identity.customer_id, standing.plan.features.get("priority", False)
    ):
        trail.passed_over = trail.passed_over or TARGET_SATURATED
        return refuse.upstream_saturated()
    return None
