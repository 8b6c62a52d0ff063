"""The audit log on both databases: each change with its entry, each entry sealed, none rewritten."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.billing.ports import BadCursor, ChainHead
from proxy.domain.deeds import Actor, Deed, by_the_gate
from proxy.ledger.audit_log import SqlAuditLog, audit
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import writing
from proxy.ledger.tables import customers

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
DEED = Deed(
    Actor("tok1", "ci", "operator"), "PATCH", "/admin/v1/customers/{customer_id}", "req_1", "192.0.2.0/24", "k1"
)
ACME = {"id": "acme", "name": "Acme", "plan": "starter"}


@pytest.fixture
def log(engine: AsyncEngine, clock: Any) -> SqlAuditLog:
    return SqlAuditLog(engine, clock)


@pytest.fixture
def accounts(engine: AsyncEngine, clock: Any) -> SqlAccounts:
    async def project(outbox_id: int) -> None: ...

    return SqlAccounts(engine, clock, lambda n: bytes(n), project).by(DEED)


async def write(engine: AsyncEngine, number: int = 1, deed: Deed = DEED) -> None:
    async with writing(engine) as connection:
        await audit(connection, deed, NOW, "customer", f"c{number}", None, {"name": f"N{number}"})


async def entries(log: SqlAuditLog, **filters: Any) -> list[Any]:
    return list((await log.entries(filters, 100, None)).data)


async def tamper(engine: AsyncEngine, statement: str) -> None:
    """As somebody would who owns the database: with the triggers out of the way."""
    async with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in ("update", "delete", "replace"):
                await connection.execute(text(f"DROP TRIGGER IF EXISTS audit_log_no_{name}"))
        else:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text(statement))


async def test_a_change_is_written_down_with_who_when_where_and_from_what_to_what(
    accounts: SqlAccounts, log: SqlAuditLog
) -> None:
    """The question after every surprise: who changed this, and what was it before?"""
    await accounts.create_customer(ACME)
    await accounts.change_customer("acme", {"plan": "pro", "email": "a@acme.example", "name": "Acme"})

    changed, made = await entries(log)

    assert {name: changed[name] for name in ("seq", "actor", "method", "route", "resource", "outcome")} == {
        "seq": 2,
        "actor": {"id": "tok1", "name": "ci", "role": "operator"},
        "method": "PATCH",
        "route": "/admin/v1/customers/{customer_id}",
        "resource": {"kind": "customer", "id": "acme"},
        "outcome": "done",
    }
    assert (changed["request_id"], changed["network"], changed["idempotency_key"]) == (
        "req_1",
        "192.0.2.0/24",
        "k1",
    )
    assert changed["changes"] == {
        "plan": {"from": "starter", "to": "pro"},
        "email": {"from": None, "to": "a@acme.example"},
    }
    assert made["changes"]["name"] == {"from": None, "to": "Acme"}


async def test_every_write_of_the_directory_has_its_entry(accounts: SqlAccounts, log: SqlAuditLog) -> None:
    """One that is forgotten is the one that is looked for."""
    await accounts.create_customer(ACME)
    await accounts.create_contact("acme", {"id": "ada", "name": "Ada"})
    await accounts.create_agent_type({"id": "research", "name": "Research", "kind": "custom"})
    await accounts.create_agent({"id": "scout", "name": "S", "customer_id": "acme", "agent_type_id": "research"})
    await accounts.create_secret("scout", "sec1", "d1" * 32, None)
    await accounts.revoke_secret("scout", "sec1")

    written = [(entry["resource"]["kind"], entry["resource"]["id"]) for entry in await entries(log)]

    assert written[::-1] == [
        ("customer", "acme"),
        ("contact", "ada"),
        ("agent_type", "research"),
        ("agent", "scout"),
        ("secret", "sec1"),
        ("secret", "sec1"),
    ]
    assert "d1d1" not in str(await entries(log))


async def test_what_changes_nothing_leaves_no_entry(accounts: SqlAccounts, log: SqlAuditLog) -> None:
    """A log of things that did not happen hides those that did."""
    await accounts.create_customer(ACME)
    await accounts.change_customer("acme", {"plan": "starter"})

    assert len(await entries(log)) == 1


async def test_a_change_that_is_taken_back_takes_its_entry_along(
    engine: AsyncEngine, accounts: SqlAccounts, log: SqlAuditLog
) -> None:
    """Either both are there, or neither: also where the entry itself is what refuses."""

    def refuse(before: Any) -> None:
        raise ValueError(before.name)

    await accounts.create_customer(ACME)
    with pytest.raises(ValueError, match="Acme"):
        await accounts.by(replace(DEED, precondition=refuse)).change_customer("acme", {"name": "B"})

    assert len(await entries(log)) == 1
    async with engine.connect() as connection:
        row = (await connection.execute(select(customers.c.name, customers.c.revision))).one()
    assert tuple(row) == ("Acme", 1)


async def test_what_nobody_asked_is_the_gates_own(engine: AsyncEngine, log: SqlAuditLog) -> None:
    """Applied plan files have no token."""
    await write(engine, deed=by_the_gate("policy files"))

    assert (await entries(log))[0]["actor"] == {"id": "system", "name": "policy files", "role": "system"}


async def test_a_refusal_is_an_entry_without_a_resource(log: SqlAuditLog, engine: AsyncEngine) -> None:
    """Whoever tries what is not allowed is part of the story."""
    await log.refused(DEED)

    (entry,) = await entries(log)
    assert (entry["outcome"], entry["resource"], entry["changes"]) == ("refused", None, {})
    assert (await log.verify()).fault is None


async def test_it_is_filtered_and_paged_newest_first(engine: AsyncEngine, log: SqlAuditLog, clock: Any) -> None:
    """By what was changed, by whom, and when."""
    other = replace(DEED, actor=Actor("tok2", "x", "owner"))
    for number in range(5):
        await write(engine, number, other if number == 3 else DEED)
    await log.refused(other)

    assert [e["seq"] for e in await entries(log)] == [6, 5, 4, 3, 2, 1]
    assert [e["seq"] for e in await entries(log, actor="tok2")] == [6, 4]
    assert [e["seq"] for e in await entries(log, resource_kind="customer", resource_id="c2")] == [3]
    assert [e["seq"] for e in await entries(log, outcome="refused")] == [6]
    assert [e["seq"] for e in await entries(log, to=NOW)] == [6] * (clock.now_us() < NOW.timestamp() * 1e6)
    assert len(await entries(log, **{"from": NOW})) >= 5
    seen, cursor = [], None
    while True:
        page = await log.entries({}, 4, cursor)
        seen += [e["seq"] for e in page.data]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [6, 5, 4, 3, 2, 1]
    with pytest.raises(BadCursor):
        await log.entries({}, 4, "WyJhIl0")


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor_id = 'x'", "DELETE FROM audit_log"])
async def test_it_cannot_be_rewritten(engine: AsyncEngine, log: SqlAuditLog, statement: str) -> None:
    """S33: neither by a fault of ours nor by somebody who came in through the database."""
    await write(engine)

    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(statement))

    assert len(await entries(log)) == 1


async def test_nor_emptied_or_replaced(engine: AsyncEngine, log: SqlAuditLog) -> None:
    """What each database has besides."""
    await write(engine)
    row = (
        "SELECT seq, at, 'x', actor_name, actor_role, method, route, resource_kind, resource_id, outcome, changes"
    )
    way = {
        "sqlite": f"REPLACE INTO audit_log {row}, request_id, idempotency_key, network, hash FROM audit_log",
        "postgresql": "TRUNCATE audit_log",
    }[engine.dialect.name]

    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text(way))

    assert (await entries(log))[0]["actor"]["id"] == "tok1"


@pytest.mark.parametrize(
    ("statement", "fault", "sound"),
    [
        ("UPDATE audit_log SET actor_id = 'x' WHERE seq = 3", "Entry 3 is not what was written.", 2),
        ("UPDATE audit_log SET changes = '{}' WHERE seq = 5", "Entry 5 is not what was written.", 4),
        ("UPDATE audit_log SET at = at + 1 WHERE seq = 1", "Entry 1 is not what was written.", 0),
        ("DELETE FROM audit_log WHERE seq = 2", "Entry 2 is missing.", 1),
        ("DELETE FROM audit_log WHERE seq < 3", "Entry 1 is missing.", 0),
    ],
)
async def test_whoever_rewrites_it_all_the_same_is_seen(
    engine: AsyncEngine, log: SqlAuditLog, statement: str, fault: str, sound: int
) -> None:
    """The hash of each entry is over the one before."""
    for number in range(5):
        await write(engine, number)
    assert (await log.verify()).entries == 5

    await tamper(engine, statement)

    found = await log.verify()
    assert (found.fault, found.entries) == (fault, sound)


async def test_what_is_cut_off_or_written_anew_is_seen_by_a_head_that_was_noted(
    engine: AsyncEngine, log: SqlAuditLog
) -> None:
    """A chain that is whole again proves nothing by itself: hence an anchor outside the database."""
    for number in range(3):
        await write(engine, number)
    noted = (await log.verify()).head
    assert (await log.verify(noted)).fault is None

    await tamper(engine, "DELETE FROM audit_log WHERE seq = 3")
    assert (await log.verify()).fault is None
    assert (await log.verify(noted)).fault == "The log ends at entry 2, before entry 3."

    await write(engine, 99)
    assert (await log.verify()).fault is None
    assert (await log.verify(noted)).fault == "Entry 3 is not the one that was noted down."
    assert (await log.verify(ChainHead(1, "0" * 64))).fault == "Entry 1 is not the one that was noted down."


async def test_the_newest_entries_are_verified_alone(engine: AsyncEngine, log: SqlAuditLog) -> None:
    """What is looked at again and again must not grow with the log."""
    for number in range(5):
        await write(engine, number)
    await tamper(engine, "UPDATE audit_log SET actor_id = 'x' WHERE seq = 2")

    assert (await log.verify(last=2)).entries == 2
    assert (await log.verify(last=2)).fault is None
    assert (await log.verify(last=4)).fault == "Entry 2 is not what was written."
    assert (await log.verify(last=100)).fault == "Entry 2 is not what was written."


async def test_an_empty_log_is_whole(log: SqlAuditLog) -> None:
    """Before the first deed there is nothing to be wrong."""
    assert (await log.verify()).head == ChainHead(0, "0" * 64)


async def test_many_at_once_make_one_chain(engine: AsyncEngine, log: SqlAuditLog) -> None:
    """Two replicas that extend the same entry would fork it."""
    await asyncio.gather(*(write(engine, number) for number in range(20)))

    found = await log.verify()

    assert (found.entries, found.head.seq, found.fault) == (20, 20, None)


async def test_what_the_hash_is_over_is_what_the_docs_say(engine: AsyncEngine, log: SqlAuditLog) -> None:
    """An auditor computes it with a tool of his own."""
    import hashlib
    import json

    await write(engine)
    async with engine.connect() as connection:
        row = dict((await connection.execute(text("SELECT * FROM audit_log"))).mappings().one())
    stated = json.dumps({k: v for k, v in row.items() if k != "hash"}, sort_keys=True, separators=(",", ":"))

    assert row["hash"] == hashlib.sha256(("0" * 64 + "\n" + stated).encode()).hexdigest()
