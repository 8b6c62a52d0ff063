"""Every fault that a body can have has a word, and none of them costs much time."""

from __future__ import annotations

import json
import time

import pytest

from proxy.domain.refusals import Refused
from proxy.web.api.bodies import DEPTH_MAX, parse_object


def deep(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


FAULTS = {
    "nothing": (b"", "empty_body"),
    "space": (b" \n", "invalid_json"),
    "text": (b"hello", "invalid_json"),
    "form": (b"model=a&n=1", "invalid_json"),
    "list": (b"[{}]", "not_an_object"),
    "string": (b'"a"', "not_an_object"),
    "null": (b"null", "not_an_object"),
    "unfinished": (b'{"a":1', "invalid_json"),
    "trailing": (b'{"a":1} x', "invalid_json"),
    "two objects": (b"{}{}", "invalid_json"),
    "trailing NUL": (b"{}\0", "invalid_json"),
    "comment": (b"{} // a", "invalid_json"),
    "comma": (b'{"a":1,}', "invalid_json"),
    "duplicate": (b'{"model":"cheap","model":"dear"}', "duplicate_key"),
    "escaped duplicate": (b'{"model":"cheap","\\u006dodel":"dear"}', "duplicate_key"),
    "nested duplicate": (b'{"a":[{"b":1,"b":2}]}', "duplicate_key"),
    "NaN": (b'{"a":NaN}', "invalid_json"),
    "Infinity": (b'{"a":-Infinity}', "invalid_json"),
    "1e999": (b'{"a":1e999}', "invalid_number"),
    "1E+999": (b'{"a":[{"b":-1E+999}]}', "invalid_number"),
    "1e0000999": (b'{"a":1e0000999}', "invalid_number"),
    "long mantissa": (b'{"a":' + b"9" * 300 + b".5e99}", "invalid_number"),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", "invalid_number"),
    "65 bits": (b'{"a":18446744073709551616}', "invalid_number"),
    "-65 bits": (b'{"a":-9223372036854775809}', "invalid_number"),
    "BOM": (b"\xef\xbb\xbf{}", "invalid_json"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "invalid_json"),
    "UTF-16-LE": ('{"a":1}'.encode("utf-16-le"), "invalid_json"),
    "UTF-32": ('{"a":1}'.encode("utf-32"), "invalid_json"),
    "Latin-1": ('{"a":"é"}'.encode("latin-1"), "invalid_json"),
    "lone surrogate": (b'{"a":"\\ud800"}', "invalid_json"),
    "lone trailing surrogate": (b'{"a":"x\\udc00y"}', "invalid_json"),
    "lone surrogate in a key": (b'{"\\udfff":1}', "invalid_json"),
    "control character": (b'{"a":"\n"}', "invalid_json"),
    "depth 65": (deep(65), "too_deep"),
    "depth 200": (deep(200), "too_deep"),
    "depth 20,000": (deep(20_000), "too_deep"),
    "depth 100,000": (deep(100_000), "too_many_values"),
    "depth 200 of objects": (b'{"a":' * 200 + b"1" + b"}" * 200, "too_deep"),
    "unbalanced": (b'{"a":' + b"[" * 200, "invalid_json"),
    "100,000 messages": (
        b'{"messages":[' + b",".join([b'{"role":"user","content":"hi, {you}"}'] * 100_000) + b"]}",
        "too_many_values",
    ),
    "a million biases": (b'{"logit_bias":[' + b"1," * 1_000_000 + b"1]}", "too_many_values"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_body_is_refused_with_its_word(name: str) -> None:
    """What two parsers read differently, or what would hurt the loop, is never admitted."""
    body, code = FAULTS[name]
    started = time.thread_time()
    with pytest.raises(Refused) as refused:
        parse_object(body)
    assert time.thread_time() - started < 0.05
    assert (refused.value.refusal.reason, refused.value.refusal.code) == ("bad_request", code)
    assert refused.value.refusal.status == 400


def test_a_refusal_does_not_quote_the_body() -> None:
    """Keys are content too; a place in the text is enough to find the fault."""
    with pytest.raises(Refused) as refused:
        parse_object(b'{"canary":1,\n"canary":2}')
    assert "canary" not in refused.value.refusal.message
    assert "line 2 column 10" in refused.value.refusal.message


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"a": [1, -2, 0.5, 1e5, true, null]} \n',
        b'{"a":18446744073709551615,"b":-9223372036854775808}',
        b'{"card":"1234567890123456789012","when":"1e999"}',
        deep(DEPTH_MAX),
        b'{"text":"' + b"[{" * 500 + b'"}',
        b'{"text":"\\"' + b"[" * 100 + b"]" * 100 + b'\\""}',
        b'{"a":"\\\\","b":"' + b"[" * 100 + b"]" * 100 + b'","c":"\\\\"}',
        b'{"text":"' + b'\\\\\\"[{, ' * 500 + b'\\\\"}',
        b'{"a":[' + b'{"\\"{":"}\\\\","b":","},' * 2000 + b"{}]}",
        b'{"a":["' + b'","'.join([b"{[", b"]", b""] * 500) + b'"]}',
        json.dumps({"messages": [{"role": "user", "content": "x, y [z]"}] * 2000}).encode(),
    ],
)
def test_a_sound_body_is_read_as_json_reads_it(body: bytes) -> None:
    """Brackets, digits and commas inside of strings are only text."""
    assert parse_object(body) == json.loads(body)
