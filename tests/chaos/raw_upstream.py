"""An upstream that sends whatever bytes it is told, cut wherever it is told, and keeps its own list of calls.

A chat request's `user` names the answer that it gets, so that many may be under way at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: raw-%d\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """`pieces` go out one by one, each a chunk of HTTP's; `cut`: the connection is reset after the last."""

    pieces: Sequence[bytes]
    cut: bool = False
    content_type: bytes = b"text/event-stream"


class RawUpstream:
    """Listens while it is entered. `calls` are the tags in the order of their arrival."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.calls: list[str] = []
        self.url = ""

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                number = len(self.calls)
                self.calls.append(body["user"])
                if not await self._answer(self.answers[body["user"]], number, writer):
                    break
        writer.close()

    async def _answer(self, answer: Answer, number: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(HEAD % (answer.content_type, number))
        for piece in answer.pieces:
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0)
        if answer.cut:
            # What was written should arrive; the reset is for the end that never comes.
            await asyncio.sleep(0.02)
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True
