"""The embedded store: a real Valkey that the keeper starts, adopts and guards.

Whoever holds the lock file owns the append-only file. The lock's descriptor is inherited by the server and
closed here, so the lock lives exactly as long as the server does, however its keeper ended: a free lock
means that no server is left, a held one that a survivor is to be adopted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import structlog
from redis.exceptions import BusyLoadingError, RedisError

from proxy.budgets import store_binary
from proxy.budgets.store_binary import EmbeddedStoreFault
from proxy.budgets.store_client import connect
from proxy.gateway.ports import StoreAway

log = structlog.get_logger(__name__)

Fsync = Literal["everysec", "always"]

# A unix socket's path has room for 104 bytes on macOS and 108 on Linux, the closing zero included.
SOCKET_PATH_BYTES_MAX = 100

ANSWER_DEADLINE_S = 10.0
LOADING_DEADLINE_S = 300.0
CALL_DEADLINE_S = 1.0
SHUTDOWN_DEADLINE_S = 10.0
SIGNAL_DEADLINE_S = 5.0
POLL_S = 0.02
WATCH_S = 0.1
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
STEADY_S = 10.0
LOG_TAIL_BYTES = 2000


class EmbeddedStore:
    """One Valkey on `<data_dir>/store`: its append-only file, socket, lock and log lie in there (mode 0700).

    `fsync` is Valkey's `appendfsync`: "everysec" may lose a second at power loss, "always" nothing.
    """

    def __init__(self, data_dir: Path, fsync: Fsync) -> None:
        self.folder = data_dir.absolute() / "store"
        self.log_file = self.folder / "valkey.log"
        self.fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Known from `start` on."""
        return "unix://" + quote(str(self._socket()))

    @property
    def running(self) -> bool:
        """Whether a server holds the append-only file, ours or a survivor's."""
        if self._process is not None and self._process.poll() is None:
            return True
        if not (self.folder / "lock").exists():
            return False
        lock = self._take_lock()
        if lock is None:
            return True
        os.close(lock)
        return False

    async def start(self) -> str:
        """Starts a server, or adopts the one that runs; returns its URL once it answers.

        Raises `EmbeddedStoreFault`.
        """
        async with self._turn:
            self._stopping = False
            await self._bring_up()
        return self.url

    async def guard(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """Starts the server again whenever it is gone, until `stop`; `on_restart` is awaited each time."""
        backoff_s = BACKOFF_MIN_S
        up_since_s = _now_s()
        while not self._stopping:
            await asyncio.sleep(WATCH_S)
            if self._stopping or self.running:
                continue
            if _now_s() - up_since_s > STEADY_S:
                backoff_s = BACKOFF_MIN_S
            if await self._restart():
                up_since_s = _now_s()
                try:
                    await on_restart()
                except StoreAway as fault:
                    log.error("the embedded store has gone again", fault=str(fault))
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def stop(self) -> None:
        """Ends the server, an adopted one too: by asking, then by SIGTERM, then by SIGKILL.

        Raises `EmbeddedStoreFault` if it outlives all three.
        """
        self._stopping = True
        async with self._turn:
            if not self.running:
                return
            # Whether it has shut down is seen by its lock, whatever it answered.
            with contextlib.suppress(RedisError, OSError):
                async with connect(self.url, CALL_DEADLINE_S) as client:
                    await client.shutdown()
            if not await self._ended_within(SHUTDOWN_DEADLINE_S):
                await self._end_by_signal()
            self._forget_socket()

    async def _end_by_signal(self) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            pid = self._pid()
            log.warning("the embedded store does not shut down", pid=pid, sending=sent.name)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sent)
            if await self._ended_within(SIGNAL_DEADLINE_S):
                return
        raise EmbeddedStoreFault(f"The embedded store (process {self._pid()}) cannot be ended.")

    async def _restart(self) -> bool:
        log.error("the embedded store has ended and is started again", log_file=str(self.log_file))
        async with self._turn:
            if self._stopping:
                return False
            try:
                await self._bring_up()
            except EmbeddedStoreFault as fault:
                log.error("the embedded store does not start", fault=str(fault))
                return False
        return True

    async def _bring_up(self) -> None:
        try:
            self._make_folder()
            await self._spawn_or_adopt()
            async with connect(self.url, CALL_DEADLINE_S) as client:
                # A survivor runs with what its own keeper was told.
                await client.config_set("appendfsync", self.fsync)
        except (OSError, RedisError, subprocess.SubprocessError) as fault:
            raise EmbeddedStoreFault(
                f"The embedded store cannot work in {self.folder}: {fault}. Let the user of this process write"
                " there (on a local disk), or set data.dir to another folder."
            ) from fault

    async def _spawn_or_adopt(self) -> None:
        """Until a server answers: takes the lock and spawns if it is free, else waits for its holder."""
        began_s = _now_s()
        spawned: subprocess.Popen[bytes] | None = None
        while True:
            if spawned is not None and spawned.poll() is not None:
                raise EmbeddedStoreFault(
                    f"The embedded store ended with status {spawned.returncode} while starting.{self._log_tail()}"
                )
            if spawned is None and (lock := self._take_lock()) is not None:
                spawned = self._process = await self._spawn_holding(lock)
            answer = await self._answer()
            if answer == "ready":
                return
            if _now_s() - began_s > (LOADING_DEADLINE_S if answer == "loading" else ANSWER_DEADLINE_S):
                raise EmbeddedStoreFault(
                    f"The embedded store (process {self._pid()}) holds {self.folder / 'lock'} but does not answer"
                    f" at {self._socket()}. End that process, then start again.{self._log_tail()}"
                )
            await asyncio.sleep(POLL_S)

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # The socket has no password: whoever may enter this folder may spend every budget.
        self.folder.chmod(0o700)

    def _take_lock(self) -> int | None:
        """A descriptor that holds the lock; None while a server (or another starter) has it."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(lock)
            if isinstance(fault, BlockingIOError):
                return None
            raise
        return lock

    async def _spawn_holding(self, lock: int) -> subprocess.Popen[bytes]:
        """Starts a server that inherits `lock`; our own copy is closed, started or not."""
        try:
            binary = await store_binary.find()
            await self._reap()
            self._place_socket()
            # A file left by an earlier server must not name a process that is somebody else's by now.
            (self.folder / "valkey.pid").unlink(missing_ok=True)
            return self._spawn(binary, lock)
        finally:
            os.close(lock)

    async def _reap(self) -> None:
        """Takes leave of our last server: it lets go of the lock a moment before it can be waited for."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, SIGNAL_DEADLINE_S)

    def _spawn(self, binary: Path, lock: int) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket()),
            "unixsocketperm": "700",
            "dir": ".",
            "logfile": self.log_file.name,
            "loglevel": "warning",
            "pidfile": "valkey.pid",
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "aof-load-truncated": "yes",
            "save": "",
            "stop-writes-on-bgsave-error": "no",
            "maxmemory-policy": "noeviction",
        }
        with self.log_file.open("ab") as output:
            return subprocess.Popen(
                [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))],
                cwd=self.folder,
                # The gate's secrets are no business of the store's.
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                umask=0o077,
                # Ctrl-C goes to a whole process group, and the store must outlive the last settle.
                start_new_session=True,
            )

    def _socket(self) -> Path:
        """Where the socket is: in the folder, or in the short place that the last start has remembered."""
        plain = self.folder / "valkey.sock"
        if len(os.fsencode(plain)) <= SOCKET_PATH_BYTES_MAX:
            return plain
        with contextlib.suppress(FileNotFoundError):
            return Path((self.folder / "socket").read_text())
        return plain

    def _place_socket(self) -> None:
        """Where the folder's path is too long for a socket: a private folder in a short place, remembered."""
        socket = self._socket()
        fits = len(os.fsencode(socket)) <= SOCKET_PATH_BYTES_MAX
        if fits and (socket.parent == self.folder or _is_private(socket.parent)):
            return
        short = Path(tempfile.mkdtemp(prefix="faregate-")) / "s"
        draft = self.folder / "socket.new"
        draft.write_text(str(short))
        draft.replace(self.folder / "socket")

    def _forget_socket(self) -> None:
        """Clears the short place away, unless somebody has started the next server by now."""
        lock = self._take_lock()
        if lock is None:
            return
        try:
            socket = self._socket()
            if socket.parent != self.folder:
                socket.unlink(missing_ok=True)
                socket.parent.rmdir()
                (self.folder / "socket").unlink()
        finally:
            os.close(lock)

    async def _answer(self) -> Literal["ready", "loading", "silent"]:
        if not self._socket().exists():
            return "silent"
        try:
            async with connect(self.url, CALL_DEADLINE_S) as client:
                await client.ping()
        except BusyLoadingError:
            return "loading"
        except (RedisError, OSError):
            return "silent"
        return "ready"

    async def _ended_within(self, deadline_s: float) -> bool:
        ends_s = _now_s() + deadline_s
        while self.running:
            if _now_s() > ends_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _pid(self) -> int | None:
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.folder / "valkey.pid").read_text())
        return None

    def _log_tail(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            tail = self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            return f" The end of its log, {self.log_file}:\n{tail}"
        return f" It has written no log ({self.log_file})."


def _is_private(folder: Path) -> bool:
    """Whether `folder` is there, is ours, and is closed to everybody else."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _now_s() -> float:
    return asyncio.get_running_loop().time()
