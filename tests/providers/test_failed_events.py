"""A provider that fails in the middle may quote what nobody should read; all else goes on byte for byte."""

from __future__ import annotations

import orjson
import pytest

from proxy.providers.failed_events import SENTENCE, without_secrets

KEY = "an-odd-key-of-no-known-form"


def event(body: object, name: bytes = b"") -> bytes:
    return name + b"data: %b\n\n" % orjson.dumps(body)


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "Overloaded", "type": "server_error", "code": None}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "error", "code": "x", "message": "Overloaded", "sequence_number": 4},
        {"type": "response.failed", "response": {"id": "resp_" + "0a" * 32, "error": {"message": "Overloaded"}}},
        {"error": "Overloaded"},
    ],
)
def test_what_tells_nothing_is_passed_on_as_it_is(said: object) -> None:
    """Byte equality is the promise of a native wire."""
    whole = event(said, b"event: error\r\n")
    assert without_secrets(whole, KEY) == whole


@pytest.mark.parametrize("quoted", [KEY, "sk-proj-0123456789", "org-0123456789", "https://internal.example/x"])
def test_what_tells_a_secret_is_told_anew(quoted: str) -> None:
    """The key, the account and the addresses behind the gate are the operator's; type and code are for clients."""
    chat = without_secrets(event({"id": "1", "error": {"message": f"No {quoted}", "type": "t", "code": 5}}), KEY)
    assert orjson.loads(chat[6:]) == {"id": "1", "error": {"type": "t", "code": 5, "message": SENTENCE}}
    said = {"type": "error", "error": {"type": "api_error", "message": quoted, "detail": quoted}}
    messages = without_secrets(event(said, b"event: error\n"), KEY)
    assert messages.startswith(b"event: error\ndata: ")
    assert orjson.loads(messages[19:]) == {"type": "error", "error": {"type": "api_error", "message": SENTENCE}}
    said = {"type": "response.failed", "response": {"id": "r", "error": {"code": quoted, "message": "x"}}}
    responses = orjson.loads(without_secrets(event(said), KEY)[6:])
    assert responses["response"]["id"] == "r"
    assert quoted not in str(responses)
    bare = without_secrets(event({"type": "error", "message": quoted, "sequence_number": 4}), KEY)
    assert orjson.loads(bare[6:]) == {"type": "error", "message": SENTENCE, "sequence_number": 4}
    assert quoted.encode() not in without_secrets(event({"error": quoted}), KEY)
