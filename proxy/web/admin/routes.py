"""What a route is. The listener and the OpenAPI document are both made from the same table of these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from proxy.billing.ports import Accounts
from proxy.domain.deeds import Deed, Role
from proxy.web.admin.bodies import Body, NoQuery
from proxy.web.admin.deps import AdminDeps

PREFIX = "/admin/v1"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose every part was checked: `body` and `query` are of the classes that its route names.

    Whatever is written is written by `deed`: hand it to the port that does it (`deps.tokens.by(asked.deed)`).
    """

    deps: AdminDeps
    path: Mapping[str, str]
    body: Any
    query: Any
    deed: Deed

    @property
    def accounts(self) -> Accounts:
        """The directory, as the actor of this request writes to it."""
        return self.deps.accounts.by(self.deed)


Handler = Callable[[Asked], Awaitable[Any]]


def _as_it_is(resource: Any) -> Any:
    return resource


@dataclass(frozen=True, slots=True)
class Route:
    """One method at one path.

    `answer` shapes or describes what the handler returns; None: an empty body, or with `media` plain bytes.
    `listed`: the handler returns a `Page`. `open`: no token is asked for. `least` is the role that it takes; if
    not given, read-only for GET and operator for all else. `reveals`: the answer holds a secret, shown once.

    ETags: `view` makes of the resource, as the audit log is told it, what `answer` shows; handlers return the
    resource. `volatile` names fields that come and go without a change, and are no part of the ETag.
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
    least: Role | None = None
    reveals: bool = False
    view: Callable[[Any], Any] = _as_it_is
    volatile: frozenset[str] = frozenset()

    @property
    def role(self) -> Role:
        return self.least or ("read-only" if self.reads else "operator")

    @property
    def reads(self) -> bool:
        return self.method == "GET"

    @property
    def tagged(self) -> bool:
        """Whether its answers carry an ETag: what a GET at the same place would answer."""
        if self.answer is None or self.listed or self.reveals or self.open:
            return False
        return self.reads or self.status == 201 or self.method in ("PATCH", "PUT")
