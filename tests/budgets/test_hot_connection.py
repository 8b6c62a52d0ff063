"""The hot connection when Redis does not do what it should: every wait ends, and Redis back is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from books import KEYS, Books, counter, reservation, settlement
from redis.asyncio import Redis

from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.scripts import StoreRefused
from proxy.domain.reservations import Finished
from proxy.gateway.ports import StoreAway

REFUSED_WITHIN_S = 0.3


class Mediator:
    """A unix socket before the real one, which can keep requests or replies to itself."""

    def __init__(self, folder: Path, target: str) -> None:
        self.path = folder / "m"
        self.url = f"unix://{self.path}"
        self.target = target.removeprefix("unix://")
        self.requests_pass = self.replies_pass = True
        self.writers: list[asyncio.StreamWriter] = []
        self.carriers: list[asyncio.Task[None]] = []

    async def carry(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far, far_writer = await asyncio.open_unix_connection(self.target)
        self.writers += [near_writer, far_writer]

        async def copy(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[], bool]
        ) -> None:
            while data := await source.read(65536):
                if passes():
                    sink.write(data)
            sink.close()

        self.carriers += [
            asyncio.create_task(_copy(near, far_writer, lambda: self.requests_pass)),
            asyncio.create_task(_copy(far, near_writer, lambda: self.replies_pass)),
        ]

    def cut(self) -> None:
        for writer in self.writers:
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[], bool]) -> None:
    while data := await source.read(65536):
        if passes():
            sink.write(data)
    sink.close()


@asynccontextmanager
async def mediated(folder: Path, target: str) -> AsyncIterator[tuple[Mediator, HotConnection]]:
    mediator = Mediator(folder, target)
    server = await asyncio.start_unix_server(mediator.carry, mediator.path)
    connection = HotConnection(mediator.url)
    await connection.start()
    try:
        yield mediator, connection
    finally:
        await connection.close()
        server.close()
        mediator.cut()
        await asyncio.gather(*mediator.carriers, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in mediator.writers), return_exceptions=True)


async def until_it_serves(connection: HotConnection) -> None:
    async with asyncio.timeout(5):
        while not connection.connected:
            await asyncio.sleep(0.005)
        assert await connection.send(("PING",)) == b"PONG"


@pytest.fixture
def folder(shared_valkey: Any) -> AsyncIterator[Path]:
    path = shared_valkey.folder
    yield path
    (path / "m").unlink(missing_ok=True)


async def test_commands_of_one_turn_go_out_in_one_write_and_come_back_in_order(
    connection: HotConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write for each would cost a system call each, which is most of what a call costs."""
    writes: list[bytes] = []
    transport = connection._transport
    monkeypatch.setattr(connection, "_transport", Recorder(transport, writes))
    replies = await asyncio.gather(*(connection.send(("ECHO", n)) for n in range(100)))
    assert [int(reply) for reply in replies] == list(range(100))
    assert len(writes) == 1
    monkeypatch.undo()


class Recorder:
    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self.transport, self.writes = transport, writes

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.transport.write(data)


async def test_an_error_is_the_reply_of_its_own_command_only(connection: HotConnection) -> None:
    """One caller's mistake must not fail those that happen to share the write."""
    wrong, right = connection.send(("NO-SUCH-COMMAND",)), connection.send(("PING",))
    with pytest.raises(StoreRefused, match="unknown command"):
        await wrong
    assert await right == b"PONG"


async def test_a_caller_that_gave_up_does_not_shift_the_replies_of_others(connection: HotConnection) -> None:
    """Replies have no names: each belongs to the oldest command that waits, cancelled or not."""
    first, second, third = (connection.send(("ECHO", word)) for word in ("one", "two", "three"))
    second.cancel()
    assert (await first, await third) == (b"one", b"three")


async def test_a_black_hole_is_refused_within_the_deadline_and_left(folder: Path, valkey_url: str) -> None:
    """A Redis that swallows commands is the worst case: nothing ever fails by itself."""
    async with mediated(folder, valkey_url) as (mediator, connection):
        mediator.requests_pass = False
        began = time.monotonic()
        replies = await asyncio.gather(*(connection.send(("PING",)) for _ in range(50)), return_exceptions=True)
        assert time.monotonic() - began < REFUSED_WITHIN_S
        assert all(isinstance(reply, StoreAway) for reply in replies)
        assert "did not answer within 200 ms" in str(replies[0])
        mediator.requests_pass = True
        await until_it_serves(connection)


async def test_the_oldest_command_keeps_its_deadline_while_others_follow(folder: Path, valkey_url: str) -> None:
    """One timer serves all: it must go by the head of the queue, and not by what was sent last."""
    async with mediated(folder, valkey_url) as (mediator, connection):
        assert await connection.send(("PING",)) == b"PONG"
        await asyncio.sleep(0.1)
        mediator.replies_pass = False
        began = time.monotonic()
        oldest = connection.send(("PING",))
        followers = []
        while not oldest.done() and time.monotonic() - began < 1:
            followers.append(connection.send(("PING",)))
            await asyncio.wait((oldest,), timeout=0.02)
        assert 0.2 <= time.monotonic() - began < REFUSED_WITHIN_S
        replies = await asyncio.gather(oldest, *followers, return_exceptions=True)
        assert all(isinstance(reply, StoreAway) for reply in replies)


