"""Retries, targets and rests of a whole gate: what the upstreams get to see, and what is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, logged, nothing_held, open_house, plan, until
from served import ADMIN_TOKEN, free_port

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
targets = [{targets}]
max_output_tokens = 4096
context_tokens = 128000
price = {{ input = "1", output = "1" }}
"""


def _model(id: str, *upstreams: str) -> str:
    targets = ", ".join(f'{{ upstream = "{name}", upstream_model = "{id}" }}' for name in upstreams)
    return MODEL.format(id=id, targets=targets)


MODELS = "".join(
    [
        _model("alone", "first"),
        _model("busy", "first"),
        _model("far", "first", "second"),
        _model("pair", "first", "second"),
        _model("dead", "dead", "second"),
        _model("resting", "first", "second"),
        _model("last", "first"),
        _model("impatient", "first"),
    ]
)
PLANS = {"all": plan("all", [("tokens", 1_000_000), ("requests", 1_000)])}


@dataclass(frozen=True)
class Pair:
    """A gate before two upstreams."""

    house: House
    first: ScriptedUpstream
    second: ScriptedUpstream

    async def events(self, customer: str, count: int) -> list[dict[str, Any]]:
        """Of one customer, in the order of the attempts."""
        events = await self.house.gate.events(count, customer_id=customer)
        return sorted(events, key=lambda event: event["id"])

    async def sound(self, customer: str, requests: int) -> None:
        """Nothing is held, nothing counted twice."""
        assert (await nothing_held(self.house.gate, customer))["requests"]["used"] == requests
        await assert_sound(self.house.gate)

    async def told(self, metric: str, *labels: str) -> None:
        """Waits until the metric has been told with each of these labels."""
        gate = self.house.gate

        async def found() -> bool:
            answer = await gate._ask("GET", f"{gate.admin_url}/metrics", ADMIN_TOKEN, None)
            lines = [line for line in answer.body.decode().splitlines() if line.startswith(metric)]
            return all(any(label in line for line in lines) for label in labels)

        await until(found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with ScriptedUpstream() as second:
        upstreams = f"""
[upstreams.first]
wire = "openai"
base_url = "{{upstream}}"
[upstreams.second]
wire = "openai"
base_url = "{second.url}"
[upstreams.dead]
wire = "openai"
base_url = "http://127.0.0.1:{free_port()}/v1"
"""
        folder = tmp_path_factory.mktemp("retries")
        async with open_house(folder, PLANS, models=MODELS, more=upstreams) as house:
            yield Pair(house, house.upstream, second)


@pytest.fixture
def pair(served: Pair) -> Pair:
    served.first.forget()
    served.second.forget()
    return served


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [408, 409, 500, 503, 529])
async def test_a_hiccup_of_the_upstream_is_tried_again(pair: Pair, status: int, streamed: bool) -> None:
    """A client that never retries sees a good answer, and the record says what it took."""
    customer = f"hiccup-{status}-{streamed}"
    secret = await pair.house.gate.customer(customer, "all")
    pair.first.script(Script(status=status))
    answer = await pair.house.gate.chat(secret, model="alone", max_tokens=50, stream=streamed)
    assert (answer.status, answer.headers["faregate-attempts"]) == (200, "2")
    failed, served = await pair.events(customer, 2)
    assert (failed["status"], failed["http_status"], failed["fallback_reason"]) == ("failed", status, None)
    assert (served["status"], served["fallback_from"]) == ("succeeded", None)
    assert served["fallback_reason"] == failed["error_type"]
    assert served["upstream"] == failed["upstream"] == "first"
    await pair.sound(customer, 1)


async def test_a_retry_never_comes_sooner_than_the_upstream_asks(pair: Pair) -> None:
    secret = await pair.house.gate.customer("asked", "all")
    pair.first.script(Script(status=429, headers={"retry-after": "1"}))
    since = time.monotonic()
    assert (await pair.house.gate.chat(secret, model="busy", max_tokens=50)).status == 200
    assert 1.0 <= time.monotonic() - since < 3.0
    await pair.told("faregate_retries_total", 'reason="upstream_rate_limited"')
    await pair.sound("asked", 1)


async def test_a_wait_beyond_the_deadline_is_the_clients_own(pair: Pair) -> None:
    """Its status and Retry-After are passed on at once."""
    secret = await pair.house.gate.customer("told", "all")
    pair.first.script(Script(status=429, headers={"retry-after": "30"}))
    since = time.monotonic()
    answer = await pair.house.gate.chat(secret, model="busy", max_tokens=50)
    assert (answer.status, answer.headers["retry-after"]) == (429, "30")
    assert time.monotonic() - since < 1.0
    assert len(pair.first.calls) == 1
    await pair.sound("told", 0)


async def test_another_target_goes_before_a_long_wait(pair: Pair) -> None:
    secret = await pair.house.gate.customer("elsewhere", "all")
    pair.first.script(Script(status=429, headers={"retry-after": "10"}))
    answer = await pair.house.gate.chat(secret, model="far", max_tokens=50)
    assert (answer.status, len(pair.first.calls), len(pair.second.calls)) == (200, 1, 1)
    _, served = await pair.events("elsewhere", 2)
    assert (served["upstream"], served["model_served"]) == ("second", "far")
    assert (served["fallback_from"], served["fallback_reason"]) == ("far", "upstream_rate_limited")
    await pair.sound("elsewhere", 1)


