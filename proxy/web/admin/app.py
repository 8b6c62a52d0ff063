"""The admin plane as an application: one table of routes, and what every request to it passes through."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from proxy import telemetry
from proxy.domain.deeds import BOOTSTRAP, Actor, AdminToken, Deed
from proxy.domain.ids import new_id
from proxy.web.admin import (
    agents,
    alerts,
    answers,
    audits,
    customers,
    entitlements,
    gate,
    grants,
    plan_edits,
    plans,
    subscriptions,
    tokens,
    usage,
    webhooks,
)
from proxy.web.admin.auth import Doorkeeper, Guard, network
from proxy.web.admin.deps import AdminDeps
from proxy.web.admin.errors import AdminError, from_port, no_route
from proxy.web.admin.etags import precondition, tag_of, unchanged
from proxy.web.admin.once import once
from proxy.web.admin.openapi import document
from proxy.web.admin.reading import BODY_BYTES_MAX, body_of, path_ids, query_of
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.writing import answer, refusal

DEADLINE_S = 25.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _table() -> tuple[Route, ...]:
    async def describe_api(asked: Asked) -> dict[str, Any]:
        return described

    itself = Route(
        "GET", f"{PREFIX}/openapi.json", describe_api, "This document.", answers.Document
    )  # fmt: skip
    table = (
        *customers.ROUTES, *subscriptions.ROUTES, *entitlements.ROUTES, *grants.ROUTES, *agents.ROUTES,
        *plans.ROUTES, *plan_edits.ROUTES, *usage.ROUTES, *tokens.ROUTES, *audits.ROUTES, *alerts.ROUTES,
        *webhooks.ROUTES, *gate.ROUTES, itself,
    )  # fmt: skip
    described = document(table)
    return table


ROUTES = _table()


def admin_app(deps: AdminDeps) -> web.Application:
    """The admin plane, to be run by an `AdminRunner` (`listener.py`) on a listener of its own."""
    guard = Guard(deps.token_digest, _finder(deps), deps.now)
    doorkeeper = Doorkeeper()
    doorman = _doorman(guard, deps)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_numbering(deps), _faults, doorman])
    for route in ROUTES:
        serve = _serving(route, deps, doorkeeper)
        app.router.add_route(route.method, route.path, serve)
        if route.reads:
            app.router.add_route("HEAD", route.path, serve)
    return app


def _serving(route: Route, deps: AdminDeps, doorkeeper: Doorkeeper) -> _Serve:
    async def serve(request: web.Request) -> web.StreamResponse:
        deed = _deed(route, request)
        if not route.open and (refused := doorkeeper.refuse(deed.actor, route)):
            if doorkeeper.worth_writing_down(deed.actor, route):
                await deps.audit_log.refused(deed)
            raise refused
        deed = replace(deed, precondition=precondition(route, _SHOWN.get(route.path), request.headers))
        ids = path_ids(request)
        query = query_of(request, route.query)
        body = await body_of(request, route.body) if route.body else None

        async def do(deed: Deed) -> web.Response:
            return _tagged(route, request, await route.handler(Asked(deps, ids, body, query, deed)))

        return await _told(ids, once(route, request, body, deps.idempotency, deed, do))

    return serve


async def _told(ids: dict[str, str], answering: Awaitable[web.Response]) -> web.Response:
    """The answer in time; a fault of a port becomes its refusal."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await answering
    except TimeoutError:
        raise AdminError(
            503, "timeout", f"No answer within {DEADLINE_S:.0f} s. A write may have been done: look first."
        ) from None
    except Exception as fault:
        told = from_port(fault, ids)
        if told is None:
            raise
        raise told from fault


def _deed(route: Route, request: web.Request) -> Deed:
    return Deed(
        actor=request.get(_ACTOR, Actor("", "", "system")),
        method=request.method,
        route=route.path,
        request_id=request[_REQUEST_ID],
        network=network(request.remote, 24),
    )


def _tagged(route: Route, request: web.Request, result: Any) -> web.Response:
    told = answer(route, result)
    if route.tagged:
        tag = tag_of(route, result)
        if same := unchanged(route, tag, request.headers):
            return same
        told.headers["ETag"] = tag
    return told


_OPEN_PATHS = frozenset(route.path for route in ROUTES if route.open)
_SHOWN = {route.path: route for route in ROUTES if route.reads and route.tagged}
_ACTOR = web.RequestKey("actor", Actor)
_REQUEST_ID = web.RequestKey("request_id", str)


def _finder(deps: AdminDeps) -> Callable[[str], Awaitable[AdminToken | None]]:
    async def find(text: str) -> AdminToken | None:
        digest = deps.digest_of(text)
        return None if digest is None else await deps.tokens.with_digest(digest)

    return find


def _doorman(guard: Guard, deps: AdminDeps) -> Any:
    @web.middleware
    async def check_token(request: web.Request, handler: _Serve) -> web.StreamResponse:
        if request.path not in _OPEN_PATHS:
            actor = await guard.check(request.headers.get("Authorization"), request.remote)
            if actor.id != BOOTSTRAP:
                deps.tokens.used(actor.id)
            request[_ACTOR] = actor
        return await handler(request)

    return check_token


def _numbering(deps: AdminDeps) -> Any:
    @web.middleware
    async def number(request: web.Request, handler: _Serve) -> web.StreamResponse:
        """Gives every request an id, by which its answer, the log and the audit log speak of it."""
        since_epoch = deps.now() - _EPOCH
        request[_REQUEST_ID] = new_id("req", int(since_epoch.total_seconds() * 1000), os.urandom(8))
        answered = await handler(request)
        answered.headers["x-request-id"] = request[_REQUEST_ID]
        return answered

    return number


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
        telemetry.logger("admin").exception(
            "request.failed", method=request.method, request_id=request[_REQUEST_ID]
        )
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
