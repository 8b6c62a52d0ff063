"""The ledger's ports in memory: what the admin plane and the CLI are tested against."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from proxy.billing.ports import AlreadyExists, BadCursor, NotFound, NotProjected, Page, PlanOwner, PlanVersion
from proxy.domain.accounts import Agent, AgentSecret, AgentType, Contact, Customer
from proxy.domain.deeds import Deed, by_the_gate
from proxy.domain.policy import Budget, Plan, RateLimits

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class MemoryAccounts:
    """The directory in dictionaries. With `away` set, a write is done and then `NotProjected` is raised."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {
            kind: {} for kind in ("customer", "contact", "agent type", "agent", "secret")
        }
        self.away = False
        self.deed = by_the_gate("tests")

    def by(self, deed: Deed) -> MemoryAccounts:
        bound = copy.copy(self)
        bound.deed = deed
        return bound

    def _add(self, kind: str, made: Any) -> Any:
        if made.id in self.kept[kind]:
            raise AlreadyExists(kind, made.id)
        self.kept[kind][made.id] = made
        self._project()
        return made

    def _get(self, kind: str, id: str) -> Any:
        if id not in self.kept[kind]:
            raise NotFound(kind, id)
        return self.kept[kind][id]

    def _project(self) -> None:
        if self.away:
            raise NotProjected()

    def _with_id(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        prefix = kind.replace(" ", "_")
        return {"id": f"{prefix}_{len(self.kept[kind]) + 1}", "created_at": NOW, **fields}

    async def create_customer(self, fields: Mapping[str, Any]) -> Customer:
        return self._add("customer", Customer(**self._with_id("customer", fields)))

    async def change_customer(self, id: str, changes: Mapping[str, Any]) -> Customer:
        self.deed.require(self._get("customer", id))
        changed = replace(self._get("customer", id), **changes)
        self.kept["customer"][id] = changed
        self._project()
        return changed

    async def customer(self, id: str) -> Customer:
        return self._get("customer", id)

    async def customers(self, limit: int, cursor: str | None) -> Page[Customer]:
        return page(self.kept["customer"].values(), limit, cursor)

    async def create_contact(self, customer_id: str, fields: Mapping[str, Any]) -> Contact:
        self._get("customer", customer_id)
        return self._add("contact", Contact(customer_id=customer_id, **self._with_id("contact", fields)))

    async def contacts(self, customer_id: str, limit: int, cursor: str | None) -> Page[Contact]:
        self._get("customer", customer_id)
        mine = [contact for contact in self.kept["contact"].values() if contact.customer_id == customer_id]
        return page(mine, limit, cursor)

    async def create_agent_type(self, fields: Mapping[str, Any]) -> AgentType:
        return self._add("agent type", AgentType(**self._with_id("agent type", fields)))

    async def agent_types(self, limit: int, cursor: str | None) -> Page[AgentType]:
        return page(self.kept["agent type"].values(), limit, cursor)

    async def create_agent(self, fields: Mapping[str, Any]) -> Agent:
        self._get("customer", fields["customer_id"])
        self._get("agent type", fields["agent_type_id"])
        if fields["contact_id"] is not None:
            contact = self.kept["contact"].get(fields["contact_id"])
            if contact is None or contact.customer_id != fields["customer_id"]:
                raise NotFound("contact of this customer", fields["contact_id"])
        return self._add("agent", Agent(**self._with_id("agent", fields)))

    async def agent(self, id: str) -> Agent:
        return self._get("agent", id)

    async def agents(self, limit: int, cursor: str | None, customer_id: str | None = None) -> Page[Agent]:
        every = self.kept["agent"].values()
        return page([a for a in every if customer_id in (None, a.customer_id)], limit, cursor)

    async def create_secret(
        self, agent_id: str, secret_id: str, digest: str, expires_at: datetime | None
    ) -> AgentSecret:
        self._get("agent", agent_id)
        return self._add("secret", AgentSecret(secret_id, agent_id, digest, NOW, expires_at, None))

    async def secrets(self, agent_id: str) -> Sequence[AgentSecret]:
        self._get("agent", agent_id)
        return [secret for secret in self.kept["secret"].values() if secret.agent_id == agent_id]

    async def revoke_secret(self, agent_id: str, secret_id: str) -> None:
        self._get("agent", agent_id)
        if self._get("secret", secret_id).agent_id != agent_id:
            raise NotFound("secret", secret_id)
        self.deed.require(self._get("secret", secret_id))
        self.kept["secret"][secret_id] = replace(self.kept["secret"][secret_id], revoked_at=NOW)
        self._project()


class MemoryPlans:
    """Two plans, of which one has every kind of limit."""

    def __init__(self) -> None:
        budgets = (Budget("monthly-tokens", "tokens", 1_000_000), Budget("money", "cost_usd", 20_500_000))
        self.held = {
            "starter": Plan(
                "starter",
                "Starter",
                2,
                frozenset({"gpt-4o-mini"}),
                budgets,
                RateLimits(60, 100_000, 10),
                features={"priority": False},
            ),
            "pro": Plan("pro", "Pro", 1, None),
        }
        self.owned = {"starter": PlanOwner("files", "plans/starter.toml"), "pro": PlanOwner("store", None)}
        self.past: dict[str, list[Plan]] = {}

    async def plans(self) -> Sequence[Plan]:
        return list(self.held.values())

    async def plan(self, id: str) -> Plan:
        if id not in self.held:
            raise NotFound("plan", id)
        return self.held[id]

    async def owners(self) -> Mapping[str, PlanOwner]:
        return self.owned

    async def versions(self, id: str) -> Sequence[PlanVersion]:
        newest = await self.plan(id)
        past = self.past.get(id) or [
            replace(newest, version=version, name=f"{newest.name} {version}")
            for version in range(1, newest.version)
        ]
        return [PlanVersion(plan, "2026-11-20T00:00:00Z", "files", "") for plan in reversed([*past, newest])]


class MemoryReports:
    """Answers with the rows it holds, and remembers what it was asked."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [usage_event(n) for n in range(3)]
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def usage_events(
        self, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Page[Mapping[str, Any]]:
        self.asked.append(("usage_events", dict(filters)))
        return page(self.events, limit, cursor)

    async def usage(self, group_by: Sequence[str], filters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.asked.append(("usage", {"group_by": list(group_by), **filters}))
        sums = {"requests": 3, "attempts": 3, "input_tokens": 30, "output_tokens": 15, "cost_usd": "0.0000135"}
        return [{**({"model": "gpt-4o-mini"} if "model" in group_by else {}), **sums}]

    async def denials(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        self.asked.append(("denials", dict(filters)))
        row = {"minute": NOW, "customer_id": "acme", "agent_id": "scout", "model": "gpt-4o-mini"}
        return page([{**row, "reason": "budget", "shadow": False, "count": 4}], limit, cursor)


def usage_event(number: int) -> dict[str, Any]:
    return {
        "id": f"req_{number}:1",
        "request_id": f"req_{number}",
        "attempt": 1,
        "customer_id": "acme",
        "agent_id": "scout",
        "model": "gpt-4o-mini",
        "status": "succeeded",
        "usage_source": "provider",
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": "0.0000045",
        "finished_at": NOW,
    }


def page(items: Any, limit: int, cursor: str | None) -> Page[Any]:
    """Pages by position; the cursor is the position as text."""
    if not (cursor or "0").isdecimal():
        raise BadCursor()
    start = int(cursor or 0)
    every = list(items)
    following = start + limit
    return Page(every[start:following], str(following) if len(every) > following else None)
