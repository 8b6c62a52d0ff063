from __future__ import annotations

import asyncio
import errno
import os
import sys

import pytest

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Settlement
from proxy.gateway.ports import StoreAway
from proxy.ledger import spool
from proxy.ledger.spool import FileSpool, SpoolDamaged, check_spools, drain_dead, read_spool, spools_in

COUNTERS = (
    Counter("acme:monthly", Budget("monthly", "tokens", 10, models=frozenset({"b", "a"})), 5, 9),
    Counter("acme:life", Budget("life", "cost_usd", 10, "lifetime", "agent"), 0, None),
)


def settlement(n: int) -> Settlement:
    event = f'{{"request_id":"req_{n}","step":"zwei\\nZeilen ü"}}'.encode()
    return Settlement(
        f"req_{n}:1", "acme", 3, COUNTERS, (43, 18), 43, RateLimits(1, None, 2), (19, 24, 17_250_000), event
    )


class Redis:
    """Whoever applies settlements: knows by reference what was done, and may be away or closed."""

    def __init__(self) -> None:
        self.done, self.away_after, self.closed = [], None, set()

    async def __call__(self, settlement, verb):
        if self.away_after is not None and len(self.done) >= self.away_after:
            raise StoreAway
        if settlement.ref in self.closed:
            return False
        self.done.append((settlement.ref, verb))
        return True


async def test_what_was_kept_is_replayed_as_it_was(tmp_path) -> None:
    """The settlement of a carried call is money; it must survive the outage in every field."""
    kept = FileSpool(tmp_path / "spool", "worker-1")
    await kept.keep(settlement(1), "settle")
    await kept.keep(settlement(2), "release")
    (path,) = (tmp_path / "spool").iterdir()
    records = read_spool(path).records
    assert [(record.settlement, record.verb) for record in records] == [
        (settlement(1), "settle"),
        (settlement(2), "release"),
    ]
    redis = Redis()
    assert await kept.drain(redis) == 2
    assert redis.done == [("req_1:1", "settle"), ("req_2:1", "release")]
    assert list((tmp_path / "spool").iterdir()) == []
    assert await kept.drain(redis) == 0
    await kept.close()


async def test_many_keeps_share_few_syncs_and_none_is_lost(tmp_path, monkeypatch) -> None:
    """When Redis fails, every request in flight settles at once; one sync each would take seconds."""
    syncs, real = [], os.fsync
    monkeypatch.setattr(spool.os, "fsync", lambda descriptor: (syncs.append(descriptor), real(descriptor)))
    kept = FileSpool(tmp_path, "worker-1")
    await asyncio.gather(*(kept.keep(settlement(n), "settle") for n in range(500)))
    (path,) = tmp_path.iterdir()
    assert sorted(record.settlement.ref for record in read_spool(path).records) == sorted(
        f"req_{n}:1" for n in range(500)
    )
    assert len(syncs) < 50
    await kept.close()


async def test_a_file_goes_only_when_all_of_it_is_acknowledged(tmp_path) -> None:
    """Redis may go away again in the middle of a replay, or a shard may still be closed."""
    kept, redis = FileSpool(tmp_path, "worker-1"), Redis()
    for n in range(4):
        await kept.keep(settlement(n), "settle")
    redis.away_after = 2
    with pytest.raises(StoreAway):
        await kept.drain(redis)
    redis.away_after, redis.closed = None, {"req_3:1"}
    await kept.drain(redis)
    await kept.keep(settlement(9), "settle")
    assert len(list(tmp_path.iterdir())) == 2
    redis.closed = set()
    await kept.drain(redis)
    assert list(tmp_path.iterdir()) == []
    assert {ref for ref, _ in redis.done} == {"req_0:1", "req_1:1", "req_2:1", "req_3:1", "req_9:1"}
    await kept.close()


def test_a_torn_end_is_recognised_wherever_it_is_torn(tmp_path) -> None:
    """A crash may cut the last write at any byte; what was acknowledged before it must be read."""
    path = tmp_path / "w.000001.spool"
    first, second = spool.framed(settlement(1), "settle"), spool.framed(settlement(2), "settle")
    for cut in range(1, len(second) - 1):
        path.write_bytes(first + second[:cut])
        content = read_spool(path)
        assert [record.settlement.ref for record in content.records] == ["req_1:1"]
        assert [damage.torn for damage in content.damage] == [True]


