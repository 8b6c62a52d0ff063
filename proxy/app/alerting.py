"""The keeper's watch over everything that is told as an alert.

Every second it looks at what has moved since: recorded amounts, windows that have turned, revisions of the policy,
the workers' resting targets. All keepers look; the key of an alert makes it one, whoever is first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from proxy.app.budget_watch import BudgetWatch
from proxy.app.invariants import Drift
from proxy.domain.alerts import Alert, drift_found, grant_expiring, plan_changed, upstream_turn
from proxy.domain.plan_changes import plan_changes
from proxy.gateway.ports import Clock, StoreAway
from proxy.ledger import alert_sources
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.denials import Delta
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)

AWAY = (StoreAway, SQLAlchemyError, OSError, TimeoutError)
LOOK_S = 1.0
GRANTS_S = 60.0
DENIED_MOST = 10_000
DENIED_BACK_MIN = 60
MINUTE_US = 60_000_000

Resting = Callable[[], Mapping[tuple[str, ...], float]]
"""(upstream, its model) -> in how many of this keeper's workers it rests."""


class Alerting:
    """Raises alerts; `on_raised` is called when there are new ones, so that they are delivered at once."""

    def __init__(
        self,
        raising: SqlAlerts,
        watch: BudgetWatch,
        resting: Resting,
        clock: Clock,
        counters: Counters,
        expiring_within: timedelta,
    ) -> None:
        self._raising, self._watch, self._resting = raising, watch, resting
        self._engine, self._clock, self._counters = raising.engine, clock, counters
        self._expiring_within = expiring_within
        self.on_raised: Callable[[], None] = lambda: None
        self._denied: set[tuple[str, str]] = set()
        self._rested: dict[tuple[str, ...], bool] | None = None
        self._grants_due_us = 0
        self._remembered = False

    def denied(self, deltas: Iterable[Delta]) -> None:
        """Told by the denial writer of what it has recorded."""
        for delta in deltas:
            _, customer_id, agent_id, _, reason = delta.key[:5]
            if reason == "budget" and len(self._denied) < DENIED_MOST:
                self._denied.add((customer_id, agent_id))

    async def drift(self, drift: Drift, corrected: bool) -> None:
        """Told by the doctor of a counter that two rounds have found wrong; at each round, if it is left so."""
        place = f"{drift.shard}/{drift.epoch}/{drift.seq if corrected else drift.difference}"
        alert = drift_found(drift.counter, drift.field, drift.seen, drift.right, place, corrected=corrected)
        await self._told(self._raising.raise_all([alert]))

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One look at everything. What a fault keeps from being raised is seen again by the next look."""
        for look in (
            self._look_at_counters,
            self._look_at_denials,
            self._look_at_windows,
            self._look_at_policy,
            self._look_at_upstreams,
            self._look_at_grants,
        ):
            try:
                await look()
            except AWAY as away:
                log.warning("alerts.cannot_look", fault=type(away).__name__, reason=str(away))
            except Exception:
                # One thing that cannot be told must not silence the others.
                self._counters.add("faults", 1, "alerts")
                log.exception("alerts.fault", look=look.__name__.removeprefix("_look_at_"))

    async def _look_at_counters(self) -> None:
        while seen := await alert_sources.unwatched_counters(self._engine):
            await self._tell_of(seen)

    async def _tell_of(self, seen: Mapping[str, int]) -> None:
        alerts: list[Alert] = []
        try:
            alerts = await self._watch.of_counters(seen)
        except AWAY:
            raise
        except Exception:
            if len(seen) > 1:
                for counter, amount in seen.items():
                    await self._tell_of({counter: amount})
                return
            # It would hold up all others for ever, so it goes as seen, with its fault in the log.
            self._counters.add("faults", 1, "alerts")
            log.exception("alerts.counter_not_understood", counter=next(iter(seen)))
        await self._told(alert_sources.raise_of_counters(self._raising, alerts, seen))

    async def _look_at_denials(self) -> None:
        if not self._remembered:
            # What the last keeper recorded, and did not live to look at.
            since = self._clock.now_us() // MINUTE_US - DENIED_BACK_MIN
            self._denied.update((await alert_sources.denied_since(self._engine, since))[:DENIED_MOST])
            self._remembered = True
        if looked_at := set(self._denied):
            alerts = await self._watch.of_denied(looked_at)
            if alerts:
                await self._told(self._raising.raise_all(alerts))
            self._denied -= looked_at

    async def _look_at_windows(self) -> None:
        while renewing := await alert_sources.renewing(self._engine, self._clock.now_us()):
            alerts = await self._watch.renewals(renewing)
            await self._told(alert_sources.raise_renewals(self._raising, alerts, renewing))

    async def _look_at_policy(self) -> None:
        while revision := await alert_sources.next_revision(self._engine):
            alerts = []
            if revision.before is not None:
                for id in sorted(revision.before.keys() | revision.after.keys()):
                    before, after = revision.before.get(id), revision.after.get(id)
                    if before != after:
                        changes = plan_changes(before, after)
                        alerts.append(plan_changed(id, revision.number, before, after, changes))
            await self._told(alert_sources.raise_of_revision(self._raising, alerts, revision.number))

    async def _look_at_upstreams(self) -> None:
        """Down: it rests in at least one of our workers. Up: in none. Another keeper's may see it otherwise; of
        two that say the same only the first is heard."""
        rested = {target: count > 0 for target, count in self._resting().items()}
        before = self._rested
        if before is None:
            # The workers are new, and try again what rested before.
            before = dict.fromkeys(await self._raising.down_upstreams(), True)
        for target in sorted(rested.keys() | before.keys()):
            down = rested.get(target, False)
            if down != before.get(target, False):
                upstream, model = target
                alert = upstream_turn(upstream, model, down, self._clock.now_us())
                opposite = "upstream.up" if down else "upstream.down"
                if await self._raising.raise_turn(alert, opposite):
                    self._count([alert.type])
        self._rested = rested

    async def _look_at_grants(self) -> None:
        now_us = self._clock.monotonic_us()
        if now_us < self._grants_due_us:
            return
        while expiring := await alert_sources.expiring_grants(
            self._engine, self._clock.now_us(), self._expiring_within
        ):
            alerts = [grant_expiring(customer_id, grant) for customer_id, grant in expiring]
            await self._told(self._raising.raise_all(alerts))
        self._grants_due_us = now_us + round(GRANTS_S * 1_000_000)

    async def _told(self, raised: Awaitable[list[str]]) -> None:
        self._count(await raised)

    def _count(self, types: list[str]) -> None:
        for type in types:
            self._counters.add("alerts_raised", 1, type)
            log.info("alert.raised", alert=type)
        if types:
            self.on_raised()
