"""The one place where the house reads the time, and how far Redis's time is from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from proxy.domain.ids import new_id

RANDOM_BYTES = 10
POOL = 256


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

    # The system is asked for many ids' worth at a time: each call costs more than the rest of making one.
    pool = bytearray()

    def make() -> str:
        if not pool:
            pool.extend(os.urandom(RANDOM_BYTES * POOL))
        taken = bytes(pool[-RANDOM_BYTES:])
        del pool[-RANDOM_BYTES:]
        return new_id(prefix, time.time_ns() // 1_000_000, taken)

    return make
