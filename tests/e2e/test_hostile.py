"""Hostile connections and bodies against two served workers: refused in words, nothing told, nobody disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from refusals import CHAT, GOOD, Row, body_faults
from served import Gate, prepare, serving

from proxy.budgets.embedded import EmbeddedStore
from proxy.demo.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "fg_live_canary00001_secretthatnobodymayeversee0"
HEADERS_DEADLINE_S = 10.0
ANSWER_S = 5.0
FAULT_MS = 50.0
IDLE_CONNECTIONS = 300


@dataclass
class Scene:
    gate: Gate
    upstream: ScriptedUpstream
    secret: str
    store: Redis

    async def admitted(self) -> int:
        """How many reservations were ever made, by Redis's own count."""
        keys = [key async for key in self.store.scan_iter("faregate:*:shard")]
        return sum([int(await self.store.hget(key, "admitted") or 0) for key in keys])

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gate.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def say(self, data: bytes) -> bytes:
        """All that comes back until the gate closes."""
        async with self.connected() as (reader, writer), asyncio.timeout(ANSWER_S):
            writer.write(data)
            return await read_all(reader)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            received += data
    return received


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with ScriptedUpstream() as upstream:
        gate = prepare(tmp_path_factory.mktemp("hostile"), upstream.url, workers=2)
        async with serving(gate):
            store = Redis.from_url(EmbeddedStore(gate.folder / "var", "everysec").url)
            yield Scene(gate, upstream, await gate.customer("good"), store)
            await store.aclose()


def head(*lines: str, start: str = f"POST {CHAT} HTTP/1.1") -> bytes:
    bearer = f"Authorization: Bearer {CANARY}"
    return "\r\n".join([start, "Host: gate", bearer, "Content-Type: application/json", *lines, "", ""]).encode()


BODY = json.dumps(GOOD).encode()
LENGTH = f"Content-Length: {len(BODY)}"

