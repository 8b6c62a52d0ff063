"""Server-sent events in bytes: whole ones only, and what an event says.

Events end with an empty line, whose line ends may be LF, CRLF or CR. Reads cut them anywhere, inside a
character or a line end too. What is carried over between reads is a list, since an event of 8 MB put together
piece by piece would be copied a thousand times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CARRIED_BYTES_MAX = 1 << 20

_END = re.compile(rb"\n\n|\n\r\n|\r\r")
_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")


class WholeEvents:
    """Turns reads into whole events. `unread` is how many leading bytes of the last result must pass unread.

    An event beyond `most` bytes is passed on in parts, so that nobody can fill the memory with one.
    """

    __slots__ = ("_carry", "_clean", "_edge", "_most", "_passing", "_size", "unread")

    def __init__(self, most: int = CARRIED_BYTES_MAX) -> None:
        self._most = most
        self._carry: list[bytes] = []
        self._size = 0
        self._edge = b""
        self._clean = True
        self._passing = False
        self.unread = 0

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, byte for byte; empty if it completes none."""
        self.unread = 0
        if self._clean and data.endswith(b"\n\n"):
            return data
        window = self._edge + data
        end = _last_end(window) - len(self._edge)
        if end <= 0:
            return self._keep(data, window)
        if self._passing:
            first = _END.search(window)
            assert first is not None
            self.unread = first.end() - len(self._edge)
        self._carry.append(data[:end])
        whole = b"".join(self._carry)
        rest = data[end:]
        self._carry = [rest] if rest else []
        self._size, self._edge = len(rest), rest[-2:]
        self._clean, self._passing = not rest, False
        return whole

    @property
    def passing(self) -> bool:
        """Whether what was given out last ends in the middle of an event, of which the rest is to come."""
        return self._passing

    def rest(self) -> bytes:
        """What is left at the end of the stream: an event without its empty line, or nothing."""
        rest = b"".join(self._carry)
        self._carry, self._size, self._edge, self._clean = [], 0, b"", True
        return rest

    def _keep(self, data: bytes, window: bytes) -> bytes:
        self._clean, self._edge = False, window[-2:]
        if not self._passing:
            self._carry.append(data)
            self._size += len(data)
            if self._size <= self._most:
                return b""
            data = self.rest()
            self._clean, self._edge, self._passing = False, window[-2:], True
        self.unread = len(data)
        return data


def _last_end(window: bytes) -> int:
    """The position after the last empty line; 0 if there is none."""
    return max(at + len(end) if (at := window.rfind(end)) >= 0 else 0 for end in _ENDS)


def split(whole: bytes) -> Iterator[bytes]:
    """The single events of `whole`, and what follows the last one's end."""
    position = 0
    for end in _END.finditer(whole):
        yield whole[position : end.end()]
        position = end.end()
    if position < len(whole):
        yield whole[position:]


def data_of(event: bytes) -> bytes:
    """What the event's `data` lines say, joined by line feeds."""
    lines = [
        line[6:] if line[5:6] == b" " else line[5:]
        for line in event.removeprefix(b"\xef\xbb\xbf").splitlines()
        if line.startswith(b"data:")
    ]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)
