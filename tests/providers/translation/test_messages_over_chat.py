"""Messages over chat completions, downwards: plain and streamed, through the real chat answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.domain.messages_requests import read_count_tokens, read_messages
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.chat_answers import StreamedChat
from proxy.providers.connections import Head, Timeouts
from proxy.providers.exchanges import Exchange
from proxy.providers.litellm_provider import LiteLLMProvider, load
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.translation.counted_tokens import TokensCountedHere
from proxy.providers.translation.messages_events import KEPT_CHARACTERS_MAX
from proxy.providers.translation.messages_over_chat import MessagesOverChat

HEAD = cast(Head, SimpleNamespace(code=200, headers={}))
KEY = "sk-test-0123456789abcdef"
STREAM = {"stream": True}
THINKING: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
TOOLS: dict[str, Any] = {"tools": [{"name": "weather", "input_schema": {"type": "object"}}]}
CALLS = ({"name": "weather", "arguments": '{"city":"Köln"}'}, {"name": "weather", "arguments": '{"city":"Rom"}'})


def asking(*, reader: Any = read_messages, headers: Any = None, limit: int = 8, **fields: Any) -> Dispatch:
    messages = [{"role": "user", "content": "three plain words"}]
    body = {"model": "claude-ish", "max_tokens": 50, "messages": messages, **fields}
    model = Model("claude-ish", (Target("up", "m-upstream"),), 100, 1000, "max_completion_tokens")
    return Dispatch("req_7", 0, reader(body, headers or {}, str.upper), model, "m-upstream", limit)


@pytest.fixture
async def native(upstream: ScriptedUpstream) -> AsyncIterator[MessagesOverChat]:
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    yield MessagesOverChat(wire.send)
    await wire.close()


@pytest.fixture(params=["native", "litellm"])
async def messages(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> AsyncIterator[MessagesOverChat]:
    if request.param == "native":
        wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
        yield MessagesOverChat(wire.send)
        await wire.close()
    else:
        load()
        yield MessagesOverChat(LiteLLMProvider("up", "openai", KEY, upstream.url, Timeouts(1.0, 5.0, 5.0)).send)


# LiteLLM's own code warns; its warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


class Played:
    """An exchange that gives these reads, then an end or a failure."""

    def __init__(self, reads: list[bytes], failure: UpstreamFailed | None = None) -> None:
        self.reads = reads
        self.failure = failure
        self.dropped = False

    async def some(self) -> bytes:
        if self.dropped:
            raise UpstreamFailed("unknown", "aborted", "Given up.")
        if self.reads:
            return self.reads.pop(0)
        if self.failure is not None:
            raise self.failure
        return b""

    def finish(self) -> None: ...

    def drop(self) -> None:
        self.dropped = True


async def playing(
    reads: list[bytes], failure: UpstreamFailed | None = None, **fields: Any
) -> tuple[Answer, Played]:
    """The streamed answer to what an upstream sends in these reads, by way of the real chat answer."""
    played = Played(list(reads), failure)

    async def chat(dispatch: Dispatch) -> Answer:
        return StreamedChat(HEAD, cast(Exchange, played), dispatch.ask)

    return await MessagesOverChat(chat).send(asking(stream=True, **fields)), played


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "model": "m-upstream", "choices": [choice], "usage": None})


def call(index: int | None, arguments: str = "", id: str | None = None) -> bytes:
    said: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        said["index"] = index
    if id is not None:
        said |= {"id": id, "type": "function", "function": {"name": f"tool_{id}", "arguments": arguments}}
    return chunk({"tool_calls": [said]})


USAGE = b'data: {"id":"c","choices":[],"usage":%b}\n\n' % orjson.dumps(
    {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
)
TOLD_USAGE = {
    "input_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 60,
    "output_tokens": 30,
    "output_tokens_details": {"thinking_tokens": 20},
}
DONE = b"data: [DONE]\n\n"
RECORDED = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Grüß "}),
    b": OPENROUTER PROCESSING\n\n",
    chunk({"content": "Gott"}),
    call(0, "", "a"),
    call(0, '{"city":'),
    call(0, '"K\\u00f6ln"}'),
    call(1, "", "b"),
    call(1, '{"n": 1}'),
    chunk({}, "tool_calls"),
    USAGE,
    DONE,
]


async def all_of(answer: Answer) -> bytes:
    events = []
    while (event := await answer.next()) is not None:
        assert event.endswith(b"\n\n")
        events.append(event)
    return b"".join(events)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    """The events, whose names must be what they say they are; pings left out."""
    said = []
    for event in stream.split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        said.append(orjson.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + said[-1]["type"].encode()
    return [each for each in said if each["type"] != "ping"]


def put_together(stream: bytes) -> dict[str, Any]:
    """What a client makes of the events. Blocks come one after the other, as clients expect."""
    message: dict[str, Any] = {}
    pieces = ""
    for event in parsed(stream):
        kind = event.pop("type")
        if kind == "message_start":
            assert not message
            message = event["message"]
        elif kind == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            pieces = ""
        elif kind == "content_block_delta":
            assert event["index"] == len(message["content"]) - 1
            delta, block = event["delta"], message["content"][-1]
            if delta["type"] == "input_json_delta":
                pieces += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] += delta[name]
        elif kind == "content_block_stop":
            assert event["index"] == len(message["content"]) - 1
            if pieces:
                message["content"][-1]["input"] = orjson.loads(pieces)
        elif kind == "message_delta":
            message |= {**event["delta"], "usage": event["usage"]}
    return message


def uses(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(block["id"], block["input"]) for block in message["content"] if block["type"] == "tool_use"]


async def test_a_plain_answer_is_a_message(upstream: ScriptedUpstream, messages: MessagesOverChat) -> None:
    """A client of Anthropic's library must not notice who answered."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219", "traceparent": trace}
    answer = await messages.send(asking(system="Be brief.", headers=headers))
    said = orjson.loads(await answer.read())
    assert said == {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "model": "claude-ish",
        "content": [{"type": "text", "text": "".join(words(8))}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 8,
        },
    }
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (5, 8, "provider")
    sent = upstream.calls[0]
    assert (sent.path, sent.model, sent.output_limit) == ("/v1/chat/completions", "m-upstream", 8)
    assert sent.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert not [name for name in sent.headers if name.lower().startswith("anthropic")]


