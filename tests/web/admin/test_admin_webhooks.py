"""Alerts and webhooks over the admin API."""

from __future__ import annotations

from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.doubles.admin import AdminPlane

URL = "https://example.com/hooks"


async def made(client: Any, **fields: Any) -> Any:
    reply = await client.ask("POST", "/webhook-endpoints", {"id": "home", "url": URL, **fields})
    assert reply.status == 201, reply.raw
    return reply.json


async def test_the_secret_is_shown_when_it_is_made_and_never_again(client: Any) -> None:
    """Whoever may read the list must not be able to sign."""
    first = await made(client)
    Webhook(first["secret"])
    assert (first["events"], first["enabled"], first["customer_id"]) == (["*"], True, None)
    for path in ("/webhook-endpoints", "/webhook-endpoints/home"):
        shown = (await client.ask("GET", path)).raw.decode()
        assert "whsec_" not in shown
        assert "salt" not in shown
    rotated = await client.ask("POST", "/webhook-endpoints/home/rotate-secret")
    assert rotated.status == 200
    assert rotated.json["secret"] not in (first["secret"], "")


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"url": "http://example.com"}, "url", "https://"),
        ({"url": "https://127.0.0.1/"}, "url", "no public address"),
        ({"url": "https://user:word@example.com"}, "url", "password"),
        ({"events": []}, "events", "at least 1"),
        ({"events": ["*", "plan.changed"]}, "events", "every event"),
        ({"events": ["plan.changed", "plan.changed"]}, "events", "twice"),
        ({"events": ["plan.chnged"]}, "events.0", "Did you mean 'plan.changed'"),
    ],
)
async def test_what_cannot_be_called_or_does_not_happen_is_refused(
    client: Any, fields: Any, param: str, said: str
) -> None:
    """Where it is written, not at the first alert that is lost."""
    reply = await client.ask("POST", "/webhook-endpoints", {"url": URL, **fields})
    assert reply.status == 400
    assert reply.error["param"].startswith(param)
    assert said in reply.error["message"]


async def test_an_endpoint_is_changed_stopped_and_deleted(client: Any) -> None:
    await made(client)
    changed = await client.ask("PATCH", "/webhook-endpoints/home", {"enabled": False, "events": ["plan.changed"]})
    assert (changed.json["enabled"], changed.json["events"], changed.json["url"]) == (False, ["plan.changed"], URL)
    refused = await client.ask("PATCH", "/webhook-endpoints/home", {"url": "https://127.0.0.1"})
    assert refused.error["param"] == "url"
    sent = await client.ask("POST", "/webhook-endpoints/home/test")
    assert (sent.status, sent.error["code"]) == (409, "endpoint_disabled")
    assert (await client.ask("DELETE", "/webhook-endpoints/home")).status == 204
    assert (await client.ask("GET", "/webhook-endpoints/home")).status == 404


async def test_a_test_is_a_delivery_that_can_be_looked_up_and_replayed(client: Any, plane: AdminPlane) -> None:
    await made(client)
    sent = (await client.ask("POST", "/webhook-endpoints/home/test")).json
    assert "body" not in sent
    assert (await client.ask("GET", f"/webhook-deliveries/{sent['id']}")).json == sent
    listed = await client.ask("GET", "/webhook-deliveries?status=delivered&endpoint_id=home&type=webhook.test")
    assert [one["id"] for one in listed.json["data"]] == [sent["id"]]
    assert plane.webhooks.asked == {"status": "delivered", "endpoint_id": "home", "type": "webhook.test"}
    replayed = await client.ask("POST", f"/webhook-deliveries/{sent['id']}/replay")
    assert replayed.json["status"] == "pending"
    assert (await client.ask("POST", "/webhook-deliveries/nothing/replay")).status == 404
    assert (await client.ask("GET", "/webhook-deliveries?status=lost")).error["param"] == "status"


async def test_alerts_are_listed_with_their_window_and_filtered(client: Any, plane: AdminPlane) -> None:
    """What was raised, when, for whom, in which window."""
    listed = (await client.ask("GET", "/alerts?customer_id=acme&type=budget.exhausted&budget_id=b")).json["data"]
    assert plane.alerts.asked == {"customer_id": "acme", "type": "budget.exhausted", "budget_id": "b"}
    assert listed[0]["threshold"] == "80%"
    assert listed[0]["window_end"].endswith("Z")
    assert (await client.ask("GET", "/alerts/alr_1")).json == listed[0]
    assert (await client.ask("GET", "/alerts/nothing")).status == 404
    assert (await client.ask("GET", "/alerts?type=budget.exausted")).error["param"] == "type"


async def test_who_may_only_read_changes_nothing(client: Any, plane: AdminPlane) -> None:
    """An endpoint is a way out of the house."""
    token = await plane.token("read-only")
    reply = await client.ask("POST", "/webhook-endpoints", {"url": URL}, token=token)
    assert reply.status == 403
    assert (await client.ask("GET", "/webhook-endpoints", token=token)).status == 200
