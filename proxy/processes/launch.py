"""Starting one worker process, and ending it: by its own handle, never by name."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import proxy

# All that a worker's environment may carry. What it must know, secrets above all, comes by the control channel.
_ENVIRONMENT = frozenset(
    (
        "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TERM", "NO_COLOR", "TMPDIR", "VIRTUAL_ENV",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "MALLOC_ARENA_MAX", "LD_PRELOAD",
    )
)  # fmt: skip
_ENVIRONMENT_PREFIXES = ("LC_", "PYTHON")
_POLL_S = 0.02

WorkerArgv = Callable[[int, int], Sequence[str]]


def worker_argv(index: int, control_fd: int) -> Sequence[str]:
    """The hidden verb `faregate worker`. -P: a folder named like a module in the current one must not be taken."""
    return [sys.executable, "-P", "-m", "proxy", "worker", "--control-fd", str(control_fd)]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the keeper's environment a worker gets, plus where to find the very package the keeper runs."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    home = Path(proxy.__file__).resolve().parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), str(home))))
    return kept


class WorkerProcess:
    """A started worker and the keeper's end of its control channel."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        self._process = process
        self.end = end
        self.pid = process.pid

    @classmethod
    def launch(cls, argv: WorkerArgv, index: int, environment: Mapping[str, str]) -> WorkerProcess:
        """Raises OSError where the interpreter cannot be started."""
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                argv(index, theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                # A group of its own: Ctrl-C goes to the whole group of the terminal, and would end a worker that
                # is still importing, before it can say that it leaves signals to its keeper.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def ended(self, timeout_s: float) -> bool:
        """Whether it ended within that time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.alive:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def signal(self, signum: signal.Signals) -> None:
        """Does nothing to a process that has ended: its number may be somebody else's by now."""
        self._process.send_signal(signum)

    async def end_by_force(self, term_s: float, kill_s: float = 5.0) -> bool:
        """SIGTERM, and SIGKILL after `term_s`. False: it outlived even that (it hangs in the kernel)."""
        self.signal(signal.SIGTERM)
        if await self.ended(term_s):
            return True
        self.signal(signal.SIGKILL)
        return await self.ended(kill_s)

    def how_it_ended(self) -> str:
        """For people: "exit code 1", "SIGKILL (out of memory, or somebody's kill -9)"."""
        code = self._process.poll()
        if code is None:
            return "still running"
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        return f"{name} (out of memory, or somebody's kill -9)" if name == "SIGKILL" else name
