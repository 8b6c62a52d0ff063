"""Reads a request into what its route asked for, and says what is wrong with it otherwise."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import jiter
import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.billing.ports import Page
from proxy.web.admin.errors import AdminError, bad_cursor, bad_request, missing
from proxy.web.admin.values import is_id, nearest

T = TypeVar("T")

BODY_BYTES_MAX = 1_000_000
BODY_WAIT_S = 30.0


def path_ids(request: web.Request) -> dict[str, str]:
    """The ids in the path; what cannot be an id names nothing that exists."""
    ids = dict(request.match_info)
    for name, value in ids.items():
        if not is_id(value):
            raise missing(name.removesuffix("_id").replace("_", " "), value)
    return ids


def query_of(request: web.Request, model: type[BaseModel]) -> BaseModel:
    """The query string as `model`; a parameter that is unknown or given twice is refused."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise bad_request("invalid_value", f"The parameter {name[:64]!r} is given more than once.", name[:64])
    return _validated(model, "parameter", lambda: model.model_validate(dict(request.query)))


async def body_of(request: web.Request, model: type[BaseModel]) -> BaseModel:
    """The JSON body as `model`; raises `AdminError` 400, 408, 413 or 415."""
    if request.content_type != "application/json":
        raise AdminError(415, "unsupported_media_type", "Send the body as Content-Type: application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise AdminError(415, "unsupported_encoding", "Send the body as it is, without a Content-Encoding.")
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            raw = await request.read()
    except TimeoutError:
        raise AdminError(408, "body_timeout", f"The body did not arrive within {BODY_WAIT_S:.0f} s.") from None
    try:
        read = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as fault:
        raise bad_request("invalid_json", f"The body is no JSON: {fault}.") from None
    if not isinstance(read, dict):
        raise bad_request("invalid_json", "The body must be a JSON object: {…}.")
    try:
        plain = orjson.dumps(read)
    except TypeError:
        raise bad_request("invalid_value", "A number in the body is beyond 64 bits.") from None
    # By JSON's own types: "false" is no boolean, and 1 is none either.
    return _validated(model, "field", lambda: model.model_validate_json(plain, strict=True))


def _validated(model: type[BaseModel], what: str, validate: Callable[[], BaseModel]) -> BaseModel:
    try:
        return validate()
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _complaint(first, model, what) from None


def _complaint(fault: ErrorDetails, model: type[BaseModel], what: str) -> AdminError:
    param = ".".join(str(part) for part in fault["loc"])[:64] or None
    known = [field.alias or name for name, field in model.model_fields.items()]
    if fault["type"] == "extra_forbidden":
        hint = nearest(param or "", known) or _listing(known, what)
        return bad_request("unknown_parameter", f"There is no {what} {param!r} here.{hint}", param)
    if fault["type"] == "missing":
        return bad_request("missing_required_parameter", f"The {what} {param!r} is required.", param)
    reason = fault["msg"].removeprefix("Value error, ")
    told = f"The {what} {param!r} is wrong: {reason}" if param else f"{reason[0].upper()}{reason[1:]}"
    return bad_request("invalid_value", told if told.endswith((".", "?")) else f"{told}.", param)


def _listing(known: Sequence[str], what: str) -> str:
    return f" Known: {', '.join(known)}." if known else f" This route takes no {what}."


def sliced(items: Iterable[T], key: Callable[[T], str], limit: int, cursor: str | None) -> Page[T]:
    """One page of a list that is short enough to be held whole; pages follow the order of `key`."""
    after = None if cursor is None else _opened(cursor)
    rest = sorted((item for item in items if after is None or key(item) > after), key=key)
    page = rest[:limit]
    return Page(page, _sealed(key(page[-1])) if len(rest) > limit else None)


def _sealed(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise bad_cursor() from None
