"""The gate about itself: whether it is sound, whether it is well, and its metrics."""

from __future__ import annotations

from typing import Any

from proxy.web.admin import answers
from proxy.web.admin.routes import PREFIX, Asked, Route


async def check_invariants(asked: Asked) -> Any:
    return await asked.deps.invariants()


async def check_health(asked: Asked) -> Any:
    return await asked.deps.health()


async def render_metrics(asked: Asked) -> bytes:
    return await asked.deps.metrics()


async def answer_alive(asked: Asked) -> dict[str, bool]:
    return {"ok": True}


ROUTES = (
    Route(
        "GET", f"{PREFIX}/invariants", check_invariants, "Check what must always be true of the counters.",
        answers.Checks,
    ),
    Route(
        "GET", f"{PREFIX}/health", check_health, "Check connections, versions and lag.",
        answers.Checks,
    ),
    Route(
        "GET", "/metrics", render_metrics, "Metrics for Prometheus.",
        media="text/plain; version=0.0.4; charset=utf-8",
    ),
    Route(
        "GET", "/healthz", answer_alive, "Say that this listener answers; needs no token and says nothing else.",
        answers.Alive, open=True,
    ),
)  # fmt: skip
