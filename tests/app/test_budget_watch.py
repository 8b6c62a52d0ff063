"""What recorded usage comes to as alerts: whatever the window, the subject, the grants and the edits are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from keepers_books import Clock
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.budget_watch import BudgetWatch
from proxy.domain.counters import user_subject
from proxy.domain.policy import Budget, Plan, Policy
from proxy.ledger.alert_sources import Renewing
from proxy.ledger.counter_sums import add
from proxy.ledger.engine import writing
from proxy.ledger.tables import customers, grants, micros, moment

NOW = moment(Clock.us)
ANCHOR = NOW - timedelta(days=40)
DAY = timedelta(days=1)


class House:
    """Customer acme on plan `plan` with these budgets; `carried` is what Redis says was carried over."""

    def __init__(self, engine: AsyncEngine, *budgets: Budget) -> None:
        self.engine, self.clock = engine, Clock()
        self.budgets = budgets
        self.carried: dict[str, int] = {}
        self.watch = BudgetWatch(engine, self.policy, self.clock, 4, self._carried)

    def policy(self) -> Policy:
        return Policy(1, {}, {"plan": Plan("plan", "Plan", 1, budgets=self.budgets)})

    async def begin(self) -> House:
        row = {
            "id": "acme", "name": "Acme", "timezone": "UTC", "status": "active", "plan": "plan", "anchor": ANCHOR,
            "created_at": ANCHOR, "revision": 1,
        }  # fmt: skip
        async with writing(self.engine) as connection:
            await connection.execute(insert(customers).values(**row))
        return self

    async def charge(self, counter: str, amount: int) -> str:
        async with writing(self.engine) as connection:
            await add(connection, [{"shard": 1, "charged": [{"counter": counter, "amount": amount}]}])
        return counter

    async def told(self, *counters: str) -> list[tuple[str, str | None]]:
        found = await self.watch.of_counters(counters)
        return [(alert.type.removeprefix("budget."), alert.threshold) for alert in found]

    async def grant(self, id: str, amount: int) -> str:
        ends = NOW + DAY
        row = {
            "id": id, "customer_id": "acme", "meter": "tokens", "amount": amount, "per": "customer",
            "budget_id": None, "priority": 1, "effective_at": ANCHOR, "expires_at": ends, "reason": None,
            "created_at": ANCHOR, "voided_at": None,
        }  # fmt: skip
        async with writing(self.engine) as connection:
            await connection.execute(insert(grants).values(**row))
        return f"acme/customer/b/tokens/grant:{id}/{micros(ends)}"

    async def change(self, **values: Any) -> None:
        async with writing(self.engine) as connection:
            await connection.execute(update(customers).values(**values))

    async def _carried(self, shard: int, names: Sequence[str]) -> Sequence[int]:
        return [self.carried.get(name, 0) for name in names]


def budget(window: str = "P30D", **terms: Any) -> Budget:
    return Budget("b", "tokens", terms.pop("limit", 1000), window, alert_at=("80%",), **terms)


def name(starts: Any = ANCHOR + timedelta(days=30), subject: str = "customer", window: str = "P30D") -> str:
    return f"acme/{subject}/b/tokens/{window}/{micros(starts)}"


REACHED = [("threshold_reached", "80%")]


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    return await House(engine, budget()).begin()


async def test_the_present_window_is_looked_at_by_what_is_recorded(house: House) -> None:
    """What is only held has not been used."""
    await house.charge(name(), 799)
    assert await house.told(name()) == []
    await house.charge(name(), 1)
    (alert,) = await house.watch.of_counters([name()])
    assert alert.window_end_us == micros(ANCHOR + timedelta(days=60))
    assert (alert.data["used"], alert.data["remaining"]) == (800, 200)


async def test_a_window_that_has_passed_is_told_with_its_own_dates(house: House) -> None:
    """An event may be recorded after its window's end."""
    await house.charge(name(ANCHOR), 900)
    (alert,) = await house.watch.of_counters([name(ANCHOR)])
    assert (alert.window_start_us, alert.window_end_us) == (micros(ANCHOR), micros(ANCHOR + timedelta(days=30)))


async def test_a_window_from_before_the_anchor_moved_is_told_all_the_same(house: House) -> None:
    odd = ANCHOR + timedelta(days=7)
    await house.charge(name(odd), 900)
    (alert,) = await house.watch.of_counters([name(odd)])
    assert (alert.window_start_us, alert.window_end_us) == (micros(odd), micros(odd + timedelta(days=30)))


