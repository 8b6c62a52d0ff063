"""The courier: takes deliveries that are due, some at a time of each endpoint, and tries until they are delivered.

Every keeper has one. The queue's lease keeps two from making the same attempt; a keeper that dies with a delivery
in hand leaves it to the others, who may then deliver it a second time, under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from proxy.billing.alerts import Delivery, DeliveryQueue, Outcome, WebhookEndpoint
from proxy.gateway.ports import Clock
from proxy.telemetry import Counters, Tasks

log = structlog.get_logger(__name__)

LOOK_S = 1.0
AT_ONCE = 32
# One slow endpoint takes so many places, and no more.
AT_ONCE_EACH = 4
MARGIN_S = 30.0
JITTER = 0.2
DAY_US = 86_400_000_000
DELIVERED_KEPT_US = 30 * DAY_US
TIDY_S = 600.0
FIGURES_S = 10.0


class Calls(Protocol):
    async def send(self, delivery: Delivery, endpoint: WebhookEndpoint) -> Outcome: ...


class Courier:
    """`retry_s` are the waits after each failed attempt: as many attempts follow the first as there are waits.

    `chance` gives a number from 0 to 1; `away` are the faults of a ledger that does not answer. `wake` has it look
    at once whether something is due.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        calls: Calls,
        clock: Clock,
        tasks: Tasks,
        counters: Counters,
        *,
        retry_s: Sequence[float],
        timeout_s: float,
        chance: Callable[[], float],
        away: tuple[type[Exception], ...],
    ) -> None:
        self._queue, self._calls, self._clock = queue, calls, clock
        self._tasks, self._counters = tasks, counters
        self._retry_s, self._chance, self._away = tuple(retry_s), chance, away
        self._lease_us = round((timeout_s + MARGIN_S) * 1_000_000)
        self._busy: Counter[str] = Counter()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. What is under way then goes on until the tasks are cancelled, too."""
        self._tasks.spawn(self._tidy(), "webhook tidying")
        self._tasks.spawn(self._figure(), "webhook figures")
        while True:
            self._woken.clear()
            try:
                while await self._take():
                    pass
            except self._away as fault:
                log.warning("webhooks.queue_away", fault=type(fault).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def _take(self) -> int:
        room = AT_ONCE - self._busy.total()
        if room <= 0:
            return 0
        now_us = self._clock.now_us()
        claimed = await self._queue.claim(room, AT_ONCE_EACH, self._busy, now_us, self._lease_us)
        for delivery, endpoint, claim in claimed:
            self._busy[endpoint.id] += 1
            self._tasks.spawn(self._deliver(delivery, endpoint, claim), "webhook delivery")
        return len(claimed)

    async def _deliver(self, delivery: Delivery, endpoint: WebhookEndpoint, claim: str) -> None:
        try:
            outcome = await self._calls.send(delivery, endpoint)
            now_us = self._clock.now_us()
            next_us = self._next_us(delivery.attempts, outcome, now_us)
            await self._queue.finish(delivery, claim, outcome, now_us, next_us)
            self._note(delivery, outcome, next_us)
        except self._away as fault:
            # It is due again when the lease ends; the receiver knows it by its webhook-id.
            log.warning("webhooks.outcome_not_recorded", delivery=delivery.id, fault=type(fault).__name__)
        finally:
            self._busy[endpoint.id] -= 1
            self._busy += Counter()
            self.wake()

    def _next_us(self, attempts: int, outcome: Outcome, now_us: int) -> int | None:
        if outcome.error is None or outcome.gone or attempts >= len(self._retry_s):
            return None
        # Spread, so that a receiver that comes back is not met by all that it has missed in one moment.
        wait_s = self._retry_s[attempts] * (1 + JITTER * self._chance())
        return now_us + round(wait_s * 1_000_000)

    def _note(self, delivery: Delivery, outcome: Outcome, next_us: int | None) -> None:
        how = "delivered" if outcome.error is None else "failed" if next_us is not None else "dead"
        self._counters.add("webhook_deliveries", 1, how)
        if how != "delivered":
            say = log.warning if how == "failed" else log.error
            say(
                f"webhook.{how}",
                delivery=delivery.id,
                endpoint=delivery.endpoint_id,
                event_type=delivery.type,
                attempt=delivery.attempts + 1,
                status=outcome.status,
                why=outcome.error,
            )

    async def _figure(self) -> None:
        while True:
            try:
                pending, dead = await self._queue.lengths()
                self._counters.set("webhook_queue_length", pending)
                self._counters.set("webhook_dead_letters", dead)
            except self._away as fault:
                log.warning("webhooks.queue_away", fault=type(fault).__name__)
            await asyncio.sleep(FIGURES_S)

    async def _tidy(self) -> None:
        while True:
            try:
                before_us = self._clock.now_us() - DELIVERED_KEPT_US
                while await self._queue.forget_delivered(before_us):
                    pass
            except self._away as fault:
                log.warning("webhooks.queue_away", fault=type(fault).__name__)
            await asyncio.sleep(TIDY_S)
