"""Admin tokens on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.billing.ports import NotFound
from proxy.domain.deeds import Actor, Deed
from proxy.ledger.admin_tokens import SqlAdminTokens
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.tables import admin_tokens

DEED = Deed(Actor("bootstrap", "FAREGATE_ADMIN_TOKEN", "owner"), "POST", "/admin/v1/tokens")
LATER = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def tokens(engine: AsyncEngine, clock: Any) -> SqlAdminTokens:
    return SqlAdminTokens(engine, clock).by(DEED)


async def test_a_token_is_kept_as_it_was_made(tokens: SqlAdminTokens) -> None:
    """By its digest alone it is found again."""
    made = await tokens.create("tok1", "ci", "operator", "d1", LATER)

    assert (made.created_by, made.expires_at, made.revoked_at, made.last_used_at) == (
        "bootstrap",
        LATER,
        None,
        None,
    )
    assert await tokens.token("tok1") == made
    assert await tokens.with_digest("d1") == made
    assert await tokens.with_digest("d2") is None
    assert list(await tokens.tokens()) == [made]
    with pytest.raises(NotFound):
        await tokens.token("tok2")


async def test_a_revoked_token_stays_and_says_since_when(tokens: SqlAdminTokens, clock: Any) -> None:
    """The first revocation counts."""
    made = await tokens.create("tok1", "ci", "operator", "d1", None)
    await tokens.revoke("tok1")
    first = await tokens.token("tok1")
    clock.us += 1_000_000
    await tokens.revoke("tok1")

    assert first.revoked_at == made.created_at
    assert await tokens.with_digest("d1") == first
    assert not first.lets_in(LATER)
    with pytest.raises(NotFound):
        await tokens.revoke("tok2")


async def test_two_tokens_never_share_a_digest(tokens: SqlAdminTokens) -> None:
    """One of them would open the other's door."""
    await tokens.create("tok1", "ci", "operator", "d1", None)
    with pytest.raises(IntegrityError):
        await tokens.create("tok2", "ci", "owner", "d1", None)


async def test_making_and_revoking_are_audited_without_the_digest(
    tokens: SqlAdminTokens, engine: AsyncEngine, clock: Any
) -> None:
    """Who gave whom which rights."""
    await tokens.create("tok1", "ci", "operator", "d1d1d1", None)
    await tokens.revoke("tok1")

    revoked, made = (await SqlAuditLog(engine, clock).entries({}, 10, None)).data

    assert made["changes"]["role"] == {"from": None, "to": "operator"}
    assert made["changes"]["digest"] == {"from": None, "to": "(hidden)"}
    assert list(revoked["changes"]) == ["revoked_at"]
    assert "d1d1d1" not in str((made, revoked))


async def test_uses_are_noted_off_the_path_and_never_go_back(
    tokens: SqlAdminTokens, engine: AsyncEngine, clock: Any
) -> None:
    """A request pays nothing for it; until it is written down, memory answers."""
    made = await tokens.create("tok1", "ci", "operator", "d1", None)
    clock.us += 60_000_000
    tokens.used("tok1")
    assert (await tokens.token("tok1")).last_used_at == made.created_at + timedelta(minutes=1)
    assert await stored(engine) == [None]

    await tokens.note_uses()
    assert await stored(engine) == [made.created_at + timedelta(minutes=1)]

    other_keeper = SqlAdminTokens(engine, clock)
    clock.us -= 30_000_000
    other_keeper.used("tok1")
    other_keeper.used("gone")
    await other_keeper.note_uses()
    assert await stored(engine) == [made.created_at + timedelta(minutes=1)]


async def test_a_use_while_uses_are_written_down_is_not_lost(
    tokens: SqlAdminTokens, engine: AsyncEngine, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written down the next time."""
    await tokens.create("tok1", "ci", "operator", "d1", None)
    tokens.used("tok1")
    from proxy.ledger import admin_tokens as module

    real = module.writing

    def writing(engine: AsyncEngine) -> Any:
        clock.us += 5
        tokens.used("tok1")
        return real(engine)

    monkeypatch.setattr(module, "writing", writing)
    await tokens.note_uses()
    monkeypatch.undo()
    (before,) = await stored(engine)
    await tokens.note_uses()

    assert (await stored(engine))[0] == before + timedelta(microseconds=5)


async def test_what_is_noted_in_memory_is_bounded(tokens: SqlAdminTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every queue is."""
    monkeypatch.setattr("proxy.ledger.admin_tokens.UNNOTED_MAX", 3)
    for number in range(10):
        tokens.used(f"tok{number}")

    assert len(tokens._uses) == 3


async def stored(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(admin_tokens.c.last_used_at))).scalars())
