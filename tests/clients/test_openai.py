"""The newest `openai` library against a served gate, changed in nothing but `base_url` and key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.demo.scripts import Script
from tests.clients.conftest import PROMPT, Stage
from tests.clients.wire import Request, Tap
from tests.e2e.served import Gate

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
TWO_CALLS = (
    {"name": "weather", "arguments": '{"city": "Oslo", "unit": "celsius"}'},
    {"name": "weather", "arguments": '{"city": "Lima"}'},
)


class Scene:
    """The gate, and openai_program.py before it. `seen` are the requests of its last case."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.upstream = stage.upstream
        self.customer = stage.customer
        self.gate: Gate = stage.gate
        self.seen: list[Request] = []

    @property
    def requests(self) -> int:
        return len(self.seen)

    async def client(self, case: str, secret: str, **asked: Any) -> dict[str, Any]:
        """Runs a case in the library; `fields` are those of the request, on top of a small one."""
        small = {"model": "small", "messages": [{"role": "user", "content": PROMPT}]}
        asked["fields"] = small | asked.get("fields", {})
        program = await self._stage.program("openai_program")
        async with Tap(self.gate.port) as tap:
            said = await program.run(case=case, base_url=f"{tap.url}/v1", secret=secret, **asked)
            self.seen = tap.seen
        return said


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return Scene(stage)


def ledger(event: dict[str, Any]) -> tuple[int, int]:
    return event["input_tokens"], event["output_tokens"]


