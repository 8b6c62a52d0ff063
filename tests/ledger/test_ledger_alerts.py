"""Alerts on both databases: raised once, whoever raises them, and never forgotten between looking and raising."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.domain.alerts import Alert, upstream_turn
from proxy.domain.policy import Plan
from proxy.ledger import alert_sources as sources
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.counter_sums import add
from proxy.ledger.engine import writing
from proxy.ledger.plans import apply_policy
from proxy.ledger.tables import customers, denials, grants, micros, moment
from proxy.ledger.webhooks import SqlWebhooks

STARTS_US, ENDS_US = 1_795_000_000_000_000, 1_797_592_000_000_000
COUNTER = f"acme/customer/monthly/tokens/P1M/{STARTS_US}"


def alert(threshold: str = "80%", **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "type": "budget.threshold_reached",
        "key": f"budget.threshold_reached/{COUNTER}/{threshold}",
        "data": {"customer_id": "acme", "threshold": threshold},
        "customer_id": "acme",
        "subject": "customer",
        "budget_id": "monthly",
        "threshold": threshold,
        "window_start_us": STARTS_US,
        "window_end_us": ENDS_US,
        "renews": True,
    }
    return Alert(**fields | changes)


@pytest.fixture
def raising(engine: AsyncEngine, clock: Any) -> SqlAlerts:
    return SqlAlerts(engine, clock, os.urandom)


async def charge(engine: AsyncEngine, amount: int, counter: str = COUNTER) -> None:
    async with writing(engine) as connection:
        await add(connection, [{"shard": 3, "charged": [{"counter": counter, "amount": amount}]}])


async def raised(raising: SqlAlerts, **filters: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in (await raising.alerts(filters, 100, None)).data]


async def test_many_writers_at_once_raise_one_alert_and_one_delivery(raising: SqlAlerts) -> None:
    """Several keepers look at the same counters; the receiver must not hear of it from each."""
    await SqlWebhooks(raising).create_endpoint({"url": "https://example.com", "events": ["*"]})
    both = [alert("95%"), alert("80%")]
    found = await asyncio.gather(*(raising.raise_all(order) for order in (both, both[::-1]) * 4))
    assert sorted(len(types) for types in found if types) in ([2], [1, 1])
    assert sorted(row["threshold"] for row in await raised(raising)) == ["80%", "95%"]
    assert len((await SqlWebhooks(raising).deliveries({}, 100, None)).data) == 2


async def test_what_was_charged_is_unwatched_until_its_alerts_are_raised(
    engine: AsyncEngine, raising: SqlAlerts
) -> None:
    """A keeper that dies between looking and raising has lost nothing; what moves meanwhile is looked at again."""
    assert await sources.unwatched_counters(engine) == {}
    await charge(engine, 800)
    seen = await sources.unwatched_counters(engine)
    assert seen == {COUNTER: 800}
    assert await sources.unwatched_counters(engine) == seen
    await charge(engine, 50)
    assert await sources.raise_of_counters(raising, [alert()], seen) == ["budget.threshold_reached"]
    assert await sources.unwatched_counters(engine) == {COUNTER: 850}
    assert await sources.raise_of_counters(raising, [alert()], {COUNTER: 850}) == []
    assert await sources.unwatched_counters(engine) == {}
    assert await sources.recorded_amounts(engine, [COUNTER, "unknown"]) == {COUNTER: 850, "unknown": 0}


async def test_a_fault_while_raising_leaves_the_counter_unwatched(engine: AsyncEngine, raising: SqlAlerts) -> None:
    """Mark and alert are one transaction."""
    await charge(engine, 800)
    seen = await sources.unwatched_counters(engine)
    with pytest.raises(StatementError):
        await sources.raise_of_counters(raising, [alert("80%"), alert("95%", data={"x": object()})], seen)
    assert await sources.unwatched_counters(engine) == seen
    assert await raised(raising) == []


async def test_the_list_is_newest_first_and_filtered(raising: SqlAlerts, clock: Any) -> None:
    for number in range(5):
        clock.us += 1_000_000
        customer_id = "acme" if number % 2 else "other"
        await raising.raise_all([alert(key=str(number), customer_id=customer_id, data={"number": number})])
    assert [row["data"]["number"] for row in await raised(raising)] == [4, 3, 2, 1, 0]
    assert [row["data"]["number"] for row in await raised(raising, customer_id="acme")] == [3, 1]
    assert await raised(raising, type="plan.changed") == []
    since = moment(clock.us - 1_000_000)
    assert [row["data"]["number"] for row in await raised(raising, **{"from": since})] == [4, 3]
    page = await raising.alerts({}, 2, None)
    rest = await raising.alerts({}, 10, page.next_cursor)
    assert [row["data"]["number"] for row in (*page.data, *rest.data)] == [4, 3, 2, 1, 0]
    assert await raising.alert(page.data[0]["id"]) == page.data[0]


async def test_only_endpoints_that_asked_for_it_get_an_alert(raising: SqlAlerts, engine: AsyncEngine) -> None:
    """What concerns one customer must not reach the endpoint of another."""
    webhooks = SqlWebhooks(raising)
    async with writing(engine) as connection:
        await connection.execute(insert(customers), [customer("acme"), customer("other")])
    for id, fields in {
        "all": {"events": ["*"]},
        "some": {"events": ["plan.changed", "budget.threshold_reached"]},
        "not-these": {"events": ["plan.changed"]},
        "its-own": {"events": ["*"], "customer_id": "acme"},
        "anothers": {"events": ["*"], "customer_id": "other"},
        "disabled": {"events": ["*"]},
    }.items():
        await webhooks.create_endpoint({"id": id, "url": "https://example.com", **fields})
    await webhooks.change_endpoint("disabled", {"enabled": False})

    await raising.raise_all([alert()])
    sent = (await webhooks.deliveries({}, 100, None)).data
    assert sorted(delivery.endpoint_id for delivery in sent) == ["all", "its-own", "some"]
    (row,) = await raised(raising)
    assert {delivery.message_id for delivery in sent} == {row["id"]}
    body = orjson.loads(sent[0].body)
    assert body == {"type": row["type"], "timestamp": body["timestamp"], "data": dict(row["data"])}

    await raising.raise_all([upstream_turn("openai", "gpt", True, 1)])
    of_the_gate = (await webhooks.deliveries({"type": "upstream.down"}, 100, None)).data
    assert [delivery.endpoint_id for delivery in of_the_gate] == ["all"]


async def test_down_and_up_are_told_in_turn(raising: SqlAlerts, clock: Any) -> None:
    """Two keepers see one outage; and nobody is told that what was never down is up."""

    async def turn(down: bool) -> bool:
        clock.us += 1
        opposite = "upstream.up" if down else "upstream.down"
        return await raising.raise_turn(upstream_turn("openai", "gpt", down, clock.us), opposite)

    assert [await turn(down) for down in (False, True, True, False, False, True)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip
    assert await raising.down_upstreams() == [("openai", "gpt")]
    await turn(False)
    assert await raising.down_upstreams() == []


async def test_a_window_that_turned_is_told_once(engine: AsyncEngine, raising: SqlAlerts) -> None:
    """No job waits for each customer: the alerts themselves say when their windows end."""
    await raising.raise_all(
        [alert("80%"), alert("95%"), alert("1", key="lifetime", window_end_us=None, renews=False)]
    )
    assert await sources.renewing(engine, ENDS_US - 1) == []
    due = await sources.renewing(engine, ENDS_US)
    assert due == [sources.Renewing("acme", "customer", "monthly", STARTS_US)]
    renewed = alert(type="budget.renewed", key="renewed", renews=False)
    assert await sources.raise_renewals(raising, [renewed], due) == ["budget.renewed"]
    assert await sources.renewing(engine, ENDS_US) == []


async def test_each_revision_is_looked_at_once_and_in_order(
    engine: AsyncEngine, raising: SqlAlerts, clock: Any
) -> None:
    """100 edits in a minute are 100 changes, also while the keeper was away."""
    starter = Plan("starter", "Starter", 0)
    for name in ("Starter", "Beginner", "First"):
        await apply_policy(engine, clock, {}, [Plan("starter", name, 0)])
    first = await sources.next_revision(engine)
    assert first is not None
    assert (first.number, first.before) == (1, None)
    assert first.after["starter"].name == starter.name
    names = []
    while revision := await sources.next_revision(engine):
        names.append((revision.before and revision.before["starter"].name, revision.after["starter"].name))
        await sources.raise_of_revision(raising, [], revision.number)
    assert names == [(None, "Starter"), ("Starter", "Beginner"), ("Beginner", "First")]


async def test_a_grant_is_told_of_when_it_ends_soon(engine: AsyncEngine, raising: SqlAlerts, clock: Any) -> None:
    now = moment(clock.us)
    async with writing(engine) as connection:
        await connection.execute(insert(customers), [customer("acme")])
        await connection.execute(
            insert(grants),
            [
                grant("soon", now, timedelta(days=6)),
                grant("later", now, timedelta(days=8)),
                grant("over", now, timedelta(seconds=-1)),
                grant("never", now, None),
                grant("voided", now, timedelta(days=1)) | {"voided_at": now},
            ],
        )
    found = await sources.expiring_grants(engine, clock.us, timedelta(days=7))
    assert [(customer_id, grant.id) for customer_id, grant in found] == [("acme", "soon")]
    await raising.raise_all([Alert("grant.expiring", "grant.expiring/soon", {}, "acme")])
    assert await sources.expiring_grants(engine, clock.us, timedelta(days=7)) == []


async def test_who_was_denied_lately_is_found(engine: AsyncEngine) -> None:
    row = {"agent_id": "scout", "model": "m", "count": 1, "sample_request_id": "r", "sample_message": "m"}
    async with writing(engine) as connection:
        for minute, customer_id, reason in (
            (10, "acme", "budget"),
            (9, "old", "budget"),
            (10, "other", "suspended"),
        ):
            values = row | {"minute": minute, "customer_id": customer_id, "reason": reason}
            await connection.execute(insert(denials).values(**values))
    assert await sources.denied_since(engine, 10) == [("acme", "scout")]


async def test_customers_are_seen_as_the_gate_sees_them(engine: AsyncEngine, clock: Any) -> None:
    """Limits are those of the plan with what is the customer's own."""
    now = moment(clock.us)
    async with writing(engine) as connection:
        await connection.execute(insert(customers), [customer("acme"), customer("other")])
        await connection.execute(
            update(customers).where(customers.c.id == "acme").values(overrides={"features": {"x": True}})
        )
        await connection.execute(insert(grants), [grant("pack", now, timedelta(days=6))])
    found = await sources.identities(engine, ["acme", "other", "unknown"], clock.us, 16)
    assert sorted(found) == ["acme", "other"]
    assert [grant.id for grant in found["acme"].grants] == ["pack"]
    assert found["acme"].overrides == {"features": {"x": True}}
    assert (found["other"].grants, found["other"].overrides) == ((), {})


def customer(id: str) -> dict[str, Any]:
    created = moment(STARTS_US)
    return {
        "id": id, "name": id, "timezone": "UTC", "status": "active", "plan": "starter", "anchor": created,
        "created_at": created, "revision": 1,
    }  # fmt: skip


def grant(id: str, now: Any, ends: timedelta | None) -> dict[str, Any]:
    assert micros(now)
    return {
        "id": id, "customer_id": "acme", "meter": "tokens", "amount": 5, "per": "customer", "budget_id": None,
        "priority": 128, "effective_at": now - timedelta(days=1),
        "expires_at": None if ends is None else now + ends, "reason": None, "created_at": now, "voided_at": None,
    }  # fmt: skip
