"""Answers of the Responses wire: passed on byte for byte, their usage read, and never ended by a lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.scripted_upstream import Recorded, ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.asks import Ask
from proxy.domain.policy import Model, Target
from proxy.domain.responses_requests import read_responses
from proxy.domain.usage import Usage
from proxy.gateway.ports import Dispatch, KeptResponse, UpstreamFailed
from proxy.providers import responses_answers
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.responses_answers import PlainResponses, StreamedResponses
from proxy.providers.usage_readers import read_responses_usage

KEY = "sk-test-0123456789abcdef"
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 7},
    "total_tokens": 42,
}
PARTS = Usage(30, 12, cache_read_tokens=10, cache_write_tokens=5, reasoning_tokens=7)
SEARCHED = replace(PARTS, calls={"web_search": 1})


class Head:
    def __init__(self) -> None:
        self.code = 200
        self.headers = {"x-request-id": "up-1"}


class Pieces:
    """An exchange whose reads are these; an exception among them is raised."""

    def __init__(self, pieces: Sequence[bytes | Exception]) -> None:
        self.pieces = list(pieces)
        self.dropped = self.finished = False

    async def some(self) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def whole(self, most: int) -> bytes:
        return b"".join(self.pieces)  # type: ignore[arg-type]

    def finish(self) -> None:
        self.finished = True

    def drop(self) -> None:
        self.dropped = True


def ask(**body: Any) -> Ask:
    return read_responses({"model": "m", "input": "three plain words", "stream": True, **body}, {}, str.upper)


def streamed(*pieces: bytes | Exception) -> StreamedResponses:
    return StreamedResponses(Head(), Pieces(pieces), ask())  # type: ignore[arg-type]


def event(kind: str, number: int, **fields: Any) -> bytes:
    said = {"type": kind, **fields, "sequence_number": number}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(said))


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "created_at": 5, "model": "m-1", "status": status, **fields}


def opening(number: int = 0) -> bytes:
    return event("response.created", number, response=response("in_progress", output=[], usage=None, error=None))


def delta(number: int, text: str, **more: Any) -> bytes:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return event("response.output_text.delta", number, **where, delta=text, logprobs=[], **more)


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
ADDED = event("response.output_item.added", 1, output_index=0, item=MESSAGE)
PART = event(
    "response.content_part.added",
    2,
    item_id="msg_1",
    output_index=0,
    content_index=0,
    part={"type": "output_text", "text": "", "annotations": []},
)
OUTPUT = [{"id": "msg_1", "type": "message"}, {"id": "ws_1", "type": "web_search_call"}, {"id": "no id"}]


def last(kind: str = "completed", number: int = 9, **fields: Any) -> bytes:
    return event(
        f"response.{kind}", number, response=response(kind, **{"usage": USAGE, "output": OUTPUT, **fields})
    )


TRICKY = 'say "response.completed" and {"type":"error"} \N{BALLOON}é'
STREAM = (
    b": a comment\n\n" + opening() + ADDED + PART + delta(3, TRICKY) + delta(4, " b") + last(),
    b"data: [DONE]\n\n",
)


async def all_of(answer: StreamedResponses) -> bytes:
    out = []
    while (chunk := await answer.next()) is not None:
        out.append(chunk)
    return b"".join(out)


def events_of(stream: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]


async def test_a_stream_cut_at_every_byte_comes_out_the_same() -> None:
    """The network cuts where it likes; not a byte may be lost, and the ending goes out last, after the settle."""
    whole = b"".join(STREAM)
    ending = last() + STREAM[1]
    for cut in range(len(whole)):
        answer = streamed(whole[:cut], whole[cut:]) if cut else streamed(whole)
        assert await all_of(answer) == whole.removesuffix(ending), cut
        assert answer.tail == ending, cut
        assert answer.usage == SEARCHED
        assert answer.model_served == "m-1"
        assert not answer.failed


@given(
    texts=st.lists(st.text(min_size=1), max_size=8),
    cuts=st.lists(st.integers(0, 5_000), max_size=12),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
    afterword=st.sampled_from([b"", b"data: [DONE]\n\n", b": bye\n\n", b"data: half"]),
    kind=st.sampled_from(["completed", "incomplete", "failed"]),
)
async def test_any_stream_comes_out_the_same(
    texts: list[str], cuts: list[int], end: bytes, afterword: bytes, kind: str
) -> None:
    """Whatever is said and however it is cut: the bytes of both together are the upstream's."""
    events = [opening(), ADDED, PART, *(delta(at, text) for at, text in enumerate(texts, 3)), last(kind)]
    whole = b"".join(events).replace(b"\n\n", end) + afterword
    at = sorted({cut for cut in cuts if 0 < cut < len(whole)})
    pieces = [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]
    answer = streamed(*pieces)
    forwarded = await all_of(answer)
    assert forwarded + answer.tail == whole
    assert answer.tail.startswith(f"event: response.{kind}".encode())
    assert b"response." + kind.encode() not in forwarded.replace(b'\\"', b"")
    assert answer.usage == SEARCHED
    assert answer.failed == (kind == "failed")