async def test_a_stream_is_a_message_too(upstream: ScriptedUpstream, messages: MessagesOverChat) -> None:
    """The end is held back until the attempt is settled."""
    answer = await messages.send(asking(**STREAM))
    stream = await all_of(answer)
    message = put_together(stream)
    assert [event["type"] for event in parsed(stream)][:2] == ["message_start", "content_block_start"]
    assert message["content"] == [{"type": "text", "text": "".join(words(8))}]
    assert (message["id"], message["model"], message["stop_reason"]) == ("msg_7", "claude-ish", "max_tokens")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (3, 8)
    assert b"message_stop" not in stream
    assert answer.tail == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.source, answer.failed) == (8, "provider", False)
    assert upstream.calls[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["plain", "stream"])
async def test_parallel_tool_calls_are_blocks(
    upstream: ScriptedUpstream, messages: MessagesOverChat, fields: dict[str, Any]
) -> None:
    """Whoever loses one of two calls can never answer both."""
    upstream.script(Script(tool_calls=CALLS))
    answer = await messages.send(asking(**fields, **TOOLS))
    message = put_together(await all_of(answer)) if fields else orjson.loads(await answer.read())
    assert [block["name"] for block in message["content"]] == ["weather", "weather"]
    assert uses(message) == [
        ("call_scripted0_0", {"city": "Köln"}),
        ("call_scripted0_1", {"city": "Rom"}),
    ]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["plain", "stream"])
async def test_a_usage_that_nobody_reported_stays_an_estimate(
    upstream: ScriptedUpstream, messages: MessagesOverChat, fields: dict[str, Any]
) -> None:
    """Anthropic's clients need a usage; the record must not believe it."""
    upstream.script(Script(usage="absent"))
    answer = await messages.send(asking(**fields))
    message = put_together(await all_of(answer)) if fields else orjson.loads(await answer.read())
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert message["usage"]["output_tokens"] == answer.usage.output_tokens >= 8


