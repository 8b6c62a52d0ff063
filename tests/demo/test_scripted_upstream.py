"""The scripted upstream is the oracle outside the gate: what it says it billed must be what it sent."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.demo.canned_upstream import listen_canned
from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words

ASK = {"model": "m", "messages": [{"role": "user", "content": "three plain words"}]}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def chat(client: aiohttp.ClientSession, upstream: ScriptedUpstream, **more: Any) -> tuple[int, bytes]:
    async with client.post(f"{upstream.url}/chat/completions", json={**ASK, **more}) as answer:
        return answer.status, await answer.read()


async def test_a_plain_answer_obeys_the_limit_and_is_billed(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    """Reservation tests compare with this count."""
    status, body = await chat(client, upstream, max_tokens=4)
    said = orjson.loads(body)
    assert status == 200
    assert said["choices"][0]["message"]["content"] == "".join(words(4))
    assert said["choices"][0]["finish_reason"] == "length"
    assert (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]) == (3, 4)
    call = upstream.calls[0]
    assert (call.input_tokens, call.output_tokens, call.output_limit_field) == (3, 4, "max_tokens")
    assert call.finished


@pytest.mark.parametrize("asked", [False, True])
async def test_a_stream_sends_a_word_a_chunk_and_usage_if_asked(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream, asked: bool
) -> None:
    """As OpenAI does: an extra chunk without choices, and null in the others."""
    options = {"stream_options": {"include_usage": True}} if asked else {}
    _, body = await chat(client, upstream, stream=True, n=2, max_completion_tokens=3, **options)
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [orjson.loads(event[6:]) for event in events[:-2]]
    assert [c["choices"] for c in chunks if c.get("usage")] == ([[]] if asked else [])
    assert len(chunks) == 2 + 2 * 3 + 2 + asked
    assert upstream.calls[0].output_tokens == 6


async def test_tool_calls_are_streamed_in_pieces_that_make_the_whole(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    """Clients put them together by index; a piece is what one output token brings."""
    calls = ({"name": "f", "arguments": '{"city": "Oslo"}'}, {"name": "g", "arguments": "{}"})
    upstream.script(Script(tool_calls=calls, times=2))
    _, body = await chat(client, upstream)
    plain = orjson.loads(body)["choices"][0]["message"]["tool_calls"]
    assert [call["function"] for call in plain] == list(calls)
    _, body = await chat(client, upstream, stream=True)
    chunks = [orjson.loads(line[6:]) for line in body.split(b"\n\n")[:-2]]
    whole = {0: "", 1: ""}
    for chunk in chunks:
        for piece in chunk["choices"][0]["delta"].get("tool_calls", ()):
            whole[piece["index"]] += piece["function"]["arguments"]
    assert list(whole.values()) == [call["arguments"] for call in calls]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert upstream.calls[0].output_tokens == upstream.calls[1].output_tokens == 5


async def test_a_text_of_its_own_is_said_word_by_word(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    """Canaries are planted so."""
    upstream.script(Script(text="one two", output_tokens=3))
    _, body = await chat(client, upstream)
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "one two one"


async def test_scripts_are_used_in_order_and_by_model(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    """A fallback test needs one model to fail and the other not to."""
    upstream.script(Script(status=503, model="other"))
    upstream.script(Script(status=429, times=2, headers={"retry-after": "7"}))
    assert [(await chat(client, upstream))[0] for _ in range(3)] == [429, 429, 200]
    assert (await chat(client, upstream, model="other"))[0] == 503
    upstream.script(Script(status=500, times=0))
    assert [(await chat(client, upstream))[0] for _ in range(3)] == [500, 500, 500]
    upstream.forget()
    assert (await chat(client, upstream))[0] == 200


@pytest.mark.parametrize("breaks", ["close", "reset"])
@pytest.mark.parametrize("after", [0, 700])
async def test_it_breaks_off_to_order(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream, breaks: Any, after: int
) -> None:
    """A broken answer must look broken to a client, not like a short one."""
    upstream.script(Script(breaks=breaks, breaks_after_bytes=after, times=0))
    with pytest.raises(aiohttp.ClientError):
        await chat(client, upstream, stream=True)
    assert not upstream.calls[0].finished


async def test_it_is_steered_over_http_and_holds_everything_back(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream
) -> None:
    """Race tests let 300 requests pile up before the first is answered."""
    root = upstream.root_url
    async with client.post(f"{root}/_script", json={"status": 418, "body": "tea"}) as answer:
        assert answer.status == 200
    assert (await chat(client, upstream)) == (418, b"tea")
    async with client.post(f"{root}/_script", json={"colour": "red"}) as answer:
        assert answer.status == 400
        assert "chunk_delay_s" in await answer.text()
    async with client.post(f"{root}/_hold"):
        pass
    waiting = [asyncio.ensure_future(chat(client, upstream)) for _ in range(20)]
    await upstream.arrived(21)
    assert not any(each.done() for each in waiting)
    async with client.get(f"{root}/_calls") as answer:
        calls = await answer.json()
    assert len(calls) == 21
    assert [call["output_tokens"] for call in calls[1:]] == [0] * 20
    assert not {"body", "headers"} & calls[0].keys()
    async with client.post(f"{root}/_release"):
        pass
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    async with client.get(f"{root}/nowhere") as answer:
        assert answer.status == 404


async def test_the_key_is_checked_if_it_has_one(client: aiohttp.ClientSession) -> None:
    """A gate that forwards the agent's secret instead of the provider's key must be found out."""
    async with ScriptedUpstream(api_key="sk-right") as upstream:
        assert (await chat(client, upstream))[0] == 401
        client.headers["authorization"] = "Bearer sk-right"
        assert (await chat(client, upstream))[0] == 200
        assert upstream.calls[0].output_tokens == 0


async def test_it_speaks_anthropics_messages(client: aiohttp.ClientSession, upstream: ScriptedUpstream) -> None:
    """The second wire: usage at the start, and cumulative at the end."""
    url = f"{upstream.root_url}/v1/messages"
    async with client.post(url, json={**ASK, "max_tokens": 3}) as answer:
        said = await answer.json()
    assert (said["content"][0]["text"], said["stop_reason"]) == ("".join(words(3)), "max_tokens")
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == (3, 3)
    async with client.post(url, json={**ASK, "max_tokens": 3, "stream": True}) as answer:
        events = [orjson.loads(each.split(b"data: ")[1]) for each in (await answer.read()).split(b"\n\n")[:-1]]
    assert [each["type"] for each in events][-2:] == ["message_delta", "message_stop"]
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (3, 3)
    assert upstream.calls[1].output_tokens == 3
    async with client.post(f"{url}/count_tokens", json=ASK) as answer:
        assert await answer.json() == {"input_tokens": 3}


async def test_its_messages_think_and_use_tools(client: aiohttp.ClientSession, upstream: ScriptedUpstream) -> None:
    """What a stream says piece by piece is what a plain answer says at once."""
    script = Script(times=2, reasoning="let me see", tool_calls=[{"name": "f", "arguments": '{"city": "Oslo"}'}])
    upstream.script(script)
    url = f"{upstream.root_url}/v1/messages"
    async with client.post(url, json={**ASK, "max_tokens": 30}) as answer:
        said = await answer.json()
    assert [block["type"] for block in said["content"]] == ["thinking", "tool_use"]
    assert (said["content"][0]["thinking"], said["content"][1]["input"]) == ("let me see", {"city": "Oslo"})
    assert said["stop_reason"] == "tool_use"
    async with client.post(url, json={**ASK, "max_tokens": 30, "stream": True}) as answer:
        events = [orjson.loads(each.split(b"data: ")[1]) for each in (await answer.read()).split(b"\n\n")[:-1]]
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"city": "Oslo"}'
    assert (
        events[-2]["usage"]["output_tokens"] == said["usage"]["output_tokens"] == upstream.calls[1].output_tokens
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages": []}', b"not json"])
async def test_a_bad_body_is_answered_400(
    client: aiohttp.ClientSession, upstream: ScriptedUpstream, body: bytes
) -> None:
    """A gate's broken re-serialising must show as an upstream's 400, not as a crash."""
    async with client.post(f"{upstream.url}/chat/completions", data=body) as answer:
        assert answer.status == 400
    assert not upstream.calls


async def test_the_canned_mode_answers_plain_and_streamed(client: aiohttp.ClientSession) -> None:
    """Benchmarks need an upstream that costs less than what it measures."""
    server = await listen_canned("127.0.0.1", 0, 5)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
    for _ in range(2):
        async with client.post(url, json=ASK) as answer:
            assert (await answer.json())["usage"]["prompt_tokens"] == 19
        async with client.post(url, json={**ASK, "stream": True}) as answer:
            stream = await answer.read()
            assert stream.count(b"data: ") == 5 + 4
            assert stream.endswith(b"data: [DONE]\n\n")
    server.close()


@pytest.mark.parametrize("mode", [[], ["--canned"]])
async def test_it_runs_as_a_process_of_its_own(client: aiohttp.ClientSession, mode: list[str]) -> None:
    """The demo and the benchmarks start it so."""
    command = [sys.executable, "-m", "proxy.demo.scripted_upstream", *mode]
    process = await create_subprocess_exec(*command, stdout=PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        async with client.post(line.split()[-1] + "/chat/completions", json=ASK) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        await process.wait()
