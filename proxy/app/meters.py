"""The gateway's `Meters`, put into this process's counters and its request log."""

from __future__ import annotations

from typing import Literal

import structlog

from proxy.gateway.ports import Clock
from proxy.telemetry import Counters, RequestLog

log = structlog.get_logger(__name__)


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

    def retried(self, upstream: str, upstream_model: str, reason: str) -> None:
        self._counters.add("retries", 1, upstream, upstream_model, reason)

    def rest(
        self, upstream: str, upstream_model: str, to: Literal["rested", "probed", "closed"], reason: str = ""
    ) -> None:
        self._counters.add("target_rests", 1, upstream, upstream_model, to)
        if to != "probed":
            self._counters.set("targets_resting", to == "rested", upstream, upstream_model)
        say = log.warning if to == "rested" else log.info
        say(f"target.{to}", upstream=upstream, upstream_model=upstream_model, reason=reason or None)

    def waiting(self, upstream: str, requests: int) -> None:
        self._counters.set("queue_length", requests, upstream)

    def waited(self, upstream: str, outcome: str, wait_ms: int) -> None:
        self._counters.queue_wait(upstream, outcome, wait_ms)
