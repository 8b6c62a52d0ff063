"""The journey of a request: it is identified, admitted, carried and settled.

Each attempt reserves before it is sent and is settled before its answer ends; a fallback is an attempt of
its own, and begins only while nothing has reached the client.
"""

from __future__ import annotations

from proxy.domain.refusals import Refused
from proxy.domain.requests import read_request
from proxy.gateway import refuse
from proxy.gateway.admission import Admission, Trail
from proxy.gateway.admit import admit
from proxy.gateway.house import House
from proxy.gateway.identify import freshly_identify, identify
from proxy.gateway.ports import Call, UpstreamFailed
from proxy.gateway.relay import carry
from proxy.gateway.standing import Standing
from proxy.gateway.story import Story


async def serve(call: Call, house: House) -> None:
    """Carry one request through the house; raises `Refused`, counted, if it gets no answer."""
    story = Story(call, house.clock.monotonic_us())
    try:
        standing = story.standing = await identify(call.secret, house)
        trail = story.trail = await _read(call, standing, house)
        admission = await admit(trail, standing, trail.ask.model, house)
        failed = await carry(admission, call, house)
        while failed is not None and not call.gone:
            following = await _fall_back(failed, admission, house)
            if following is None:
                raise Refused(refuse.upstream(failed, trail.skipped, trail.ask.prompt()))
            admission = following
            failed = await carry(admission, call, house)
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
    except Refused:
        await freshly_identify(call.secret, house)
        raise
    return Trail(call.request_id, ask)


async def _fall_back(failed: UpstreamFailed, admission: Admission, house: House) -> Admission | None:
    """The next attempt that is allowed and affordable; None if there is none, or none would help."""
    if failed.blame == "request":
        return None
    trail, standing = admission.trail, admission.standing
    asked = standing.policy.models.get(trail.ask.model)
    order = asked.fallbacks if asked else ()
    tried = order.index(admission.model.id) + 1 if admission.model.id in order else 0
    trail.fallback_from, trail.fallback_reason = admission.model.id, failed.error_type
    for model_id in order[tried:]:
        try:
            return await admit(trail, standing, model_id, house)
        except Refused as refused:
            trail.skipped = {**(trail.skipped or {}), model_id: refused.refusal.reason.replace("_", " ")}
    return None
