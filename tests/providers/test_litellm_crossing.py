"""LiteLLM on the gate's own connections: one call, to one place, and what goes wrong with it is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.gateway.ports import Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_provider import LiteLLMProvider

Dispatching = Callable[..., Dispatch]
Carrying = Callable[..., LiteLLMProvider]
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("provider", ["anthropic", "gemini"]),
    pytest.mark.parametrize("body", [{}, {"stream": True}], ids=["plain", "stream"]),
]
KEY = "sk-canary-provider-key-0123456789abcdef"
TEXT = "canaryprovidertext7f3e"
ECHO = json.dumps({"error": {"type": "x", "message": f"{TEXT} {KEY}", "code": None}})


async def failing(sender: LiteLLMProvider, asked: Dispatch) -> UpstreamFailed:
    async def carried() -> None:
        answer = await sender.send(asked)
        while answer.streamed and await answer.next() is not None:
            pass

    with pytest.raises(UpstreamFailed) as caught:
        await carried()
    return caught.value


@pytest.mark.parametrize(
    ("script", "kind", "error_type", "status"),
    [
        (Script(status=529, body=ECHO), "refused", "upstream_server_error", 529),
        (Script(status=429, body=ECHO, headers={"retry-after": "7"}), "refused", "upstream_rate_limited", 429),
        (Script(status=307, headers={"location": "/v1/messages"}), "refused", "upstream_redirect", 307),
        (Script(status=502, body="<html>", content_type="text/html"), "refused", "upstream_server_error", 502),
        (Script(body="<html>", content_type="text/html"), "unknown", "upstream_unreadable", None),
        (Script(body=""), "unknown", "upstream_unreadable", None),
        (Script(body='{"id": "x", '), "unknown", "upstream_unreadable", None),
        (Script(body="[1]"), "unknown", "upstream_unreadable", None),
        (Script(body=ECHO), "refused", "upstream_server_error", 502),
        (Script(headers={"content-encoding": "gzip"}), "unknown", "upstream_unreadable", None),
        (Script(breaks_after_bytes=0, breaks="reset"), "unknown", "upstream_reset", None),
        (Script(breaks_after_bytes=0), "unknown", "upstream_reset", None),
        (Script(head_delay_s=1.0), "unknown", "upstream_timeout", None),
        (Script(error_after=0), "refused", "upstream_server_error", ...),
    ],
)
async def test_each_fault_is_told_for_what_it_is_and_nothing_is_called_twice(
    upstream: ScriptedUpstream,
    carrier: Carrying,
    dispatch: Dispatching,
    provider: str,
    body: dict[str, Any],
    script: Script,
    kind: str,
    error_type: str,
    status: Any,
) -> None:
    """LiteLLM follows redirects with the key in hand, tries again after a break, and calls a 529 a 500."""
    if script.error_after == 0 and (not body or provider == "anthropic"):
        script = Script(body=json.dumps({"error": {"code": 503, "message": ECHO}}))
    upstream.script(script)
    failed = await failing(carrier(provider, timeouts=Timeouts(5.0, 0.5, 0.5), key=KEY), dispatch(body))
    assert (failed.kind, failed.error_type) == (kind, error_type)
    assert status is ... or failed.status == status
    assert failed.retry_after_s == (7 if status == 429 else None)
    assert TEXT not in failed.message
    assert KEY not in str(vars(failed))
    assert len(upstream.calls) == 1


async def test_a_stall_in_the_middle_ends_in_time(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, provider: str, body: dict[str, Any]
) -> None:
    """A provider that has fallen silent holds a reservation, and the client's patience."""
    script = Script(stalls_after=4) if body else Script(head_delay_s=1.0)
    upstream.script(script)
    sender = carrier(provider, timeouts=Timeouts(5.0, 0.5, 0.3))
    async with asyncio.timeout(3.0):
        failed = await failing(sender, dispatch(body))
    assert (failed.kind, failed.error_type) == ("unknown", "upstream_timeout")


async def test_only_what_the_call_needs_goes_out(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, provider: str, body: dict[str, Any]
) -> None:
    """LiteLLM names itself and takes any encoding; a client's headers and secret have no business there at all."""
    headers = {"authorization": "Bearer fg_live_canary", "x-custom": "canary", "traceparent": "canary"}
    answer = await carrier(provider, key=KEY).send(dispatch(body, headers=headers, metadata={"run_id": "canary"}))
    while body and await answer.next() is not None:
        pass
    [call] = upstream.calls
    sent = {name.lower(): value for name, value in call.headers.items()}
    key_header = "x-api-key" if provider == "anthropic" else "x-goog-api-key"
    assert sent.keys() <= {
        *("host", "accept", "accept-encoding", "content-type", "content-length", "user-agent"),
        *("anthropic-version", key_header),
    }
    assert (sent["accept-encoding"], sent["user-agent"], sent[key_header]) == ("identity", "faregate", KEY)
    assert "canary" not in json.dumps([{**sent, key_header: ""}, dict(call.body)])
    assert KEY not in call.path


async def test_connections_are_used_again(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, provider: str, body: dict[str, Any]
) -> None:
    """A handshake for each call would cost more than the call."""
    sender = carrier(provider)
    for _ in range(3):
        answer = await sender.send(dispatch(body))
        while body and await answer.next() is not None:
            pass
        await asyncio.sleep(0)
    assert sender._lines is not None
    [connections] = sender._lines._by_origin.values()
    assert connections._connector is not None
    assert len(connections._connector._acquired) == len(connections._idle._connections) == 1