async def test_what_no_plan_has_and_nobody_is_tells_nothing(house: House) -> None:
    """A plan was edited, a customer is from another time: no fault, and no alert."""
    strange = [
        name(window="P1M"),
        name().replace("/b/", "/other/"),
        name().replace("acme/", "nobody/"),
        "no name of ours",
    ]
    for counter in strange:
        await house.charge(counter, 5000)
    assert await house.told(*strange) == []


async def test_agents_and_users_have_their_own(engine: AsyncEngine) -> None:
    """One user at 80 % says nothing of another."""
    house = await House(engine, budget(per="user")).begin()
    ann, bob = (name(subject=user_subject(user)) for user in ("ann@example.com", "b" * 200))
    await house.charge(ann, 800)
    await house.charge(bob, 100)
    (alert,) = await house.watch.of_counters([ann, bob])
    assert (alert.data["user_id"], alert.subject) == ("ann@example.com", user_subject("ann@example.com"))
    await house.charge(bob, 700)
    assert await house.told(bob) == REACHED
    shared = await house.charge(name(subject="user:-"), 800)
    assert "user_id" not in (await house.watch.of_counters([shared]))[0].data


async def test_agents_budgets_name_the_agent(engine: AsyncEngine) -> None:
    house = await House(engine, budget(per="agent")).begin()
    scout = await house.charge(name(subject="agent:scout"), 800)
    (alert,) = await house.watch.of_counters([scout])
    assert alert.data["agent_id"] == "scout"


async def test_grants_count_on_both_sides(house: House) -> None:
    """The grant burns first: the plan's own counter stands still, and 80 % of both together is meant."""
    pack = await house.grant("pack", 1000)
    await house.charge(pack, 1000)
    await house.charge(name(), 500)
    assert await house.told(pack, name()) == []
    await house.charge(name(), 100)
    (alert,) = await house.watch.of_counters([name()])
    assert {key: alert.data[key] for key in ("limit", "granted", "used")} == {
        "limit": 1000,
        "granted": 1000,
        "used": 1600,
    }
    assert await house.told(pack) == REACHED


async def test_what_was_carried_over_counts(engine: AsyncEngine) -> None:
    """Redis has worked it out; a budget without rollover asks it nothing."""
    house = await House(engine, budget(rollover_max=500)).begin()
    house.carried[name()] = 500
    await house.charge(name(), 1100)
    assert await house.told(name()) == []
    await house.charge(name(), 100)
    assert await house.told(name()) == REACHED


async def test_overrides_and_a_scheduled_plan_are_what_counts(house: House) -> None:
    """The limit is that which the gate enforces for this customer."""
    await house.charge(name(), 900)
    await house.change(overrides={"budgets": {"b": {"meter": "tokens", "limit": 2000}}})
    assert await house.told(name()) == []
    await house.change(overrides={})
    assert await house.told(name()) == REACHED
    await house.change(scheduled_plan="gone", scheduled_at=NOW - DAY)
    assert await house.told(name()) == []


async def test_a_denial_looks_at_budgets_that_nobody_could_use(engine: AsyncEngine) -> None:
    """Of a limit of nothing, or one that was lowered below what is used, no usage can tell."""
    house = await House(engine, budget(limit=0), Budget("c", "requests", 10, "lifetime")).begin()
    found = await house.watch.of_denied([("acme", "scout"), ("", ""), ("nobody", "x")])
    assert [(alert.type, alert.budget_id) for alert in found] == [("budget.exhausted", "b")]


async def test_a_denial_alone_exhausts_nothing(house: House) -> None:
    """One request that was too large for what is left is no end of the budget."""
    await house.charge(name(), 500)
    assert await house.watch.of_denied([("acme", "scout")]) == []


async def test_a_renewal_is_of_the_present_window(house: House) -> None:
    """And only of a budget that the customer still has."""
    before = Renewing("acme", "customer", "b", micros(ANCHOR))
    same = Renewing("acme", "customer", "b", micros(ANCHOR + timedelta(days=30)))
    gone = Renewing("acme", "customer", "gone", micros(ANCHOR))
    nobody = Renewing("nobody", "customer", "b", micros(ANCHOR))
    (alert,) = await house.watch.renewals([before, same, gone, nobody])
    assert (alert.type, alert.window_start_us) == ("budget.renewed", same.window_start_us)
    assert alert.data["used"] == 0
