"""What a worker remembers of what Redis acknowledged: all of it, however far the ledger is behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.app.memory import Memory
from proxy.budgets.unrecorded import Unrecorded
from proxy.domain.policy import RateLimits
from proxy.domain.reservations import Settlement
from proxy.ledger.spool import FileSpool, read_spool, spools_in


class Record:
    """How far the ledger is, as Redis tells it."""

    def __init__(self) -> None:
        self.epoch, self.through = b"e1", 0

    async def recorded(self, shard: int) -> tuple[bytes, int]:
        return self.epoch, self.through


class NoLeases:
    def live(self) -> list[Any]:
        return []


def settlement(number: int) -> Settlement:
    return Settlement(f"req_{number}:0", "acme", 3, (), (), 0, RateLimits(), (1, 1, 1), b"{}")


@pytest.fixture
async def spools(tmp_path: Path) -> AsyncIterator[tuple[FileSpool, FileSpool]]:
    made = FileSpool(tmp_path, "worker-1"), FileSpool(tmp_path, "worker-1-acknowledged")
    yield made
    for spool in made:
        await spool.close()


def remembered(folder: Path) -> list[str]:
    return [record.settlement.ref for path in spools_in(folder) for record in read_spool(path).records]


async def test_what_there_is_no_room_for_waits_on_disk_until_the_ledger_has_it(
    spools: tuple[FileSpool, FileSpool], tmp_path: Path
) -> None:
    """An hour without a database must not make a worker forget, nor fill its memory."""
    unrecorded, record = Unrecorded(most=2), Record()
    memory = Memory(unrecorded, record, None, *spools, NoLeases())  # type: ignore[arg-type]
    for number in range(1, 6):
        unrecorded.keep(b"e1", number, settlement(number), "settle")
    await memory._look()
    assert len(unrecorded) == 2
    assert len(list(tmp_path.glob("*acknowledged*"))) == 1
    record.through = 5
    await memory._look()
    assert len(unrecorded) == 0
    assert list(tmp_path.glob("*acknowledged*")) == []


async def test_everything_is_handed_over_when_redis_has_lost_it(
    spools: tuple[FileSpool, FileSpool], tmp_path: Path
) -> None:
    unrecorded, record = Unrecorded(most=2), Record()
    memory = Memory(unrecorded, record, None, *spools, NoLeases())  # type: ignore[arg-type]
    for number in range(1, 6):
        unrecorded.keep(b"e1", number, settlement(number), "settle")
    await memory._look()
    unrecorded.keep(b"e1", 6, settlement(6), "settle")
    assert await memory.hand_over() == []
    assert sorted(remembered(tmp_path)) == [f"req_{n}:0" for n in range(1, 7)]


async def test_what_an_earlier_epoch_took_is_left_to_the_keeper(
    spools: tuple[FileSpool, FileSpool], tmp_path: Path
) -> None:
    unrecorded, record = Unrecorded(most=1), Record()
    memory = Memory(unrecorded, record, None, *spools, NoLeases())  # type: ignore[arg-type]
    for number in (1, 2):
        unrecorded.keep(b"e1", number, settlement(number), "settle")
    await memory._look()
    record.epoch = b"e2"
    await memory._look()
    await spools[0].hand_over()
    assert sorted(remembered(tmp_path)) == ["req_1:0", "req_2:0"]
