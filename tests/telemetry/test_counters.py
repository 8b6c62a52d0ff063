"""Figures of several processes add up, also when one of them is started again."""

from __future__ import annotations

import json

import pytest

from proxy.telemetry import Counters, Merged
from proxy.telemetry.counters import LABEL_SETS_MAX, METRICS


def worked(requests: int) -> Counters:
    counters = Counters()
    for _ in range(requests):
        counters.request("chat.completions", 200, "", latency_ms=80, overhead_ms=0.3)
    counters.attempt("openai", "gpt-4o-mini", "succeeded", "provider", 10, 5, ttft_ms=40)
    counters.change("streams_in_flight", 2)
    counters.change("streams_in_flight", -1)
    return counters


def test_workers_add_up_and_a_restart_takes_nothing_back() -> None:
    """A counter that falls is taken by Prometheus for a new one, and its whole rest for new requests."""
    merged = Merged()
    merged.take("worker 1", json.loads(json.dumps(worked(3).snapshot())))
    merged.take("worker 2", worked(4).snapshot())
    merged.take("worker 2", worked(5).snapshot())
    key = ("chat.completions", "2xx", "")
    assert merged.total().counters["requests"][key] == 8
    assert merged.total().gauges["streams_in_flight"] == {(): 2}
    merged.retire("worker 2")
    assert merged.total().counters["requests"][key] == 8
    assert merged.total().gauges["streams_in_flight"] == {(): 1}
    merged.take("worker 2", worked(1).snapshot())
    assert merged.total().counters["requests"][key] == 9
    counts, total = merged.total().histograms["request_duration_seconds"][("chat.completions",)]
    assert sum(counts) == 9
    assert total == pytest.approx(9 * 0.08)
    assert merged.total().counters["tokens"][("gpt-4o-mini", "output")] == 15


def test_a_bound_belongs_to_its_bucket() -> None:
    """`le` is less or equal."""
    counters = Counters()
    counters.loop_lag(1.0)
    counters.loop_lag(1.001)
    counters.loop_lag(99_000)
    [[_, counts, _]] = counters.snapshot()["histograms"]["loop_lag_seconds"]
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (1, 1, 1, 3)


def test_label_sets_are_bounded() -> None:
    """Nothing grows with what a client may write."""
    counters = Counters()
    for n in range(LABEL_SETS_MAX + 50):
        counters.store_fault(f"invented {n}")
        counters.attempt("u", f"model {n}", "failed", "none", 1, 1, ttft_ms=1)
    rows = {tuple(labels): n for labels, n in counters.snapshot()["counters"]["store_faults"]}
    assert len(rows) == LABEL_SETS_MAX + 1
    assert rows[("other",)] == 50
    assert len(counters.snapshot()["histograms"]["time_to_first_token_seconds"]) == LABEL_SETS_MAX + 1


def test_a_wrong_name_or_number_of_labels_is_a_fault() -> None:
    counters = Counters()
    for wrong in (
        lambda: counters.add("request", 1),
        lambda: counters.add("requests", 1, "chat"),
        lambda: counters.set("requests", 1),
    ):
        with pytest.raises(KeyError):
            wrong()


def test_no_metric_is_labelled_by_who() -> None:
    """DESIGN 5.5: no customer, user or agent in /metrics."""
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels == {
        "kind", "endpoint", "status", "reason", "model", "upstream", "usage", "direction", "operation", "result",
        "invariant", "to", "outcome", "type",
    }  # fmt: skip