async def test_nothing_that_ends_the_answer_goes_out_before_it_is_settled() -> None:
    """A client that has seen the last event may come back at once and must find its record."""
    answer = streamed(opening(), delta(3, "a") + last())
    assert await answer.next() == opening()
    assert await answer.next() == delta(3, "a")
    assert await answer.next() is None
    assert answer.tail == last()


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
async def test_every_ending_reports_its_usage(end: str) -> None:
    """A response that failed or was cut off has cost what it says."""
    answer = streamed(opening() + last(end))
    await all_of(answer)
    assert answer.usage == SEARCHED
    assert answer.failed == (end == "failed")
    plain = PlainResponses(Head(), Pieces([orjson.dumps(response(end, usage=USAGE))]), ask())  # type: ignore[arg-type]
    await plain.read()
    assert plain.usage == PARTS
    assert plain.failed == (end == "failed")


async def test_a_failed_response_is_an_answer_and_an_error_is_not() -> None:
    """A response object that failed belongs to the client, whatever stands under its `error`."""
    body = orjson.dumps(response("failed", error={"code": "server_error", "message": "x"}, usage=None))
    plain = PlainResponses(Head(), Pieces([body]), ask())  # type: ignore[arg-type]
    assert await plain.read() == body
    assert plain.failed
    error = PlainResponses(Head(), Pieces([b'{"error":{"message":"no","code":402}}']), ask())  # type: ignore[arg-type]
    with pytest.raises(UpstreamFailed) as caught:
        await error.read()
    assert caught.value.error_type == "upstream_quota"


@pytest.mark.parametrize("usage", [None, {}, "much", {"input_tokens": 0, "output_tokens": 0}])
async def test_no_usage_is_an_estimate(usage: Any) -> None:
    """A silent zero would be a free call."""
    answer = streamed(opening() + ADDED + PART + delta(3, "12345678") + delta(4, "9") + last(usage=usage))
    await all_of(answer)
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens) == ("estimated", 3)
    assert answer.usage.input_tokens > 0
    assert answer.tail == last(usage=usage)


async def test_the_estimate_counts_no_text_twice_and_none_that_came_last_only() -> None:
    """A stream tells its text in pieces and once more whole; some upstreams tell it only whole."""
    text = "x" * 400
    item = {**MESSAGE, "content": [{"type": "output_text", "text": text}]}
    told = event("response.output_text.done", 5, text=text) + event("response.output_item.done", 6, item=item)
    pieces = b"".join(delta(at, "x" * 8) for at in range(50))
    for stream in (
        opening() + pieces + told + last(usage=None, output=[item]),
        opening() + last(usage=None, output=[item]),
    ):
        answer = streamed(stream)
        await all_of(answer)
        assert answer.usage is not None
        assert answer.usage.output_tokens == 100


async def test_a_stream_without_an_end_stays_one() -> None:
    """A forged `response.completed` would make a cut answer look whole."""
    answer = streamed(opening() + delta(3, "a"))
    assert await all_of(answer) == opening() + delta(3, "a")
    assert answer.tail == b""
    assert answer.usage is not None
    assert answer.usage.source == "estimated"


@pytest.mark.parametrize(
    "said",
    [
        b'event: error\ndata: {"type":"error","code":"x","message":"y","sequence_number":4}\n\n',
        b'data: {"error":{}}\n\n',
    ],
)
async def test_an_error_event_marks_the_attempt(said: bytes) -> None:
    """It is passed on; the ledger must not call it a success."""
    answer = streamed(opening() + said)
    assert await all_of(answer) == opening() + said
    assert answer.failed == (b"{}" not in said)


async def test_a_break_fails_the_stream_in_the_wires_own_words() -> None:
    """A bare `error` event makes Codex send the request six times; `response.failed` ends it."""
    broken = UpstreamFailed("unknown", "upstream_reset", "Broke.")
    answer = streamed(opening() + ADDED + PART, delta(3, "a"), broken)
    with pytest.raises(UpstreamFailed):
        await all_of(answer)
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    [failed] = events_of(answer.error_event("Broke.", "upstream_reset"))
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 4)
    told = failed["response"]
    assert (told["id"], told["object"], told["model"], told["status"]) == ("resp_1", "response", "m-1", "failed")
    assert told["error"] == {"code": "upstream_reset", "message": "Broke."}


