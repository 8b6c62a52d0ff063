"""Requests that come whole in one read, which is nearly all of them: read here, without aiohttp's parser.

The parser makes a stream reader, a URL and two copies of every header for each request, a tenth of what a gated
request costs. What is taken here is so ordinary that no two readers could disagree about it: one POST with a plain
target, ASCII header lines without folding, no header twice, one `content-length` that is exactly what follows, and
nothing that bears on framing or on the connection. All else, and whatever might be an attack, is the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from aiohttp.http import HttpVersion, HttpVersion11
from multidict import CIMultiDictProxy

HEAD_BYTES_MAX = 8190

_START = re.compile(r"POST (/[!-\"$-~]{0,2047}) HTTP/1\.1\r\n")
_FIELD = re.compile(r"(?<=\n)([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~][\t -~]*)\r\n")
# Who sends one of these means something that has to do with framing, or that nobody understands here.
_SPECIAL = frozenset(("transfer-encoding", "upgrade", "expect", "te", "trailer", "content-encoding"))


class Headers(Mapping[str, str]):
    """Headers without doubles, by names in lower case; asked for as aiohttp's are."""

    __slots__ = ("_fields", "get")

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields
        # Asked a dozen times a request: the dictionary's own is three times as quick as what Mapping makes of it.
        self.get = fields.get  # type: ignore[method-assign]

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def getall(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        value = self._fields.get(name)
        return default if value is None else (value,)


class RequestHead(Protocol):
    """What is asked of a request's head, whoever has read it."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def version(self) -> HttpVersion: ...

    @property
    def headers(self) -> Headers | CIMultiDictProxy[str]: ...

    @property
    def should_close(self) -> bool: ...

    @property
    def upgrade(self) -> bool: ...


class Payload(Protocol):
    """A request's body as it comes."""

    def is_eof(self) -> bool: ...

    def at_eof(self) -> bool: ...

    def read_nowait(self) -> bytes: ...

    async def readany(self) -> bytes: ...

    def set_exception(self, exc: BaseException) -> None: ...


class WholeRequest:
    """A request and its body in one: what a connection needs of aiohttp's message and of its stream."""

    __slots__ = ("_body", "headers", "path")

    method = "POST"
    version: HttpVersion = HttpVersion11
    should_close = upgrade = chunked = False

    def __init__(self, path: str, headers: Headers, body: bytes) -> None:
        self.path = path
        self.headers = headers
        self._body = body

    def is_eof(self) -> bool:
        return True

    def at_eof(self) -> bool:
        return not self._body

    def read_nowait(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def readany(self) -> bytes:
        return self.read_nowait()

    def set_exception(self, exc: BaseException) -> None:
        """It has come already."""


class WholeRequests:
    """Reads the whole requests of one connection, and remembers the head of the last.

    A client says the same of each of its requests but their length. What equals the last head around the digits of
    its length has been read before.
    """

    __slots__ = ("_after", "_before", "_fields", "_path")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._path = ""
        self._fields: dict[str, str] = {}

    def read(self, data: bytes) -> WholeRequest | None:
        """The request that `data` is, if it is an ordinary one and all of it; else None."""
        before, after = self._before, self._after
        if before and data.startswith(before):
            at = len(before)
            line_end = data.find(b"\r\n", at, at + 12)
            if line_end > at and data.startswith(after, line_end):
                length, start = data[at:line_end], line_end + len(after)
                if length.isdigit() and int(length) == len(data) - start:
                    fields = {**self._fields, "content-length": length.decode("ascii")}
                    return WholeRequest(self._path, Headers(fields), data[start:])
        request = whole_request(data)
        if request is not None:
            self._remember(request, data)
        return request

    def _remember(self, request: WholeRequest, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        at = data[:end].lower().find(b"\r\ncontent-length:") + 17
        at += data[at : at + 1] == b" "
        line_end = data.find(b"\r\n", at)
        self._before, self._after = data[:at], data[line_end:end]
        self._path, self._fields = request.path, dict(request.headers)


def whole_request(data: bytes) -> WholeRequest | None:
    """As `WholeRequests.read`, of a connection's first request."""
    end = data.find(b"\r\n\r\n") + 2
    if not 2 < end <= HEAD_BYTES_MAX or data[:5] != b"POST " or not data[:end].isascii():
        return None
    head = data[:end].decode("ascii")
    start = _START.match(head)
    if start is None:
        return None
    fields = _FIELD.findall(head, start.end())
    named = {name.lower(): value for name, value in fields}
    # Every line is a field, and none came twice.
    if not len(named) == len(fields) == head.count("\n") - 1 or " \r" in head or "\t\r" in head:
        return None
    length = named.get("content-length", "")
    if not (length.isdigit() and len(length) < 10 and int(length) == len(data) - end - 2):
        return None
    if "host" not in named or named.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    if not _SPECIAL.isdisjoint(named):
        return None
    return WholeRequest(start[1], Headers(named), data[end + 2 :])
