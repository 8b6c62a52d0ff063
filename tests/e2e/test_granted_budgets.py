"""Grants, overage, shadow mode and budgets per user on a served gate, from the admin's call to the usage event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, budgets, open_house, plan, until

from proxy.demo.scripts import Script, chat_usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS = {
    "granted": plan("granted", [("tokens", 100)]),
    "shadowed": plan("shadowed", [("tokens", 100)], more='mode = "shadow"\nrequire_user = true'),
    "soft": plan("soft", [("tokens", 100)]).replace("limit = 100", "limit = 100\nhard = false"),
    "people": plan("people", [("tokens", 100)], more="require_user = true").replace(
        "limit = 100", 'limit = 100\nper = "user"\nusers_max = 2'
    ),
}
# 44 characters, "user", and 32 for the template: with 20 tokens of output a bound of exactly 100.
MESSAGES = [{"role": "user", "content": "x" * 44}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("grants"), PLANS) as opened:
        yield opened


async def call(house: House, secret: str, used: int, **fields: Any) -> Any:
    house.upstream.forget()
    house.upstream.script(Script(usage=chat_usage(used - 1, 1)))
    return await house.gate.chat(secret, messages=MESSAGES, max_tokens=fields.pop("max_tokens", 20), **fields)


async def test_a_grant_that_was_bought_pays_from_the_next_request_on_and_is_named_on_the_receipt(
    house: House,
) -> None:
    """The top-up on top of a subscription that everybody asks for."""
    secret = await house.gate.customer("buyer", "granted")
    grant = {"id": "pack", "meter": "tokens", "amount": 60, "priority": 1, "reason": "bought"}
    await house.gate.admin("POST", "/customers/buyer/grants", grant, 201)
    assert (await call(house, secret, 90)).status == 200
    [event] = await house.gate.events(1, customer_id="buyer")
    assert {(row["grant_id"], row["amount"]) for row in event["charged"]} == {("pack", 60), (None, 30)}
    assert {(row["grant_id"], row["amount"]) for row in event["held"]} == {("pack", 60), (None, 40)}
    left = (await budgets(house.gate, "buyer"))["tokens"]
    assert (left["limit"], left["granted"], left["used"], left["remaining"]) == (100, 60, 90, 70)
    refused = await call(house, secret, 90)
    assert refused.status == 402
    told = refused.json()["error"]["budget"]
    assert (told["limit"], told["used"]) == (160, 90)
    await assert_sound(house.gate)


async def test_a_grant_that_is_voided_pays_no_more(house: House) -> None:
    secret = await house.gate.customer("voided", "granted")
    grant = {"id": "gone", "meter": "tokens", "amount": 60, "priority": 1, "reason": "bought"}
    await house.gate.admin("POST", "/customers/voided/grants", grant, 201)
    assert (await call(house, secret, 50)).status == 200
    await house.gate.admin("POST", "/customers/voided/grants/gone/void", {})
    left = (await budgets(house.gate, "voided"))["tokens"]
    assert (left["granted"], left["used"], left["remaining"]) == (0, 0, 100)


async def test_shadow_mode_records_what_it_would_have_refused(house: House) -> None:
    """How adopters start: nothing is refused, and the denials say what would have been."""
    secret = await house.gate.customer("adopter", "shadowed")
    for user in ({"user": "u"}, {"user": "u"}, {}):
        assert (await call(house, secret, 90, **user)).status == 200
    left = (await budgets(house.gate, "adopter"))["tokens"]
    assert (left["used"], left["remaining"], left["overage"]) == (270, 0, 170)

    async def recorded() -> bool:
        rows = (await house.gate.admin("GET", "/denials?customer_id=adopter"))["data"]
        return {(row["reason"], row["shadow"]) for row in rows} == {("budget", True), ("bad_request", True)}

    assert await until(recorded)
    await assert_sound(house.gate)


async def test_a_soft_budget_counts_what_goes_beyond(house: House) -> None:
    secret = await house.gate.customer("soft", "soft")
    for _ in range(3):
        assert (await call(house, secret, 90)).status == 200
    left = (await budgets(house.gate, "soft"))["tokens"]
    assert (left["used"], left["remaining"], left["overage"]) == (270, 0, 170)
    await assert_sound(house.gate)


async def test_each_user_has_a_budget_and_those_beyond_the_bound_share_one(house: House) -> None:
    """Inventing users mints nothing; a call that names none is told to."""
    secret = await house.gate.customer("people", "people")
    nobody = await call(house, secret, 90)
    assert (nobody.status, nobody.json()["error"]["code"]) == (400, "user_required")
    answers = [(await call(house, secret, 90, user=user)).status for user in ("ann", "ben", "cid", "dan", "ann")]
    assert answers == [200, 200, 200, 402, 402]
    events = await house.gate.events(3, customer_id="people")
    assert {event["user_id"] for event in events} == {"ann", "ben", "cid"}
    await assert_sound(house.gate)