async def test_a_stream_is_the_same_however_its_bytes_are_cut() -> None:
    """Networks cut inside characters, line ends and arguments."""
    whole = b"".join(RECORDED)
    answer, _ = await playing([whole])
    expected = put_together(await all_of(answer))
    assert expected["content"] == [
        {"type": "text", "text": "Grüß Gott"},
        {"type": "tool_use", "id": "a", "name": "tool_a", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "b", "name": "tool_b", "input": {"n": 1}},
    ]
    assert (expected["stop_reason"], expected["usage"]) == ("tool_use", TOLD_USAGE)
    cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole))]
    for reads in [*cuts, [whole[at : at + 1] for at in range(len(whole))], RECORDED]:
        answer, _ = await playing(reads)
        assert put_together(await all_of(answer)) == expected
        assert answer.tail.startswith(b"event: message_stop")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.source) == (100, "provider")


async def test_what_comes_is_told_at_once() -> None:
    """A stream that is kept back is none."""
    answer, played = await playing(
        [*RECORDED[:2], call(0, "", "a"), call(0, '{"a":'), call(0, "1}"), call(1, "", "b")]
    )
    seen = b""
    for expected in (b"message_start", "Grüß".encode(), b'"tool_a"', b'{\\"a\\":', b"1}", b'"tool_b"'):
        event = await answer.next()
        assert event is not None
        assert expected in event
        seen += event
    assert not played.reads


MIXED: list[tuple[str, list[bytes], list[tuple[str, Any]]]] = [
    (
        "two calls in turns",
        [call(0, "", "a"), call(1, "", "b"), call(0, '{"x":'), call(1, '{"y":'), call(0, "1}"), call(1, "2}")],
        [("a", {"x": 1}), ("b", {"y": 2})],
    ),
    (
        "a bracket that closes something within",
        [call(0, '{"x":{"z":1}', "a"), call(1, '{"y":2}', "b"), call(0, "}")],
        [("a", {"x": {"z": 1}}), ("b", {"y": 2})],
    ),
    (
        "a call without arguments before another",
        [call(0, "", "a"), call(1, '{"y":2}', "b")],
        [("a", {}), ("b", {"y": 2})],
    ),
    (
        "every call with index 0",
        [call(0, '{"x":1}', "a"), call(0, '{"y":2}', "b")],
        [("a", {"x": 1}), ("b", {"y": 2})],
    ),
    ("no index", [call(None, '{"x":1}', "a"), call(None, '{"y":2}', "b")], [("a", {"x": 1}), ("b", {"y": 2})]),
    ("the id said again", [call(0, '{"x":', "a"), call(0, "1}", "a")], [("a", {"x": 1})]),
    ("blanks behind", [call(0, '{"x":1}', "a"), call(1, "{}", "b"), call(0, "\n")], [("a", {"x": 1}), ("b", {})]),
    ("text in the middle", [call(0, '{"x":', "a"), chunk({"content": "t"}), call(0, "1}")], [("a", {"x": 1})]),
]


@pytest.mark.parametrize(("events", "expected"), [case[1:] for case in MIXED], ids=[case[0] for case in MIXED])
async def test_mixed_blocks_are_told_one_after_the_other(
    events: list[bytes], expected: list[tuple[str, Any]]
) -> None:
    """Messages has one open block at a time, and some chat servers number their calls oddly."""
    answer, _ = await playing([*events, chunk({}, "stop"), USAGE, DONE], **TOOLS)
    message = put_together(await all_of(answer))
    assert uses(message) == expected
    assert message["stop_reason"] == "tool_use"


async def test_a_call_without_an_id_gets_one() -> None:
    """The result of a call has to name it."""
    nameless = chunk({"tool_calls": [{"index": 0, "function": {"name": "tool", "arguments": "{}"}}]})
    answer, _ = await playing([nameless, chunk({}, "tool_calls"), USAGE, DONE], **TOOLS)
    assert uses(put_together(await all_of(answer))) == [("toolu_7_0", {})]


