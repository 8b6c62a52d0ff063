"""The one place where the house reads the time, and how far Redis's time is from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from proxy.domain.ids import new_id

RANDOM_BYTES = 10


class SystemClock:
    """Implements `Clock`. Redis's time is guessed from the last that it said, by this machine's steady clock."""

    def __init__(self) -> None:
        self._ahead_us = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000

    def store_now_us(self) -> int:
        return time.time_ns() // 1000 + self._ahead_us

    def store_said(self, now_us: int) -> None:
        self._ahead_us = now_us - time.time_ns() // 1000


def id_maker(prefix: str) -> Callable[[], str]:
    """Makes ids that sort by time and that nobody can guess."""

    def make() -> str:
        return new_id(prefix, time.time_ns() // 1_000_000, os.urandom(RANDOM_BYTES))

    return make
