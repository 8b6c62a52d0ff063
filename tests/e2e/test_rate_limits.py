"""Rate limits: by the minute and at once. A refusal says when to come again, and what was not used comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, open_house, plan, until
from served import Answer

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS = {
    "requests": plan("requests") + "[rate_limits]\nrequests_per_minute = 5\n",
    "tokens": plan("tokens") + "[rate_limits]\ntokens_per_minute = 1000\n",
    "at-once": plan("at-once") + "[rate_limits]\nconcurrent_requests = 3\n",
    "spent": plan("spent", [("requests", 0)]) + "[rate_limits]\nrequests_per_minute = 1\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("rates"), PLANS, workers=2) as opened:
        yield opened
        opened.upstream.release()


def _assert_limited(answer: Answer, kind: str) -> int:
    """The shape of a 429; returns its `Retry-After`."""
    assert answer.status == 429, answer.body
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (kind, "rate_limit_exceeded", None)
    wait_s = int(answer.headers["retry-after"])
    assert 1 <= wait_s <= 60
    return wait_s


async def test_requests_per_minute_hold_across_workers(house: House) -> None:
    """The sixth of five a minute waits, whichever worker it meets; the headers count down to it."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("rpm", "requests")
    upstream.forget()
    left = []
    for _ in range(5):
        answer = await gate.chat(secret, max_tokens=20)
        assert answer.status == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "5"
        left.append(int(answer.headers["x-ratelimit-remaining-requests"]))
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in answer.headers
    assert left == [4, 3, 2, 1, 0]
    # A fifth of the minute brings one back.
    assert 10 <= _assert_limited(await gate.chat(secret, max_tokens=20), "requests") <= 12
    answers = await asyncio.gather(*(gate.chat(secret, max_tokens=20) for _ in range(20)))
    assert {answer.status for answer in answers} == {429}
    assert len(upstream.calls) == 5
    assert (await gate.get("/v1/entitlements", secret)).status == 200


async def test_at_once_through_both_workers_no_more_than_the_minutes_requests_pass(house: House) -> None:
    """A burst is where a limiter of each worker's own would let twice as many through."""
    secret = await house.gate.customer("burst", "requests")
    house.upstream.forget()
    answers = await asyncio.gather(*(house.gate.chat(secret, max_tokens=20) for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 25
    assert len(house.upstream.calls) == 5


async def test_tokens_per_minute_take_the_bound_and_give_the_difference_back(house: House) -> None:
    """Held by its bound a call of 600 tokens shuts the door; settled at 14 it opens again."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("tpm", "tokens")
    upstream.forget()
    upstream.hold()
    first = asyncio.create_task(gate.chat(secret, max_tokens=600))
    await house.arrived(1)
    _assert_limited(await gate.chat(secret, max_tokens=600), "tokens")
    upstream.release()
    answer = await first
    assert answer.status == 200
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 400
    again = await gate.chat(secret, max_tokens=600)
    assert again.status == 200
    # Both used 14 of the 1,000; without the difference returned not even the bound of this one would fit.
    assert (await gate.chat(secret, max_tokens=900)).status == 200


async def test_what_can_never_fit_the_minute_is_no_matter_of_waiting(house: House) -> None:
    """A 429 with Retry-After would be retried for ever."""
    secret = await house.gate.customer("never", "tokens")
    refused = await house.gate.chat(secret, max_tokens=4000)
    assert (refused.status, refused.json()["error"]["code"]) == (400, "request_too_large")
    assert "retry-after" not in refused.headers


async def test_concurrency_is_the_number_of_calls_under_way(house: House) -> None:
    """Whatever ends a call gives its place back: an answer, a failure, or the client's leaving."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("three", "at-once")
    upstream.forget()
    upstream.hold()
    under_way = [asyncio.create_task(gate.chat(secret, max_tokens=20)) for _ in range(3)]
    await house.arrived(3)
    refused = await asyncio.gather(*(gate.chat(secret, max_tokens=20) for _ in range(10)))
    for answer in refused:
        assert _assert_limited(answer, "concurrent_requests") == 1
    assert len(upstream.calls) == 3
    under_way[0].cancel()
    upstream.script(Script(status=500))
    upstream.release()
    ended = await asyncio.gather(*under_way, return_exceptions=True)
    assert sorted(answer.status for answer in ended if isinstance(answer, Answer))[0] == 200

    async def all_free() -> bool:
        answers = await asyncio.gather(*(gate.chat(secret, max_tokens=20) for _ in range(3)))
        return [answer.status for answer in answers] == [200] * 3

    await until(all_free, 5)
    await assert_sound(gate)


async def test_a_spent_budget_is_told_before_a_rate_limit(house: House) -> None:
    """Waiting would not help, so the client must not be told to wait."""
    secret = await house.gate.customer("spent", "spent")
    for _ in range(3):
        refused = await house.gate.chat(secret, max_tokens=20)
        assert refused.status == 402
        assert "retry-after" not in refused.headers
