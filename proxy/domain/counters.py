"""Counters of a caller: what they are called, which windows they run over, and what fills them.

A name is `{customer}/{subject}/{budget}/{meter}/{window}/{window start}`; a grant's has `grant:{id}` and its
expiry (`-`: none) in the places of the window's. Subjects are `customer`, `agent:{id}` and `user:{id}`.
"""

from __future__ import annotations

import hashlib
from datetime import tzinfo
from urllib.parse import quote

from proxy.domain.grants import PRIORITY_USUAL
from proxy.domain.identity import Identity
from proxy.domain.policy import Budget
from proxy.domain.reservations import Counter, Source
from proxy.domain.windows import LIFETIME, calendar_anchor_us, parse_duration, window_at

SHARED_USER = "user:-"
"""The subject of calls without a user, and of users beyond a budget's `users_max`."""

GRANT = "grant:"

# As many windows that nobody has used are looked back on for what they have left.
WINDOWS_BACK_MOST = 12

KEPT_US = 35 * 86_400_000_000
"""How long a counter is kept after it may be needed last, for late settles. `reserve.lua` has the same."""

_USER_CHARACTERS_MAX = 64


def counter_of(who: Identity, budget: Budget, zone: tzinfo, now_us: int, user_id: str | None = None) -> Counter:
    """The counter of `budget` that a call of this caller, for this user, moves at `now_us`."""
    if budget.per == "user":
        shared = _counter(who, budget, SHARED_USER, zone, now_us, None)
        subject = user_subject(user_id)
        return shared if subject == SHARED_USER else _counter(who, budget, subject, zone, now_us, shared)
    return _counter(
        who, budget, f"agent:{who.agent_id}" if budget.per == "agent" else "customer", zone, now_us, None
    )


def user_subject(user_id: str | None) -> str:
    """A user's subject, short and without slashes whatever the id."""
    if not user_id:
        return SHARED_USER
    text = quote(user_id, safe="").replace("~", "%7E")
    if len(text) > _USER_CHARACTERS_MAX:
        text = "~" + hashlib.sha256(user_id.encode()).hexdigest()[:40]
    return "user:" + text


def _counter(
    who: Identity, budget: Budget, subject: str, zone: tzinfo, now_us: int, shared: Counter | None
) -> Counter:
    anchor_us = calendar_anchor_us(budget.window, zone) if budget.anchor == "calendar" else who.anchor_us
    starts, ends = window_at(budget.window, anchor_us, zone, now_us)
    base = f"{who.customer_id}/{subject}/{budget.id}/{budget.meter}/"
    name = f"{base}{budget.window}/{starts}"
    earlier = _starts_before(budget, anchor_us, zone, starts, who.anchor_us) if budget.rollover_max else []
    sources = [Source(name, budget.limit, starts, ends, None)]
    burnt = {name: (PRIORITY_USUAL, _or_never(ends), starts, "")}
    for grant in who.grants:
        if grant.raises(budget) and grant.effective_at_us <= now_us < _or_never(grant.expires_at_us):
            expires = "-" if grant.expires_at_us is None else grant.expires_at_us
            own = f"{base}{GRANT}{grant.id}/{expires}"
            sources.append(Source(own, grant.amount, grant.effective_at_us, grant.expires_at_us, grant.id))
            burnt[own] = grant.burns_before()
    sources.sort(key=lambda source: burnt[source.name])
    return Counter(
        name,
        budget,
        starts,
        ends,
        tuple(sources) if len(sources) > 1 else (),
        tuple([f"{base}{budget.window}/{back}" for back in earlier]),
        shared,
    )


def _starts_before(budget: Budget, anchor_us: int, zone: tzinfo, starts_us: int, subscribed_us: int) -> list[int]:
    """Where the windows before began, the newest first, back to the one in which the subscription began.

    No more than matter: windows that nobody has used fill what may be carried over after a few.
    """
    if budget.window == LIFETIME:
        return []
    most = min(WINDOWS_BACK_MOST, -(-budget.rollover_max // max(1, budget.limit)))
    found: list[int] = []
    while len(found) < most and starts_us > subscribed_us:
        starts_us, _ = window_at(budget.window, anchor_us, zone, starts_us - 1)
        found.append(starts_us)
    return found


def expires_us(name: str) -> int | None:
    """When a counter may go, None for never: well after a grant's expiry, or after the window that follows its
    own, which the name gives to within a few days."""
    *_, window, start = name.rsplit("/", 2)
    if window.startswith(GRANT):
        return None if start == "-" else int(start) + KEPT_US
    if window == LIFETIME:
        return None
    return int(start) + 2 * parse_duration(window).mean_us + KEPT_US


def is_grant(name: str) -> bool:
    """Whether a counter is a grant's, and not a window's."""
    return name.rsplit("/", 2)[-2].startswith(GRANT) if name.count("/") >= 2 else False


def shared_of(name: str) -> str | None:
    """The counter of all users together, for a window's counter of one user's; None for any other."""
    *customer, subject, budget_id, meter, window, start = name.split("/")
    if window.startswith(GRANT) or not subject.startswith("user:") or subject == SHARED_USER:
        return None
    return "/".join((*customer, SHARED_USER, budget_id, meter, window, start))


def _or_never(at_us: int | None) -> int:
    return 1 << 62 if at_us is None else at_us