def test_garbage_in_the_middle_hides_no_later_record(tmp_path) -> None:
    """One flipped bit on a disk must cost one record, not the file."""
    path = tmp_path / "w.000001.spool"
    lines = [spool.framed(settlement(n), "settle") for n in range(4)]
    flipped = bytearray(lines[1])
    flipped[60] ^= 1
    path.write_bytes(lines[0] + bytes(flipped) + b"\0\xff\n\n" + lines[2] + lines[3])
    content = read_spool(path)
    assert [record.settlement.ref for record in content.records] == ["req_0:1", "req_2:1", "req_3:1"]
    assert content.damage[0].offset == len(lines[0])
    assert not any(damage.torn for damage in content.damage)


async def test_a_damaged_file_is_kept_for_a_person(tmp_path) -> None:
    """What could not be read was somebody's usage; it is not thrown away."""
    line = spool.framed(settlement(1), "settle")
    (tmp_path / "w.000001.spool").write_bytes(b"garbage\n" + line)
    redis = Redis()
    assert await drain_dead(tmp_path, redis) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w.000001.damaged"]


async def test_the_spool_of_a_killed_worker_is_found_and_a_live_one_left_alone(tmp_path) -> None:
    """After `kill -9` the keeper replays what the worker kept, and never what a live worker still writes."""
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom proxy.ledger.spool import FileSpool\n"
        "from proxy.ledger.spool_records import unframed\n"
        "async def main():\n"
        "    (record,) = unframed(bytes.fromhex(sys.argv[2]))\n"
        "    await FileSpool(Path(sys.argv[1]), 'worker-1').keep(record.settlement, 'settle')\n"
        "    print('kept', flush=True)\n    await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    line, redis = spool.framed(settlement(1), "settle").hex(), Redis()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), line, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    try:
        assert await asyncio.wait_for(worker.stdout.readline(), 20) == b"kept\n"
        assert spools_in(tmp_path) == []
        assert await drain_dead(tmp_path, redis) == 0
    finally:
        worker.kill()
        await worker.wait()
    assert len(spools_in(tmp_path)) == 1
    assert await drain_dead(tmp_path, redis) == 1
    assert (redis.done, list(tmp_path.iterdir())) == ([("req_1:1", "settle")], [])


async def test_a_failed_write_is_said_and_spoils_nothing(tmp_path, monkeypatch) -> None:
    """A full disk: the caller must know, and what is kept afterwards must be readable."""
    kept, real = FileSpool(tmp_path, "worker-1"), os.fsync
    await kept.keep(settlement(1), "settle")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(spool.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        await kept.keep(settlement(2), "settle")
    monkeypatch.setattr(spool.os, "fsync", real)
    await kept.keep(settlement(3), "settle")
    redis = Redis()
    await kept.drain(redis)
    assert redis.done == [("req_1:1", "settle"), ("req_3:1", "settle")]
    await kept.close()


async def test_a_cancelled_caller_leaves_its_settlement_kept(tmp_path) -> None:
    """A client that leaves cancels its request, never its bill."""
    kept = FileSpool(tmp_path, "worker-1")
    keeping = asyncio.create_task(kept.keep(settlement(1), "settle"))
    await asyncio.sleep(0)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    redis = Redis()
    assert await kept.drain(redis) == 1
    await kept.close()


async def test_a_start_finds_damaged_lines_of_dead_workers_and_names_them(tmp_path) -> None:
    """Somebody must know of a settlement that cannot be read, before anything else is spent."""
    folder = tmp_path / "spool"
    check_spools(folder)
    kept = FileSpool(folder, "worker-1")
    await kept.keep(settlement(1), "settle")
    await kept.keep(settlement(2), "settle")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(b"garbage\n" + whole)
    check_spools(folder)
    await kept.close()
    with pytest.raises(SpoolDamaged, match=r"worker-1\.000001\.spool is damaged: line 1 is no settlement"):
        check_spools(folder)
    first, second = whole.splitlines(keepends=True)
    path.write_bytes(first + b"garbage\n" * 7 + second)
    with pytest.raises(SpoolDamaged, match=r"line 2, 3, 4, 5, 6 and 2 more is no settlement"):
        check_spools(folder)
    path.write_bytes(whole + second[:-20])
    check_spools(folder)
    redis = Redis()
    assert await drain_dead(folder, redis) == 2
