"""What the admin plane needs of the world: ports, and a few questions that other rooms answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.billing.ports import Accounts, Plans, Reports


@dataclass(frozen=True, slots=True)
class AdminDeps:
    """Handed over by the composition root.

    `entitlements` takes a customer's id and answers DESIGN 5.5's entitlements; it raises `NotFound`, or
    `StoreAway` while Redis is away. `invariants` and `health` answer `{"ok", "checks": [{"id", "ok", "seen",
    "expected"}]}` (and may say more beside `checks`). `metrics` is Prometheus text. `make_secret` makes
    (secret id, the secret itself, its keyed digest in hex). `default_plan` is for customers made without a
    plan; None: a plan must be named. `token_digest` is `auth.token_digest` of the admin token.
    """

    accounts: Accounts
    plans: Plans
    reports: Reports
    entitlements: Callable[[str], Awaitable[Mapping[str, Any]]]
    invariants: Callable[[], Awaitable[Mapping[str, Any]]]
    health: Callable[[], Awaitable[Mapping[str, Any]]]
    metrics: Callable[[], Awaitable[bytes]]
    make_secret: Callable[[], tuple[str, str, str]]
    now: Callable[[], datetime]
    default_plan: str | None
    token_digest: bytes
