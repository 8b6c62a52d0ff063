"""One admitted attempt, as the steps after admission need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.bounds import Bounds
from proxy.domain.policy import Model, Target
from proxy.domain.reservations import Held, Hold
from proxy.domain.usage import NOTHING_USED, Usage
from proxy.gateway.standing import Standing


@dataclass(slots=True)
class Trail:
    """What the attempts of one request share: whose it is, what it asks, and how far it has come.

    `charged_request` turns true once an attempt has been charged the request itself, which counts once.
    `tightened` has the input bounds that a tokenizer counted, by target. `usage`, `model_served` and `ttft_ms`
    are the newest attempt's, for the log.

    `came_us` is when the request came, by the monotonic clock. `tried` are the candidates (model and target) that
    were given up, `retries` counts those at the newest target, and `probe` is a target to which the next attempt
    goes as its breaker's probe. `passed_over` says why the newest attempt is not at its model's first target.
    `last_resort`: all candidates rest, so that one is tried in spite of its rest, unless that is an outage.
    `shadowed`: the reasons for which a plan in shadow mode would have refused it.
    `pinned_upstream`: no other upstream will do, because only that one has kept what is asked for.
    """

    request_id: str
    ask: Ask
    attempts: int = 0
    charged_request: bool = False
    fallback_from: str | None = None
    fallback_reason: str | None = None
    tightened: dict[Target, int] = field(default_factory=dict)
    skipped: dict[str, str] | None = None
    usage: Usage = NOTHING_USED
    model_served: str = ""
    ttft_ms: int | None = None
    came_us: int = 0
    tried: tuple[tuple[str, Target], ...] = ()
    retries: int = 0
    probe: Target | None = None
    passed_over: str | None = None
    last_resort: bool = False
    pinned_upstream: str | None = None
    shadowed: tuple[str, ...] = ()


@dataclass(slots=True)
class Admission:
    """A reservation that is held: for whom, for which model and where it is served, within which bounds.

    `bounds` and `holds` are what is held, which a rolling hold raises as the answer comes; `output_limit` is what
    is sent upstream, and larger than the bounds' only there. `event` is the part of the usage event that is known
    by now. `ref` is `{request_id}:{attempt}`. `started_us` is the admission; for `queued_us` after it the attempt
    waited for its turn at the upstream.
    """

    ref: str
    attempt: int
    trail: Trail
    standing: Standing
    model: Model
    target: Target
    bounds: Bounds
    output_limit: int
    holds: tuple[Hold, ...]
    held: Held
    event: dict[str, Any]
    started_us: int
    first_byte_us: int = 0
    queued_us: int = 0