MALFORMED: dict[str, bytes] = {
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/0.9 with headers": head("", start="GET /v1/models"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": head(LENGTH, start=f"POST {CHAT} HTTP/1.2") + BODY,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode(),
    "a header without a colon": head(f"X-Api-Key {CANARY}", LENGTH) + BODY,
    "a header with a space in its name": head(f"X Api Key: {CANARY}", LENGTH) + BODY,
    "a space before the colon": head(f"X-Api-Key : {CANARY}", LENGTH) + BODY,
    "a NUL in a value": head(f"X-Api-Key: {CANARY}\0", LENGTH) + BODY,
    "a bare CR in a value": head(f"X-Api-Key: {CANARY}\rX: y", LENGTH) + BODY,
    "a folded header": head("X-Note: a", f" {CANARY}", LENGTH) + BODY,
    "a line of 64 kB": head(f"X-Api-Key: {CANARY}{'a' * 65536}", LENGTH) + BODY,
    "two lengths": head(LENGTH, "Content-Length: 7") + BODY,
    "two equal lengths": head(LENGTH, LENGTH) + BODY,
    "a signed length": head("Content-Length: +5") + BODY,
    "a negative length": head("Content-Length: -5") + BODY,
    "a length with a word": head("Content-Length: 5 bytes") + BODY,
    "a length and chunks": head(LENGTH, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "an unknown transfer encoding": head("Transfer-Encoding: xchunked") + BODY,
    "chunks within chunks": head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "gzip within chunks": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "a chunk without a number": head("Transfer-Encoding: chunked") + b"xyz\r\n" + BODY,
    "a chunk longer than it says": head("Transfer-Encoding: chunked") + b"2\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an absolute target": head(LENGTH, start=f"POST http://gate{CHAT} HTTP/1.1") + BODY,
    "an absolute target elsewhere": head(LENGTH, start="GET http://169.254.169.254/latest HTTP/1.1") + BODY,
    "a target with a fragment": head(LENGTH, start=f"POST {CHAT}#x HTTP/1.1") + BODY,
    "a target that is a star": head(start="OPTIONS * HTTP/1.1"),
    "a tunnel": head(start="CONNECT gate:443 HTTP/1.1"),
    "a space in the target": head(LENGTH, start=f"POST {CHAT} x HTTP/1.1") + BODY,
}

ELSEWHERE = (
    "/v1/chat%2Fcompletions", "/v1%2fchat/completions", "/v1/chat/completions%00", "/v1/chat/completions/",
    "/v1/./chat/completions", "/v1/x/../chat/completions", "//v1/chat/completions", "/V1/chat/completions",
    "/%76%31/chat/completions", "/v1/chat/completions;x=1",
)  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
async def test_what_is_no_http_is_told_so_once_and_closed(scene: Scene, what: str) -> None:
    """One answer in JSON, with nothing of what was sent: it may hold a secret, and a second one smuggles."""
    calls = len(scene.upstream.calls)
    answer = await scene.say(MALFORMED[what])
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert b"connection: close" in start.lower()
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert answer.count(b"HTTP/1.1") == 1 + body.count(b"HTTP/1.1")
    assert b"canary" not in answer
    assert len(scene.upstream.calls) == calls


@pytest.mark.parametrize("target", ELSEWHERE)
async def test_a_target_is_taken_as_it_is_written(scene: Scene, target: str) -> None:
    """Decoding, folding or tidying a path is how a rule for one path is walked around by another."""
    request = f"POST {target} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {scene.secret}\r\n{LENGTH}\r\n"
    answer = await scene.say(request.encode() + b"Connection: close\r\n\r\n" + BODY)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"unknown_url"' in answer


async def test_a_second_request_behind_a_broken_first_is_never_answered(scene: Scene) -> None:
    """What follows bytes that two readers understand differently is the smuggled request."""
    second = f"GET /v1/models HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {scene.secret}\r\n\r\n".encode()
    for what in ("two lengths", "a length and chunks", "an unknown transfer encoding", "an absolute target"):
        assert (await scene.say(MALFORMED[what] + second)).count(b"HTTP/1.1 ") == 1, what


async def test_nothing_of_a_secret_in_a_malformed_request_is_logged(scene: Scene) -> None:
    """It may be a true secret, one space away from being a request."""
    for data in MALFORMED.values():
        await scene.say(data)
    assert CANARY not in scene.gate.log()
    assert "nobodymayeversee" not in scene.gate.log()
    assert "Traceback" not in scene.gate.log()


async def test_the_slow_and_the_silent_are_dropped_while_others_are_served(scene: Scene) -> None:
    """Ten seconds for a head, however it trickles; and whoever behaves notices nothing of it."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        silent = [group.create_task(outlasting(scene, b"", 0)) for _ in range(IDLE_CONNECTIONS)]
        trickling = [group.create_task(outlasting(scene, head(LENGTH), 1.0)) for _ in range(20)]
        unfinished = (head(LENGTH)[:40], b"GET /v1/models\r\n")
        halves = [group.create_task(outlasting(scene, data, 0)) for data in unfinished * 10]
        served = group.create_task(steadily(scene, HEADERS_DEADLINE_S - 1))
    for task in (*silent, *trickling, *halves):
        lasted_s, _ = task.result()
        assert HEADERS_DEADLINE_S - 1 <= lasted_s <= HEADERS_DEADLINE_S + 5
    assert {task.result()[1] for task in silent} == {b""}
    for task in (*trickling, *halves):
        assert task.result()[1].startswith(b"HTTP/1.1 408 ")
    latencies = served.result()
    assert len(latencies) > 50
    assert statistics.median(latencies) < 0.1
    assert time.monotonic() - began < HEADERS_DEADLINE_S + 6


async def outlasting(scene: Scene, data: bytes, byte_s: float) -> tuple[float, bytes]:
    """Sends all at once, or a byte at a time, and waits to be dropped: how long that took, and what was said."""
    async with scene.connected() as (reader, writer), asyncio.timeout(HEADERS_DEADLINE_S + 5):
        began = time.monotonic()
        reading = asyncio.ensure_future(read_all(reader))
        if byte_s:
            for byte in data:
                with contextlib.suppress(ConnectionError):
                    writer.write(bytes([byte]))
                if await finished_within(reading, byte_s):
                    break
        else:
            writer.write(data)
        received = await reading
        return time.monotonic() - began, received


async def finished_within(reading: asyncio.Future[bytes], seconds: float) -> bool:
    done, _ = await asyncio.wait([reading], timeout=seconds)
    return bool(done)


async def steadily(scene: Scene, for_s: float) -> list[float]:
    """A client that calls again and again; each latency in seconds."""
    latencies: list[float] = []
    ends = time.monotonic() + for_s
    while time.monotonic() < ends:
        began = time.monotonic()
        answer = await scene.gate.chat(scene.secret)
        latencies.append(time.monotonic() - began)
        assert answer.status == 200, answer.body
        await asyncio.sleep(0.05)
    return latencies


FAULTS = [
    *body_faults(),
    Row("unknown model", 404, "invalid_request_error", "model_not_found", body={**GOOD, "model": "nope"}),
    Row("another case", 404, "invalid_request_error", "model_not_found", body={**GOOD, "model": "Small"}),
]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.cause)
async def test_each_body_fault_is_refused_quickly_and_costs_nothing(scene: Scene, row: Row) -> None:
    """A body that is no request must take neither the loop's time nor anybody's budget."""
    body = row.body if isinstance(row.body, bytes) else b"" if row.body is None else json.dumps(row.body).encode()
    calls, admitted = len(scene.upstream.calls), await scene.admitted()
    took_ms = []
    for _ in range(5):
        answer, ms = await timed(scene, row, body)
        assert answer.startswith(f"HTTP/1.1 {row.status} ".encode()), answer[:300]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == row.code
        took_ms.append(ms)
    # The machine is shared: what the gate takes is what it took when nobody else was at work.
    assert min(took_ms) < FAULT_MS
    assert len(scene.upstream.calls) == calls
    assert await scene.admitted() == admitted


async def timed(scene: Scene, row: Row, body: bytes) -> tuple[bytes, float]:
    """The answer to a faulty body, and the ms until it came, beginning when the last byte was handed over.

    A body that is refused by its declared size is not read, so there it begins with the head.
    """
    given = {"content-type": "application/json", **row.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    start = (
        f"POST {CHAT} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {scene.secret}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{lines}\r\n"
    )
    async with scene.connected() as (reader, writer), asyncio.timeout(ANSWER_S):
        writer.write(start.encode())
        if row.status == 413:
            began = time.monotonic()
            answer = await reader.readuntil(b"\r\n\r\n")
            answer += await reader.readexactly(length_of(answer))
            return answer, 1000 * (time.monotonic() - began)
        if body:
            writer.write(body[:-1])
            await flushed(writer)
        began = time.monotonic()
        writer.write(body[-1:])
        answer = await read_all(reader)
        return answer, 1000 * (time.monotonic() - began)


async def flushed(writer: asyncio.StreamWriter) -> None:
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


def length_of(start: bytes) -> int:
    return next(int(line[16:]) for line in start.split(b"\r\n") if line.lower().startswith(b"content-length: "))


async def test_afterwards_every_invariant_holds(scene: Scene) -> None:
    """All of the above has left nothing behind."""
    invariants = await scene.gate.admin("GET", "/invariants")
    assert invariants["ok"], invariants
    assert "Traceback" not in scene.gate.log()
