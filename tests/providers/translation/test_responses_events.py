"""A chat stream told as the events of a Response: each in its order, once, and known to OpenAI's library."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from responses_told import TOOL, TWO_CALLS, asking, chunks, events_of, names, piece, told, told_by

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation import responses_events
from proxy.providers.translation.responses_over_chat import ResponsesOverChat

EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


async def test_a_streamed_text_has_every_event_in_order(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """Clients build their answer out of these events, and some raise at one that is missing."""
    upstream.script(Script(output_tokens=3))
    answer = await responses.send(asking(stream=True))
    seen: list[bytes] = []
    events = events_of(await told_by(answer, seen))
    assert names(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    text = "".join(words(3))
    assert "".join(event["delta"] for event in events if "delta" in event) == text
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_7_0", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    assert events[0]["response"] == {
        **events[-1]["response"],
        "status": "in_progress",
        "output": [],
        "usage": None,
    }
    assert events[2] == {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**item, "status": "in_progress", "content": []},
    }
    where = {"item_id": "msg_7_0", "output_index": 0, "content_index": 0}
    assert events[3] == {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    assert events[4] == {"type": "response.output_text.delta", **where, "delta": "A", "logprobs": []}
    assert events[7] == {"type": "response.output_text.done", **where, "text": text, "logprobs": []}
    assert events[8] == {"type": "response.content_part.done", **where, "part": part}
    assert events[9] == {"type": "response.output_item.done", "output_index": 0, "item": item}
    assert events[-1]["response"]["output"] == [item]
    assert events[-1]["response"]["created_at"] == 1_760_000_000
    assert events[-1]["response"]["usage"]["total_tokens"] == 6
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.source, answer.failed) == (3, "provider", False)
    # The last event waits in the tail until the attempt is settled.
    assert b"response.completed" not in b"".join(seen)
    assert names(events_of(answer.tail.replace(b'"sequence_number":10', b'"sequence_number":0'))) == ["completed"]
    assert upstream.calls[0].body["stream_options"] == {"include_usage": True}


async def test_parallel_calls_are_streamed_one_after_the_other(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """As OpenAI's own: a client may run a call as soon as it is done."""
    upstream.script(Script(tool_calls=TWO_CALLS))
    events = events_of(await told_by(await responses.send(asking(stream=True, tools=[TOOL]))))
    calls = [event for event in events if event.get("output_index") == 0]
    assert names(calls) == [
        "output_item.added",
        *["function_call_arguments.delta"] * 2,
        "function_call_arguments.done",
        "output_item.done",
    ]
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == [call["arguments"] for call in TWO_CALLS]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["call_id"] for item in added] == ["call_scripted0_0", "call_scripted0_1"]
    assert [item["arguments"] for item in added] == ["", ""]
    order = [at for at, event in enumerate(events) if event["type"].endswith(("item.added", "item.done"))]
    assert [names([events[at]])[0].removeprefix("output_item.") for at in order] == ["added", "done"] * 2
    output = events[-1]["response"]["output"]
    assert [(item["name"], item["status"]) for item in output] == [("weather", "completed")] * 2


STREAMS: list[tuple[Script, list[str], str]] = [
    (chunks({"content": "a"}, {"content": "b"}, "stop"), ["message:ab"], "completed"),
    (
        chunks({"reasoning_content": "h"}, {"reasoning": "m"}, {"content": "a"}, "stop"),
        ["reasoning:hm", "message:a"],
        "completed",
    ),
    (chunks({"refusal": "n"}, {"refusal": "o"}, "stop"), ["message:no"], "completed"),
    (chunks({"content": "a"}, {"refusal": "no"}, "stop"), ["message:ano"], "completed"),
    (chunks({"role": "assistant", "content": ""}, "stop"), ["message:"], "completed"),
    (chunks({"reasoning_content": "h"}, "stop"), ["reasoning:h", "message:"], "completed"),
    (chunks({"content": "a"}, "length"), ["message:a"], "incomplete"),
    (chunks({"content": "a"}, "content_filter"), ["message:a"], "incomplete"),
    (chunks({"content": "a"}, "stop", {"content": "late"}, "length"), ["message:a"], "completed"),
    (chunks({"content": "a"}), ["message:a"], "completed"),
    (chunks({"content": "a"}, "stop", done=False), ["message:a"], "completed"),
    (
        chunks({"content": "a"}, piece(0, "{}", id="c1", name="f"), {"content": "b"}, "tool_calls"),
        ["message:a", "function_call:{}", "message:b"],
        "completed",
    ),
    (
        chunks(
            piece(0, '{"a":', id="c1", name="f"),
            piece(1, '{"b":', id="c2", name="g"),
            piece(0, "1}"),
            piece(1, "2}"),
            "tool_calls",
        ),
        ['function_call:{"a":1}', 'function_call:{"b":2}'],
        "completed",
    ),
    (
        chunks(piece(0, "{}", id="c1", name="f"), piece(0, '{"b":2}', id="c2", name="g"), "tool_calls"),
        ["function_call:{}", 'function_call:{"b":2}'],
        "completed",
    ),
    (
        chunks(
            {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a"'}}]},
            {"tool_calls": [{"id": "c1", "function": {"arguments": ":1}"}}]},
            {"tool_calls": [{"id": "c2", "function": {"name": "f", "arguments": {"b": 2}}}]},
            {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]},
            "stop",
        ),
        ['function_call:{"a":1}', 'function_call:{"b":2}'],
        "completed",
    ),
    (chunks(piece(0, '{"a', id="c1", name="f"), "length"), ['function_call:{"a'], "incomplete"),
]