async def test_a_loop_that_was_held_up_itself_does_not_blame_redis(connection: HotConnection) -> None:
    """The reply lies in the socket, unread: dropping the connection would fail calls that were carried out."""
    waiting = connection.send(("PING",))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251  (the fault that is tried here)
    assert await waiting == b"PONG"


async def test_a_reply_that_is_lost_leaves_the_outcome_open_and_a_release_settles_it(
    store: Redis, folder: Path, valkey_url: str
) -> None:
    """The hold was made; whoever asked cannot know. The release by its reference makes an end of it."""
    async with mediated(folder, valkey_url) as (mediator, connection):
        books = Books(store, connection)
        await books.open()
        await books.budgets.reserve(reservation("req_0:1"))
        mediator.replies_pass = False
        with pytest.raises(StoreAway):
            await books.budgets.reserve(reservation())
        assert await store.hexists(KEYS.held, "req_1:1")
        mediator.replies_pass = True
        await until_it_serves(connection)
        assert (await books.budgets.release(settlement("req_1:1", (counter(), 0)))).outcome == "released"
        assert await books.budgets.reserve(reservation()) == Finished("released")
        assert await books.balance(counter()) == (0, 10)


async def test_a_killed_redis_is_refused_at_once_and_served_again_when_it_is_back(start_valkey: Any) -> None:
    """503 within 300 ms while it is away, nothing to do by hand when it is back."""
    server = start_valkey()
    connection = HotConnection(server.url)
    await connection.start()
    assert await connection.send(("PING",)) == b"PONG"
    server.kill()
    for _ in range(20):
        began = time.monotonic()
        with pytest.raises(StoreAway):
            await connection.send(("PING",))
        assert time.monotonic() - began < REFUSED_WITHIN_S
    assert not connection.connected
    await asyncio.to_thread(server.start)
    await until_it_serves(connection)
    await connection.close()


async def test_a_start_without_redis_waits_for_it(start_valkey: Any) -> None:
    """Workers and store may come up in any order."""
    server = start_valkey()
    server.kill()
    connection = HotConnection(server.url)
    began = time.monotonic()
    await connection.start()
    assert time.monotonic() - began < REFUSED_WITHIN_S
    with pytest.raises(StoreAway, match="cannot be reached"):
        connection.send(("PING",))
    await asyncio.to_thread(server.start)
    await until_it_serves(connection)
    await connection.close()


async def test_the_queue_is_bounded(valkey_url: str) -> None:
    """Behind a slow Redis calls must be refused, not piled up until memory ends."""
    connection = HotConnection(valkey_url, waiting_max=3)
    await connection.start()
    waiting = [connection.send(("PING",)) for _ in range(3)]
    with pytest.raises(StoreAway, match="3 commands wait"):
        connection.send(("PING",))
    assert await asyncio.gather(*waiting) == [b"PONG"] * 3
    assert await connection.send(("PING",)) == b"PONG"
    await connection.close()


async def test_closing_tells_those_who_wait_and_later_ones(valkey_url: str) -> None:
    """A drain must not leave a task waiting for a reply that nobody will read."""
    connection = HotConnection(valkey_url)
    await connection.start()
    waiting = connection.send(("PING",))
    await connection.close()
    with pytest.raises(StoreAway, match="closed"):
        await waiting
    with pytest.raises(StoreAway, match="closed"):
        connection.send(("PING",))


async def test_user_password_and_database_of_the_url_are_used(start_valkey: Any) -> None:
    """redis-py logs in, so whatever it understands in a URL holds for the hot calls too."""
    server = start_valkey()
    admin: Redis = Redis.from_url(server.url)
    await admin.acl_setuser("gate", enabled=True, passwords=["+pass"], keys=["*"], categories=["+@all"])
    await admin.aclose()
    connection = HotConnection(f"unix://gate:pass@{server.socket}?db=4")
    await connection.start()
    assert await connection.send(("ACL", "WHOAMI")) == b"gate"
    assert b" db=4 " in await connection.send(("CLIENT", "INFO"))
    await connection.close()
    stranger = HotConnection(f"unix://gate:wrong@{server.socket}")
    await stranger.start()
    with pytest.raises(StoreAway, match=r"(?i)invalid username"):
        stranger.send(("PING",))
    await stranger.close()


async def test_answers_out_of_turn_end_the_connection() -> None:
    """A reply too many would be taken for somebody else's: money would follow it."""
    connection = HotConnection("unix:///nowhere")
    connection._loop = asyncio.get_running_loop()
    connection._transport = aborted = Aborted()  # type: ignore[assignment]
    connection.data_received(b"+OK\r\n")
    assert aborted.done
    assert not connection.connected
    await connection.close()


class Aborted:
    done = False

    def abort(self) -> None:
        self.done = True
