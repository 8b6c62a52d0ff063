"""Credit that a customer was given is written once, acts at once, and ends when it was said to."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from proxy.billing.ports import AlreadyExists, NotFound, TooManyGrants
from proxy.domain.grants import Grant
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.grants import LIVE_MOST, SqlGrants
from proxy.ledger.outbox import Projector
from proxy.ledger.tables import moment

ACME = {"id": "acme", "name": "Acme", "plan": "pro"}
PACK = {"meter": "tokens", "amount": 500}


class MemorySink:
    """The port `DirectorySink`, as far as a customer's grants go."""

    def __init__(self) -> None:
        self.grants, self.revisions = {}, {}

    async def project_customer(self, customer_id, doc, revision, secrets, digests, revoked_digests):
        self.grants[customer_id] = [Grant(**grant) for grant in doc.get("grants", ())]
        self.revisions[customer_id] = revision

    async def is_complete(self):
        return True


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def accounts(engine, clock, sink):
    projector = Projector(engine, sink, clock.now_us)
    running = asyncio.create_task(projector.run())
    numbers = iter(range(1, 10_000))
    accounts = SqlAccounts(engine, clock, lambda n: next(numbers).to_bytes(n, "big"), projector.wait_for)
    await accounts.create_customer(ACME)
    yield accounts
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def grants(accounts) -> SqlGrants:
    return SqlGrants(accounts)


async def test_a_grant_is_projected_when_it_is_given(grants, sink, clock) -> None:
    """The next request may burn it, on every worker."""
    made = await grants.create("acme", PACK | {"priority": 5, "budget_id": "monthly", "reason": "sorry"})
    assert (made.priority, made.effective_at, made.expires_at) == (5, moment(clock.us), None)
    assert await grants.grant("acme", made.id) == made
    assert sink.revisions["acme"] == 2
    assert sink.grants["acme"] == [
        Grant(made.id, "tokens", 500, "customer", "monthly", 5, clock.us, None, clock.us)
    ]


async def test_a_voided_grant_is_projected_no_more(grants, sink, clock) -> None:
    """The unused part stops at once; a second time changes nothing, but is projected again."""
    made = await grants.create("acme", PACK)
    clock.us += 7
    voided = await grants.void("acme", made.id)
    assert voided.voided_at == moment(clock.us)
    assert sink.grants["acme"] == []
    clock.us += 7
    assert await grants.void("acme", made.id) == voided
    assert sink.revisions["acme"] == 4


async def test_a_grant_that_is_over_is_projected_no_more_and_one_to_come_is(accounts, grants, sink, clock) -> None:
    """What a customer's document holds is bounded by what is still of use."""
    now = moment(clock.us)
    over = await grants.create("acme", PACK | {"expires_at": now + timedelta(seconds=1)})
    to_come = await grants.create("acme", PACK | {"effective_at": now + timedelta(days=9), "priority": 1})
    assert [grant.id for grant in sink.grants["acme"]] == [over.id, to_come.id]
    clock.us += 1_000_000
    await accounts.change_customer("acme", {"name": "Acme Corp"})
    assert [grant.id for grant in sink.grants["acme"]] == [to_come.id]
    assert [grant.id for grant in (await grants.grants("acme", 10, None, only_live=True)).data] == [to_come.id]
    assert len((await grants.grants("acme", 10, None)).data) == 2


async def test_a_customer_has_only_so_many_live_grants(grants, clock) -> None:
    """Every request looks at all of them: there is an end to it, and what is over does not count."""
    expires = {"expires_at": moment(clock.us + 50)}
    for n in range(LIVE_MOST):
        await grants.create("acme", PACK | ({"id": "first"} if n == 0 else {}) | expires)
    with pytest.raises(TooManyGrants, match="Void those"):
        await grants.create("acme", PACK)
    await grants.void("acme", "first")
    await grants.create("acme", PACK)
    clock.us += 50
    await grants.create("acme", PACK)


async def test_ids_are_taken_once_and_grants_belong_to_their_customer(accounts, grants) -> None:
    """A retried top-up must not be given twice, and no path leads to another customer's credit."""
    await accounts.create_customer(ACME | {"id": "other"})
    await grants.create("acme", PACK | {"id": "pack-1"})
    with pytest.raises(AlreadyExists):
        await grants.create("acme", PACK | {"id": "pack-1"})
    for ask in (grants.grant, grants.void):
        with pytest.raises(NotFound):
            await ask("other", "pack-1")
    with pytest.raises(NotFound):
        await grants.create("nobody", PACK)
    with pytest.raises(NotFound):
        await grants.grants("nobody", 10, None)


async def test_grants_come_in_pages(grants, clock) -> None:
    """Oldest first, none twice, none left out."""
    made = []
    for _ in range(5):
        clock.us += 1
        made.append((await grants.create("acme", PACK)).id)
    first = await grants.grants("acme", 3, None)
    second = await grants.grants("acme", 3, first.next_cursor)
    assert [grant.id for grant in (*first.data, *second.data)] == made
    assert second.next_cursor is None