@pytest.mark.parametrize("fault", ["500", "reset", "html"])
async def test_a_target_that_fails_is_followed_by_the_next(pair: Pair, fault: str) -> None:
    """What was sent and broke off is not sent there again; its input stays charged."""
    customer = f"next-{fault}"
    secret = await pair.house.gate.customer(customer, "all")
    script: dict[str, dict[str, Any]] = {
        "500": {"status": 500},
        "reset": {"breaks_after_bytes": 0, "breaks": "reset"},
        "html": {"content_type": "text/html", "body": "<html>busy</html>"},
    }
    pair.first.script(Script(times=0, **script[fault]))
    answer = await pair.house.gate.chat(secret, model="pair", max_tokens=50)
    tries = 2 if fault == "500" else 1
    assert (answer.status, answer.headers["faregate-attempts"]) == (200, str(tries + 1))
    events = await pair.events(customer, tries + 1)
    assert [event["upstream"] for event in events] == ["first"] * tries + ["second"]
    assert events[-1]["fallback_from"] == "pair"
    assert ((await nothing_held(pair.house.gate, customer))["tokens"]["used"] > 14) == (fault != "500")
    await pair.sound(customer, 1)


async def test_an_upstream_that_cannot_be_reached_costs_nothing(pair: Pair) -> None:
    secret = await pair.house.gate.customer("dead", "all")
    answer = await pair.house.gate.chat(secret, model="dead", max_tokens=50)
    assert (answer.status, answer.headers["faregate-attempts"]) == (200, "3")
    events = await pair.events("dead", 3)
    assert [event["error_type"] for event in events] == ["upstream_unreachable", "upstream_unreachable", None]
    await pair.sound("dead", 1)


async def test_a_client_that_leaves_while_a_retry_waits_is_not_waited_for(pair: Pair) -> None:
    """No further attempt is made, and nothing is held meanwhile."""
    secret = await pair.house.gate.customer("impatient", "all")
    pair.first.script(Script(status=429, headers={"retry-after": "2"}))
    asking = asyncio.ensure_future(pair.house.gate.chat(secret, model="impatient", max_tokens=50))
    await pair.house.arrived(1)
    await nothing_held(pair.house.gate, "impatient")
    asking.cancel()
    await until(lambda: [line for line in logged(pair.house.gate, "request") if line["status"] == 499], 1.5)
    await asyncio.sleep(2)
    assert len(pair.first.calls) == 1
    await pair.events("impatient", 1)


async def test_a_target_that_fails_again_and_again_rests_and_comes_back(pair: Pair) -> None:
    """Others answer meanwhile, it is left alone, and one probe finds out that it is well again."""
    gate = pair.house.gate
    secret = await gate.customer("resting", "all")
    pair.first.script(Script(times=0, status=500))

    async def rests() -> bool:
        calls = len(pair.first.calls)
        answer = await gate.chat(secret, model="resting", max_tokens=50)
        assert answer.status == 200
        return len(pair.first.calls) == calls

    await until(rests)
    since, calls = time.monotonic(), len(pair.first.calls)
    assert 5 <= calls <= 12
    answers = await asyncio.gather(*(gate.chat(secret, model="resting", max_tokens=50) for _ in range(10)))
    assert {answer.headers["faregate-attempts"] for answer in answers} == {"1"}
    assert len(pair.first.calls) == calls
    assert [line["upstream_model"] for line in logged(gate, "target.rested")] == ["resting"]

    async def passed_over() -> list[Any]:
        events = (await gate.admin("GET", "/usage-events?customer_id=resting&limit=1000"))["data"]
        return [event for event in events if event["fallback_reason"] == "target_rested"]

    for event in await until(passed_over):
        assert (event["attempt"], event["upstream"], event["fallback_from"]) == (0, "second", "resting")

    pair.first.forget()

    async def back() -> bool:
        await gate.chat(secret, model="resting", max_tokens=50)
        return bool(pair.first.calls)

    await until(back, 8)
    assert time.monotonic() - since > 4.0
    await gate.chat(secret, model="resting", max_tokens=50)
    assert len(pair.first.calls) == 2
    await pair.told("faregate_target_rests_total", 'to="rested"', 'to="probed"', 'to="closed"')
    await nothing_held(gate, "resting")
    await assert_sound(gate)


async def test_where_there_is_no_other_target_the_rest_is_told(pair: Pair) -> None:
    """In an outage, that is. Nothing is reserved and nothing sent; the client knows when to come again."""
    gate = pair.house.gate
    secret = await gate.customer("last", "all")
    pair.first.script(Script(times=0, status=503))

    async def resting() -> Any:
        answer = await gate.chat(secret, model="last", max_tokens=50)
        error = answer.json()["error"]
        return answer if error["code"] == "upstream_resting" else None

    answer = await until(resting, 20)
    calls = len(pair.first.calls)
    assert calls >= 20
    assert answer.status == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert "faregate-attempts" not in answer.headers
    assert len(await pair.events("last", calls)) == calls
    assert (await nothing_held(gate, "last"))["requests"]["used"] == 0
    await assert_sound(gate)
