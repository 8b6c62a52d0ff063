"""Races: whoever comes at the same moment, through whichever worker, a budget that holds 100 admits exactly 100.

This is the product's first promise (zero overshoot), so it is tried as customers would break it: from several
client processes, through several workers, with every answer held back until every request is decided.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest
import pytest_asyncio
from crowd import Crowd, Shot
from gatehouse import House, apply_plan, assert_sound, budgets, ledger_sums, open_house, plan, processes_of, until

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = int(os.environ.get("FAREGATE_RACE_ROUNDS", "20"))
FITTING = 100
ASKING = 300
CLIENTS = 4
PROBES = {
    "probe-tokens": plan("probe-tokens", [("tokens", 1)]),
    "probe-cost": plan("probe-cost", [("cost_usd", "0.000001")]),
    "three": plan("three", [("requests", 3)]),
}
KINDS = {
    "tokens": ("tokens",),
    "requests": ("requests",),
    "cost_usd": ("cost_usd",),
    "all": ("tokens", "requests", "cost_usd"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("races"), PROBES, workers=2) as opened:
        await _write_exact_plans(opened)
        yield opened
        opened.upstream.release()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd() -> AsyncIterator[Crowd]:
    async with Crowd.of(CLIENTS) as clients:
        yield clients


@pytest.fixture
def dice() -> random.Random:
    seed = random.randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


def body(words: int) -> dict[str, Any]:
    """Requests of one and the same bound, though the provider counts a different number of tokens in each."""
    text = ["x"] * 40
    for at in range(1, words):
        text[2 * at] = " "
    return {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": "".join(text)}]}


async def _write_exact_plans(house: House) -> None:
    """Plans whose every budget holds exactly 100 of these requests: a refused one says what it asked."""
    asked = {}
    for meter, probe in (("tokens", "probe-tokens"), ("cost_usd", "probe-cost")):
        refused = await house.gate.chat(await house.gate.customer(probe, probe), **body(1))
        assert refused.status == 402
        asked[meter] = refused.json()["error"]["budget"]["asked"]
    limits = {
        "tokens": asked["tokens"] * FITTING,
        "requests": FITTING,
        "cost_usd": str(Decimal(asked["cost_usd"]) * FITTING),
    }
    for kind, meters in KINDS.items():
        await apply_plan(house.gate, kind, plan(kind, [(meter, limits[meter]) for meter in meters]))


@pytest.mark.parametrize("kind", KINDS)
async def test_of_300_at_once_exactly_the_100_that_fit_reach_the_upstream(
    house: House, crowd: Crowd, dice: random.Random, kind: str
) -> None:
    """Overshoot by one request is a broken promise, and a hundred at once is how it would come about."""
    names = [f"{kind}-{number}" for number in range(ROUNDS)]
    secrets = dict(zip(names, await asyncio.gather(*(house.gate.customer(n, kind) for n in names)), strict=True))
    used: dict[str, Counter[str]] = {}
    admitted: set[str] = set()
    for name in names:
        used[name] = await _round(house, crowd, dice, name, secrets[name])
        admitted.update(crowd.ids[200])
    assert set((await processes_of(house.gate, admitted)).values()) == {"worker 1", "worker 2"}
    for name in names:
        await _assert_recorded(house, name, used[name])
    await assert_sound(house.gate)


async def _round(house: House, crowd: Crowd, dice: random.Random, customer: str, secret: str) -> Counter[str]:
    """One race; returns what the upstream itself counted."""
    gate, upstream = house.gate, house.upstream
    upstream.forget()
    upstream.hold()
    for _ in range(FITTING):
        upstream.script(Script(output_tokens=dice.randint(1, 25)))
    shots: list[Shot] = [(secret, body(dice.randint(1, 18))) for _ in range(ASKING)]
    crowd.fire(f"{gate.url}/v1/chat/completions", shots)
    await asyncio.gather(house.arrived(FITTING), crowd.answered(402, count=ASKING - FITTING))
    assert (len(upstream.calls), dict(crowd.statuses)) == (FITTING, {402: ASKING - FITTING})
    for meter, budget in (await budgets(gate, customer)).items():
        assert Decimal(str(budget["held"])) == Decimal(str(budget["limit"])), meter
    upstream.release()
    await crowd.answered(200, count=FITTING)
    assert len(upstream.calls) == FITTING
    counted = _counted(house)
    for meter, budget in (await budgets(gate, customer)).items():
        assert Decimal(str(budget["held"])) == 0, meter
        assert _units(meter, budget["used"]) == counted[meter], meter
    return counted


def _counted(house: House) -> Counter[str]:
    counted: Counter[str] = Counter(requests=len(house.upstream.calls))
    for call in house.upstream.calls:
        counted["input_tokens"] += call.input_tokens
        counted["output_tokens"] += call.output_tokens
        counted["tokens"] += call.input_tokens + call.output_tokens
        # 0.15 and 0.60 USD per million tokens, each call rounded up to the microdollar.
        micro_usd = Decimal("0.15") * call.input_tokens + Decimal("0.60") * call.output_tokens
        counted["cost_usd"] += int(micro_usd.to_integral_value(ROUND_CEILING))
        counted["exact_nano_usd"] += int(micro_usd * 1000)
    return counted


def _units(meter: str, amount: Any) -> int:
    return int(Decimal(amount) * 1_000_000) if meter == "cost_usd" else int(amount)


async def _assert_recorded(house: House, customer: str, counted: Counter[str]) -> None:
    async def recorded() -> dict[str, Any] | None:
        sums = await ledger_sums(house.gate, customer)
        return sums if sums["attempts"] >= FITTING else None

    sums = await until(recorded)
    assert (sums["attempts"], sums["requests"]) == (FITTING, FITTING)
    assert (sums["input_tokens"], sums["output_tokens"]) == (counted["input_tokens"], counted["output_tokens"])
    assert Decimal(sums["cost_usd"]) == Decimal(counted["exact_nano_usd"]) / 10**9
    events = await house.gate.events(FITTING, customer_id=customer)
    charged: Counter[str] = Counter()
    for event in events:
        for charge in event["charged"]:
            charged[charge["budget_id"]] += charge["amount"]
    assert charged == {meter: counted[meter] for meter in charged}
    assert charged


async def test_first_requests_of_never_seen_customers_are_governed_like_any_other(
    house: House, crowd: Crowd
) -> None:
    """A cold cache is no excuse: neither worker has heard of any of these customers when all call at once."""
    gate, upstream = house.gate, house.upstream
    upstream.forget()
    names = [f"never-seen-{number}" for number in range(30)]
    secrets = await asyncio.gather(*(gate.customer(name, "three") for name in names))
    shots: list[Shot] = [(secret, body(3)) for _ in range(10) for secret in secrets]
    crowd.fire(f"{gate.url}/v1/chat/completions", shots)
    await crowd.answered(200, 402, count=len(shots))
    assert dict(crowd.statuses) == {200: 3 * len(names), 402: 7 * len(names)}
    assert len(upstream.calls) == 3 * len(names)
    for name in names:
        assert (await budgets(gate, name))["requests"]["used"] == 3, name
        await gate.events(3, customer_id=name)
    await assert_sound(gate)
