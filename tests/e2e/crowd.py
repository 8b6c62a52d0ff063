"""Client processes that fire many requests at once. As a program it is one of them, as a module it starts them.

Told on stdin, a line of JSON each: {"url", "shots": [[secret, body], ...]}. Answered on stdout, a line of JSON for
each answer as it comes: {"status", "id"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

Shot = tuple[str, dict[str, Any]]
LINE_BYTES_MAX = 1 << 24


class Crowd:
    """Client processes, kept for many rounds. `statuses` and `ids` are those of the round so far."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self._readers = [asyncio.create_task(self._hear(process)) for process in processes]
        self._news = asyncio.Condition()
        self.statuses: Counter[int] = Counter()
        self.ids: dict[int, list[str]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, count: int) -> AsyncIterator[Crowd]:
        pipe = asyncio.subprocess.PIPE
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__)), stdin=pipe, stdout=pipe, limit=LINE_BYTES_MAX
            )
            for _ in range(count)
        ]
        crowd = cls(processes)
        try:
            yield crowd
        finally:
            for process in processes:
                process.kill()
            await asyncio.gather(*crowd._readers, *(process.wait() for process in processes))

    def fire(self, url: str, shots: Sequence[Shot]) -> None:
        """All of them at once, dealt out among the processes."""
        self.statuses.clear()
        self.ids = {}
        for at, process in enumerate(self._processes):
            assert process.stdin is not None
            mine = shots[at :: len(self._processes)]
            process.stdin.write(json.dumps({"url": url, "shots": mine}).encode() + b"\n")

    async def answered(self, *statuses: int, count: int, within_s: float = 20) -> None:
        """Waits until that many answers have come with one of these statuses."""

        def enough() -> bool:
            return sum(self.statuses[status] for status in statuses) >= count

        async with self._news:
            try:
                async with asyncio.timeout(within_s):
                    await self._news.wait_for(enough)
            except TimeoutError:
                raise AssertionError(f"not {count} of {statuses} but {dict(self.statuses)}") from None

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            answer = json.loads(line)
            self.statuses[answer["status"]] += 1
            self.ids.setdefault(answer["status"], []).append(answer["id"])
            async with self._news:
                self._news.notify_all()


async def _fire(session: aiohttp.ClientSession, url: str, secret: str, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {secret}"}
    try:
        async with session.post(url, headers=headers, json=body) as response:
            await response.read()
            answer = {"status": response.status, "id": response.headers["x-request-id"]}
    except aiohttp.ClientError:
        answer = {"status": 0, "id": ""}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _client() -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        while line := await reader.readline():
            told = json.loads(line)
            await asyncio.gather(*(_fire(session, told["url"], secret, body) for secret, body in told["shots"]))


if __name__ == "__main__":
    asyncio.run(_client())
