"""Shards that lost their counters are rebuilt from the record, at start and whenever it happens.

First the workers hand over what Redis had acknowledged and the ledger may lack; all of it goes into the ledger.
Then each shard gets its counters, what is under way, and last of all its epoch. Until then it is closed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.replay import Replaying
from proxy.budgets.restoring import ShardBooks
from proxy.domain.reservations import LiveReservation
from proxy.gateway.ports import StoreAway
from proxy.ledger.counter_sums import charged_by_counter
from proxy.ledger.engine import one_keeper
from proxy.ledger.entries import recorded_among
from proxy.ledger.spool import drain_dead

log = structlog.get_logger(__name__)

LOOK_S = 0.25
HAND_OVER_S = 5.0
STREAMS_S = 5.0

HandOver = Callable[[], Awaitable[list[LiveReservation]]]


class Reopening:
    """Watches for blank shards. `forgotten` is called when they are open again, to publish the policy anew.

    `refresh` is called before they open: a Redis put back to an older state has an older directory, too, in which
    revoked secrets are still good.
    """

    def __init__(
        self,
        books: ShardBooks,
        engine: AsyncEngine,
        spool: Path,
        replaying: Replaying,
        forgotten: Callable[[], Awaitable[None]],
    ) -> None:
        self._books = books
        self._engine = engine
        self._spool = spool
        self._replaying = replaying
        self._forgotten = forgotten
        self.hand_over: HandOver = _nobody
        self.refresh: Callable[[], Awaitable[None]] = _nothing
        self.backlog: Callable[[], Awaitable[int]] = _none_waiting
        """How many events the streams still hold for the ledger."""

    async def open_blank_shards(self) -> int:
        """Rebuilds and opens every shard without an epoch; returns how many there were. One keeper at a time."""
        if not await self._books.blank():
            return 0
        live = await self.hand_over()
        async with one_keeper(self._engine):
            blank = await self._books.blank()
            await self.refresh()
            await self._until_streams_are_empty()
            taken = await drain_dead(self._spool, self._replaying.into_ledger(blank))
            # Who has settled since it was handed over is in the ledger by now, and must not be held again.
            ended = await recorded_among(self._engine, [reservation.ref for reservation in live])
            live = [reservation for reservation in live if reservation.ref not in ended]
            counters = await self._restore(blank, live)
        if counters or live or taken:
            log.warning(
                "store.rebuilt", shards=len(blank), counters=counters, under_way=len(live), handed_over=taken
            )
        return len(blank)

    async def _until_streams_are_empty(self) -> None:
        """What a closed shard still has to tell is recorded first, as far as the ledger can take it just now: its
        counters are summed up afterwards."""
        for _ in range(round(STREAMS_S / LOOK_S)):
            if not await self.backlog():
                return
            await asyncio.sleep(LOOK_S)

    async def _restore(self, blank: Collection[int], live: list[LiveReservation]) -> int:
        by_shard: defaultdict[int, list[LiveReservation]] = defaultdict(list)
        for reservation in live:
            by_shard[reservation.shard].append(reservation)
        # A shard that was put back to an older state still remembers it.
        await self._books.clear(*blank)
        epoch, counters = secrets.token_hex(8), 0
        for shard in blank:
            charged, seq = await charged_by_counter(self._engine, shard)
            counters += await self._books.restore(shard, charged, seq, epoch, by_shard[shard])
        return counters

    async def run(self) -> None:
        """Looks four times a second, for as long as the keeper lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if await self.open_blank_shards():
                    await self._forgotten()
            except StoreAway:
                continue
            except (OSError, SQLAlchemyError) as away:
                log.warning("store.cannot_be_rebuilt", fault=type(away).__name__)
                await asyncio.sleep(1.0)


async def _nobody() -> list[LiveReservation]:
    return []


async def _none_waiting() -> int:
    """At the start nobody records yet; what the streams hold is compared later."""
    return 0


async def _nothing() -> None:
    """At the start the directory and the policy are projected before anybody is served."""
