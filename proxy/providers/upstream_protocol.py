"""The protocol of one upstream connection: aiohttp's, and a short way for answers that come whole in one read.

All of aiohttp that is used below its documented surface is here and in `connections`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import _EXC_SENTINEL as _NO_CAUSE

from proxy.providers.exchanges import too_long

NEVER = float("inf")


class WholeAnswer(Mapping[str, str]):
    """An answer that came in one read: head, headers and exchange in one. Its connection is free already.

    A header's value is looked for where it stands: of some thirty headers two or three are ever asked for.
    """

    __slots__ = ("_body", "_head", "_lower", "code")

    def __init__(self, code: int, head: bytes, lower: bytes, body: bytes) -> None:
        self.code = code
        self._head = head
        self._lower = lower
        self._body = body

    @property
    def headers(self) -> Mapping[str, str]:
        return self

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (line.partition(b":")[0].decode("latin-1") for line in self._lower.split(b"\r\n")[1:])

    def __len__(self) -> int:
        return self._lower.count(b"\r\n")

    def get(self, name: str, default: Any = None) -> Any:
        line = _LINES.get(name) or b"\r\n%b:" % name.encode("ascii")
        start = self._lower.find(line)
        if start < 0:
            return default
        start += len(line)
        end = self._lower.find(b"\r\n", start)
        return self._head[start : end if end >= 0 else None].strip(b" \t").decode("utf-8", "surrogateescape")

    async def some(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def whole(self, most: int) -> bytes:
        if len(self._body) > most:
            raise too_long(most)
        return self._body

    def finish(self) -> None:
        return None

    def drop(self) -> None:
        return None


# The beginnings of the header lines that every answer is asked for.
_LINES = {name: b"\r\n%b:" % name.encode() for name in ("x-request-id", "request-id", "content-encoding")}


def whole_answer(data: bytes) -> WholeAnswer | None:
    """The answer that `data` is, if it is a plain 200 with its whole body and nothing out of the ordinary.

    Anything else is the parser's.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or data[:13] != b"HTTP/1.1 200 ":
        return None
    head = data[:end]
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0 or b"\ntransfer-encoding" in lower or b"\nconnection" in lower or b"\nupgrade" in lower:
        return None
    line_end = lower.find(b"\r\n", at + 2)
    length = lower[at + 17 : line_end if line_end >= 0 else end].strip(b" \t")
    if not length.isdigit() or len(length) > 9 or lower.find(b"\ncontent-length", at + 2) >= 0:
        return None
    body = data[end + 4 :]
    if len(body) != int(length) or _odd(head):
        return None
    return WholeAnswer(200, head, lower, body)


def _odd(head: bytes) -> bool:
    """Folded lines, bare line ends, NULs, names with a space before their colon: none of it is ordinary."""
    lines = head.count(b"\r\n")
    return (
        head.count(b"\n") != lines
        or head.count(b"\r") != lines
        or b"\0" in head
        or b"\n " in head
        or b"\n\t" in head
        or b" :" in head
        or head.count(b":") < lines
    )


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol without what it does anew for every read.

    An answer that comes whole in one read needs no parser. It makes a timer for each read, and asks for reading to
    be resumed that was never paused (which parses nothing once more). Here one timer looks, when it runs out, at
    what is due by then; and only a pause is resumed.
    """

    _due = NEVER
    _rings_at = NEVER
    _asked: asyncio.Future[WholeAnswer | None] | None = None

    def ask(self, request: bytes, read_timeout: float) -> asyncio.Future[WholeAnswer | None]:
        """Sends, and waits for the answer if it comes whole in one read; None if not: then `read` has it.

        Raises what `read` does.
        """
        assert self.transport is not None
        self._read_timeout = read_timeout
        self._reschedule_timeout()
        self._asked = asked = self._loop.create_future()
        self.transport.write(request)
        return asked

    def data_received(self, data: bytes) -> None:
        asked = self._asked
        if asked is None:
            super().data_received(data)
            return
        self._asked = None
        whole = whole_answer(data)
        if whole is not None:
            self._due = NEVER
        else:
            self.set_response_params(read_until_eof=True, auto_decompress=False, read_timeout=self._read_timeout)
            super().data_received(data)
        if not asked.done():
            asked.set_result(whole)

    def set_exception(self, exc: Any, exc_cause: BaseException = _NO_CAUSE) -> None:
        super().set_exception(exc, exc_cause)
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_exception(exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _reschedule_timeout(self) -> None:
        if not self._read_timeout:
            self._due = NEVER
            return
        self._due = due = self._loop.time() + self._read_timeout
        if due < self._rings_at:
            self._ring(due)

    def _drop_timeout(self) -> None:
        self._due = NEVER

    def _ring(self, at: float) -> None:
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
        self._rings_at = at
        self._read_timeout_handle = self._loop.call_at(at, self._on_read_timeout)

    def _on_read_timeout(self) -> None:
        self._read_timeout_handle, self._rings_at = None, NEVER
        if self._due <= self._loop.time():
            super()._on_read_timeout()
        elif self._due is not NEVER:
            self._ring(self._due)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
            self._read_timeout_handle = None
