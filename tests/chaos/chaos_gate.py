"""A gate to be hurt: real processes, the scripted upstream with its own list of calls, and ways to look inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatehouse import plan
from redis.asyncio import Redis
from redis.exceptions import RedisError
from served import Gate, prepare, serving
from sqlalchemy import select

from proxy.budgets.keys import ShardKeys
from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.ledger.engine import open_ledger, reading
from proxy.ledger.tables import usage_events

SHARDS = 16
# So that what a minute proves in production is proven in seconds; see proxy/app/chaos.py.
PACE = {"lease_s": 2.0, "renew_s": 0.5, "sweep_s": 0.3, "examine_s": 1.0}
COUNTED = plan("counted", [("requests", 10**7), ("tokens", 10**11), ("cost_usd", "1000000")])
CUSTOMERS = ("acme", "bolt", "cord")
# Whose events were put into the ledger by us (chaos_history), for the bulk of them.
HISTORY = "history"


@dataclass
class Place:
    """A served gate, its upstream, and the secrets of its customers by name."""

    gate: Gate
    upstream: ScriptedUpstream
    redis_url: str = ""
    ledger_url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.gate.folder

    def chaos(self, **more: Any) -> None:
        """What the next start of the keeper is told, beside the pace."""
        self.gate.environment["FAREGATE_CHAOS"] = json.dumps({**PACE, **more})

    def store(self) -> Redis:
        if self.redis_url:
            return Redis.from_url(self.redis_url, socket_timeout=2)
        remembered = self.folder / "var/store/socket"
        socket = remembered.read_text() if remembered.exists() else self.folder / "var/store/valkey.sock"
        return Redis(unix_socket_path=str(socket), socket_timeout=2)

    async def rows(self) -> list[dict[str, Any]]:
        """Every usage event that the load has made."""
        engine = open_ledger(self.ledger_url or f"sqlite:///{self.folder}/var/ledger.sqlite3")
        try:
            async with reading(engine) as connection:
                found = await connection.execute(select(usage_events).where(usage_events.c.customer_id != HISTORY))
                return [dict(row) for row in found.mappings()]
        finally:
            await engine.dispose()

    async def held(self) -> int:
        """How many reservations are held, over all shards."""
        async with self.store() as store:
            return sum([await store.hlen(ShardKeys(shard).held) for shard in range(SHARDS)])

    async def unrecorded(self) -> int:
        """Usage events that wait for the ledger, in Redis or in a spool."""
        async with self.store() as store:
            waiting = sum([await store.xlen(ShardKeys(shard).events) for shard in range(SHARDS)])
        return waiting + len(list((self.folder / "var/spool").glob("*.spool")))

    async def settled_down(self, within_s: float = 15.0) -> tuple[int, int]:
        """Waits until nothing is held and all is recorded; what is left of either when the time is up."""
        loop = asyncio.get_running_loop()
        deadline, left = loop.time() + within_s, (-1, -1)
        while loop.time() < deadline:
            with contextlib.suppress(RedisError, OSError):
                left = (await self.held(), await self.unrecorded())
                if left == (0, 0):
                    break
            await asyncio.sleep(0.1)
        return left

    async def broken_invariants(self, within_s: float = 10.0) -> list[str]:
        """The names and findings of those that do not hold, once and still at the end of the time."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            found = await self.gate.admin("GET", "/invariants")
            broken = [json.dumps(check)[:600] for check in found["checks"] if not check["ok"]]
            if not broken or asyncio.get_running_loop().time() > deadline:
                return broken
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def open_place(
    *,
    workers: int = 2,
    more: str = "",
    plans: Mapping[str, str] | None = None,
    redis_url: str = "",
    ledger_url: str = "",
    upstream_url: str = "",
    prepared: Callable[[Place], Any] | None = None,
    customers: tuple[str, ...] = CUSTOMERS,
    **chaos: Any,
) -> AsyncIterator[Place]:
    """Serves while the block lasts. `prepared` is called before the first start, `chaos` are `Chaos`'s fields."""
    folder = Path(tempfile.mkdtemp(prefix="fgc"))
    try:
        async with ScriptedUpstream() as upstream:
            gate = prepare(folder, upstream_url or upstream.url, workers=workers, more=more)
            gate.write_plan("counted", COUNTED)
            for name, text in (plans or {}).items():
                gate.write_plan(name, text)
            place = Place(gate, upstream, redis_url, ledger_url)
            place.chaos(**chaos)
            if prepared is not None and asyncio.iscoroutine(waiting := prepared(place)):
                await waiting
            async with serving(gate):
                for name in customers:
                    place.secrets[name] = await gate.customer(name, "counted")
                yield place
                upstream.release()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
