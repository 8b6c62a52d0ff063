"""What Redis has acknowledged and the ledger may not have yet: kept, so that losing Redis loses no settlement.

Events are deleted from a shard's stream only once they are recorded, so whatever lies before the oldest entry of
the stream is in the ledger, and may be forgotten here.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Literal

from proxy.domain.reservations import Settlement

# About 2 KB each. Beyond it the oldest overflow, to be kept on disk.
MOST = 20_000

Verb = Literal["settle", "release"]


@dataclass(slots=True)
class Acknowledged:
    """A settlement that Redis took under an epoch, as the shard's `seq`-th."""

    epoch: bytes
    seq: int
    settlement: Settlement
    verb: Verb


class Unrecorded:
    """The acknowledged settlements of one process, by shard, in order."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_shard: defaultdict[int, deque[Acknowledged]] = defaultdict(deque)
        self._count = 0
        self._overflow: list[Acknowledged] = []

    def __len__(self) -> int:
        return self._count

    def keep(self, epoch: bytes, seq: int, settlement: Settlement, verb: Verb) -> None:
        if self._count >= self._most:
            oldest = next(entries for entries in self._by_shard.values() if entries)
            self._overflow.append(oldest.popleft())
            self._count -= 1
        self._by_shard[settlement.shard].append(Acknowledged(epoch, seq, settlement, verb))
        self._count += 1

    def take_overflow(self) -> list[Acknowledged]:
        """The oldest, which there was no room for any more; forgotten here."""
        overflow, self._overflow = self._overflow, []
        return overflow

    def shards(self) -> list[int]:
        return [shard for shard, entries in self._by_shard.items() if entries]

    def recorded(self, shard: int, epoch: bytes, through: int) -> list[Acknowledged]:
        """Forgets what the ledger has of this epoch; returns, and forgets, what an earlier epoch acknowledged:
        the shard that took it is no more."""
        entries = self._by_shard[shard]
        homeless: list[Acknowledged] = []
        while entries and (entries[0].epoch != epoch or entries[0].seq <= through):
            entry = entries.popleft()
            self._count -= 1
            if entry.epoch != epoch:
                homeless.append(entry)
        return homeless

    def take_all(self) -> list[Acknowledged]:
        """Everything, in order, and forgotten here: for whoever rebuilds the shards."""
        taken = self.take_overflow() + [entry for entries in self._by_shard.values() for entry in entries]
        self._by_shard.clear()
        self._count = 0
        return taken
