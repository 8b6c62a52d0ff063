"""The load generator, a process of its own: `python -m bench.load`.

It reads one job a line from stdin (JSON, the fields of `Job`) and answers each with one line of JSON, the fields
of `Outcome`. Every connection is kept alive and has one request in flight; a job ends at its time or its count,
whichever is first, and waits for what is in flight.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urlsplit

import uvloop

GRACE_S = 20.0
USER = "Summarise the following report for somebody who has five minutes. " + "Sales rose in the north. " * 24


@dataclass
class Job:
    """`count_max` and `seconds` bound it both."""

    url: str
    secret: str
    model: str
    connections: int
    streamed: bool
    seconds: float
    count_max: int
    headers: dict[str, str]


@dataclass
class Outcome:
    """What was done. For streams the latency is that of the first event.

    `reads`: how often a socket had something to read.
    """

    requests: int
    seconds: float
    events: int
    reads: int
    p50_ms: float
    p99_ms: float


def request_bytes(job: Job) -> bytes:
    """A chat request of about 1 kB with the headers that OpenAI's own Python client sends."""
    messages = [{"role": "system", "content": "You are a careful analyst."}, {"role": "user", "content": USER}]
    fields = {"messages": messages, "model": job.model, "max_tokens": 256, "temperature": 0.2}
    if job.streamed:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(fields, separators=(",", ":")).encode()
    target = urlsplit(job.url)
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.netloc}",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "Accept: application/json",
        "Content-Type: application/json",
        "User-Agent: OpenAI/Python 2.54.0",
        "X-Stainless-Lang: python",
        "X-Stainless-Package-Version: 2.54.0",
        "X-Stainless-OS: Linux",
        "X-Stainless-Arch: x64",
        "X-Stainless-Runtime: CPython",
        "X-Stainless-Runtime-Version: 3.11.7",
        f"Authorization: Bearer {job.secret}",
        "X-Stainless-Async: false",
        "x-stainless-retry-count: 0",
        "x-stainless-read-timeout: 600",
        *[f"{name}: {value}" for name, value in job.headers.items()],
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Run:
    """One job under way: what its connections share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.request = request_bytes(job)
        self.loop = asyncio.get_running_loop()
        self.latencies_s: list[float] = []
        self.events = self.reads = self.begun = 0
        self.until = self.loop.time() + job.seconds
        self.open = job.connections
        self.transports: list[asyncio.Transport] = []
        self.ended: asyncio.Future[None] = self.loop.create_future()

    @property
    def goes_on(self) -> bool:
        return self.begun < self.job.count_max and self.loop.time() < self.until

    def leave(self) -> None:
        self.open -= 1
        if not self.open and not self.ended.done():
            self.ended.set_result(None)

    def fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"{self.job.url}: {why}"))


class Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1: answers with a content-length, or chunked and ended in the same read."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._run.transports.append(self._transport)
        self._send()

    def _send(self) -> None:
        run = self._run
        if not run.goes_on:
            self._left = True
            self._transport.close()
            run.leave()
            return
        run.begun += 1
        self._wanted = -1
        self._got = b""
        self._first_s = 0.0
        self._sent_s = time.perf_counter()
        self._transport.write(run.request)

    def data_received(self, data: bytes) -> None:
        run = self._run
        run.reads += 1
        if self._wanted < 0:
            self._got += data
            end = self._got.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = self._got[:end].lower()
            if not head.startswith(b"http/1.1 200 "):
                run.fail(self._got[:400].decode("utf-8", "replace"))
                return
            at = head.find(b"content-length:")
            self._wanted = int(head[at + 15 : head.find(b"\r\n", at)]) if at >= 0 else 0
            self._got = self._got[end:]
            data = self._got
        elif self._wanted:
            self._got += data
        else:
            self._got = self._got[-4:] + data
        if self._wanted:
            if len(self._got) >= self._wanted:
                self._done(time.perf_counter() - self._sent_s)
            return
        if not self._first_s and data:
            self._first_s = time.perf_counter() - self._sent_s
        run.events += data.count(b"data: ")
        if self._got.endswith(b"0\r\n\r\n"):
            self._done(self._first_s)

    def _done(self, latency_s: float) -> None:
        self._run.latencies_s.append(latency_s)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._left:
            self._run.fail(f"the connection was closed while an answer was due ({exc})")


async def play(job: Job) -> Outcome:
    """Carries the job out; raises RuntimeError at the first answer that is not 200."""
    run = Run(job)
    host, _, port = urlsplit(job.url).netloc.partition(":")
    began_s = run.loop.time()
    for _ in range(job.connections):
        await run.loop.create_connection(lambda: Connection(run), host, int(port))
    try:
        async with asyncio.timeout(job.seconds + GRACE_S):
            await run.ended
    finally:
        for transport in run.transports:
            transport.abort()
    ordered = sorted(run.latencies_s)
    return Outcome(
        requests=len(ordered),
        seconds=run.loop.time() - began_s,
        events=run.events,
        reads=run.reads,
        p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    )


async def main() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = asdict(await play(Job(**json.loads(line))))
        except (RuntimeError, OSError, TimeoutError) as fault:
            answer = {"fault": str(fault) or type(fault).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
