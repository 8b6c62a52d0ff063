"""What users of Python client libraries write, run by tests/clients in an environment that has those libraries.

Each line of stdin is a call: `{"id", "client", "endpoint", "case", "url", "secret", "model", "prompt", "limit"}`.
Each is answered, as soon as it is known, with one line: `{"id", "result": ...}` or `{"id", "error": ...}`, the
exception as user code meets it. Results are in the test's own words, so that one test reads every client alike.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Any

MODULES = {
    "openai-python": "speak_openai",
    "anthropic-python": "speak_anthropic",
    "langchain-openai": "speak_langchain",
    "pydantic-ai": "speak_pydantic_ai",
    "openai-agents": "speak_agents",
    "litellm": "speak_litellm",
}


@dataclass(frozen=True)
class Call:
    """Where to call, as whom, and with what. `url` has no path; `limit` is that of the output, if any."""

    url: str
    secret: str
    model: str
    prompt: str
    limit: int | None

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def limited(self, name: str) -> dict[str, Any]:
        """The limit under the name that an endpoint has for it."""
        return {} if self.limit is None else {name: self.limit}


def told(error: BaseException) -> dict[str, Any]:
    """An exception by what user code can ask of it. `kinds` are the names that an `except` may use."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else {}
    return {
        "type": type(error).__name__,
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None) or (inner.get("code") if isinstance(inner, dict) else None),
        "message": str(error),
        "body": body,
    }


async def answer(asked: dict[str, Any]) -> dict[str, Any]:
    number, client, endpoint, case = (asked.pop(key) for key in ("id", "client", "endpoint", "case"))
    speaker = importlib.import_module(MODULES[client])
    try:
        return {"id": number, "result": await speaker.CASES[endpoint][case](Call(**asked))}
    except Exception as error:
        return {"id": number, "error": told(error)}


async def main() -> None:
    reader = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    out, running = sys.stdout, set()
    sys.stdout = sys.stderr  # some libraries print, and the answers are a channel of their own

    async def one(line: bytes) -> None:
        said = await answer(json.loads(line))
        out.write(json.dumps(said, default=str) + "\n")
        out.flush()

    while line := await reader.readline():
        task = asyncio.create_task(one(line))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
