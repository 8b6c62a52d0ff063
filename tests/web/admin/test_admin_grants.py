"""A top-up is given once, on any plan, and says what it raises."""

from __future__ import annotations

from typing import Any

import pytest

PATH = "/customers/acme/grants"


async def test_a_grant_is_given_and_shown_in_its_unit(furnished: Any) -> None:
    """Money is USD as text on the wire, and microdollars inside."""
    made = await furnished.ask(
        "POST", PATH, {"id": "pack", "meter": "cost_usd", "amount": "12.50", "priority": 5, "reason": "sorry"}
    )
    assert made.status == 201
    assert made.json == {
        "id": "pack",
        "customer_id": "acme",
        "meter": "cost_usd",
        "amount": "12.5",
        "per": "customer",
        "budget_id": None,
        "priority": 5,
        "effective_at": "2026-11-20T12:00:00Z",
        "expires_at": None,
        "reason": "sorry",
        "created_at": "2026-11-20T12:00:00Z",
        "voided_at": None,
        "status": "active",
        "balances": None,
    }
    assert furnished.plane.grants.kept["pack"].amount == 12_500_000
    assert (await furnished.ask("POST", PATH, {"id": "pack", "meter": "tokens", "amount": 1})).status == 409


async def test_what_is_left_is_shown_and_is_no_part_of_the_etag(furnished: Any) -> None:
    """Every call changes what is left; an admin's If-Match must not fail for it."""
    made = await furnished.ask("POST", PATH, {"id": "pack", "meter": "tokens", "amount": 10})
    furnished.plane.balances = {"pack": [{"budget_id": "monthly-tokens", "used": 3, "held": 1, "remaining": 6}]}
    shown = await furnished.ask("GET", f"{PATH}/pack")
    assert shown.json["balances"] == furnished.plane.balances["pack"]
    assert shown.headers["ETag"] == made.headers["ETag"]
    assert (await furnished.ask("GET", PATH)).json["data"] == [shown.json]
    furnished.plane.balances = None
    assert (await furnished.ask("GET", f"{PATH}/pack")).json["balances"] is None


async def test_a_grant_is_voided_by_either_way(furnished: Any) -> None:
    """Voided, never deleted: what was burnt of it stays in the record."""
    for id in ("one", "two"):
        await furnished.ask("POST", PATH, {"id": id, "meter": "tokens", "amount": 10})
    voided = await furnished.ask("POST", f"{PATH}/one/void")
    assert (voided.json["status"], voided.json["voided_at"]) == ("voided", "2026-11-20T12:00:00Z")
    assert (await furnished.ask("DELETE", f"{PATH}/two")).status == 204
    assert (await furnished.ask("GET", f"{PATH}?live=true")).json["data"] == []
    assert len((await furnished.ask("GET", PATH)).json["data"]) == 2
    assert (await furnished.ask("DELETE", f"{PATH}/three")).status == 404


async def test_a_grant_for_one_budget_takes_over_whose_it_is(furnished: Any) -> None:
    """The budget says per whom it is; two words for it could only contradict."""
    made = await furnished.ask("POST", PATH, {"meter": "tokens", "amount": 5, "budget_id": "monthly-tokens"})
    assert (made.json["per"], made.json["budget_id"]) == ("customer", "monthly-tokens")


@pytest.mark.parametrize(
    ("changes", "param", "told"),
    [
        ({"meter": "tokns"}, "meter", "Did you mean 'tokens'?"),
        ({"amount": 0}, None, "more than zero"),
        ({"amount": 10**15 + 1}, None, "at most"),
        ({"amount": 1.5}, "amount", "a whole number"),
        ({"amount": True}, "amount", "a whole number"),
        ({"amount": "5"}, None, "whole number, not text"),
        ({"meter": "cost_usd", "amount": "0.0000001"}, None, "finer than"),
        ({"meter": "cost_usd", "amount": "-1"}, None, "zero or more"),
        ({"priority": 0}, "priority", "greater than or equal to 1"),
        ({"priority": 256}, "priority", "less than or equal to 255"),
        ({"expires_at": "2026-11-20T11:00:00Z"}, "expires_at", "later than now"),
        (
            {"effective_at": "2026-12-20T11:00:00Z", "expires_at": "2026-12-01T00:00:00Z"},
            "expires_at",
            "later than now and `effective_at`",
        ),
        ({"budget_id": "monthly-tokns"}, "budget_id", "Did you mean 'monthly-tokens'?"),
        ({"budget_id": "money"}, "meter", "counts cost_usd, not tokens"),
        ({"budget_id": "monthly-tokens", "per": "user"}, "per", "leave `per` out"),
        ({"amont": 5}, "amont", "Did you mean 'amount'?"),
    ],
)
async def test_each_fault_is_told(changes: dict[str, Any], param: str | None, told: str, furnished: Any) -> None:
    """Credit that nothing burns, or a thousandfold of it, is found by the customer."""
    answer = await furnished.ask("POST", PATH, {"meter": "tokens", "amount": 5} | changes)
    assert (answer.status, answer.error["param"]) == (400, param), answer.error
    assert told in answer.error["message"]
    assert furnished.plane.grants.kept == {}


async def test_too_many_grants_are_refused_with_what_to_do(furnished: Any) -> None:
    """The bound is there for every request's sake; an admin who meets it must know the way on."""
    for _ in range(3):
        await furnished.ask("POST", PATH, {"meter": "tokens", "amount": 5})
    answer = await furnished.ask("POST", PATH, {"meter": "tokens", "amount": 5})
    assert (answer.status, answer.error["code"]) == (400, "too_many_grants")
    assert "Void those" in answer.error["message"]
