"""Which plan a customer is on changes when it was asked to, once, and is never forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from proxy.billing.ports import BadCursor, NotFound, PlanInUse
from proxy.ledger.audit import overridden
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import reading
from proxy.ledger.outbox import Projector
from proxy.ledger.plans import refuse_if_used
from proxy.ledger.subscriptions import SqlSubscriptions, adopt_default_plan, apply_due
from proxy.ledger.tables import audit_log, micros, moment

ANCHOR = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
ACME = {"id": "acme", "name": "Acme", "timezone": "Europe/Berlin", "plan": "pro", "anchor": ANCHOR}


class MemorySink:
    """The port `DirectorySink`, as far as a customer's document goes."""

    def __init__(self) -> None:
        self.docs = {}

    async def project_customer(self, customer_id, doc, revision, secrets, digests, revoked_digests):
        self.docs[customer_id] = (revision, doc)

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
    yield SqlAccounts(engine, clock, lambda n: next(numbers).to_bytes(n, "big"), projector.wait_for)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def subscriptions(accounts) -> SqlSubscriptions:
    return SqlSubscriptions(accounts)


async def history(subscriptions, id="acme"):
    page = await subscriptions.history(id, 100, None)
    return [(change.what, change.from_plan, change.plan) for change in reversed(page.data)]


async def test_an_upgrade_acts_at_once_and_leaves_the_windows(accounts, subscriptions, sink) -> None:
    """Usage is carried: counters are named by the anchor and never by the plan."""
    await accounts.create_customer(ACME)
    changed = await subscriptions.change("acme", "max", None)
    assert (changed.plan, changed.anchor, changed.scheduled) == ("max", ANCHOR, None)
    revision, doc = sink.docs["acme"]
    assert (revision, doc["plan"], doc["anchor_us"]) == (2, "max", micros(ANCHOR))
    assert await history(subscriptions) == [("started", None, "pro"), ("changed", "pro", "max")]


async def test_a_reset_begins_the_windows_now(accounts, subscriptions, clock) -> None:
    """Reset is said to be a re-anchoring, and is nothing else."""
    await accounts.create_customer(ACME)
    assert (await subscriptions.change("acme", "max", None, reset=True)).anchor == moment(clock.us)
    moved = await subscriptions.change("acme", None, ANCHOR)
    assert (moved.plan, moved.anchor) == ("max", ANCHOR)
    assert (await history(subscriptions))[-1] == ("re-anchored", "max", "max")


async def test_a_downgrade_waits_for_the_end_of_the_period(accounts, subscriptions, sink, clock) -> None:
    """Months from 31 January end on the last of November, by Berlin's clocks: half past one there."""
    await accounts.create_customer(ACME)
    changed = await subscriptions.schedule("acme", "free")
    end = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
    assert (changed.plan, changed.scheduled.plan, changed.scheduled.at) == ("pro", "free", end)
    assert sink.docs["acme"][1]["scheduled"] == {"plan": "free", "at_us": micros(end)}
    assert sink.docs["acme"][1]["plan"] == "pro"


async def test_what_is_scheduled_is_applied_when_it_is_due_and_once(
    engine, accounts, subscriptions, sink, clock
) -> None:
    """Two keepers look at the same moment; one change, one line of history, one revision."""
    await accounts.create_customer(ACME)
    due = (await subscriptions.schedule("acme", "free")).scheduled.at
    assert await apply_due(engine, micros(due) - 1) == 0
    applied = await asyncio.gather(*(apply_due(engine, micros(due)) for _ in range(3)))
    assert sum(applied) == 1
    customer = await accounts.customer("acme")
    assert (customer.plan, customer.subscribed, customer.scheduled) == ("free", True, None)
    page = await subscriptions.history("acme", 1, None)
    (newest,) = page.data
    assert (newest.what, newest.plan, newest.effective_at) == ("changed", "free", due)
    await accounts.change_customer("acme", {"name": "Acme Corp"})
    assert sink.docs["acme"][0] == 4
    assert "scheduled" not in sink.docs["acme"][1]
    async with reading(engine) as connection:
        actors = list((await connection.execute(select(audit_log.c.actor_name))).scalars())
    assert actors.count("subscription schedule") == 1


