"""Whether a target is worth trying: it rests once it has failed again and again, and is then tried with one probe.

closed      every attempt may go there
resting     it failed `FAILURES_TO_REST` times in a row: nothing goes there until the rest is over
half open   the rest is over: one probe goes there; it closes the breaker or begins a longer rest

Times are microseconds of a monotonic clock, which the caller brings along.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_REST = 5
# Failures within a moment are one hiccup, however many requests it hit.
MOMENT_US = 1_000_000
# Where nothing else is left to try, a rest takes away the last chance. So it is kept only in an outage.
OUTAGE_FAILURES = 20
OUTAGE_US = 10_000_000
FIRST_REST_US = 5_000_000
LONGEST_REST_US = 60_000_000
# How long somebody is told to wait who comes while the probe is under way.
PROBE_WAIT_US = 1_000_000


@dataclass(slots=True)
class Breaker:
    """The breaker of one target. `rests` counts the rests in a row; none: it is closed."""

    failures: int = 0
    failing_since_us: int = 0
    rests: int = 0
    rests_until_us: int = 0
    probing: bool = False

    def wait_us(self, now_us: int, last_resort: bool = False) -> int:
        """How long until an attempt may begin; 0: now. `last_resort`: there is nothing else to try."""
        if not self.rests or (last_resort and not self._outage(now_us)):
            return 0
        if now_us < self.rests_until_us:
            return self.rests_until_us - now_us
        return PROBE_WAIT_US if self.probing else 0

    def begin(self, now_us: int) -> bool:
        """An attempt begins, which `wait_us` has allowed. Returns whether it is the probe."""
        if not self.rests or self.wait_us(now_us):
            return False
        self.probing = True
        return True

    def failed(self, now_us: int, probe: bool, asked_rest_us: int = 0) -> bool:
        """An attempt has failed by the target's fault. `asked_rest_us` is the rest that the upstream asked for.

        Returns whether a rest begins. What fails in a rest without being its probe makes it no longer.
        """
        if not self.failures:
            self.failing_since_us = now_us
        self.failures += 1
        if self.rests:
            if not probe:
                return False
        elif self.failures < FAILURES_TO_REST or now_us - self.failing_since_us < MOMENT_US:
            return False
        rest_us = max(FIRST_REST_US << min(self.rests, 10), asked_rest_us)
        self.rests_until_us = now_us + min(rest_us, LONGEST_REST_US)
        self.rests += 1
        self.probing = False
        return True

    def answered(self) -> bool:
        """An answer has begun: the target lives. Returns whether that ends a rest."""
        if not self.rests:
            return False
        self.failures = self.rests = self.rests_until_us = 0
        self.probing = False
        return True

    def succeeded(self) -> None:
        """An answer is complete: the failures before it are no series any more."""
        self.failures = 0

    def abandoned(self) -> None:
        """The probe has ended and told nothing: its client left, or the request itself was refused."""
        self.probing = False

    def _outage(self, now_us: int) -> bool:
        return self.failures >= OUTAGE_FAILURES and now_us - self.failing_since_us >= OUTAGE_US

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.rests and not self.failures
