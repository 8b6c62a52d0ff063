"""Obedience: what an admin has changed acts on the very next request, on every worker.

A revocation that takes a minute is a minute of somebody else's bill. Each change here is first preceded by calls
on both workers, so that both have something remembered that must not count any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from gatehouse import (
    House,
    afresh,
    apply_plan,
    assert_sound,
    budgets,
    health,
    logged,
    of_every_worker,
    open_house,
    plan,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS = {
    "wide": plan("wide", [("requests", 1000)]),
    "narrow": plan("narrow", [("requests", 1000)], models='["large"]'),
    "edited": plan("edited", [("requests", 1000)]),
    "mended": plan("mended", [("requests", 1000)]),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("obedience"), PLANS, workers=2) as opened:
        yield opened


async def _new_secret(house: House, customer: str, **body: object) -> dict[str, str]:
    made: dict[str, str] = await house.gate.admin("POST", f"/agents/{customer}-agent/secrets", body)
    return made


async def test_a_revoked_secret_is_refused_and_its_successor_is_not(house: House) -> None:
    """The order of a rotation: a second secret overlaps the first, then the first goes."""
    gate = house.gate
    first = await gate.customer("rotating", "wide")
    second = (await _new_secret(house, "rotating"))["secret"]
    assert await of_every_worker(gate, first) == {200}
    assert await of_every_worker(gate, second) == {200}
    listed = (await gate.admin("GET", "/agents/rotating-agent/secrets"))["data"]
    first_id = next(each["id"] for each in listed if each["id"] in first)
    await gate.admin("DELETE", f"/agents/rotating-agent/secrets/{first_id}", expect=204)
    before = len(house.upstream.calls)
    assert await of_every_worker(gate, first) == {401}
    assert len(house.upstream.calls) == before
    assert await of_every_worker(gate, second) == {200}


async def test_an_expired_secret_is_refused_from_that_moment_on(house: House) -> None:
    """`expires_at` is kept by Redis's clock inside the admission, not by a worker's memory."""
    gate = house.gate
    await gate.customer("expiring", "wide")
    expires = datetime.now(UTC) + timedelta(seconds=1.2)
    secret = (await _new_secret(house, "expiring", expires_at=expires.isoformat()))["secret"]
    assert await of_every_worker(gate, secret) == {200}
    await asyncio.sleep((expires - datetime.now(UTC)).total_seconds() + 0.01)
    assert await of_every_worker(gate, secret) == {401}


async def test_a_suspended_customer_is_refused_and_a_resumed_one_served(house: House) -> None:
    """Whoever does not pay stops costing money now, and whoever has paid is served now."""
    gate = house.gate
    secret = await gate.customer("suspended", "wide")
    assert await of_every_worker(gate, secret) == {200}
    await gate.admin("PATCH", "/customers/suspended", {"status": "suspended"})
    before = len(house.upstream.calls)
    [refused] = await afresh(gate, secret)
    assert refused.json()["error"]["code"] == "account_suspended"
    assert await of_every_worker(gate, secret) == {403}
    # Also where the request would be refused for another reason: the account comes first.
    assert await of_every_worker(gate, secret, model="no-such") == {403}
    assert len(house.upstream.calls) == before
    await gate.admin("PATCH", "/customers/suspended", {"status": "active"})
    assert await of_every_worker(gate, secret) == {200}


async def test_a_swapped_plan_governs_the_next_request_and_keeps_what_was_used(house: House) -> None:
    """Counters belong to the customer, not to the plan: a change of plan is no fresh start."""
    gate = house.gate
    secret = await gate.customer("swapped", "wide")
    assert await of_every_worker(gate, secret) == {200}
    used = (await budgets(gate, "swapped"))["requests"]["used"]
    await gate.admin("PUT", "/customers/swapped/subscription", {"plan": "narrow"})
    assert await of_every_worker(gate, secret) == {403}
    assert await of_every_worker(gate, secret, model="large") == {200}
    assert (await budgets(gate, "swapped"))["requests"]["used"] == 2 * used
    await gate.admin("PUT", "/customers/swapped/subscription", {"plan": "wide"})
    assert await of_every_worker(gate, secret) == {200}


async def test_an_edited_plan_file_is_live_on_every_worker(house: House) -> None:
    """No deploy for a limit: within a second of the edit, and whole."""
    gate = house.gate
    secret = await gate.customer("edited", "edited")
    assert await of_every_worker(gate, secret) == {200}
    used = (await budgets(gate, "edited"))["requests"]["used"]
    began = asyncio.get_running_loop().time()
    await apply_plan(gate, "edited", plan("edited", [("requests", used)]))
    assert asyncio.get_running_loop().time() - began < 1.0
    assert await of_every_worker(gate, secret) == {402}
    await apply_plan(gate, "edited", plan("edited", [("requests", used + 1000)]))
    assert await of_every_worker(gate, secret) == {200}
    await apply_plan(gate, "edited", plan("edited", [("requests", 1)], models="[]"))
    assert await of_every_worker(gate, secret) == {403}


async def test_a_bad_edit_changes_nothing_and_is_said_where_it_is_seen(house: House) -> None:
    """A typing error in a file must not take customers down, and must not be silent either."""
    gate = house.gate
    secret = await gate.customer("mended", "mended")
    assert await of_every_worker(gate, secret) == {200}
    gate.write_plan("mended", plan("mended", [("requests", 1)]).replace("limit", "limt"))

    async def told() -> bool:
        return not (await health(gate))["ok"]

    await until(told, 5)
    [check] = [each for each in (await health(gate))["checks"] if not each["ok"]]
    assert check["id"] == "policies"
    assert "mended.toml" in str(check["seen"])
    assert "limit" in str(check["seen"])
    assert any("mended.toml" in str(line) for line in logged(gate, "policy.refused"))
    assert await of_every_worker(gate, secret) == {200}
    await apply_plan(gate, "mended", plan("mended", [("requests", 1)]))
    assert (await health(gate))["ok"]
    assert await of_every_worker(gate, secret) == {402}
    await assert_sound(gate)
