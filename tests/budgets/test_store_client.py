"""A server that cannot hold budgets is refused at start, with what would mend it; one that is away, at once."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from proxy.budgets.store_client import StoreUnfit, check_server, connect, store_away
from proxy.gateway.ports import StoreAway


class Answering:
    """A client whose INFO is `info`; scripts it runs without looking."""

    def __init__(self, **info: object) -> None:
        self.given = {"redis_version": "7.4.1", "maxmemory_policy": "noeviction", "cluster_enabled": 0} | info

    async def info(self) -> dict[str, object]:
        return self.given

    async def script_load(self, source: str) -> str:
        return "sha"

    async def evalsha(self, sha: str, keys: int) -> None:
        return None


async def test_a_real_server_is_fit(valkey_url):
    """The embedded default must pass its own check."""
    async with connect(valkey_url, 5.0) as client:
        await check_server(client)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"redis_version": "6.2.14"}, r"version 6\.2\.14; Faregate needs Redis 7\.0"),
        ({"redis_version": "unknown"}, r"Faregate needs Redis 7\.0"),
        ({"maxmemory_policy": "allkeys-lru"}, r"'allkeys-lru'.*CONFIG SET maxmemory-policy noeviction"),
        ({"maxmemory_policy": None}, r"'unknown'.*noeviction"),
        ({"cluster_enabled": 1}, r"cluster mode, which is not available yet"),
        ({"role": "slave"}, r"replica.*primary"),
    ],
)
async def test_an_unfit_server_is_refused_with_the_cure(info, says):
    """Each of these serves happily and loses or leaks money later."""
    with pytest.raises(StoreUnfit, match=says):
        await check_server(Answering(**info))


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "8.2.1"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"},
    ],
)
async def test_every_version_that_knows_our_scripts_is_fit(info):
    """A refusal of a server that would do costs a user the evening."""
    await check_server(Answering(**info))


async def test_the_eviction_policy_of_a_real_server_is_seen(start_valkey):
    """The name of the INFO field is the server's to choose: read it from a real one."""
    server = start_valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    async with connect(server.url, 5.0) as client:
        with pytest.raises(StoreUnfit, match="allkeys-lru"):
            await check_server(client)


async def test_a_cluster_node_is_seen(start_valkey):
    """Half of the keys would be refused with CROSSSLOT, at the first request."""
    server = start_valkey("--cluster-enabled", "yes", "--port", "0")
    async with connect(server.url, 5.0) as client:
        with pytest.raises(StoreUnfit, match="cluster mode"):
            await check_server(client)


@pytest.mark.parametrize(
    ("rights", "says"),
    [
        (["+@all", "-info"], r"refuses INFO.*\+info"),
        (["+@all", "-evalsha"], r"does not run scripts.*evalsha.*ACL SETUSER"),
        (["+@all", "-script"], r"does not run scripts.*ACL SETUSER"),
    ],
)
async def test_a_user_without_the_rights_is_told_which(start_valkey, rights, says):
    """An ACL that lacks one command shows itself as 503 to every customer, unless it is asked for at start."""
    server = start_valkey()
    async with connect(server.url, 5.0) as admin:
        await admin.execute_command("ACL", "SETUSER", "gate", "on", ">pw", "~faregate:*", *rights)
    async with connect(server.url.replace("unix://", "unix://gate:pw@"), 5.0) as client:
        with pytest.raises(StoreUnfit, match=says):
            await check_server(client)


async def test_a_wrong_password_is_no_outage(start_valkey):
    """Retrying it forever would hide the one line that needs editing."""
    server = start_valkey()
    async with connect(server.url, 5.0) as admin:
        await admin.config_set("requirepass", "right")
    async with connect(server.url.replace("unix://", "unix://:wrong@"), 5.0) as client:
        with pytest.raises(StoreUnfit, match=r"refuses the user or password.*redis\.url") as refused:
            await check_server(client)
    assert "wrong@" not in str(refused.value)


async def test_a_refused_connection_is_away_at_once():
    """redis-py tries ten times by itself and takes 4 s over it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    began = time.monotonic()
    async with connect(f"redis://127.0.0.1:{port}/0") as client:
        with pytest.raises(StoreAway, match="does not answer"):
            await check_server(client)
    assert time.monotonic() - began < 0.2


async def test_a_server_that_says_nothing_is_away_at_the_deadline():
    """A black hole: the connection stands and no answer ever comes."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        began = time.monotonic()
        async with connect(f"redis://127.0.0.1:{port}/0") as client:
            with pytest.raises(StoreAway):
                await check_server(client)
    assert 0.2 < time.monotonic() - began < 1.0


async def test_an_error_as_the_answer_is_away_for_whoever_waits(store, valkey_url):
    """A journey knows two outcomes, answered and away; a server's error must not become a 500."""
    await store.set("faregate:policy", "1")
    async with connect(valkey_url, 5.0) as client:
        with pytest.raises(StoreAway, match="WRONGTYPE"), store_away():
            await client.hget("faregate:policy", "field")


async def test_a_crowd_waits_for_a_connection_instead_of_being_refused(valkey_url):
    """redis-py's own pool refuses the hundred-and-first caller at once, which would be a 503 for a customer."""
    async with connect(valkey_url, 5.0) as client:
        assert all(await asyncio.gather(*(client.ping() for _ in range(300))))
