"""Denials: refusals are counted in memory and handed on every few seconds, off the request's path.

A storm of refusals costs a dictionary's increment each, and no more memory than `KEYS_MAX` keys: beyond that
they are counted under an empty customer. What one interval counted may be lost with a killed worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.gateway.ports import DenialKey, Meters, StoreAway

FLUSH_S = 2.0
KEYS_MAX = 10_000
MESSAGE_MAX = 500


@dataclass(slots=True)
class DenialDelta:
    """So many more denials of one key, with one sample. `id` is unique, so that it is added only once."""

    id: str
    key: DenialKey
    count: int
    sample_request_id: str
    sample_message: str


class DenialSink(Protocol):
    """Where deltas go: the keeper's ledger writer takes them from there."""

    async def append(self, deltas: Sequence[DenialDelta]) -> None:
        """May raise `StoreAway`; the same deltas are then offered again."""
        ...


class DenialCounts:
    """Implements the `Denials` port."""

    def __init__(self, sink: DenialSink, new_id: Callable[[], str], meters: Meters) -> None:
        self._sink = sink
        self._new_id = new_id
        self._meters = meters
        self._counts: dict[DenialKey, DenialDelta] = {}
        self._unsent: list[DenialDelta] = []

    def count(self, key: DenialKey, request_id: str, message: str) -> None:
        delta = self._counts.get(key)
        if delta is None:
            if len(self._counts) >= KEYS_MAX:
                key = replace(key, customer_id="", agent_id="", model="")
                delta = self._counts.get(key)
            if delta is None:
                delta = DenialDelta(self._new_id(), key, 0, request_id, message[:MESSAGE_MAX])
                self._counts[key] = delta
        delta.count += 1

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Hands on what was counted. While Redis is away the deltas wait, merged no further, up to a bound."""
        self._unsent.extend(self._counts.values())
        self._counts = {}
        if len(self._unsent) > KEYS_MAX:
            self._meters.fault("denials_dropped")
            del self._unsent[:-KEYS_MAX]
        if not self._unsent:
            return
        try:
            await self._sink.append(self._unsent)
        except StoreAway:
            return
        self._unsent = []
