"""The estimate that is charged when a provider never reports."""

from __future__ import annotations

from proxy.providers.delivered import KEPT_BYTES_MAX, Delivered


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