async def test_a_scheduled_change_can_be_taken_back(engine, accounts, subscriptions) -> None:
    """By asking for it, by scheduling the plan it is on, and by any plan that is to act at once."""
    await accounts.create_customer(ACME)
    due = (await subscriptions.schedule("acme", "free")).scheduled.at
    assert (await subscriptions.unschedule("acme")).scheduled is None
    with pytest.raises(NotFound):
        await subscriptions.unschedule("acme")
    await subscriptions.schedule("acme", "free")
    assert (await subscriptions.schedule("acme", "pro")).scheduled is None
    await subscriptions.schedule("acme", "free")
    assert (await subscriptions.change("acme", "max", None)).scheduled is None
    await subscriptions.schedule("acme", "free")
    assert (await accounts.change_customer("acme", {"plan": "pro"})).scheduled is None
    assert await apply_due(engine, micros(due)) == 0
    assert [what for what, _, _ in await history(subscriptions)] == [
        "started", "scheduled", "unscheduled", "scheduled", "unscheduled", "scheduled", "changed", "scheduled",
        "changed",
    ]  # fmt: skip


async def test_a_re_anchoring_moves_what_waits_for_the_end_of_the_period(accounts, subscriptions) -> None:
    """It was promised for the end of the period, and that is another now."""
    await accounts.create_customer(ACME)
    await subscriptions.schedule("acme", "free")
    changed = await subscriptions.change("acme", None, ANCHOR + timedelta(days=5))
    assert changed.scheduled.at == datetime(2026, 12, 5, 12, 30, tzinfo=UTC)


async def test_a_canceled_customer_is_on_the_default_plan(engine, accounts, subscriptions, sink) -> None:
    """And stays on it whatever the settings call it, until it subscribes again."""
    await accounts.create_customer(ACME)
    await accounts.create_customer(ACME | {"id": "other", "plan": "pro"})
    await subscriptions.schedule("acme", "max")
    canceled = await subscriptions.cancel("acme", "free")
    assert (canceled.plan, canceled.subscribed, canceled.scheduled) == ("free", False, None)
    with pytest.raises(NotFound):
        await subscriptions.cancel("acme", "free")
    with pytest.raises(NotFound):
        await subscriptions.schedule("acme", "pro")
    await adopt_default_plan(engine, "trial", 5)
    assert (await accounts.customer("acme")).plan == "trial"
    assert (await accounts.customer("other")).plan == "pro"
    again = await subscriptions.change("acme", "pro", None)
    assert (again.plan, again.subscribed) == ("pro", True)
    assert sink.docs["acme"] == (5, sink.docs["acme"][1] | {"plan": "pro"})
    whats = [what for what, _, _ in await history(subscriptions)]
    assert whats == ["started", "scheduled", "canceled", "default_changed", "started"]


async def test_a_cancellation_at_the_end_of_the_period_ends_on_the_default_plan_of_then(
    engine, accounts, subscriptions
) -> None:
    """The setting may be changed between the cancellation and its day."""
    await accounts.create_customer(ACME)
    changed = await subscriptions.schedule("acme", "free", cancels=True)
    assert (changed.subscribed, changed.scheduled.cancels) == (True, True)
    await adopt_default_plan(engine, "trial", 5)
    await apply_due(engine, micros(changed.scheduled.at))
    ended = await accounts.customer("acme")
    assert (ended.plan, ended.subscribed, ended.scheduled) == ("trial", False, None)


async def test_history_comes_in_pages(accounts, subscriptions) -> None:
    """Newest first, and none twice."""
    await accounts.create_customer(ACME)
    for plan in ("a", "b", "c"):
        await subscriptions.change("acme", plan, None)
    first = await subscriptions.history("acme", 3, None)
    second = await subscriptions.history("acme", 3, first.next_cursor)
    assert [change.plan for change in (*first.data, *second.data)] == ["c", "b", "a", "pro"]
    assert second.next_cursor is None
    with pytest.raises(BadCursor):
        await subscriptions.history("acme", 3, "nonsense")
    with pytest.raises(NotFound):
        await subscriptions.history("nobody", 3, None)


async def test_a_plan_that_somebody_will_be_on_cannot_go(engine, accounts, subscriptions) -> None:
    """Else the downgrade would lead to a plan that grants nothing."""
    await accounts.create_customer(ACME)
    await subscriptions.schedule("acme", "free")
    async with reading(engine) as connection:
        for plan in ("pro", "free"):
            with pytest.raises(PlanInUse):
                await refuse_if_used(connection, plan)
        await refuse_if_used(connection, "other")


async def test_who_was_overridden_once_stays_known(engine, accounts) -> None:
    """Its counters may stand above its plan's limits with right, long after its own limit was taken back."""
    await accounts.create_customer(ACME)
    await accounts.create_customer(ACME | {"id": "other"})
    limit = {"budgets": {"b": {"meter": "tokens", "limit": 5}}}
    await accounts.change_customer("acme", {"overrides": limit})
    changed = await accounts.change_customer("acme", {"overrides": {}})
    assert changed.overrides == {}
    assert await overridden(engine) == {"acme"}
