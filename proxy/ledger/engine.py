"""Opens the ledger: one engine per process, with what each database needs to be safe and bounded."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

CONNECT_S = 5
# An advisory lock; see ADVISORY_LOCK of migrate.py for what the number is.
KEEPER_LOCK = 32734285
STATEMENT_S = 30
# Longer than any transaction of ours, shorter than a statement may take.
BUSY_S = 10
# How many steps SQLite takes between two looks at the clock: about a millisecond.
STEPS = 100_000


def engine_url(url: str) -> URL:
    """`postgresql://…` or `sqlite:///path` with the driver that Faregate uses; ValueError for anything else."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(f"ledger.url is no database address: {_WANTED}") from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+asyncpg"):
        query = dict(parsed.query)
        # libpq's spelling, which is what people copy; asyncpg calls it ssl.
        if "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        return parsed.set(drivername="postgresql+asyncpg", query=query)
    if parsed.drivername in ("sqlite", "sqlite+aiosqlite"):
        if parsed.database in (None, "", ":memory:"):
            raise ValueError("ledger.url: SQLite in memory would forget what was spent; give sqlite:///path")
        return parsed.set(drivername="sqlite+aiosqlite")
    raise ValueError(f"ledger.url: {parsed.drivername!r} is no database that Faregate knows; {_WANTED}")


def open_ledger(url: str, *, statement_s: float = STATEMENT_S) -> AsyncEngine:
    """An engine whose connections, waits and statements are all bounded; nothing is connected yet."""
    parsed = engine_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_async_engine(
            parsed, pool_size=4, max_overflow=0, pool_timeout=BUSY_S, connect_args={"timeout": BUSY_S}
        )
        _guard_sqlite(engine, statement_s)
        return engine
    return create_async_engine(
        parsed,
        pool_size=8,
        max_overflow=0,
        pool_timeout=BUSY_S,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "timeout": CONNECT_S,
            "command_timeout": statement_s + 1,
            "server_settings": {
                "application_name": "faregate",
                "statement_timeout": str(int(statement_s * 1000)),
                "idle_in_transaction_session_timeout": str(int(statement_s * 1000)),
            },
        },
    )


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that means to write: committed at the end, rolled back on an exception.

    SQLite takes its write lock at once: one that is taken later fails, without waiting, if another wrote in
    between.
    """
    async with engine.execution_options(writes=True).begin() as connection:
        yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One snapshot of the ledger for several questions; it never waits for a writer."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    async with engine.connect() as connection:
        yield connection


def _guard_sqlite(engine: AsyncEngine, statement_s: float) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver's own notion of transactions begins them too late; `begin` below does it instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        info = record.info
        connection.run_async(
            lambda driver: driver.set_progress_handler(
                lambda: time.monotonic() > info.get("deadline", math.inf), STEPS
            )
        )

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def executing(connection: Connection, *rest: Any) -> None:
        connection.info["deadline"] = time.monotonic() + statement_s


_WANTED = "give postgresql://user:password@host/database or sqlite:///path"


@asynccontextmanager
async def one_keeper(engine: AsyncEngine) -> AsyncIterator[None]:
    """Held by one keeper at a time: on Postgres by a lock that ends with its connection, on SQLite by the lock on
    the data folder, which only one keeper has anyway."""
    if engine.dialect.name != "postgresql":
        yield
        return
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": KEEPER_LOCK})
        try:
            yield
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": KEEPER_LOCK})
