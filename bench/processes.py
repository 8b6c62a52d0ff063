"""Processes of a benchmark: started, waited for, ended by their own ids; and the CPU time that each has used.

The figures are the kernel's own: the CPU clock of the process, all its threads together, in nanoseconds, which
any process may read of any other on Linux.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0

# linux/posix-timers.h: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
_CPUCLOCK_SCHED = 2


def cpu_us(pid: int) -> float:
    """Microseconds of CPU that the process has used so far, in user and in kernel mode."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1000


def memory_mb(pid: int) -> float:
    """Resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def descendants(pid: int) -> dict[int, str]:
    """The process's children and theirs, with their command lines."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    found: dict[int, str] = {}
    generation = {pid}
    while generation := {child for child, parent in parents.items() if parent in generation}:
        found |= {child: commands[child] for child in generation if child in commands}
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def module(name: str, *arguments: object) -> list[str]:
    """The command line of one of our own modules."""
    return [sys.executable, "-m", name, *map(str, arguments)]


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """The process while the block lasts. What it says goes to `log`."""
    with log.open("ab") as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until somebody listens; RuntimeError with the log if the process ends first or takes too long."""
    deadline_s = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"What should listen on port {port} did not start:\n{log.read_text()[-2000:]}")
