"""Fallbacks: whatever the first model's provider does, the next answers, and every attempt is accounted for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan
from served import free_port

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
upstream = "{upstream}"
upstream_model = "{id}-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
fallbacks = {fallbacks}
price = {{ input = "{input}", output = "{output}" }}
"""


def _model(id: str, upstream: str, fallbacks: list[str], input: str, output: str) -> str:
    return MODEL.format(id=id, upstream=upstream, fallbacks=json.dumps(fallbacks), input=input, output=output)


MODELS = (
    _model("first", "hasty", ["second"], "2", "8")
    + _model("second", "openai", [], "0.5", "1.5")
    + _model("stalling", "stalling", ["second"], "2", "8")
    + _model("unreachable", "dead", ["second"], "2", "8")
    + _model("long-way", "openai", ["forbidden", "second"], "2", "8")
    + _model("forbidden", "openai", [], "1", "1")
    + _model("cheap", "openai", ["dear"], "0.1", "0.1")
    + _model("dear", "openai", [], "100", "100")
)
STALLING_PORT = free_port()
UPSTREAMS = f"""
[upstreams.hasty]
wire = "openai"
base_url = "{{upstream}}"
max_retries = 0
first_byte_timeout_s = 0.4
idle_timeout_s = 0.4
[upstreams.stalling]
wire = "openai"
base_url = "http://127.0.0.1:{STALLING_PORT}/v1"
idle_timeout_s = 0.4
[upstreams.dead]
wire = "openai"
max_retries = 0
base_url = "http://127.0.0.1:{free_port()}/v1"
"""
ALLOWED = '["first", "second", "unreachable", "stalling", "long-way", "cheap", "dear"]'
METERS = [("tokens", 1_000_000), ("requests", 1_000), ("cost_usd", "100")]
PLANS = {
    "all": plan("all", METERS, models=ALLOWED),
    "no-second": plan("no-second", METERS, models='["first"]'),
    "poor": plan("poor", [("cost_usd", "0.001")], models=ALLOWED),
}
# "hello there" and "user", and 32 for the template.
INPUT_BOUND = 11 + 4 + 32

FAULTS: dict[str, tuple[dict[str, Any], str, bool]] = {
    # What the provider does; what the gate calls it; whether it may have been charged by the provider.
    "500": ({"status": 500}, "upstream_server_error", False),
    "429": ({"status": 429, "headers": {"retry-after": "7"}}, "upstream_rate_limited", False),
    "401": ({"status": 401}, "upstream_rejected_key", False),
    "redirect": ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, "upstream_redirect", False),
    "html": ({"content_type": "text/html", "body": "<html>busy</html>"}, "upstream_unreadable", True),
    "error under 200": (
        {"body": '{"error": {"message": "overloaded", "code": 503}}'},
        "upstream_server_error",
        False,
    ),
    "timeout": ({"head_delay_s": 1.0}, "upstream_timeout", True),
    "closed before the head": ({"breaks_after_bytes": 0}, "upstream_reset", True),
    "reset before the head": ({"breaks_after_bytes": 0, "breaks": "reset"}, "upstream_reset", True),
    "reset in the body": ({"breaks_after_bytes": 40, "breaks": "reset"}, "upstream_reset", True),
    "closed in the body": ({"breaks_after_bytes": 40}, "upstream_reset", True),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("fallbacks")
    async with open_house(folder, PLANS, models=MODELS, more=UPSTREAMS) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def well(house: House) -> str:
    """The secret of somebody for whom everything works."""
    return await house.gate.customer("well", "all")


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_rests(house: House, well: str) -> None:
    """A good answer between the faults: a target that only fails would rest, and not be tried any more."""
    house.upstream.forget()
    assert (await house.gate.chat(well, model="first", max_tokens=50)).headers["faregate-model"] == "first"


