"""An admin plane over the ports in memory, and a client of it that holds the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from proxy.web.admin.app import ROUTES
from proxy.web.admin.openapi import document
from tests.doubles.admin import TOKEN, AdminPlane
from tests.doubles.admin_on_sql import AdminPlaneOnSql

DOCUMENT = document(ROUTES)


class Reply:
    """What came back: status, headers, raw bytes, and the JSON in them."""

    def __init__(self, status: int, headers: Any, raw: bytes) -> None:
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self) -> Any:
        import orjson

        return orjson.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"}, self.raw
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return self.json["error"]


class Client:
    """Sends with the admin token unless told otherwise, and holds every answer against the OpenAPI document."""

    def __init__(self, plane: AdminPlane, session: aiohttp.ClientSession) -> None:
        self.plane, self.session = plane, session

    async def ask(self, method: str, path: str, json: Any = None, token: str | None = TOKEN, **more: Any) -> Reply:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        url = self.plane.url + (path if path.startswith(("/metrics", "/healthz")) else f"/admin/v1{path}")
        async with self.session.request(method, url, json=json, headers=headers, **more) as answer:
            reply = Reply(answer.status, answer.headers, await answer.read())
        hold_against_document(method, url.removeprefix(self.plane.url).partition("?")[0], reply)
        return reply


def hold_against_document(method: str, path: str, reply: Reply) -> None:
    for template, operations in DOCUMENT["paths"].items():
        if matches(template, path) and method.lower() in operations and reply.status < 600:
            described = operations[method.lower()]["responses"]
            assert str(reply.status) in described, f"{method} {template} never says {reply.status}"
            content = described[str(reply.status)].get("content", {})
            if "application/json" in content:
                schema = {**content["application/json"]["schema"], "components": DOCUMENT["components"]}
                Draft202012Validator(schema).validate(reply.json)
            return


def matches(template: str, path: str) -> bool:
    ours, theirs = template.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
async def plane() -> AsyncIterator[AdminPlane]:
    plane = await AdminPlane().start()
    yield plane
    await plane.stop()


@pytest.fixture
async def client(plane: AdminPlane) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(plane, session)


@pytest.fixture
async def sql_client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a plane on a ledger of its own."""
    plane = await AdminPlaneOnSql(f"sqlite:///{tmp_path}/ledger.db").start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(plane, session)
    await plane.stop()


@pytest.fixture
async def furnished(client: Client) -> Client:
    """A client of a plane that knows customer acme with contact ada, agent type research, agent scout,
    and a webhook endpoint home that was tested."""
    for path, body in (
        ("/customers", {"id": "acme", "name": "Acme Corp", "plan": "starter"}),
        ("/customers/acme/contacts", {"id": "ada", "name": "Ada", "email": "ada@acme.example"}),
        ("/agent-types", {"id": "research", "name": "Research Agent", "kind": "langgraph"}),
        ("/agents", {"id": "scout", "name": "Scout", "customer_id": "acme", "agent_type_id": "research"}),
        ("/webhook-endpoints", {"id": "home", "url": "https://example.com/hooks"}),
        ("/webhook-endpoints/home/test", None),
    ):
        assert (await client.ask("POST", path, body)).status == 201
    return client
