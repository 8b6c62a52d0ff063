"""A budget almost spent: what does not fit is refused before a token is bought, and says what would fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, budgets, open_house, plan, until

from proxy.demo.scripts import Script, chat_usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPGRADE = '[denial]\nupgrade_url = "https://example.com/upgrade"\n'
PLANS = {
    "hundred": plan("hundred", [("tokens", 100)]) + UPGRADE,
    "output": plan("output", [("output_tokens", 10)]),
    "cost": plan("cost", [("cost_usd", "0.0001")]),
    "lowered": plan("lowered", [("tokens", 100)], more="min_output_tokens = 8"),
}
# 44 characters, "user", and 32 for the template: with 20 tokens of output a bound of exactly 100.
MESSAGES = [{"role": "user", "content": "x" * 44}]
INPUT_BOUND = 80


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("short"), PLANS) as opened:
        yield opened


async def test_10_tokens_left_refuse_a_request_that_may_use_4096(house: House) -> None:
    """The refusal is whole: an end user reads the message, a client must not retry, and nothing was bought."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("ten", "hundred")
    upstream.forget()
    upstream.script(Script(usage=chat_usage(75, 15)))
    assert (await gate.chat(secret, messages=MESSAGES, max_tokens=20)).status == 200
    assert (await budgets(gate, "ten"))["tokens"]["remaining"] == 10
    refused = await gate.chat(secret, messages=MESSAGES, max_tokens=4096)
    assert len(upstream.calls) == 1
    assert refused.status == 402
    assert refused.headers["x-should-retry"] == "false"
    assert not {name.lower() for name in refused.headers} & {"retry-after", "x-ratelimit-reset-tokens"}
    error = refused.json()["error"]
    resets_at = error["budget"].pop("resets_at")
    assert error["budget"] == {
        "meter": "tokens",
        "per": "customer",
        "limit": 100,
        "used": 90,
        "held": 0,
        "asked": INPUT_BOUND + 4096,
        "can_afford": 0,
        "upgrade_url": "https://example.com/upgrade",
    }
    assert resets_at == (await budgets(gate, "ten"))["tokens"]["resets_at"]
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "insufficient_quota", None)
    assert error["message"].startswith("You have used 90 of the 100 tokens in your Hundred plan.")
    assert (await budgets(gate, "ten"))["tokens"]["held"] == 0
    await gate.events(1, customer_id="ten")
    await assert_sound(gate)


@pytest.mark.parametrize("name", ["hundred", "output", "cost"])
async def test_what_can_be_afforded_passes_and_one_token_more_does_not(house: House, name: str) -> None:
    """`can_afford` is a promise to whoever asks again with it."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer(f"afford-{name}", name)
    upstream.forget()
    refused = await gate.chat(secret, messages=MESSAGES, max_tokens=4096)
    assert refused.status == 402
    affordable = refused.json()["error"]["budget"]["can_afford"]
    assert affordable > 0
    assert (await gate.chat(secret, messages=MESSAGES, max_tokens=affordable + 1)).status == 402
    assert upstream.calls == []
    assert (await gate.chat(secret, messages=MESSAGES, max_tokens=affordable)).status == 200
    assert upstream.calls[0].output_limit == affordable


async def test_a_client_without_a_limit_of_its_own_gets_what_is_affordable(house: House) -> None:
    """The lowered bound is sent upstream, else the model could write more than is held."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("lowered", "lowered")
    upstream.forget()
    assert (await gate.chat(secret, messages=MESSAGES)).status == 200
    assert upstream.calls[0].output_limit == 20
    # 12 words in, 12 out of 100: 76 are left, fewer than the input alone may be.
    refused = await gate.chat(secret, messages=MESSAGES)
    assert (refused.status, len(upstream.calls)) == (402, 1)
    assert refused.json()["error"]["budget"]["can_afford"] < 8


async def test_denials_are_counted(house: House) -> None:
    """An admin sees who ran out, how often and of what."""
    secret = await house.gate.customer("counted", "output")
    for _ in range(3):
        assert (await house.gate.chat(secret, max_tokens=4096)).status == 402
    rows = await _denials(house, "counted")
    assert sum(row["count"] for row in rows) == 3
    assert {row["reason"] for row in rows} == {"budget"}


async def _denials(house: House, customer: str) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]]:
        return list((await house.gate.admin("GET", f"/denials?customer_id={customer}"))["data"])

    rows: list[dict[str, Any]] = await until(found)
    return rows


async def test_amounts_of_money_are_decimal_texts(house: House) -> None:
    """A float would show an end user 0.30000000000000004 dollars."""
    secret = await house.gate.customer("money", "cost")
    refused = await house.gate.chat(secret, messages=MESSAGES, max_tokens=4096)
    shown = refused.json()["error"]["budget"]
    assert {type(shown[name]) for name in ("limit", "used", "held", "asked")} == {str}
    # 80 × 0.15 + 4096 × 0.60 = 2469.6 microdollars, rounded up.
    assert Decimal(shown["asked"]) == Decimal("0.002470")
