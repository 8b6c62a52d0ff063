"""The keeper's watch: everything is looked at, one fault silences nothing else, and each thing is told once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from keepers_books import Clock
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.alerting import Alerting
from proxy.app.budget_watch import BudgetWatch
from proxy.app.invariants import Drift
from proxy.domain.alerts import Alert
from proxy.domain.policy import Budget, Plan, Policy
from proxy.gateway.ports import StoreAway
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.counter_sums import add
from proxy.ledger.denials import Delta
from proxy.ledger.engine import writing
from proxy.ledger.plans import apply_policy
from proxy.ledger.tables import customers, micros, moment
from proxy.telemetry import Counters


class Watch:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.denied: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self.poison = ""

    async def of_counters(self, counters: Iterable[str]) -> list[Alert]:
        if self.fault:
            raise self.fault
        if self.poison in counters:
            raise ValueError(self.poison)
        return [Alert("budget.exhausted", f"exhausted/{counter}", {}, counter) for counter in counters]

    async def of_denied(self, denied: Iterable[tuple[str, str]]) -> list[Alert]:
        self.denied += sorted(denied)
        return [Alert("budget.exhausted", f"exhausted/{who}", {}, who) for who, _ in denied]

    async def renewals(self, renewing: Any) -> list[Alert]:
        return []


class House:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine, self.clock, self.watch = engine, Clock(), Watch()
        self.resting: dict[tuple[str, ...], float] = {}
        self.counters = Counters()
        self.raising = SqlAlerts(engine, self.clock, os.urandom)
        self.woken = 0

    def alerting(self) -> Alerting:
        alerting = Alerting(
            self.raising,
            self.watch,  # type: ignore[arg-type]
            lambda: self.resting,
            self.clock,
            self.counters,
            timedelta(days=7),
        )
        alerting.on_raised = self._wake
        return alerting

    def _wake(self) -> None:
        self.woken += 1

    async def types(self) -> list[str]:
        """Oldest first."""
        return [alert["type"] for alert in (await self.raising.alerts({}, 100, None)).data][::-1]

    def tick(self) -> None:
        self.clock.us += 1_000_000


@pytest.fixture
def house(engine: AsyncEngine) -> House:
    return House(engine)


async def test_a_plan_is_told_of_when_it_changes_and_not_when_it_first_comes(house: House) -> None:
    """An installation is no news; an edit of a limit is."""
    await apply_policy(house.engine, house.clock, {}, [Plan("a", "A", 0), Plan("b", "B", 0)])
    alerting = house.alerting()
    await alerting.look()
    assert await house.types() == []
    changed = Plan("a", "A", 0, budgets=(Budget("x", "tokens", 5),))
    await apply_policy(house.engine, house.clock, {}, [changed, Plan("b", "B", 0)])
    await alerting.look()
    await house.alerting().look()
    (alert,) = (await house.raising.alerts({}, 9, None)).data
    assert (alert["type"], alert["data"]["plan"], alert["data"]["version"]) == ("plan.changed", "a", 2)
    assert [change["path"] for change in alert["data"]["changes"]] == ["budgets[x]"]
    assert house.woken == 1
    assert house.counters.snapshot()["counters"]["alerts_raised"] == [[["plan.changed"], 1]]


async def test_an_upstream_goes_down_and_up_once_however_many_look(house: House) -> None:
    """The workers of two keepers see the same provider fail."""
    one, other = house.alerting(), house.alerting()
    for resting in (0, 2, 2, 1, 0, 0):
        house.tick()
        house.resting = {("openai", "gpt"): resting}
        await one.look()
        await other.look()
    assert await house.types() == ["upstream.down", "upstream.up"]


async def test_after_a_restart_what_was_down_is_tried_again(house: House) -> None:
    """Else nobody would ever say that it is up, nor that it is down the next time."""
    house.resting = {("openai", "gpt"): 1}
    await house.alerting().look()
    house.resting = {}
    for _ in range(2):
        house.tick()
        restarted = house.alerting()
        await restarted.look()
    house.tick()
    house.resting = {("openai", "gpt"): 1}
    await restarted.look()
    assert await house.types() == ["upstream.down", "upstream.up", "upstream.down"]


async def test_one_fault_silences_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read of the policy must not hide a dead provider."""
    monkeypatch.setattr("proxy.ledger.alert_sources.next_revision", _broken)
    house.resting = {("openai", "gpt"): 1}
    await house.alerting().look()
    assert await house.types() == ["upstream.down"]
    assert house.counters.snapshot()["counters"]["faults"] == [[["alerts"], 1]]


