"""What comes from the two ends: clients that leave at every chunk, usage reports that lie, streams of garbage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from typing import Any

from chaos_gate import Place, open_place
from chaos_oracle import judge
from chaos_table import Row, Scale
from garbage import garbage
from gatehouse import worker_pids
from raw_upstream import RawUpstream

from proxy.demo.scripts import Script

CHUNKS = 200
AT_ONCE = 25
KEPT_BYTES = 1 << 20


async def disconnects(scale: Scale, seed: int) -> Row:
    """A client that resets its connection when it has seen k chunks, for every k; in the small round every 8th."""
    points = range(0, CHUNKS + 2, 8 if scale == "small" else 1)
    repeats, dice, short = (1 if scale == "small" else 5), random.Random(seed), 0
    async with open_place() as place:
        place.upstream.script(Script(times=0, output_tokens=CHUNKS, chunk_delay_s=0.002))
        turn = asyncio.Semaphore(AT_ONCE)
        order = [(k, f"k{k}r{n}") for k in points for n in range(repeats)]
        dice.shuffle(order)
        seen = dict(await asyncio.gather(*(_leave_at(place, k, tag, dice, turn) for k, tag in order)))
        verdict = await judge(place, [], 30)
        by_tag: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in await place.rows():
            by_tag[row["user_id"]].append(row)
    for tag, chunks in seen.items():
        rows = by_tag[tag]
        terminal = [row for row in rows if row["kind"] == "terminal"]
        if len(terminal) != 1:
            verdict.against.append(f"{tag}: {len(terminal)} terminal rows")
        if sum(row["output_tokens"] for row in rows) < chunks:
            short += 1
            verdict.against.append(f"{tag}: saw {chunks}, recorded {[row['output_tokens'] for row in rows]}")
    counts = {"fewer tokens than delivered": short, **verdict.counts()}
    return Row("disconnects at every chunk of a 200-chunk stream", len(seen), counts, verdict.ok, verdict.against)


async def _leave_at(
    place: Place, chunks: int, tag: str, dice: random.Random, turn: asyncio.Semaphore
) -> tuple[str, int]:
    """Returns how many words were seen by the time of leaving."""
    fields = {"model": "small", "user": tag, "stream": True, "max_tokens": 1000}
    body = json.dumps({**fields, "messages": [{"role": "user", "content": "hello"}]}).encode()
    secret = place.secrets[dice.choice(sorted(place.secrets))]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {secret}\r\n"
    async with turn:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.gate.port)
        writer.write(
            f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )
        got, words = b"", 0
        with contextlib.suppress(OSError):
            while words < chunks:
                data = await reader.read(4096)
                got += data
                words = got.count(b'"content":"') - got.count(b'"content":""')
                if not data or b"[DONE]" in got:
                    break
            if chunks == 0:
                await writer.drain()
        if dice.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        return tag, words


HONEST = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
PROVIDERS, GUESSED, DISPUTED = ("provider", False), ("estimated", False), ("provider", True)


def _said(**wrong: Any) -> dict[str, Any]:
    return {**HONEST, **wrong}


# What a provider may say of usage -> how the row must call it: (usage_source, disputed).
REPORTS: dict[str, tuple[Any, tuple[str, bool]]] = {
    "honest": ("honest", PROVIDERS),
    "missing": ("absent", GUESSED),
    "null": ("null", GUESSED),
    "empty": ({}, GUESSED),
    "twice": ("twice", PROVIDERS),
    "cumulative": ("cumulative", PROVIDERS),
    "on a chunk with choices": ("on_choices", PROVIDERS),
    "negative": (_said(completion_tokens=-4), DISPUTED),
    "a string": (_said(completion_tokens="4"), DISPUTED),
    "a float": (_said(completion_tokens=4.5), DISPUTED),
    "a bool": (_said(completion_tokens=True), DISPUTED),
    "beyond 2^53": (_said(completion_tokens=2**60), DISPUTED),
    "contradictory": (_said(total_tokens=1), DISPUTED),
    "cached beyond prompt": (_said(prompt_tokens_details={"cached_tokens": 50}), DISPUTED),
    "reasoning beyond completion": (_said(completion_tokens_details={"reasoning_tokens": 50}), DISPUTED),
    "a list": ([4], GUESSED),
    "NaN": ("raw NaN", DISPUTED),
    "1e999": ("raw 1e999", DISPUTED),
}


async def usage_reports(scale: Scale, seed: int) -> Row:
    """Each report, in a plain answer and in a stream: never a crash, never zero, never called the provider's word
    where it is none; the absurd ones are disputed."""
    seen, against = Counter[str](), []
    async with open_place(workers=1) as place:
        pids = worker_pids(place.gate)
        for name, (report, _) in REPORTS.items():
            for streamed in (False, True):
                tag = f"{name} {'stream' if streamed else 'plain'}"
                place.upstream.script(_script(report, streamed))
                answer = await place.gate.chat(place.secrets["acme"], user=tag, stream=streamed, max_tokens=20)
                if answer.status != 200:
                    against.append(f"{tag}: answered {answer.status}")
        left = await place.settled_down()
        rows = {row["user_id"]: row for row in await place.rows()}
        against += await place.broken_invariants()
        if worker_pids(place.gate) != pids or left != (0, 0):
            against.append(f"the worker died, or something is left: {left}")
    for name, (_, wanted) in REPORTS.items():
        for tag in (f"{name} plain", f"{name} stream"):
            row = rows.get(tag)
            if row is None:
                against.append(f"{tag}: no row")
                continue
            said = (row["usage_source"], row["disputed"])
            seen[f"{said[0]}{', disputed' if said[1] else ''}"] += 1
            if said != wanted or not (row["disputed"] or row["input_tokens"] * row["output_tokens"]):
                against.append(f"{tag}: {said}, {row['input_tokens']}+{row['output_tokens']} tokens")
    return Row("usage reports of every kind", 2 * len(REPORTS), dict(seen), not against, against)


def _script(report: Any, streamed: bool) -> Script:
    if isinstance(report, str) and report.startswith("raw "):
        number = report.removeprefix("raw ")
        usage = f'{{"prompt_tokens":5,"completion_tokens":{number},"total_tokens":9}}'
        delta = '{"index":0,"finish_reason":"stop","%s":{"role":"assistant","content":"four words of text"}}'
        if streamed:
            chunk = f'{{"id":"x","model":"m","choices":[{delta % "delta"}]}}'
            last = f'{{"id":"x","model":"m","choices":[],"usage":{usage}}}'
            return Script(events=f"data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n")
        return Script(body=f'{{"id":"x","model":"m","choices":[{delta % "message"}],"usage":{usage}}}')
    return Script(usage=report, output_tokens=4)


async def garbage_streams(scale: Scale, seed: int) -> Row:
    """No crash, a terminal row for each, and an end that looks whole only where the upstream's was."""
    count, dice = (60 if scale == "small" else 500), random.Random(seed)
    files = {f"g{n}": garbage(dice) for n in range(count)}
    if scale == "full":
        files["long"] = garbage(dice, long_line=True)
    against, kinds = [], Counter(each.name for each in files.values())
    async with contextlib.AsyncExitStack() as opened:
        upstream = await opened.enter_async_context(RawUpstream({tag: g.answer for tag, g in files.items()}))
        async with open_place(workers=2, upstream_url=upstream.url) as place:
            pids = worker_pids(place.gate)
            turn = asyncio.Semaphore(AT_ONCE)
            ends = await asyncio.gather(*(_read_to_the_end(place, tag, turn) for tag in files))
            left = await place.settled_down()
            rows = Counter(row["user_id"] for row in await place.rows() if row["kind"] == "terminal")
            against += await place.broken_invariants()
            if worker_pids(place.gate) != pids or left != (0, 0):
                against.append(f"a worker died, or something is left: {left}")
    forged = 0
    for tag, (status, whole, ended) in zip(files, ends, strict=True):
        if (whole and not files[tag].ends_cleanly) or (ended and status == 200 and files[tag].answer.cut):
            forged += 1
            against.append(f"{tag} ({files[tag].name}): a clean end was forged")
        if rows[tag] != 1 or status not in (200, 502):
            against.append(f"{tag} ({files[tag].name}): answered {status}, {rows[tag]} terminal rows")
    counts = {**kinds, "forged ends": forged, "calls": len(upstream.calls), "rows": sum(rows.values())}
    return Row("upstream streams of garbage", len(files), counts, not against, against)


async def _read_to_the_end(place: Place, tag: str, turn: asyncio.Semaphore) -> tuple[int, bool, bool]:
    """The status, whether `[DONE]` was among the events, and whether the body ended without a word of an error."""
    assert place.gate.session is not None
    body = {"model": "small", "user": tag, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {place.secrets['acme']}"}
    url, got = f"{place.gate.url}/v1/chat/completions", b""
    async with turn, place.gate.session.post(url, json=body, headers=headers) as response:
        async for data in response.content.iter_any():
            got = got[-KEPT_BYTES:] + data
        events = got.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
        return response.status, any(_is_done(event) for event in events), b'"error"' not in got


def _is_done(event: bytes) -> bool:
    data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(data) == b"[DONE]"
