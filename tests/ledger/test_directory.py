from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from proxy.billing.ports import AlreadyExists, BadCursor, NotFound, NotProjected
from proxy.gateway.ports import StoreAway
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.outbox import Projector

ANCHOR = datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)
ACME = {
    "id": "acme",
    "name": "Acme Corp",
    "email": "a@acme.test",
    "timezone": "Europe/Berlin",
    "plan": "starter",
    "anchor": ANCHOR,
}


class MemorySink:
    """The port `DirectorySink`: keeps of each customer what has the highest revision."""

    def __init__(self) -> None:
        self.customers, self.complete, self.away, self.calls = {}, True, False, 0
        self.marked = asyncio.Event()

    async def project_customer(self, customer_id, doc, revision, secrets, digests, revoked_digests):
        if self.away:
            raise StoreAway
        self.calls += 1
        if revision >= self.customers.get(customer_id, (0,))[0]:
            self.customers[customer_id] = (revision, doc, secrets, digests, list(revoked_digests))

    async def mark_complete(self):
        self.complete = True
        self.marked.set()

    async def is_complete(self):
        if self.away:
            raise StoreAway
        return self.complete


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def projector(engine, sink):
    projector = Projector(engine, sink)
    running = asyncio.create_task(projector.run())
    yield projector
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def accounts(engine, clock, projector):
    numbers = iter(range(1, 10_000))
    return SqlAccounts(engine, clock, lambda n: next(numbers).to_bytes(n, "big"), projector.wait_for)


async def agent_of(accounts, customer_id="acme"):
    with contextlib.suppress(AlreadyExists):
        await accounts.create_agent_type({"id": "research", "name": "Research Agent", "kind": "langgraph"})
    return await accounts.create_agent(
        {"name": "Their agent", "customer_id": customer_id, "agent_type_id": "research"}
    )


async def test_a_customer_is_kept_as_given_and_projected(accounts, sink) -> None:
    """A write returns once the gate obeys it."""
    made = await accounts.create_customer(ACME)
    assert (made.name, made.anchor, made.status, made.phone) == ("Acme Corp", ANCHOR, "active", None)
    assert await accounts.customer("acme") == made
    doc = {
        "status": "active",
        "plan": "starter",
        "anchor_us": 1_769_862_600_123_456,
        "timezone": "Europe/Berlin",
    }
    assert sink.customers["acme"] == (1, doc, {}, {}, [])


async def test_every_change_advances_the_revision(accounts, sink) -> None:
    """The admission script notices a change by the revision alone."""
    await accounts.create_customer(ACME)
    changed = await accounts.change_customer("acme", {"status": "suspended"})
    assert (changed.status, changed.name) == ("suspended", "Acme Corp")
    assert (sink.customers["acme"][0], sink.customers["acme"][1]["status"]) == (2, "suspended")


async def test_a_secret_lets_in_until_it_is_revoked(accounts, sink) -> None:
    """Revocation is immediate: when it returns, Redis knows the secret no more."""
    await accounts.create_customer(ACME)
    agent = await agent_of(accounts)
    expires = ANCHOR + timedelta(days=1)
    await accounts.create_secret(agent.id, "s1", "d1", expires)
    await accounts.create_secret(agent.id, "s2", "d2", None)
    _, _, secrets, digests, revoked = sink.customers["acme"]
    assert secrets == {"s1": 1_769_949_000_123, "s2": 0}
    assert digests["d1"] == {
        "secret_id": "s1",
        "agent_id": agent.id,
        "agent_type_id": "research",
        "customer_id": "acme",
        "expires_at_ms": 1_769_949_000_123,
    }
    await accounts.revoke_secret(agent.id, "s1")
    _, _, secrets, digests, revoked = sink.customers["acme"]
    assert (list(secrets), list(digests), revoked) == (["s2"], ["d2"], ["d1"])
    kept = {secret.id: secret for secret in await accounts.secrets(agent.id)}
    assert kept["s1"].revoked_at is not None
    await accounts.revoke_secret(agent.id, "s1")
    assert (await accounts.secrets(agent.id))[0].revoked_at == kept["s1"].revoked_at


async def test_what_is_not_there_is_said_by_kind_and_id(accounts) -> None:
    """The API answers 404 with this sentence."""
    await accounts.create_customer(ACME)
    agent = await agent_of(accounts)
    await accounts.create_customer(ACME | {"id": "other"})
    theirs = await accounts.create_contact("other", {"name": "Bo"})
    of = {"name": "x", "customer_id": "acme", "agent_type_id": "research"}
    attempts = [
        ("customer", accounts.customer("none")),
        ("customer", accounts.change_customer("none", {"plan": "pro"})),
        ("customer", accounts.contacts("none", 10, None)),
        ("customer", accounts.create_contact("none", {"name": "x"})),
        ("customer", accounts.create_agent(of | {"customer_id": "none"})),
        ("agent type", accounts.create_agent(of | {"agent_type_id": "none"})),
        ("contact of this customer", accounts.create_agent(of | {"contact_id": theirs.id})),
        ("agent", accounts.create_secret("none", "s", "d", None)),
        ("secret of this agent", accounts.revoke_secret(agent.id, "none")),
    ]
    for kind, attempt in attempts:
        with pytest.raises(NotFound) as missing:
            await attempt
        assert missing.value.kind == kind


