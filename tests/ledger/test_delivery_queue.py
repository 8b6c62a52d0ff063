"""The queue of deliveries on both databases: no attempt is made by two at once, none is lost with its maker."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.billing.alerts import EndpointDisabled, Outcome, WebhookEndpoint
from proxy.billing.ports import AlreadyExists, NotFound
from proxy.domain.alerts import upstream_turn
from proxy.domain.deeds import Actor, Deed
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.delivery_queue import SqlDeliveryQueue
from proxy.ledger.webhooks import SqlWebhooks

LEASE_US = 45_000_000
DAY_US = 86_400_000_000
DELIVERED, FAILED = Outcome(200, None), Outcome(500, "it answered 500")


@pytest.fixture
def raising(engine: AsyncEngine, clock: Any) -> SqlAlerts:
    return SqlAlerts(engine, clock, os.urandom)


@pytest.fixture
def webhooks(raising: SqlAlerts) -> SqlWebhooks:
    return SqlWebhooks(raising)


@pytest.fixture
def queue(engine: AsyncEngine) -> SqlDeliveryQueue:
    numbers = itertools.count(1)
    return SqlDeliveryQueue(engine, lambda: f"claim{next(numbers)}")


async def make(webhooks: SqlWebhooks, id: str = "home", **fields: Any) -> WebhookEndpoint:
    return await webhooks.create_endpoint({"id": id, "url": "https://example.com", "events": ["*"], **fields})


async def happen(raising: SqlAlerts, count: int) -> None:
    await raising.raise_all([upstream_turn("openai", "gpt", True, number) for number in range(count)])


async def test_of_many_who_claim_at_once_each_delivery_goes_to_one(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """Two keepers that send the same attempt have the receiver act twice at the same moment."""
    await make(webhooks)
    await happen(raising, 20)
    claims = await asyncio.gather(*(queue.claim(20, 20, {}, clock.us, LEASE_US) for _ in range(6)))
    ids = [delivery.id for claim in claims for delivery, _, _ in claim]
    assert len(ids) == len(set(ids)) == 20


async def test_a_claim_is_ours_until_its_lease_ends_and_then_anybodys(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """Whoever died with it has lost it; whoever was only slow writes nothing over the other's attempt."""
    await make(webhooks)
    await happen(raising, 1)
    ((delivery, endpoint, first),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    assert endpoint.id == "home"
    assert await queue.claim(9, 9, {}, clock.us + LEASE_US - 1, LEASE_US) == []
    ((again, _, second),) = await queue.claim(9, 9, {}, clock.us + LEASE_US, LEASE_US)
    assert (again.id, again.body) == (delivery.id, delivery.body)
    assert not await queue.finish(delivery, first, DELIVERED, clock.us, None)
    assert await queue.finish(again, second, FAILED, clock.us, clock.us + 5)
    waiting = await webhooks.delivery(delivery.id)
    assert (waiting.status, waiting.attempts, waiting.last_status) == ("pending", 1, 500)


async def test_a_failed_delivery_waits_and_at_last_is_dead(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """And an admin who has repaired the receiver sends it again."""
    await make(webhooks)
    await happen(raising, 1)
    ((delivery, _, claim),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    await queue.finish(delivery, claim, FAILED, clock.us, clock.us + 1000)
    assert await queue.claim(9, 9, {}, clock.us + 999, LEASE_US) == []
    ((delivery, _, claim),) = await queue.claim(9, 9, {}, clock.us + 1000, LEASE_US)
    await queue.finish(delivery, claim, Outcome(None, "no answer within 15 s"), clock.us, None)
    assert await queue.lengths() == (0, 1)
    (dead,) = (await webhooks.deliveries({"status": "dead"}, 9, None)).data
    assert (dead.attempts, dead.next_at, dead.last_status, dead.last_error) == (
        2,
        None,
        None,
        "no answer within 15 s",
    )

    replayed = await webhooks.replay(dead.id)
    assert (replayed.status, replayed.attempts) == ("pending", 0)
    ((delivery, _, claim),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    assert delivery.message_id == dead.message_id
    await queue.finish(delivery, claim, DELIVERED, clock.us, None)
    assert await queue.lengths() == (0, 0)
    assert (await webhooks.delivery(dead.id)).status == "delivered"


async def test_a_replay_does_not_take_away_what_is_under_way(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    await make(webhooks)
    await happen(raising, 1)
    ((delivery, _, claim),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    await webhooks.replay(delivery.id)
    assert await queue.claim(9, 9, {}, clock.us, LEASE_US) == []
    assert await queue.finish(delivery, claim, DELIVERED, clock.us, None)


async def test_one_endpoint_never_takes_the_places_of_others(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """A receiver that hangs has a long queue, and it is always the oldest."""
    await make(webhooks, "slow")
    await happen(raising, 250)
    clock.us += 1000
    await make(webhooks, "quick", events=["upstream.up"])
    await raising.raise_all([upstream_turn("openai", "gpt", False, 1)])
    claimed = await queue.claim(32, 4, {"slow": 1}, clock.us, LEASE_US)
    assert [endpoint.id for _, endpoint, _ in claimed] == ["slow"] * 3
    claimed = await queue.claim(32, 4, {"slow": 4}, clock.us, LEASE_US)
    assert [endpoint.id for _, endpoint, _ in claimed] == ["quick"]
    assert len(await queue.claim(2, 4, {}, clock.us, LEASE_US)) == 2


async def test_nothing_is_claimed_for_who_is_disabled_or_gone(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """What waits for a disabled endpoint waits until it is enabled again."""
    await make(webhooks, "disabled")
    await make(webhooks, "deleted")
    await happen(raising, 1)
    await webhooks.change_endpoint("disabled", {"enabled": False})
    await webhooks.delete_endpoint("deleted")
    assert await queue.claim(9, 9, {}, clock.us, LEASE_US) == []
    (waiting,) = (await webhooks.deliveries({}, 9, None)).data
    with pytest.raises(EndpointDisabled):
        await webhooks.replay(waiting.id)
    with pytest.raises(EndpointDisabled):
        await webhooks.send_test("disabled")
    await webhooks.change_endpoint("disabled", {"enabled": True})
    assert len(await queue.claim(9, 9, {}, clock.us, LEASE_US)) == 1


async def test_410_disables_the_endpoint_and_says_so_in_the_audit_log(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any, engine: AsyncEngine
) -> None:
    """The receiver has asked for it; the admin has not, and must be able to see who it was."""
    await make(webhooks)
    await happen(raising, 1)
    ((delivery, _, claim),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    assert await queue.finish(delivery, claim, Outcome(410, "it answered 410", gone=True), clock.us, None)
    gone = await webhooks.endpoint("home")
    assert (gone.enabled, gone.disabled_reason) == (False, "it answered 410 Gone")
    entry = (await SqlAuditLog(engine, clock).entries({}, 1, None)).data[0]
    assert (entry["actor"]["name"], entry["resource"]["id"]) == ("webhooks", "home")
    assert entry["changes"]["enabled"] == {"from": True, "to": False}
    enabled = await webhooks.change_endpoint("home", {"enabled": True})
    assert enabled.disabled_reason is None


async def test_what_was_delivered_long_ago_is_forgotten(
    raising: SqlAlerts, webhooks: SqlWebhooks, queue: SqlDeliveryQueue, clock: Any
) -> None:
    """Dead letters stay: somebody may still want them."""
    await make(webhooks)
    await happen(raising, 3)
    delivered, dead, _ = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    await queue.finish(delivered[0], delivered[2], DELIVERED, clock.us, None)
    await queue.finish(dead[0], dead[2], FAILED, clock.us, None)
    assert await queue.forget_delivered(clock.us) == 0
    assert await queue.forget_delivered(clock.us + 1) == 1
    assert await queue.forget_delivered(clock.us + 1) == 0
    assert await queue.lengths() == (1, 1)


async def test_an_endpoints_life_is_in_the_audit_log(
    webhooks: SqlWebhooks, engine: AsyncEngine, clock: Any
) -> None:
    """Where a customer's figures are sent to is nothing to change unseen."""
    by_ann = webhooks.by(Deed(Actor("tok1", "Ann", "owner"), "POST", "/admin/v1/webhook-endpoints"))
    made = await make(by_ann)
    with pytest.raises(AlreadyExists):
        await make(by_ann)
    clock.us += DAY_US
    rotated = await by_ann.rotate_secret("home")
    assert (rotated.previous_salt, rotated.salt == made.salt) == (made.salt, False)
    await by_ann.change_endpoint("home", {"url": "https://example.org", "events": ["plan.changed"]})
    assert (await webhooks.endpoint("home")).events == ("plan.changed",)
    assert [one.id for one in (await webhooks.endpoints(9, None)).data] == ["home"]
    await by_ann.delete_endpoint("home")
    entries = (await SqlAuditLog(engine, clock).entries({}, 9, None)).data
    assert [entry["actor"]["name"] for entry in entries] == ["Ann"] * 4
    assert entries[1]["changes"]["url"] == {"from": "https://example.com", "to": "https://example.org"}
    with pytest.raises(NotFound):
        await webhooks.endpoint("home")


async def test_an_endpoint_for_nobody_is_refused(webhooks: SqlWebhooks) -> None:
    with pytest.raises(NotFound):
        await make(webhooks, customer_id="nobody")


async def test_a_test_is_queued_for_its_endpoint_alone(
    webhooks: SqlWebhooks, raising: SqlAlerts, queue: SqlDeliveryQueue, clock: Any
) -> None:
    await make(webhooks)
    await make(webhooks, "other")
    sent = await webhooks.send_test("home")
    ((delivery, endpoint, _),) = await queue.claim(9, 9, {}, clock.us, LEASE_US)
    assert (delivery.id, delivery.type, endpoint.id) == (sent.id, "webhook.test", "home")
    assert (await raising.alerts({}, 9, None)).data == []
