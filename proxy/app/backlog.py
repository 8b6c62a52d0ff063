"""The bound on what may wait for the ledger, and the keeper's own figures for `/metrics`.

While the database is away traffic goes on, and usage events gather in Redis. Redis is memory, so there is a bound:
beyond it the gate admits nothing more, and opens again by itself when the ledger writer has caught up. What is
under way is settled all the same.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from proxy.budgets.backlog import Waiting
from proxy.gateway.ports import StoreAway
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)

LOOK_S = 0.5
FIGURES_S = 1.0
# Opened a little below the bound, so that a gate at its bound does not open and close twice a second.
OPEN_BELOW = 0.9


class Backlog(Protocol):
    """Of all shards. Raises `StoreAway`."""

    async def look(self) -> Waiting: ...

    async def mark(self, full: bool) -> None: ...


class BacklogBound:
    """Closes the gate to new requests at `most` events, and opens it again.

    It remembers nothing: several keepers come to the same decision, and one that starts anew goes by the mark that
    it finds. Between two looks a gate under load may go beyond the bound by what it settles in half a second.
    """

    def __init__(self, backlog: Backlog, most: int, counters: Counters) -> None:
        self._backlog = backlog
        self._most = most
        self._counters = counters

    async def look(self) -> Waiting:
        """One look, and what follows from it. Raises `StoreAway`."""
        waiting = await self._backlog.look()
        full = waiting.full
        if waiting.events >= self._most:
            full = True
        elif waiting.events < self._most * OPEN_BELOW:
            full = False
        if waiting.open if full else waiting.full:
            await self._backlog.mark(full)
            log.warning("ledger.backlog_full" if full else "ledger.backlog_open", events=waiting.events)
        self._counters.set("ledger_backlog_events", waiting.events)
        self._counters.set("ledger_backlog_full", int(full))
        self._counters.set("ledger_lag_seconds", waiting.oldest_us / 1_000_000)
        return waiting

    async def run(self) -> None:
        """Looks twice a second, for as long as the keeper lives."""
        while True:
            try:
                await self.look()
            except StoreAway:
                self._counters.store_fault("backlog")
            await asyncio.sleep(LOOK_S)


class Writer(Protocol):
    """What the ledger writer has done so far."""

    @property
    def recorded(self) -> int: ...

    @property
    def set_aside(self) -> int: ...


class Swept(Protocol):
    """How many reservations the sweeper has expired so far."""

    @property
    def expired(self) -> int: ...


class KeeperFigures:
    """What the keeper's parts have counted for themselves, put into its counters."""

    def __init__(self, counters: Counters, written: Writer, swept: Swept, spool: Path) -> None:
        self._counters = counters
        self._written = written
        self._swept = swept
        self._spool = spool
        self._told = dict.fromkeys(("events_recorded", "events_set_aside", "reservations_expired"), 0)

    async def run(self) -> None:
        """Every second, for as long as the keeper lives."""
        while True:
            await self.take()
            await asyncio.sleep(FIGURES_S)

    async def take(self) -> None:
        """Adds what has come since the last time."""
        now = (self._written.recorded, self._written.set_aside, self._swept.expired)
        for (name, told), count in zip(list(self._told.items()), now, strict=True):
            self._counters.add(name, count - told)
            self._told[name] = count
        self._counters.set("spool_files", await asyncio.to_thread(_spool_files, self._spool))


def _spool_files(directory: Path) -> int:
    return sum(1 for _ in directory.glob("*.spool"))
