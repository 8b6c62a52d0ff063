"""One line per request, made off the path."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import pytest

from proxy.telemetry import Counters, Logs, RequestLog
from proxy.telemetry.redaction import Redactor
from proxy.telemetry.sink import Sink


@pytest.fixture
def pipe() -> Any:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def logs_to(fd: int, log_format: Any = "json") -> Logs:
    return Logs(log_format, "worker 1", Redactor(), Sink(fd), colors=False)


def note(log: RequestLog, request_id: str = "req_1", model: str = "gpt-4o-mini") -> None:
    log.note(1_764_547_200_000_000, request_id, "chat.completions", 200, "", "acme", "agt_1", model, "gpt-4o-mini",
             True, 1, 120, 50, 812, 90)  # fmt: skip


async def test_a_request_is_one_line_soon_after(pipe: tuple[int, int]) -> None:
    """An operator who looks for a request id finds who called, what came of it and how long it took."""
    logs = logs_to(pipe[1])
    log = RequestLog(logs, Counters())
    running = asyncio.ensure_future(log.run(every_s=0.01))
    note(log)
    line = await asyncio.to_thread(os.read, pipe[0], 10_000)
    assert json.loads(line) == {
        "timestamp": "2025-12-01T00:00:00Z",
        "level": "info",
        "event": "request",
        "request_id": "req_1",
        "endpoint": "chat.completions",
        "status": 200,
        "reason": "",
        "customer_id": "acme",
        "agent_id": "agt_1",
        "model": "gpt-4o-mini",
        "model_served": "gpt-4o-mini",
        "streamed": True,
        "attempts": 1,
        "input_tokens": 120,
        "output_tokens": 50,
        "latency_ms": 812,
        "ttft_ms": 90,
        "process": "worker 1",
    }
    note(log, "req_2")
    running.cancel()
    await asyncio.wait({running})
    logs.close()
    assert b"req_2" in os.read(pipe[0], 10_000), "what was noted before the end is written at the end"


async def test_the_model_that_a_client_asked_for_is_redacted_and_bounded(pipe: tuple[int, int]) -> None:
    """It is a client's text: a key pasted into the wrong field must not reach the log."""
    logs = logs_to(pipe[1])
    log = RequestLog(logs, Counters())
    for model in ("sk-proj-abcdefghijk", "x" * 5_000, "sk-proj-abcdefghijk"):
        note(log, model=model)
    log.flush()
    logs.close()
    text = os.read(pipe[0], 100_000).decode()
    assert "abcdefghijk" not in text
    assert "(5000 characters)" in text


async def test_a_full_buffer_drops_and_counts(pipe: tuple[int, int]) -> None:
    """Bounded, and honest about what is missing."""
    logs, counters = logs_to(pipe[1]), Counters()
    log = RequestLog(logs, counters, lines_max=5)
    for n in range(8):
        note(log, f"req_{n}")
    log.flush()
    logs.close()
    assert os.read(pipe[0], 100_000).count(b"\n") == 5
    assert counters.snapshot()["counters"]["log_lines_dropped"] == [[[], 3]]


async def test_a_request_pays_next_to_nothing_for_its_line(pipe: tuple[int, int]) -> None:
    """The budget is 2 µs on the path; ten times that fails, so that a busy machine does not."""
    logs = logs_to(pipe[1])
    log = RequestLog(logs, Counters(), lines_max=100_000)
    began = time.process_time()
    for _ in range(10_000):
        note(log)
    assert (time.process_time() - began) / 10_000 < 20e-6
    log._waiting.clear()
    logs.close()


async def test_the_console_says_it_for_people(pipe: tuple[int, int]) -> None:
    logs = logs_to(pipe[1], "console")
    log = RequestLog(logs, Counters())
    note(log)
    log.flush()
    logs.close()
    text = os.read(pipe[0], 10_000).decode()
    assert text.count("\n") == 1
    assert "latency_ms=812" in text
