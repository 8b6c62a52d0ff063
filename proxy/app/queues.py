"""What the settings say of each upstream's queue and retries, as the journey needs it."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.gateway.ports import Clock, Meters
from proxy.gateway.retries import RetryRule
from proxy.gateway.turns import Turns, share
from proxy.settings import Upstream


def build_turns(
    upstreams: Mapping[str, Upstream], workers: int, index: int, clock: Clock, meters: Meters
) -> dict[str, Turns]:
    """The queues of worker `index` (from 1), for those upstreams whose concurrency is limited."""
    return {
        name: Turns(
            name,
            share(upstream.max_concurrency, workers, index),
            upstream.queue_max,
            upstream.queue_timeout_s,
            clock,
            meters,
        )
        for name, upstream in upstreams.items()
        if upstream.max_concurrency
    }


def retry_rules(upstreams: Mapping[str, Upstream]) -> dict[str, RetryRule]:
    """How often, and until when, each upstream's targets are tried again."""
    return {name: RetryRule(u.max_retries, u.retry_within_s) for name, u in upstreams.items()}
