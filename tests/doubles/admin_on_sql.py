"""An admin plane on a real ledger, whose changes nothing projects: what the ledger promises, seen over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.domain.deeds import Role
from proxy.domain.secrets import ADMIN_PREFIX, SECRET_RANDOM_BYTES, digest, make_secret
from proxy.ledger.admin_tokens import SqlAdminTokens
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import open_ledger
from proxy.ledger.grants import SqlGrants
from proxy.ledger.idempotency import SqlIdempotency
from proxy.ledger.migrate import migrate
from proxy.ledger.subscriptions import SqlSubscriptions
from proxy.ledger.tables import micros, moment
from proxy.web.admin import AdminDeps
from tests.doubles.admin import PEPPER, AdminPlane


class StandingClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def now_us(self) -> int:
        return micros(self.at)

    def monotonic_us(self) -> int:
        return micros(self.at)

    def move(self, by: timedelta) -> None:
        self.at += by


class AdminPlaneOnSql(AdminPlane):
    """As `AdminPlane`, where customers, agents, tokens, audit log and keys are in a ledger of their own."""

    engine: AsyncEngine

    def __init__(self, url: str) -> None:
        super().__init__()
        self._ledger_url = url
        self.clock = StandingClock()
        self.projected = 0

    async def start(self) -> AdminPlaneOnSql:
        await migrate(self._ledger_url)
        self.engine = open_ledger(self._ledger_url)
        self.sql_tokens = SqlAdminTokens(self.engine, self.clock)
        self.log = SqlAuditLog(self.engine, self.clock)
        self.keys = SqlIdempotency(self.engine, self.clock)
        try:
            await super().start()
        except BaseException:
            # A connection that stays open keeps its thread, and that the whole test run.
            await self.engine.dispose()
            raise
        return self

    async def stop(self) -> None:
        await super().stop()
        await self.engine.dispose()

    def deps(self) -> AdminDeps:
        accounts = SqlAccounts(self.engine, self.clock, os.urandom, self._project)
        return replace(
            super().deps(),
            accounts=accounts,
            subscriptions=SqlSubscriptions(accounts),
            grants=SqlGrants(accounts),
            tokens=self.sql_tokens,
            audit_log=self.log,
            idempotency=self.keys,
            make_secret=lambda: self._made(""),
            make_token=lambda: self._made(ADMIN_PREFIX),
            now=lambda: moment(self.clock.now_us()),
        )

    async def token(self, role: Role, name: str = "") -> str:
        id, text, kept = self._made(ADMIN_PREFIX)
        await self.sql_tokens.create(id, name or f"the {role}", role, kept, None)
        return text

    async def _project(self, outbox_id: int) -> None:
        self.projected += 1
        self.accounts._project()

    def _made(self, prefix: str) -> tuple[str, str, str]:
        randomness = os.urandom(SECRET_RANDOM_BYTES)
        id, text = make_secret(randomness, prefix) if prefix else make_secret(randomness)
        return id, text, digest(PEPPER, text)
