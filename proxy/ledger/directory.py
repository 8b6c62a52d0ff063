"""The directory: customers, contacts, agent types, agents and what lets them in.

Each write is one transaction: the row, the customer's next revision, and a row in the outbox. It returns when
the outbox row was projected into Redis, hence when the gate obeys it everywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Select, Table, insert, select, type_coerce, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import BigInteger

from proxy.billing.ports import AlreadyExists, NotFound, Page
from proxy.domain.accounts import Agent, AgentSecret, AgentType, Contact, Customer
from proxy.domain.ids import new_id
from proxy.gateway.ports import Clock
from proxy.ledger.engine import reading, writing
from proxy.ledger.paging import after, page_of
from proxy.ledger.tables import agent_secrets, agent_types, agents, contacts, customers, micros, moment, outbox

T = TypeVar("T")
Make = Callable[[RowMapping], T]

ID_BYTES = 8
CHANGEABLE = frozenset(
    ("name", "email", "phone", "address", "description", "timezone", "status", "plan", "anchor")
)


class SqlAccounts:
    """Implements `Accounts`. `project` returns once an outbox row is projected, or raises `NotProjected`."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        project: Callable[[int], Awaitable[None]],
    ) -> None:
        self._engine, self._clock, self._random_bytes, self._project = engine, clock, random_bytes, project

    async def create_customer(self, fields: Mapping[str, Any]) -> Customer:
        now = self._now()
        given = {name: value for name, value in fields.items() if name != "id" and value is not None}
        _refuse_unknown(given, CHANGEABLE)
        row = {"status": "active", "timezone": "UTC", "anchor": now, **given}
        row |= {"id": fields.get("id") or self._new_id("cus"), "created_at": now, "revision": 1}
        async with writing(self._engine) as connection:
            await _insert(connection, customers, row, "customer")
            outbox_id = await _announce(connection, row["id"], now)
        await self._project(outbox_id)
        return await self.customer(row["id"])

    async def change_customer(self, id: str, changes: Mapping[str, Any]) -> Customer:
        _refuse_unknown(changes, CHANGEABLE)

        async def act(connection: AsyncConnection) -> None:
            if changes:
                await connection.execute(update(customers).where(customers.c.id == id).values(**changes))

        await self._change(id, act)
        return await self.customer(id)

    async def customer(self, id: str) -> Customer:
        return await self._one(customers, id, "customer", _customer)

    async def customers(self, limit: int, cursor: str | None) -> Page[Customer]:
        return await self._page(customers, limit, cursor, _customer)

    async def create_contact(self, customer_id: str, fields: Mapping[str, Any]) -> Contact:
        """The gate knows nothing of contacts, so nothing is projected."""
        row = {"name": None, "email": None, "phone": None, "description": None, **fields}
        row |= {"id": fields.get("id") or self._new_id("con"), "customer_id": customer_id}
        async with writing(self._engine) as connection:
            await _must_exist(connection, customers, customer_id, "customer")
            await _insert(connection, contacts, row | {"created_at": self._now()}, "contact")
        return await self._one(contacts, row["id"], "contact", _contact)

    async def contacts(self, customer_id: str, limit: int, cursor: str | None) -> Page[Contact]:
        await self.customer(customer_id)
        return await self._page(contacts, limit, cursor, _contact, contacts.c.customer_id == customer_id)

    async def create_agent_type(self, fields: Mapping[str, Any]) -> AgentType:
        """Nothing is projected: a new agent type has no agents yet."""
        row = {"description": None, **fields}
        row |= {"id": fields.get("id") or self._new_id("aty"), "created_at": self._now()}
        async with writing(self._engine) as connection:
            await _insert(connection, agent_types, row, "agent type")
        return await self._one(agent_types, row["id"], "agent type", _agent_type)

    async def agent_types(self, limit: int, cursor: str | None) -> Page[AgentType]:
        return await self._page(agent_types, limit, cursor, _agent_type)

    async def create_agent(self, fields: Mapping[str, Any]) -> Agent:
        row = {"description": None, "contact_id": None, **fields}
        row |= {"id": fields.get("id") or self._new_id("agt"), "created_at": self._now()}

        async def act(connection: AsyncConnection) -> None:
            await _must_exist(connection, agent_types, row["agent_type_id"], "agent type")
            if row["contact_id"] is not None:
                theirs = contacts.c.customer_id == row["customer_id"]
                await _must_exist(connection, contacts, row["contact_id"], "contact of this customer", theirs)
            await _insert(connection, agents, row, "agent")

        await self._change(row["customer_id"], act)
        return await self.agent(row["id"])

    async def agent(self, id: str) -> Agent:
        return await self._one(agents, id, "agent", _agent)

    async def agents(self, limit: int, cursor: str | None, customer_id: str | None = None) -> Page[Agent]:
        theirs = [] if customer_id is None else [agents.c.customer_id == customer_id]
        return await self._page(agents, limit, cursor, _agent, *theirs)

    async def create_secret(
        self, agent_id: str, secret_id: str, digest: str, expires_at: datetime | None
    ) -> AgentSecret:
        agent = await self.agent(agent_id)
        row = {"id": secret_id, "agent_id": agent_id, "digest": digest, "expires_at": expires_at}

        async def act(connection: AsyncConnection) -> None:
            await _insert(connection, agent_secrets, row | {"created_at": self._now()}, "secret")

        await self._change(agent.customer_id, act)
        return await self._one(agent_secrets, secret_id, "secret", _secret)

    async def secrets(self, agent_id: str) -> Sequence[AgentSecret]:
        """All of them, revoked ones too, oldest first."""
        await self.agent(agent_id)
        wanted = select(agent_secrets).where(agent_secrets.c.agent_id == agent_id)
        async with reading(self._engine) as connection:
            rows = await connection.execute(wanted.order_by(agent_secrets.c.created_at, agent_secrets.c.id))
            return [_secret(row) for row in rows.mappings()]

    async def revoke_secret(self, agent_id: str, secret_id: str) -> None:
        """A second revocation changes nothing, but is projected again: the first may have been `NotProjected`."""
        agent = await self.agent(agent_id)

        async def act(connection: AsyncConnection) -> None:
            its = agent_secrets.c.agent_id == agent_id
            await _must_exist(connection, agent_secrets, secret_id, "secret of this agent", its)
            live = (agent_secrets.c.id == secret_id) & agent_secrets.c.revoked_at.is_(None)
            await connection.execute(update(agent_secrets).where(live).values(revoked_at=self._now()))

        await self._change(agent.customer_id, act)

    async def _change(self, customer_id: str, act: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """One change of a customer. Its row is locked first, so that revisions follow the order of commits."""
        async with writing(self._engine) as connection:
            await _advance(connection, customer_id)
            await act(connection)
            outbox_id = await _announce(connection, customer_id, self._now())
        await self._project(outbox_id)

    async def _one(self, table: Table, id: str, kind: str, make: Make[T]) -> T:
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(table).where(table.c.id == id))).mappings().first()
        if row is None:
            raise NotFound(kind, id)
        return make(row)

    async def _page(
        self, table: Table, limit: int, cursor: str | None, make: Make[T], *conditions: ColumnElement[bool]
    ) -> Page[T]:
        key = (type_coerce(table.c.created_at, BigInteger), table.c.id)
        wanted: Select[Any] = select(table).where(*conditions).order_by(*key).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=False))
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["created_at"]), row["id"]))
        return Page([make(row) for row in page.data], page.next_cursor)

    def _now(self) -> datetime:
        return moment(self._clock.now_us())

    def _new_id(self, prefix: str) -> str:
        return new_id(prefix, self._clock.now_us() // 1000, self._random_bytes(ID_BYTES))


async def _insert(connection: AsyncConnection, table: Table, row: Mapping[str, Any], kind: str) -> None:
    _refuse_unknown(row, frozenset(table.c.keys()))
    try:
        await connection.execute(insert(table).values(**row))
    except IntegrityError as fault:
        # What the row points to was seen in this transaction, and nothing of it is ever deleted.
        if "unique" in str(fault.orig).lower():
            raise AlreadyExists(kind, row["id"]) from None
        raise


async def _must_exist(
    connection: AsyncConnection, table: Table, id: str, kind: str, *conditions: ColumnElement[bool]
) -> None:
    found = await connection.execute(select(table.c.id).where(table.c.id == id, *conditions))
    if found.first() is None:
        raise NotFound(kind, id)


async def _advance(connection: AsyncConnection, customer_id: str) -> None:
    advanced = update(customers).where(customers.c.id == customer_id).values(revision=customers.c.revision + 1)
    if (await connection.execute(advanced)).rowcount == 0:
        raise NotFound("customer", customer_id)


async def _announce(connection: AsyncConnection, customer_id: str, now: datetime) -> int:
    row = insert(outbox).values(customer_id=customer_id, created_at=now).returning(outbox.c.id)
    return int((await connection.execute(row)).scalar_one())


def _refuse_unknown(given: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"{unknown[0]!r} is no field of it; known are {', '.join(sorted(known))}")


def _customer(row: RowMapping) -> Customer:
    return Customer(**{name: value for name, value in row.items() if name != "revision"})


def _contact(row: RowMapping) -> Contact:
    return Contact(**row)


def _agent_type(row: RowMapping) -> AgentType:
    return AgentType(**row)


def _agent(row: RowMapping) -> Agent:
    return Agent(**row)


def _secret(row: RowMapping) -> AgentSecret:
    return AgentSecret(**row)
