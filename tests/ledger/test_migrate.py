from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from proxy.ledger import alert_tables
from proxy.ledger.engine import engine_url, open_ledger
from proxy.ledger.migrate import LedgerTooNew, LedgerUnfit, migrate
from proxy.ledger.migrations import versions
from proxy.ledger.tables import metadata

NEWEST = max(path.name for path in Path(versions.__file__).parent.glob("r*.py"))[1:5]


async def test_two_migrations_at_once_leave_one_ledger(blank_url: str) -> None:
    """Two replicas may start in the same second; the second must find the work done, not half of it."""
    program = (
        f"import asyncio; from proxy.ledger.migrate import migrate; print(asyncio.run(migrate({blank_url!r})))"
    )
    runs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    for run in runs:
        said, complaint = await asyncio.wait_for(run.communicate(), 30)
        assert (run.returncode, said) == (0, NEWEST.encode() + b"\n"), complaint.decode()


async def test_the_migrations_lead_to_the_tables(blank_url: str) -> None:
    """Code reads tables.py and the database is made by migrations: where they differ, queries fail."""
    assert alert_tables.alerts.metadata is metadata
    await migrate(blank_url)
    engine = open_ledger(blank_url)
    async with engine.connect() as connection:

        def differences(sync: object) -> list[object]:
            return compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)

        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


async def test_a_newer_ledger_is_refused_with_what_to_do(blank_url: str) -> None:
    """An old release on a new ledger would write rows that the new one cannot read."""
    await migrate(blank_url)
    engine = open_ledger(blank_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(
        LedgerTooNew, match=r"schema 9999, which this Faregate does not know .*newest is \d.*backup"
    ):
        await migrate(blank_url)


@pytest.mark.parametrize("url", ["postgresql://u:secret@127.0.0.1:9/d", "sqlite:////proc/nowhere/ledger.sqlite3"])
async def test_a_ledger_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    """A traceback of the driver tells nobody which setting is wrong; a password in a log is everybody's."""
    with pytest.raises(
        LedgerUnfit, match=r"(127\.0\.0\.1:9/d|/proc/nowhere/.*) cannot be opened: .*set ledger\.url"
    ) as fault:
        await migrate(url)
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite:///var/ledger.db", "sqlite+aiosqlite:///var/ledger.db"),
        ("postgresql://u:p%40@h/d?sslmode=require", "postgresql+asyncpg://u:p%40@h/d?ssl=require"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_plain_addresses_get_the_driver(url: str, wanted: str) -> None:
    """People paste the address that their provider shows them."""
    assert engine_url(url).render_as_string(hide_password=False) == wanted


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "nonsense secret"])
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    """A ledger address holds a password, which must not end up in a log."""
    with pytest.raises(ValueError, match=r"ledger\.url") as refused:
        engine_url(url)
    assert "secret" not in str(refused.value)