async def _broken(engine: AsyncEngine) -> None:
    raise ValueError("poison")


async def test_a_counter_that_nobody_understands_holds_up_no_other(house: House) -> None:
    """It is told in the log, once."""
    house.watch.poison = "poison"
    for counter in ("a", "poison", "b"):
        await charge(house, counter, 1)
    alerting = house.alerting()
    await alerting.look()
    await alerting.look()
    assert await house.types() == ["budget.exhausted", "budget.exhausted"]
    assert house.counters.snapshot()["counters"]["faults"] == [[["alerts"], 1]]


async def test_while_redis_is_away_a_counter_waits(house: House) -> None:
    """What was carried over is not known then; told without it, an alert would be early."""
    house.watch.fault = StoreAway()
    await charge(house, "a", 1)
    await house.alerting().look()
    assert await house.types() == []
    house.watch.fault = None
    await house.alerting().look()
    assert await house.types() == ["budget.exhausted"]


async def charge(house: House, counter: str, amount: int) -> None:
    async with writing(house.engine) as connection:
        await add(connection, [{"shard": 1, "charged": [{"counter": counter, "amount": amount}]}])


async def test_a_budget_is_followed_from_its_threshold_to_its_renewal(house: House) -> None:
    """By two keepers at once, of which one is always a little behind."""
    budget = Budget("b", "tokens", 1000, "P30D")
    plan = Policy(1, {}, {"plan": Plan("plan", "Plan", 1, budgets=(budget,))})
    anchor = moment(house.clock.us)
    row = {"id": "acme", "name": "A", "timezone": "UTC", "status": "active", "plan": "plan", "revision": 1}
    async with writing(house.engine) as connection:
        await connection.execute(insert(customers).values(**row, anchor=anchor, created_at=anchor))
    house.watch = BudgetWatch(house.engine, lambda: plan, house.clock, 4, _nothing)  # type: ignore[assignment]
    keepers = house.alerting(), house.alerting()

    async def look() -> None:
        await asyncio.gather(*(keeper.look() for keeper in keepers))

    counter = f"acme/customer/b/tokens/P30D/{micros(anchor)}"
    for amount in (700, 100, 10, 150, 40):
        await charge(house, counter, amount)
        await look()
    reached = ["budget.threshold_reached"] * 3
    assert sorted(await house.types()) == ["budget.exhausted", *reached]
    house.clock.us += 30 * 86_400_000_000 - 1
    await look()
    assert len(await house.types()) == 4
    house.clock.us += 1
    await look()
    await look()
    assert sorted(await house.types()) == ["budget.exhausted", "budget.renewed", *reached]
    await charge(house, counter, 5)
    await look()
    assert len(await house.types()) == 5


async def _nothing(shard: int, names: Sequence[str]) -> Sequence[int]:
    return [0 for _ in names]


async def test_budget_denials_are_looked_at_once_and_others_never(house: House) -> None:
    alerting = house.alerting()
    alerting.denied([delta("acme", "budget"), delta("acme", "budget"), delta("other", "rate_limited")])
    await alerting.look()
    await alerting.look()
    assert house.watch.denied == [("acme", "scout")]
    assert await house.types() == ["budget.exhausted"]


def delta(customer_id: str, reason: str) -> Delta:
    key: Any = (1, customer_id, "scout", "m", reason, False)
    return Delta("id", key, 1, "req", "message")


async def test_a_drift_that_stays_is_told_once_and_a_new_one_again(house: House) -> None:
    """The doctor finds it every minute until somebody has recorded what was set aside."""
    alerting = house.alerting()
    drift = Drift(3, "epoch", 10, "acme/customer/b/tokens/lifetime/0", "used", 7, 5)
    await alerting.drift(drift, False)
    await alerting.drift(Drift(**{**_fields(drift), "seq": 11}), False)
    assert await house.types() == ["drift.found"]
    house.tick()
    await alerting.drift(Drift(**{**_fields(drift), "seq": 12}), True)
    (newest, _) = (await house.raising.alerts({}, 9, None)).data
    assert newest["data"] == {"counter": drift.counter, "field": "used", "seen": 7, "right": 5, "corrected": True}


def _fields(drift: Drift) -> dict[str, Any]:
    return {name: getattr(drift, name) for name in Drift.__slots__}
