"""One metered call, end to end through real processes: the least that must always work."""

from __future__ import annotations

import json

from served import Gate

from proxy.demo.scripted_upstream import ScriptedUpstream


async def test_a_plain_call_is_answered_metered_and_recorded(gate: Gate, upstream: ScriptedUpstream) -> None:
    secret = await gate.customer("acme")
    answer = await gate.chat(secret, max_tokens=20)
    assert answer.status == 200, answer.body
    usage = answer.json()["usage"]
    [event] = await gate.events(1)
    assert (event["input_tokens"], event["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (event["status"], event["usage_source"], event["billable"]) == ("succeeded", "provider", True)
    assert event["id"] == f"{answer.headers['x-request-id']}:0"


async def test_a_stream_is_whole_and_metered_without_the_chunk_nobody_asked_for(
    gate: Gate, upstream: ScriptedUpstream
) -> None:
    secret = await gate.customer("acme")
    answer = await gate.chat(secret, max_tokens=20, stream=True)
    events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["choices"] for event in events[:-1])
    [event] = await gate.events(1)
    assert (event["streamed"], event["usage_source"]) == (True, "provider")
    assert event["output_tokens"] == upstream.calls[-1].output_tokens
