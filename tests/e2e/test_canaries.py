"""Canaries: content and secrets are planted wherever they go in, and looked for where they must not come out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from served import ADMIN_TOKEN, PROVIDER_KEY, Answer, Gate, prepare, serving

from proxy.budgets.embedded import EmbeddedStore
from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script

PROMPT = "canaryprompt5e8c the patient's name is Quillfeather"
COMPLETION = "canarycompletion41b7"
PEPPER = "canary-pepper-0123456789abcdef0123456789abcdef"
OTHER_KEY = "sk-canary-other-key-fedcba9876543210"
EMAIL = "canary.person@example.com"
CUSTOMER = "visible-customer"
"""The control: it is no secret, so that a search which does not find it has looked in the wrong place."""

MORE = """
[upstreams.translated]
wire = "litellm"
provider = "openai"
base_url = "{url}"
api_key_env = "OTHER_API_KEY"
max_retries = 0
"""
MODELS = """
[models."translated"]
upstream = "translated"
upstream_model = "translated-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = { input = "1", output = "1" }
"""
TINY = 'id = "tiny"\nname = "Tiny"\nmodels = ["*"]\n[[budgets]]\nmeter = "tokens"\nlimit = 100\nwindow = "P1M"\n'


class Garden:
    """A gate in which canaries have been set free, and all that it said to anybody."""

    def __init__(self, gate: Gate, upstream: ScriptedUpstream) -> None:
        self.gate = gate
        self.upstream = upstream
        self.secret = ""
        self.said: list[tuple[str, bytes]] = []

    @property
    def canaries(self) -> dict[str, bytes]:
        return {
            "prompt": b"canaryprompt5e8c",
            "name in the prompt": b"Quillfeather",
            "completion": COMPLETION.encode(),
            "agent secret": self.secret[-33:].encode(),
            "provider key": PROVIDER_KEY.encode(),
            "other provider key": OTHER_KEY.encode(),
            "admin token": ADMIN_TOKEN.encode(),
            "pepper": PEPPER.encode(),
            "e-mail of a user": EMAIL.encode(),
        }

    async def call(self, secret: str | None = None, script: Script | None = None, **fields: Any) -> Answer:
        """A call with the prompt in it. The answer is remembered if it is an error."""
        if script is not None:
            self.upstream.script(script)
        messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": PROMPT}]
        answer = await self.gate.chat(secret or self.secret, messages=messages, user=EMAIL, **fields)
        shown = json.dumps(dict(answer.headers)).encode()
        self.said.append(("headers", shown if answer.status == 200 else shown + answer.body))
        return answer


@pytest.fixture
async def garden(tmp_path: Path) -> AsyncIterator[Garden]:
    async with ScriptedUpstream() as upstream:
        gate = prepare(tmp_path, upstream.url, workers=2, more=MORE.format(url=upstream.url))
        gate.environment = {"FAREGATE_SECRET_PEPPER": PEPPER, "OTHER_API_KEY": OTHER_KEY}
        gate.write_plan("tiny", TINY)
        with (gate.folder / "policies" / "models.toml").open("a") as models:
            models.write(MODELS)
        async with serving(gate):
            made = Garden(gate, upstream)
            made.secret = await gate.customer(CUSTOMER)
            yield made


ECHO = json.dumps(
    {
        "error": {
            "message": f"Key {PROVIDER_KEY} or {OTHER_KEY} may not ask: {PROMPT}",
            "type": PROVIDER_KEY,
            "param": PROMPT,
            "code": OTHER_KEY,
        }
    }
)


async def set_free(garden: Garden) -> None:
    """Everything that can happen to a call happens to one that carries canaries."""
    says = Script(text=COMPLETION)
    assert COMPLETION in (await garden.call(script=says)).body.decode()
    assert COMPLETION in (await garden.call(script=says, stream=True)).body.decode()
    assert (await garden.call(script=says, model="translated")).status == 200
    assert (await garden.call(script=says, model="translated", stream=True)).status == 200
    for model in ("small", "translated"):
        for status in (400, 401, 403, 404, 422, 429, 500):
            headers = {"x-request-id": "req-upstream", "x-note": PROVIDER_KEY, "set-cookie": COMPLETION}
            answer = await garden.call(script=Script(status=status, body=ECHO, headers=headers), model=model)
            assert answer.status >= 400
    assert (await garden.call(script=Script(status=500, body=ECHO), model="large")).status == 200
    for broken in (Script(text=COMPLETION, error_after=3), Script(text=COMPLETION, breaks_after_bytes=900)):
        for model in ("small", "translated"):
            with contextlib.suppress(Exception):
                await garden.call(script=broken, model=model, stream=True)
    with contextlib.suppress(Exception):
        await garden.call(script=Script(text=COMPLETION, breaks_after_bytes=300))
    await garden.call(script=Script(body=f"no JSON, but {COMPLETION} {PROVIDER_KEY}"))
    await refused(garden)


async def refused(garden: Garden) -> None:
    """Denials of every kind, each with the prompt in its body."""
    tiny = await garden.gate.customer("tiny", "tiny")
    assert (await garden.call(tiny, max_tokens=4000)).status == 402
    assert (await garden.call(model="nope")).status == 404
    assert (await garden.call(max_tokens=-1)).status == 400
    assert (await garden.call(stop={"x": PROMPT}, tools=[{"type": PROMPT}])).status == 400
    assert (await garden.call(garden.secret[:-1] + "_")).status == 401
    await garden.gate.admin("PATCH", "/customers/tiny", {"status": "suspended"})
    assert (await garden.call(tiny)).status == 403
    assert garden.gate.session is not None
    for body in (
        f'{{"model": "{PROMPT}'.encode(),
        json.dumps({PROMPT: 1}).replace("}", f', "{PROMPT}": 2}}').encode(),
    ):
        url = f"{garden.gate.url}/v1/chat/completions?key={garden.secret}"
        headers = {"authorization": f"Bearer {garden.secret}", "content-type": "application/json"}
        async with garden.gate.session.post(url, data=body, headers=headers) as response:
            assert response.status == 400
            garden.said.append(("a bad body", await response.read()))


async def crash_a_worker(garden: Garden) -> None:
    """In the middle of a call: what it had in its hands is gone, not written down somewhere."""
    workers = named(garden.gate, "faregate worker")
    garden.upstream.hold()
    seen = len(garden.upstream.calls)
    calls = [asyncio.create_task(garden.call(stream=True)) for _ in range(4)]
    await arrived(garden, seen + 4)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*calls, return_exceptions=True)
    garden.upstream.release()
    async with asyncio.timeout(20):
        while set(named(garden.gate, "faregate worker")) & set(workers) or not await ready(garden.gate):
            await asyncio.sleep(0.05)


async def arrived(garden: Garden, count: int) -> None:
    async with asyncio.timeout(10):
        await garden.upstream.arrived(count)


async def ready(gate: Gate) -> bool:
    with contextlib.suppress(Exception):
        return (await gate.get("/readyz")).status == 200
    return False


async def spooled(garden: Garden) -> bytes:
    """The spool's bytes while Redis does not answer, which is when settlements go there."""
    [store] = named(garden.gate, "valkey-server")
    garden.upstream.hold()
    seen = len(garden.upstream.calls)
    call = asyncio.create_task(garden.call(script=Script(text=COMPLETION)))
    await arrived(garden, seen + 1)
    os.kill(store, signal.SIGSTOP)
    try:
        garden.upstream.release()
        assert (await call).status == 200
        files = sorted((garden.gate.folder / "var" / "spool").glob("*.spool"))
        return b"".join(path.read_bytes() for path in files)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(store, signal.SIGCONT)


def descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def named(gate: Gate, name: str) -> list[int]:
    """Processes of the gate by what they call themselves."""
    assert gate.process is not None
    found = []
    for pid in descendants(gate.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "):
                found.append(pid)
    return found


async def stored(gate: Gate) -> bytes:
    """Every key and value in Redis, read by its type: a dump would be compressed."""
    store = Redis.from_url(EmbeddedStore(gate.folder / "var", "everysec").url)
    readers = {
        b"string": store.get,
        b"hash": store.hgetall,
        b"set": store.smembers,
        b"zset": lambda key: store.zrange(key, 0, -1, withscores=True),
        b"stream": store.xrange,
        b"list": lambda key: store.lrange(key, 0, -1),
    }
    try:
        everything = []
        async for key in store.scan_iter(count=1000):
            kind = await store.type(key)
            if kind != b"none":
                everything.append((key, await readers[kind](key)))
        return repr(everything).encode()
    finally:
        await store.aclose()


async def on_the_admin_plane(gate: Gate) -> bytes:
    """All that the admin plane tells, but for the one answer that creates a secret."""
    assert gate.session is not None
    paths = (
        "/admin/v1/customers", "/admin/v1/agents", f"/admin/v1/agents/{CUSTOMER}-agent/secrets",
        "/admin/v1/usage-events?limit=1000", "/admin/v1/usage?group_by=customer,user", "/admin/v1/denials",
        "/admin/v1/invariants", "/admin/v1/health", "/metrics",
    )  # fmt: skip
    told = b""
    for path in paths:
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        async with gate.session.get(gate.admin_url + path, headers=headers) as response:
            assert response.status == 200, path
            told += path.encode() + await response.read()
    return told


def processes(gate: Gate) -> bytes:
    """What `ps` and /proc show of the gate's processes to whoever may look."""
    assert gate.process is not None
    shown = b""
    for pid in (gate.process.pid, *descendants(gate.process.pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            shown += Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    return shown


def files(gate: Gate) -> Iterator[tuple[str, bytes]]:
    """All that lies in the gate's folder: log, ledger with its WAL, append-only file, spool."""
    for path in sorted(gate.folder.rglob("*")):
        if path.is_file() and not path.is_socket():
            with contextlib.suppress(FileNotFoundError):
                yield str(path.relative_to(gate.folder)), path.read_bytes()


async def test_no_canary_is_found_anywhere(garden: Garden) -> None:
    """Content passes through the gate and secrets into it; neither may stay or come out."""
    await set_free(garden)
    await crash_a_worker(garden)
    assert (await garden.call()).status == 200
    spool = await spooled(garden)
    places = [
        *garden.said,
        ("the spool", spool),
        ("Redis", await stored(garden.gate)),
        ("the admin plane", await on_the_admin_plane(garden.gate)),
        ("the processes", processes(garden.gate)),
        *files(garden.gate),
    ]
    names = [name for name, _ in places]
    assert {"log", "var/ledger.sqlite3"} <= set(names)
    assert any(name.endswith(".aof") for name in names)
    assert_found(CUSTOMER, places, "the spool", "Redis", "the admin plane", "var/ledger.sqlite3")
    assert any(CUSTOMER.encode() in data for name, data in places if name.endswith(".aof"))
    found = [
        (canary, name, around(data, value))
        for canary, value in garden.canaries.items()
        for name, data in places
        if value in data
    ]
    assert found == []
    assert len(garden.said) > 25


def assert_found(word: str, places: list[tuple[str, bytes]], *where: str) -> None:
    for wanted in where:
        assert any(word.encode() in data for name, data in places if name.startswith(wanted)), wanted


def around(data: bytes, value: bytes) -> bytes:
    at = data.index(value)
    return data[max(0, at - 80) : at + 60]
