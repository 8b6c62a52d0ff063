"""Alerts of a served gate: what usage brings about, told once, and carried to a real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gatehouse import House, apply_plan, open_house, plan, until

from proxy.demo.scripts import Script
from tests.doubles.webhook_receiver import WebhookReceiver

SETTINGS = "[webhooks]\nallow_private = true\nretry_s = [0.2, 0.2]\ntimeout_s = 2\n"
TEN = plan("ten", [("requests", 10)])


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, {"ten": TEN}, more=SETTINGS) as house:
        yield house


async def endpoint(house: House, receiver: WebhookReceiver, **fields: Any) -> dict[str, Any]:
    return dict(await house.gate.admin("POST", "/webhook-endpoints", {"url": receiver.url, **fields}))


async def alerts(house: House, **filters: str) -> list[dict[str, Any]]:
    """Newest first."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return list((await house.gate.admin("GET", f"/alerts?{query}"))["data"])


async def call(house: House, secret: str, times: int) -> None:
    for _ in range(times):
        assert (await house.gate.chat(secret)).status == 200


async def looked_at(house: House, events: int) -> None:
    """Waits until the alerts have seen all that so many events have used."""
    await house.gate.events(events)

    def seen() -> bool:
        with contextlib.closing(sqlite3.connect(house.gate.folder / "var" / "ledger.sqlite3")) as ledger:
            return not ledger.execute("SELECT 1 FROM counter_sums WHERE amount <> watched").fetchall()

    await until(seen)


async def test_each_threshold_is_told_once_also_across_a_restart(house: House, receiver: WebhookReceiver) -> None:
    """An admin who is told twice stops reading; one who is told never is asked by the customer."""
    secret = await house.gate.customer("acme", "ten")
    made = await endpoint(house, receiver)
    await call(house, secret, 7)
    await looked_at(house, 7)
    assert receiver.types() == [], "7 of 10 is below every threshold"

    await call(house, secret, 1)
    (told,) = await receiver.arrived(1)
    assert told.type == "budget.threshold_reached"
    assert told.verified(made["secret"])["data"] == told.data
    budget = {name: told.data[name] for name in ("customer_id", "budget_id", "threshold", "limit", "used")}
    assert budget == {
        "customer_id": "acme",
        "budget_id": "requests",
        "threshold": "80%",
        "limit": 10,
        "used": 8,
    }

    await house.gate.stop()
    await house.gate.start()
    await call(house, secret, 1)
    await looked_at(house, 9)
    await call(house, secret, 1)
    received = await receiver.arrived(4)
    assert {(one.type, one.data.get("threshold")) for one in received[1:]} == {
        ("budget.threshold_reached", "95%"),
        ("budget.threshold_reached", "100%"),
        ("budget.exhausted", None),
    }
    assert (await house.gate.chat(secret)).status == 402
    await asyncio.sleep(3)
    assert len(receiver.received) == 4, receiver.types()
    assert len(await alerts(house, customer_id="acme")) == 4


async def test_a_lowered_limit_is_told_when_it_first_refuses(house: House, receiver: WebhookReceiver) -> None:
    """There is no usage any more that could tell of it."""
    secret = await house.gate.customer("lowered", "ten")
    await endpoint(house, receiver, events=["budget.exhausted", "plan.changed"])
    await call(house, secret, 3)
    await looked_at(house, 3)
    await apply_plan(house.gate, "ten", plan("ten", [("requests", 2)]))
    (changed,) = await receiver.arrived(1)
    assert (changed.type, changed.data["changes"]) == (
        "plan.changed",
        [{"path": "budgets[requests].limit", "from": 10, "to": 2}],
    )
    assert (await house.gate.chat(secret)).status == 402
    _, spent = await receiver.arrived(2)
    assert (spent.type, spent.data["used"], spent.data["limit"]) == ("budget.exhausted", 3, 2)


async def test_a_dead_letter_is_replayed(house: House, receiver: WebhookReceiver) -> None:
    """A receiver that was down for longer than the retries last is repaired, and then wants what it has missed."""
    made = await endpoint(house, receiver)
    receiver.faults.extend([500, "cut", 503])
    sent = await house.gate.admin("POST", f"/webhook-endpoints/{made['id']}/test")
    await receiver.arrived(3)

    async def dead() -> dict[str, Any] | None:
        listed = (await house.gate.admin("GET", "/webhook-deliveries?status=dead"))["data"]
        return listed[0] if listed else None

    letter = await until(dead)
    assert (letter["id"], letter["attempts"], letter["last_error"]) == (sent["id"], 3, "it answered 503")
    await house.gate.admin("POST", f"/webhook-deliveries/{sent['id']}/replay")
    received = await receiver.arrived(4)
    assert len({(one.id, one.body) for one in received}) == 1
    for one in received:
        one.verified(made["secret"])

    async def delivered() -> bool:
        return bool((await house.gate.admin("GET", f"/webhook-deliveries/{sent['id']}"))["status"] == "delivered")

    await until(delivered)
    for secret in (made["secret"], "a secret that nobody should keep"):
        assert secret not in house.gate.log()


async def test_an_upstream_that_fails_is_told_down_and_up_again(house: House, receiver: WebhookReceiver) -> None:
    """Whoever is on call wants to know before the customers write."""
    secret = await house.gate.customer("unlucky")
    await endpoint(house, receiver, events=["upstream.down", "upstream.up"])
    # It has a fallback, so that it rests after a few failures.
    house.upstream.script(Script(model="large-upstream", status=500, times=0))

    async def told(count: int) -> bool:
        assert (await house.gate.chat(secret, model="large")).status == 200
        await asyncio.sleep(0.2)
        return len(receiver.received) >= count

    await until(lambda: told(1), within_s=15)
    target = {"upstream": "openai", "model": "large-upstream"}
    assert [(one.type, one.data) for one in receiver.received] == [("upstream.down", target)]
    house.upstream.forget()
    await until(lambda: told(2), within_s=20)
    assert [one.type for one in receiver.received] == ["upstream.down", "upstream.up"]
