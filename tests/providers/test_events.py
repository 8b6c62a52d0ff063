"""A client must never be sent half an event, wherever the network cuts the stream."""

from __future__ import annotations

import random

import pytest

from proxy.providers.events import CARRIED_BYTES_MAX, WholeEvents, data_of, split

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n")


def fed(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    events = WholeEvents()
    whole = [each for each in map(events.feed, pieces) if each]
    return whole, events.rest()


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_cut_gives_whole_events_and_the_same_bytes(end: bytes) -> None:
    """Cuts inside a character, a line end and the middle of `[DONE]` are all equal."""
    stream = b"".join(f"data: {word}".encode() + end for word in ("héllo", "wörld 🎈", "[DONE]"))
    for at in range(len(stream) + 1):
        whole, rest = fed([stream[:at], stream[at:]])
        assert b"".join(whole) + rest == stream
        assert all(each.endswith(end) for each in whole)


def test_random_splits_of_mixed_line_ends_change_nothing() -> None:
    """Servers mix line ends; the bytes are theirs to choose and ours to keep."""
    chance = random.Random(7)
    for _ in range(300):
        stream = b"".join(f"data: é{n}".encode() + chance.choice(ENDS) for n in range(chance.randrange(1, 9)))
        cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(12)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        whole, rest = fed(pieces)
        assert b"".join(whole) + rest == stream
        for each in whole:
            assert b"".join(split(each)) == each
            each.decode()  # no character is cut


def test_an_endless_event_passes_in_parts_and_reading_goes_on_after_it() -> None:
    """Nobody may fill the memory with one event, and its end must not swallow the next."""
    events = WholeEvents()
    piece = b"x" * 100_000
    passed, pieces = 0, 0
    while not passed:
        out = events.feed(piece)
        passed += len(out)
        pieces += 1
    assert CARRIED_BYTES_MAX < passed == pieces * len(piece)
    assert events.unread == passed
    assert events.feed(b"yy") == b"yy"
    assert events.feed(b"z\n") == b"z\n"
    assert events.feed(b"\ndata: 1\n\ndata") == b"\ndata: 1\n\n"
    assert events.unread == 1
    assert events.feed(b": 2\n\n") == b"data: 2\n\n"
    assert events.unread == 0


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"event: e\ndata: x\nid: 1\n\n", b"x"),
        (b"data: {\ndata: }\n\n", b"{\n}"),
        (b": comment\n\n", b""),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
    ],
)
def test_what_an_event_says(event: bytes, data: bytes) -> None:
    """The forms that the specification of server-sent events allows."""
    assert data_of(event) == data


def test_an_event_goes_out_with_its_last_byte() -> None:
    """An event held until the next one comes would make the last word of a stream late, or never come."""
    events = WholeEvents()
    assert events.feed(b"data: a\n\ndata: b\r\n\r") == b"data: a\n\n"
    assert events.feed(b"\n") == b"data: b\r\n\r\n"
    stream = b"data: c\r\n\r\ndata: d\n\n"
    assert [at for at in range(len(stream)) if events.feed(stream[at : at + 1])] == [10, 19]
