"""The directory: customers, contacts, agent types, agents and what lets them in.

Each write is one transaction: the row, the customer's next revision, its entry in the audit log, and a row in the
outbox. It returns when the outbox row was projected into Redis, hence when the gate obeys it everywhere.
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
from proxy.domain.deeds import Deed, by_the_gate
from proxy.domain.ids import new_id
from proxy.gateway.ports import Clock
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import reading, writing
from proxy.ledger.paging import after, page_of
from proxy.ledger.subscription_history import SUBSCRIBED, customer_of, note, what_changed
from proxy.ledger.tables import agent_secrets, agent_types, agents, contacts, customers, micros, moment, outbox

T = TypeVar("T")
Make = Callable[[RowMapping], T]
Written = tuple[str, str, Any, Any]
"""Kind, id, and the resource before and after: what the audit log is told."""

ID_BYTES = 8
CHANGEABLE = frozenset(
    (
        "name", "email", "phone", "address", "description", "timezone", "status",
        "plan", "anchor", "subscribed", "overrides",
    )
)  # fmt: skip


class SqlAccounts:
    """Implements `Accounts`. `project` returns once an outbox row is projected, or raises `NotProjected`."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        project: Callable[[int], Awaitable[None]],
        deed: Deed | None = None,
    ) -> None:
        self.engine, self._clock, self._random_bytes, self._project = engine, clock, random_bytes, project
        self._deed = deed or by_the_gate("directory")

    def by(self, deed: Deed) -> SqlAccounts:
        return SqlAccounts(self.engine, self._clock, self._random_bytes, self._project, deed)

    async def create_customer(self, fields: Mapping[str, Any]) -> Customer:
        now = self.now()
        given = {name: value for name, value in fields.items() if name != "id" and value is not None}
        _refuse_unknown(given, CHANGEABLE)
        row = {"status": "active", "timezone": "UTC", "anchor": now, **given}
        row |= {"id": fields.get("id") or self.new_id("cus"), "created_at": now, "revision": 1}
        async with writing(self.engine) as connection:
            await insert_row(connection, customers, row, "customer")
            outbox_id = await _announce(connection, row["id"], now)
            made = await _read(connection, customers, row["id"], "customer", customer_of)
            await note(connection, "started" if made.subscribed else "created", None, made, now)
            await self._audit(connection, ("customer", made.id, None, made))
        await self._project(outbox_id)
        return made

    async def change_customer(self, id: str, changes: Mapping[str, Any]) -> Customer:
        """A plan that is named is from now on the subscription, and takes the place of a scheduled change."""
        _refuse_unknown(changes, CHANGEABLE)
        values = {**changes, **(SUBSCRIBED if "plan" in changes else {})}
        if changes.get("overrides"):
            values["overridden"] = True
        changed: Customer = await self.change(id, lambda connection: self._rewrite(connection, id, values))
        return changed

    async def _rewrite(self, connection: AsyncConnection, id: str, values: Mapping[str, Any]) -> Written:
        before = await _read(connection, customers, id, "customer", customer_of)
        if values:
            await connection.execute(update(customers).where(customers.c.id == id).values(**values))
        after = await _read(connection, customers, id, "customer", customer_of)
        if what := what_changed(before, after):
            await note(connection, what, before, after, self.now())
        return "customer", id, before, after

    async def customer(self, id: str) -> Customer:
        return await self._one(customers, id, "customer", customer_of)

    async def customers(self, limit: int, cursor: str | None) -> Page[Customer]:
        return await self._page(customers, limit, cursor, customer_of)

    async def create_contact(self, customer_id: str, fields: Mapping[str, Any]) -> Contact:
        """The gate knows nothing of contacts, so nothing is projected."""
        row = {"name": None, "email": None, "phone": None, "description": None, **fields}
        row |= {"id": fields.get("id") or self.new_id("con"), "customer_id": customer_id}
        async with writing(self.engine) as connection:
            await _must_exist(connection, customers, customer_id, "customer")
            await insert_row(connection, contacts, row | {"created_at": self.now()}, "contact")
            made = await _read(connection, contacts, row["id"], "contact", _contact)
            await self._audit(connection, ("contact", made.id, None, made))
        return made

    async def contacts(self, customer_id: str, limit: int, cursor: str | None) -> Page[Contact]:
        await self.customer(customer_id)
        return await self._page(contacts, limit, cursor, _contact, contacts.c.customer_id == customer_id)

    async def create_agent_type(self, fields: Mapping[str, Any]) -> AgentType:
        """Nothing is projected: a new agent type has no agents yet."""
        row = {"description": None, **fields}
        row |= {"id": fields.get("id") or self.new_id("aty"), "created_at": self.now()}
        async with writing(self.engine) as connection:
            await insert_row(connection, agent_types, row, "agent type")
            made = await _read(connection, agent_types, row["id"], "agent type", _agent_type)
            await self._audit(connection, ("agent_type", made.id, None, made))
        return made

    async def agent_types(self, limit: int, cursor: str | None) -> Page[AgentType]:
        return await self._page(agent_types, limit, cursor, _agent_type)

    async def create_agent(self, fields: Mapping[str, Any]) -> Agent:
        row = {"description": None, "contact_id": None, **fields}
        row |= {"id": fields.get("id") or self.new_id("agt"), "created_at": self.now()}

        async def act(connection: AsyncConnection) -> Written:
            await _must_exist(connection, agent_types, row["agent_type_id"], "agent type")
            if row["contact_id"] is not None:
                theirs = contacts.c.customer_id == row["customer_id"]
                await _must_exist(connection, contacts, row["contact_id"], "contact of this customer", theirs)
            await insert_row(connection, agents, row, "agent")
            return "agent", row["id"], None, await _read(connection, agents, row["id"], "agent", _agent)

        made: Agent = await self.change(row["customer_id"], act)
        return made

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

        async def act(connection: AsyncConnection) -> Written:
            await insert_row(connection, agent_secrets, row | {"created_at": self.now()}, "secret")
            made = await _read(connection, agent_secrets, secret_id, "secret", _secret)
            return "secret", secret_id, None, made

        made: AgentSecret = await self.change(agent.customer_id, act)
        return made

    async def secrets(self, agent_id: str) -> Sequence[AgentSecret]:
        """All of them, revoked ones too, oldest first."""
        await self.agent(agent_id)
        wanted = select(agent_secrets).where(agent_secrets.c.agent_id == agent_id)
        async with reading(self.engine) as connection:
            rows = await connection.execute(wanted.order_by(agent_secrets.c.created_at, agent_secrets.c.id))
            return [_secret(row) for row in rows.mappings()]

    async def revoke_secret(self, agent_id: str, secret_id: str) -> None:
        """A second revocation changes nothing, but is projected again: the first may have been `NotProjected`."""
        agent = await self.agent(agent_id)

        async def act(connection: AsyncConnection) -> Written:
            its = agent_secrets.c.agent_id == agent_id
            await _must_exist(connection, agent_secrets, secret_id, "secret of this agent", its)
            before = await _read(connection, agent_secrets, secret_id, "secret", _secret)
            live = (agent_secrets.c.id == secret_id) & agent_secrets.c.revoked_at.is_(None)
            await connection.execute(update(agent_secrets).where(live).values(revoked_at=self.now()))
            revoked = await _read(connection, agent_secrets, secret_id, "secret", _secret)
            return "secret", secret_id, before, revoked

        await self.change(agent.customer_id, act)

    async def change(self, customer_id: str, act: Callable[[AsyncConnection], Awaitable[Written]]) -> Any:
        """One change of a customer; returns what `act` made of it. Its row is locked first, so that revisions
        follow the order of commits, and what was compared with stays what it was."""
        async with writing(self.engine) as connection:
            await _advance(connection, customer_id)
            written = await act(connection)
            outbox_id = await _announce(connection, customer_id, self.now())
            await self._audit(connection, written)
        await self._project(outbox_id)
        return written[-1]

    async def _audit(self, connection: AsyncConnection, written: Written) -> None:
        kind, id, before, after = written
        await audit(connection, self._deed, self.now(), kind, id, before, after)

    async def _one(self, table: Table, id: str, kind: str, make: Make[T]) -> T:
        async with reading(self.engine) as connection:
            return await _read(connection, table, id, kind, make)

    async def _page(
        self, table: Table, limit: int, cursor: str | None, make: Make[T], *conditions: ColumnElement[bool]
    ) -> Page[T]:
        key = (type_coerce(table.c.created_at, BigInteger), table.c.id)
        wanted: Select[Any] = select(table).where(*conditions).order_by(*key).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=False))
        async with reading(self.engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["created_at"]), row["id"]))
        return Page([make(row) for row in page.data], page.next_cursor)

    def now(self) -> datetime:
        return moment(self._clock.now_us())

    def new_id(self, prefix: str) -> str:
        return new_id(prefix, self._clock.now_us() // 1000, self._random_bytes(ID_BYTES))


async def _read(connection: AsyncConnection, table: Table, id: str, kind: str, make: Make[T]) -> T:
    row = (await connection.execute(select(table).where(table.c.id == id))).mappings().first()
    if row is None:
        raise NotFound(kind, id)
    return make(row)


async def insert_row(connection: AsyncConnection, table: Table, row: Mapping[str, Any], kind: str) -> None:
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


def _contact(row: RowMapping) -> Contact:
    return Contact(**row)


def _agent_type(row: RowMapping) -> AgentType:
    return AgentType(**row)


def _agent(row: RowMapping) -> Agent:
    return Agent(**row)


def _secret(row: RowMapping) -> AgentSecret:
    return AgentSecret(**row)
