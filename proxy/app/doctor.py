"""The doctor: every minute the keeper looks at all invariants, says in `/metrics` whether they hold, and puts
right what has drifted.

What is found once may be a moment between two stores. Only a counter that differs in two rounds in a row, by the
same amount, is corrected, and by a script that changes nothing if anything has moved since the look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from proxy.app.invariants import Drift, Examination
from proxy.gateway.ports import StoreAway
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)

EVERY_S = 60.0
AWAY = (StoreAway, SQLAlchemyError, OSError, TimeoutError)

_Found = tuple[int, str, str, str]


class Corrections(Protocol):
    """Puts counters right; True if it did, False if something has moved. Raises `StoreAway`."""

    async def used(self, shard: int, counter: str, epoch: str, seq: int, seen: int | None, right: int) -> bool: ...

    async def held(self, shard: int, counter: str, epoch: str, difference: int) -> bool: ...


class Doctor:
    """`examine` looks at everything; `set_aside` counts the events that the ledger has refused."""

    def __init__(
        self,
        examine: Callable[[], Awaitable[Examination]],
        corrections: Corrections,
        set_aside: Callable[[], Awaitable[int]],
        counters: Counters,
        every_s: float = EVERY_S,
    ) -> None:
        self._examine = examine
        self._corrections = corrections
        self._set_aside = set_aside
        self._counters = counters
        self._every_s = every_s
        self._found: dict[_Found, int] = {}
        self.on_drift: Callable[[Drift, bool], Awaitable[None]] = _told_nobody
        """Told of what two rounds have found, and whether it was put right."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.round()
            except AWAY as away:
                log.warning("doctor.cannot_look", fault=type(away).__name__, reason=str(away))

    async def round(self) -> int:
        """Looks at everything, and corrects what the last round has found too; returns how many counters it put
        right. Raises `AWAY`."""
        seen = await self._examine()
        for check in seen.checks:
            self._counters.set("invariant_ok", int(check["ok"]), check["id"])
            if not check["ok"]:
                log.error("invariant.broken", **check)
        self._counters.set("invariant_shards_busy", len(seen.busy))
        before, self._found = self._found, {_what(drift): drift.difference for drift in seen.drifts}
        # Of a shard that was too busy to be compared nothing is known: what was found there stays found.
        self._found |= {
            what: by for what, by in before.items() if what[0] in seen.busy and what not in self._found
        }
        twice = [drift for drift in seen.drifts if before.get(_what(drift)) == drift.difference]
        return sum([await self._correct(drift) for drift in twice])

    async def _correct(self, drift: Drift) -> bool:
        facts = {
            "shard": drift.shard,
            "counter": drift.counter,
            "field": drift.field,
            "seen": drift.seen,
            "right": drift.right,
        }
        if drift.field == "held":
            done = await self._corrections.held(drift.shard, drift.counter, drift.epoch, drift.difference)
        elif drift.difference > 0 and await self._set_aside():
            # What a refused event was charged was spent, though the sums do not have it.
            log.error("drift.not_corrected", why="events were set aside: record them first", **facts)
            await self.on_drift(drift, False)
            return False
        else:
            done = await self._corrections.used(
                drift.shard, drift.counter, drift.epoch, drift.seq, drift.seen, drift.right
            )
        if done:
            del self._found[_what(drift)]
            self._counters.add("drift_corrected", 1, "I1" if drift.field == "held" else "I4")
            log.error("drift.corrected", **facts)
            await self.on_drift(drift, True)
        return done


async def _told_nobody(drift: Drift, corrected: bool) -> None: ...


def _what(drift: Drift) -> _Found:
    return drift.shard, drift.epoch, drift.counter, drift.field
