"""Identify: secret -> keyed digest -> the caller's standing."""

from __future__ import annotations

from proxy.domain.refusals import Refusal, Refused
from proxy.domain.secrets import digest, well_formed
from proxy.gateway.house import House
from proxy.gateway.ports import DirectoryIncomplete, StoreAway
from proxy.gateway.standing import Standing

UNAUTHENTICATED = Refusal(
    "unauthenticated",
    "Incorrect API key provided. An agent secret of Faregate starts with fg_live_.",
    401,
    code="invalid_api_key",
    type="invalid_request_error",
)
SUSPENDED = Refusal(
    "suspended",
    "This account is suspended. Please write to whoever gave you this agent.",
    403,
    code="account_suspended",
    type="permission_error",
)
UNAVAILABLE = Refusal(
    "gate_unavailable",
    "The budget of this request cannot be checked just now, so it was not sent. Please try again shortly.",
    503,
    code="gate_unavailable",
    type="server_error",
)


async def identify(secret: str | None, house: House) -> Standing:
    """The standing behind a secret, suspended ones included; raises `Refused`.

    Junk is shed by its checksum, without a look-up. Every secret that lets nobody in gets the same answer.
    """
    if secret is None:
        raise Refused(UNAUTHENTICATED)
    keyed = digest(house.pepper, secret)
    standing = house.knowledge.remembered(keyed)
    if standing is None:
        if not well_formed(secret):
            raise Refused(UNAUTHENTICATED)
        try:
            standing = await house.knowledge.standing(keyed)
        except (StoreAway, DirectoryIncomplete):
            raise Refused(UNAVAILABLE) from None
        if standing is None:
            raise Refused(UNAUTHENTICATED)
    if standing.identity.scheduled is None:
        return standing
    return house.knowledge.in_force(standing, house.clock.store_now_us())


async def freshly_identify(secret: str | None, house: House) -> Standing:
    """As `identify`, confirmed to be current, for answers that no admission script will check."""
    standing: Standing | None = await identify(secret, house)
    assert standing is not None
    try:
        if not await house.knowledge.confirm(standing):
            standing = await house.knowledge.refresh(standing.digest)
    except (StoreAway, DirectoryIncomplete):
        raise Refused(UNAVAILABLE) from None
    if standing is None:
        raise Refused(UNAUTHENTICATED)
    if standing.identity.status == "suspended":
        raise Refused(SUSPENDED)
    return house.knowledge.in_force(standing, house.clock.store_now_us())
