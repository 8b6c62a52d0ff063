"""Named places in the code at which a process can be made to kill itself, as `kill -9` would.

For the proof that nothing is lost (`make chaos`): each is a place where a crash would hurt most. Unarmed, which
is always but in that proof, `reach` compares one name with None. Only the operator arms it, through the keeper's
environment (`proxy.app.chaos`); nothing that a client or an admin sends comes near it.
"""

from __future__ import annotations

import os
import signal
from typing import Final

POINTS: Final = (
    "after_reserve",
    "before_connect",
    "request_sent",
    "first_byte",
    "mid_stream",
    "mid_extend",
    "usage_seen",
    "before_settle",
    "settled_before_last_byte",
    "spool_written",
    "writer_before_commit",
    "committed_before_acknowledge",
)


class _Armed:
    __slots__ = ("_left", "_point")

    def __init__(self, point: str, nth: int) -> None:
        self._point, self._left = point, nth

    def reached(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def reach(point: str) -> None:
    """This point has been reached; the process ends here if it was armed to."""
    if _armed is not None:
        _armed.reached(point)


def arm(point: str, nth: int = 1) -> None:
    """From now on the `nth` reaching of `point` kills this process; raises ValueError for an unknown point."""
    global _armed
    if point not in POINTS or nth < 1:
        raise ValueError(f"no failpoint {point!r} at its {nth}th reaching; there are {', '.join(POINTS)}")
    _armed = _Armed(point, nth)
