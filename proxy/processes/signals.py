"""Ctrl-C and SIGTERM to the keeper: asked once, everything ends in order; asked twice, at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """`asked` is set by the first signal, `quickly` by the second; `exit_code` is what the process ends with.

    `say` gets a sentence for the person at the terminal. SIGHUP (the terminal was closed) counts as asking.
    """

    def __init__(self, say: Callable[[str], None], drain_s: float) -> None:
        self._say = say
        self._drain_s = drain_s
        self.asked = asyncio.Event()
        self.quickly = asyncio.Event()
        self.exit_code = 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for signum in _STOP_SIGNALS:
            loop.add_signal_handler(signum, self._take, signum)

    def _take(self, signum: signal.Signals) -> None:
        if not self.asked.is_set():
            self.asked.set()
            self._say(
                f"Stopping ({signum.name}): requests in flight have up to {self._drain_s:g} s. "
                "Once more to stop at once."
            )
        elif not self.quickly.is_set():
            self.quickly.set()
            self.exit_code = 128 + signum
            self._say(f"Stopping at once ({signum.name}). What was in flight is charged when its lease runs out.")
