"""What the admin plane is given: accounts and reports from the ledger, balances and invariants from Redis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy import __version__
from proxy.app.clock import SystemClock
from proxy.app.customer_terms import CustomerTerms
from proxy.app.invariants import invariants
from proxy.app.notifying import Notifying
from proxy.app.plan_editing import PlanEditing
from proxy.app.policies import LivePolicy
from proxy.app.store import Store
from proxy.domain.secrets import (
    ADMIN_PREFIX,
    SECRET_RANDOM_BYTES,
    digest,
    make_secret,
    well_formed_admin_token,
)
from proxy.ledger.admin_tokens import SqlAdminTokens
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.grants import SqlGrants
from proxy.ledger.idempotency import SqlIdempotency
from proxy.ledger.plan_edits import SqlPlanEdits
from proxy.ledger.plans import SqlPlans
from proxy.ledger.reports import SqlReports
from proxy.ledger.subscriptions import SqlSubscriptions
from proxy.ledger.writer import LedgerWriter
from proxy.settings import Settings
from proxy.telemetry import Counters, Merged
from proxy.telemetry.exposition import render
from proxy.web.admin.auth import token_digest
from proxy.web.admin.deps import AdminDeps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AUDIT_ENTRIES_CHECKED = 10_000


def admin_deps(
    settings: Settings,
    token: str,
    pepper: bytes,
    accounts: SqlAccounts,
    tokens: SqlAdminTokens,
    engine: AsyncEngine,
    store: Store,
    writer: LedgerWriter,
    policies: LivePolicy,
    clock: SystemClock,
    counters: Counters,
    merged: Merged,
    notifying: Notifying,
) -> AdminDeps:
    """Everything an admin may ask or change, as functions."""

    terms = CustomerTerms(accounts, policies, store.balances, clock, settings.redis.shards)

    async def health() -> Mapping[str, Any]:
        backlog = await store.backlog()
        checks = [
            {"id": "redis", "ok": store.hot.connected, "seen": store.hot.connected, "expected": True},
            {"id": "policies", "ok": not policies.faults, "seen": list(policies.faults), "expected": []},
            {
                "id": "ledger",
                "ok": writer.lag.failures_in_a_row == 0,
                "seen": {"events_waiting": backlog, "set_aside": writer.lag.set_aside},
                "expected": {"failures_in_a_row": 0},
            },
        ]
        return {
            "ok": all(check["ok"] for check in checks),
            "version": __version__,
            "policy_revision": policies.policy.revision if policies.policy else 0,
            "checks": checks,
        }

    audit_log = SqlAuditLog(engine, clock)

    async def check_invariants() -> Mapping[str, Any]:
        found = await invariants(store, engine, settings.redis.shards, clock)
        checks = [*found["checks"], await _audit_log_check(audit_log)]
        return {"ok": all(check["ok"] for check in checks), "checks": checks}

    async def metrics() -> bytes:
        return render(merged.total([counters.snapshot()]))

    def new_secret() -> tuple[str, str, str]:
        secret_id, secret = make_secret(os.urandom(SECRET_RANDOM_BYTES))
        return secret_id, secret, digest(pepper, secret)

    def new_token() -> tuple[str, str, str]:
        token_id, text = make_secret(os.urandom(SECRET_RANDOM_BYTES), ADMIN_PREFIX)
        return token_id, text, digest(pepper, text)

    return AdminDeps(
        accounts=accounts,
        plans=SqlPlans(engine),
        plan_edits=PlanEditing(
            policies, SqlPlanEdits(engine, clock), SqlPlans(engine), settings.policies.default_plan
        ),
        reports=SqlReports(engine),
        subscriptions=SqlSubscriptions(accounts),
        grants=SqlGrants(accounts),
        entitlements=terms.entitlements,
        read_overrides=terms.read_overrides,
        grant_balances=terms.grant_balances,
        invariants=check_invariants,
        health=health,
        metrics=metrics,
        make_secret=new_secret,
        now=lambda: EPOCH + timedelta(microseconds=clock.now_us()),
        default_plan=settings.policies.default_plan or None,
        token_digest=token_digest(token),
        tokens=tokens,
        audit_log=audit_log,
        idempotency=SqlIdempotency(engine, clock),
        make_token=new_token,
        digest_of=lambda text: digest(pepper, text) if well_formed_admin_token(text) else None,
        alerts=notifying.alerts,
        webhooks=notifying.webhooks,
        webhook_secret=notifying.secret,
        webhook_url_fault=notifying.url_fault,
    )


async def _audit_log_check(audit_log: SqlAuditLog) -> dict[str, Any]:
    """The newest entries: enough to see a hand in the log, and the same work however long it has grown."""
    found = await audit_log.verify(last=AUDIT_ENTRIES_CHECKED)
    seen = found.fault or {"entries": found.entries, "head": f"{found.head.seq}:{found.head.hash}"}
    return {"id": "audit_log", "ok": found.fault is None, "seen": seen, "expected": "as it was written"}
