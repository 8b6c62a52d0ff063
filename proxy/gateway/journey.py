"""The journey of a request: it is identified, admitted, carried and settled.

Each attempt reserves before it is sent and is settled before its answer ends; a retry or a fallback is an
attempt of its own, and begins only while nothing has reached the client.
"""

from __future__ import annotations

from proxy.domain.refusals import Refused
from proxy.domain.requests import read_request
from proxy.gateway.admission import Admission, Trail
from proxy.gateway.candidates import first_attempt, next_attempt
from proxy.gateway.house import House
from proxy.gateway.identify import freshly_identify, identify
from proxy.gateway.ports import Call
from proxy.gateway.relay import carry
from proxy.gateway.responses import continue_from
from proxy.gateway.standing import Standing
from proxy.gateway.story import Story


async def serve(call: Call, house: House) -> None:
    """Carry one request through the house; raises `Refused`, counted, if it gets no answer."""
    came_us = house.clock.monotonic_us()
    story = Story(call, came_us)
    try:
        standing = story.standing = await identify(call.secret, house)
        trail = story.trail = await _read(call, standing, house)
        trail.came_us = came_us
        attempt: Admission | None = await first_attempt(trail, standing, house)
        while attempt is not None:
            failed = await carry(attempt, call, house)
            attempt = await next_attempt(failed, attempt, call, house) if failed else None
    except Refused as refused:
        story.refused(refused.refusal, house)
        raise
    story.answered(house)


async def _read(call: Call, standing: Standing, house: House) -> Trail:
    """The ask, read from the body. Whoever may not call at all is told that first."""
    if standing.identity.status == "suspended":
        await freshly_identify(call.secret, house)
    try:
        ask = read_request(call.endpoint, call.query, await call.json(), call.headers, house.digest_user)
        kept_at = await continue_from(ask, standing, house)
    except Refused:
        await freshly_identify(call.secret, house)
        raise
    return Trail(call.request_id, ask, pinned_upstream=kept_at)
