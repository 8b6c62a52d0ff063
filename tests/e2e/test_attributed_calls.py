"""Who and what a call was for stands in its usage event, on every endpoint and whatever became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, open_house, plan
from served import Answer

from proxy.demo.scripts import Script
from proxy.domain.requests import READERS

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
upstream = "{upstream}"
max_output_tokens = 4096
context_tokens = 100000
fallbacks = {fallbacks}
price = {{ input = "1", output = "2" }}
"""
MODELS = (
    MODEL.format(id="gpt", upstream="openai", fallbacks='["spare"]')
    + MODEL.format(id="spare", upstream="openai", fallbacks="[]")
    + MODEL.format(id="lonely", upstream="openai", fallbacks="[]")
    + MODEL.format(id="claude", upstream="anthropic", fallbacks="[]")
)
HELLO = [{"role": "user", "content": "three plain words"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt", "messages": HELLO},
    "/v1/responses": {"model": "gpt", "input": "three plain words"},
    "/v1/messages": {"model": "claude", "messages": HELLO, "max_tokens": 20},
    "/v1/messages/count_tokens": {"model": "claude", "messages": HELLO},
    "/v1/completions": {"model": "gpt", "prompt": "three plain words"},
    "/v1/embeddings": {"model": "gpt", "input": "three plain words"},
}
NAMES = ("user_id", "anonymous_id", "run_id", "step")
SAID = ("u-1", "a-1", "r-1", "s-1")
HEADERS = {f"faregate-{name.replace('_', '-')}": f"{value}-head" for name, value in zip(NAMES, SAID, strict=True)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(
        tmp_path_factory.mktemp("attribution"),
        {"all": plan("all", [("requests", 1_000)])},
        models=MODELS,
        retries=1,
        more='[upstreams.anthropic]\nbase_url = "{upstream}"\nmax_retries = 1',
        environment={"ANTHROPIC_API_KEY": "sk-ant-canary-provider-key-0123456789abcdef"},
    ) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secret(house: House) -> str:
    return await house.gate.customer("acme", "all")


async def post(
    house: House, secret: str, path: str, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    assert house.gate.session is not None
    sent = {"authorization": f"Bearer {secret}", **(headers or {})}
    body = {**BODIES[path], **fields}
    async with house.gate.session.post(house.gate.url + path, headers=sent, json=body) as response:
        return Answer(response.status, response.headers, await response.read())


def in_body(path: str, user: str = SAID[0]) -> dict[str, Any]:
    metadata = dict(zip(NAMES[1:], SAID[1:], strict=True))
    if path.startswith("/v1/messages"):
        return {"metadata": {**metadata, "user_id": user}}
    return {"user": user, "metadata": metadata}


async def events_of(house: House, answer: Answer, count: int = 1) -> list[dict[str, Any]]:
    return await house.gate.events(count, request_id=answer.headers["x-request-id"])


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in NAMES)


async def test_every_endpoint_is_asked(house: House) -> None:
    assert BODIES.keys() == READERS.keys()


@pytest.mark.parametrize("path", READERS)
async def test_it_is_in_the_event_from_the_body_or_from_headers(house: House, secret: str, path: str) -> None:
    """And the gate's own words are not in what the provider got, but where the wire gives them back."""
    house.upstream.forget()
    answer = await post(house, secret, path, **in_body(path))
    assert answer.status == 200, answer.body
    [event] = await events_of(house, answer)
    assert (event["endpoint"], told(event)) == (path, SAID)
    sent = house.upstream.calls[0].body.get("metadata", {})
    assert sent.keys() & {"run_id", "step"} == ({"run_id", "step"} if path == "/v1/responses" else set())
    answer = await post(house, secret, path, HEADERS, **in_body(path))
    [event] = await events_of(house, answer)
    assert told(event) == tuple(f"{value}-head" for value in SAID)


@pytest.mark.parametrize("path", READERS)
async def test_whoever_can_be_recognised_is_a_digest(house: House, secret: str, path: str) -> None:
    """The same one everywhere: a user is one user, whatever the wire."""
    answer = await post(house, secret, path, **in_body(path, "anna@example.com"))
    [event] = await events_of(house, answer)
    again = await post(house, secret, path, {"faregate-user-id": "anna@example.com"})
    assert event["user_id"] == (await events_of(house, again))[0]["user_id"]
    assert "anna" not in event["user_id"]
    assert "anna@example.com" not in house.gate.log()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions"])
async def test_retries_and_fallbacks_carry_it_too(house: House, secret: str, path: str) -> None:
    """One event per attempt; each says for whom, those that failed included."""
    house.upstream.forget()
    house.upstream.script(Script(model="gpt", status=500, times=2))
    answer = await post(house, secret, path, HEADERS)
    assert answer.status == 200, answer.body
    events = await events_of(house, answer, 3)
    assert [event["status"] for event in events] == ["succeeded", "failed", "failed"]
    assert {told(event) for event in events} == {tuple(f"{value}-head" for value in SAID)}


async def test_what_failed_for_good_carries_it_too(house: House, secret: str) -> None:
    house.upstream.forget()
    house.upstream.script(Script(status=500, times=2))
    answer = await post(house, secret, "/v1/chat/completions", HEADERS, model="lonely")
    assert answer.status >= 500
    assert {told(event) for event in await events_of(house, answer, 2)} == {tuple(f"{v}-head" for v in SAID)}


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/responses", "claude"), ("/v1/messages", "spare"), ("/v1/messages/count_tokens", "spare")],
)
async def test_translated_calls_carry_it_too(house: House, secret: str, path: str, model: str) -> None:
    house.upstream.forget()
    answer = await post(house, secret, path, model=model, **in_body(path))
    assert answer.status == 200, answer.body
    assert told((await events_of(house, answer))[0]) == SAID
