"""Routes by exact bytes, answers for everything else, and an orderly end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from data_plane import CHAT, SECRET, FixedClock, Plane, Shelf, echo, get, post

from proxy.domain.refusals import Refusal, Refused
from proxy.web.server import serve_data_plane


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/v1/models;x",
        "/v1/Models",
        "/V1/models",
        "/v1/../v1/models",
        "/v1/./models",
        "/v1/%6dodels",
        "/v1%2fmodels",
        "/%2e%2e/admin",
        "/v1/models%00",
        "/v1/chat/completions/",
        "/v1/chat",
        "/admin/v1/customers",
        "/metrics",
        "/v1/files",
        "/healthz/",
        "/v1/models%3Fx",
        "/v1/responses/",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/resp_1/input_items",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_other_path_is_404_in_json(plane: Plane, target: str, method: str) -> None:
    """What tidies paths can be talked into another path; nothing here is tidied, and nothing is forwarded."""
    answer = await plane.ask(get(target, method=method))
    assert (answer.status, answer.code) == (404, "unknown_url")
    assert plane.calls == []


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/models/gpt-4o-mini", "GET"),
        ("OPTIONS", "/v1/entitlements", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/v1/responses/resp_1", "GET, DELETE"),
    ],
)
async def test_a_known_path_with_another_method_is_405(plane: Plane, method: str, target: str, allow: str) -> None:
    answer = await plane.ask(get(target, method=method))
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_stored_response_is_asked_for_by_its_id(plane: Plane, method: str) -> None:
    """The id as it stands in the path, whatever it is: nothing is decoded."""
    answer = await plane.ask(get("/v1/responses/resp_%2F1?include=x", method=method))
    assert (answer.status, answer.json()) == (200, {method: "resp_%2F1"})


async def test_head_has_no_body(plane: Plane) -> None:
    """A body behind the answer to HEAD would be read as the next answer."""
    client = await plane.connect()
    await client.send(get("/healthz", method="HEAD") + get("/healthz"))
    assert (await client.answer(head_only=True)).status == 405
    assert (await client.answer()).status == 200


async def test_a_query_is_ignored(plane: Plane) -> None:
    assert (await plane.ask(post({}, path=f"{CHAT}?beta=true&x=/../"))).status == 200
    assert plane.calls[0].endpoint == CHAT
    assert (await plane.ask(get("/v1/models?limit=1"))).status == 200


async def test_models_are_listed_as_openai_does(plane: Plane) -> None:
    answer = await plane.ask(get("/v1/models"))
    assert answer.json()["object"] == "list"
    assert [model["id"] for model in answer.json()["data"]] == ["gpt-4o-mini", "acme/models/big"]
    assert answer.headers["x-request-id"] == "req_0001"


@pytest.mark.parametrize("path", ["gpt-4o-mini", "acme/models/big", "acme%2Fmodels%2Fbig", "acme/models/big?x=1"])
async def test_one_model_is_found_by_its_id(plane: Plane, path: str) -> None:
    """Ids may hold slashes, and clients encode them."""
    answer = await plane.ask(get(f"/v1/models/{path}"))
    assert (answer.status, answer.json()["object"]) == (200, "model")


@pytest.mark.parametrize("path", ["gpt-4", "GPT-4o-mini", "gpt-4o-mini/", "../models", "%252e"])
async def test_a_model_that_the_plan_does_not_have_is_404(plane: Plane, path: str) -> None:
    answer = await plane.ask(get(f"/v1/models/{path}"))
    assert (answer.status, answer.code) == (404, "model_not_found")


async def test_models_and_entitlements_ask_who_is_calling(plane: Plane) -> None:
    answer = await plane.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert (await plane.ask(get("/v1/entitlements"))).json() == {"customer_id": "acme"}


async def test_health_and_readiness(plane: Plane) -> None:
    assert (await plane.ask(get("/healthz"))).json() == {"status": "ok"}
    assert (await plane.ask(get("/readyz"))).json() == {"status": "ready", "details": {}}
    plane.missing = "Redis does not answer."
    answer = await plane.ask(get("/readyz"))
    assert (answer.status, answer.code) == (503, "not_ready")
    assert answer.json()["error"]["message"] == "Redis does not answer."
    assert (await plane.ask(get("/healthz"))).status == 200


async def test_a_refusal_of_the_journey_is_answered(plane: Plane) -> None:
    async def journey(call: Any) -> None:
        raise Refused(Refusal("budget", "Spent.", 402))

    plane.journey = journey
    client = await plane.connect()
    for _ in range(2):
        await client.send(post(b""))
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["x-should-retry"]) == (
            402,
            "insufficient_quota",
            "false",
        )


async def test_an_unexpected_exception_is_500_with_the_request_id_and_nothing_else(plane: Plane) -> None:
    """Its text may hold anything: it goes to telemetry, never to the client."""

    async def journey(call: Any) -> None:
        raise KeyError(SECRET)

    plane.journey = journey
    answer = await plane.ask(post({}))
    assert (answer.status, answer.code, answer.json()["error"]["type"]) == (500, "internal_error", "server_error")
    assert answer.headers["x-request-id"] == plane.calls[0].request_id
    assert b"canary" not in answer.raw_head + answer.body
    assert [type(fault) for fault in plane.faults] == [KeyError]
    plane.faults.clear()


async def test_an_exception_inside_a_stream_cuts_it(plane: Plane) -> None:
    async def journey(call: Any) -> None:
        await call.begin(200, {})
        await call.write(b"data: 1\n\n")
        raise ValueError

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    plane.faults.clear()


@pytest.mark.parametrize("begin", [False, True])
async def test_a_call_left_without_an_end_is_not_left_hanging(plane: Plane, begin: bool) -> None:
    """A forgotten answer would hold the client until its own timeout."""

    async def journey(call: Any) -> None:
        if begin:
            await call.begin(200, {})

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}, "Connection: close"))
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    assert [type(fault) for fault in plane.faults] == [RuntimeError]
    plane.faults.clear()


async def test_draining_lets_calls_finish_closes_idle_ones_and_accepts_no_more(plane: Plane) -> None:
    """A deploy must not cut an answer that a customer has paid for."""
    release = asyncio.Event()

    async def journey(call: Any) -> None:
        await release.wait()
        await echo(call)

    plane.journey = journey
    idle, busy = await plane.connect(), await plane.connect()
    await idle.send(get("/healthz"))
    await idle.answer()
    await busy.send(post({"a": 1}) + get("/readyz"))
    await plane.until(lambda: plane.plane.in_flight == 1)
    drained = asyncio.create_task(plane.plane.drain(5.0))
    assert await idle.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", plane.plane.port)
    release.set()
    answer = await busy.answer()
    assert (answer.json(), answer.headers["connection"]) == ({"a": 1}, "close")
    assert await busy.rest() == b""
    assert await drained == 0


async def test_readyz_says_503_while_draining(plane: Plane) -> None:
    """Asked on a connection that was already being answered when the drain began."""
    release = asyncio.Event()

    async def ready(call: Any) -> None:
        await release.wait()
        await plane.plane._routes._ready(call)

    plane.journey = ready
    client = await plane.connect()
    await client.send(post({}))
    await plane.until(lambda: plane.plane.in_flight == 1)
    drained = asyncio.create_task(plane.plane.drain(5.0))
    await asyncio.sleep(0)
    release.set()
    assert (await client.answer()).status == 503
    assert await drained == 0


async def test_what_outlives_the_drain_is_cut_and_counted(plane: Plane) -> None:
    forever = asyncio.Event()

    async def journey(call: Any) -> None:
        call.when_gone(forever.set)
        await forever.wait()

    plane.journey = journey
    clients = [await plane.connect() for _ in range(3)]
    for client in clients:
        await client.send(post({}))
    await plane.until(lambda: plane.plane.in_flight == 3)
    assert await plane.plane.drain(0.05) == 3
    assert [await client.rest() for client in clients] == [b"", b"", b""]


async def test_a_drain_waits_for_a_call_whose_client_has_left(plane: Plane) -> None:
    """It may still be settling: to count connections alone would end the process under it."""
    release = asyncio.Event()
    settled: list[bool] = []

    async def journey(call: Any) -> None:
        await release.wait()
        settled.append(True)

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    await plane.until(lambda: plane.plane.in_flight == 1)
    client.reset()
    await plane.until(lambda: plane.connections == 0)
    drained = asyncio.create_task(plane.plane.drain(5.0))
    await asyncio.sleep(0.01)
    assert not drained.done()
    release.set()
    assert await drained == 0
    assert settled == [True]


async def test_it_serves_on_a_given_socket_and_shares_a_port() -> None:
    """Workers share the port; the kernel spreads connections over them."""

    async def plane_on(**where: Any) -> Any:
        return await serve_data_plane(
            journey=echo,
            stored=None,
            catalogue=Shelf(),
            not_ready=lambda: None,
            new_request_id=lambda: "req_1",
            clock=FixedClock(),
            fault=lambda request_id, fault: None,
            **where,
        )

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    first = await plane_on(sock=sock)
    second = await plane_on(host="127.0.0.1", port=first.port, reuse_port=True)
    assert first.port == second.port
    assert [await first.drain(1.0), await second.drain(1.0)] == [0, 0]
