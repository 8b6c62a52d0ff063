"""The scripts that decide over budgets: loaded from `lua/`, called by digest, reloaded when Redis forgot one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, Protocol

from proxy.gateway.ports import StoreAway

# Between a reload and its call someone may flush the scripts again; a server that always does is at fault.
RELOADS_MOST = 3

Argument = str | bytes | int


class StoreRefused(StoreAway):
    """Redis answered with an error: out of memory, no right, a replica, or a fault of ours. It says which."""


class Connection(Protocol):
    """Sends one command; the answer is what Redis replies, or `StoreAway`/`StoreRefused` is raised."""

    generation: int
    """Changes with every new connection."""

    def send(self, command: tuple[Argument, ...]) -> asyncio.Future[Any]: ...


# Redis scripts cannot load one another: what several of them need is put in where they say so.
_INCLUDE = re.compile(rb"^ *-- include (\w+)\.lua\n", re.MULTILINE)


def _read(name: str) -> bytes:
    source = resources.files("proxy.budgets").joinpath("lua", f"{name}.lua").read_bytes()
    return _INCLUDE.sub(lambda include: _read(include[1].decode()), source)


class Script:
    """One Lua file and the digest that Redis knows it by."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _read(name)
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    async def run(self, connection: Connection, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Calls the script. Commands of other callers in the same write are not disturbed by a reload."""
        command = ("EVALSHA", self.sha, len(keys), *keys, *arguments)
        try:
            return await connection.send(command)
        except StoreRefused as refused:
            if not str(refused).startswith("NOSCRIPT"):
                raise
        return await self._reload_and_run(connection, command)

    async def _reload_and_run(self, connection: Connection, command: tuple[Argument, ...]) -> Any:
        for _ in range(RELOADS_MOST):
            # Both are written together, so that next to nothing can come between them.
            loading = connection.send(("SCRIPT", "LOAD", self.source))
            running = connection.send(command)
            await asyncio.wait((loading, running))
            loading.result()
            refused = running.exception()
            if refused is None or not str(refused).startswith("NOSCRIPT"):
                return running.result()
        raise StoreRefused(f"Redis forgets {self.name}.lua as soon as it is loaded.")


RESERVE = Script("reserve")
SETTLE = Script("settle")
RELEASE = Script("release")
EXTEND = Script("extend")
EXPIRE = Script("expire")
INSPECT = Script("inspect")
CLOSE = Script("close")
CORRECT = Script("correct")
RECOUNT = Script("recount")
