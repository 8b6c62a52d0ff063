"""Where log lines go: a bounded queue, and one thread that writes it to a file descriptor.

Whoever logs must never wait for a reader who does not read: a full pipe behind stderr would stop the loop,
and every request with it. Lines that find the queue full are counted and gone.
"""

from __future__ import annotations

import os
import queue
import select
import threading

# A write of at most this many bytes to a pipe is never torn apart by those of other processes (POSIX PIPE_BUF
# is at least 512, and 4096 on Linux).
_WRITE_BYTES_MAX = 4096
_SLOW_READER_MS = 1_000


class Sink:
    """Takes whole lines, each with its newline. `dropped` counts the lines that nobody will read."""

    def __init__(self, fd: int = 2, lines_max: int = 20_000) -> None:
        self._fd = fd
        self._lines_max = lines_max
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="faregate log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Never waits, never raises. After `close` it writes at once, so that the last words are not lost."""
        if self._closed:
            self._put(line)
        elif self._queue.qsize() >= self._lines_max:
            self.dropped += 1
        else:
            self._queue.put(line)

    def close(self, timeout_s: float = 2.0) -> None:
        """Writes what waits, for at most `timeout_s`; what then still waits is left behind."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        line = self._queue.get()
        while line is not None:
            batch, size = [line], len(line)
            line = b""
            while not self._queue.empty():
                line = self._queue.get()
                if line is None or size + len(line) > _WRITE_BYTES_MAX:
                    break
                batch.append(line)
                size += len(line)
                line = b""
            self._put(b"".join(batch), lines=len(batch))
            if line == b"":
                line = self._queue.get()

    def _put(self, data: bytes, lines: int = 1) -> None:
        try:
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    # Some parents hand down a descriptor that does not block; poll, for select has a limit on numbers.
                    poller = select.poll()
                    poller.register(self._fd, select.POLLOUT)
                    poller.poll(_SLOW_READER_MS)
                    if self._closed:
                        self.dropped += lines
                        return
        except OSError:
            # Nobody holds the other end of stderr any more, and there is no other place to say so.
            self.dropped += lines
