"""What the cold path and the pages need of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from proxy.domain.accounts import Agent, AgentSecret, AgentType, Contact, Customer
from proxy.domain.deeds import AdminToken, Deed, Role
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


class TooManyGrants(Exception):
    """A customer has as many grants that are not over as it may have."""

    def __init__(self, customer_id: str, most: int) -> None:
        super().__init__(
            f"Customer {customer_id!r} has {most} grants that are not over, which is the most. Void those that are"
            " used up, or give one larger grant instead of many small ones."
        )


class NotProjected(Exception):
    """Written down, but Redis is away: the gate will obey as soon as it is back."""


class ClaimLost(Exception):
    """The idempotency key of this write belongs to another by now; nothing was written."""


class BadCursor(Exception):
    """A cursor that no list has given out."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next_cursor` is None on the last."""

    data: Sequence[T]
    next_cursor: str | None


class Accounts(Protocol):
    """The directory. A write returns once the gate obeys it on every replica, or raises `NotProjected`."""

    def by(self, deed: Deed) -> Self:
        """The same directory, where every write is this deed: audited, and under its conditions."""
        ...

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


@dataclass(frozen=True, slots=True)
class PlanOwner:
    """Where a plan is edited. `file` is its file below `policies/`, of a plan that files own, if that is known."""

    owner: Literal["files", "store"]
    file: str | None


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A plan as it was at one version, when it became that (RFC 3339), by whose hand, and why."""

    plan: Plan
    applied_at: str
    applied_by: str
    message: str


class Plans(Protocol):
    """What is live, and plan versions as the ledger keeps them."""

    async def plans(self) -> Sequence[Plan]: ...

    async def plan(self, id: str) -> Plan: ...

    async def owners(self) -> Mapping[str, PlanOwner]:
        """Of every plan that is live, by its id; one that is not in it belongs to the files."""
        ...

    async def versions(self, id: str) -> Sequence[PlanVersion]:
        """Newest first, of a plan that is or was live; raises `NotFound`."""
        ...


class PlanFaults(Exception):
    """A plan that cannot be: at least one (path, sentence), as `("budgets[0].limit", "…")`."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in faults))
        self.faults = list(faults)


class OwnedByFiles(Exception):
    """The plan is edited as a file, so it cannot be changed here; `instead` says how else it can be."""

    def __init__(self, id: str, file: str | None, instead: str = "") -> None:
        place = f"policies/{file}" if file else "a file below policies/"
        instead = instead or f"edit that, or move it to the store with `faregate plans adopt {id} --to store`"
        super().__init__(f"The plan {id!r} is owned by files, it is written in {place}: {instead}.")
        self.id, self.file = id, file


class PlanInUse(Exception):
    """The plan cannot go while customers are on it, or would be: `customers` is 0 for the default plan."""

    def __init__(self, id: str, customers: int) -> None:
        who = "1 customer is" if customers == 1 else f"{customers:,} customers are"
        told = f"{who} on the plan {id!r}: put them on another one first."
        default = f"The plan {id!r} is for new customers (policies.default_plan): set another one first."
        super().__init__(told if customers else default)
        self.id, self.customers = id, customers


class FilesInTheWay(Exception):
    """The policy files do not allow it: another gate applies them, one is in the way, or none can be written."""


@dataclass(frozen=True, slots=True)
class AppliedFiles:
    """What the policy files change: (plan id, what there was, what there is), and what else is worth knowing."""

    plans: Sequence[tuple[str, Plan | None, Plan | None]]
    revision: int
    notices: Sequence[str]


class PlanEdits(Protocol):
    """Changes of plans. A document has the keys of a plan file. A write returns once the gate obeys it on every
    replica, or raises `NotProjected`; what does not fit raises `NotFound`, `AlreadyExists`, `OwnedByFiles`,
    `PlanInUse` or `FilesInTheWay`, and a faulty document `PlanFaults`."""

    async def read(self, document: Mapping[str, Any], id: str | None = None) -> Plan:
        """The plan that a document describes, at version 0; `id` is what it must be called, if known."""
        ...

    async def create(self, document: Mapping[str, Any], deed: Deed, message: str) -> Plan: ...

    async def replace(self, id: str, document: Mapping[str, Any], deed: Deed, message: str) -> Plan: ...

    async def delete(self, id: str, deed: Deed) -> None: ...

    async def roll_back(self, id: str, version: int, deed: Deed, message: str) -> Plan:
        """The content of an earlier version becomes the newest one."""
        ...

    async def adopt(self, id: str, to: Literal["files", "store"], deed: Deed) -> Sequence[str]:
        """Moves a plan to the files (which writes its file) or to the store (which puts its file aside).

        Returns what the admin should know of it, in sentences.
        """
        ...

    async def apply_files(self, dry_run: bool, deed: Deed, message: str) -> AppliedFiles:
        """Reads the policy files now and makes them live, or says what that would change."""
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


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that is given again. `body` None: it held a secret and was not kept. `etag` as on the wire."""

    status: int
    body: str | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an idempotency key was used for before.

    reused      for another request
    under_way   for this one, which is still being done
    answered    for this one; `answer` is what was answered
    done        for this one, which was written; its answer was lost with its process, or never given

    `resource` is what was written, as "customer acme", once it is known.
    """

    state: Literal["reused", "under_way", "answered", "done"]
    resource: str | None
    answer: KeptAnswer | None


class Idempotency(Protocol):
    """Idempotency keys, each the property of one admin token for 24 hours."""

    async def claim(self, token_id: str, key: str, fingerprint: str, claim: str) -> Earlier | None:
        """None: the key is ours now, marked by `claim`. `fingerprint` tells one request from another."""
        ...

    async def keep(self, token_id: str, key: str, claim: str, answer: KeptAnswer) -> None: ...

    async def release(self, token_id: str, key: str, claim: str) -> None:
        """Gives the key back if nothing was written under it."""
        ...


class AdminTokens(Protocol):
    """The tokens of the admin plane, but for the one that is given from outside."""

    def by(self, deed: Deed) -> Self: ...

    async def create(
        self, id: str, name: str, role: Role, digest: str, expires_at: datetime | None
    ) -> AdminToken: ...

    async def tokens(self) -> Sequence[AdminToken]:
        """All of them, revoked ones too, oldest first."""
        ...

    async def token(self, id: str) -> AdminToken: ...

    async def with_digest(self, digest: str) -> AdminToken | None: ...

    async def revoke(self, id: str) -> None: ...

    def used(self, id: str) -> None:
        """Notes that it was used just now; costs nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ChainHead:
    """An entry of the audit log and its hash, which seals all entries before it. `seq` 0: before the first."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """`entries` are as they were written; `fault` says what is wrong with the next, None: nothing."""

    entries: int
    head: ChainHead
    fault: str | None


class AuditLog(Protocol):
    """Who changed what. It is written by those who change; here it is read."""

    async def refused(self, deed: Deed) -> None:
        """Writes down that somebody tried what the role does not allow."""
        ...

    async def entries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        """Newest first; filters `resource_kind, resource_id, actor, outcome, from, to`, all optional."""
        ...

    async def verify(self, anchor: ChainHead | None = None, last: int | None = None) -> Verification:
        """Whether the log is as it was written: all of it, or its `last` entries."""
        ...
