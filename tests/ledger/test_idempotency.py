"""Idempotency keys on both databases: claimed by one, done with the write, taken over when left behind."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.billing.ports import ClaimLost, Earlier, KeptAnswer
from proxy.domain.deeds import Actor, Deed
from proxy.ledger.audit_log import SqlAuditLog, audit
from proxy.ledger.engine import writing
from proxy.ledger.idempotency import ABANDONED, KEPT, SqlIdempotency

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ANSWER = KeptAnswer(201, '{"id":"acme"}', '"0a1b"')


@pytest.fixture
def keys(engine: AsyncEngine, clock: Any) -> SqlIdempotency:
    return SqlIdempotency(engine, clock)


async def do(engine: AsyncEngine, claim: str, key: str = "k") -> None:
    """A write under that claim."""
    deed = Deed(Actor("t", "ci", "operator"), "POST", "/r", idempotency_key=key, claim=claim)
    async with writing(engine) as connection:
        await audit(connection, deed, NOW, "customer", "acme", None, {"name": claim})


async def test_one_of_many_gets_the_key(keys: SqlIdempotency) -> None:
    """The others are told that it is under way."""
    claims = await asyncio.gather(*(keys.claim("t", "k", "f", str(n)) for n in range(20)))

    assert sorted(claims, key=bool) == [None] + [Earlier("under_way", None, None)] * 19


async def test_what_was_answered_is_answered_again(keys: SqlIdempotency, engine: AsyncEngine) -> None:
    """Status, body and ETag, and what it was about."""
    await keys.claim("t", "k", "f", "1")
    await do(engine, "1")
    await keys.keep("t", "k", "1", ANSWER)

    assert await keys.claim("t", "k", "f", "2") == Earlier("answered", "customer acme", ANSWER)
    assert (await keys.claim("t", "k", "other", "3")) == Earlier("reused", "customer acme", None)
    assert await keys.claim("another token", "k", "other", "4") is None


async def test_a_key_is_given_back_only_while_nothing_was_done(keys: SqlIdempotency, engine: AsyncEngine) -> None:
    """A write that was done under it must not be done again, whatever became of its answer."""
    await keys.claim("t", "k", "f", "1")
    await keys.release("t", "k", "1")
    assert await keys.claim("t", "k", "another", "2") is None

    await do(engine, "2")
    await keys.release("t", "k", "2")

    assert await keys.claim("t", "k", "another", "3") == Earlier("done", "customer acme", None)


async def test_a_claim_that_was_left_behind_is_taken_over(
    keys: SqlIdempotency, engine: AsyncEngine, clock: Any
) -> None:
    """A process that was killed between the claim and the write must not block its client for a day. If it lives
    after all, its write is taken back: it would be the second."""
    await keys.claim("t", "k", "f", "slow")
    clock.us += int(ABANDONED.total_seconds() * 1e6)
    assert (await keys.claim("t", "k", "f", "early")) is not None
    clock.us += 1
    assert await keys.claim("t", "k", "f", "quick") is None

    await do(engine, "quick")
    with pytest.raises(ClaimLost):
        await do(engine, "slow")

    entries = (await SqlAuditLog(engine, clock).entries({}, 10, None)).data
    assert [entry["changes"]["name"]["to"] for entry in entries] == ["quick"]


async def test_what_was_done_is_never_taken_over(keys: SqlIdempotency, engine: AsyncEngine, clock: Any) -> None:
    """However its process ended."""
    await keys.claim("t", "k", "f", "1")
    await do(engine, "1")
    clock.us += int(KEPT.total_seconds() * 1e6)

    assert await keys.claim("t", "k", "f", "2") == Earlier("done", "customer acme", None)


async def test_keys_are_forgotten_after_a_day(keys: SqlIdempotency, clock: Any) -> None:
    """Whether they are swept or claimed anew; nothing of what was is left."""
    for key in ("a", "b"):
        await keys.claim("t", key, "f", "1")
        await keys.keep("t", key, "1", ANSWER)
    assert await keys.sweep() == 0
    clock.us += int(KEPT.total_seconds() * 1e6) + 1

    assert await keys.claim("t", "a", "another", "2") is None
    assert await keys.claim("t", "a", "another", "3") == Earlier("under_way", None, None)
    assert await keys.sweep() == 1


async def test_an_answer_is_kept_by_who_holds_the_claim(keys: SqlIdempotency) -> None:
    """A late answer of a claim that was taken over must not be given to anybody."""
    await keys.claim("t", "k", "f", "1")
    await keys.keep("t", "k", "another", ANSWER)

    assert await keys.claim("t", "k", "f", "2") == Earlier("under_way", None, None)
