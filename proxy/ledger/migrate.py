"""Brings a ledger to the present schema. Two may start at once: the second waits, and finds the work done."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.ledger.engine import open_ledger, writing

# How long to wait for another start's migration, and for a step of our own.
MIGRATION_S = 120
POLL_S = 0.05
# Any number that nobody else uses for an advisory lock in this database ("faregate" as a phone spells it).
ADVISORY_LOCK = 32734283


class LedgerTooNew(Exception):
    """The ledger has a schema that this Faregate does not know."""


class LedgerUnfit(Exception):
    """The ledger cannot be opened; the message says which, why, and what to do."""


async def migrate(url: str) -> str:
    """Runs every step that the ledger lacks, all or none, and returns the schema's revision.

    Raises `LedgerTooNew` for a ledger of a newer Faregate, and `LedgerUnfit` for one that does not answer, is no
    database, or on which another migration holds the lock for longer than `MIGRATION_S`.
    """
    try:
        return await _migrate(url)
    except (SQLAlchemyError, OSError, TimeoutError) as fault:
        where = make_url(url).render_as_string(hide_password=True)
        why = str(getattr(fault, "orig", None) or fault) or "it does not answer in time"
        raise LedgerUnfit(
            f"The ledger {where} cannot be opened: {why}. Start that database, or set ledger.url to the right one;"
            " a damaged SQLite file is to be restored from a backup."
        ) from fault


async def _migrate(url: str) -> str:
    engine = open_ledger(url, statement_s=MIGRATION_S)
    try:
        async with _alone(engine), writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                await _lock_postgres(connection)
            return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> str:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    newest = script.get_current_head()
    known = {step.revision for step in script.walk_revisions()}
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in known:
        raise LedgerTooNew(
            f"The ledger has schema {present}, which this Faregate does not know (its newest is {newest}):"
            " a newer Faregate has migrated it. Start that version again, or restore a backup from before."
        )
    command.upgrade(config, "head")
    return str(newest)


@asynccontextmanager
async def _alone(engine: AsyncEngine) -> AsyncIterator[None]:
    """On SQLite a lock file, since even turning on the write-ahead log fails when two do it at once."""
    if engine.dialect.name != "sqlite":
        yield
        return
    path = Path(str(engine.url.database))
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    lock = await asyncio.to_thread(os.open, f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(MIGRATION_S):
            while not _locked(lock):  # noqa: ASYNC110 (a file lock wakes nobody)
                await asyncio.sleep(POLL_S)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _lock_postgres(connection: AsyncConnection) -> None:
    """Held until the migration's transaction ends, however it ends."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
