"""Responses through a served gate whose upstreams have no Responses: a chat-only server, and Claude by LiteLLM."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import assert_sound, nothing_held
from served import MODELS, Answer, Gate, prepare, serving

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPSTREAMS = """
endpoints = ["chat/completions"]
[upstreams.claude]
wire = "litellm"
provider = "anthropic"
base_url = "{root}"
api_key_env = "OPENAI_API_KEY"
"""
CLAUDE = """
[models."claude"]
upstream = "claude"
upstream_model = "claude-sonnet-4-5"
max_output_tokens = 4096
context_tokens = 128000
price = { input = "3", output = "15" }
"""
TINY = """
id = "tiny"
name = "Tiny"
models = ["*"]
[[budgets]]
meter = "tokens"
limit = 10
window = "lifetime"
"""
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
CALLS = (
    {"name": "weather", "arguments": '{"city": "Oslo"}'},
    {"name": "weather", "arguments": '{"city": "Lima"}'},
)
MODELS_ASKED = ["small", "claude"]


@dataclass
class Scene:
    gate: Gate
    upstream: ScriptedUpstream
    customers: int = 0

    async def customer(self, plan: str = "starter") -> tuple[str, str]:
        self.upstream.forget()
        self.customers += 1
        id = f"customer-{self.customers}"
        return id, await self.gate.customer(id, plan)

    async def ask(self, secret: str, **fields: Any) -> Answer:
        body = {"model": "small", "input": "three plain words", **fields}
        headers = {"authorization": f"Bearer {secret}"}
        assert self.gate.session is not None
        async with self.gate.session.post(self.gate.url + "/v1/responses", json=body, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with ScriptedUpstream() as upstream:
        folder: Path = tmp_path_factory.mktemp("gate")
        gate = prepare(folder, upstream.url, more=UPSTREAMS.replace("{root}", upstream.root_url))
        (folder / "policies" / "models.toml").write_text(MODELS + CLAUDE)
        gate.write_plan("tiny", TINY)
        async with serving(gate):
            yield Scene(gate, upstream)
            await assert_sound(gate)


def events_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.body.decode().split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("model", MODELS_ASKED)
async def test_a_plain_response_is_answered_and_recorded_as_one(scene: Scene, model: str) -> None:
    """The ledger says which endpoint was called, and the client sees the numbers that are billed."""
    id, secret = await scene.customer()
    answer = await scene.ask(secret, model=model, instructions="Be brief.", max_output_tokens=20)
    assert answer.status == 200, answer.body
    said = answer.json()
    assert (said["object"], said["status"], said["model"], said["store"]) == (
        "response",
        "completed",
        model,
        False,
    )
    assert said["output"][0]["content"][0]["text"] == "".join(words(12))
    [event] = await scene.gate.events(1, customer_id=id)
    assert (event["endpoint"], event["status"], event["usage_source"]) == (
        "/v1/responses",
        "succeeded",
        "provider",
    )
    usage = said["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (event["input_tokens"], event["output_tokens"])
    assert event["billable"]


@pytest.mark.parametrize("model", MODELS_ASKED)
async def test_a_streamed_response_ends_after_it_is_settled(scene: Scene, model: str) -> None:
    """Whoever has seen `response.completed` has a usage event."""
    id, secret = await scene.customer()
    answer = await scene.ask(secret, model=model, stream=True)
    events = events_of(answer)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    assert b"[DONE]" not in answer.body
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == "".join(words(12))
    [event] = await scene.gate.events(1, customer_id=id)
    assert (event["endpoint"], event["streamed"], event["usage_source"]) == ("/v1/responses", True, "provider")
    usage = events[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (event["input_tokens"], event["output_tokens"])


@pytest.mark.parametrize("model", MODELS_ASKED)
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_agent_turns_with_parallel_calls(scene: Scene, streamed: bool, model: str) -> None:
    """What the gate answers must be what it takes on the next turn."""
    _, secret = await scene.customer()
    scene.upstream.script(Script(tool_calls=CALLS))
    answer = await scene.ask(secret, model=model, tools=TOOLS, stream=streamed)
    said = events_of(answer)[-1]["response"] if streamed else answer.json()
    calls = said["output"]
    assert [json.loads(call["arguments"]) for call in calls] == [json.loads(call["arguments"]) for call in CALLS]
    results = [{"type": "function_call_output", "call_id": c["call_id"], "output": "sun"} for c in calls]
    question = {"role": "user", "content": "The weather?"}
    answer = await scene.ask(secret, model=model, tools=TOOLS, input=[question, *calls, *results])
    assert answer.status == 200, answer.body
    sent = scene.upstream.calls[-1].body["messages"]
    if model == "claude":
        asked, given = ([part for part in sent[at]["content"] if part["type"] != "text"] for at in (1, 2))
        assert [part["id"] for part in asked] == [part["tool_use_id"] for part in given]
    else:
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
        assert [call["id"] for call in sent[1]["tool_calls"]] == [message["tool_call_id"] for message in sent[2:]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "custom", "name": "patch"}]}, "tools.0.type"),
        ({"model": "claude", "text": {"verbosity": "low"}}, "text.verbosity"),
    ],
)
async def test_what_cannot_be_carried_over_is_refused_by_its_name(
    scene: Scene, fields: dict[str, Any], param: str
) -> None:
    """Never dropped in silence, and nothing is charged for it."""
    id, secret = await scene.customer()
    answer = await scene.ask(secret, **fields)
    assert answer.status in (400, 404), answer.body
    assert answer.json()["error"]["param"] == param
    assert scene.upstream.calls == []
    for event in await scene.gate.events(0 if param == "previous_response_id" else 1, customer_id=id):
        assert (event["status"], event["input_tokens"], event["billable"]) == ("failed", 0, False)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_spent_budget_is_one_denial_and_no_call(scene: Scene, streamed: bool) -> None:
    """As on every endpoint: 402, told once."""
    id, secret = await scene.customer("tiny")
    answer = await scene.ask(secret, stream=streamed, max_output_tokens=100)
    assert answer.status == 402, answer.body
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert scene.upstream.calls == []
    await nothing_held(scene.gate, id)


async def test_an_upstream_that_breaks_off_is_a_failed_response(scene: Scene) -> None:
    """Codex sends the request again and again at anything else."""
    id, secret = await scene.customer()
    scene.upstream.script(Script(error_after=3))
    last = events_of(await scene.ask(secret, stream=True))[-1]
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    [event] = await scene.gate.events(1, customer_id=id)
    assert (event["status"], event["usage_source"], event["billable"]) == ("failed", "estimated", False)
