"""The queue before an upstream that takes few calls at once: order, bounds, and what is written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan, until
from served import ADMIN_TOKEN

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
upstream = "{id}"
max_output_tokens = 4096
context_tokens = 128000
price = {{ input = "1", output = "1" }}
"""
MODELS = "".join(MODEL.format(id=id) for id in ("narrow", "tiny"))
UPSTREAMS = """
[upstreams.narrow]
wire = "openai"
base_url = "{upstream}"
max_concurrency = 2
[upstreams.tiny]
wire = "openai"
base_url = "{upstream}"
max_concurrency = 1
queue_max = 1
queue_timeout_s = 3
"""
METERS = [("tokens", 1_000_000), ("requests", 1_000)]
PLANS = {
    "ordinary": plan("ordinary", METERS),
    "first-class": plan("first-class", METERS, more="features = { priority = true }"),
}
EACH = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("queue")
    async with open_house(folder, PLANS, models=MODELS, more=UPSTREAMS) as house:
        yield house


@pytest.fixture
def house(served: House) -> House:
    served.upstream.forget()
    return served


async def waiting(house: House, upstream: str, count: int) -> None:
    """Waits until so many requests wait there, by the metrics."""
    line = f'faregate_queue_length{{upstream="{upstream}"}} {count}.0'

    async def told() -> bool:
        gate = house.gate
        answer = await gate._ask("GET", f"{gate.admin_url}/metrics", ADMIN_TOKEN, None)
        return line in answer.body.decode()

    await until(told)


class Watch:
    """How many calls an upstream has had at once, by its own count."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.most = self._now = 0
        self._play = upstream._play
        upstream._play = self._watched  # type: ignore[method-assign]

    async def _watched(self, *call: Any) -> Any:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await self._play(*call)
        finally:
            self._now -= 1


async def test_thirty_requests_through_two_slots(house: House) -> None:
    """Never more than two at once; who pays for it goes first, and of the others nobody waits for all of one."""
    gate, upstream = house.gate, house.upstream
    plans = {"alice": "ordinary", "bob": "ordinary", "prime": "first-class"}
    secrets = {id: await gate.customer(id, plan) for id, plan in plans.items()}
    upstream.hold()
    upstream.script(Script(times=0, head_delay_s=0.01))
    watch = Watch(upstream)

    def ask(customer: str) -> asyncio.Future[Any]:
        return asyncio.ensure_future(gate.chat(secrets[customer], model="narrow", max_tokens=50, user=customer))

    running = [ask("alice"), ask("alice")]
    await house.arrived(2)
    others = [ask(customer) for customer in ("alice",) * (EACH - 2) + ("bob",) * EACH + ("prime",) * EACH]
    await waiting(house, "narrow", 3 * EACH - 2)
    assert len(upstream.calls) == 2
    upstream.release()
    answers = await asyncio.gather(*running, *others)
    assert {answer.status for answer in answers} == {200}

    order = [call.body["user"] for call in upstream.calls]
    assert order[: 2 + EACH] == ["alice"] * 2 + ["prime"] * EACH
    assert sorted(order[2 + EACH : 6 + EACH]) == ["alice", "alice", "bob", "bob"]
    events = [event for customer in secrets for event in await gate.events(EACH, customer_id=customer)]
    assert watch.most == 2
    assert sorted(event["queued_ms"] > 0 for event in events) == [False] * 2 + [True] * (3 * EACH - 2)
    assert {event["status"] for event in events} == {"succeeded"}
    for customer in secrets:
        assert (await nothing_held(gate, customer))["requests"]["used"] == EACH
    await assert_sound(gate)
    await waiting(house, "narrow", 0)


async def test_who_waited_too_long_or_finds_no_room_is_told_when_to_come_again(house: House) -> None:
    """And pays nothing; the slot goes on as if they had not been there."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("unlucky", "ordinary")
    upstream.hold()

    def ask() -> asyncio.Future[Any]:
        return asyncio.ensure_future(gate.chat(secret, model="tiny", max_tokens=50))

    running = ask()
    await house.arrived(1)
    late = ask()
    await waiting(house, "tiny", 1)
    for answer in await asyncio.gather(late, ask()):
        assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_saturated")
        assert answer.headers["retry-after"] == "5"
    upstream.release()
    assert (await running).status == 200
    assert (await gate.chat(secret, model="tiny", max_tokens=50)).status == 200
    assert len(upstream.calls) == 2
    events = await gate.events(3, customer_id="unlucky")
    [turned_away] = [event for event in events if event["status"] == "failed"]
    assert (turned_away["error_type"], turned_away["usage_source"]) == ("upstream_saturated", "none")
    # The loop's timers are as fine as its clock, a millisecond.
    assert turned_away["queued_ms"] >= 2999
    assert (await nothing_held(gate, "unlucky"))["requests"]["used"] == 2
    await assert_sound(gate)


async def test_a_client_that_leaves_the_queue_is_never_sent(house: House) -> None:
    """What it would have cost is free again at once, and the place in the queue too."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("leaving", "ordinary")
    upstream.hold()
    running = [asyncio.ensure_future(gate.chat(secret, model="narrow", max_tokens=50)) for _ in range(2)]
    await house.arrived(2)
    leaving = asyncio.ensure_future(gate.chat(secret, model="narrow", max_tokens=50))
    await waiting(house, "narrow", 1)
    leaving.cancel()
    [cancelled] = await gate.events(1, customer_id="leaving")
    assert (cancelled["status"], cancelled["error_type"]) == ("cancelled", "client_gone")
    assert cancelled["queued_ms"] > 0
    upstream.release()
    assert [answer.status for answer in await asyncio.gather(*running)] == [200, 200]
    assert len(upstream.calls) == 2
    await nothing_held(gate, "leaving")
    await assert_sound(gate)


async def test_who_left_has_its_slot_until_its_stream_was_read_to_the_end(
    house: House,
) -> None:
    """The upstream is still at it: another call would be one more than it takes."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("drained", "ordinary")
    upstream.script(Script(output_tokens=15, chunk_delay_s=0.01))
    watch = Watch(upstream)
    leaving = asyncio.ensure_future(gate.chat(secret, model="tiny", max_tokens=50, stream=True))
    await house.arrived(1)
    leaving.cancel()
    assert (await gate.chat(secret, model="tiny", max_tokens=50)).status == 200
    events = await gate.events(2, customer_id="drained")
    assert watch.most == 1
    assert upstream.calls[0].finished
    assert sorted(event["status"] for event in events) == ["cancelled", "succeeded"]
