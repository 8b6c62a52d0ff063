"""What the tests of a whole gate ask of it again and again: of both workers, of its counters, of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
from served import Answer, Gate, prepare, serving

from proxy.demo.scripted_upstream import ScriptedUpstream

# With SO_REUSEPORT the kernel picks a worker for each connection: that all of these meet one of two, 2^-31.
FRESH_CONNECTIONS = 32


@dataclass(frozen=True)
class House:
    """A served gate and the scripted upstream behind it."""

    gate: Gate
    upstream: ScriptedUpstream

    async def arrived(self, count: int) -> None:
        """Waits until the upstream has had that many calls."""
        async with asyncio.timeout(15):
            await self.upstream.arrived(count)

    async def ended(self) -> int:
        """Waits until the keeper has ended; its exit code."""
        assert self.gate.process is not None
        async with asyncio.timeout(20):
            return await self.gate.process.wait()


@contextlib.asynccontextmanager
async def open_house(
    folder: Path, plans: Mapping[str, str] | None = None, *, models: str | None = None, **how: Any
) -> AsyncIterator[House]:
    """Serves with these plans beside the usual one; `how` goes to `prepare`, `{upstream}` and `{upstream_root}` in
    `more` filled in."""
    async with ScriptedUpstream() as upstream:
        more = str(how.pop("more", "")).replace("{upstream}", upstream.url)
        more = more.replace("{upstream_root}", upstream.root_url)
        environment = how.pop("environment", {})
        gate = prepare(folder, upstream.url, more=more, **how)
        gate.environment.update(environment)
        for name, text in (plans or {}).items():
            gate.write_plan(name, text)
        if models is not None:
            (gate.folder / "policies" / "models.toml").write_text(models)
        async with serving(gate):
            yield House(gate, upstream)


def plan(id: str, budgets: Iterable[tuple[str, object]] = (), *, models: str = '["*"]', more: str = "") -> str:
    """A plan file. `budgets`: (meter, limit); a decimal limit as text. `more` comes before the tables."""
    tables = "".join(
        f'[[budgets]]\nid = "{meter}"\nmeter = "{meter}"\nlimit = {json.dumps(limit)}\nwindow = "P1M"\n'
        for meter, limit in budgets
    )
    return f'id = "{id}"\nname = "{id.title()}"\nmodels = {models}\n{more}\n{tables}'


async def until(what: Callable[[], Any], within_s: float = 10) -> Any:
    """Waits until `what` (a function or a coroutine function) gives something true, and returns it."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = what()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}; at last {found!r}")
        await asyncio.sleep(0.02)


async def health(gate: Gate) -> Any:
    return await gate.admin("GET", "/health")


async def apply_plan(gate: Gate, name: str, text: str) -> None:
    """Edits a plan file and waits until the edit is live."""
    before = (await health(gate))["policy_revision"]
    gate.write_plan(name, text)

    async def live() -> bool:
        return bool((await health(gate))["policy_revision"] > before)

    await until(live, 5)


async def budgets(gate: Gate, customer: str) -> dict[str, dict[str, Any]]:
    """The customer's budgets by meter."""
    entitlements = await gate.admin("GET", f"/customers/{customer}/entitlements")
    return {budget["meter"]: budget for budget in entitlements["budgets"]}


async def nothing_held(gate: Gate, customer: str, within_s: float = 10) -> dict[str, dict[str, Any]]:
    """The customer's budgets, once nothing of them is held any more."""

    async def free() -> dict[str, dict[str, Any]] | None:
        now = await budgets(gate, customer)
        return None if any(Decimal(str(b["held"])) for b in now.values()) else now

    found: dict[str, dict[str, Any]] = await until(free, within_s)
    return found


async def ledger_sums(gate: Gate, customer: str) -> dict[str, Any]:
    sums = (await gate.admin("GET", f"/usage?group_by=customer&customer_id={customer}"))["data"]
    return dict(sums[0]) if sums else {"attempts": 0, "input_tokens": 0, "output_tokens": 0}


async def assert_sound(gate: Gate) -> None:
    """What `faregate doctor` asks: every invariant holds."""
    found = await gate.admin("GET", "/invariants")
    assert found["ok"], [check for check in found["checks"] if not check["ok"]]


async def afresh(gate: Gate, secret: str | None, count: int = 1, **fields: Any) -> list[Answer]:
    """That many calls at once, each on a connection of its own that nobody used before."""
    body = {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **fields}
    headers = {"authorization": f"Bearer {secret}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one() -> Answer:
            async with session.post(gate.url + "/v1/chat/completions", json=body) as response:
                return Answer(response.status, response.headers, await response.read())

        return list(await asyncio.gather(*(one() for _ in range(count))))


async def of_every_worker(gate: Gate, secret: str, workers: int = 2, **fields: Any) -> set[int]:
    """The statuses of the next request, asked of every worker; by the log, each was really asked."""
    answers = await afresh(gate, secret, FRESH_CONNECTIONS, **fields)
    ids = {answer.headers["x-request-id"] for answer in answers}
    by = await processes_of(gate, ids)
    assert len(set(by.values())) == workers, f"only {set(by.values())} answered {len(ids)} connections"
    return {answer.status for answer in answers}


async def processes_of(gate: Gate, request_ids: set[str]) -> dict[str, str]:
    """Which process answered each request, by the log's one line per request."""

    def lines() -> dict[str, str] | None:
        found = {line["request_id"]: line["process"] for line in logged(gate, "request")}
        return {id: found[id] for id in request_ids} if request_ids <= found.keys() else None

    by: dict[str, str] = await until(lines)
    return by


def logged(gate: Gate, event: str) -> list[dict[str, Any]]:
    """The log's lines of this event, in order."""
    mark = f'"event":"{event}"'
    return [json.loads(line) for line in gate.log().splitlines() if mark in line and line.endswith("}")]


def worker_pids(gate: Gate) -> list[int]:
    """Of the workers that live, as the keeper has logged them."""
    return [pid for pid in (line["pid"] for line in logged(gate, "worker.ready")) if alive(pid)]


def store_pid(gate: Gate) -> int:
    """Of the embedded Valkey: its own word."""
    return int((gate.folder / "var" / "store" / "valkey.pid").read_text())


def alive(pid: int) -> bool:
    """Whether that process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def kill(pid: int, signal: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal)


def family(pid: int) -> set[int]:
    """A process and all that descend from it now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
