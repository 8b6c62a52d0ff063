"""Whatever an upstream does, on every wire: the client's error, one event, nothing left held, nothing let slip."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan
from served import PROVIDER_KEY, free_port

from proxy.demo.scripted_completions import Completions
from proxy.demo.scripted_gemini import Gemini
from proxy.demo.scripted_messages import Messages
from proxy.demo.scripted_responses import Responses
from proxy.demo.scripted_wires import Chat
from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLAUDE_KEY = "sk-ant-canary-key-0123456789abcdef"
GEMINI_KEY = "AIzaCanaryKeyOfTheTests0123456789abcdef"
TEXT = "canaryprovidertext7f3e"
ECHO = f"{TEXT}: {PROVIDER_KEY}, {CLAUDE_KEY} or {GEMINI_KEY} may not do this."
SAID_BY_SCRIPTS = "As the script says."
STALL_S = 0.6


@dataclass(frozen=True)
class Wire:
    """One way through the gate: the path, the upstream, and what speaks there. `error`: the client's own shape."""

    name: str
    path: str
    upstream: str
    body: Mapping[str, Any]
    speaks: Any
    streams: bool = True
    error: str = "openai"

    def __str__(self) -> str:
        return self.name


HELLO = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 20}
WIRES = [
    Wire("chat", "/v1/chat/completions", "openai", HELLO, Chat()),
    Wire("chat to Claude", "/v1/chat/completions", "claude", HELLO, Messages()),
    Wire("chat to Gemini", "/v1/chat/completions", "gemini", HELLO, Gemini()),
    Wire("responses", "/v1/responses", "openai", {"input": "hello there", "max_output_tokens": 20}, Responses()),
    Wire("messages", "/v1/messages", "claude", HELLO, Messages(), error="anthropic"),
    Wire("messages to OpenAI", "/v1/messages", "openai", HELLO, Chat(), error="anthropic"),
    Wire("completions", "/v1/completions", "openai", {"prompt": "hello there", "max_tokens": 20}, Completions()),
    Wire("embeddings", "/v1/embeddings", "openai", {"input": "hello there"}, None, streams=False),
]


@dataclass(frozen=True)
class Fault:
    """What the upstream does, and what comes of it: `status` and `code` for the client, and what may be charged.

    `unheard`: the upstream did not answer, or not in a way that says what it made of the request, so that the
    budget is charged with the whole input.
    """

    name: str
    script: Script | None
    status: int
    code: str
    unheard: bool = False
    waits: bool = False

    def __str__(self) -> str:
        return self.name


ERROR = json.dumps({"type": "error", "error": {"message": ECHO, "type": "x", "code": None, "param": None}})
SOON = {"retry-after": "7", "x-note": PROVIDER_KEY, "set-cookie": TEXT}
HTML = f"<html><body>{ECHO}</body></html>"


def saying(status: int, **more: Any) -> Script:
    return Script(status=status, body=ERROR, headers=SOON, **more)


BEFORE = [
    Fault("429", saying(429), 429, "upstream_rate_limited", waits=True),
    Fault("500", saying(500), 500, "upstream_server_error"),
    Fault("503", saying(503), 503, "upstream_server_error", waits=True),
    Fault("529", saying(529), 529, "upstream_server_error"),
    Fault("401", saying(401), 502, "upstream_rejected_key"),
    Fault("402", saying(402), 502, "upstream_quota"),
    Fault("refused", None, 502, "upstream_unreachable"),
    Fault("reset", Script(breaks_after_bytes=0, breaks="reset"), 502, "upstream_reset", unheard=True),
    Fault("closed", Script(breaks_after_bytes=0), 502, "upstream_reset", unheard=True),
    Fault("silent", Script(head_delay_s=STALL_S + 0.6), 504, "upstream_timeout", unheard=True),
    Fault("redirect", Script(status=307, headers={"location": "/v1/messages"}), 502, "upstream_redirect"),
    Fault("HTML", Script(body=HTML, content_type="text/html"), 502, "upstream_unreadable", unheard=True),
    Fault("HTML under 502", Script(status=502, body=HTML, content_type="text/html"), 502, "upstream_server_error"),
    Fault("gzip", Script(headers={"content-encoding": "gzip"}), 502, "upstream_unreadable", unheard=True),
    Fault("empty", Script(body=""), 502, "upstream_unreadable", unheard=True),
    Fault("half a JSON", Script(body=ERROR[:40]), 502, "upstream_unreadable", unheard=True),
    Fault(
        "error under 200",
        Script(body=json.dumps({"error": {"message": ECHO, "code": 503}}), headers=SOON),
        503,
        "upstream_server_error",
        waits=True,
    ),
]  # fmt: skip
PLAIN_ONLY = [
    Fault("reset in the body", Script(breaks_after_bytes=40, breaks="reset"), 502, "upstream_reset", unheard=True),
    Fault("closed in the body", Script(breaks_after_bytes=40), 502, "upstream_reset", unheard=True),
]
WITHIN = {
    # What the upstream does in the middle, and what the event is to say of it: natively, and by translation.
    "error event": ("error_in_stream", "upstream_server_error"),
    "reset inside": ("upstream_reset", "upstream_reset"),
    "closed inside": ("upstream_reset", "upstream_reset"),
    "stall inside": ("upstream_timeout", "upstream_timeout"),
}
SENTENCES = (
    "The upstream broke off in the middle of its answer.",
    "The model's provider failed in the middle of its answer.",
)