async def _two_attempts(house: House, customer: str, first: str, reason: str, charged: bool) -> None:
    """One event per attempt with its own model, price and reason; the counters agree; nothing is held."""
    failed, served = sorted(await house.gate.events(2, customer_id=customer), key=lambda event: event["attempt"])
    assert failed["request_id"] == served["request_id"]
    assert (failed["attempt"], failed["model"], failed["model_served"]) == (0, first, first)
    assert (failed["status"], failed["error_type"], failed["billable"]) == ("failed", reason, False)
    assert (failed["usage_source"], failed["input_tokens"], failed["output_tokens"]) == ("none", 0, 0)
    assert (failed["fallback_from"], failed["fallback_reason"]) == (None, None)
    assert (served["attempt"], served["model"], served["model_served"]) == (1, first, "second")
    assert (served["status"], served["usage_source"], served["billable"]) == ("succeeded", "provider", True)
    assert (served["fallback_from"], served["fallback_reason"]) == (first, reason)
    assert (served["input_tokens"], served["output_tokens"]) == (2, 12)
    assert Decimal(served["cost_usd"]) == (2 * Decimal("0.5") + 12 * Decimal("1.5")) / 10**6
    now = await nothing_held(house.gate, customer)
    assert now["requests"]["used"] == 1
    assert now["tokens"]["used"] == 14 + (INPUT_BOUND if charged else 0)
    # Nineteen microdollars for the answer; the input bound at the first model's two dollars per million.
    assert Decimal(now["cost_usd"]["used"]) * 10**6 == 19 + (2 * INPUT_BOUND if charged else 0)
    await assert_sound(house.gate)


@pytest.mark.parametrize(
    ("fault", "streamed"),
    # A plain answer to a streamed request is read as a plain one, so HTML is one case.
    [(fault, streamed) for fault in FAULTS for streamed in (False, True) if (fault, streamed) != ("html", True)],
)
async def test_the_fallback_answers_whatever_the_first_provider_does(
    house: House, fault: str, streamed: bool
) -> None:
    """The client sees one good answer, and the record says what it took."""
    script, reason, charged = FAULTS[fault]
    customer = f"{fault.replace(' ', '-')}-{streamed}"
    secret = await house.gate.customer(customer, "all")
    house.upstream.forget()
    house.upstream.script(Script(model="first-upstream", **script))
    answer = await house.gate.chat(secret, model="first", max_tokens=50, stream=streamed)
    assert answer.status == 200, answer.body
    assert (answer.headers["faregate-model"], answer.headers["faregate-attempts"]) == ("second", "2")
    assert b"second-upstream" in answer.body
    assert b"first-upstream" not in answer.body
    assert [call.model for call in house.upstream.calls] == ["first-upstream", "second-upstream"]
    await _two_attempts(house, customer, "first", reason, charged)


async def test_a_provider_that_refuses_connections_costs_nothing(house: House) -> None:
    """What never left was never bought."""
    secret = await house.gate.customer("refusing", "all")
    house.upstream.forget()
    answer = await house.gate.chat(secret, model="unreachable", max_tokens=50)
    assert (answer.status, answer.headers["faregate-model"]) == (200, "second")
    await _two_attempts(house, "refusing", "unreachable", "upstream_unreachable", False)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_request_that_is_itself_at_fault_is_tried_nowhere_else(house: House, status: int) -> None:
    """The second provider would refuse it too, and the client would wait for both."""
    secret = await house.gate.customer(f"fault-{status}", "all")
    house.upstream.forget()
    house.upstream.script(Script(model="first-upstream", status=status))
    answer = await house.gate.chat(secret, model="first", max_tokens=50)
    assert answer.status == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(house.upstream.calls) == 1
    [event] = await house.gate.events(1, customer_id=f"fault-{status}")
    assert (event["status"], event["http_status"]) == ("failed", status)
    assert (await nothing_held(house.gate, f"fault-{status}"))["tokens"]["used"] == 0


@pytest.mark.parametrize(("said", "shown"), [(500, 500), (503, 503), (429, 429), (401, 502), (403, 502)])
async def test_when_every_attempt_failed_the_last_ones_trouble_is_told(
    house: House, said: int, shown: int
) -> None:
    """Statuses that clients know how to retry stay; the operator's own key is no business of the customer's."""
    customer = f"every-{said}"
    secret = await house.gate.customer(customer, "all")
    house.upstream.forget()
    house.upstream.script(Script(times=0, status=said))
    answer = await house.gate.chat(secret, model="first", max_tokens=50)
    assert answer.status == shown
    assert answer.json()["error"]["type"] == "upstream_error"
    assert len(house.upstream.calls) == 2
    events = await house.gate.events(2, customer_id=customer)
    assert {event["status"] for event in events} == {"failed"}
    now = await nothing_held(house.gate, customer)
    assert (now["tokens"]["used"], now["requests"]["used"]) == (0, 0)
    await assert_sound(house.gate)