def client(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


async def test_a_plain_call_is_what_the_ledger_says(scene: Scene) -> None:
    """The number that the agent's developer sees is the number that is billed."""
    id, secret = await scene.customer()
    result = (await scene.client("plain", secret, fields={"max_tokens": 20}))["result"]
    [event] = await scene.gate.events(1, customer_id=id)
    assert client(result["usage"]) == ledger(event)
    assert event["id"] == f"{result['request_id']}:0"
    assert result["headers"]["faregate-model"] == "small"
    assert result["headers"]["faregate-attempts"] == "1"
    assert (scene.requests, result["finish"]) == (1, ["stop"])


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_has_the_usage_if_it_was_asked_for_and_only_then(scene: Scene, asked: bool) -> None:
    """User code that reads choices[0] of every chunk breaks on a usage chunk that it never asked for."""
    id, secret = await scene.customer()
    options = {"stream_options": {"include_usage": True}} if asked else {}
    result = (await scene.client("streamed", secret, fields=options))["result"]
    [event] = await scene.gate.events(1, customer_id=id)
    assert [client(usage) for usage in result["usages"]] == ([ledger(event)] if asked else [])
    assert result["without_choices"] == (1 if asked else 0)
    assert (event["usage_source"], event["streamed"], scene.requests) == ("provider", True, 1)
    assert len(result["texts"][0].split()) == event["output_tokens"]


async def test_tool_calls_arrive_whole(scene: Scene) -> None:
    """Agents are mostly tool calls; one lost delta is a broken JSON in the customer's hands."""
    id, secret = await scene.customer()
    scene.upstream.script(Script(tool_calls=TWO_CALLS, times=3))
    plain = (await scene.client("plain", secret, fields={"tools": TOOLS}))["result"]
    streamed = (await scene.client("streamed", secret, fields={"tools": TOOLS}))["result"]
    helper = (await scene.client("accumulated", secret, fields={"tools": TOOLS}))["result"]
    made = [(call["name"], json.loads(call["arguments"])) for call in TWO_CALLS]
    assert [(call["name"], json.loads(call["arguments"])) for call in streamed["tools"]] == made
    for result in (plain, helper):
        functions = [call["function"] for call in result["tools"]]
        assert [(each["name"], json.loads(each["arguments"])) for each in functions] == made
    assert (plain["finish"], streamed["finish"]) == (["tool_calls"], ["tool_calls"])
    assert {ledger(event) for event in await scene.gate.events(3, customer_id=id)} == {client(plain["usage"])}


async def test_several_choices_are_told_apart_and_counted_together(scene: Scene) -> None:
    """`n` multiplies what is bought."""
    id, secret = await scene.customer()
    fields = {"n": 2, "max_tokens": 7}
    plain = (await scene.client("plain", secret, fields=fields))["result"]
    streamed = (await scene.client("streamed", secret, fields=fields))["result"]
    assert len(plain["texts"]) == 2
    assert plain["texts"] == streamed["texts"]
    assert plain["finish"] == streamed["finish"] == ["length", "length"]
    assert [event["output_tokens"] for event in await scene.gate.events(2, customer_id=id)] == [14, 14]


async def test_the_asynchronous_client_is_served_alike(scene: Scene) -> None:
    id, secret = await scene.customer()
    result = (await scene.client("at_once", secret))["result"]
    events = await scene.gate.events(2, customer_id=id)
    assert {ledger(event) for event in events} == {client(result["plain"])}
    assert [client(usage) for usage in result["streamed"]["usages"]] == [client(result["plain"])]
    assert scene.requests == 2


@pytest.mark.parametrize("case", ["left_early", "left_early_async"])
async def test_whoever_leaves_in_the_middle_pays_for_what_was_made(scene: Scene, case: str) -> None:
    """Closing early is not a way to a free answer, and not a way to be charged twice."""
    id, secret = await scene.customer()
    scene.upstream.script(Script(output_tokens=30, chunk_delay_s=0.01))
    result = (await scene.client(case, secret))["result"]
    assert result["chunks"]
    [event] = await scene.gate.events(1, customer_id=id)
    assert (event["status"], event["usage_source"], event["output_tokens"]) == ("cancelled", "provider", 30)
    assert (scene.requests, len(scene.upstream.calls)) == (1, 1)
    assert "result" in await scene.client("plain", secret)


async def test_the_models_are_listed_as_the_library_reads_them(scene: Scene) -> None:
    _, secret = await scene.customer("small-only")
    result = (await scene.client("catalogue", secret))["result"]
    assert result["ids"] == ["small"]
    assert result["one"]["object"] == "model"


DENIALS: list[tuple[str, str, dict[str, Any], tuple[str, int, str, str | None]]] = [
    ("plain", "starter", {"model": "nope"}, ("NotFoundError", 404, "model_not_found", "model")),
    ("plain", "small-only", {"model": "large"}, ("PermissionDeniedError", 403, "model_not_allowed", "model")),
    ("plain", "starter", {"max_tokens": -1}, ("BadRequestError", 400, "integer_below_min_value", "max_tokens")),
    ("plain", "starter", {"messages": []}, ("BadRequestError", 400, "invalid_value", "messages")),
    ("streamed", "starter", {"messages": []}, ("BadRequestError", 400, "invalid_value", "messages")),
    ("plain", "tiny", {"max_tokens": 4096}, ("APIStatusError", 402, "insufficient_quota", None)),
    ("streamed", "tiny", {"max_tokens": 4096}, ("APIStatusError", 402, "insufficient_quota", None)),
    ("plain_async", "tiny", {"max_tokens": 4096}, ("APIStatusError", 402, "insufficient_quota", None)),
    ("plain", "starter", {"model": "unkeyed"}, ("InternalServerError", 503, "upstream_not_configured", None)),
    ("moderated", "starter", {}, ("NotFoundError", 404, "unknown_url", None)),
]


@pytest.mark.parametrize(
    ("case", "plan", "fields", "expected"), DENIALS, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_each_denial_is_its_exception_and_one_request(
    scene: Scene, case: str, plan: str, fields: dict[str, Any], expected: tuple[str, int, str, str | None]
) -> None:
    """A client at its defaults that repeats a refusal makes a storm of what was a sentence."""
    _, secret = await scene.customer(plan)
    error = (await scene.client(case, secret, fields=fields))["error"]
    assert (error["type"], error["status"], error["code"], error["param"]) == expected
    assert error["request_id"] == error["headers"]["x-request-id"]
    assert scene.requests == 1
    assert scene.upstream.calls == []


async def test_a_spent_budget_is_told_in_the_plans_own_words(scene: Scene) -> None:
    """The sentence of the plan is what the end user reads: nothing may be put around it or lost."""
    _, secret = await scene.customer("tiny")
    error = (await scene.client("plain", secret, fields={"max_tokens": 4096}))["error"]
    budget = error["body"]["budget"]
    sentence = (
        f"Dear Tiny customer: {budget['asked']:,} tokens asked, 100 left."
        f" Ask for at most {budget['can_afford']} output tokens."
    )
    assert error["body"]["message"] == sentence
    assert error["message"].endswith(sentence)
    assert error["kind"] == "insufficient_quota"
    assert error["headers"]["x-should-retry"] == "false"
    assert "retry-after" not in error["headers"]
    assert "result" in await scene.client("plain", secret, fields={"max_tokens": budget["can_afford"]})


async def test_a_bad_secret_is_an_authentication_error(scene: Scene) -> None:
    error = (await scene.client("plain", "fg_live_nobody"))["error"]
    assert (error["type"], error["code"], scene.requests) == ("AuthenticationError", "invalid_api_key", 1)


async def test_a_suspended_customer_is_denied_permission(scene: Scene) -> None:
    id, secret = await scene.customer()
    await scene.gate.admin("PATCH", f"/customers/{id}", {"status": "suspended"})
    error = (await scene.client("plain", secret))["error"]
    assert (error["type"], error["code"], scene.requests) == ("PermissionDeniedError", "account_suspended", 1)


async def test_a_rate_limit_is_retried_when_the_gate_says_and_not_before(scene: Scene) -> None:
    """Of all denials this one passes: the library waits as long as Retry-After says, three tries in all."""
    _, secret = await scene.customer("one-at-once")
    scene.upstream.hold()
    first = asyncio.create_task(scene.gate.chat(secret))
    await scene.upstream.arrived(1)
    once = (await scene.client("plain", secret, client={"max_retries": 0}))["error"]
    assert (once["type"], once["code"], once["kind"]) == (
        "RateLimitError",
        "rate_limit_exceeded",
        "concurrent_requests",
    )
    assert scene.requests == 1
    wait_s = int(once["headers"]["retry-after"])
    assert 1 <= wait_s <= 2
    patiently = (await scene.client("plain", secret))["error"]
    assert (patiently["type"], scene.requests) == ("RateLimitError", 3)
    first_at, second_at, third_at = (request.at for request in scene.seen)
    assert min(second_at - first_at, third_at - second_at) >= wait_s - 0.05
    scene.upstream.release()
    assert (await first).status == 200
    assert "result" in await scene.client("plain", secret)
