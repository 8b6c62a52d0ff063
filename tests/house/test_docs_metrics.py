"""The page of metrics is complete, and says of each what /metrics says of it."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.telemetry.counters import METRICS

PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()


def test_every_metric_has_its_line_with_kind_and_labels_and_every_line_its_metric() -> None:
    """Alerts are written from this page: a metric that is missing is not watched."""
    rows = re.findall(r"^\| `(faregate_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE)
    described = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert described == {
        f"faregate_{name}{'_total' if metric.kind == 'counter' else ''}": (metric.kind, metric.labels)
        for name, metric in METRICS.items()
    }


def test_the_page_says_what_the_metric_says_of_itself() -> None:
    """Two explanations drift apart."""
    assert [name for name, metric in METRICS.items() if metric.help not in PAGE] == []
