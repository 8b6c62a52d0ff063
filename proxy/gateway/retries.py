"""Retries: which failures are worth trying again at the same target, and how long to wait before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from proxy.gateway.ports import Call, UpstreamFailed

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 2.0
# What an upstream itself calls passing; 5xx besides.
PASSING = frozenset((408, 409, 429))


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often a target of one upstream is tried again, and how long after the request came that may begin."""

    max_retries: int = 0
    within_s: float = 0.0


NO_RETRIES = RetryRule()


def may_pass(failed: UpstreamFailed) -> bool:
    """Whether the same request may succeed there in a moment, and what failed has cost nothing for sure.

    So not after a timeout or a reset: what was sent may be under way still, and its input has been charged.
    """
    if failed.blame != "upstream" or failed.error_type == "upstream_saturated":
        return False
    if failed.status is None:
        return failed.kind == "unsent"
    return failed.status in PASSING or failed.status >= 500


def wait_s(retries: int, asked_s: int | None, chance: Callable[[], float]) -> float:
    """How long to wait before retry number `retries` (from 0): never less than the upstream asked for.

    Half of it is by chance, so that those who failed together do not come back together.
    """
    usual_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * (1 << retries)) * (0.5 + chance() / 2)
    return max(usual_s, float(asked_s or 0))


async def pause(seconds: float, call: Call) -> None:
    """Waits, but no longer than the client does."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = asyncio.get_running_loop().call_later(seconds, end)
    call.when_gone(end)
    try:
        await over
    finally:
        call.when_gone(None)
        timer.cancel()
