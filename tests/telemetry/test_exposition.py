"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import Counters
from proxy.telemetry.counters import METRICS, Merged
from proxy.telemetry.exposition import CONTENT_TYPE, render


def test_prometheus_reads_back_what_was_counted() -> None:
    """Names, types, units and cumulated buckets as its conventions have them."""
    counters = Counters()
    counters.request("chat.completions", 429, "rate_limited", latency_ms=60, overhead_ms=0.2)
    counters.request("chat.completions", 200, "", latency_ms=2_000)
    counters.set("spool_entries", 3)
    counters.set("invariant_ok", 0, "I4")
    counters.set("invariant_ok", 1, "I1")
    counters.set("ledger_lag_seconds", 1.25)
    merged = Merged()
    merged.take("worker 1", counters.snapshot())
    text = render(merged.total()).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("faregate_requests_total", "chat.completions", "rate_limited", "4xx")] == 1
    assert samples[("faregate_spool_entries",)] == 3
    assert (samples[("faregate_invariant_ok", "I4")], samples[("faregate_invariant_ok", "I1")]) == (0, 1)
    assert samples[("faregate_ledger_lag_seconds",)] == 1.25
    assert samples[("faregate_ledger_backlog_full",)] == 0
    assert samples[("faregate_request_duration_seconds_bucket", "chat.completions", "0.1")] == 1
    assert samples[("faregate_request_duration_seconds_bucket", "chat.completions", "+Inf")] == 2
    assert samples[("faregate_request_duration_seconds_count", "chat.completions")] == 2
    assert samples[("faregate_request_duration_seconds_sum", "chat.completions")] == 2.06
    assert samples[("faregate_events_recorded_total",)] == 0
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_every_metric_has_its_help() -> None:
    text = render(Merged().total()).decode()
    for name, metric in METRICS.items():
        assert f"# HELP faregate_{name}{'_total' if metric.kind == 'counter' else ''} {metric.help}" in text
