"""Rolling holds: a stream holds its input and a slice of its output, and more as the output is observed.

What is held stays a slice ahead of what was seen. Where a budget has no more to give, what is left of it is
held, and when the output has reached that, the stream is ended with `finish_reason` "length". The limit sent
upstream is that of the whole answer, or no stream could go on: so this is the one hold that is smaller than
what the upstream may send, by as much as it sends before it is cut off (docs/reference/rolling-holds.md).
"""

from __future__ import annotations

from dataclasses import replace

from proxy.domain.asks import Ask
from proxy.domain.bounds import Bounds, affordable_output, amount
from proxy.domain.policy import Plan
from proxy.domain.reservations import Exceeded, ToppedUp, TopUp
from proxy.gateway import records
from proxy.gateway.admission import Admission
from proxy.gateway.house import House
from proxy.gateway.ports import Answer, StoreAway

# Of each choice. A model writes 50 to 200 tokens a second, so that a stream is topped up every second or few; and
# no stream keeps more than this of a budget from the others without using it.
SLICE_TOKENS = 256
# Where half a slice is left, the next is asked for: time enough for a reply, even for some that are lost.
SPARE_TOKENS = SLICE_TOKENS // 2
# As `observed_output_tokens` counts, this many bytes of a stream bring one token at most. So a stream need not be
# looked at before as many bytes have passed as could bring it to where more must be held.
BYTES_PER_TOKEN = 4


def rolls(plan: Plan, ask: Ask) -> bool:
    """Plain calls are strict on every plan: nothing can be observed of them."""
    return plan.hold == "rolling" and ask.streamed and ask.generates


def first_slice(whole: Bounds, affordable: int | None) -> Bounds:
    """What is held at admission; `affordable` is less than a slice, found on an earlier turn."""
    return replace(whole, output_limit=min(whole.output_limit, affordable or SLICE_TOKENS))


class RollingHold:
    """What one stream holds, kept ahead of what it brings. `admission` always says what is held by now."""

    __slots__ = ("_admission", "_answer", "_due", "_house", "_look_after", "_unlooked")

    def __init__(self, admission: Admission, answer: Answer, house: House) -> None:
        self._admission = admission
        self._answer = answer
        self._house = house
        self._unlooked = 0
        self._due = self._next_due(0)
        self._look_after = BYTES_PER_TOKEN * self._due

    async def covers(self, passed_bytes: int) -> bool:
        """Whether the stream may go on after these bytes of it; holds more where it is time to."""
        self._unlooked += passed_bytes
        if self._unlooked < self._look_after:
            return True
        self._unlooked = 0
        seen = self._seen()
        if seen >= self._due and not self._holds_all():
            await self._top_up(seen)
            self._due = self._next_due(seen)
        self._look_after = BYTES_PER_TOKEN * max(1, self._due - seen)
        return seen < self._admission.bounds.output_tokens or self._holds_all()

    def _seen(self) -> int:
        """Output tokens of all choices; a running total that the provider reports is better than our count."""
        usage = self._answer.usage
        return max(self._answer.observed_output_tokens(), usage.output_tokens if usage else 0)

    def _holds_all(self) -> bool:
        return self._admission.bounds.output_limit >= self._admission.output_limit

    def _next_due(self, seen: int) -> int:
        """More is due at half a slice before the end; where none was to be had, again at half of what is left."""
        held = self._admission.bounds.output_tokens
        return max(held - SPARE_TOKENS, seen + (held - seen + 1) // 2)

    async def _top_up(self, seen: int) -> None:
        admission = self._admission
        wanted = min(admission.output_limit, -(-seen // admission.bounds.choices) + SLICE_TOKENS)
        affordable = await self._hold(wanted, seen)
        if admission.bounds.output_limit < affordable < wanted:
            await self._hold(affordable, seen)

    async def _hold(self, output_limit: int, seen: int) -> int:
        """Hold for this output limit, or no more. Returns the limit that could be held, 0 if nobody knows."""
        admission = self._admission
        bounds = replace(admission.bounds, output_limit=output_limit)
        holds = tuple(replace(h, amount=amount(h.counter.budget.meter, bounds)) for h in admission.holds)
        try:
            reply = await self._house.budgets.top_up(
                TopUp(admission.ref, admission.standing.identity.shard, holds, seen)
            )
        except StoreAway:
            self._house.meters.fault("top_up_store_away")
            return 0
        if isinstance(reply, ToppedUp):
            admission.bounds, admission.holds = bounds, reply.holds
            admission.event["held"] = records.held(reply.holds)
            return output_limit
        if not isinstance(reply, Exceeded):
            self._house.meters.fault("top_up_lost")
            return 0
        left = [
            (own.counter.budget, state.left + own.amount)
            for own, state in zip(admission.holds, reply.states, strict=True)
        ]
        return affordable_output(admission.bounds, left)
