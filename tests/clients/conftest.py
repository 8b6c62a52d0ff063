"""One served gate for all clients, a scripted upstream behind it, and a tap before it for every call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from proxy.demo.scripted_upstream import ScriptedUpstream
from tests.clients.programs_running import Program, installed
from tests.clients.wire import Request, Tap
from tests.e2e.served import Gate, prepare, serving

PROMPT = "hello there"
PROGRAMS = {
    "openai-python": "python",
    "anthropic-python": "python",
    "langchain-openai": "python",
    "pydantic-ai": "python",
    "openai-agents": "python",
    "litellm": "litellm",
    "openai-node": "node",
    "anthropic-typescript": "node",
    "ai-sdk-openai": "node",
    "ai-sdk-openai-compatible": "node",
    "ai-sdk-anthropic": "node",
}

UPSTREAMS = """
[upstreams.anthropic]
base_url = "{root_url}"
[upstreams.chat-only]
wire = "openai"
base_url = "{url}"
api_key_env = "OPENAI_API_KEY"
endpoints = ["chat/completions"]
[upstreams.unkeyed]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "NO_SUCH_KEY"
"""
MODEL = """
[models."{name}"]
upstream = "{upstream}"
upstream_model = "{upstream_model}"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = {{ input = "1", output = "1" }}
"""
MODELS = (
    ("unkeyed", "unkeyed", "x"),
    ("embed", "openai", "text-embedding-3-small"),
    ("claude", "anthropic", "claude-haiku-4-5"),
    ("chat-only", "chat-only", "chat-only-upstream"),
)
PLANS = {
    "small-only": 'id = "small-only"\nname = "Small"\nmodels = ["small"]\n',
    "one-at-once": 'id = "one-at-once"\nname = "Slow"\nmodels = ["*"]\n[rate_limits]\nconcurrent_requests = 1\n',
    "one-call": """
id = "one-call"
name = "Once"
models = ["*"]
[[budgets]]
meter = "requests"
limit = 1
window = "P1M"
[denial]
message_exhausted = "Dear {plan} customer: you have had your {limit} call. More on {resets_at}."
""",
    "told-as-400": """
id = "told-as-400"
name = "Told"
models = ["*"]
[[budgets]]
meter = "tokens"
limit = 100
window = "lifetime"
[denial]
status = 400
""",
    "tiny": """
id = "tiny"
name = "Tiny"
models = ["*"]
[[budgets]]
meter = "tokens"
limit = 100
window = "lifetime"
[denial]
message_too_large = "Dear {plan} customer: {asked} {meter} asked, {remaining} left. Ask for at most {can_afford}."
""",
}


@dataclass
class Said:
    """What a client made of a call, and the requests that it made for it."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None
    requests: list[Request]

    def well(self) -> dict[str, Any]:
        assert self.result is not None, f"{self.error}"
        return self.result

    def refused(self) -> dict[str, Any]:
        assert self.error is not None, f"The client had an answer where a refusal was due: {self.result}"
        return self.error


@dataclass
class Stage:
    """A gate that serves, its upstream, and the programs that use a client each."""

    gate: Gate
    upstream: ScriptedUpstream
    programs: dict[str, Program] = field(default_factory=dict)
    customers: int = 0

    async def customer(self, plan: str = "starter") -> tuple[str, str]:
        """A customer of its own: its id and its agent's secret."""
        self.customers += 1
        id = f"customer-{self.customers}"
        return id, await self.gate.customer(id, plan)

    async def program(self, name: str) -> Program:
        if name not in self.programs:
            self.programs[name] = await Program.start(name)
        return self.programs[name]

    async def call(
        self, client: str, endpoint: str, case: str, secret: str, *, model: str = "small", limit: int | None = None
    ) -> Said:
        """Lets a client make a call through a tap of its own."""
        program = await self.program(PROGRAMS[client])
        async with Tap(self.gate.port) as tap:
            said = await program.run(
                client=client, endpoint=endpoint, case=case, url=tap.url, secret=secret, model=model,
                prompt=PROMPT, limit=limit,
            )  # fmt: skip
            return Said(said.get("result"), said.get("error"), tap.seen)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One gate and one process for each language, for all tests of clients."""
    if not installed():
        pytest.skip("The client libraries are not installed: make test-clients installs them.")
    async with contextlib.AsyncExitStack() as closing:
        upstream = await closing.enter_async_context(ScriptedUpstream())
        more = UPSTREAMS.format(url=upstream.url, root_url=upstream.root_url)
        gate = prepare(tmp_path_factory.mktemp("clients"), upstream.url, more=more)
        gate.environment["ANTHROPIC_API_KEY"] = "sk-ant-canary-provider-key-0123456789"
        for name, plan in PLANS.items():
            gate.write_plan(name, plan)
        with (gate.folder / "policies" / "models.toml").open("a") as models:
            for name, served_by, upstream_model in MODELS:
                models.write(MODEL.format(name=name, upstream=served_by, upstream_model=upstream_model))
        await closing.enter_async_context(serving(gate))
        stage = Stage(gate, upstream)
        try:
            yield stage
        finally:
            for program in stage.programs.values():
                await program.stop()


@pytest.fixture
def stage(served_stage: Stage) -> Stage:
    """The gate, with an upstream that has forgotten what came before."""
    served_stage.upstream.forget()
    return served_stage
