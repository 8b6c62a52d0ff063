"""One line per request: who called, what for, what came of it, how long it took.

The path only appends a tuple; a task makes the lines out of it a little later, in slices, so that no request
waits for the log of another. What finds the buffer full is counted in `faregate_log_lines_dropped_total`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import Any

from proxy.telemetry.counters import Counters
from proxy.telemetry.logs import Logs, logger
from proxy.telemetry.sink import WRITE_BYTES_MAX

# Lines made before the loop gets its turn: about a third of a millisecond of work.
_SLICE = 100
_NAMES_KNOWN_MAX = 1_000
_NAME_LENGTH_MAX = 128

_FIELDS = (
    "timestamp",
    "level",
    "event",
    "request_id",
    "endpoint",
    "status",
    "reason",
    "customer_id",
    "agent_id",
    "model",
    "model_served",
    "streamed",
    "attempts",
    "input_tokens",
    "output_tokens",
    "latency_ms",
    "ttft_ms",
)


class RequestLog:
    """Takes a request's facts off the path; `run` writes them until it is cancelled, and then the rest."""

    def __init__(self, logs: Logs, counters: Counters, lines_max: int = 20_000) -> None:
        self._logs = logs
        self._counters = counters
        self._lines_max = lines_max
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._names: dict[str, str] = {}
        self._dropped = 0
        self._sink_dropped = 0

    def note(
        self,
        at_us: int,
        request_id: str,
        endpoint: str,
        status: int,
        reason: str,
        customer_id: str,
        agent_id: str,
        model: str,
        model_served: str,
        streamed: bool,
        attempts: int,
        input_tokens: int,
        output_tokens: int,
        latency_ms: int,
        ttft_ms: int | None,
    ) -> None:
        """One request answered at `at_us` (wall time). Unknown texts are ""; `reason` is a refusal's, else ""."""
        if len(self._waiting) >= self._lines_max:
            self._dropped += 1
            return
        self._waiting.append(
            (
                at_us,
                "info",
                "request",
                request_id,
                endpoint,
                status,
                reason,
                customer_id,
                agent_id,
                model,
                model_served,
                streamed,
                attempts,
                input_tokens,
                output_tokens,
                latency_ms,
                ttft_ms,
            )
        )

    async def run(self, every_s: float = 0.25) -> None:
        try:
            while True:
                await asyncio.sleep(every_s)
                while self._waiting:
                    self._write(_SLICE)
                    await asyncio.sleep(0)
                self._count_dropped()
        finally:
            self.flush()

    def flush(self) -> None:
        """Hands everything to the sink now."""
        self._write(len(self._waiting))
        self._count_dropped()

    def _write(self, most: int) -> None:
        block: list[bytes] = []
        size = 0
        for _ in range(min(most, len(self._waiting))):
            line = self._line(self._waiting.popleft())
            if block and size + len(line) > WRITE_BYTES_MAX:
                self._logs.sink.write(b"".join(block))
                block, size = [], 0
            block.append(line)
            size += len(line)
        if block:
            self._logs.sink.write(b"".join(block))

    def _line(self, facts: tuple[Any, ...]) -> bytes:
        fields: dict[str, Any] = dict(zip(_FIELDS, facts, strict=True))
        fields["timestamp"] = datetime.fromtimestamp(facts[0] / 1_000_000, UTC)
        fields["model"] = self._name(fields["model"])
        fields["process"] = self._logs.process
        return self._logs.line(fields)

    def _name(self, asked: str) -> str:
        """The one text here that a client wrote, and might have written anything into."""
        if len(asked) > _NAME_LENGTH_MAX:
            return f"({len(asked)} characters)"
        known = self._names.get(asked)
        if known is None:
            known = self._logs.redactor.text(asked)
            if len(self._names) < _NAMES_KNOWN_MAX:
                self._names[asked] = known
        return known

    def _count_dropped(self) -> None:
        sink_dropped = self._logs.sink.dropped
        lines = self._dropped + sink_dropped - self._sink_dropped
        self._dropped, self._sink_dropped = 0, sink_dropped
        if lines:
            self._counters.add("log_lines_dropped", lines)
            logger("log").warning("log.lines_dropped", lines=lines)
