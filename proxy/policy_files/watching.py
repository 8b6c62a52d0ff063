"""Notices edited policy files within a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from watchfiles import awatch

from proxy.policy_files.reading import policy_paths

# An editor writes a file in several steps: wait until nothing has happened for STEP_MS, DEBOUNCE_MS at most.
STEP_MS = 50
DEBOUNCE_MS = 200
# Where the system does not tell (some mounts, a directory that was swapped whole), looking helps.
LOOK_MS = 500

Print = dict[str, tuple[int, int, int]]


async def watch(directory: Path, on_change: Callable[[], Awaitable[None]]) -> None:
    """Calls `on_change` after models.toml or a plan was changed, added or removed. Runs until cancelled.

    It is also called once at the start, for what was changed while the gate was starting. `on_change` reads the
    directory anew: whole or not at all, since a fault in any file refuses all of them. It must not raise. A
    change during the call leads to the next one.
    """
    seen: Print | None = None
    async for _ in _moments(directory):
        now = _print(directory)
        if now != seen:
            seen = now
            await on_change()


async def _moments(directory: Path) -> AsyncIterator[None]:
    """When it is worth looking: on every event below the directory, and now and then."""
    yield
    while True:
        try:
            async for _ in awatch(
                directory, step=STEP_MS, debounce=DEBOUNCE_MS, rust_timeout=LOOK_MS, yield_on_timeout=True
            ):
                yield
        except (OSError, RuntimeError):  # The directory is away, or the system has no watches left.
            await asyncio.sleep(LOOK_MS / 1000)
            yield


def _print(directory: Path) -> Print:
    """What tells one state of the files from another. A replaced file has another inode."""
    marks = {}
    for path in policy_paths(directory):
        try:
            known = path.stat()
        except OSError:
            continue
        marks[str(path)] = (known.st_mtime_ns, known.st_size, known.st_ino)
    return marks