async def test_a_stream_that_breaks_before_it_announced_anything_is_announced() -> None:
    """openai-python refuses a stream whose first event is not `response.created`."""
    answer = streamed(b": hello\n\n", UpstreamFailed("unknown", "upstream_reset", "Broke."))
    assert await answer.next() == b": hello\n\n"
    created, failed = events_of(answer.error_event("Broke.", "upstream_reset"))
    assert [created["type"], failed["type"]] == ["response.created", "response.failed"]
    assert [created["sequence_number"], failed["sequence_number"]] == [0, 1]
    assert created["response"]["id"] == failed["response"]["id"]


async def test_what_breaks_after_the_last_event_breaks_nothing() -> None:
    """The answer is whole; whoever drops its connection afterwards has no part in it."""
    answer = streamed(opening() + last(), UpstreamFailed("unknown", "upstream_reset", "Broke."))
    assert await all_of(answer) == opening()
    assert answer.tail == last()
    assert answer.usage == SEARCHED


async def test_a_stream_ended_by_length_closes_what_is_open() -> None:
    """Where a rolling hold has no more to give, the client gets an ending that its library understands."""
    answer = streamed(opening() + ADDED + PART + delta(3, 'he said "hé'), delta(4, '\\n" and'), delta(5, "more"))
    await answer.next()
    await answer.next()
    closing = events_of(await answer.end_by_length())
    assert [each["type"] for each in closing] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [each["sequence_number"] for each in closing] == [5, 6, 7, 8]
    assert closing[0]["text"] == 'he said "hé\\n" and'
    assert closing[1]["part"] == {"type": "output_text", "text": 'he said "hé\\n" and', "annotations": []}
    item = closing[2]["item"]
    assert (item["id"], item["status"], item["content"]) == ("msg_1", "incomplete", [closing[1]["part"]])
    told = closing[3]["response"]
    assert (told["id"], told["status"]) == ("resp_1", "incomplete")
    assert told["incomplete_details"] == {"reason": "max_output_tokens"}
    assert told["output"] == [item]
    assert answer.usage is not None
    assert told["usage"]["output_tokens"] == answer.usage.output_tokens == 6
    assert answer.usage.source == "estimated"
    assert await answer.next() is None
    assert answer.tail == b""
    assert answer._exchange.dropped  # type: ignore[attr-defined]


async def test_half_a_tool_call_is_not_closed() -> None:
    """A client would run it; its arguments are told in the ending, as incomplete."""
    call = {"id": "fc_1", "type": "function_call", "name": "f", "call_id": "c", "arguments": ""}
    done = {**MESSAGE, "status": "completed", "content": [{"type": "output_text", "text": "a"}]}
    part = event("response.function_call_arguments.delta", 6, item_id="fc_1", output_index=1, delta='{"a"')
    answer = streamed(
        opening()
        + ADDED
        + event("response.output_item.done", 4, output_index=0, item=done)
        + event("response.output_item.added", 5, output_index=1, item=call)
        + part
    )
    await answer.next()
    [ending] = events_of(await answer.end_by_length())
    assert ending["response"]["output"] == [done, {**call, "status": "incomplete", "arguments": '{"a"'}]


@pytest.mark.parametrize("stream", [opening() + last(), opening() + b'data: {"type":"error"}\n\n'])
async def test_what_has_ended_by_itself_is_not_ended_again(stream: bytes) -> None:
    """Two endings are none."""
    answer = streamed(stream)
    await answer.next()
    assert await answer.end_by_length() == b""


async def test_an_upstream_that_goes_on_after_its_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it could hold the client's last event back for as long as it likes."""
    monkeypatch.setattr(responses_answers, "AFTERWORD_BYTES_MAX", 100)
    answer = streamed(opening() + last(), *[b": on and on\n\n"] * 1000)
    await all_of(answer)
    assert len(answer.tail) < len(last()) + 200


async def test_a_last_event_of_megabytes_is_still_read() -> None:
    """It tells the whole answer once more, pictures included; passed on unread it would be an estimate."""
    big = last(output=[{"id": "ig_1", "type": "image_generation_call", "result": "A" * 3_000_000}])
    pieces = [big[at : at + 65_536] for at in range(0, len(big), 65_536)]
    answer = streamed(opening(), *pieces)
    assert await all_of(answer) == opening()
    assert answer.tail == big
    assert answer.usage == replace(PARTS, calls={"image_generation": 1})


