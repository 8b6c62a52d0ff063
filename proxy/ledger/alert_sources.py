"""Where alerts come from, each with a mark of how far it was looked at, moved in the transaction that raises them.

So whatever ends a keeper between looking and raising, the next one looks again; and what was raised already stays
one alert by its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, and_, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.domain.alerts import Alert
from proxy.domain.grants import Grant
from proxy.domain.identity import Identity, ScheduledPlan
from proxy.domain.ids import shard_of
from proxy.domain.policy import Plan
from proxy.domain.policy_documents import policy_from_document
from proxy.ledger.alert_tables import alerts, watch_marks
from proxy.ledger.alerts import SqlAlerts
from proxy.ledger.engine import reading, writing
from proxy.ledger.grants import live_documents
from proxy.ledger.tables import counter_sums, customers, denials, grants, micros, moment, policy_revisions

BATCH = 500
REVISIONS = "policy_revisions"


@dataclass(frozen=True, slots=True)
class Renewing:
    """A budget that was alerted of in a window that has ended by now."""

    customer_id: str
    subject: str
    budget_id: str
    window_start_us: int


@dataclass(frozen=True, slots=True)
class Revision:
    """A policy's revision, and the plans before (None: it is the first) and after it."""

    number: int
    before: Mapping[str, Plan] | None
    after: Mapping[str, Plan]


async def unwatched_counters(engine: AsyncEngine, most: int = BATCH) -> dict[str, int]:
    """Counters whose recorded amounts no alert has seen, with those amounts."""
    columns = (counter_sums.c.counter, counter_sums.c.amount)
    changed = select(*columns).where(counter_sums.c.amount != counter_sums.c.watched).limit(most)
    async with reading(engine) as connection:
        return {row.counter: int(row.amount) for row in await connection.execute(changed)}


async def recorded_amounts(engine: AsyncEngine, counters: Sequence[str]) -> dict[str, int]:
    """What each of these counters was charged in all; 0 for those never charged."""
    columns = (counter_sums.c.counter, counter_sums.c.amount)
    found = dict.fromkeys(counters, 0)
    async with reading(engine) as connection:
        for first in range(0, len(counters), BATCH):
            some = select(*columns).where(counter_sums.c.counter.in_(counters[first : first + BATCH]))
            found |= {row.counter: int(row.amount) for row in await connection.execute(some)}
    return found


async def raise_of_counters(raising: SqlAlerts, raised: Sequence[Alert], seen: Mapping[str, int]) -> list[str]:
    """Raises what these amounts have come to. A counter that has moved on since stays unwatched."""
    async with writing(raising.engine) as connection:
        new = await raising.raise_in(connection, raised)
        for counter, amount in sorted(seen.items()):
            watched = update(counter_sums).where(counter_sums.c.counter == counter).values(watched=amount)
            await connection.execute(watched)
    return new


async def denied_since(engine: AsyncEngine, minute: int) -> list[tuple[str, str]]:
    """(customer, agent) of everybody whose budget has refused something since that minute."""
    whose = (denials.c.customer_id, denials.c.agent_id)
    wanted = select(*whose).where(denials.c.minute >= minute, denials.c.reason == "budget").distinct()
    async with reading(engine) as connection:
        return [(row.customer_id, row.agent_id) for row in await connection.execute(wanted)]


async def renewing(engine: AsyncEngine, now_us: int, most: int = BATCH) -> list[Renewing]:
    """Budgets whose alerted window has ended, and whose renewal nobody has told."""
    named = (alerts.c.customer_id, alerts.c.subject, alerts.c.budget_id, alerts.c.window_start)
    wanted = select(*named).where(alerts.c.renews_at <= moment(now_us)).distinct().limit(most)
    async with reading(engine) as connection:
        return [
            Renewing(row.customer_id, row.subject, row.budget_id, micros(row.window_start))
            for row in await connection.execute(wanted)
        ]


async def raise_renewals(raising: SqlAlerts, raised: Sequence[Alert], of: Sequence[Renewing]) -> list[str]:
    """Raises renewals, and forgets that these were waiting for theirs."""
    async with writing(raising.engine) as connection:
        new = await raising.raise_in(connection, raised)
        for one in of:
            its = and_(
                alerts.c.renews_at.is_not(None),
                alerts.c.customer_id == one.customer_id,
                alerts.c.subject == one.subject,
                alerts.c.budget_id == one.budget_id,
                alerts.c.window_start == moment(one.window_start_us),
            )
            await connection.execute(update(alerts).where(its).values(renews_at=None))
    return new


