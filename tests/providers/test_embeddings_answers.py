"""Embeddings: the vectors as they came, to the byte, and what reading the input was."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.embeddings_requests import read_embeddings
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers import native_answers
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES


def asked(**body: Any) -> Dispatch:
    ask = read_embeddings({"model": "m", "input": ["three plain words", "four"], **body}, {}, str.upper)
    return Dispatch(
        "req_1", 0, ask, Model("m", (Target("up", "m-upstream"),), 1, 1000, "max_tokens"), "m-upstream", 0
    )


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[NativeWire]:
    wire = NativeWire("up", Address(upstream.url, "sk-test-0123456789"), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    yield wire
    await wire.close()


def used(answer: Answer) -> tuple[int, int, str, bool]:
    assert answer.usage is not None
    return answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source, answer.usage.disputed


async def test_what_goes_up_is_what_the_client_sent_and_no_limit(
    upstream: ScriptedUpstream, wire: NativeWire
) -> None:
    """There is no output to limit, and OpenAI refuses a field that it does not know."""
    answer = await wire.send(asked(encoding_format="base64", dimensions=8, user="u"))
    body = orjson.loads(await answer.read())
    assert upstream.calls[0].path == "/v1/embeddings"
    assert upstream.calls[0].body == {
        "model": "m-upstream",
        "input": ["three plain words", "four"],
        "encoding_format": "base64",
        "dimensions": 8,
        "user": "u",
    }
    assert struct.unpack("<8f", base64.b64decode(body["data"][1]["embedding"]))[0] == 1.0
    assert used(answer) == (4, 0, "provider", False)


@pytest.mark.parametrize(
    "body",
    [
        b'{ "data": [{"index":0,"embedding": [1.50, -2e-05,\n 0]}], "usage":{"prompt_tokens":3} }',
        b'{"data":[{"embedding":"AACAPwAAAEA=","index":0}],"x":"\\u00e9","usage":{"total_tokens":3}}',
        b'{"data":[{"embedding":[[0.5,1],[2,3]]}],"usage":{"prompt_tokens":3,"total_tokens":3}}',
        b'{"data":[{"embedding":[NaN,1]}],"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0}}',
        b'\n\n{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3,"prompt_tokens_details":null}}',
    ],
)
async def test_the_body_is_passed_on_to_the_byte(
    upstream: ScriptedUpstream, wire: NativeWire, body: bytes
) -> None:
    """A number that is written again may be another number, and nobody would ever notice."""
    upstream.script(Script(body=body.decode()))
    answer = await wire.send(asked())
    assert await answer.read() == body
    assert used(answer) == (3, 0, "provider", False)


@pytest.mark.parametrize("usage", ["absent", "null", {}, {"prompt_tokens": 0, "total_tokens": 0}, 7])
async def test_without_a_report_the_input_is_estimated_and_no_output(
    upstream: ScriptedUpstream, wire: NativeWire, usage: Any
) -> None:
    upstream.script(Script(usage=usage))
    answer = await wire.send(asked(input="word " * 100))
    await answer.read()
    assert used(answer) == (125, 0, "estimated", False)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "total_tokens": 8}, (9, 0, True)),
        ({"prompt_tokens": -1, "total_tokens": 8}, (8, 0, True)),
        ({"prompt_tokens": "9"}, (0, 0, True)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, (9, 2, False)),
        ({"completion_tokens": 2, "total_tokens": 1}, (0, 2, True)),
    ],
)
async def test_a_report_beyond_belief_is_disputed(
    upstream: ScriptedUpstream, wire: NativeWire, usage: Any, expected: tuple[int, int, bool]
) -> None:
    upstream.script(Script(usage=usage))
    answer = await wire.send(asked())
    await answer.read()
    assert used(answer) == (expected[0], expected[1], "provider", expected[2])


async def test_a_body_larger_than_a_chat_ever_is_comes_through(
    upstream: ScriptedUpstream, wire: NativeWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,048 vectors of a large model are more than any conversation; numbers in them are not looked at."""
    monkeypatch.setattr(native_answers, "BODY_BYTES_MAX", 1000)
    answer = await wire.send(asked(input=["a"] * 40, dimensions=50))
    assert len(await answer.read()) > 4_000
    assert used(answer) == (40, 0, "provider", False)


@pytest.mark.parametrize(
    ("script", "error_type"),
    [
        (Script(status=429), "upstream_rate_limited"),
        (Script(status=401), "upstream_rejected_key"),
        (Script(status=500), "upstream_server_error"),
        (Script(body="<html>busy</html>", content_type="text/html"), "upstream_unreadable"),
        (Script(body='{"data":[{"embedding":[1,2'), "upstream_unreadable"),
        (Script(body='{"error": {"message": "no", "code": 429}}'), "upstream_rate_limited"),
        (Script(breaks_after_bytes=20), "upstream_reset"),
        (Script(head_delay_s=3), "upstream_timeout"),
    ],
)
async def test_every_way_to_fail_has_its_word(
    upstream: ScriptedUpstream, wire: NativeWire, script: Script, error_type: str
) -> None:
    upstream.script(script)
    with pytest.raises(UpstreamFailed) as caught:
        await (await wire.send(asked())).read()
    assert caught.value.error_type == error_type
