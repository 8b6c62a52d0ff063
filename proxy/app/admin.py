"""What the admin plane is given: accounts and reports from the ledger, balances and invariants from Redis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy import __version__
from proxy.app.clock import SystemClock
from proxy.app.invariants import invariants
from proxy.app.policies import LivePolicy
from proxy.app.store import Store
from proxy.domain.identity import Identity
from proxy.domain.ids import shard_of
from proxy.domain.policy import Policy
from proxy.domain.secrets import SECRET_RANDOM_BYTES, digest, make_secret
from proxy.gateway.entitlements import entitlements
from proxy.gateway.standing import Standing
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.plans import SqlPlans
from proxy.ledger.reports import SqlReports
from proxy.ledger.writer import LedgerWriter
from proxy.settings import Settings
from proxy.telemetry import Counters, Merged
from proxy.telemetry.exposition import render
from proxy.web.admin.auth import token_digest
from proxy.web.admin.deps import AdminDeps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def admin_deps(
    settings: Settings,
    token: str,
    pepper: bytes,
    accounts: SqlAccounts,
    engine: AsyncEngine,
    store: Store,
    writer: LedgerWriter,
    policies: LivePolicy,
    clock: SystemClock,
    counters: Counters,
    merged: Merged,
) -> AdminDeps:
    """Everything an admin may ask or change, as functions."""

    async def entitlements_of(customer_id: str) -> Mapping[str, Any]:
        customer = await accounts.customer(customer_id)
        who = Identity(
            customer_id=customer.id,
            agent_id="",
            agent_type_id="",
            secret_id="",
            expires_at_ms=0,
            status=customer.status,
            plan_id=customer.plan,
            anchor_us=(customer.anchor - EPOCH) // timedelta(microseconds=1),
            timezone=customer.timezone,
            revision=0,
            shard=shard_of(customer.id, settings.redis.shards),
        )
        standing = Standing("", who, policies.policy or Policy(0, {}, {}))
        return await entitlements(standing, store.balances, clock.store_now_us())

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

    async def check_invariants() -> Mapping[str, Any]:
        return await invariants(store, engine, settings.redis.shards, clock)

    async def metrics() -> bytes:
        return render(merged.total([counters.snapshot()]))

    def new_secret() -> tuple[str, str, str]:
        secret_id, secret = make_secret(os.urandom(SECRET_RANDOM_BYTES))
        return secret_id, secret, digest(pepper, secret)

    return AdminDeps(
        accounts=accounts,
        plans=SqlPlans(engine),
        reports=SqlReports(engine),
        entitlements=entitlements_of,
        invariants=check_invariants,
        health=health,
        metrics=metrics,
        make_secret=new_secret,
        now=lambda: EPOCH + timedelta(microseconds=clock.now_us()),
        default_plan=settings.policies.default_plan or None,
        token_digest=token_digest(token),
    )