def model_of(wire: Wire, fault: str, stream: bool) -> str:
    """A model of its own for each case: targets that fail again and again would be rested."""
    return "-".join((wire.name, fault, "stream" if stream else "plain")).replace(" ", "-").lower()


CASES = [
    (wire, fault, stream)
    for wire in WIRES
    for stream in ((False, True) if wire.streams else (False,))
    for fault in BEFORE + ([] if stream else PLAIN_ONLY)
]
BROKEN = [(wire, fault) for wire in WIRES if wire.streams for fault in WITHIN]
MODEL = """
[models."{id}"]
upstream = "{upstream}"
upstream_model = "{id}"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = {{ input = "1", output = "2" }}
"""
UPSTREAM = """
[upstreams.{name}]
wire = "{wire}"
base_url = "{url}"
api_key_env = "{key}"
max_retries = 0
first_byte_timeout_s = {stall}
idle_timeout_s = {stall}
{more}
"""
KINDS = {
    "openai": ("openai", "OPENAI_API_KEY", "/v1", ""),
    "claude": ("anthropic", "ANTHROPIC_API_KEY", "", ""),
    "gemini": ("litellm", "GEMINI_API_KEY", "", 'provider = "gemini"'),
}


def upstreams() -> str:
    """Each kind where the scripts are played, and again where nobody listens."""
    made = ""
    for name, (wire, key, version, more) in KINDS.items():
        dead = f"http://127.0.0.1:{free_port()}{version}"
        alive = "{upstream}" if version else "{upstream_root}"
        for called, url in ((name, alive), (f"dead-{name}", dead)):
            text = UPSTREAM.format(name=called, wire=wire, url=url, key=key, stall=STALL_S, more=more)
            made += text if called != "openai" else ""
    return made


def models() -> str:
    made = ""
    for wire, fault, stream in CASES:
        upstream = wire.upstream if fault.script else f"dead-{wire.upstream}"
        made += MODEL.format(id=model_of(wire, fault.name, stream), upstream=upstream)
    for wire, name in BROKEN:
        made += MODEL.format(id=model_of(wire, name, True), upstream=wire.upstream)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("faults")
    plans = {"measured": plan("measured", [("tokens", 10_000_000), ("requests", 10_000), ("cost_usd", "1000")])}
    openai = f"first_byte_timeout_s = {STALL_S}\nidle_timeout_s = {STALL_S}\n"
    keys = {"ANTHROPIC_API_KEY": CLAUDE_KEY, "GEMINI_API_KEY": GEMINI_KEY}
    more = openai + upstreams()
    async with open_house(folder, plans, models=models(), more=more, environment=keys) as opened:
        yield opened


