"""Where log lines go: a bounded queue, and one thread that writes it to a file descriptor.

Whoever logs must never wait for a reader who does not read: a full pipe behind stderr would stop the loop,
and every request with it. Lines that find the queue full are counted and gone.
"""

from __future__ import annotations

import atexit
import os
import queue
import select
import threading

# A write of at most this many bytes to a pipe is never torn apart by those of other processes (POSIX PIPE_BUF
# is at least 512, and 4096 on Linux).
WRITE_BYTES_MAX = 4096
_SLOW_READER_MS = 1_000


class Sink:
    """Takes whole lines, one or several at once, each with its newline. `dropped` counts the lines lost."""

    def __init__(self, fd: int = 2, blocks_max: int = 20_000) -> None:
        self._fd = fd
        self._blocks_max = blocks_max
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="faregate log", daemon=True)
        self._thread.start()
        # The reason why a process ends is the last thing it says, and the thread does not outlive it.
        atexit.register(self.close)

    def write(self, lines: bytes) -> None:
        """Never waits, never raises. After `close` it writes at once, so that the last words are not lost."""
        if self._closed:
            self._put(lines)
        elif self._queue.qsize() >= self._blocks_max:
            self.dropped += lines.count(b"\n")
        else:
            self._queue.put(lines)

    def close(self, timeout_s: float = 2.0) -> None:
        """Writes what waits, for at most `timeout_s`; what then still waits is left behind."""
        if self._closed:
            return
        atexit.unregister(self.close)
        self._closed = True
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        next = self._queue.get()
        while next is not None:
            block = next
            next = b""
            while not self._queue.empty():
                next = self._queue.get()
                if next is None or len(block) + len(next) > WRITE_BYTES_MAX:
                    break
                block += next
                next = b""
            self._put(block)
            if next == b"":
                next = self._queue.get()

    def _put(self, lines: bytes) -> None:
        rest = lines
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    # Some parents hand down a descriptor that does not block.
                    poller = select.poll()
                    poller.register(self._fd, select.POLLOUT)
                    if not poller.poll(_SLOW_READER_MS) and self._closed:
                        raise
        except OSError:
            # Nobody reads stderr any more, and there is no other place to say so.
            self.dropped += rest.count(b"\n")
