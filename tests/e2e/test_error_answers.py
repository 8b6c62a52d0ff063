"""Errors exactly as in DESIGN 5.4: one table over every path and cause, on a served gate."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from refusals import MODELS, PLANS, ROWS, UPSTREAMS, WITHOUT_STORE, Row, plan_text
from served import Answer, Gate, prepare, serving
from yarl import URL

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.domain.secrets import SECRET_RANDOM_BYTES, make_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST_BYTE_TIMEOUT_S = 2


class Scene:
    """A gate, and a caller of each kind for it."""

    def __init__(self, gate: Gate, upstream: ScriptedUpstream) -> None:
        self.gate = gate
        self.upstream = upstream
        self.good = ""
        self.nobodies: dict[str, str] = {}
        self._count = 0

    async def caller(self, row: Row) -> tuple[dict[str, str], str]:
        """The headers that say who calls, and what the path has to have after it."""
        if row.who == "missing":
            return {}, ""
        if row.who == "two":
            return {"authorization": f"Bearer {self.good}", "x-api-key": "fg_live_another"}, ""
        if row.who == "query":
            return {}, f"?key={self.good}&api_key={self.good}"
        secret = self.nobodies.get(row.who)
        if secret is None:
            self._count += 1
            secret = await self.gate.customer(f"customer-{self._count}", row.plan)
        return {"authorization": f"Bearer {secret}"}, ""

    async def send(self, row: Row, headers: dict[str, str], more: str = "") -> Answer:
        assert self.gate.session is not None
        data = (
            row.body if isinstance(row.body, bytes) else b"" if row.body is None else json.dumps(row.body).encode()
        )
        # The target must arrive as it is written, and a body as what it is said to be.
        async with self.gate.session.request(
            row.method,
            URL(self.gate.url + row.path + more, encoded=True),
            headers={"content-type": "application/json", **headers, **row.headers},
            data=io.BytesIO(data) if data else None,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def meet_nobodies(self) -> None:
        self.good = await self.gate.customer("good")
        self.nobodies["malformed"] = self.good[:-1] + ("x" if self.good[-1] != "x" else "y")
        self.nobodies["unknown"] = make_secret(os.urandom(SECRET_RANDOM_BYTES))[1]
        self.nobodies["revoked"] = await self.gate.customer("revoked")
        [revoked] = (await self.gate.admin("GET", "/agents/revoked-agent/secrets"))["data"]
        await self.gate.admin("DELETE", f"/agents/revoked-agent/secrets/{revoked['id']}")
        self.nobodies["suspended"] = await self.gate.customer("suspended")
        await self.gate.admin("PATCH", "/customers/suspended", {"status": "suspended"})
        self.nobodies["expired"] = await self._expired()

    async def _expired(self) -> str:
        await self.gate.customer("expired")
        ends = datetime.now(UTC) + timedelta(seconds=1)
        body = {"expires_at": ends.isoformat()}
        secret = str((await self.gate.admin("POST", "/agents/expired-agent/secrets", body))["secret"])
        while datetime.now(UTC) <= ends + timedelta(milliseconds=50):
            await asyncio.sleep(0.05)
        return secret


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with ScriptedUpstream() as upstream:
        more = f"first_byte_timeout_s = {FIRST_BYTE_TIMEOUT_S}\n{UPSTREAMS}"
        gate = furnished(tmp_path_factory.mktemp("errors"), upstream, more)
        async with serving(gate):
            made = Scene(gate, upstream)
            await made.meet_nobodies()
            yield made


def furnished(folder: Path, upstream: ScriptedUpstream, more: str) -> Gate:
    gate = prepare(folder, upstream.url, more=more)
    with (folder / "policies" / "models.toml").open("a") as models:
        models.write(MODELS)
    for name in PLANS:
        gate.write_plan(name, plan_text(name))
    return gate


@contextlib.asynccontextmanager
async def beforehand(row: Row, scene: Scene, headers: dict[str, str]) -> AsyncIterator[None]:
    """The call that made the limit bite: it was answered, or is still on its way."""
    if row.first == "answered":
        assert (await scene.send(Row("", 200, "", ""), headers)).status == 200
    if row.first != "held":
        yield
        return
    scene.upstream.hold()
    held = asyncio.create_task(scene.send(Row("", 200, "", "", body=row.body), headers))
    try:
        await scene.upstream.arrived(1)
        yield
    finally:
        scene.upstream.release()
        assert (await held).status == 200


def error_of(answer: Answer, row: Row) -> dict[str, Any]:
    """The error object, when its answer is what the row says it must be."""
    said = answer.json()
    assert list(said) == ["error"]
    error: dict[str, Any] = said["error"]
    assert (answer.status, error["type"], error["code"], error["param"]) == (
        row.status,
        row.type,
        row.code,
        row.param,
    )
    assert row.says in error["message"]
    assert error["message"].endswith(".") or error["message"].endswith(")."), error["message"]
    budget = {"budget"} if row.type == "insufficient_quota" else set()
    assert set(error) == {"message", "type", "param", "code"} | budget
    return error


def check_headers(answer: Answer, row: Row) -> None:
    """What clients act on is there where it is due, and nowhere else."""
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers.get("x-should-retry") == ("false" if row.told_not_to_retry else None)
    assert ("retry-after" in headers) == row.told_to_wait
    assert 1 <= int(headers.get("retry-after", "1")) <= 60
    assert ("allow" in headers) == (row.status == 405)
    assert ("www-authenticate" in headers) == (row.status == 401)
    unwanted = ("retry-after-ms", "x-ratelimit-reset", "ratelimit-reset", "server", "faregate-model")
    assert [name for name in headers if name.lower().startswith(unwanted)] == []


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_refusal_is_as_the_contract_says(scene: Scene, row: Row) -> None:
    """Clients branch on status and code, and their users read the sentence: each is part of the contract."""
    scene.upstream.forget()
    headers, more = await scene.caller(row)
    async with beforehand(row, scene, headers):
        before = len(scene.upstream.calls)
        if row.script is not None:
            scene.upstream.script(row.script)
        answer = await scene.send(row, headers, more)
        error = error_of(answer, row)
        check_headers(answer, row)
        assert len(scene.upstream.calls) - before == row.reaches
    if row.type == "insufficient_quota":
        check_budget(error["budget"])


def check_budget(budget: dict[str, Any]) -> None:
    assert set(budget) == {
        "meter", "per", "limit", "used", "held", "asked", "can_afford", "resets_at", "upgrade_url",
    }  # fmt: skip
    assert isinstance(budget["can_afford"], int)
    assert isinstance(budget["asked"], str if budget["meter"] == "cost_usd" else int)


async def test_whoever_is_nobody_learns_nothing(scene: Scene) -> None:
    """Missing, malformed, unknown, revoked and expired secrets are told apart by nothing but the request id."""
    bodies = set()
    for who in ("missing", "malformed", "unknown", "revoked", "expired", "two", "query"):
        row = Row(who, 401, "invalid_request_error", "invalid_api_key", who=who)
        headers, more = await scene.caller(row)
        bodies.add((await scene.send(row, headers, more)).body)
    assert len(bodies) == 1


async def test_nothing_of_the_refused_is_left_held(scene: Scene) -> None:
    """A refusal that kept its hold would eat the budget of the next request."""
    invariants = await scene.gate.admin("GET", "/invariants")
    assert invariants["ok"], invariants
    events = {event["request_id"] for event in (await scene.gate.admin("GET", "/usage-events?limit=1000"))["data"]}
    assert events


async def test_without_its_store_the_gate_says_so_at_once(
    tmp_path: Path, start_valkey: Callable[..., Any]
) -> None:
    """Nothing is forwarded that cannot be counted, and no client has to wait to learn it."""
    store = start_valkey()
    async with ScriptedUpstream() as upstream:
        more = f'first_byte_timeout_s = {FIRST_BYTE_TIMEOUT_S}\n{UPSTREAMS}\n[redis]\nurl = "{store.url}"\n'
        async with serving(furnished(tmp_path, upstream, more)) as gate:
            scene = Scene(gate, upstream)
            scene.nobodies["good"] = await gate.customer("good")
            await scene.send(Row("", 200, "", ""), {"authorization": f"Bearer {scene.nobodies['good']}"})
            upstream.forget()
            store.kill()
            for row in WITHOUT_STORE:
                answer = await scene.send(row, (await scene.caller(row))[0])
                error_of(answer, row)
                check_headers(answer, row)
            ready = await gate.get("/readyz")
            error_of(ready, Row("not_ready", 503, "server_error", "not_ready"))
            assert (await gate.get("/healthz")).status == 200
            assert upstream.calls == []
