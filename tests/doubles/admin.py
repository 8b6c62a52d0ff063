"""An admin plane over the ports in memory, on a real listener."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from proxy.billing.ports import NotFound
from proxy.domain.accounts import Customer, IssuedGrant
from proxy.domain.deeds import Role
from proxy.domain.secrets import (
    ADMIN_PREFIX,
    SECRET_RANDOM_BYTES,
    digest,
    make_secret,
    well_formed_admin_token,
)
from proxy.policy_files import read_overrides
from proxy.web.admin import AdminDeps, AdminRunner, admin_app, token_digest
from proxy.webhooks.addresses import url_fault
from proxy.webhooks.signing import secret_of
from tests.doubles.admin_ports import MemoryAdminTokens, MemoryAuditLog, MemoryIdempotency
from tests.doubles.alerts import MemoryAlerts, MemoryWebhooks
from tests.doubles.directory import NOW, MemoryAccounts, MemoryPlans, MemoryReports
from tests.doubles.plan_edits import MemoryPlanEdits
from tests.doubles.terms import MemoryGrants, MemorySubscriptions

TOKEN = "an-admin-token-of-the-tests"
DIGEST = "d1" * 32
PEPPER = b"the-pepper-of-the-tests"


class AdminPlane:
    """Everything behind the plane, to be looked at and broken by tests. `url` once it is started."""

    def __init__(self) -> None:
        self.accounts, self.plans, self.reports = MemoryAccounts(), MemoryPlans(), MemoryReports()
        self.plan_edits = MemoryPlanEdits(self.plans)
        self.subscriptions, self.grants = MemorySubscriptions(self.accounts), MemoryGrants(self.accounts)
        self.balances: dict[str, Any] | None = {}
        self.tokens, self.audit_log, self.idempotency = MemoryAdminTokens(), MemoryAuditLog(), MemoryIdempotency()
        self.alerts, self.webhooks = MemoryAlerts(), MemoryWebhooks()
        self.invariants_ok = True
        self.fault: Exception | None = None
        self.invariants_fault: Exception | None = None
        self.url = ""
        self._numbers = itertools.count(1)
        self._runner: AdminRunner | None = None

    def deps(self) -> AdminDeps:
        return AdminDeps(
            accounts=self.accounts,
            plans=self.plans,
            plan_edits=self.plan_edits,
            reports=self.reports,
            subscriptions=self.subscriptions,
            grants=self.grants,
            entitlements=self._entitlements,
            read_overrides=self._read_overrides,
            grant_balances=self._grant_balances,
            invariants=self._invariants,
            health=self._health,
            metrics=self._metrics,
            make_secret=self._make_secret,
            now=lambda: NOW,
            default_plan="starter",
            token_digest=token_digest(TOKEN),
            tokens=self.tokens,
            audit_log=self.audit_log,
            idempotency=self.idempotency,
            make_token=self._make_token,
            digest_of=lambda text: digest(PEPPER, text) if well_formed_admin_token(text) else None,
            alerts=self.alerts,
            webhooks=self.webhooks,
            webhook_secret=lambda endpoint: secret_of(PEPPER, endpoint.id, endpoint.salt),
            webhook_url_fault=lambda url: url_fault(url, allow_private=False),
        )

    async def token(self, role: Role, name: str = "") -> str:
        """A token of that role, made directly."""
        id, text, kept = self._make_token()
        await self.tokens.create(id, name or f"the {role}", role, kept, None)
        return text

    async def start(self) -> AdminPlane:
        self._runner = AdminRunner(admin_app(self.deps()), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _entitlements(self, customer_id: str) -> dict[str, Any]:
        if self.fault:
            raise self.fault
        if customer_id not in self.accounts.kept["customer"]:
            raise NotFound("customer", customer_id)
        budget = {
            "budget_id": "monthly-tokens",
            "meter": "tokens",
            "per": "customer",
            "window": "P1M",
            "limit": 1_000_000,
            "granted": 0,
            "used": 45,
            "held": 0,
            "remaining": 999_955,
            "starts_at": "2026-11-20T00:00:00Z",
            "resets_at": "2026-12-20T00:00:00Z",
        }
        plan = {"plan": "starter", "plan_version": 2, "models": ["gpt-4o-mini"], "features": {"priority": False}}
        return {"customer_id": customer_id, **plan, "budgets": [budget]}

    async def _read_overrides(self, customer: Customer, document: Mapping[str, Any]) -> Any:
        plan = await self.plans.plan(customer.plan)
        return read_overrides(document, plan, ("gpt-4o-mini", "gpt-4o"), customer.overrides)

    async def _grant_balances(self, customer_id: str, grants: Sequence[IssuedGrant]) -> Any:
        return self.balances

    async def _invariants(self) -> dict[str, Any]:
        if self.invariants_fault:
            raise self.invariants_fault
        check = {"id": "I1", "ok": self.invariants_ok, "seen": 0 if self.invariants_ok else 7, "expected": 0}
        return {"ok": self.invariants_ok, "checks": [check]}

    async def _health(self) -> dict[str, Any]:
        return {
            "ok": True,
            "version": "0",
            "checks": [{"id": "redis", "ok": True, "seen": "9.0", "expected": "7.0"}],
        }

    async def _metrics(self) -> bytes:
        return b"faregate_build_info 1\n"

    def _make_secret(self) -> tuple[str, str, str]:
        number = next(self._numbers)
        return f"sec{number}", f"fg_live_sec{number}_TheSecretItself", DIGEST

    def _make_token(self) -> tuple[str, str, str]:
        randomness = next(self._numbers).to_bytes(7, "big") + bytes(SECRET_RANDOM_BYTES - 7)
        id, text = make_secret(randomness, ADMIN_PREFIX)
        return id, text, digest(PEPPER, text)