@dataclass
class Heard:
    """What a client got; `complete` says that its connection ended properly."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = field(default=True)


async def ask(house: House, customer: str, wire: Wire, model: str, stream: bool) -> tuple[Heard, str]:
    assert house.gate.session is not None
    secret = await house.gate.customer(customer, "measured")
    body = {"model": model, **wire.body, **({"stream": True} if stream else {})}
    headers = {"authorization": f"Bearer {secret}"}
    async with house.gate.session.post(house.gate.url + wire.path, json=body, headers=headers) as response:
        said = b""
        try:
            async for data in response.content.iter_any():
                said += data
        except aiohttp.ClientPayloadError:
            return Heard(response.status, response.headers, said, complete=False), secret
        return Heard(response.status, response.headers, said), secret


def assert_nothing_slipped(house: House, heard: Heard, secret: str) -> None:
    """No key and no text of the provider came back, and the agent's secret did not go there."""
    shown = json.dumps(dict(heard.headers)).encode() + heard.body
    for canary in (PROVIDER_KEY, CLAUDE_KEY, GEMINI_KEY, TEXT):
        assert canary.encode() not in shown, canary
    for call in house.upstream.calls:
        assert secret not in json.dumps([dict(call.headers), dict(call.body)])


async def assert_one_event(
    house: House, customer: str, error_types: tuple[str, ...], source: str
) -> dict[str, Any]:
    [event] = await house.gate.events(1, customer_id=customer)
    assert (event["status"], event["usage_source"], event["billable"]) == ("failed", source, False)
    assert event["error_type"] in error_types
    assert event["attempt"] == 0
    return event


@pytest.mark.parametrize(("wire", "fault", "stream"), CASES, ids=lambda value: str(value))
async def test_a_fault_before_the_answer_has_its_outcome(
    house: House, wire: Wire, fault: Fault, stream: bool
) -> None:
    """Clients act on the status and the code; the ledger and the budgets must agree about what it cost."""
    house.upstream.forget()
    if fault.script is not None:
        house.upstream.script(fault.script)
    model = customer = model_of(wire, fault.name, stream)
    heard, secret = await ask(house, customer, wire, model, stream)
    assert heard.status == fault.status, heard.body
    assert ("retry-after" in heard.headers) == fault.waits
    if fault.waits:
        assert heard.headers["retry-after"] == "7"
    said = json.loads(heard.body)
    if wire.error == "anthropic":
        assert (said["type"], said["error"].keys()) == ("error", {"type", "message"})
    else:
        assert said["error"].keys() == {"message", "type", "param", "code"}
        assert (said["error"]["type"], said["error"]["code"]) == ("upstream_error", fault.code)
    assert len(house.upstream.calls) == (1 if fault.script else 0)
    assert_nothing_slipped(house, heard, secret)
    event = await assert_one_event(house, customer, (fault.code,), "none")
    assert (event["input_tokens"], event["output_tokens"]) == (0, 0)
    held = await nothing_held(house.gate, customer)
    assert (held["tokens"]["used"] > 0) == fault.unheard


def broken(wire: Wire, fault: str, body: Mapping[str, Any]) -> Script:
    whole = b"".join(wire.speaks.stream(Script(), body, 0))
    if fault == "error event":
        events = b"".join(wire.speaks.stream(Script(error_after=4), body, 0)).decode()
        return Script(events=events.replace(SAID_BY_SCRIPTS, ECHO))
    if fault == "stall inside":
        return Script(stalls_after=6)
    return Script(
        breaks_after_bytes=len(whole) // 2,
        breaks="reset" if fault == "reset inside" else "close",
        chunk_delay_s=0.002,
    )


@pytest.mark.parametrize(("wire", "fault"), BROKEN, ids=lambda value: str(value))
async def test_a_fault_inside_a_stream_has_its_outcome(house: House, wire: Wire, fault: str) -> None:
    """What has been delivered is estimated, and no client may take half an answer for a whole one."""
    house.upstream.forget()
    model = customer = model_of(wire, fault, True)
    house.upstream.script(broken(wire, fault, {"model": model, **wire.body, "stream": True}))
    heard, secret = await ask(house, customer, wire, model, True)
    assert (heard.status, heard.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert any(sentence.encode() in heard.body for sentence in SENTENCES)
    assert not any(word in heard.body for word in (b"[DONE]", b"message_stop", b"response.completed"))
    assert not any(f'"finish_reason":"{word}"'.encode() in heard.body for word in ("stop", "length"))
    assert_nothing_slipped(house, heard, secret)
    # A failed response reports what it has used.
    source = "provider" if (wire.name, fault) == ("responses", "error event") else "estimated"
    event = await assert_one_event(house, customer, WITHIN[fault], source)
    assert event["output_tokens"] >= 1
    await nothing_held(house.gate, customer)


async def test_the_books_agree_after_all_of_it(house: House) -> None:
    """Every reservation of the table above has ended, and the counters are what the ledger says."""
    await assert_sound(house.gate)
