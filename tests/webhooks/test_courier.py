"""The courier before a queue in memory: in time, a few at once, and never held up by one receiver."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from proxy.billing.alerts import Delivery, Outcome, WebhookEndpoint
from proxy.telemetry import Counters, Tasks
from proxy.webhooks.courier import AT_ONCE_EACH, JITTER, Courier
from tests.doubles.webhook_things import RealClock, delivery_of, endpoint_at


class MemoryQueue:
    """Gives each delivery out once; remembers how it was finished."""

    def __init__(self) -> None:
        self.due: list[tuple[Delivery, WebhookEndpoint]] = []
        self.finished: list[tuple[str, Outcome, int, int | None]] = []
        self.fault: Exception | None = None

    async def claim(
        self, most: int, of_each: int, busy: Mapping[str, int], now_us: int, lease_us: int
    ) -> Sequence[tuple[Delivery, WebhookEndpoint, str]]:
        if self.fault:
            raise self.fault
        taken, given = Counter(busy), []
        for item in list(self.due):
            if len(given) < most and taken[item[1].id] < of_each:
                taken[item[1].id] += 1
                given.append((*item, "claim"))
                self.due.remove(item)
        return given

    async def finish(
        self, delivery: Delivery, claim: str, outcome: Outcome, now_us: int, next_us: int | None
    ) -> bool:
        self.finished.append((delivery.id, outcome, now_us, next_us))
        return True

    async def lengths(self) -> tuple[int, int]:
        return len(self.due), 7

    async def forget_delivered(self, before_us: int) -> int:
        return 0


class Receivers:
    """Answers at once, but for endpoints named `slow`, which hang until they are released."""

    def __init__(self) -> None:
        self.outcome = Outcome(200, None)
        self.hanging: Counter[str] = Counter()
        self.released = asyncio.Event()

    async def send(self, delivery: Delivery, endpoint: WebhookEndpoint) -> Outcome:
        if endpoint.id == "slow":
            self.hanging[endpoint.id] += 1
            await self.released.wait()
        return self.outcome


class House:
    def __init__(self, attempts: int = 0) -> None:
        self.queue, self.receivers = MemoryQueue(), Receivers()
        self.counters, self.tasks = Counters(), Tasks()
        self.courier = Courier(
            self.queue,
            self.receivers,
            RealClock(),
            self.tasks,
            self.counters,
            retry_s=[5, 300],
            timeout_s=15,
            chance=lambda: 0.5,
            away=(OSError,),
        )

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.01)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    house.tasks.spawn(house.courier.run(), "courier")
    yield house
    house.receivers.released.set()
    await house.tasks.cancel_all(2)


def queued(house: House, endpoint_id: str, count: int, attempts: int = 0) -> None:
    for number in range(count):
        delivery = delivery_of(number, endpoint_id)
        house.queue.due.append(
            (
                Delivery(**{**{n: getattr(delivery, n) for n in Delivery.__slots__}, "attempts": attempts}),
                endpoint_at("https://example.com", endpoint_id),
            )
        )


async def test_a_slow_receiver_holds_up_nobody_else(house: House) -> None:
    """And takes no more than its few places."""
    queued(house, "slow", 50)
    queued(house, "quick", 50)
    house.courier.wake()
    await house.until(lambda: len(house.queue.finished) == 50)
    assert house.receivers.hanging == {"slow": AT_ONCE_EACH}
    house.receivers.released.set()
    await house.until(lambda: len(house.queue.finished) == 100)


@pytest.mark.parametrize(("attempts", "wait_s"), [(0, 5), (1, 300), (2, None)])
async def test_the_waits_grow_and_end(house: House, attempts: int, wait_s: float | None) -> None:
    """Stretched a little, so that what was missed does not come back all at once."""
    house.receivers.outcome = Outcome(500, "it answered 500")
    queued(house, "home", 1, attempts)
    house.courier.wake()
    await house.until(lambda: house.queue.finished)
    ((_, outcome, now_us, next_us),) = house.queue.finished
    assert outcome.status == 500
    assert next_us == (None if wait_s is None else now_us + round(wait_s * (1 + JITTER * 0.5) * 1_000_000))
    how = "dead" if wait_s is None else "failed"
    assert house.counters.snapshot()["counters"]["webhook_deliveries"] == [[[how], 1]]


async def test_gone_is_not_tried_again(house: House) -> None:
    house.receivers.outcome = Outcome(410, "it answered 410", gone=True)
    queued(house, "home", 1)
    house.courier.wake()
    await house.until(lambda: house.queue.finished)
    assert house.queue.finished[0][3] is None


async def test_a_ledger_that_is_away_ends_nothing(house: House) -> None:
    """What is due is delivered when it is back."""
    house.queue.fault = OSError("away")
    queued(house, "home", 1)
    house.courier.wake()
    await asyncio.sleep(0.05)
    house.queue.fault = None
    house.courier.wake()
    await house.until(lambda: house.queue.finished)


async def test_the_queues_lengths_are_in_the_metrics(house: House) -> None:
    await house.until(lambda: house.counters.snapshot()["gauges"].get("webhook_dead_letters"))
    assert house.counters.snapshot()["gauges"]["webhook_dead_letters"] == [[[], 7]]
