"""The loop's lag is seen."""

from __future__ import annotations

import asyncio
import time

from proxy.telemetry import Counters, watch_loop_lag


async def test_a_callback_that_blocks_shows_as_lag() -> None:
    """One blocking call holds up every request; it must be found in the figures."""
    counters = Counters()
    watching = asyncio.ensure_future(watch_loop_lag(counters, every_s=0.01))
    await asyncio.sleep(0)
    time.sleep(0.12)  # noqa: ASYNC251 - the fault that is to be seen
    await asyncio.sleep(0.02)
    watching.cancel()
    [[_, counts, total]] = counters.snapshot()["histograms"]["loop_lag_seconds"]
    assert total >= 0.1
    assert sum(counts) >= 1
