"""Who changes what: the actor behind an admin token, and the deed that is asked.

A `Deed` goes explicitly from the request to the transaction that does it, where `ledger.audit_log.audit` writes it
down together with the change itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

Role = Literal["owner", "operator", "read-only"]
ROLES: tuple[Role, ...] = ("read-only", "operator", "owner")
"""From the least to the most: each may do all that those before it may."""

BOOTSTRAP = "bootstrap"
"""The id of the token that is no row of any table: `FAREGATE_ADMIN_TOKEN`, or the generated one."""

HIDDEN = frozenset(("digest", "secret", "token", "password"))
"""Fields whose values are never written down, wherever they stand."""


def may(role: Role, least: Role) -> bool:
    return ROLES.index(role) >= ROLES.index(least)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: an admin token, or the gate itself (`role` "system")."""

    id: str
    name: str
    role: Role | Literal["system"]


@dataclass(frozen=True, slots=True)
class AdminToken:
    """What is kept of an admin token: never the token itself. `digest` is the keyed digest in hex.

    `created_by` is the id of the token that made it. `last_used_at` is right to within a minute or so.
    """

    id: str
    name: str
    role: Role
    digest: str
    created_at: datetime | None
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def lets_in(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Deed:
    """One write as it was asked: by whom, through which route, from where.

    `network` is the client's /24 or /64. `claim` marks the `idempotency_key` as being ours to use. `precondition`
    takes the resource as it stands inside the transaction (None: there is none) and raises if it is not the one
    that the client has seen.
    """

    actor: Actor
    method: str
    route: str
    request_id: str = ""
    network: str = ""
    idempotency_key: str | None = None
    claim: str | None = None
    precondition: Callable[[Any], None] | None = None

    def require(self, before: Any) -> None:
        if self.precondition is not None:
            self.precondition(before)


def by_the_gate(what: str) -> Deed:
    """A deed that nobody asked over the admin plane: `what` did it, as "policy files"."""
    return Deed(Actor("system", what, "system"), "", "")


def difference(before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """What changed of a resource (a dataclass, a mapping, or None where there is none), field by field.

    `{"plan": {"from": "starter", "to": "pro"}}`, in JSON's own types; fields that are equal are left out.
    """
    old, new = _plain_fields(before), _plain_fields(after)
    return {
        name: {"from": _shown(name, old.get(name)), "to": _shown(name, new.get(name))}
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def _plain_fields(resource: Any) -> dict[str, Any]:
    if resource is None:
        return {}
    if isinstance(resource, Mapping):
        return {str(name): _plain(value) for name, value in resource.items()}
    return {field.name: _plain(getattr(resource, field.name)) for field in fields(resource)}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Decimal():
            return format(value, "f")
        case set() | frozenset():
            return sorted(_plain(item) for item in value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(name): _shown(str(name), _plain(item)) for name, item in value.items()}
        case _ if is_dataclass(value):
            return {name: _shown(name, item) for name, item in _plain_fields(value).items()}
        case _:
            return value


def _shown(name: str, value: Any) -> Any:
    return "(hidden)" if name in HIDDEN and value is not None else value
