"""What a customer is given, or what is taken from it, acts on the very next request, on every worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from gatehouse import House, budgets, of_every_worker, open_house, plan, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS = {
    "wide": plan("wide", [("requests", 1000)]),
    "small": plan("small", [("requests", 1)]),
    "spent": plan("spent", [("requests", 0)]),
    "narrow": plan("narrow", [("requests", 1000)], models='["large"]'),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("terms"), PLANS, workers=2) as opened:
        yield opened


async def test_an_override_acts_and_its_absence_too(house: House) -> None:
    """A limit of its own, a model that the plan has not, and then the plan again."""
    gate = house.gate
    secret = await gate.customer("overridden", "narrow")
    assert await of_every_worker(gate, secret) == {403}
    path = "/customers/overridden/entitlements"
    shown = await gate.admin("PUT", path, {"models": ["*"]}, expect=200)
    assert shown["overrides"] == {"models": ["*"]}
    assert len(shown["models"]) > 1
    assert await of_every_worker(gate, secret) == {200}
    (budget,) = shown["budgets"]
    await gate.admin("PUT", path, {"models": ["*"], "budgets": {budget["budget_id"]: {"limit": 1}}}, expect=200)
    assert await of_every_worker(gate, secret) == {402}
    own = {"models": ["*"], "budgets": {budget["budget_id"]: None, "own": {"meter": "requests", "limit": 500}}}
    shown = await gate.admin("PUT", path, own, expect=200)
    assert [(each["budget_id"], each["limit"]) for each in shown["budgets"]] == [("own", 500)]
    assert await of_every_worker(gate, secret) == {200}
    await gate.admin("PUT", path, {}, expect=200)
    assert await of_every_worker(gate, secret) == {403}


async def test_a_grant_is_burnt_at_once_and_a_voided_one_no_more(house: House) -> None:
    """A top-up on a plan that is spent; what was used of it stays used, and the rest stops."""
    gate = house.gate
    secret = await gate.customer("granted", "spent")
    assert await of_every_worker(gate, secret) == {402}
    grant = await gate.admin("POST", "/customers/granted/grants", {"meter": "requests", "amount": 500}, expect=201)
    assert await of_every_worker(gate, secret) == {200}

    async def burnt() -> dict[str, int] | None:
        shown = await gate.admin("GET", f"/customers/granted/grants/{grant['id']}")
        (balance,) = shown["balances"]
        return balance if balance["held"] == 0 and balance["used"] else None

    balance = await until(burnt)
    assert balance["used"] + balance["remaining"] == 500
    voided = await gate.admin("POST", f"/customers/granted/grants/{grant['id']}/void", expect=200)
    assert voided["status"] == "voided"
    assert await of_every_worker(gate, secret) == {402}


async def test_an_upgrade_carries_what_was_used(house: House) -> None:
    """Counters are not named by the plan: one request more than was used fits, not a whole limit more."""
    gate = house.gate
    secret = await gate.customer("upgraded", "small")
    assert (await gate.chat(secret)).status == 200
    assert await of_every_worker(gate, secret) == {402}
    await gate.admin("PUT", "/customers/upgraded/subscription", {"plan": "wide"}, expect=200)
    assert await of_every_worker(gate, secret) == {200}
    used = next(iter((await budgets(gate, "upgraded")).values()))["used"]
    assert used > 1
    await gate.admin("PUT", "/customers/upgraded/subscription", {"plan": "wide", "usage": "reset"}, expect=200)
    assert next(iter((await budgets(gate, "upgraded")).values()))["used"] == 0


async def test_a_scheduled_downgrade_acts_at_its_moment(house: House) -> None:
    """The period ends in two seconds: until then the old plan, from then on the new one, on both workers."""
    gate = house.gate
    secret = await gate.customer("downgraded", "wide")
    ends = datetime.now(UTC) + timedelta(seconds=3)
    month_ago = _a_month_before(ends)
    path = "/customers/downgraded/subscription"
    await gate.admin("PUT", path, {"anchor": month_ago.isoformat()}, expect=200)
    scheduled = (await gate.admin("PUT", path, {"plan": "narrow", "when": "period_end"}, expect=200))["scheduled"]
    assert datetime.fromisoformat(scheduled["at"]) == ends
    assert await of_every_worker(gate, secret) == {200}
    await asyncio.sleep((ends - datetime.now(UTC)).total_seconds() + 0.02)
    assert await of_every_worker(gate, secret) == {403}

    async def applied() -> bool:
        shown = await gate.admin("GET", path)
        return bool(shown["plan"] == "narrow" and shown["scheduled"] is None)

    await until(applied)
    assert await of_every_worker(gate, secret) == {403}


async def test_a_canceled_subscription_is_the_default_plan(house: House) -> None:
    """The customer is not shut out: it is on what anybody has."""
    gate = house.gate
    await gate.customer("canceled", "wide")
    ended = await gate.admin("DELETE", "/customers/canceled/subscription", expect=200)
    shown = await gate.admin("GET", "/customers/canceled/entitlements")
    assert (ended["subscribed"], shown["plan"]) == (False, ended["plan"])


def _a_month_before(moment: datetime) -> datetime:
    """An anchor of which a month begins at `moment`: four years earlier there was that day too."""
    return moment.replace(year=moment.year - 4)