async def test_a_fallback_that_the_plan_does_not_allow_is_skipped_and_said_so(house: House) -> None:
    """A plan is no less a plan because a provider is down."""
    secret = await house.gate.customer("narrow", "no-second")
    house.upstream.forget()
    house.upstream.script(Script(model="first-upstream", status=500))
    answer = await house.gate.chat(secret, model="first", max_tokens=50)
    assert answer.status == 500
    assert "Fallback 'second' was skipped: model not allowed." in answer.json()["error"]["message"]
    assert len(house.upstream.calls) == 1
    await house.gate.events(1, customer_id="narrow")


async def test_the_next_allowed_fallback_serves_and_the_answer_names_what_was_skipped(house: House) -> None:
    secret = await house.gate.customer("long-way", "all")
    house.upstream.forget()
    house.upstream.script(Script(model="long-way-upstream", status=500))
    answer = await house.gate.chat(secret, model="long-way", max_tokens=50)
    assert (answer.status, answer.headers["faregate-model"]) == (200, "second")
    assert answer.headers["faregate-fallbacks-skipped"] == "forbidden"
    await _two_attempts(house, "long-way", "long-way", "upstream_server_error", False)


async def test_a_fallback_that_the_budget_refuses_is_skipped(house: House) -> None:
    """The dearer model would overshoot; the upstream's own error is the answer then."""
    secret = await house.gate.customer("poor", "poor")
    house.upstream.forget()
    house.upstream.script(Script(model="cheap-upstream", status=503))
    answer = await house.gate.chat(secret, model="cheap", max_tokens=50)
    assert answer.status == 503
    assert "Fallback 'dear' was skipped: budget." in answer.json()["error"]["message"]
    assert [call.model for call in house.upstream.calls] == ["cheap-upstream"]
    await nothing_held(house.gate, "poor")


@pytest_asyncio.fixture(loop_scope="module")
async def stalling() -> AsyncIterator[None]:
    """A provider that begins its stream and then says nothing more."""
    event = b'data: {"model":"stalling-upstream","choices":[{"index":0,"delta":{"content":"A"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000\r\n\r\n"

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(head + event)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", STALLING_PORT):
        yield


@pytest.mark.usefixtures("stalling")
@pytest.mark.parametrize("fault", ["reset", "close", "stall", "error event"])
async def test_after_the_first_byte_there_is_no_fallback(house: House, fault: str) -> None:
    """Two halves of two answers are no answer: the stream ends with an error event, which every client must get to
    read, and never with the ending of a whole answer."""
    gate, upstream = house.gate, house.upstream
    customer = f"begun-{fault.replace(' ', '-')}"
    secret = await gate.customer(customer, "all")
    upstream.forget()
    model = "stalling" if fault == "stall" else "first"
    script: dict[str, Any] = {
        "reset": {"breaks_after_bytes": 900, "breaks": "reset"},
        "close": {"breaks_after_bytes": 900},
        "stall": {},
        "error event": {"error_after": 3},
    }[fault]
    upstream.script(Script(model="first-upstream", **script))
    received = b""
    async with aiohttp.ClientSession() as session:
        body = {
            "model": model,
            "max_tokens": 50,
            "stream": True,
            "messages": [{"role": "user", "content": "hello there"}],
        }
        headers = {"authorization": f"Bearer {secret}"}
        async with session.post(f"{gate.url}/v1/chat/completions", headers=headers, json=body) as response:
            async for chunk in response.content.iter_any():
                received += chunk
    assert b'"content":"' in received
    assert b'"error"' in received
    assert b"[DONE]" not in received
    assert [call.model for call in upstream.calls] == ([] if fault == "stall" else ["first-upstream"])
    [event] = await gate.events(1, customer_id=customer)
    assert (event["status"], event["model_served"], event["usage_source"]) == ("failed", model, "estimated")
    assert not event["billable"]
    assert (await nothing_held(gate, customer))["requests"]["used"] == 1
    await assert_sound(gate)
