"""Rolling holds on a served gate: a budget runs out in the middle of a stream, and by how much it is overshot.

The figures of docs/reference/rolling-holds.md are this file's; `FAREGATE_MEASURE=1` prints them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 700
# 44 characters, "user", and 32 for the template.
MESSAGES = [{"role": "user", "content": "x" * 44}]
INPUT_BOUND = 80

# Words of at most three letters: where each event brings one token of four bytes, what is observed is exact.
SHORT = "one two six ten"

ROLLING = 'hold = "rolling"'
PLANS = {
    "rolling": plan("rolling", [("tokens", LIMIT), ("cost_usd", "10"), ("requests", 100)], more=ROLLING),
    "money": plan("money", [("cost_usd", "0.0003")], more=ROLLING),
    "crowd": plan("crowd", [("tokens", 4_000)], more=ROLLING),
}

# At most this many tokens of output beyond what was held. At a pace it is what comes in during a round trip.
OVERSHOOT_AT_A_PACE = 8
# A flood comes in by one read, 256 KiB, and what may wait before it, 128 KiB; an event has 180 bytes or more.
OVERSHOOT_SEEN_IN_A_FLOOD = 384 * 1024 // 180


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("rolling"), PLANS) as opened:
        yield opened


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that ended as a stream should."""
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""], body[-200:]
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]


def finishes(chunks: list[dict[str, Any]]) -> list[str]:
    found = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert not any(found[:-1]), "one ending, and the last"
    return [reason for reason in found if reason]


def measured(what: str, tokens: int) -> None:
    if os.environ.get("FAREGATE_MEASURE"):
        print(f"\n{what}: {tokens} tokens beyond what was held")


