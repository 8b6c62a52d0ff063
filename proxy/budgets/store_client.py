"""The cold client of the store: connecting by URL, and the check whether a server will do at all.

Hot calls have a connection of their own (`hot_connection.py`); everything that may take its time goes
through redis-py, with its retries off: by default it waits 4 s on a refused connection and has no
deadline of its own on a black hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from proxy.budgets.scripts import StoreRefused
from proxy.gateway.ports import StoreAway

DEADLINE_S = 0.2
VERSION_LEAST = (7, 0)

# Of one client. Whoever comes while all are busy waits for one, as long as for an answer.
CONNECTIONS_MAX = 32

# Every script of ours is of this kind, which servers before 7.0 do not know.
PROBE_SCRIPT = "#!lua\nreturn redis.call('TIME')"


class StoreUnfit(Exception):
    """The server answers, but cannot be used; the message says why, and what would mend it."""


def connect(url: str, timeout_s: float = DEADLINE_S) -> Redis:
    """A client that answers in text, gives up after `timeout_s` and never tries again by itself.

    Nothing is sent yet. A call that blocks needs a client whose `timeout_s` is longer than the block.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
    )
    client: Redis = Redis.from_pool(pool)
    return client


@contextmanager
def store_away() -> Iterator[None]:
    """Turns every way of not being answered into `StoreAway`, and an error as the answer into `StoreRefused`."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as fault:
        raise StoreAway(f"Redis does not answer: {str(fault) or type(fault).__name__}") from fault
    except ResponseError as refused:
        raise StoreRefused(str(refused)) from refused


async def check_server(client: Redis, deadline_s: float = 5.0) -> None:
    """Raises `StoreUnfit` if the server cannot hold budgets, `StoreAway` if it does not answer."""
    try:
        with store_away():
            async with asyncio.timeout(deadline_s):
                _check_info(await _info(client))
                await _check_scripts(client)
    except StoreAway as away:
        if _is_about_login(away):
            raise StoreUnfit(
                f"Redis refuses the user or password: {away.__cause__}. Put the right ones into redis.url"
                " (redis://user:password@host:port)."
            ) from away
        raise


def _is_about_login(fault: BaseException | None) -> bool:
    """redis-py hides it as the cause of a lost connection."""
    while fault is not None:
        if isinstance(fault, AuthenticationError | AuthorizationError):
            return True
        fault = fault.__cause__
    return False


async def _info(client: Redis) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = await client.info()
    except ResponseError as refused:
        raise StoreUnfit(
            f"Redis refuses INFO ({refused}), so its version and eviction policy cannot be checked."
            " Grant the user +info."
        ) from refused
    return info


def _check_info(info: Mapping[str, Any]) -> None:
    _check_version(info)
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        raise StoreUnfit(
            f"Redis has maxmemory-policy {policy or 'unknown'!r}: when memory runs short it would throw budget"
            " counters away, and what was spent could be spent again. Set `maxmemory-policy noeviction`"
            " in its configuration, or `CONFIG SET maxmemory-policy noeviction`."
        )
    if info.get("cluster_enabled"):
        raise StoreUnfit(
            "Redis runs in cluster mode, which is not available yet. Point redis.url at a server with"
            " `cluster-enabled no`."
        )
    if info.get("role", "master") != "master":
        raise StoreUnfit("Redis is a replica, which takes no writes. Point redis.url at its primary.")


def _check_version(info: Mapping[str, Any]) -> None:
    # Valkey gives 7.2.4 as its redis_version for old clients' sake, whatever its own version is.
    name = "Valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "Redis"
    said = str(info.get("redis_version", "unknown"))
    version = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    if name == "Redis" and (len(version) < 2 or version < VERSION_LEAST):
        raise StoreUnfit(
            f"Redis is version {said}; Faregate needs Redis 7.0 or newer, or any Valkey, because its scripts"
            " declare what may run when memory is short (#!lua flags). Upgrade the server, or leave redis.url"
            " empty for the embedded one."
        )


async def _check_scripts(client: Redis) -> None:
    try:
        await client.evalsha(await client.script_load(PROBE_SCRIPT), 0)
    except ResponseError as refused:
        raise StoreUnfit(
            f"Redis does not run scripts for this user ({refused}), and every budget is decided in one. Grant it"
            " the keys and commands: ACL SETUSER <user> ~faregate:* +@read +@write +@stream +@transaction"
            " +script|load +evalsha +info +ping +time."
        ) from refused
