"""Real keepers over real, tiny workers. Every process that a test starts is ended with it, by its number."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).with_name("programs")
DEADLINE_S = 15.0
SECRET = "tiny-secret-8fK2pQ"


class Connection:
    """A connection to some worker; open, it counts as a request in flight."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, what: str = "who") -> dict[str, Any]:
        self._writer.write(what.encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            return dict(json.loads(await self._reader.readline()))

    def close(self) -> None:
        self._writer.close()


class KeeperProcess:
    """A keeper with what it says. `settings` are those of `tiny_keeper.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pids: list[int] = []
        self.port = 0
        self.log = ""
        self.connections: list[Connection] = []

    async def hear(self, key: str) -> dict[str, Any]:
        """The next thing it says that has this key."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.process.stdout.readline():
                told = dict(json.loads(line))
                if key in told:
                    return told
        raise AssertionError(f"The keeper ended without saying {key!r}:\n{await self.read_log()}")

    async def serving(self) -> KeeperProcess:
        told = await self.hear("port")
        self.port, self.pids = told["port"], told["pids"]
        return self

    async def connect(self) -> Connection:
        self.connections.append(Connection(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.connections[-1]

    async def who(self) -> dict[str, Any]:
        connection = await self.connect()
        try:
            return await connection.ask()
        finally:
            connection.close()

    async def ended(self) -> int:
        # Not `wait`: that waits for the pipes too, which workers that outlive their keeper hold.
        await until(lambda: self.process.returncode is not None, "the keeper has ended")
        assert self.process.returncode is not None
        return self.process.returncode

    async def read_log(self) -> str:
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            self.log += (await self.process.stderr.read()).decode()
        return self.log

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Waits for a condition, looking again every few milliseconds; fails saying `what` did not come."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                holds = condition()
                if (holds if isinstance(holds, bool) else await holds) is True:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"In {DEADLINE_S:g} s it did not come to this: {what}") from None


def is_alive(pid: int) -> bool:
    """A process that has ended and is not yet reaped counts as ended."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture(name="is_alive")
def is_alive_fixture() -> Callable[[int], bool]:
    return is_alive


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture
async def start_keeper(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[KeeperProcess]]]:
    """Starts `tiny_keeper.py`; settings not given are those of a patient keeper of one worker."""
    started: list[KeeperProcess] = []

    async def start(**changed: Any) -> KeeperProcess:
        settings = {
            "data_dir": str(tmp_path / "var"),
            "port": 0,
            "count": 1,
            "behaviour": "serves",
            "secret": SECRET,
            "drain_s": 10,
            "patience_s": 3,
            "ready_within_s": 10,
            **changed,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAMS / "tiny_keeper.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TINY_PROVIDER_KEY": SECRET, "FAREGATE_SECRET_PEPPER": SECRET},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        await process.stdin.drain()
        started.append(KeeperProcess(process))
        return started[-1]

    yield start
    for keeper in started:
        for connection in keeper.connections:
            connection.close()
        with contextlib.suppress(ProcessLookupError):
            keeper.process.kill()
        for pid in keeper.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # What pipes hold is read to the end, so that their transports close in this loop.
        assert keeper.process.stdout is not None
        await keeper.process.stdout.read()
        await keeper.read_log()
        await keeper.process.wait()
