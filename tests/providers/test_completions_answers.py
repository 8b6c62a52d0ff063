"""Completions: passed on byte for byte, with the one chunk taken out that nobody asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.completions_requests import read_completions
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES

ASKING = {"stream": True, "stream_options": {"include_usage": True}}


def asked(limit: int = 8, **body: Any) -> Dispatch:
    ask = read_completions({"model": "m", "prompt": "three plain words", **body}, {}, str.upper)
    model = Model("m", (Target("up", "m-upstream"),), 100, 1000, "max_completion_tokens")
    return Dispatch("req_1", 0, ask, model, "m-upstream", limit)


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[NativeWire]:
    wire = NativeWire("up", Address(upstream.url, "sk-test-0123456789"), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    yield wire
    await wire.close()


async def all_of(answer: Answer) -> bytes:
    events = b""
    while (event := await answer.next()) is not None:
        events += event
    return events


def chunks(events: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: {")]


def used(answer: Answer) -> tuple[int, int, str]:
    assert answer.usage is not None
    return answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source


async def test_what_goes_up_has_the_admitted_limit_under_its_only_name(
    upstream: ScriptedUpstream, wire: NativeWire
) -> None:
    """Whatever chat calls it for this model, completions know one name; without it the wire's default is 16."""
    answer = await wire.send(asked(limit=5, n=2, temperature=0.1, user="u"))
    body = orjson.loads(await answer.read())
    assert upstream.calls[0].path == "/v1/completions"
    assert upstream.calls[0].body == {
        "model": "m-upstream",
        "prompt": "three plain words",
        "n": 2,
        "temperature": 0.1,
        "user": "u",
        "max_tokens": 5,
    }
    assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "length"]
    assert used(answer) == (3, 10, "provider")


async def test_the_best_of_many_are_paid_for_though_one_is_shown(
    upstream: ScriptedUpstream, wire: NativeWire
) -> None:
    answer = await wire.send(asked(limit=50, best_of=3))
    assert len(orjson.loads(await answer.read())["choices"]) == 1
    assert used(answer) == (3, 36, "provider")


async def test_a_stream_comes_as_it_was_sent_but_for_the_usage(
    upstream: ScriptedUpstream, wire: NativeWire
) -> None:
    """The client has not asked for that chunk and may not know what to do with empty choices."""
    answer = await wire.send(asked(stream=True, prompt=["one", "two words"]))
    assert upstream.calls[0].body["stream_options"] == {"include_usage": True}
    events = await all_of(answer)
    assert all(chunk["choices"] and chunk["object"] == "text_completion" for chunk in chunks(events))
    assert answer.tail == b"data: [DONE]\n\n"
    assert used(answer) == (3, 16, "provider")

    answer = await wire.send(asked(**ASKING, prompt=["one", "two words"]))
    asked_for = chunks(await all_of(answer))
    assert asked_for[-1]["choices"] == []
    assert asked_for[-1]["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("usage", ["absent", "null", {}, {"prompt_tokens": 0, "completion_tokens": 0}])
async def test_without_a_report_it_is_an_estimate(
    upstream: ScriptedUpstream, wire: NativeWire, usage: Any, streamed: bool
) -> None:
    """Never nothing, and never as if the provider had said so."""
    upstream.script(Script(usage=usage))
    answer = await wire.send(asked(stream=streamed))
    await (all_of(answer) if streamed else answer.read())
    given, made, source = used(answer)
    assert source == "estimated"
    assert given > 0
    assert 8 <= made <= 16


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_prompt_given_back_is_no_output(
    upstream: ScriptedUpstream, wire: NativeWire, streamed: bool
) -> None:
    """With `echo` a thousand words come back before the first that was made."""
    upstream.script(Script(usage="absent"))
    answer = await wire.send(asked(stream=streamed, echo=True, prompt="prompt " * 1000))
    got = await (all_of(answer) if streamed else answer.read())
    assert b"prompt prompt" in got
    assert used(answer)[2] == "estimated"
    assert 1 <= used(answer)[1] < 20
    assert answer.observed_output_tokens() < 20


async def test_a_report_without_output_is_believed(upstream: ScriptedUpstream, wire: NativeWire) -> None:
    """Of a request for nothing but the prompt's probabilities OpenAI reports no completion tokens at all."""
    upstream.script(Script(usage={"prompt_tokens": 3, "total_tokens": 3}))
    answer = await wire.send(asked(limit=0, echo=True, logprobs=0, max_tokens=0))
    assert upstream.calls[0].body["max_tokens"] == 0
    await answer.read()
    assert used(answer) == (3, 0, "provider")
    assert answer.usage is not None
    assert not answer.usage.disputed


async def test_a_stream_that_is_cut_short_ends_like_a_completion(
    upstream: ScriptedUpstream, wire: NativeWire
) -> None:
    """A rolling hold ends every choice of every prompt, in the wire's own words."""
    upstream.script(Script(output_tokens=500, chunk_delay_s=0.002))
    answer = await wire.send(asked(limit=500, **ASKING, prompt=["a", "b"], n=2))
    while answer.observed_output_tokens() < 8:
        assert await answer.next() is not None
    ending = chunks(await answer.end_by_length())
    finishes = [(c["index"], c["text"], c["finish_reason"]) for each in ending for c in each["choices"]]
    assert finishes == [(index, "", "length") for index in range(4)]
    assert all(each["object"] == "text_completion" for each in ending)
    assert ending[-1]["usage"]["completion_tokens"] == used(answer)[1] >= 8
    assert answer.tail == b"data: [DONE]\n\n"
    assert used(answer)[2] == "estimated"


async def test_an_error_in_the_middle_is_a_failure(upstream: ScriptedUpstream, wire: NativeWire) -> None:
    upstream.script(Script(error_after=3))
    answer = await wire.send(asked(stream=True))
    assert b'"error"' in await all_of(answer)
    assert answer.failed
    assert answer.tail == b""
    assert used(answer) == (4, 4, "estimated")


@pytest.mark.parametrize(
    ("script", "error_type"),
    [
        (Script(status=429, headers={"retry-after": "7"}), "upstream_rate_limited"),
        (Script(status=503), "upstream_server_error"),
        (Script(status=400), "upstream_rejected"),
        (Script(status=302, headers={"location": "http://elsewhere"}), "upstream_redirect"),
        (Script(body="<html>busy</html>", content_type="text/html"), "upstream_unreadable"),
        (Script(body='{"choices": [{"te'), "upstream_unreadable"),
        (Script(body='{"error": {"message": "no", "code": 503}}'), "upstream_server_error"),
        (Script(breaks_after_bytes=0, breaks="reset"), "upstream_reset"),
    ],
)
async def test_every_way_to_fail_has_its_word(
    upstream: ScriptedUpstream, wire: NativeWire, script: Script, error_type: str
) -> None:
    upstream.script(script)
    with pytest.raises(UpstreamFailed) as caught:
        await (await wire.send(asked())).read()
    assert caught.value.error_type == error_type