@pytest.mark.parametrize(("script", "items", "status"), STREAMS)
async def test_what_servers_stream(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, script: Script, items: list[str], status: str
) -> None:
    """Each item is opened once and done once, and the last event says the same as those before it."""
    upstream.script(script)
    answer = await responses.send(asking(stream=True, tools=[TOOL]))
    events = events_of(await told_by(answer))
    response = events[-1]["response"]
    assert (events[-1]["type"], response["status"]) == (f"response.{status}", status)
    assert [told(item) for item in response["output"]] == items
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in sorted(done, key=lambda e: e["output_index"])] == response["output"]
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert added == [item["id"] for item in response["output"]]
    deltas = [(e["output_index"], e["delta"]) for e in events if e["type"].endswith(".delta")]
    for index, item in enumerate(items):
        assert "".join(text for at, text in deltas if at == index) == item.partition(":")[2]
    assert response["incomplete_details"] is None or response["output"][-1]["status"] == "incomplete"
    assert not answer.failed


@pytest.mark.parametrize("script", [script for script, _, _ in STREAMS])
async def test_openais_own_library_knows_every_event(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, script: Script
) -> None:
    """Its types are the nearest thing to a specification that clients are built on."""
    upstream.script(script)
    stream = await told_by(await responses.send(asking(stream=True, tools=[TOOL], metadata={"a": "b"})))
    for event in stream.split(b"\n\n")[:-1]:
        EVENTS.validate_json(event.partition(b"\ndata: ")[2])


async def test_thoughts_are_told_as_such(upstream: ScriptedUpstream, responses: ResponsesOverChat) -> None:
    """A client that shows reasoning tells it by these names."""
    upstream.script(chunks({"reasoning_content": "hm"}, {"content": "a"}, "stop"))
    events = events_of(await told_by(await responses.send(asking(stream=True))))
    assert names(events)[2:8] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[7]["item"] == {
        "id": "rs_7_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }


async def test_a_refusal_after_a_text_is_a_part_of_its_own(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    upstream.script(chunks({"content": "a"}, {"refusal": "no"}, "stop"))
    events = events_of(await told_by(await responses.send(asking(stream=True))))
    assert [(name, event.get("content_index")) for name, event in zip(names(events), events, strict=True)][
        3:-2
    ] == [
        ("content_part.added", 0),
        ("output_text.delta", 0),
        ("output_text.done", 0),
        ("content_part.done", 0),
        ("content_part.added", 1),
        ("refusal.delta", 1),
        ("refusal.done", 1),
        ("content_part.done", 1),
    ]


async def test_log_probabilities_come_with_the_text(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    said = orjson.dumps({"choices": [choice]}).decode()
    upstream.script(Script(events=f"data: {said}\n\ndata: [DONE]\n\n"))
    events = events_of(await told_by(await responses.send(asking(stream=True, top_logprobs=1))))
    top = [{"token": "b", "logprob": -1.0, "bytes": []}]
    expected = [{"token": "a", "logprob": -0.5, "bytes": [], "top_logprobs": top}]
    assert [event["logprobs"] for event in events if "logprobs" in event] == [expected, expected]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected
    assert upstream.calls[0].body["logprobs"] is True


async def test_half_a_character_goes_out_as_it_came(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """Some servers cut a character between two chunks; the client puts it together again."""
    text = "".join(
        f'data: {{"choices":[{{"delta":{{"content":"{half}"}}}}]}}\n\n' for half in ("\\ud83c", "\\udf88")
    )
    upstream.script(Script(events=text + "data: [DONE]\n\n"))
    stream = await told_by(await responses.send(asking(stream=True)))
    assert b'"delta":"\\ud83c"' in stream
    assert (
        events_of(stream[stream.index(b"event: response.completed") :].replace(b'er":9', b'er":0'))[0]["response"][
            "output"
        ][0]["content"][0]["text"]
        == "🎈"
    )


LONG = ({"name": "f", "arguments": '{"a":"' + "x" * 2_000 + '"}'},)
MANY = ({"name": "f", "arguments": "{}"},) * 5


@pytest.mark.parametrize("script", [{"text": "abcdefgh" * 20}, {"tool_calls": LONG}, {"tool_calls": MANY}])
async def test_what_is_kept_of_an_answer_has_an_end(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    """An upstream that never stops must not fill the gate's memory."""
    monkeypatch.setattr(responses_events, "CHARACTERS_MAX", 1_000)
    upstream.script(Script(output_tokens=50, **script))
    answer = await responses.send(asking(stream=True, limit=50))
    with pytest.raises(UpstreamFailed) as caught:
        await told_by(answer)
    assert caught.value.error_type == "upstream_unreadable"
    assert answer.usage is not None
