"""What the admin plane needs of the world: ports, and a few questions that other rooms answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.billing.alerts import Alerts, WebhookEndpoint, Webhooks
from proxy.billing.customer_terms import Grants, Subscriptions
from proxy.billing.ports import Accounts, AdminTokens, AuditLog, Idempotency, PlanEdits, Plans, Reports
from proxy.domain.accounts import Customer, IssuedGrant

Misplaced = tuple[tuple[str | int, ...], str]
"""A fault of a document: where in it, and what is wrong."""


@dataclass(frozen=True, slots=True)
class AdminDeps:
    """Handed over by the composition root.

    `read_overrides` takes a customer and what is to win over its plan; it answers that in counted units, and every
    fault. `grant_balances` answers by grant what each budget has of it (`GrantBalance`), None while Redis is away.
    `entitlements` takes a customer's id and answers DESIGN 5.5's entitlements; it raises `NotFound`, or
    `StoreAway` while Redis is away. `invariants` and `health` answer `{"ok", "checks": [{"id", "ok", "seen",
    "expected"}]}` (and may say more beside `checks`). `metrics` is Prometheus text. `make_secret` makes
    (secret id, the secret itself, its keyed digest in hex). `default_plan` is for customers made without a
    plan; None: a plan must be named. `token_digest` is `auth.token_digest` of the first owner's token.
    `make_token` is `make_secret` for admin tokens; `digest_of` gives the keyed digest of a text that may be one,
    None of others. `webhook_secret` makes an endpoint's signing secret; `webhook_url_fault` says why a URL may not
    be called, None: it may.
    """

    accounts: Accounts
    plans: Plans
    plan_edits: PlanEdits
    reports: Reports
    subscriptions: Subscriptions
    grants: Grants
    entitlements: Callable[[str], Awaitable[Mapping[str, Any]]]
    read_overrides: Callable[[Customer, Mapping[str, Any]], Awaitable[tuple[dict[str, Any], list[Misplaced]]]]
    grant_balances: Callable[[str, Sequence[IssuedGrant]], Awaitable[Mapping[str, Any] | None]]
    invariants: Callable[[], Awaitable[Mapping[str, Any]]]
    health: Callable[[], Awaitable[Mapping[str, Any]]]
    metrics: Callable[[], Awaitable[bytes]]
    make_secret: Callable[[], tuple[str, str, str]]
    now: Callable[[], datetime]
    default_plan: str | None
    token_digest: bytes
    tokens: AdminTokens
    audit_log: AuditLog
    idempotency: Idempotency
    make_token: Callable[[], tuple[str, str, str]]
    digest_of: Callable[[str], str | None]
    alerts: Alerts
    webhooks: Webhooks
    webhook_secret: Callable[[WebhookEndpoint], str]
    webhook_url_fault: Callable[[str], str | None]
