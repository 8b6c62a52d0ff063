"""A request body to one JSON object, or the refusal that says what is wrong with it.

Parsed once, by a parser that refuses duplicate keys: two readers that take different ones of them could be
shown two different requests. What the parser lets through is refused here: infinities written as 1e999,
integers beyond 64 bits (which cannot be written again), depth above 64, and more values than any real
request has (they would take the loop for tens of milliseconds). Nothing of the body is quoted back.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jiter

from proxy.domain.refusals import Refusal, Refused

DEPTH_MAX = 64
VALUES_MAX = 300_000
CONTAINERS_MAX = 50_000

# Digits as 0 and exponents as e, so that a number that might be out of range is found by plain searches.
_DIGITS = bytes(48 if 48 <= c <= 57 else 101 if c == 69 else c for c in range(256))
_LONG_INTEGER = b"0" * 19
_EXPONENT, _SIGNED_EXPONENT = b"0e000", b"0e+000"
_INTEGER_MIN, _INTEGER_MAX = -(1 << 63), (1 << 64) - 1
_NOT_STRUCTURE = bytes(c for c in range(256) if c not in b'[]{}",')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_PLACE = re.compile(r" at line (\d+) column (\d+)$")


def refuse(code: str, message: str, *, status: int = 400, param: str | None = None, **headers: str) -> Refused:
    """A `bad_request` refusal to raise."""
    return Refused(Refusal("bad_request", message, status, code=code, param=param, headers=headers))


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is; raises `Refused` (bad_request) with a word for each fault."""
    if not body:
        raise refuse("empty_body", "The request has no body; send a JSON object.")
    # A value takes at least two bytes, so short bodies with few brackets need no closer look.
    if len(body) > 2 * VALUES_MAX or body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        _check_structure(body)
    try:
        value = jiter.from_json(body, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError as fault:
        raise _explained(body, str(fault)) from None
    if type(value) is not dict:
        raise refuse("not_an_object", 'The body must be a JSON object, such as {"model": …, "messages": […]}.')
    shape = body.translate(_DIGITS)
    if _LONG_INTEGER in shape or _EXPONENT in shape or _SIGNED_EXPONENT in shape:
        _check_numbers(value)
    return value


def _check_structure(body: bytes) -> None:
    """Refuses depth and numbers of values without parsing, by a few passes that run in C.

    Left of the body are brackets, commas and quotes, without escaped quotes. Two quotes side by side leave
    and enter the same text, so taking them out changes nothing about what is inside a string.
    """
    skeleton = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE)
    skeleton = skeleton.replace(b'""', b"")
    if skeleton.count(b'"') > 2 * VALUES_MAX:
        raise _too_many()
    if b'"' in skeleton:
        skeleton = b"".join(skeleton.split(b'"')[::2])
    brackets = skeleton.translate(_ONE_KIND, b",")
    if len(skeleton) - len(brackets) > VALUES_MAX or len(brackets) > 2 * CONTAINERS_MAX:
        raise _too_many()
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"[]", b"")
    # Unbalanced brackets are no JSON at all, which the parser explains better.
    if brackets and brackets.count(b"[") == brackets.count(b"]"):
        raise refuse("too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")


def _too_many() -> Refused:
    return refuse(
        "too_many_values",
        f"The body has more than {CONTAINERS_MAX:,} objects and lists or {VALUES_MAX:,} values.",
    )


def _check_numbers(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        for part in item.values() if type(item) is dict else item:
            kind = type(part)
            if kind is dict or kind is list:
                waiting.append(part)
            elif (kind is float and not math.isfinite(part)) or (
                kind is int and not _INTEGER_MIN <= part <= _INTEGER_MAX
            ):
                raise refuse("invalid_number", "A number in the body is too large: integers take 64 bits.")


def _explained(body: bytes, fault: str) -> Refused:
    """The parser's complaint without what it quotes: a duplicate key is content."""
    place = _PLACE.search(fault)
    where = f" at line {place[1]} column {place[2]}" if place else ""
    if fault.startswith("Detected duplicate key"):
        return refuse("duplicate_key", f"The body has the same key twice in one object{where}.")
    if fault.startswith("recursion limit exceeded"):
        return refuse("too_deep", f"The body is nested more than {DEPTH_MAX} levels deep{where}.")
    if fault.startswith("number out of range"):
        return refuse("invalid_number", f"A number in the body is too large{where}.")
    if body[:3] == b"\xef\xbb\xbf":
        return refuse("invalid_json", "The body begins with a byte order mark; send plain UTF-8 JSON.")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        return refuse("invalid_json", "The body is not UTF-8; send the JSON as UTF-8.")
    return refuse("invalid_json", f"The body is not valid JSON{where}.")