@pytest.mark.parametrize(
    ("finish", "more", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"matched_stop": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 128009}, ("end_turn", None)),
        ("stop", {"stop_reason": "never asked for"}, ("end_turn", None)),
    ],
)
async def test_why_an_answer_ended(finish: str, more: dict[str, Any], expected: tuple[str, str | None]) -> None:
    """Agents continue, retry or stop by this word."""
    answer, _ = await playing(
        [chunk({"content": "x"}), chunk({}, finish, **more), USAGE, DONE], stop_sequences=["END"]
    )
    message = put_together(await all_of(answer))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


async def test_a_refusal_is_text_and_a_reason() -> None:
    """Chat models put their refusals where no client of Messages looks."""
    answer, _ = await playing(
        [chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk({}, "stop"), USAGE, DONE]
    )
    message = put_together(await all_of(answer))
    assert message["content"] == [{"type": "text", "text": "I cannot."}]
    assert message["stop_reason"] == "refusal"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_thinking_where_it_was_asked_for(field: str) -> None:
    """And where it was not, a ping says that something is under way."""
    stream = [
        chunk({field: "Let me"}),
        chunk({field: " see."}),
        chunk({"content": "4"}),
        chunk({}, "stop"),
        USAGE,
        DONE,
    ]
    answer, _ = await playing(stream, **THINKING)
    assert put_together(await all_of(answer))["content"] == [
        {"type": "thinking", "thinking": "Let me see.", "signature": ""},
        {"type": "text", "text": "4"},
    ]
    answer, _ = await playing(stream)
    told = await all_of(answer)
    assert put_together(told)["content"] == [{"type": "text", "text": "4"}]
    assert told.count(b"event: ping") == 2


@pytest.mark.parametrize(
    "end",
    [[], [DONE], [USAGE], [USAGE, DONE], [b'data: {"choices":[{"del']],
    ids=["eof", "done", "usage", "both", "cut"],
)
async def test_an_answer_without_a_reason_for_its_end_is_broken(end: list[bytes]) -> None:
    """Half an answer that looks whole is acted upon."""
    answer, _ = await playing([chunk({"content": "Half"}), *end])
    with pytest.raises(UpstreamFailed) as raised:
        await all_of(answer)
    assert raised.value.kind == "unknown"
    assert answer.tail == b""
    assert answer.usage is not None
    assert answer.usage.source == ("provider" if USAGE in end else "estimated")


async def test_without_done_there_is_no_message_stop() -> None:
    """The chat stream has not ended either."""
    answer, _ = await playing([chunk({"content": "x"}), chunk({}, "stop"), USAGE])
    assert put_together(await all_of(answer))["stop_reason"] == "end_turn"
    assert answer.tail == b""


async def test_an_upstream_that_breaks_off_breaks_the_answer_off() -> None:
    """The relay tells the client; what was delivered is charged."""
    broke = UpstreamFailed("unknown", "upstream_reset", "It broke off.")
    answer, _ = await playing([chunk({"content": "Half an answer"})], broke)
    with pytest.raises(UpstreamFailed) as raised:
        await all_of(answer)
    assert raised.value is broke
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens >= 1) == ("estimated", True)
    event = parsed(answer.error_event("Broke off.", "upstream_reset"))
    assert event == [{"type": "error", "error": {"type": "api_error", "message": "Broke off."}}]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "sk-secret is over its limit", "code": "x"}, "api_error"),
        ({"message": "slow down", "code": 429}, "api_error"),
    ],
)
async def test_an_error_in_the_stream_is_the_wires_own(error: dict[str, Any], kind: str) -> None:
    """Nothing is told after it, the provider's words are not, and what it used is read to the end."""
    failing = b"data: %b\n\n" % orjson.dumps({"error": error})
    answer, _ = await playing([chunk({"content": "x"}), failing + chunk({"content": "y"}), USAGE, DONE])
    stream = await all_of(answer)
    events = parsed(stream)
    assert (events[-1]["type"], events[-1]["error"]["type"]) == ("error", kind)
    assert b"sk-secret" not in stream
    assert b'"y"' not in stream
    assert (answer.failed, answer.tail) == (True, b"")
    assert answer.usage is not None
    assert answer.usage.source == "provider"


