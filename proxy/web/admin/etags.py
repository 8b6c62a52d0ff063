"""ETags: whether a resource is still what the client has seen, compared where it is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from proxy.web.admin.errors import AdminError, bad_request
from proxy.web.admin.routes import Route
from proxy.web.admin.writing import encoded, shaped

_ONE = r'(?:W/)?"[\x21\x23-\x7e]*"'
_LIST = re.compile(rf"\s*{_ONE}(?:\s*,\s*{_ONE})*\s*")
_CONDITIONAL = ("PATCH", "PUT", "DELETE")


def tag_of(route: Route, resource: Any) -> str:
    """The strong ETag of a resource: a digest of what `route` answers of it."""
    seen = shaped(route, route.view(resource))
    if route.volatile:
        seen = {name: value for name, value in seen.items() if name not in route.volatile}
    return f'"{hashlib.sha256(encoded(seen)).hexdigest()[:32]}"'


def precondition(route: Route, shown_by: Route | None, headers: Mapping[str, str]) -> Callable[[Any], None] | None:
    """What must hold of the resource before it is written, by `If-Match`; None: nothing was asked.

    `shown_by` is the GET of the same path. A condition that cannot be kept is refused, never ignored.
    """
    given = headers.get("If-Match")
    if given is None or route.reads:
        return None
    if shown_by is None or route.method not in _CONDITIONAL:
        raise bad_request("invalid_value", "This route takes no If-Match: nothing here has an ETag.", "If-Match")
    wanted, shown = _tags(given, "If-Match"), shown_by

    def require(before: Any) -> None:
        present = None if before is None else tag_of(shown, before)
        if present is None or (wanted is not None and present not in wanted):
            raise AdminError(
                412,
                "precondition_failed",
                "This has changed since you have read it, so nothing was written. GET it again, and decide again.",
                param="If-Match",
                headers={"ETag": present} if present else {},
            )

    return require


def unchanged(route: Route, tag: str, headers: Mapping[str, str]) -> web.Response | None:
    """304, if that is what `If-None-Match` asks for."""
    given = headers.get("If-None-Match")
    if given is None or not route.reads or route.volatile:
        return None
    known = _tags(given, "If-None-Match")
    if known is not None and tag not in {name.removeprefix("W/") for name in known}:
        return None
    return web.Response(status=304, headers={"ETag": tag, "Cache-Control": "no-store"})


def _tags(given: str, header: str) -> frozenset[str] | None:
    """The ETags of a header; None for `*`, which is any. A weak one stays weak, and so is never equal."""
    if given.strip() == "*":
        return None
    if not _LIST.fullmatch(given):
        told = f'{header} takes ETags as they were given, in their quotes: "0a1b…", or *.'
        raise bad_request("invalid_value", told, header)
    return frozenset(re.findall(_ONE, given))