@pytest.mark.parametrize("usage_asked", [True, False])
async def test_a_budget_that_runs_out_ends_the_stream_cleanly(house: House, usage_asked: bool) -> None:
    """The client gets what the budget allows and a reason that it knows; the books are exact about it."""
    gate, upstream = house.gate, house.upstream
    customer = f"ends-{usage_asked}".lower()
    secret = await gate.customer(customer, "rolling")
    upstream.forget()
    upstream.script(Script(text=SHORT, output_tokens=4_000, chunk_delay_s=0.001))
    asking = {"stream_options": {"include_usage": True}} if usage_asked else {}
    answer = await gate.chat(secret, messages=MESSAGES, max_tokens=4_000, stream=True, **asking)
    assert answer.status == 200
    chunks = chunks_of(answer.body)
    usage = chunks.pop()["usage"] if usage_asked else None
    assert finishes(chunks) == ["length"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert upstream.calls[0].output_limit == 4_000, "the limit of the whole is sent, or it could not go on"

    delivered = sum(bool(choice["delta"].get("content")) for chunk in chunks for choice in chunk["choices"])
    now = await nothing_held(gate, customer)
    [event] = await gate.events(1, customer_id=customer)
    assert (event["status"], event["error_type"]) == ("succeeded", "budget_spent")
    assert (event["usage_source"], event["billable"]) == ("estimated", True)
    assert event["output_tokens"] >= delivered
    assert now["tokens"]["used"] == event["input_tokens"] + event["output_tokens"]
    assert {held["budget_id"]: held["amount"] for held in event["held"]}["tokens"] == LIMIT, "to the last token"
    if usage is not None:
        assert usage["completion_tokens"] == event["output_tokens"]
    held = LIMIT - INPUT_BOUND
    assert delivered >= held, "what was left of the budget was of use"
    over = upstream.calls[0].output_tokens - held
    measured("about 800 tokens a second", over)
    assert over <= OVERSHOOT_AT_A_PACE
    assert now["tokens"]["used"] <= LIMIT + OVERSHOOT_AT_A_PACE
    await assert_sound(gate)


async def test_a_flood_is_overshot_by_what_is_under_way_and_no_more(house: House) -> None:
    """The worst that there is: an upstream on the same machine that writes as fast as it can."""
    gate, upstream = house.gate, house.upstream
    worst = 0
    for n in range(5):
        secret = await gate.customer(f"flood-{n}", "rolling")
        upstream.forget()
        upstream.script(Script(text=SHORT, output_tokens=4_000))
        answer = await gate.chat(secret, messages=MESSAGES, max_tokens=4_000, stream=True)
        assert finishes(chunks_of(answer.body)) == ["length"]
        [event] = await gate.events(1, customer_id=f"flood-{n}")
        worst = max(worst, event["output_tokens"] - (LIMIT - INPUT_BOUND))
        measured("a flood, seen by the gate", event["output_tokens"] - (LIMIT - INPUT_BOUND))
        measured("a flood, written by the upstream", upstream.calls[0].output_tokens - (LIMIT - INPUT_BOUND))
    assert worst <= OVERSHOOT_SEEN_IN_A_FLOOD
    await assert_sound(gate)


async def test_a_stream_within_its_budget_is_none_the_worse(house: House) -> None:
    """It is topped up on the way, and settled by its provider's own figures."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("within", "rolling")
    upstream.forget()
    upstream.script(Script(text=SHORT, output_tokens=500, chunk_delay_s=0.0005))
    answer = await gate.chat(secret, messages=MESSAGES, max_tokens=600, stream=True)
    assert finishes(chunks_of(answer.body)) == ["stop"]
    [event] = await gate.events(1, customer_id="within")
    assert (event["usage_source"], event["output_tokens"], event["error_type"]) == ("provider", 500, None)
    assert {held["budget_id"]: held["amount"] for held in event["held"]}["tokens"] == INPUT_BOUND + 600
    assert (await nothing_held(gate, "within"))["tokens"]["used"] == 501
    await assert_sound(gate)


async def test_a_plain_call_of_such_a_plan_is_strict(house: House) -> None:
    """Nothing can be observed of it, so all of it is held or it is refused."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("plain", "rolling")
    upstream.forget()
    assert (await gate.chat(secret, messages=MESSAGES, max_tokens=LIMIT - INPUT_BOUND + 1)).status == 402
    assert upstream.calls == []
    assert (await gate.chat(secret, messages=MESSAGES, max_tokens=LIMIT - INPUT_BOUND)).status == 200


async def test_money_runs_out_like_tokens(house: House) -> None:
    """0.0003 USD less the input's bound are 480 tokens of output."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("money", "money")
    upstream.forget()
    upstream.script(Script(text=SHORT, output_tokens=4_000, chunk_delay_s=0.001))
    answer = await gate.chat(secret, messages=MESSAGES, max_tokens=4_000, stream=True)
    assert finishes(chunks_of(answer.body)) == ["length"]
    [event] = await gate.events(1, customer_id="money")
    assert 480 <= event["output_tokens"] <= 480 + OVERSHOOT_AT_A_PACE
    await assert_sound(gate)


async def test_many_streams_share_what_a_strict_plan_would_give_to_none(house: House) -> None:
    """The worst case of each would be more than the whole budget; together they use it up, and no more."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("crowd", "crowd")
    upstream.forget()
    upstream.script(Script(text=SHORT, output_tokens=4_000, chunk_delay_s=0.002, times=8))
    answers = await asyncio.gather(
        *(gate.chat(secret, messages=MESSAGES, max_tokens=4_000, stream=True) for _ in range(8))
    )
    assert [answer.status for answer in answers] == [200] * 8
    assert {reason for answer in answers for reason in finishes(chunks_of(answer.body))} == {"length"}
    now = await nothing_held(gate, "crowd")
    await gate.events(8, customer_id="crowd")
    over = now["tokens"]["used"] - 4_000
    measured("eight streams of about 400 tokens a second each on one budget", over)
    assert -8 * INPUT_BOUND <= over <= 8 * OVERSHOOT_AT_A_PACE, (
        "all of it is of use but what the inputs may have been"
    )
    await assert_sound(gate)
