"""Figures of one process as plain integers, and the sum of several processes.

A worker counts and hands over a snapshot now and then; the keeper merges and renders. So a request pays for
a few dictionary look-ups, and no label set grows with customers, users or agents: there is no such label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Labels = tuple[str, ...]

_QUICK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_CALL_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

# More label sets of one metric than this are counted together as "other": a label is never a client's to fill.
LABEL_SETS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Metric:
    """`help` is what `/metrics` says of it; `bounds` are a histogram's upper bounds, in seconds."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()


def _counter(help: str, *labels: str) -> Metric:
    return Metric("counter", help, labels)


def _gauge(help: str, *labels: str) -> Metric:
    return Metric("gauge", help, labels)


# Each is `faregate_<name>` in /metrics, counters with `_total` after it.
METRICS: dict[str, Metric] = {
    "requests": _counter("Requests answered.", "endpoint", "status", "reason"),
    "request_duration_seconds": Metric(
        "histogram", "From the request's head to the last byte of its answer.", ("endpoint",), _CALL_S
    ),
    "overhead_seconds": Metric("histogram", "What the gate itself added to a request.", (), _QUICK_S),
    "time_to_first_token_seconds": Metric(
        "histogram", "From sending a streamed attempt to its first event.", ("model",), _CALL_S
    ),
    "attempts": _counter("Attempts ended. usage: who counted the tokens.", "upstream", "model", "status", "usage"),
    "retries": _counter("Attempts made at the same target again.", "upstream", "model", "reason"),
    "target_rests": _counter(
        "Targets put to rest after failures, probed, and closed: in service again.", "upstream", "model", "to"
    ),
    "targets_resting": _gauge("Workers in which the target rests after failures.", "upstream", "model"),
    "queue_length": _gauge("Requests waiting for their turn at an upstream.", "upstream"),
    "queue_wait_seconds": Metric(
        "histogram",
        "How long a request waited for its turn, by how that ended: turn, gone, late or full.",
        ("upstream", "outcome"),
        _CALL_S,
    ),
    "tokens": _counter("Tokens used, as settled.", "model", "direction"),
    "overrun_tokens": _counter("Tokens used beyond what was held.", "model"),
    "store_faults": _counter("Calls to Redis that failed or came too late.", "operation"),
    "faults": _counter("Faults that were survived and should be rare.", "kind"),
    "spool_entries": Metric("gauge", "Settlements waiting on disk for Redis."),
    "requests_in_flight": Metric("gauge", "Requests being carried."),
    "streams_in_flight": Metric("gauge", "Streams being carried."),
    "loop_lag_seconds": Metric("histogram", "How late an event loop comes round.", (), _LAG_S),
    "log_lines_dropped": _counter("Log lines that found their queue full."),
    "workers_ready": Metric("gauge", "Workers that serve."),
    "worker_restarts": _counter("Workers started again after they ended."),
    "events_recorded": _counter("Usage events written to the ledger."),
    "events_set_aside": _counter("Usage events that the ledger refused."),
    "ledger_backlog_events": _gauge("Usage events waiting for the ledger."),
    "ledger_backlog_full": _gauge("1 while nothing is admitted, because the ledger is too far behind."),
    "ledger_lag_seconds": _gauge("How long the oldest usage event has been waiting for the ledger."),
    "spool_files": _gauge("Spool files waiting for Redis."),
    "reservations_expired": _counter("Reservations that the sweeper charged."),
    "invariant_ok": _gauge("1 if the invariant held when it was last looked at.", "invariant"),
    "invariant_shards_busy": _gauge("Shards that stood never still enough to be compared with the ledger."),
    "drift_corrected": _counter("Counters put right after they had drifted from the record.", "invariant"),
    "shards_closed": _counter("Shards found older than the ledger, and closed to be rebuilt."),
    "alerts_raised": _counter("Alerts raised.", "type"),
    "webhook_deliveries": _counter(
        "Attempts to deliver an alert, by how they ended: delivered, failed (to be tried again) or dead.",
        "outcome",
    ),
    "webhook_queue_length": _gauge("Deliveries of alerts that are pending."),
    "webhook_dead_letters": _gauge("Deliveries that were given up, and can be replayed."),
    "policy_reloads": _counter("Policy files read again.", "result"),
    "policy_faults": _gauge("Faults of the policy files."),
}

_STATUS_CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


