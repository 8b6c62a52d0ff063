"""The period of a subscription, which dates a change at its end whatever windows the plan's budgets have."""

from __future__ import annotations

from datetime import tzinfo

from proxy.domain.windows import window_at

PERIOD = "P1M"
"""A month from the anchor, in the subscription's timezone."""


def period_end_us(anchor_us: int, zone: tzinfo, now_us: int) -> int:
    """When the period that holds `now_us` ends, in microseconds since 1970."""
    _, ends_us = window_at(PERIOD, anchor_us, zone, now_us)
    assert ends_us is not None
    return ends_us
