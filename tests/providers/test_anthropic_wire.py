"""Anthropic's wire against a real server: what goes up is the gate's, and its refusals are understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.domain.messages_requests import read_count_tokens, read_messages
from proxy.domain.policy import Model, Target
from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.anthropic_wire import ANTHROPIC_SPEECHES, without_version
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire

QUOTA = "upstream_quota"
KEY = "sk-ant-test-0123456789abcdef"
BODY = {"model": "m", "max_tokens": 30, "messages": [{"role": "user", "content": "three plain words"}]}
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
MODEL = Model("m", (Target("up", "m-upstream"),), 100, 1000, "max_tokens")


def dispatch(limit: int = 8, headers: dict[str, str] | None = None, **more: Any) -> Dispatch:
    ask = read_messages({**BODY, **more}, headers or {}, str.upper)
    return Dispatch("req_1", 1, ask, MODEL, "m-upstream", limit)


async def all_of(answer: Answer) -> bytes:
    events = b""
    while (event := await answer.next()) is not None:
        events += event
    return events


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[Callable[[str], NativeWire]]:
    made: list[NativeWire] = []

    def make(base_url: str) -> NativeWire:
        address = Address(without_version(base_url), KEY, "x-api-key")
        made.append(NativeWire("up", address, ANTHROPIC_SPEECHES, Timeouts(1.0, 2.0, 1.0)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_what_goes_up_is_built_by_the_gate(
    upstream: ScriptedUpstream, wire: Callable[[str], NativeWire]
) -> None:
    """The admitted limit, the catalogue's model and our key; of the client's headers those of the wire alone."""
    sent = {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "effort-2025-11-24,context-1m-2025-08-07",
        "x-api-key": "fg_live_secret",
        "authorization": "Bearer fg_live_secret",
        "x-stainless-lang": "python",
        "anthropic-workspace-id": "wrkspc_1",
    }
    metadata = {"user_id": "u", "run_id": "r", "step": "s"}
    asked = dispatch(7, sent, metadata=metadata, system="be brief", x_new=1)
    asked.ask.query = "beta=true"
    await (await wire(upstream.root_url).send(asked)).read()
    [call] = upstream.calls
    assert call.body == {
        **BODY,
        "model": "m-upstream",
        "max_tokens": 7,
        "system": "be brief",
        "x_new": 1,
        "metadata": {"user_id": "u"},
    }
    headers = {name.lower(): value for name, value in call.headers.items()}
    assert {name: value for name, value in headers.items() if name not in ("host", "content-length")} == {
        "x-api-key": KEY,
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "effort-2025-11-24",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "faregate",
    }


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_a_base_url_may_end_in_the_version_or_not(
    upstream: ScriptedUpstream, wire: Callable[[str], NativeWire], ending: str
) -> None:
    """Half of the clients write it with, half without."""
    answer = await wire(upstream.root_url + ending).send(dispatch())
    await answer.read()
    assert (upstream.calls[0].path, answer.usage) == ("/v1/messages", Usage(3, 8))
    assert without_version("https://x/v1?a=b") == "https://x?a=b"


@pytest.mark.parametrize(("metadata", "goes_up"), [({"run_id": "r"}, None), ({"user_id": "u"}, {"user_id": "u"})])
async def test_the_gates_own_words_in_the_metadata_stay_here(metadata: Any, goes_up: Any) -> None:
    """Anthropic refuses what it does not know."""
    for endpoint, speech in ANTHROPIC_SPEECHES.items():
        assert speech.body(dispatch(metadata=metadata)).get("metadata") == goes_up, endpoint


@pytest.mark.parametrize(("limit", "budget"), [(30_000, 20_000), (8_000, 7_999), (500, 20_000)])
async def test_thinking_fits_the_limit_that_was_admitted(limit: int, budget: int) -> None:
    """A plan that clamps must not make a request of which Anthropic says that its thinking exceeds it."""
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    body = ANTHROPIC_SPEECHES["/v1/messages"].body(dispatch(limit, thinking=thinking, max_tokens=30_000))
    assert body["thinking"] == {**thinking, "budget_tokens": budget}


async def test_streams_of_the_scripted_upstream_are_whole(
    upstream: ScriptedUpstream, wire: Callable[[str], NativeWire]
) -> None:
    upstream.script(Script(reasoning="let me think", usage="cumulative"))
    answer = await wire(upstream.root_url).send(dispatch(9, stream=True))
    stream = await all_of(answer)
    assert answer.streamed
    assert answer.tail == STOP
    assert answer.usage == Usage(3, 9)
    assert 9 <= answer.observed_output_tokens() <= 18
    said = [orjson.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: ")]
    assert "".join(each["delta"].get("text", "") for each in said if "delta" in each) == "".join(words(6))


async def test_counting_is_passed_on_and_uses_nothing(
    upstream: ScriptedUpstream, wire: Callable[[str], NativeWire]
) -> None:
    counting = read_count_tokens({"model": "m", "messages": BODY["messages"]}, {}, str)
    answer = await wire(upstream.root_url).send(Dispatch("req_1", 1, counting, MODEL, "m-upstream", 0))
    assert orjson.loads(await answer.read()) == {"input_tokens": 3}
    assert answer.usage == Usage(source="none")
    assert upstream.calls[0].body.keys() == {"model", "messages"}
    assert upstream.calls[0].path == "/v1/messages/count_tokens"


@pytest.mark.parametrize(
    ("status", "kind", "says", "blame", "error_type"),
    [
        (400, "invalid_request_error", "messages: at least one", "request", "upstream_rejected"),
        (400, "invalid_request_error", "Your credit balance is too low to", "operator", QUOTA),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits",
            "operator",
            QUOTA,
        ),
        (401, "authentication_error", "invalid x-api-key", "operator", "upstream_rejected_key"),
        (403, "permission_error", "Your API key does not", "operator", "upstream_rejected_key"),
        (404, "not_found_error", "model: x", "request", "upstream_rejected"),
        (413, "request_too_large", "Request exceeds the maximum size", "request", "upstream_rejected"),
        (429, "rate_limit_error", "This would exceed", "upstream", "upstream_rate_limited"),
        (500, "api_error", "Internal server error", "upstream", "upstream_server_error"),
        (529, "overloaded_error", "Overloaded", "upstream", "upstream_server_error"),
    ],
)
async def test_anthropics_refusals_are_understood(
    upstream: ScriptedUpstream,
    wire: Callable[[str], NativeWire],
    status: int,
    kind: str,
    says: str,
    blame: str,
    error_type: str,
) -> None:
    """A customer can mend its request; the operator's key and account it cannot, whatever the status says."""
    body = {"type": "error", "error": {"type": kind, "message": says}, "request_id": "req_011"}
    upstream.script(
        Script(status=status, body=json.dumps(body), headers={"request-id": "req_011", "x-request-id": ""})
    )
    with pytest.raises(UpstreamFailed) as caught:
        await wire(upstream.root_url).send(dispatch())
    failed = caught.value
    assert (failed.status, failed.blame, failed.error_type) == (status, blame, error_type)
    assert (says in failed.message) is (blame == "request")
    assert failed.provider_request_id == "req_011"