async def test_nothing_comes_before_the_message() -> None:
    """Clients refuse events of a message that has not started."""
    answer, _ = await playing([b": OPENROUTER PROCESSING\n\n", chunk({"content": "x"}), chunk({}, "stop"), DONE])
    assert (await all_of(answer)).startswith(b"event: message_start")


async def test_an_error_before_anything_else_leaves_room_for_another_attempt() -> None:
    """Nobody has seen anything of this answer, so a fallback may still give one."""
    answer, played = await playing([b'data: {"error":{"code":503}}\n\n', DONE])
    with pytest.raises(UpstreamFailed) as raised:
        await all_of(answer)
    assert (raised.value.kind, raised.value.status) == ("refused", 503)
    assert played.dropped
    assert not answer.failed


@pytest.mark.parametrize(
    "reads",
    [
        [b"data: no json\n\n"],
        [b"data: " + b"x" * (1 << 20) + b"\n\n", b"data: " + b"x" * (1 << 20)],
        [chunk({"tool_calls": ["x"]})],
        [chunk({"tool_calls": [{"index": 0, "id": "a", "function": {}}]})],
        [call(0, "{}", "a"), call(1, "{}", "b"), call(0, "more")],
        [call(0, "", "a"), *[call(1, "x" * 500_000, "b" if n == 0 else None) for n in range(10)]],
        [call(n, "", str(n)) for n in range(600)],
    ],
    ids=["no JSON", "endless event", "no call", "no name", "after its end", "too much kept", "too many calls"],
)
async def test_a_stream_that_cannot_be_told_is_given_up(reads: list[bytes]) -> None:
    """Nothing is guessed, and nothing is kept without bound."""
    assert KEPT_CHARACTERS_MAX < 5_000_000
    answer, played = await playing([chunk({"content": "x"}), *reads, chunk({}, "stop"), USAGE, DONE])
    with pytest.raises(UpstreamFailed) as raised:
        await all_of(answer)
    assert raised.value.error_type == "upstream_unreadable"
    assert played.dropped
    assert answer.usage is not None
    assert answer.tail == b""
    assert await answer.next() is None


@pytest.mark.parametrize("events", [0, 1, 3, 5])
async def test_a_stream_can_be_ended_by_its_length(events: int) -> None:
    """A rolling hold that has run out ends the message as its own limit would."""
    held = [call(0, '{"x":', "a"), call(1, '{"y":', "b")]
    answer, played = await playing([*RECORDED[:3], *held, *RECORDED[3:]])
    told = [await answer.next() for _ in range(events)]
    stream = b"".join(each or b"" for each in told) + await answer.end_by_length()
    message = parsed(stream)
    assert message[-1]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert sum(e["type"] == "content_block_start" for e in message) == sum(
        e["type"] == "content_block_stop" for e in message
    )
    assert answer.tail.startswith(b"event: message_stop")
    assert played.dropped
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert message[-1]["usage"]["output_tokens"] == answer.usage.output_tokens
    assert await answer.next() is None


async def test_an_answer_that_has_finished_is_not_cut() -> None:
    """Its usage is on its way."""
    answer, _ = await playing([chunk({"content": "x"}), chunk({}, "stop"), USAGE, DONE])
    assert await answer.next()
    assert await answer.next()
    assert await answer.end_by_length() == b""
    assert b'"end_turn"' in await all_of(answer)
    assert answer.usage is not None
    assert answer.usage.source == "provider"


async def test_what_was_delivered_is_observed() -> None:
    """Leases and rolling holds look at it while the stream runs."""
    answer, _ = await playing(RECORDED)
    assert answer.observed_output_tokens() == 0
    await all_of(answer)
    assert answer.observed_output_tokens() >= 4


def plain_body(message: dict[str, Any], finish: str | None = "stop") -> str:
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    return orjson.dumps(answer).decode()


