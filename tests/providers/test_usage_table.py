"""Reports of usage as providers send them, each through the answer class that a client's answer goes through.

The table stands in tests/fixtures/usage: a file for each provider's shape, in each case a whole body, the events
of a stream or both, and what it comes to. An event that is an object is written as its wire writes one; a text is
sent as it is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.policy import Model, Target
from proxy.domain.requests import READERS
from proxy.gateway.ports import Answer, Dispatch, Provider, UpstreamFailed
from proxy.providers.anthropic_wire import ANTHROPIC_SPEECHES
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_provider import LiteLLMProvider
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES

# LiteLLM warns of its own use of pydantic, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "usage"
KEY = "sk-test-0123456789abcdef"
TIMEOUTS = Timeouts(1.0, 5.0, 5.0)
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello there"}]},
    "/v1/completions": {"prompt": "hello there"},
    "/v1/responses": {"input": "hello there"},
    "/v1/messages": {"max_tokens": 100, "messages": [{"role": "user", "content": "hello there"}]},
    "/v1/embeddings": {"input": "hello there"},
}
CHUNKED = ("/v1/chat/completions", "/v1/completions")
PROVIDERS = (
    *("openai_chat", "openai_responses", "embeddings", "completions", "anthropic", "gemini", "gemini_openai"),
    *("openrouter", "deepseek", "groq", "xai", "vllm", "llamacpp", "azure", "mistral", "moonshot", "ollama"),
)


def rows(wire: str, told: str) -> list[Any]:
    """The cases of a wire that are told as a whole `body`, or in `events`."""
    found = []
    for path in sorted(FIXTURES.glob("*.json")):
        table = json.loads(path.read_text())
        if table.get("wire", "native") == wire:
            cases = [case for case in table["cases"] if told in case]
            found += [pytest.param(case, id=f"{path.stem}: {case['says']}") for case in cases]
    return found


def asked(case: dict[str, Any], *, stream: bool, usage: bool = False) -> Dispatch:
    body: dict[str, Any] = {"model": "m", **ASKED[case["endpoint"]]}
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    ask = READERS[case["endpoint"]](body, {}, str.upper)
    return Dispatch("req_1", 0, ask, Model("m", (Target("up", "m"),), 100, 1 << 20, "max_tokens"), "m", 100)


def written(case: dict[str, Any]) -> list[str]:
    """The events as their wire writes them."""
    return [each if isinstance(each, str) else event(each, case["endpoint"]) for each in case["events"]]


def event(said: dict[str, Any], endpoint: str) -> str:
    name = f"event: {said['type']}\n" if endpoint in ("/v1/messages", "/v1/responses") else ""
    return f"{name}data: {json.dumps(said)}\n\n"


def check(case: dict[str, Any], answer: Answer) -> None:
    """The parts are those of the table, they add up, and they are disjoint."""
    usage, expected = answer.usage, case["expected"]
    assert usage is not None
    assert {name: getattr(usage, name) for name in expected} == expected
    assert not usage.disputed
    assert answer.failed is case.get("failed", False)
    parts = (usage.uncached_input_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    assert min(*parts, usage.audio_input_tokens) >= 0
    assert sum(parts) + usage.audio_input_tokens == usage.input_tokens
    assert max(usage.reasoning_tokens, usage.audio_output_tokens) <= usage.output_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    if usage.source == "estimated":
        assert usage.input_tokens > 0
        # Neither nothing, nor what an event tells a second time.
        assert usage.output_tokens in (range(1) if case["endpoint"] == "/v1/embeddings" else range(1, 8))


@pytest.fixture
async def native(upstream: ScriptedUpstream) -> AsyncIterator[NativeWire]:
    """Both wires, at one upstream."""
    wires = {
        "openai": NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, TIMEOUTS),
        "anthropic": NativeWire("up", Address(upstream.root_url, KEY), ANTHROPIC_SPEECHES, TIMEOUTS),
    }

    class Both:
        async def send(self, dispatch: Dispatch) -> Answer:
            wire = wires["anthropic" if dispatch.ask.endpoint in ANTHROPIC_SPEECHES else "openai"]
            return await wire.send(dispatch)

    yield Both()  # type: ignore[misc]
    for wire in wires.values():
        await wire.close()


@pytest.mark.parametrize("case", rows("native", "body"))
async def test_a_whole_answer_comes_to_what_the_table_says(
    case: dict[str, Any], native: NativeWire, upstream: ScriptedUpstream
) -> None:
    """What is charged is the provider's own count, whatever it calls it."""
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    upstream.script(Script(body=body))
    answer = await native.send(asked(case, stream=False))
    if "fails" in case:
        with pytest.raises(UpstreamFailed) as caught:
            await answer.read()
        assert caught.value.error_type == case["fails"]
        return
    assert await answer.read() == body.encode()
    check(case, answer)


@pytest.mark.parametrize("case", rows("native", "events"))
async def test_a_stream_comes_to_what_the_table_says_and_is_passed_on(
    case: dict[str, Any], native: NativeWire, upstream: ScriptedUpstream
) -> None:
    """Comments, filters and running totals reach the client; only a usage that it has not asked for does not."""
    events = written(case)
    for usage in (False, True) if case["endpoint"] in CHUNKED else (False,):
        upstream.script(Script(events="".join(events)))
        answer = await native.send(asked(case, stream=True, usage=usage))
        got = b""
        while (chunk := await answer.next()) is not None:
            got += chunk
        passed_on = [each for each in events if usage or not only_usage(each)]
        assert (got + answer.tail).decode() == "".join(passed_on)
        check(case, answer)


def only_usage(each: str) -> bool:
    said = json.loads(each[6:]) if each.startswith("data: {") else {}
    return said.get("choices") == [] and said.get("usage") is not None


class Gemini:
    """Google's own wire: answers every call with what it is given."""

    def __init__(self, case: dict[str, Any]) -> None:
        self._case = case

    async def answer(self, request: web.Request) -> web.Response:
        if "stream" not in request.path:
            return web.json_response(self._case["body"])
        events = b"".join(b"data: %b\r\n\r\n" % orjson.dumps(each) for each in self._case["events"])
        return web.Response(body=events, content_type="text/event-stream")


@pytest.fixture
async def gemini(case: dict[str, Any]) -> AsyncIterator[Provider]:
    app = web.Application()
    app.router.add_post("/{path:.*}", Gemini(case).answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider = LiteLLMProvider("up", "gemini", KEY, f"http://127.0.0.1:{runner.addresses[0][1]}", TIMEOUTS)
    yield provider
    await provider.close()
    await runner.cleanup()


@pytest.mark.parametrize("case", rows("gemini", "events"))
async def test_gemini_by_way_of_litellm_comes_to_what_the_table_says(
    case: dict[str, Any], gemini: Provider
) -> None:
    """LiteLLM counts what nobody has reported and does not say so: that must be an estimate here."""
    answer = await gemini.send(asked(case, stream=False))
    await answer.read()
    check(case, answer)
    answer = await gemini.send(asked(case, stream=True))
    while await answer.next() is not None:
        pass
    check(case, answer)


def test_the_table_has_every_shape() -> None:
    """Whoever adds a provider adds its reports."""
    assert {path.stem for path in FIXTURES.glob("*.json")} == set(PROVIDERS)
