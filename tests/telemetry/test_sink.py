"""A reader who does not read must cost lines, never time."""

from __future__ import annotations

import os
import time

from proxy.telemetry.sink import Sink


def test_lines_arrive_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    lines = [b"%d %s\n" % (n, b"x" * (n % 200)) for n in range(300)]
    for line in lines:
        sink.write(line)
    sink.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as read:
        assert read.readlines() == lines
    assert sink.dropped == 0


def test_nobody_waits_for_a_full_pipe() -> None:
    """`faregate serve 2>&1 | less` must not stop every request when the screen is full."""
    reading, writing = os.pipe()
    sink = Sink(writing, blocks_max=50)
    began = time.monotonic()
    for _ in range(1_000):
        sink.write(b"x" * 1_000 + b"\n")
    sink.close(timeout_s=0.05)
    assert time.monotonic() - began < 2
    assert sink.dropped >= 1_000 - 50 - 1 - 65_536 // 1_001 - 4
    os.close(reading)  # the thread's write fails now, and it ends
    sink._thread.join(5)
    assert not sink._thread.is_alive()
    os.close(writing)


def test_a_descriptor_that_does_not_block_loses_nothing_to_a_slow_reader() -> None:
    """Some parents hand down stderr that way."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = Sink(writing)
    for _ in range(200):
        sink.write(b"x" * 1_023 + b"\n")
    with os.fdopen(reading, "rb") as read:
        assert len(read.read(200 * 1_024)) == 200 * 1_024
        sink.close()
    os.close(writing)
    assert sink.dropped == 0


def test_the_last_words_after_closing_are_written_at_once() -> None:
    reading, writing = os.pipe()
    sink = Sink(writing)
    sink.close()
    sink.write(b"last\n")
    assert os.read(reading, 100) == b"last\n"
    os.close(reading)
    os.close(writing)
