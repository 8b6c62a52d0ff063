"""One call of a real receiver that misbehaves in every way that receivers do."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import pytest

from proxy.billing.alerts import Outcome
from proxy.webhooks.sending import Sender
from proxy.webhooks.signing import secret_of
from tests.doubles.webhook_receiver import WebhookReceiver
from tests.doubles.webhook_things import delivery_of, endpoint_at

PEPPER = b"the pepper"


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = Sender(PEPPER, now_us, timeout_s=0.5, allow_private=True)
    await sender.open()
    yield sender
    await sender.close()


async def test_what_is_sent_is_signed_json(sender: Sender, receiver: WebhookReceiver) -> None:
    assert await sender.send(delivery_of(), endpoint_at(receiver.url)) == Outcome(200, None)
    (received,) = receiver.received
    assert received.verified(secret_of(PEPPER, "home", "salt"))["type"] == "webhook.test"
    assert received.headers["content-type"] == "application/json"
    assert received.body.decode() == delivery_of().body
    assert "cookie" not in received.headers


@pytest.mark.parametrize(
    ("fault", "status", "error", "gone"),
    [
        (204, 204, None, False),
        ("long", 200, None, False),
        (500, 500, "it answered 500", False),
        (404, 404, "it answered 404", False),
        (410, 410, "it answered 410", True),
        ("redirect", 307, "a redirect, which is not followed", False),
        ("garbage", None, "its answer is no HTTP", False),
        ("cut", None, "it closed the connection without an answer", False),
        ("slow", None, "no answer within 0.5 s", False),
    ],
)
async def test_whatever_comes_back_is_an_outcome_that_repeats_nothing_of_it(
    sender: Sender, receiver: WebhookReceiver, fault: int | str, status: int | None, error: str | None, gone: bool
) -> None:
    """A redirect would carry the message to where nobody has allowed it; a long answer would fill the memory."""
    receiver.faults.append(fault)
    outcome = await sender.send(delivery_of(), endpoint_at(receiver.url))
    assert (outcome.status, outcome.gone) == (status, gone)
    assert outcome.error is None if error is None else error in str(outcome.error)
    assert "secret" not in str(outcome.error)
    assert len(receiver.received) == 1


async def test_an_address_inside_is_not_called(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its number nor by a name; the setting may have been narrowed after the endpoint was made."""
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inside)
    guarded = Sender(PEPPER, now_us, timeout_s=2, allow_private=False)
    await guarded.open()
    try:
        by_number = await guarded.send(delivery_of(), endpoint_at(receiver.url.replace("http:", "https:")))
        assert "no public address" in str(by_number.error)
        name = receiver.url.replace("http://127.0.0.1", "https://hooks.example.com")
        by_name = await guarded.send(delivery_of(), endpoint_at(name))
        assert by_name.error == "not called: its address is not public; see webhooks.allow_private"
    finally:
        await guarded.close()
    assert receiver.received == []


async def test_nobody_there_is_told_as_that(sender: Sender) -> None:
    outcome = await sender.send(delivery_of(), endpoint_at("http://127.0.0.1:9/"))
    assert outcome == Outcome(None, "it cannot be connected to")
    unknown = await sender.send(delivery_of(), endpoint_at("http://nowhere.invalid/"))
    assert unknown.error in ("its host name cannot be resolved", "no answer within 0.5 s")
