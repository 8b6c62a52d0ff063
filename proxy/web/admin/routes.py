"""What a route is. The listener and the OpenAPI document are both made from the same table of these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from proxy.web.admin.bodies import Body, NoQuery
from proxy.web.admin.deps import AdminDeps

PREFIX = "/admin/v1"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose every part was checked: `body` and `query` are of the classes that its route names."""

    deps: AdminDeps
    path: Mapping[str, str]
    body: Any
    query: Any


Handler = Callable[[Asked], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method at one path.

    `answer` shapes or describes what the handler returns; None: an empty body, or with `media` plain bytes.
    `listed`: the handler returns a `Page`. `open`: no token is asked for.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[BaseModel] | None = None
    status: int = 200
    body: type[Body] | None = None
    query: type[Body] = NoQuery
    listed: bool = False
    media: str = "application/json"
    open: bool = False
    errors: tuple[int, ...] = ()