async def next_revision(engine: AsyncEngine) -> Revision | None:
    """The oldest revision of the policy that no alert has seen; None if all are."""
    numbered = (policy_revisions.c.revision, policy_revisions.c.document)
    async with reading(engine) as connection:
        seen = await _position(connection, REVISIONS)
        following = select(*numbered).where(policy_revisions.c.revision > seen)
        after = (await connection.execute(following.order_by(policy_revisions.c.revision).limit(1))).first()
        if after is None:
            return None
        earlier = select(*numbered).where(policy_revisions.c.revision < after.revision)
        before = (await connection.execute(earlier.order_by(policy_revisions.c.revision.desc()).limit(1))).first()
    return Revision(
        int(after.revision),
        None if before is None else policy_from_document(before.document).plans,
        policy_from_document(after.document).plans,
    )


async def raise_of_revision(raising: SqlAlerts, raised: Sequence[Alert], revision: int) -> list[str]:
    async with writing(raising.engine) as connection:
        new = await raising.raise_in(connection, raised)
        insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
        mark = insert(watch_marks).values(name=REVISIONS, position=revision)
        further = mark.on_conflict_do_update(
            index_elements=[watch_marks.c.name],
            set_={"position": revision},
            where=watch_marks.c.position < revision,
        )
        await connection.execute(further)
    return new


async def expiring_grants(
    engine: AsyncEngine, now_us: int, within: timedelta, most: int = BATCH
) -> list[tuple[str, Grant]]:
    """Grants, with their customers, that end within that time and of which nobody has told."""
    now = moment(now_us)
    told = exists().where(alerts.c.key == literal("grant.expiring/") + grants.c.id)
    wanted = select(grants).where(
        grants.c.expires_at > now, grants.c.expires_at <= now + within, grants.c.voided_at.is_(None), ~told
    )
    async with reading(engine) as connection:
        rows = (await connection.execute(wanted.limit(most))).mappings().all()
    return [(row["customer_id"], _grant(row)) for row in rows]


async def identities(
    engine: AsyncEngine, customer_ids: Sequence[str], now_us: int, shards: int
) -> dict[str, Identity]:
    """Customers as the gate sees them, by id, with their grants that are not over and without any agent."""
    found: dict[str, Identity] = {}
    async with reading(engine) as connection:
        for first in range(0, len(customer_ids), BATCH):
            some = customer_ids[first : first + BATCH]
            given = await live_documents(connection, some, now_us)
            for row in await connection.execute(select(customers).where(customers.c.id.in_(some))):
                found[row.id] = _identity(row, given.get(row.id, []), shards)
    return found


def _identity(row: Row[Any], given: Sequence[Mapping[str, Any]], shards: int) -> Identity:
    scheduled = None
    if row.scheduled_at is not None:
        scheduled = ScheduledPlan(row.scheduled_plan, micros(row.scheduled_at))
    return Identity(
        customer_id=row.id,
        agent_id="",
        agent_type_id="",
        secret_id="",
        expires_at_ms=0,
        status=row.status,
        plan_id=row.plan,
        anchor_us=micros(row.anchor),
        timezone=row.timezone,
        revision=row.revision,
        shard=shard_of(row.id, shards),
        grants=tuple(Grant(**grant) for grant in given),
        overrides=row.overrides or {},
        scheduled=scheduled,
    )


async def _position(connection: AsyncConnection, name: str) -> int:
    return int(
        await connection.scalar(select(func.max(watch_marks.c.position)).where(watch_marks.c.name == name)) or 0
    )


def _grant(row: Mapping[Any, Any]) -> Grant:
    return Grant(
        id=row["id"],
        meter=row["meter"],
        amount=row["amount"],
        per=row["per"],
        budget_id=row["budget_id"],
        priority=row["priority"],
        effective_at_us=micros(row["effective_at"]),
        expires_at_us=None if row["expires_at"] is None else micros(row["expires_at"]),
        created_at_us=micros(row["created_at"]),
    )
