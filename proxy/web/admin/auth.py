"""Who may use the admin plane: whoever holds a token, for what its role allows, and nobody who guesses at one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime

from proxy.domain.deeds import BOOTSTRAP, Actor, AdminToken, may
from proxy.web.admin.errors import AdminError, unauthorized
from proxy.web.admin.routes import Route

GUESSES_MAX = 10
LOCKOUT_S = 60.0
ADDRESSES_MAX = 4096
REFUSALS_MAX = 4096
REFUSED_AGAIN_S = 60.0

FIRST_OWNER = Actor(BOOTSTRAP, "FAREGATE_ADMIN_TOKEN", "owner")
"""Who holds the token that the gate was started with: always an owner, so that nobody can lock everybody out."""

Find = Callable[[str], Awaitable[AdminToken | None]]
"""The token that this text is, live or not; None: nobody was ever given it."""


def token_digest(token: str) -> bytes:
    """What is kept of the admin token for comparing: a plain SHA-256, for it never leaves the process."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Tells whose token a request bears; an address that guessed wrong ten times in a minute waits it out.

    A locked address is not even compared, or a weak token could be guessed through the lock. A request without any
    token is no guess, nor is a token that has ended: a forgotten job must not lock its whole machine out. Forgets
    the address that was quiet longest when it knows too many.
    """

    def __init__(
        self,
        digest: bytes,
        find: Find,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._digest, self._find = digest, find
        self._now, self._monotonic = now, monotonic
        self._guesses: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def check(self, authorization: str | None, address: str | None) -> Actor:
        """Who it is; raises `AdminError` 401, or 429 with `Retry-After`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        home = network(address)
        count, since = self._guesses.get(home, (0, 0.0))
        now = self._monotonic()
        if count >= GUESSES_MAX and now - since < LOCKOUT_S:
            raise _locked(LOCKOUT_S - (now - since))
        if hmac.compare_digest(token_digest(token.strip()), self._digest):
            self._guesses.pop(home, None)
            return FIRST_OWNER
        kept = await self._find(token.strip())
        if kept is None:
            self._remember(home, now)
            raise unauthorized()
        if not kept.lets_in(self._now()):
            raise unauthorized()
        self._guesses.pop(home, None)
        return Actor(kept.id, kept.name, kept.role)

    def _remember(self, home: str, now: float) -> None:
        count, since = self._guesses.get(home, (0, 0.0))
        fresh = count == 0 or now - since >= LOCKOUT_S
        self._guesses[home] = (1, now) if fresh else (count + 1, since)
        self._guesses.move_to_end(home)
        if len(self._guesses) > ADDRESSES_MAX:
            self._guesses.popitem(last=False)


class Doorkeeper:
    """Lets an actor do what its role allows, and remembers whose refusals were written down a minute ago."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def refuse(self, actor: Actor, route: Route) -> AdminError | None:
        """The refusal, if the actor's role is not enough for the route."""
        if actor.role != "system" and may(actor.role, route.role):
            return None
        return AdminError(
            403,
            "insufficient_role",
            f"This takes the role {route.role!r}; the token {actor.name!r} has {actor.role!r}.",
        )

    def worth_writing_down(self, actor: Actor, route: Route) -> bool:
        """Once a minute per token and route: who may do little must not be able to fill the audit log."""
        key, now = (actor.id, f"{route.method} {route.path}"), self._monotonic()
        if now - self._told.get(key, -REFUSED_AGAIN_S) < REFUSED_AGAIN_S:
            return False
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > REFUSALS_MAX:
            self._told.popitem(last=False)
        return True


def network(address: str | None, ipv4_bits: int = 32) -> str:
    """One IPv4 address (or its network of so many bits), or the /64 that one IPv6 host owns whole."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if ip.version == 4 and ipv4_bits == 32:
        return str(ip)
    return str(ipaddress.ip_network((ip, ipv4_bits if ip.version == 4 else 64), strict=False))


def _locked(left_s: float) -> AdminError:
    wait_s = max(1, -int(-left_s // 1))
    return AdminError(
        429,
        "too_many_attempts",
        f"Too many wrong admin tokens from this address. Try again in {wait_s} s.",
        headers={"Retry-After": str(wait_s)},
    )