async def test_what_the_upstream_keeps_is_told() -> None:
    """By these ids a customer comes back for it."""
    answer = streamed(opening() + last())
    await all_of(answer)
    assert answer.kept == KeptResponse("resp_1", ("msg_1",), ("ws_1",))
    for nothing in ({"store": False}, {"id": 5}, {"id": "../x"}):
        answer = streamed(opening() + last(**nothing))
        await all_of(answer)
        assert answer.kept is None


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        (USAGE, PARTS),
        ({"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, Usage(5, 6)),
        ({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}, Usage(5, 6)),
        ({"input_tokens": 5, "output_tokens": 6, "total_tokens": 7}, Usage(5, 6, disputed=True)),
        ({"input_tokens": -1, "output_tokens": 6}, Usage(0, 6, disputed=True)),
        (
            {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 9}},
            Usage(5, 6, cache_read_tokens=5, disputed=True),
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 6,
                "input_tokens_details": {"cached_tokens": 2, "audio_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 4},
            },
            Usage(9, 6, cache_read_tokens=2, audio_input_tokens=3, reasoning_tokens=1, audio_output_tokens=4),
        ),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_reports(report: Any, usage: Usage | None) -> None:
    """Parts never exceed their whole, and what cannot be believed says so."""
    assert read_responses_usage(report) == usage


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[NativeWire]:
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    yield wire
    await wire.close()


def dispatch(limit: int = 8, **body: Any) -> Dispatch:
    model = Model("m", (Target("up", "m-upstream"),), 100, 1000, "max_tokens")
    return Dispatch("req_1", 1, ask(**body), model, "m-upstream", limit)


def key_of(call: Recorded) -> str:
    return next(value for name, value in call.headers.items() if name.lower() == "authorization")


async def test_what_goes_up_is_built_by_the_gate(upstream: ScriptedUpstream, wire: NativeWire) -> None:
    """The admitted limit, the catalogue's model and our key."""
    await (await wire.send(dispatch(stream=False, max_output_tokens=90, user="u"))).read()
    call = upstream.calls[0]
    assert call.path == "/v1/responses"
    assert call.body == {
        "model": "m-upstream",
        "input": "three plain words",
        "stream": False,
        "max_output_tokens": 8,
        "user": "u",
    }
    assert key_of(call) == f"Bearer {KEY}"


async def test_a_scripted_stream_is_read_as_any_other(upstream: ScriptedUpstream, wire: NativeWire) -> None:
    """The scripted upstream tells thoughts, tool calls and failures as the real one does."""
    for script, output in (
        (Script(output_tokens=5), 5),
        (Script(output_tokens=50), 8),
        (Script(reasoning="let me see", output_tokens=3), 6),
        (Script(tool_calls=({"name": "f", "arguments": '{"a": 1, "b": 2}'},)), 2),
        (Script(error_after=3), 3),
    ):
        upstream.script(script)
        answer = await wire.send(dispatch())
        assert isinstance(answer, StreamedResponses)
        stream = await all_of(answer) + answer.tail
        numbers = [each["sequence_number"] for each in events_of(stream)]
        assert numbers == list(range(len(numbers)))
        assert answer.usage is not None
        assert (answer.usage.source, answer.usage.output_tokens) == ("provider", output)
        assert output <= answer.observed_output_tokens() <= 3 * output
        assert answer.failed == (script.error_after is not None)


async def test_kept_responses_are_fetched_and_deleted(upstream: ScriptedUpstream, wire: NativeWire) -> None:
    """With the gate's own key, and errors told as everywhere."""
    body = orjson.loads(await (await wire.send(dispatch(stream=False))).read())
    path = f"/responses/{body['id']}"
    assert orjson.loads(await wire.fetch("GET", path, "include=x.y"))["id"] == body["id"]
    assert orjson.loads(await wire.fetch("DELETE", path, ""))["deleted"] is True
    with pytest.raises(UpstreamFailed) as caught:
        await wire.fetch("GET", path, "")
    assert (caught.value.status, caught.value.blame) == (404, "request")
    assert upstream.calls[1].body == {"method": "GET", "query": "include=x.y"}
    assert key_of(upstream.calls[1]) == f"Bearer {KEY}"


async def test_a_fetch_does_not_wait_for_ever(
    upstream: ScriptedUpstream, wire: NativeWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is generated, so an answer of minutes is none."""
    monkeypatch.setattr("proxy.providers.native_wire.FETCH_S", 0.05)
    upstream.script(Script(status=500, head_delay_s=1.0))
    with pytest.raises(UpstreamFailed) as caught:
        await wire.fetch("GET", "/responses/resp_1", "")
    assert caught.value.error_type == "upstream_timeout"
