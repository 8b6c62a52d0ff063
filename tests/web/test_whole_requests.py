"""What is read without the parser must be what the parser would have read, or must be left to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.web.whole_requests import WholeRequests, whole_request

BODY = b'{"model":"m"}'
PLAIN = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gate:8080\r\nAuthorization: Bearer fg_live_x\r\n"
    b"Content-Type:application/json\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n" + BODY
)

ODD = {
    "another method": PLAIN.replace(b"POST", b"GET "),
    "HTTP/1.0": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/0.9": PLAIN.replace(b" HTTP/1.1", b""),
    "an absolute target": PLAIN.replace(b"/v1/chat", b"http://gate/v1/chat"),
    "a fragment": PLAIN.replace(b"completions", b"completions#x"),
    "a space in the target": PLAIN.replace(b"/v1/chat", b"/v1 /chat"),
    "a byte beyond ASCII": PLAIN.replace(b"fg_live_x", b"fg_live_\xe9"),
    "no host": PLAIN.replace(b"Host", b"Hose"),
    "two hosts": PLAIN.replace(b"Host: gate:8080", b"Host: gate:8080\r\nhost: other"),
    "two secrets": PLAIN.replace(b"Content-Type:application/json", b"authorization: Bearer y"),
    "two lengths": PLAIN.replace(b"Content-Length: 13", b"Content-Length: 13\r\nContent-Length: 13"),
    "a signed length": PLAIN.replace(b": 13", b": +13"),
    "a length in other digits": PLAIN.replace(b": 13", b": 1\xb2"),
    "no length": PLAIN.replace(b"Content-Length: 13\r\n", b""),
    "part of the body": PLAIN[:-1],
    "more than the body": PLAIN + b"POST",
    "part of the head": PLAIN[:80],
    "chunked": PLAIN.replace(b"Content-Type:application/json", b"Transfer-Encoding: chunked"),
    "asks to continue": PLAIN.replace(b"Content-Type:application/json", b"Expect: 100-continue"),
    "compressed": PLAIN.replace(b"Content-Type:application/json", b"Content-Encoding: gzip"),
    "to be upgraded": PLAIN.replace(b"Content-Type:application/json", b"Upgrade: h2c"),
    "to be closed": PLAIN.replace(b"keep-alive", b"close"),
    "hop by hop": PLAIN.replace(b"keep-alive", b"authorization"),
    "a folded line": PLAIN.replace(b"\r\nConnection:", b"\r\n Connection:"),
    "a space before the colon": PLAIN.replace(b"Host:", b"Host :"),
    "an empty name": PLAIN.replace(b"Host:", b":"),
    "a bare line feed": PLAIN.replace(b"gate:8080", b"gate\nx: 1"),
    "a bare carriage return": PLAIN.replace(b"gate:8080", b"gate\rx: 1"),
    "a NUL": PLAIN.replace(b"gate:8080", b"gate\0"),
    "a trailing blank": PLAIN.replace(b"gate:8080", b"gate:8080 "),
    "an empty value": PLAIN.replace(b" gate:8080", b""),
    "an endless head": PLAIN.replace(b"gate:8080", b"g" * 9000),
    "nothing": b"",
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_whatever_is_out_of_the_ordinary_is_left_to_the_parser(data: bytes) -> None:
    """A request that two readers take for two different ones is how requests are smuggled."""
    assert whole_request(data) is None


def test_an_ordinary_request_is_read_in_full() -> None:
    request = whole_request(PLAIN)
    assert request is not None
    assert (request.method, request.path, request.read_nowait()) == ("POST", "/v1/chat/completions", BODY)
    assert request.at_eof()
    assert dict(request.headers) == {
        "host": "gate:8080",
        "authorization": "Bearer fg_live_x",
        "content-type": "application/json",
        "connection": "keep-alive",
        "content-length": "13",
    }
    assert request.headers.getall("authorization") == ("Bearer fg_live_x",)
    assert (request.headers.getall("x-api-key", ()), "x-api-key" in request.headers) == ((), False)


@st.composite
def requests(draw: Any) -> bytes:
    """An ordinary request with a few bytes changed, put in or taken out."""
    data = bytearray(PLAIN)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        put = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"#", b"?", b"x", b"\x80"])
        )
        data[at : at + draw(st.integers(0, 2))] = put
    return bytes(data)


def test_a_request_with_the_same_head_but_for_its_length_is_read_from_memory() -> None:
    """What is remembered of one request must say of the next exactly what reading it anew would say."""
    memory = WholeRequests()
    for body in (BODY, b"{}", b"x" * 12345, BODY):
        data = PLAIN[: -len(BODY)].replace(b": 13", b": %d" % len(body)) + body
        request, anew = memory.read(data), whole_request(data)
        assert request is not None
        assert anew is not None
        assert (request.path, dict(request.headers)) == (anew.path, dict(anew.headers))
        assert request.read_nowait() == anew.read_nowait() == body


@settings(max_examples=400, deadline=None)
@given(st.lists(requests(), max_size=4))
def test_memory_makes_no_difference(heads: list[bytes]) -> None:
    """Whatever came before, a request is read as if it were the first."""
    memory = WholeRequests()
    for data in (PLAIN, *heads, PLAIN):
        request, anew = memory.read(data), whole_request(data)
        assert (request is None) == (anew is None)
        if request is not None and anew is not None:
            assert (request.path, dict(request.headers)) == (anew.path, dict(anew.headers))
            assert request.read_nowait() == anew.read_nowait()


@settings(max_examples=400, deadline=None)
@given(requests())
async def test_whoever_reads_it_reads_the_same(data: bytes) -> None:
    """The parser is the reference: nothing is taken here that it refuses or reads otherwise."""
    request = whole_request(data)
    if request is None:
        return
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 1 << 18)
    messages, _, rest = parser.feed_data(data)
    ((message, payload),) = messages
    assert (message.method, message.path, rest) == ("POST", request.path, b"")
    assert {name.lower(): value for name, value in message.headers.items()} == dict(request.headers)
    assert payload.read_nowait() == request.read_nowait()
    assert (message.should_close, message.chunked, message.upgrade) == (False, False, False)
