"""The estimate that is charged when a provider never reports."""

from __future__ import annotations

import pytest

from proxy.domain.embeddings_requests import read_embeddings
from proxy.domain.usage import Usage
from proxy.providers.delivered import KEPT_BYTES_MAX, Delivered, estimated


def test_at_least_a_token_for_each_piece_and_each_four_bytes() -> None:
    """Too low an estimate would make breaking off a stream the cheapest way to use it."""
    delivered = Delivered()
    delivered.add(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    assert delivered.tokens() == 0
    delivered.add(
        b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content" : "b"}}]}\n\n'
    )
    assert delivered.tokens() == 2
    delivered.add(b'data: {"choices":[{"delta":{"reasoning_content":"said \\"so\\" and more of it"}}]}\n\n')
    assert delivered.tokens() == 7
    delivered.add(b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"a\\":1}"}}]}}]}\n\n')
    assert delivered.tokens() == 10


def test_a_long_stream_is_folded_and_counts_the_same() -> None:
    """Memory per stream is bounded, and the bound must not cost tokens."""
    delivered, event = Delivered(), b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
    for _ in range(3 * KEPT_BYTES_MAX // len(event)):
        delivered.add(event)
    assert delivered.tokens() == 3 * KEPT_BYTES_MAX // len(event)
    assert delivered._size <= KEPT_BYTES_MAX


def test_which_choices_have_ended_is_known() -> None:
    """Whoever ends the others must not end these a second time; a text about finish_reason ends nothing."""
    delivered = Delivered()
    text = b'\\"finish_reason\\":\\"stop\\"'
    delivered.add(b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % text)
    assert delivered.finished() == frozenset()
    delivered.add(b'data: {"choices":[{"index":2,"delta":{},"finish_reason":"stop"}]}\n\n')
    assert delivered.finished() == {2}
    delivered.add(b'data: {"finish_reason":"x"}\n\ndata: "finish_reason":"x"\n\n')
    delivered.add(b'data: {"choices":[{"finish_reason" : "length"}]}\n\n')
    assert delivered.finished() == {0, 2}


@pytest.mark.parametrize(
    ("wire", "events", "tokens"),
    [
        ("a chat's text", b'{"choices":[{"delta":{"content":"four chars"}}]}', 3),
        ("a chat's reasoning", b'{"choices":[{"delta":{"reasoning":"abcd","content":null}}]}', 1),
        ("a refusal", b'{"choices":[{"delta":{"refusal":"I cannot."}}]}', 3),
        ("a call", b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"a\\":1"}}]}}]}', 2),
        ("a completion's text", b'{"choices":[{"text":"four chars","logprobs":{"tokens":["four"]}}]}', 3),
        ("a message's text", b'{"delta":{"type":"text_delta","text":"four chars"}}', 3),
        ("a message's thinking", b'{"delta":{"type":"thinking_delta","thinking":"four chars"}}', 3),
        ("a message's call", b'{"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":1"}}', 2),
        ("nothing said", b'{"delta":{"type":"text_delta","text":""},"usage":null,"id":"x","type":"y"}', 0),
    ],
)
def test_every_wire_has_its_words_for_what_was_made(wire: str, events: bytes, tokens: int) -> None:
    """Without a report nothing else is charged for: a field that is overlooked is output for nothing."""
    delivered = Delivered()
    delivered.add(b"data: " + events + b"\n\n")
    assert delivered.tokens() == tokens


def test_what_is_given_back_is_taken_off_and_never_leaves_a_debt() -> None:
    """A prompt that comes back in pieces is no output, and a short answer behind it no credit."""
    delivered = Delivered(echoed_bytes=400)
    assert delivered.tokens() == 0
    delivered.add(b'data: {"choices":[{"text":"%b"}]}\n\n' % (b"x" * 400))
    assert delivered.tokens() == 1
    delivered.add(b'data: {"choices":[{"text":"%b"}]}\n\n' % (b"y" * 80))
    assert delivered.tokens() == 20


def test_of_an_ask_without_output_none_is_estimated() -> None:
    ask = read_embeddings({"model": "m", "input": "word " * 8}, {}, str)
    delivered = Delivered()
    delivered.add(b'{"data":[{"text":"not made"}]}')
    assert estimated(ask, delivered) == Usage(input_tokens=10, source="estimated")