class _Histogram:
    """Observations by bucket, the last one without bound; and their sum in the metric's unit."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """The figures of one process, from one thread. A name or a number of labels not in `METRICS` is a KeyError."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, int]] = {
            name: {} for name, metric in METRICS.items() if metric.kind == "counter"
        }
        self._gauges: dict[str, dict[Labels, float]] = {
            name: {} for name, metric in METRICS.items() if metric.kind == "gauge"
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            name: {} for name, metric in METRICS.items() if metric.kind == "histogram"
        }

    def request(
        self, endpoint: str, status: int, reason: str, latency_ms: float, overhead_ms: float | None = None
    ) -> None:
        """A request answered. `endpoint` is a route of ours ("other" for none), `reason` a refusal's or ""."""
        self.add("requests", 1, endpoint, _STATUS_CLASSES.get(status // 100, "other"), reason)
        self._observe("request_duration_seconds", (endpoint,), latency_ms)
        if overhead_ms is not None:
            self._observe("overhead_seconds", (), overhead_ms)

    def attempt(
        self,
        upstream: str,
        model: str,
        status: str,
        usage_source: str,
        input_tokens: int,
        output_tokens: int,
        ttft_ms: float | None = None,
    ) -> None:
        """An attempt ended. `model` is the catalogue's name of the one that served, never a client's word."""
        self.add("attempts", 1, upstream, model, status, usage_source)
        if input_tokens:
            self.add("tokens", input_tokens, model, "input")
        if output_tokens:
            self.add("tokens", output_tokens, model, "output")
        if ttft_ms is not None:
            self._observe("time_to_first_token_seconds", (model,), ttft_ms)

    def queue_wait(self, upstream: str, outcome: str, wait_ms: float) -> None:
        """A request waits for its turn no longer."""
        self._observe("queue_wait_seconds", (upstream, outcome), wait_ms)

    def store_fault(self, operation: str) -> None:
        self.add("store_faults", 1, operation)

    def loop_lag(self, lag_ms: float) -> None:
        self._observe("loop_lag_seconds", (), lag_ms)

    def add(self, name: str, amount: int = 1, *labels: str) -> None:
        """Adds to a counter of `METRICS`."""
        counts = self._counts[name]
        if labels in counts:
            counts[labels] += amount
        else:
            labels = _admitted(name, labels, len(counts))
            counts[labels] = counts.get(labels, 0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Sets a gauge of `METRICS`."""
        gauges = self._gauges[name]
        gauges[labels if labels in gauges else _admitted(name, labels, len(gauges))] = value

    def change(self, name: str, by: int) -> None:
        """Moves a gauge of `METRICS` that has no labels."""
        self.set(name, self._gauges[name].get((), 0) + by)

    def _observe(self, name: str, labels: Labels, value_ms: float) -> None:
        histograms = self._histograms[name]
        histogram = histograms.get(labels)
        if histogram is None:
            labels = _admitted(name, labels, len(histograms))
            histogram = histograms.setdefault(labels, _Histogram(METRICS[name].bounds))
        histogram.observe(value_ms / 1_000)

    def snapshot(self) -> dict[str, Any]:
        """All figures as JSON values, for `Merged.take`: counters, gauges, histograms by name."""
        return {
            "counters": {
                name: [[list(labels), n] for labels, n in counts.items()]
                for name, counts in self._counts.items()
                if counts
            },
            "gauges": {
                name: [[list(labels), value] for labels, value in values.items()]
                for name, values in self._gauges.items()
                if values
            },
            "histograms": {
                name: [[list(labels), list(h.counts), h.total] for labels, h in histograms.items()]
                for name, histograms in self._histograms.items()
                if histograms
            },
        }


def _admitted(name: str, labels: Labels, known: int) -> Labels:
    if len(labels) != len(METRICS[name].labels):
        raise KeyError(f"{name} takes the labels {METRICS[name].labels}, not {len(labels)} of them")
    return ("other",) * len(labels) if known >= LABEL_SETS_MAX else labels


class Total:
    """The sum of snapshots, by name and labels."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, int]] = {}
        self.gauges: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, tuple[list[int], float]]] = {}

    def add(self, snapshot: dict[str, Any], gauges: bool = True) -> None:
        for name, rows in snapshot["counters"].items():
            counts = self.counters.setdefault(name, {})
            for labels, n in rows:
                counts[tuple(labels)] = counts.get(tuple(labels), 0) + n
        for name, rows in snapshot["histograms"].items():
            histograms = self.histograms.setdefault(name, {})
            for labels, counts_now, total_now in rows:
                before, total = histograms.get(tuple(labels), ([0] * len(counts_now), 0.0))
                summed = [a + b for a, b in zip(before, counts_now, strict=True)]
                histograms[tuple(labels)] = (summed, total + total_now)
        if gauges:
            for name, rows in snapshot["gauges"].items():
                values = self.gauges.setdefault(name, {})
                for labels, value in rows:
                    values[tuple(labels)] = values.get(tuple(labels), 0) + value

    def snapshot(self) -> dict[str, Any]:
        return {
            "counters": {name: [[list(k), n] for k, n in rows.items()] for name, rows in self.counters.items()},
            "gauges": {
                name: [[list(k), value] for k, value in rows.items()] for name, rows in self.gauges.items()
            },
            "histograms": {
                name: [[list(k), counts, total] for k, (counts, total) in rows.items()]
                for name, rows in self.histograms.items()
            },
        }


class Merged:
    """The newest snapshot of each process, and what those that ended had counted.

    A counter must not fall when a worker is started again: Prometheus would take the whole rest for new.
    """

    def __init__(self) -> None:
        self._newest: dict[str, dict[str, Any]] = {}
        self._ended = Total()

    def take(self, source: str, snapshot: dict[str, Any]) -> None:
        self._newest[source] = snapshot

    def retire(self, source: str) -> None:
        """The process has ended: its counters stay in the sums, its gauges leave them."""
        last = self._newest.pop(source, None)
        if last is not None:
            self._ended.add(last, gauges=False)

    def total(self, also: Iterable[dict[str, Any]] = ()) -> Total:
        total = Total()
        for snapshot in (self._ended.snapshot(), *self._newest.values(), *also):
            total.add(snapshot)
        return total
