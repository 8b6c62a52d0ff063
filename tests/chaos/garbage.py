"""Streams as no provider should send them, made from a seed: each is a sound stream with things done to it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from raw_upstream import Answer

DONE = b"data: [DONE]\n\n"
LINE_BYTES = 100 * 1024 * 1024
USAGE = {"prompt_tokens": 11, "completion_tokens": 23, "total_tokens": 34}


@dataclass(frozen=True)
class Garbage:
    """An answer, what was done to it, and whether it ends as a sound stream does: whole, with `[DONE]`."""

    name: str
    answer: Answer
    ends_cleanly: bool


def _chunk(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def sound(dice: random.Random) -> list[bytes]:
    words = dice.choices(
        ("gate", "Brücke", "川", "🙂", "road ", "[DONE]", "data: ", '"usage":'), k=dice.randint(1, 20)
    )
    report = b"data: " + json.dumps({"id": "x", "choices": [], "usage": USAGE}).encode() + b"\n\n"
    return [*(_chunk(word) for word in words), report, DONE]


def garbage(dice: random.Random, *, long_line: bool = False) -> Garbage:
    if long_line:
        pieces = [b"data: "] + [b"x" * (1 << 20)] * (LINE_BYTES >> 20) + [b"\n\n", DONE]
        return Garbage("100 MB line", Answer(pieces), True)
    name = dice.choice(sorted(DEEDS))
    events, cut, clean = DEEDS[name](sound(dice), dice)
    return Garbage(name, Answer(_pieces(b"".join(events), dice), cut), clean)


def _pieces(body: bytes, dice: random.Random) -> list[bytes]:
    """Cut anywhere, in the middle of characters, of events and of line ends; or all at once."""
    if dice.random() < 0.2:
        return [body]
    most = dice.choice((1, 7, 60, 400))
    pieces = []
    while body:
        size = dice.randint(1, most)
        pieces.append(body[:size])
        body = body[size:]
    return pieces


Done = tuple[list[bytes], bool, bool]


def _noise(events: list[bytes], dice: random.Random) -> Done:
    at = dice.randrange(len(events))
    junk = dice.choice((
        dice.randbytes(dice.randint(1, 300)).replace(b"\n", b"?"), b"data: {\n\n", b"data: \xff\xfe\n\n",
        b"data: {\"choices\":[{\"delta\":{\"content\":\"\xc3\n\n", b": comment\n\n", b"\n\n\n\n",
        b"\x00\x00\n\n", b"event: ping\ndata:\n\n",
        b"data: null\n\ndata: 7\n\ndata: []\n\n", b"id: 7\nretry: 10\n\n", b"data: " + b"[" * 5000 + b"\n\n",
    ))  # fmt: skip
    return [*events[:at], junk + b"\n\n", *events[at:]], False, True


def _cut_anywhere(events: list[bytes], dice: random.Random) -> Done:
    body = b"".join(events[:-1])
    return [body[: dice.randint(1, len(body))]], True, False


def _ends_without_done(events: list[bytes], dice: random.Random) -> Done:
    return events[: dice.randint(1, len(events) - 1)], False, False


def _after_done(events: list[bytes], dice: random.Random) -> Done:
    return [*events, _chunk("after"), dice.randbytes(50), DONE], False, True


def _line_ends(events: list[bytes], dice: random.Random) -> Done:
    return [event.replace(b"\n", dice.choice((b"\r\n", b"\n", b"\r"))) for event in events], False, True


def _bom(events: list[bytes], dice: random.Random) -> Done:
    return [b"\xef\xbb\xbf", *events], False, True


def _half_done(events: list[bytes], dice: random.Random) -> Done:
    return [*events[:-1], DONE[: dice.randint(1, len(DONE) - 3)]], dice.random() < 0.5, False


def _error_event(events: list[bytes], dice: random.Random) -> Done:
    at = dice.randrange(len(events))
    return [*events[:at], b'data: {"error":{"message":"no","type":"server_error"}}\n\n', *events[at:]], False, True


def _fields_split(events: list[bytes], dice: random.Random) -> Done:
    return (
        [event.replace(b"data: ", dice.choice((b"data:", b"data:  ", b"x: 1\ndata: "))) for event in events],
        False,
        True,
    )


DEEDS = {
    "noise": _noise, "cut anywhere": _cut_anywhere, "no [DONE]": _ends_without_done, "after [DONE]": _after_done,
    "line ends": _line_ends, "byte order mark": _bom, "half a [DONE]": _half_done, "error event": _error_event,
    "odd fields": _fields_split,
}  # fmt: skip