async def test_a_taken_id_is_refused_and_changes_nothing(accounts, sink) -> None:
    """A second POST with the same id answers 409, and must not move anything."""
    await accounts.create_customer(ACME)
    agent = await agent_of(accounts)
    await accounts.create_secret(agent.id, "s1", "d1", None)
    revision = sink.customers["acme"][0]
    for attempt in (
        accounts.create_customer(ACME | {"name": "Other"}),
        accounts.create_agent({"id": agent.id, "name": "x", "customer_id": "acme", "agent_type_id": "research"}),
        accounts.create_agent_type({"id": "research", "name": "x", "kind": "custom"}),
        accounts.create_secret(agent.id, "s1", "d2", None),
        accounts.create_secret(agent.id, "s2", "d1", None),
    ):
        with pytest.raises(AlreadyExists):
            await attempt
    await accounts.change_customer("acme", {})
    assert sink.customers["acme"][0] == revision + 1
    assert (await accounts.customer("acme")).name == "Acme Corp"


async def test_pages_show_everything_once_though_created_in_one_instant(accounts, clock) -> None:
    """A list that repeats or skips an entry at a page's edge misleads whoever counts by it."""
    ids = [f"c{n:02d}" for n in range(7)]
    for id in ids:
        await accounts.create_customer(ACME | {"id": id})
    clock.us += 1
    await accounts.create_customer(ACME | {"id": "a-later-one"})
    seen, cursor = [], None
    while True:
        page = await accounts.customers(3, cursor)
        seen += [customer.id for customer in page.data]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [*ids, "a-later-one"]
    for bad in ("x", "é", "W10", "WzEsMl0"):
        with pytest.raises(BadCursor):
            await accounts.customers(3, bad)


async def test_agents_and_contacts_are_listed_by_customer(accounts) -> None:
    """Each customer's page shows its own."""
    for id in ("acme", "other"):
        await accounts.create_customer(ACME | {"id": id})
    mine, other = await agent_of(accounts), await agent_of(accounts, "other")
    contact = await accounts.create_contact("acme", {"name": "Ada", "email": "ada@acme.test"})
    assert [agent.id for agent in (await accounts.agents(10, None, "acme")).data] == [mine.id]
    assert [agent.id for agent in (await accounts.agents(10, None)).data] == [mine.id, other.id]
    assert (await accounts.contacts("acme", 10, None)).data == [contact]
    assert [kind.id for kind in (await accounts.agent_types(10, None)).data] == ["research"]


async def test_an_unprojected_write_says_so_and_is_projected_later(accounts, sink, projector) -> None:
    """With Redis away the gate cannot obey yet, and an admin must not believe that it does."""
    await accounts.create_customer(ACME)
    sink.away = True
    with pytest.raises(NotProjected):
        await accounts.change_customer("acme", {"status": "suspended"})
    assert (await accounts.customer("acme")).status == "suspended"
    sink.away = False
    await projector.project_outbox()
    assert sink.customers["acme"][1]["status"] == "suspended"


async def test_a_blank_redis_gets_the_whole_directory_by_itself(accounts, sink, projector) -> None:
    """After a flush every customer would be refused until somebody touched it."""
    for n in range(5):
        await accounts.create_customer(ACME | {"id": f"c{n}"})
    sink.customers, sink.complete = {}, False
    told = []
    assert await projector.project_all(told.append) == 5
    assert (len(sink.customers), sink.complete, told) == (5, True, [5])
    sink.customers, sink.complete = {}, False
    sink.marked.clear()
    await accounts.change_customer("c3", {"plan": "pro"})
    await asyncio.wait_for(sink.marked.wait(), 5)
    assert (len(sink.customers), sink.complete) == (5, True)


async def test_concurrent_changes_end_in_the_last_revision(accounts, sink) -> None:
    """Two admins at once: both changes count, and Redis ends with the newest state."""
    await accounts.create_customer(ACME)
    await asyncio.gather(*(accounts.change_customer("acme", {"plan": f"p{n}"}) for n in range(6)))
    assert sink.customers["acme"][0] == 7
    assert sink.customers["acme"][1]["plan"] == (await accounts.customer("acme")).plan


async def test_an_unknown_field_is_refused_by_name(accounts) -> None:
    """A misspelt field that is ignored is a change that did not happen."""
    await accounts.create_customer(ACME)
    with pytest.raises(ValueError, match="'statsu' is no field"):
        await accounts.change_customer("acme", {"statsu": "suspended"})
