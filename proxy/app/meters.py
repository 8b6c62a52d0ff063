"""The gateway's `Meters`, put into this process's counters and its request log."""

from __future__ import annotations

from proxy.gateway.ports import Clock
from proxy.telemetry import Counters, RequestLog


class ProcessMeters:
    """Implements `Meters`."""

    def __init__(self, counters: Counters, log: RequestLog | None, clock: Clock) -> None:
        self._counters = counters
        self._log = log
        self._clock = clock

    def attempt(
        self,
        upstream: str,
        model: str,
        status: str,
        usage_source: str,
        input_tokens: int,
        output_tokens: int,
        ttft_ms: int | None,
    ) -> None:
        self._counters.attempt(upstream, model, status, usage_source, input_tokens, output_tokens, ttft_ms)

    def answered(
        self,
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
        self._counters.request(endpoint, status, reason, latency_ms)
        if self._log is not None:
            self._log.note(
                self._clock.now_us(),
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

    def fault(self, what: str) -> None:
        self._counters.add("faults", 1, what)
