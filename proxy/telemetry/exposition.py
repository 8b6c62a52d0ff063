"""The figures in Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.telemetry.counters import METRICS, Total

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def render(total: Total) -> bytes:
    """The text of `/metrics`, to be served as `CONTENT_TYPE`. A metric without labels is there from the start."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rendered(total))
    return generate_latest(registry)


class _Rendered(Collector):
    def __init__(self, total: Total) -> None:
        self._total = total

    def collect(self) -> Iterator[_Family]:
        build = GaugeMetricFamily("faregate_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        for name in METRICS:
            yield self._family(name)

    def _family(self, name: str) -> _Family:
        metric = METRICS[name]
        full, help, labels = f"faregate_{name}", metric.help, list(metric.labels)
        if metric.kind == "gauge":
            gauge = GaugeMetricFamily(full, help, labels=labels)
            held = self._total.gauges.get(name) or ({} if labels else {(): 0})
            for values, value in sorted(held.items()):
                gauge.add_metric(values, value)
            return gauge
        if metric.kind == "counter":
            counter = CounterMetricFamily(full, help, labels=labels)
            rows = self._total.counters.get(name) or ({} if labels else {(): 0})
            for values, n in sorted(rows.items()):
                counter.add_metric(values, n)
            return counter
        histogram = HistogramMetricFamily(full, help, labels=labels)
        for values, (counts, total) in sorted(self._total.histograms.get(name, {}).items()):
            histogram.add_metric(values, _cumulated(metric.bounds, counts), total)
        return histogram


def _cumulated(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    names = [*(format(bound, "g") for bound in bounds), "+Inf"]
    rows, sum_so_far = [], 0
    for name, count in zip(names, counts, strict=True):
        sum_so_far += count
        rows.append((name, float(sum_so_far)))
    return rows
