"""Embeddings of providers with a wire of their own: what they are sent, and whose count of tokens it is."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.embeddings_requests import read_embeddings
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_embeddings import EMBEDDING, REPORTING
from proxy.providers.litellm_provider import LiteLLMProvider

# LiteLLM warns of its own use of pydantic, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = "sk-test-0123456789abcdef"


def asked(**body: Any) -> Dispatch:
    ask = read_embeddings({"model": "m", "input": ["three plain words", "four"], **body}, {}, str.upper)
    return Dispatch("req_1", 0, ask, Model("m", (Target("up", "embedder"),), 1, 1000, "max_tokens"), "embedder", 0)


@pytest.fixture
async def mistral(upstream: ScriptedUpstream) -> AsyncIterator[LiteLLMProvider]:
    """A provider whose report LiteLLM passes on."""
    provider = LiteLLMProvider("up", "mistral", KEY, upstream.url, Timeouts(1.0, 2.0, 1.0))
    yield provider
    await provider.close()


class Gemini:
    """Google's own wire, as far as embeddings go."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("x-goog-api-key"))
        vectors = [{"values": [0.25, at]} for at, _ in enumerate(self.bodies[-1]["requests"])]
        return web.json_response({"embeddings": vectors, "usageMetadata": {"promptTokenCount": 7777}})


@pytest.fixture
async def gemini_server() -> AsyncIterator[tuple[Gemini, str]]:
    gemini, app = Gemini(), web.Application()
    app.router.add_post("/{path:.*}", gemini.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield gemini, f"http://127.0.0.1:{runner.addresses[0][1]}/v1beta"
    await runner.cleanup()


@pytest.fixture
async def gemini(gemini_server: tuple[Gemini, str]) -> AsyncIterator[LiteLLMProvider]:
    provider = LiteLLMProvider("up", "gemini", KEY, gemini_server[1], Timeouts(1.0, 2.0, 1.0))
    yield provider
    await provider.close()


async def told(answer: Answer) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(await answer.read())
    return said


async def test_gemini_is_sent_texts_in_its_own_words(
    gemini: LiteLLMProvider, gemini_server: tuple[Gemini, str]
) -> None:
    answer = await gemini.send(asked(dimensions=2, user="u", encoding_format="float"))
    said = await told(answer)
    assert [each["content"]["parts"][0]["text"] for each in gemini_server[0].bodies[0]["requests"]] == [
        "three plain words",
        "four",
    ]
    assert gemini_server[0].bodies[0]["requests"][0]["outputDimensionality"] == 2
    assert gemini_server[0].keys == [KEY]
    assert (said["object"], said["model"]) == ("list", "embedder")
    assert [(each["object"], each["index"], each["embedding"]) for each in said["data"]] == [
        ("embedding", 0, [0.25, 0]),
        ("embedding", 1, [0.25, 1]),
    ]


async def test_what_litellm_counts_itself_is_an_estimate(gemini: LiteLLMProvider) -> None:
    """Gemini reports 7,777 here, LiteLLM throws that away and counts: never as if the provider had said so."""
    answer = await gemini.send(asked())
    said = await told(answer)
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens) == ("estimated", 0)
    assert 1 <= answer.usage.input_tokens < 20
    assert said["usage"] == {"prompt_tokens": answer.usage.input_tokens, "total_tokens": answer.usage.input_tokens}


async def test_who_wants_base64_gets_it_from_whom_only_has_numbers(gemini: LiteLLMProvider) -> None:
    """It is what openai-python asks for unless it is told otherwise."""
    said = await told(await gemini.send(asked(encoding_format="base64")))
    assert [struct.unpack("<2f", base64.b64decode(each["embedding"])) for each in said["data"]] == [
        (0.25, 0.0),
        (0.25, 1.0),
    ]


async def test_a_report_that_is_passed_on_is_the_providers(
    mistral: LiteLLMProvider, upstream: ScriptedUpstream
) -> None:
    upstream.script(Script(usage={"prompt_tokens": 41, "total_tokens": 41}))
    answer = await mistral.send(asked())
    await answer.read()
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.source) == (41, "provider")
    assert upstream.calls[0].body["input"] == ["three plain words", "four"]
    assert "user" not in upstream.calls[0].body


async def test_a_report_that_never_came_is_none(mistral: LiteLLMProvider, upstream: ScriptedUpstream) -> None:
    upstream.script(Script(usage="absent"))
    answer = await mistral.send(asked(input="word " * 100))
    await answer.read()
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.source) == (125, "estimated")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", "files/abc123"]}, "input.1"),
        ({"input": "gs://bucket/secret.pdf"}, "input"),
        ({"input": " data:image/png;base64,AAAA"}, "input"),
        ({"input": "https://generativelanguage.googleapis.com/v1beta/files/x"}, "input"),
        ({"api_base": "http://elsewhere"}, "api_base"),
        ({"extra_headers": {"a": "b"}}, "extra_headers"),
        ({"mock_response": [1.0]}, "mock_response"),
    ],
)
async def test_what_cannot_be_carried_over_is_refused_by_name(
    gemini: LiteLLMProvider, gemini_server: tuple[Gemini, str], body: dict[str, Any], param: str
) -> None:
    """A text that looks like a file of the operator's would be fetched with the operator's key."""
    with pytest.raises(UpstreamFailed) as caught:
        await gemini.send(asked(**body))
    failed = caught.value
    assert (failed.kind, failed.status, failed.blame, failed.param) == ("unsent", 400, "request", param)
    assert gemini_server[0].bodies == []


async def test_dimensions_that_the_provider_has_not_are_named(mistral: LiteLLMProvider) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await mistral.send(asked(dimensions=8))
    assert (caught.value.status, caught.value.param) == (400, "dimensions")


@pytest.mark.parametrize(
    ("script", "error_type"),
    [
        (Script(status=429), "upstream_rate_limited"),
        (Script(status=503), "upstream_server_error"),
        (Script(status=401), "upstream_rejected_key"),
        (Script(head_delay_s=5), "upstream_timeout"),
    ],
)
async def test_a_failure_is_one_call_and_has_its_word(
    mistral: LiteLLMProvider, upstream: ScriptedUpstream, script: Script, error_type: str
) -> None:
    """Retries are the gate's alone: each is an attempt with a reservation of its own."""
    upstream.script(script)
    with pytest.raises(UpstreamFailed) as caught:
        await mistral.send(asked())
    assert caught.value.error_type == error_type
    assert KEY not in caught.value.message
    assert len(upstream.calls) == 1


def test_only_who_can_embed_is_asked() -> None:
    """Anthropic has no embeddings: the model is refused at this endpoint, not somewhere inside LiteLLM."""
    assert REPORTING < EMBEDDING
    assert not LiteLLMProvider("up", "anthropic", KEY).serves("/v1/embeddings")
    assert LiteLLMProvider("up", "gemini", KEY).serves("/v1/embeddings")
