"""What the cold path and the pages need of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from proxy.domain.accounts import Agent, AgentSecret, AgentType, Contact, Customer
from proxy.domain.policy import Plan

T = TypeVar("T")


class NotFound(Exception):
    """No such thing: `kind` ("customer") and the id that was asked for."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"There is no {kind} {id!r}.")
        self.kind, self.id = kind, id


class AlreadyExists(Exception):
    """The id is taken."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"There is already a {kind} {id!r}.")
        self.kind, self.id = kind, id


class NotProjected(Exception):
    """Written down, but Redis is away: the gate will obey as soon as it is back."""


class BadCursor(Exception):
    """A cursor that no list has given out."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next_cursor` is None on the last."""

    data: Sequence[T]
    next_cursor: str | None


class Accounts(Protocol):
    """The directory. A write returns once the gate obeys it on every replica, or raises `NotProjected`."""

    async def create_customer(self, fields: Mapping[str, Any]) -> Customer:
        """`id` is made if absent; raises `AlreadyExists`. All other fields of `Customer` but `created_at`."""
        ...

    async def change_customer(self, id: str, changes: Mapping[str, Any]) -> Customer: ...

    async def customer(self, id: str) -> Customer: ...

    async def customers(self, limit: int, cursor: str | None) -> Page[Customer]: ...

    async def create_contact(self, customer_id: str, fields: Mapping[str, Any]) -> Contact: ...

    async def contacts(self, customer_id: str, limit: int, cursor: str | None) -> Page[Contact]: ...

    async def create_agent_type(self, fields: Mapping[str, Any]) -> AgentType: ...

    async def agent_types(self, limit: int, cursor: str | None) -> Page[AgentType]: ...

    async def create_agent(self, fields: Mapping[str, Any]) -> Agent: ...

    async def agent(self, id: str) -> Agent: ...

    async def agents(self, limit: int, cursor: str | None, customer_id: str | None = None) -> Page[Agent]: ...

    async def create_secret(
        self, agent_id: str, secret_id: str, digest: str, expires_at: datetime | None
    ) -> AgentSecret: ...

    async def secrets(self, agent_id: str) -> Sequence[AgentSecret]: ...

    async def revoke_secret(self, agent_id: str, secret_id: str) -> None: ...


class Plans(Protocol):
    """Plan versions as the ledger keeps them."""

    async def plans(self) -> Sequence[Plan]: ...

    async def plan(self, id: str) -> Plan: ...

    async def versions(self, id: str) -> Sequence[Mapping[str, Any]]:
        """Newest first: `version`, `applied_at`, `document`."""
        ...


class Reports(Protocol):
    """Questions asked of the record. Filters are those of DESIGN 5.5, all optional."""

    async def usage_events(
        self, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Page[Mapping[str, Any]]:
        """Newest first, in the shape of DESIGN 5.6."""
        ...

    async def usage(self, group_by: Sequence[str], filters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Sums by group: the group's keys, `requests`, `attempts`, the token sums and `cost_usd`."""
        ...

    async def denials(
        self, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Page[Mapping[str, Any]]: ...
