"""Drains: when a client leaves, its attempt is read on to the provider's usage report, within bounds.

The provider bills what it produces, read or not; so the report is worth waiting for. At most 64 attempts are
drained at once and none for longer than 30 s; beyond that the upstream is dropped and the attempt is settled
on the best evidence, marked as estimated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DRAINS_MAX = 64
DRAIN_S = 30.0


class Drains:
    """How many attempts are being read for nobody."""

    def __init__(self, most: int = DRAINS_MAX, drain_s: float = DRAIN_S) -> None:
        self._most = most
        self._drain_s = drain_s
        self.open = 0

    def enter(self, abort: Callable[[], None]) -> Callable[[], None]:
        """Begin a drain: `abort` is called when the time is up, or at once if there are too many.

        Returns what must be called when the attempt has ended.
        """
        if self.open >= self._most:
            abort()
            return _nothing
        self.open += 1
        timer = asyncio.get_running_loop().call_later(self._drain_s, abort)
        return _Leave(self, timer)


class _Leave:
    __slots__ = ("_drains", "_timer")

    def __init__(self, drains: Drains, timer: asyncio.TimerHandle) -> None:
        self._drains: Drains | None = drains
        self._timer = timer

    def __call__(self) -> None:
        if self._drains is not None:
            self._drains.open -= 1
            self._drains = None
            self._timer.cancel()


def _nothing() -> None:
    return None
