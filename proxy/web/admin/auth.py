"""Who may use the admin plane: whoever holds the admin token, and nobody who guesses at it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from proxy.web.admin.errors import AdminError, unauthorized

GUESSES_MAX = 10
LOCKOUT_S = 60.0
ADDRESSES_MAX = 4096


def token_digest(token: str) -> bytes:
    """What is kept of the admin token for comparing: a plain SHA-256, for it never leaves the process."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Checks the bearer token of a request; an address that guessed wrong ten times in a minute waits it out.

    A locked address is not even compared, or a weak token could be guessed through the lock. A request
    without any token is no guess. Forgets the address that was quiet longest when it knows too many.
    """

    def __init__(self, digest: bytes, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._digest = digest
        self._monotonic = monotonic
        self._guesses: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, authorization: str | None, address: str | None) -> None:
        """Returns for the right token; raises `AdminError` 401, or 429 with `Retry-After`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        home = _network(address)
        count, since = self._guesses.get(home, (0, 0.0))
        now = self._monotonic()
        if count >= GUESSES_MAX and now - since < LOCKOUT_S:
            raise _locked(LOCKOUT_S - (now - since))
        if hmac.compare_digest(token_digest(token.strip()), self._digest):
            self._guesses.pop(home, None)
            return
        self._remember(home, now, count, since)
        raise unauthorized()

    def _remember(self, home: str, now: float, count: int, since: float) -> None:
        fresh = count == 0 or now - since >= LOCKOUT_S
        self._guesses[home] = (1, now) if fresh else (count + 1, since)
        self._guesses.move_to_end(home)
        if len(self._guesses) > ADDRESSES_MAX:
            self._guesses.popitem(last=False)


def _network(address: str | None) -> str:
    """One IPv4 address, or the /64 that one IPv6 host owns whole."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def _locked(left_s: float) -> AdminError:
    wait_s = max(1, -int(-left_s // 1))
    return AdminError(
        429,
        "too_many_attempts",
        f"Too many wrong admin tokens from this address. Try again in {wait_s} s.",
        headers={"Retry-After": str(wait_s)},
    )
