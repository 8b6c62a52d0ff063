"""The control channel: JSON lines over a socket pair, one end inherited by the worker.

keeper to worker   {"type": "configuration", ...} first; {"type": "seqs"} when Redis may be another,
                   {"type": "hand_over"} when it has lost its data; later
                   {"type": "drain"} or, in haste, {"type": "end"}
worker to keeper   {"type": "ready"}, {"type": "metrics", "snapshot": {...}}, {"type": "failed", "message": "..."},
                   {"type": "drained"}, {"type": "live", "reservations": [...]} and then {"type": "handed_over"},
                   {"type": "seqs", "seqs": [[shard, seq], ...]},
                   {"type": "behind", "shards": [...]}

Everything a worker must know comes this way, so that no secret stands in an argument list or an environment.
The end of one process is the end of file of the other: that is how a worker learns that its keeper is gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import orjson

# A whole configuration or metrics snapshot is one line; more than this is a fault, not a message.
LINE_BYTES_MAX = 8 * 1024 * 1024
# What a peer that does not read may leave waiting here before a message that can be missed is missed.
_WAITING_BYTES_MAX = 1024 * 1024


class KeeperGone(Exception):
    """The other end of the control channel is closed: the keeper has ended, however it came to that."""


class ChannelBroken(Exception):
    """The peer sent what is no message of this channel."""


class Channel:
    """One end. Messages are dicts with a `type`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LINE_BYTES_MAX))

    def send(self, type: str, fields: Mapping[str, Any] | None = None) -> None:
        """Never waits. To a peer that is gone it does nothing: its end is told by `receive`."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps({"type": type, **(fields or {})}) + b"\n")

    def send_if_read(self, type: str, fields: Mapping[str, Any]) -> bool:
        """For what may be missed: nothing is sent (False) while the peer leaves too much unread."""
        if self._writer.transport.get_write_buffer_size() > _WAITING_BYTES_MAX:
            return False
        self.send(type, fields)
        return True

    async def flush(self, timeout_s: float) -> None:
        """Waits until most of what was sent is with the kernel; a peer that is gone or does not read ends it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            return

    async def receive(self) -> dict[str, Any] | None:
        """The next message, None at the peer's end; raises `ChannelBroken`."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        except ValueError:
            raise ChannelBroken(f"A control message of more than {LINE_BYTES_MAX} bytes.") from None
        if not line.endswith(b"\n"):
            return None
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise ChannelBroken("A control message that is no JSON.") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ChannelBroken("A control message without a type.")
        return message

    def close(self) -> None:
        self._writer.close()
