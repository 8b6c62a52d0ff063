"""Rests: which targets have failed lately in this worker, and rest (`domain.breakers`).

Each worker learns for itself: what it knows is a second old at most, and nobody has to be asked. While nothing
fails there is nothing to remember, and a request pays for one look at an empty dictionary.
"""

from __future__ import annotations

from proxy.domain.breakers import Breaker
from proxy.domain.policy import Target
from proxy.gateway.admission import Trail
from proxy.gateway.ports import Clock, Meters, UpstreamFailed

# Failures that say nothing of the target's health: our own doing, or a matter between two requests.
NO_FAULT_OF_THE_TARGET = frozenset(("aborted", "client_gone", "upstream_conflict", "upstream_saturated"))


class Rests:
    """The breakers of this worker, of targets that are not well."""

    __slots__ = ("_breakers", "_clock", "_meters")

    def __init__(self, clock: Clock, meters: Meters) -> None:
        self._breakers: dict[Target, Breaker] = {}
        self._clock = clock
        self._meters = meters

    def __bool__(self) -> bool:
        """Whether any target has failed lately: where none has, nothing else needs to be called."""
        return bool(self._breakers)

    def wait_us(self, target: Target, last_resort: bool = False) -> int:
        """How long until an attempt may go there; 0: now. `last_resort`: there is nowhere else to go."""
        breaker = self._breakers.get(target)
        return breaker.wait_us(self._clock.monotonic_us(), last_resort) if breaker else 0

    def begin(self, trail: Trail, target: Target) -> None:
        """The request's next attempt goes there, perhaps as the probe; `wait_us` was 0 just now."""
        breaker = self._breakers.get(target)
        if breaker is not None and breaker.begin(self._clock.monotonic_us()):
            trail.probe = target
            self._meters.rest(target.upstream, target.upstream_model, "probed")

    def answered(self, trail: Trail, target: Target) -> None:
        """The target's answer has begun."""
        breaker = self._breakers.get(target)
        if breaker is not None and breaker.answered():
            trail.probe = None
            self._meters.rest(target.upstream, target.upstream_model, "closed")

    def succeeded(self, trail: Trail, target: Target) -> None:
        """The target's answer is complete."""
        self.answered(trail, target)
        breaker = self._breakers.get(target)
        if breaker is not None:
            breaker.succeeded()
            self._forget_idle(target, breaker)

    def failed(self, trail: Trail, target: Target, failed: UpstreamFailed) -> None:
        """An attempt has failed. What is the request's own fault says nothing about the target."""
        if failed.blame == "request" or failed.error_type in NO_FAULT_OF_THE_TARGET:
            self.abandoned(trail)
            return
        breaker = self._breakers.get(target)
        if breaker is None:
            breaker = self._breakers[target] = Breaker()
        probe, trail.probe = trail.probe == target, None
        asked_us = (failed.retry_after_s or 0) * 1_000_000 if failed.status == 429 else 0
        if breaker.failed(self._clock.monotonic_us(), probe, asked_us):
            self._meters.rest(target.upstream, target.upstream_model, "rested", failed.error_type)

    def abandoned(self, trail: Trail) -> None:
        """If the request's attempt was a probe: it has told nothing, and the next may be one."""
        target, trail.probe = trail.probe, None
        breaker = self._breakers.get(target) if target is not None else None
        if breaker is not None:
            breaker.abandoned()

    def _forget_idle(self, target: Target, breaker: Breaker) -> None:
        if breaker.idle:
            del self._breakers[target]
