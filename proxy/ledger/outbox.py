"""Projects the directory into Redis: each change through the outbox, the whole of it into a blank Redis.

What is projected is a customer's present state with its revision, never a change: repeated or out of order, the
highest revision stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import NotProjected
from proxy.gateway.ports import DirectorySink, StoreAway
from proxy.ledger.engine import reading, writing
from proxy.ledger.grants import live_documents
from proxy.ledger.tables import agent_secrets, agents, customers, micros, outbox

log = structlog.get_logger(__name__)

BATCH = 200
LOOK_S = 1.0
WAIT_S = 5.0
AWAY = (SQLAlchemyError, OSError, TimeoutError, StoreAway)


@dataclass(slots=True)
class _Subtree:
    """What Redis must hold of one customer (`DirectorySink.project_customer`)."""

    doc: dict[str, Any]
    revision: int
    secrets: dict[str, int] = field(default_factory=dict)
    digests: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked_digests: list[str] = field(default_factory=list)


class Projector:
    """Empties the outbox into the sink. One per keeper; several at once do the same thing twice, harmlessly."""

    def __init__(
        self,
        engine: AsyncEngine,
        sink: DirectorySink,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._engine, self._sink, self._now_us = engine, sink, now_us
        self._wake = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled: projects what is announced here at once, what others announce within a second.

        A Redis that has lost its completeness mark is projected anew, whole.
        """
        while True:
            self._wake.clear()
            try:
                if not await self._sink.is_complete():
                    await self.project_all()
                await self.project_outbox()
            except AWAY as fault:
                log.warning("directory_not_projected", fault=type(fault).__name__, reason=str(fault))
                self._fail_waiting()
            # Not wait_for: in Python 3.11 it may swallow a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def wait_for(self, outbox_id: int, timeout_s: float = WAIT_S) -> None:
        """Returns once that row is projected, by whomever; raises `NotProjected` if that fails or lasts."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[outbox_id] = waiting
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            raise NotProjected(_LATER) from None
        finally:
            self._waiting.pop(outbox_id, None)

    async def project_outbox(self) -> int:
        """Projects all that is announced, in order; returns the number of rows. Raises what the sink raises."""
        async with self._one_at_a_time:
            before, total = list(self._waiting), 0
            while rows := await self._announced():
                await self._project({customer_id for _, customer_id in rows})
                ids = [id for id, _ in rows]
                async with writing(self._engine) as connection:
                    await connection.execute(delete(outbox).where(outbox.c.id.in_(ids)))
                self._finish(ids)
                total += len(ids)
            # Whoever waited before the outbox was seen empty was served, here or by another keeper.
            self._finish(before)
            return total

    async def project_all(self, progress: Callable[[int], None] = lambda done: None) -> int:
        """Projects every customer, then what was announced meanwhile, and marks the directory complete.

        `progress` is told the number of customers done so far, after each batch. Returns their number.
        """
        last, done = "", 0
        while ids := await self._customers_after(last):
            await self._project(ids)
            last, done = ids[-1], done + len(ids)
            progress(done)
        await self.project_outbox()
        await self._sink.mark_complete()
        log.info("directory_projected", customers=done)
        return done

    async def _announced(self) -> Sequence[tuple[int, str]]:
        wanted = select(outbox.c.id, outbox.c.customer_id).order_by(outbox.c.id).limit(BATCH)
        async with reading(self._engine) as connection:
            return [(row.id, row.customer_id) for row in await connection.execute(wanted)]

    async def _customers_after(self, last: str) -> list[str]:
        wanted = select(customers.c.id).where(customers.c.id > last).order_by(customers.c.id).limit(BATCH)
        async with reading(self._engine) as connection:
            return list((await connection.execute(wanted)).scalars())

    async def _project(self, ids: Iterable[str]) -> None:
        async with reading(self._engine) as connection:
            loaded = await _load(connection, list(ids), self._now_us())
        for id, tree in loaded.items():
            await self._sink.project_customer(
                id, tree.doc, tree.revision, tree.secrets, tree.digests, tree.revoked_digests
            )

    def _finish(self, ids: Iterable[int]) -> None:
        for id in ids:
            waiting = self._waiting.get(id)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _fail_waiting(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(NotProjected(_LATER))


async def _load(connection: AsyncConnection, ids: list[str], now_us: int) -> dict[str, _Subtree]:
    """The subtrees of these customers, of one snapshot: revision and content belong together."""
    given = await live_documents(connection, ids, now_us)
    trees = {
        row.id: _Subtree(_document(row, given.get(row.id, [])), row.revision)
        for row in await connection.execute(select(customers).where(customers.c.id.in_(ids)))
    }
    secrets = (
        select(agent_secrets, agents.c.customer_id, agents.c.agent_type_id)
        .join(agents, agents.c.id == agent_secrets.c.agent_id)
        .where(agents.c.customer_id.in_(ids))
    )
    for row in await connection.execute(secrets):
        tree = trees[row.customer_id]
        if row.revoked_at is not None:
            tree.revoked_digests.append(row.digest)
            continue
        expires_at_ms = _expires_at_ms(row.expires_at)
        tree.secrets[row.id] = expires_at_ms
        tree.digests[row.digest] = {
            "secret_id": row.id,
            "agent_id": row.agent_id,
            "agent_type_id": row.agent_type_id,
            "customer_id": row.customer_id,
            "expires_at_ms": expires_at_ms,
        }
    return trees


def _document(row: Row[Any], grants: list[dict[str, Any]]) -> dict[str, Any]:
    """What most customers do not have is left out."""
    document: dict[str, Any] = {
        "status": row.status,
        "plan": row.plan,
        "anchor_us": micros(row.anchor),
        "timezone": row.timezone,
    }
    if row.scheduled_at is not None:
        document["scheduled"] = {"plan": row.scheduled_plan, "at_us": micros(row.scheduled_at)}
    if row.overrides:
        document["overrides"] = row.overrides
    if grants:
        document["grants"] = grants
    return document


def _expires_at_ms(expires_at: datetime | None) -> int:
    """0 means never, so what expired in 1970 expires in its first millisecond."""
    return 0 if expires_at is None else max(1, micros(expires_at) // 1000)


_LATER = "It is written down, but Redis is away: the gate will obey as soon as it is back."
