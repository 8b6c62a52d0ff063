"""The health of the event loop: its faults in the log, its lag in the counters."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.telemetry.counters import Counters
from proxy.telemetry.logs import logger


def report_loop_faults(loop: asyncio.AbstractEventLoop) -> None:
    """What callbacks raise goes to the log without asyncio's habit of quoting objects and messages."""
    log = logger("loop")

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        said = str(context.get("message", "")).split("\n", 1)[0]
        task = context.get("task") or context.get("future")
        name = task.get_name() if isinstance(task, asyncio.Task) else None
        log.error("loop.fault", said=said[:200], task=name, exc_info=context.get("exception"))

    loop.set_exception_handler(report)


async def watch_loop_lag(counters: Counters, every_s: float = 0.5) -> None:
    """Notes how much later than asked the loop comes round; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        counters.loop_lag(max(0.0, loop.time() - due) * 1_000)
