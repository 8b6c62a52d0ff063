"""Takes what waits in the shard streams into the ledger: record, commit, and only then acknowledge.

A delivery that was already recorded is recorded no second time, so every step may be repeated after any fault:
a lost reply, a crash between commit and acknowledgement, two keepers that read the same entries.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.gateway.ports import Clock, EventStream, StoreAway, StreamEntry
from proxy.ledger.denials import Delta, deltas_of, record_denials
from proxy.ledger.entries import SetAside, put_aside, record_events
from proxy.ledger.rows import Row, row_of
from proxy.telemetry.failpoints import reach

log = structlog.get_logger(__name__)

READ_ENTRIES = 4000
BLOCK_MS = 1000
# A commit costs an fsync however little it holds: under traffic this lets a batch gather, and nobody waits longer.
GATHER_S = 0.1
# More than this at once is a backlog, perhaps of a single shard (of which a read takes no more than its share).
GATHERED_ENTRIES = 50
# Entries that another writer read and did not finish for this long are taken over from it.
ABANDONED_MS = 60_000
BACKOFF_S = (0.1, 5.0)
# What an absent database or Redis looks like; anything else is a fault of ours and must be seen.
AWAY = (SQLAlchemyError, OSError, TimeoutError, StoreAway)


@dataclass(slots=True)
class Lag:
    """How far the ledger is behind; `waiting_since_us`: since when the entries in hand wait (None: none do)."""

    recorded: int = 0
    duplicates: int = 0
    set_aside: int = 0
    failures_in_a_row: int = 0
    waiting_since_us: int | None = None


class StreamWriter(ABC):
    """The loop that both writers share. `lag` is for whoever wants to look."""

    def __init__(self, stream: EventStream, engine: AsyncEngine, clock: Clock, consumer: str) -> None:
        self.lag = Lag()
        self._stream, self._engine, self._clock, self._consumer = stream, engine, clock, consumer
        self._in_hand: Sequence[StreamEntry] = ()
        # The last life of this writer may have read what it could not finish; the first claim takes it at once.
        self._claim_idle_ms = 0
        self._claimed_us = 0

    async def run(self) -> None:
        """Records until it is cancelled, waiting longer and longer while the database or Redis is away."""
        pause_s = BACKOFF_S[0]
        while True:
            try:
                if await self.step() < GATHERED_ENTRIES:
                    await asyncio.sleep(GATHER_S)
                pause_s = BACKOFF_S[0]
            except AWAY as fault:
                log.warning(
                    "ledger_behind",
                    writer=type(self).__name__,
                    fault=type(fault).__name__,
                    reason=str(getattr(fault, "orig", fault)),
                    entries=len(self._in_hand),
                    failures=self.lag.failures_in_a_row,
                    retry_in_s=pause_s,
                )
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, BACKOFF_S[1])

    def take_over_at_once(self) -> None:
        """The next round claims all that is pending: in a Redis put back to an older state, that is what we have
        long finished, and nobody else would for a while."""
        self._claim_idle_ms = 0

    async def drain(self) -> int:
        """Records all that waits now, for an orderly end; returns how many entries. Raises like `step`."""
        total = 0
        while count := await self.step(block_ms=1):
            total += count
        return total

    async def step(self, block_ms: int = BLOCK_MS) -> int:
        """One round; returns the number of entries finished. Raises `AWAY`, and then has them still in hand."""
        try:
            if not self._in_hand:
                self._in_hand = await self._next(block_ms)
            if not self._in_hand:
                return 0
            if self.lag.waiting_since_us is None:
                self.lag.waiting_since_us = self._clock.now_us()
            await self._record(self._in_hand)
            reach("committed_before_acknowledge")
            await self._stream.done(self._in_hand)
        except AWAY:
            self.lag.failures_in_a_row += 1
            if not self._in_hand:
                # A reply that was lost on its way may have had entries in it, which are ours and pending now.
                self.take_over_at_once()
            raise
        finished, self._in_hand = len(self._in_hand), ()
        self.lag.waiting_since_us, self.lag.failures_in_a_row = None, 0
        return finished

    async def _next(self, block_ms: int) -> Sequence[StreamEntry]:
        now_us = self._clock.monotonic_us()
        if self._claim_idle_ms == 0 or now_us - self._claimed_us >= ABANDONED_MS * 1000:
            if abandoned := await self._stream.claim(self._consumer, self._claim_idle_ms):
                return abandoned
            self._claimed_us, self._claim_idle_ms = now_us, ABANDONED_MS
        return await self._stream.read(self._consumer, READ_ENTRIES, block_ms)

    @abstractmethod
    async def _record(self, entries: Sequence[StreamEntry]) -> None:
        """Commits the entries, and sets aside what cannot be recorded."""

    async def _put_aside(self, items: Sequence[SetAside]) -> None:
        await put_aside(self._engine, items, self._clock.now_us())
        for item in items:
            self._report(item.id, item.reason)

    def _report(self, id: str, reason: str) -> None:
        self.lag.set_aside += 1
        log.error("set_aside", writer=type(self).__name__, id=id, reason=reason)


class LedgerWriter(StreamWriter):
    """Usage events into `usage_events`."""

    async def _record(self, entries: Sequence[StreamEntry]) -> None:
        rows: list[Row] = []
        unreadable: list[SetAside] = []
        for entry in entries:
            try:
                rows.append(row_of(entry.fields, entry.shard))
            except ValueError as fault:
                unreadable.append(_unreadable(entry, fault))
        recorded = await record_events(self._engine, rows, self._clock.now_us())
        await self._put_aside(unreadable)
        for id, reason in recorded.refused.items():
            self._report(id, reason)
        self.lag.recorded += len(recorded.inserted)
        self.lag.duplicates += len(rows) - len(recorded.inserted) - len(recorded.refused)


class DenialWriter(StreamWriter):
    """Denial deltas into `denials`. `on_recorded` is told of them once they are there."""

    def __init__(self, stream: EventStream, engine: AsyncEngine, clock: Clock, consumer: str) -> None:
        super().__init__(stream, engine, clock, consumer)
        self.on_recorded: Callable[[Sequence[Delta]], None] = lambda deltas: None

    async def _record(self, entries: Sequence[StreamEntry]) -> None:
        deltas: list[Delta] = []
        unreadable: list[SetAside] = []
        for entry in entries:
            try:
                deltas.extend(deltas_of(entry.fields))
            except ValueError as fault:
                unreadable.append(_unreadable(entry, fault))
        applied = await record_denials(self._engine, deltas, self._clock.now_us())
        self.on_recorded(deltas)
        await self._put_aside(unreadable)
        self.lag.recorded += applied
        self.lag.duplicates += len(deltas) - applied


def _unreadable(entry: StreamEntry, fault: ValueError) -> SetAside:
    return SetAside(f"stream:{entry.shard}:{entry.id}", str(fault), dict(entry.fields))
