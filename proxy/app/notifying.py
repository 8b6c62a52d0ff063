"""Alerts and webhooks of a keeper, put together: what is watched, what is raised, and who carries it out."""

from __future__ import annotations

import os
import random
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.alerting import AWAY, Alerting
from proxy.app.budget_watch import BudgetWatch
from proxy.app.clock import SystemClock, id_maker
from proxy.app.doctor import Doctor
from proxy.app.policies import LivePolicy
from proxy.app.store import Store
from proxy.billing.alerts import WebhookEndpoint
from proxy.budgets.carried import CarriedOver
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.delivery_queue import SqlDeliveryQueue
from proxy.ledger.webhooks import SqlWebhooks
from proxy.ledger.writer import DenialWriter
from proxy.settings import Settings
from proxy.telemetry import Counters, Merged, Tasks
from proxy.webhooks.addresses import url_fault
from proxy.webhooks.courier import Courier
from proxy.webhooks.sending import Sender
from proxy.webhooks.signing import secret_of


class Notifying:
    """`alerts` and `webhooks` are for the admin plane; `begin` has the keeper watch and deliver."""

    def __init__(
        self,
        settings: Settings,
        pepper: bytes,
        engine: AsyncEngine,
        store: Store,
        policies: LivePolicy,
        clock: SystemClock,
        counters: Counters,
        merged: Merged,
    ) -> None:
        shards, how = settings.redis.shards, settings.webhooks
        self._pepper, self._how = pepper, how
        self._counters, self._clock, self._engine = counters, clock, engine
        self.alerts = SqlAlerts(engine, clock, os.urandom)
        self.webhooks = SqlWebhooks(self.alerts)
        carried = CarriedOver(store.hot, shards)
        self.alerting = Alerting(
            self.alerts,
            BudgetWatch(engine, lambda: policies.policy, clock, shards, carried.amounts),
            lambda: merged.total().gauges.get("targets_resting", {}),
            clock,
            counters,
            timedelta(days=settings.alerts.grant_expiring_days),
        )
        self._sender = Sender(pepper, clock.now_us, timeout_s=how.timeout_s, allow_private=how.allow_private)

    def begin(self, tasks: Tasks, denials: DenialWriter, doctor: Doctor) -> None:
        denials.on_recorded = self.alerting.denied
        doctor.on_drift = self.alerting.drift
        courier = Courier(
            SqlDeliveryQueue(self._engine, id_maker("claim")),
            self._sender,
            self._clock,
            tasks,
            self._counters,
            retry_s=self._how.retry_s,
            timeout_s=self._how.timeout_s,
            chance=random.Random().random,
            away=AWAY,
        )
        self.alerting.on_raised = courier.wake
        tasks.spawn(self.alerting.run(), "alerts")
        tasks.spawn(self._carry(courier), "webhook courier")

    async def _carry(self, courier: Courier) -> None:
        await self._sender.open()
        try:
            await courier.run()
        finally:
            await self._sender.close()

    def secret(self, endpoint: WebhookEndpoint) -> str:
        return secret_of(self._pepper, endpoint.id, endpoint.salt)

    def url_fault(self, url: str) -> str | None:
        return url_fault(url, self._how.allow_private)