def plain_call(arguments: Any) -> dict[str, Any]:
    return {"content": None, "tool_calls": [{"id": "a", "function": {"name": "tool", "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("message", "finish", "content", "reason"),
    [
        ({"content": "x"}, "stop", [{"type": "text", "text": "x"}], "end_turn"),
        ({"content": None}, "stop", [], "end_turn"),
        ({"content": None, "refusal": "No."}, "stop", [{"type": "text", "text": "No."}], "refusal"),
        (
            {"content": "4", "reasoning_content": "2+2"},
            "stop",
            [{"type": "thinking", "thinking": "2+2", "signature": ""}, {"type": "text", "text": "4"}],
            "end_turn",
        ),
        (
            plain_call('{"x":'),
            "length",
            [{"type": "tool_use", "id": "a", "name": "tool", "input": {}}],
            "max_tokens",
        ),
        (plain_call(""), "stop", [{"type": "tool_use", "id": "a", "name": "tool", "input": {}}], "tool_use"),
        (
            plain_call({"x": 1}),
            "tool_calls",
            [{"type": "tool_use", "id": "a", "name": "tool", "input": {"x": 1}}],
            "tool_use",
        ),
    ],
)
async def test_plain_answers_of_every_kind(
    upstream: ScriptedUpstream, native: MessagesOverChat, message: Any, finish: str, content: Any, reason: str
) -> None:
    """Each of them has been seen."""
    upstream.script(Script(body=plain_body(message, finish)))
    said = orjson.loads(await (await native.send(asking(**THINKING))).read())
    assert (said["content"], said["stop_reason"]) == (content, reason)


@pytest.mark.parametrize(
    "body",
    [
        plain_body(plain_call('{"x":'), "tool_calls"),
        plain_body(plain_call("[1]"), "tool_calls"),
        plain_body({"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}),
        plain_body({"content": "x"}, "error"),
        '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    ],
    ids=["cut arguments", "arguments that are no object", "no name", "an error", "no choice"],
)
async def test_a_plain_answer_that_cannot_be_told_is_a_failure_that_was_paid(
    upstream: ScriptedUpstream, native: MessagesOverChat, body: str
) -> None:
    """Arguments that nobody gave must not be run; the provider bills them all the same."""
    upstream.script(Script(body=body))
    answer = await native.send(asking())
    with pytest.raises(UpstreamFailed) as raised:
        await answer.read()
    assert raised.value.error_type == "upstream_unreadable"
    assert raised.value.usage is not None
    assert (raised.value.usage.input_tokens, raised.value.usage.source) == (3, "provider")


async def test_a_refusal_of_the_upstream_names_the_clients_field(
    upstream: ScriptedUpstream, native: MessagesOverChat
) -> None:
    """The client has never heard of `reasoning_effort`."""
    error = {"message": "Unsupported parameter: 'reasoning_effort'.", "param": "reasoning_effort", "code": "x"}
    upstream.script(Script(status=400, body=orjson.dumps({"error": error}).decode()))
    with pytest.raises(UpstreamFailed) as raised:
        await native.send(asking(output_config={"effort": "low"}))
    assert (raised.value.status, raised.value.param) == (400, "output_config.effort")
    assert "'output_config.effort'" in raised.value.message


async def test_tokens_are_counted_here_where_the_upstream_cannot() -> None:
    """Claude Code asks before it sends; the answer must grow with the input, and cost nothing."""

    async def never(_: Dispatch) -> Answer:
        raise AssertionError("nothing is sent")

    counted: Callable[..., Any] = TokensCountedHere(never).send
    short = await counted(asking(reader=read_count_tokens, system="Be brief."))
    long = await counted(asking(reader=read_count_tokens, system="Be brief. " * 400))
    tokens = [orjson.loads(await answer.read()) for answer in (short, long)]
    assert [each.keys() for each in tokens] == [{"input_tokens"}] * 2
    assert 1 <= tokens[0]["input_tokens"] <= 20
    assert 900 <= tokens[1]["input_tokens"] <= 1_100
    assert short.usage.source == "none"
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    with pytest.raises(UpstreamFailed) as raised:
        await counted(asking(reader=read_count_tokens, messages=[{"role": "user", "content": [pdf]}]))
    assert raised.value.param == "messages.0.content.0.source"
