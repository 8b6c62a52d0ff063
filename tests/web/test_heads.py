"""Response heads: whatever a value holds, it stays one header."""

from __future__ import annotations

import pytest

from proxy.web.heads import head

FRAMING = "content-length: 0\r\n"


def test_a_head_is_the_status_the_headers_the_date_and_the_framing() -> None:
    assert head(402, {"a": "b", "c": "d"}, "now", FRAMING) == (
        b"HTTP/1.1 402 Payment Required\r\na: b\r\nc: d\r\ndate: now\r\ncontent-length: 0\r\n\r\n"
    )
    assert head(599, {}, "now", "").startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize("evil", ["\r\nx: y", "\n", "\r", "\0", "\r\n\r\nHTTP/1.1 200 OK", "a\n\rb"])
@pytest.mark.parametrize("in_name", [False, True])
def test_control_characters_become_spaces(evil: str, in_name: bool) -> None:
    """An upstream's header value must not be able to begin a header, or an answer, of its own."""
    headers = {f"a{evil}": "b"} if in_name else {"a": f"b{evil}c"}
    written = head(200, headers, "now", FRAMING)
    assert written.count(b"\n") == written.count(b"\r") == 5
    assert b"\0" not in written


def test_characters_beyond_latin_1_are_replaced() -> None:
    assert b"a: \xfc??\r\n" in head(200, {"a": "ü€\udcff"}, "now", FRAMING)
