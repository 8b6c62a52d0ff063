"""What is told of a request once it has ended: its log line, its figures and, if it was refused, its denial."""

from __future__ import annotations

from proxy.domain.refusals import Refusal
from proxy.domain.usage import NOTHING_USED
from proxy.gateway.admission import Trail
from proxy.gateway.house import House
from proxy.gateway.ports import Call, DenialKey
from proxy.gateway.standing import Standing

# A client that leaves gets no answer; the log says so as nginx does.
CLIENT_GONE = 499
MINUTE_US = 60_000_000


class Story:
    """Grows as the request comes along: who calls is known after identify, what for after reading."""

    __slots__ = ("_call", "_since_us", "standing", "trail")

    def __init__(self, call: Call, since_us: int) -> None:
        self._call = call
        self._since_us = since_us
        self.standing: Standing | None = None
        self.trail: Trail | None = None

    def answered(self, house: House) -> None:
        self._tell(CLIENT_GONE if self._call.gone else 200, "", house)

    def refused(self, refusal: Refusal, house: House) -> None:
        """Counts a denial of a known caller, by model names of the catalogue only: a client's inventions are
        not a dimension."""
        self._tell(refusal.status, refusal.reason, house)
        if self.standing is None:
            return
        who = self.standing.identity
        minute = house.clock.now_us() // MINUTE_US
        key = DenialKey(minute, who.customer_id, who.agent_id, self._model(), refusal.reason)
        house.denials.count(key, self._call.request_id, refusal.message)

    def _model(self) -> str:
        if self.trail is None or self.standing is None:
            return ""
        asked = self.trail.ask.model
        return asked if asked in self.standing.policy.models else ""

    def _tell(self, status: int, reason: str, house: House) -> None:
        who = self.standing.identity if self.standing else None
        trail = self.trail
        usage = trail.usage if trail else NOTHING_USED
        house.meters.answered(
            self._call.request_id,
            self._call.endpoint,
            status,
            reason,
            who.customer_id if who else "",
            who.agent_id if who else "",
            self._model(),
            trail.model_served if trail else "",
            trail.ask.streamed if trail else False,
            trail.attempts if trail else 0,
            usage.input_tokens,
            usage.output_tokens,
            (house.clock.monotonic_us() - self._since_us) // 1000,
            trail.ttft_ms if trail else None,
        )
