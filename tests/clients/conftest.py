"""The real `openai` library in an environment of its own, a served gate, and a tap between the two."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.demo.scripted_upstream import ScriptedUpstream
from tests.clients.wire import Tap
from tests.e2e.served import Gate, prepare, serving

HERE = Path(__file__).parent
PYTHON = HERE / ".envs" / "openai" / "bin" / "python"
DEADLINE_S = 30.0

MORE = """
[upstreams.unkeyed]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "NO_SUCH_KEY"
"""
UNKEYED_MODEL = """
[models."unkeyed"]
upstream = "unkeyed"
upstream_model = "x"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = { input = "1", output = "1" }
"""
SMALL_ONLY = 'id = "small-only"\nname = "Small"\nmodels = ["small"]\n'
ONE_AT_ONCE = 'id = "one-at-once"\nname = "Slow"\nmodels = ["*"]\n[rate_limits]\nconcurrent_requests = 1\n'
TINY = """
id = "tiny"
name = "Tiny"
models = ["*"]
[[budgets]]
meter = "tokens"
limit = 100
window = "lifetime"
[denial]
message_too_large = "Dear {plan} customer: {asked} {meter} asked, {remaining} left. Ask for at most {can_afford}."
"""


class Program:
    """openai_program.py, running: one case after another, each with its answer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, case: str, base_url: str, secret: str, **asked: Any) -> dict[str, Any]:
        """`{"result"}` or `{"error"}`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"case": case, "base_url": base_url, "secret": secret, **asked})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            answer = await self._process.stdout.readline()
        assert answer, f"The program ended in the middle of the case {case}."
        return dict(json.loads(answer))


@dataclass
class Scene:
    """A gate that serves, its upstream, and the client before it. `requests` counts those of the last case."""

    gate: Gate
    upstream: ScriptedUpstream
    tap: Tap
    program: Program
    customers: int = 0

    @property
    def requests(self) -> int:
        return self.tap.requests

    async def customer(self, plan: str = "starter") -> tuple[str, str]:
        """A customer of its own: its id and its agent's secret."""
        self.customers += 1
        id = f"customer-{self.customers}"
        return id, await self.gate.customer(id, plan)

    async def client(self, case: str, secret: str, **asked: Any) -> dict[str, Any]:
        """Runs a case in the library; `fields` are those of the request, on top of a small one."""
        self.tap.arrivals.clear()
        asked["fields"] = {"model": "small", "messages": [{"role": "user", "content": "hello there"}]} | asked.get(
            "fields", {}
        )
        return await self.program.run(case, self.tap.url, secret, **asked)


@pytest.fixture(scope="session")
def openai_python() -> Path:
    if not (PYTHON.parent.parent / ".ready").exists():
        pytest.skip("The openai library is not installed: make test-clients installs it.")
    return PYTHON


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served_scene(openai_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One gate and one client process for all cases of the module."""
    async with contextlib.AsyncExitStack() as closing:
        upstream = await closing.enter_async_context(ScriptedUpstream())
        gate = prepare(tmp_path_factory.mktemp("clients"), upstream.url, more=MORE)
        for name, plan in (("small-only", SMALL_ONLY), ("one-at-once", ONE_AT_ONCE), ("tiny", TINY)):
            gate.write_plan(name, plan)
        with (gate.folder / "policies" / "models.toml").open("a") as models:
            models.write(UNKEYED_MODEL)
        await closing.enter_async_context(serving(gate))
        tap = await closing.enter_async_context(Tap(gate.port))
        process = await asyncio.create_subprocess_exec(
            openai_python, "-I", HERE / "openai_program.py",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Scene(gate, upstream, tap, Program(process))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(DEADLINE_S):
                await process.wait()


@pytest.fixture
def scene(served_scene: Scene) -> Scene:
    """The module's gate with an upstream that has forgotten what came before."""
    served_scene.upstream.forget()
    return served_scene
