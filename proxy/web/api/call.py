"""A client's request and the way back to it: the `Call` of `gateway.ports` on one of our connections.

Nothing here goes through aiohttp's request and response classes. A plain answer is one write of head and
body; a stream is a head, a chunk per write and a tail that carries its own terminating chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp.http import HttpVersion11

from proxy.web.api.bodies import parse_object, refuse
from proxy.web.connection import BodyBroken, ClientGone, Connection, ReceiptTimeout
from proxy.web.heads import CONTINUE, head
from proxy.web.whole_requests import Payload, RequestHead

SECRET_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
SLICE_BYTES = 1 << 17
"""A chunk larger than this is written in parts, so that a slow reader never makes us hold more."""


class HttpCall:
    """One request. `endpoint` is the raw path without its `query`."""

    __slots__ = (
        "_act",
        "_chunked",
        "_connection",
        "_payload",
        "_request",
        "_streaming",
        "began",
        "endpoint",
        "gone",
        "headers",
        "keeps",
        "method",
        "query",
        "request_id",
        "secret",
    )

    def __init__(self, connection: Connection, request: RequestHead, payload: Payload, request_id: str) -> None:
        self._connection = connection
        self._request = request
        self._payload = payload
        self.request_id = request_id
        self.method = request.method
        self.endpoint, _, self.query = request.path.partition("?")
        self.headers: Mapping[str, str] = request.headers
        self.secret = _secret(request)
        self.gone = False
        self.began = False
        self.keeps = False
        self._act: Callable[[], None] | None = None
        self._chunked = False
        self._streaming = False

    # -- the request --------------------------------------------------------------------------------------

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises `Refused` (bad_request) for every fault of it."""
        headers = self.headers
        if headers.get("content-encoding"):
            raise refuse(
                "unsupported_content_encoding",
                "Compressed bodies are not accepted; send the JSON without a Content-Encoding.",
                status=415,
            )
        _check_content_type(headers.get("content-type"))
        return parse_object(await self._body())

    async def _body(self) -> bytes:
        """The whole body. A declared size is judged before a byte is read."""
        payload = self._payload
        most = self._connection.listener.limits.body_bytes
        declared = self.headers.get("content-length")
        if declared is not None and (len(declared) > 15 or int(declared) > most):
            raise _too_large(most)
        if payload.is_eof():
            body = payload.read_nowait()
            if len(body) > most:
                raise _too_large(most)
            return body
        if self._expects_continue():
            self._put(CONTINUE)
        return await self._rest_of_body(most)

    async def _rest_of_body(self, most: int) -> bytes:
        body = bytearray()
        try:
            while not self._payload.at_eof():
                body += await self._payload.readany()
                if len(body) > most:
                    raise _too_large(most)
        except ReceiptTimeout:
            raise refuse("request_timeout", "The body did not arrive in time.", status=408) from None
        except BodyBroken:
            raise refuse("bad_http", "The body's framing is not valid HTTP/1.1.") from None
        except ClientGone:
            raise refuse("client_gone", "The client left before its body was complete.") from None
        return bytes(body)

    def _expects_continue(self) -> bool:
        expected = self.headers.get("expect")
        return expected is not None and expected.lower() == "100-continue" and self._is_http11()

    # -- the client ---------------------------------------------------------------------------------------

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """Calls `act` once if the client leaves (at once if it has); None takes it back."""
        if act is not None and self.gone:
            act()
            return
        self._act = act

    def leave(self) -> None:
        """The connection's news that the client has left."""
        if self.gone:
            return
        self.gone = True
        act, self._act = self._act, None
        if act is not None:
            act()

    # -- the answer ---------------------------------------------------------------------------------------

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer, in one write. It waits until a slow reader has taken most of it."""
        connection = self._connection
        start = self._head(status, headers, f"content-length: {len(body)}\r\n")
        connection.put(start if self.method == "HEAD" else start + body)
        if connection.writing_paused:
            await connection.drain()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of a stream: chunked, or for HTTP/1.0 ended by closing."""
        self._chunked = self._is_http11()
        self._streaming = True
        self._put(self._head(status, headers, "transfer-encoding: chunked\r\n" if self._chunked else ""))

    async def write(self, chunk: bytes) -> None:
        """Forwards a chunk of a begun stream, waiting for a slow reader."""
        if len(chunk) > SLICE_BYTES:
            for start in range(0, len(chunk), SLICE_BYTES):
                await self.write(chunk[start : start + SLICE_BYTES])
        elif chunk:
            self._put(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
            if self._connection.writing_paused:
                await self._connection.drain()

    async def end(self, tail: bytes) -> None:
        """The tail and the terminating chunk, in one write: clients close right after the tail."""
        self._streaming = False
        if self._chunked:
            tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail) if tail else b"0\r\n\r\n"
        self._put(tail)
        await self._connection.drain()

    def cut(self) -> None:
        """Drop the connection: what was begun is not ended cleanly."""
        self.began = True
        self._streaming = self.keeps = False
        self._connection.abort()

    @property
    def unfinished(self) -> bool:
        """A client who is still there got no answer, or a stream that was not ended."""
        return not self.gone and (self._streaming or not self.began)

    def _head(self, status: int, headers: Mapping[str, str], framing: str) -> bytes:
        if self.began:
            raise RuntimeError("this call is already answered")
        self.began = True
        listener = self._connection.listener
        self.keeps = (
            not self._request.should_close
            and self._payload.is_eof()
            and self._is_http11()
            and not self._request.upgrade
            and not listener.draining
        )
        if not self.keeps:
            framing += "connection: close\r\n"
        if "x-request-id" not in headers:
            headers = {**headers, "x-request-id": self.request_id}
        return head(status, headers, listener.date, framing)

    def _is_http11(self) -> bool:
        return self._request.version is HttpVersion11

    def _put(self, data: bytes) -> None:
        if not self.gone:
            self._connection.put(data)


def _secret(request: RequestHead) -> str | None:
    """The agent secret, from the headers alone. Two different ones are as good as none: 401."""
    headers = request.headers
    found: set[str] = set()
    for value in headers.getall("authorization", ()):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer" and credentials.strip():
            found.add(credentials.strip())
    for name in SECRET_HEADERS:
        if name in headers:
            found.update(value for value in headers.getall(name) if value)
    return found.pop() if len(found) == 1 else None


def _check_content_type(content_type: str | None) -> None:
    if content_type is None or content_type == "application/json":
        return
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/json", "") and not kind.endswith("+json"):
        raise refuse(
            "unsupported_content_type",
            "The body must be JSON: set the header 'Content-Type: application/json' (curl: -H).",
            status=415,
        )


def _too_large(most: int) -> Exception:
    return refuse("body_too_large", f"The body is larger than {most:,} bytes.", status=413)
