"""The spool: where settlements wait, on disk, while Redis is away.

Each worker's spool is a series of files `<worker>.<number>.spool` in one directory. Whoever writes a file holds
its lock, so that an unlocked file is a dead worker's, and the keeper's to replay. A file is removed when all of
it is acknowledged; if something in it is damaged, it is renamed to `.damaged` and kept.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import structlog

from proxy.domain.reservations import Settlement
from proxy.ledger.spool_records import Damage, SpoolRecord, Verb, framed, unframed

log = structlog.get_logger(__name__)

LINES_SHOWN = 5

# Applies one settlement; False if it must be offered again later (a closed shard). Raises `StoreAway`.
Replay = Callable[[Settlement, Verb], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class SpoolContent:
    """What a spool file holds: its records in order, and what is damaged in it."""

    records: Sequence[SpoolRecord]
    damage: Sequence[Damage]


class FileSpool:
    """Implements `Spool` for one worker. No file is created before there is something to keep."""

    def __init__(self, directory: Path, worker_name: str) -> None:
        self._directory, self._worker_name = directory, worker_name
        # One thread: writes stay in order, and while it syncs one batch the next one gathers.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._gathering: list[bytes] = []
        self._next_batch: asyncio.Future[None] | None = None
        self._gate = threading.Lock()
        self._file: _SpoolFile | None = None
        self._finished: list[_SpoolFile] = []
        self._draining = asyncio.Lock()

    async def keep(self, settlement: Settlement, verb: Verb) -> None:
        """Returns once the settlement is on disk; OSError if it cannot be written.

        Whoever comes while a sync is going on shares the next one. The record of a caller that is cancelled is
        kept all the same: what was carried must be settled.
        """
        record = framed(settlement, verb)
        with self._gate:
            self._gathering.append(record)
            if self._next_batch is None:
                loop = asyncio.get_running_loop()
                self._next_batch = loop.run_in_executor(self._thread, self._write_gathered)
            batch = self._next_batch
        await asyncio.shield(batch)

    async def drain(self, replay: Replay) -> int:
        """Replays what was kept so far; returns how many settlements were acknowledged. Raises what `replay` does.

        What is kept meanwhile goes into the next file. A file of which something was not acknowledged stays, and
        is replayed whole the next time: by its reference Redis knows what was done already.
        """
        loop, total = asyncio.get_running_loop(), 0
        async with self._draining:
            await loop.run_in_executor(self._thread, self._finish_file)
            for file in list(self._finished):
                acknowledged, whole = await _replayed(file.path, replay)
                total += acknowledged
                if whole:
                    self._finished.remove(file)
                    await loop.run_in_executor(self._thread, file.close)
        return total

    async def hand_over(self) -> None:
        """Lets go of everything kept so far: unlocked, the files are for whoever drains the directory."""
        async with self._draining:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._finish_file)
            while self._finished:
                await asyncio.to_thread(self._finished.pop().close)

    async def close(self) -> None:
        """Lets go of the files; what is left in them is for whoever drains the directory."""
        await asyncio.to_thread(self._thread.shutdown)
        for file in (*self._finished, *([self._file] if self._file else [])):
            file.close()

    def _write_gathered(self) -> None:
        with self._gate:
            batch, self._gathering, self._next_batch = self._gathering, [], None
        if self._file is None:
            self._file = _SpoolFile.create(self._directory, self._worker_name)
        try:
            self._file.append(b"".join(batch))
        except OSError:
            # After a failed write or sync nobody knows what the file holds beyond its last good end.
            self._finish_file()
            raise

    def _finish_file(self) -> None:
        if self._file is not None:
            self._finished.append(self._file)
            self._file = None


def spools_in(directory: Path) -> list[Path]:
    """The spool files that nobody writes: those of dead workers, oldest first."""
    return [path for path in sorted(directory.glob("*.spool")) if not _is_locked(path)]


class SpoolDamaged(Exception):
    """A spool file holds what is no settlement; the message says where, and how to go on."""


def check_spools(directory: Path) -> None:
    """Before a start: raises `SpoolDamaged` for the first file of a dead worker that cannot be read whole.

    What a damaged line settled was bought, so that somebody should know of it before anything else is spent. A
    torn last line is what a crash leaves: its write was never acknowledged.
    """
    for path in spools_in(directory):
        content = path.read_bytes()
        inner = [item for item in unframed(content) if isinstance(item, Damage) and not item.torn]
        if inner:
            lines = ", ".join(str(content.count(b"\n", 0, damage.offset) + 1) for damage in inner[:LINES_SHOWN])
            more = f" and {len(inner) - LINES_SHOWN} more" if len(inner) > LINES_SHOWN else ""
            raise SpoolDamaged(
                f"The spool file {path} is damaged: line {lines}{more} is no settlement that this version wrote."
                " Keep a copy of it and delete these lines, or move the file out of the folder: an attempt that is"
                " settled by none of its other lines is then charged by estimate, as orphaned."
            )


async def drain_dead(directory: Path, replay: Replay) -> int:
    """Replays the spools of dead workers; returns how many settlements were acknowledged."""
    total = 0
    for path in await asyncio.to_thread(spools_in, directory):
        file = await asyncio.to_thread(_SpoolFile.adopt, path)
        if file is not None:
            try:
                total += (await _replayed(path, replay))[0]
            finally:
                file.close()
    return total


def read_spool(path: Path) -> SpoolContent:
    """Everything that can be read of a spool file. A torn end is a write that was never acknowledged."""
    found = list(unframed(path.read_bytes()))
    return SpoolContent(
        [item for item in found if isinstance(item, SpoolRecord)],
        [item for item in found if isinstance(item, Damage)],
    )


async def _replayed(path: Path, replay: Replay) -> tuple[int, bool]:
    """Replays a file; if every record was acknowledged it is removed, or set aside if it is damaged."""
    content = await asyncio.to_thread(read_spool, path)
    acknowledged = 0
    for record in content.records:
        acknowledged += await replay(record.settlement, record.verb)
    if acknowledged < len(content.records):
        return acknowledged, False
    inner = [damage for damage in content.damage if not damage.torn]
    for damage in inner:
        log.error("spool_damaged", file=path.name, offset=damage.offset, length=damage.length)
    await asyncio.to_thread(_dispose, path, damaged=bool(inner))
    return acknowledged, True


def _dispose(path: Path, *, damaged: bool) -> None:
    if damaged:
        path.rename(path.with_suffix(".damaged"))
    else:
        path.unlink()


class _SpoolFile:
    """One file, held by its lock until it is closed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor, self._end = path, descriptor, 0

    @classmethod
    def create(cls, directory: Path, worker_name: str) -> _SpoolFile:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in count(1):
            path = directory / f"{worker_name}.{number:06d}.spool"
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            # In between, somebody who looks for dead workers' files may have taken this one, and removed it.
            if _lock(descriptor) and _is_still(path, descriptor):
                _sync_directory(directory)
                return cls(path, descriptor)
            os.close(descriptor)
        raise AssertionError("numbers do not end")

    @classmethod
    def adopt(cls, path: Path) -> _SpoolFile | None:
        """A dead worker's file; None if it is alive after all, or somebody else has it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if _lock(descriptor) and _is_still(path, descriptor):
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    def append(self, content: bytes) -> None:
        """Writes and syncs all of it, or takes back what was written and raises."""
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(content)

    def close(self) -> None:
        os.close(self._descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
