"""The admin plane as an application: one table of routes, and what every request to it passes through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from proxy import telemetry
from proxy.web.admin import agents, answers, customers, gate, plans, usage
from proxy.web.admin.auth import Guard
from proxy.web.admin.deps import AdminDeps
from proxy.web.admin.errors import AdminError, from_port, no_route
from proxy.web.admin.openapi import document
from proxy.web.admin.reading import BODY_BYTES_MAX, body_of, path_ids, query_of
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.writing import answer, refusal

DEADLINE_S = 25.0

_Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _table() -> tuple[Route, ...]:
    async def describe_api(asked: Asked) -> dict[str, Any]:
        return described

    itself = Route(
        "GET", f"{PREFIX}/openapi.json", describe_api, "This document.", answers.Document
    )  # fmt: skip
    table = (*customers.ROUTES, *agents.ROUTES, *plans.ROUTES, *usage.ROUTES, *gate.ROUTES, itself)
    described = document(table)
    return table


ROUTES = _table()


def admin_app(deps: AdminDeps) -> web.Application:
    """The admin plane, to be run by an `AdminRunner` (`listener.py`) on a listener of its own."""
    guard = Guard(deps.token_digest)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_faults, _doorman(guard)])
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _serving(route, deps))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, _serving(route, deps))
    return app


def _serving(route: Route, deps: AdminDeps) -> _Serve:
    async def serve(request: web.Request) -> web.StreamResponse:
        ids = path_ids(request)
        query = query_of(request, route.query)
        body = await body_of(request, route.body) if route.body else None
        try:
            async with asyncio.timeout(DEADLINE_S):
                return answer(route, await route.handler(Asked(deps, ids, body, query)))
        except TimeoutError:
            raise AdminError(
                503, "timeout", f"No answer within {DEADLINE_S:.0f} s. A write may have been done: look first."
            ) from None
        except Exception as fault:
            told = from_port(fault, ids)
            if told is None:
                raise
            raise told from fault

    return serve


_OPEN_PATHS = frozenset(route.path for route in ROUTES if route.open)


def _doorman(guard: Guard) -> Any:
    @web.middleware
    async def check_token(request: web.Request, handler: _Serve) -> web.StreamResponse:
        if request.path not in _OPEN_PATHS:
            guard.check(request.headers.get("Authorization"), request.remote)
        return await handler(request)

    return check_token


@web.middleware
async def _faults(request: web.Request, handler: _Serve) -> web.StreamResponse:
    """Every way to fail becomes an answer in the shape of DESIGN 5.4; what nobody foresaw is also logged."""
    try:
        return await handler(request)
    except AdminError as fault:
        return refusal(fault)
    except web.HTTPException as fault:
        return _from_aiohttp(request, fault)
    except Exception:
        telemetry.logger("admin").exception("request.failed", method=request.method)
        return refusal(AdminError(500, "internal_error", "The gate failed at this; its log says why."))


def _from_aiohttp(request: web.Request, fault: web.HTTPException) -> web.Response:
    match fault:
        case web.HTTPNotFound():
            return refusal(no_route(request.path))
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(fault.allowed_methods))
            if request.method == "OPTIONS":
                return web.Response(status=204, headers={"Allow": allowed})
            told = f"{request.method[:16]} is not done here. Allowed: {allowed}."
            return refusal(AdminError(405, "method_not_allowed", told, headers={"Allow": allowed}))
        case web.HTTPRequestEntityTooLarge():
            return refusal(AdminError(413, "body_too_large", f"The body is above {BODY_BYTES_MAX:,} bytes."))
        case _:
            return refusal(AdminError(fault.status, "bad_request", "This request cannot be understood."))
