"""Writes what a handler returned as its route's answer: JSON, times in UTC with a Z, money as text."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from aiohttp import web

from proxy.web.admin.answers import Answer
from proxy.web.admin.errors import AdminError
from proxy.web.admin.routes import Route

# The answers hold secrets and customers' data: nothing between here and the reader may keep a copy.
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answer(route: Route, result: Any) -> web.Response:
    if route.answer is None:
        if isinstance(result, bytes):
            return web.Response(body=result, headers={**_HEADERS, "Content-Type": route.media})
        return web.Response(status=route.status, headers=_HEADERS)
    if route.listed:
        data = [shaped(route, route.view(item)) for item in result.data]
        return _json(route.status, {"data": data, "next_cursor": result.next_cursor})
    return _json(route.status, shaped(route, route.view(result)))


def refusal(fault: AdminError) -> web.Response:
    return _json(fault.status, fault.body(), fault.headers)


def replayed(status: int, body: str, headers: dict[str, str]) -> web.Response:
    """An answer that was given before."""
    given = {**_HEADERS, **headers, **({"Content-Type": "application/json"} if body else {})}
    return web.Response(status=status, body=body.encode(), headers=given)


def shaped(route: Route, item: Any) -> Any:
    """What goes out of `item`: the fields that the route's answer names."""
    model = route.answer
    return model.model_validate(item).model_dump() if model and issubclass(model, Answer) else item


def encoded(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=encoded(value),
        content_type="application/json",
        headers={**_HEADERS, **(headers or {})},
    )


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            utc = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
            return utc.isoformat().replace("+00:00", "Z")
        case Decimal():
            return format(value, "f")
        case set() | frozenset():
            return sorted(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no form on the wire")
