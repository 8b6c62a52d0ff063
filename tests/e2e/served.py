"""A served gate: real processes, an embedded Valkey, a scripted upstream, and the admin plane to set it up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ADMIN_TOKEN = "admin-token-of-the-tests-0123456789"
PROVIDER_KEY = "sk-canary-provider-key-0123456789abcdef"
KEYS = {"FAREGATE_ADMIN_TOKEN": ADMIN_TOKEN, "OPENAI_API_KEY": PROVIDER_KEY}
START_DEADLINE_S = 40.0

MODELS = """
[models."small"]
upstream = "openai"
upstream_model = "small-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = { input = "0.15", output = "0.60" }

[models."large"]
upstream = "openai"
upstream_model = "large-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_completion_tokens"
fallbacks = ["small"]
price = { input = "2.50", output = "10" }
"""

STARTER = """
id = "starter"
name = "Starter"
models = ["*"]
"""


@dataclass
class Answer:
    """A status, headers and a body, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gate:
    """Where a served gate is, and how to speak to it."""

    folder: Path
    port: int
    admin_port: int
    upstream_url: str
    settings: str = ""
    process: asyncio.subprocess.Process | None = None
    environment: dict[str, str] = field(default_factory=dict)
    session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    def write_plan(self, name: str, text: str) -> None:
        """As an editor does it: a new file put in the old one's place."""
        new = self.folder / "policies" / "plans" / f".{name}.new"
        new.write_text(text)
        new.rename(self.folder / "policies" / "plans" / f"{name}.toml")

    async def start(self) -> None:
        """Serves, and waits until every worker is ready."""
        log = (self.folder / "log").open("ab")
        said_before = log.tell()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", "--config", str(self.config),
            stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            env={**os.environ, **KEYS, **self.environment},
        )  # fmt: skip
        log.close()
        self.session = self.session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
        )
        deadline = asyncio.get_running_loop().time() + START_DEADLINE_S
        while asyncio.get_running_loop().time() < deadline:
            if self.process.returncode is not None:
                break
            with contextlib.suppress(aiohttp.ClientError):
                announced = " serves at " in self.log()[said_before:]
                if announced and (await self.get("/readyz")).status == 200:
                    return
            await asyncio.sleep(0.05)
        raise RuntimeError(f"The gate did not start:\n{self.log()}")

    async def stop(self, sig: signal.Signals = signal.SIGTERM, within_s: float = 20) -> int:
        """Ends the keeper by a signal and waits; returns its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(sig)
        try:
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            raise RuntimeError(f"The gate did not stop:\n{self.log()}") from None

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def get(self, path: str, secret: str | None = None) -> Answer:
        return await self._ask("GET", self.url + path, secret, None)

    async def chat(self, secret: str | None, **fields: Any) -> Answer:
        body = {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **fields}
        return await self._ask("POST", self.url + "/v1/chat/completions", secret, body)

    async def admin(self, method: str, path: str, body: Any = None, expect: int | None = None) -> Any:
        answer = await self._ask(method, f"{self.admin_url}/admin/v1{path}", ADMIN_TOKEN, body)
        wanted = (expect,) if expect else (200, 201, 204)
        assert answer.status in wanted, (method, path, answer.status, answer.body)
        return answer.json() if answer.body else None

    async def _ask(self, method: str, url: str, token: str | None, body: Any) -> Answer:
        assert self.session is not None
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with self.session.request(method, url, headers=headers, json=body) as response:
            return Answer(response.status, response.headers, await response.read())

    async def customer(self, id: str, plan: str = "starter") -> str:
        """A customer with one agent; returns the agent's secret."""
        await self.admin("POST", "/customers", {"id": id, "name": id, "plan": plan})
        agent = {"id": f"{id}-agent", "name": "a", "customer_id": id, "agent_type_id": "type"}
        await self.admin("POST", "/agents", agent)
        return (await self.admin("POST", f"/agents/{id}-agent/secrets", {}))["secret"]

    async def events(self, count: int, within_s: float = 10, **filters: str) -> list[dict[str, Any]]:
        """The usage events, newest first, once there are `count` of them."""
        query = "&".join(f"{k}={v}" for k, v in {"limit": "1000", **filters}.items())
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            events = (await self.admin("GET", f"/usage-events?{query}"))["data"]
            if len(events) >= count or asyncio.get_running_loop().time() > deadline:
                assert len(events) == count, f"{len(events)} events, not {count}"
                return list(events)
            await asyncio.sleep(0.05)


HANDED_OUT: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that was not given to another of ours: the system may offer one twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in HANDED_OUT:
            HANDED_OUT.add(port)
            return port


def prepare(folder: Path, upstream_url: str, *, workers: int = 1, retries: int = 0, more: str = "") -> Gate:
    """A folder with a configuration and policies; nothing runs yet.

    Without retries by default: a test that orders one fault of the upstream wants to see what becomes of it.
    """
    gate = Gate(folder, free_port(), free_port(), upstream_url)
    (folder / "policies" / "plans").mkdir(parents=True)
    (folder / "policies" / "models.toml").write_text(MODELS)
    (folder / "policies" / "plans" / "starter.toml").write_text(STARTER)
    gate.config.write_text(
        f"""
[server]
port = {gate.port}
workers = {workers}
drain_s = 5
[admin]
port = {gate.admin_port}
[policies]
default_plan = "starter"
[upstreams.openai]
base_url = "{upstream_url}"
max_retries = {retries}
{more}
"""
    )
    return gate


@contextlib.asynccontextmanager
async def serving(gate: Gate) -> AsyncIterator[Gate]:
    """Serves while the block lasts, with an agent type to make agents of."""
    try:
        await gate.start()
        await gate.admin("POST", "/agent-types", {"id": "type", "name": "Research", "kind": "custom"})
        yield gate
    finally:
        if gate.process is not None and gate.process.returncode is None:
            await gate.stop()
        if gate.session is not None:
            await gate.session.close()
            gate.session = None
