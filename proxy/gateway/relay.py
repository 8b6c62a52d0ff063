"""Carry: one admitted attempt is sent to its upstream and the answer is passed on as it comes.

Nothing reaches the client's end of the answer before the attempt is settled: a plain body waits for it, a
stream's `[DONE]` does. A client that leaves is not waited for, yet its attempt is read on (see `drains`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy.domain.usage import NOTHING_USED, Status, Usage
from proxy.gateway import refuse
from proxy.gateway.admission import Admission
from proxy.gateway.house import House
from proxy.gateway.limits import answer_headers
from proxy.gateway.ports import Answer, Call, Dispatch, UpstreamFailed
from proxy.gateway.responses import remember
from proxy.gateway.rolling import RollingHold
from proxy.gateway.settle import Charge, Ending, settle
from proxy.gateway.targets import TARGET_SATURATED
from proxy.gateway.turns import Turns
from proxy.telemetry.failpoints import reach

CLIENT_GONE = Ending("cancelled", "nothing", error_type="client_gone")
BUDGET_SPENT = "budget_spent"
"""`error_type` of a stream that a rolling hold has ended: it succeeded, and is shorter than it might have been."""


def carry(admission: Admission, call: Call, house: House) -> Awaitable[UpstreamFailed | None]:
    """Sends, passes on and settles. Returns the failure while nothing has reached the client, else None."""
    turns = house.turns.get(admission.target.upstream) if house.turns else None
    if turns is not None:
        return _in_turn(turns, admission, call, house)
    return _carry(admission, call, house)


async def _in_turn(turns: Turns, admission: Admission, call: Call, house: House) -> UpstreamFailed | None:
    """As `carry`, once a slot of the upstream is free, and in possession of it until the answer has ended."""
    who = admission.standing
    house.leases.begin(admission, _nothing_observed)
    outcome, admission.queued_us = await turns.take(
        who.identity.customer_id, who.plan.features.get("priority", False), call
    )
    admission.event["queued_ms"] = admission.queued_us // 1000
    if outcome == "turn":
        try:
            return await _carry(admission, call, house)
        finally:
            turns.give_back()
    house.rests.abandoned(admission.trail)
    if outcome == "gone":
        await settle(admission, CLIENT_GONE, house)
        return None
    await settle(admission, Ending("failed", "nothing", error_type=TARGET_SATURATED), house)
    return UpstreamFailed(
        "unsent", TARGET_SATURATED, refuse.SATURATED, status=503, retry_after_s=refuse.SATURATED_RETRY_S
    )


async def _carry(admission: Admission, call: Call, house: House) -> UpstreamFailed | None:
    if call.gone:
        house.rests.abandoned(admission.trail)
        await settle(admission, CLIENT_GONE, house)
        return None
    departure = _Departure(house)
    call.when_gone(departure.begin)
    house.leases.begin(admission, departure.observed)
    try:
        answer = await departure.guard(_send(admission, house))
        departure.answer = answer
        await (_stream if answer.streamed else _plain)(answer, admission, call, house)
        return None
    except UpstreamFailed as failed:
        if not call.gone:
            house.rests.failed(admission.trail, admission.target, failed)
        await settle(admission, _failed(failed, call), house)
        return failed
    finally:
        if admission.trail.probe is not None:
            house.rests.abandoned(admission.trail)
        call.when_gone(None)
        departure.end()
        house.leases.end(admission.ref)


async def _send(admission: Admission, house: House) -> Answer:
    dispatch = Dispatch(
        admission.trail.request_id,
        admission.attempt,
        admission.trail.ask,
        admission.model,
        admission.target.upstream_model,
        admission.output_limit,
    )
    reach("before_connect")
    return await house.providers[admission.target.upstream].send(dispatch)


async def _plain(answer: Answer, admission: Admission, call: Call, house: House) -> None:
    body = await answer.read()
    reach("first_byte")
    admission.first_byte_us = house.clock.monotonic_us()
    if house.rests:
        house.rests.succeeded(admission.trail, admission.target)
    await settle(admission, _ended(answer, call), house)
    await remember(answer, admission, house)
    reach("settled_before_last_byte")
    await call.answer(answer.status, answer_headers(answer, admission), body)


async def _stream(answer: Answer, admission: Admission, call: Call, house: House) -> None:
    chunk = await answer.next()
    reach("first_byte")
    admission.first_byte_us = house.clock.monotonic_us()
    if house.rests:
        house.rests.answered(admission.trail, admission.target)
    await call.begin(answer.status, answer_headers(answer, admission))
    rolling = (
        RollingHold(admission, answer, house) if admission.output_limit > admission.bounds.output_limit else None
    )
    cut_short = b""
    try:
        while chunk is not None:
            await call.write(chunk)
            reach("mid_stream")
            if rolling is not None and not await rolling.covers(len(chunk)):
                cut_short = await answer.end_by_length()
            chunk = await answer.next()
    except UpstreamFailed as failed:
        if not call.gone:
            house.rests.failed(admission.trail, admission.target, failed)
        await settle(admission, _broken(failed, answer, call), house)
        # The connection ends in order, the answer does not: what is cut off, many clients never read.
        message = "The upstream broke off in the middle of its answer."
        await call.end(answer.error_event(message, failed.error_type))
        return
    ending = _ended(answer, call)
    if cut_short:
        ending.error_type = BUDGET_SPENT
    if house.rests and not answer.failed:
        house.rests.succeeded(admission.trail, admission.target)
    await settle(admission, ending, house)
    await remember(answer, admission, house)
    reach("settled_before_last_byte")
    await call.end(cut_short + answer.tail)


def _nothing_observed() -> int:
    return 0


def _ended(answer: Answer, call: Call) -> Ending:
    status: Status = "failed" if answer.failed else "cancelled" if call.gone else "succeeded"
    return Ending(
        status,
        "usage",
        _known(answer),
        answer.status,
        "error_in_stream" if answer.failed else None,
        answer.provider_request_id,
    )


def _broken(failed: UpstreamFailed, answer: Answer, call: Call) -> Ending:
    return Ending(
        "cancelled" if call.gone else "failed",
        "usage",
        _known(answer),
        answer.status,
        failed.error_type,
        answer.provider_request_id,
    )


def _known(answer: Answer) -> Usage:
    usage = answer.usage
    assert usage is not None, "an ended answer has a usage, estimated where none was reported"
    return usage


def _failed(failed: UpstreamFailed, call: Call) -> Ending:
    """An attempt that brought nothing. Sent and unanswered, it may have cost its whole input."""
    usage = failed.usage or NOTHING_USED
    charge: Charge = "usage" if failed.usage else "input_bound" if failed.kind == "unknown" else "nothing"
    return Ending(
        "cancelled" if call.gone else "failed",
        charge,
        usage,
        failed.status,
        failed.error_type,
        failed.provider_request_id,
    )


class _Departure:
    """What happens to an attempt whose client leaves: it is drained, until the drain's time is up."""

    __slots__ = ("_house", "_leave", "_task", "_timed_out", "answer")

    def __init__(self, house: House) -> None:
        self._house = house
        self._leave: Callable[[], None] | None = None
        self._task: asyncio.Task[object] | None = None
        self._timed_out = False
        self.answer: Answer | None = None

    def begin(self) -> None:
        self._leave = self._house.drains.enter(self._abort)

    def end(self) -> None:
        if self._leave is not None:
            self._leave()

    def observed(self) -> int:
        return self.answer.observed_output_tokens() if self.answer else 0

    async def guard(self, sending: Awaitable[Answer]) -> Answer:
        """Waits for the answer's head; the drain's end while it is awaited is an upstream failure."""
        self._task = asyncio.current_task()
        try:
            return await sending
        except asyncio.CancelledError:
            if not self._timed_out or self._task is None:
                raise
            self._task.uncancel()
            raise UpstreamFailed("unknown", "client_gone", "The client left before the answer began.") from None
        finally:
            self._task = None

    def _abort(self) -> None:
        if self.answer is not None:
            self.answer.abort()
        elif self._task is not None:
            self._timed_out = True
            self._task.cancel()
