"""Plan versions and policy revisions: what was applied, kept for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import NotFound
from proxy.domain.policy import Model, Plan, Policy
from proxy.domain.policy_documents import (
    plan_document,
    plan_from_document,
    policy_document,
    policy_from_document,
)
from proxy.gateway.ports import Clock
from proxy.ledger.engine import reading, writing
from proxy.ledger.tables import micros, moment, plan_versions, policy_revisions, utc_text

# Two keepers may read the same files at once; see ADVISORY_LOCK of migrate.py for what the number is.
APPLY_LOCK = 32734284


class SqlPlans:
    """Implements `Plans`: what is live, and every version that ever was."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def plans(self) -> Sequence[Plan]:
        policy = await current_policy(self._engine)
        return [] if policy is None else [policy.plans[id] for id in sorted(policy.plans)]

    async def plan(self, id: str) -> Plan:
        policy = await current_policy(self._engine)
        if policy is None or id not in policy.plans:
            raise NotFound("plan", id)
        return policy.plans[id]

    async def versions(self, id: str) -> Sequence[Mapping[str, Any]]:
        wanted = select(plan_versions).where(plan_versions.c.id == id).order_by(plan_versions.c.version.desc())
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).all()
        if not rows:
            raise NotFound("plan", id)
        return [
            {
                "version": row.version,
                "applied_at": utc_text(micros(row.applied_at)),
                "document": row.document,
            }
            for row in rows
        ]


async def current_policy(engine: AsyncEngine) -> Policy | None:
    """The policy that was applied last; None before the first."""
    async with reading(engine) as connection:
        return await _current(connection)


async def apply_policy(
    engine: AsyncEngine, clock: Clock, models: Mapping[str, Model], plans: Sequence[Plan]
) -> Policy:
    """Makes this the policy and returns it, with its revision and the plans' versions (those given are ignored).

    A plan whose content changed gets its next version. What equals the present policy changes nothing, and the
    present one is returned.
    """
    async with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLY_LOCK})
        applied_at = moment(clock.now_us())
        versioned = {
            plan.id: replace(plan, version=await _version(connection, plan, applied_at)) for plan in plans
        }
        present = await _current(connection)
        policy = Policy(0 if present is None else present.revision, dict(models), versioned)
        if policy == present:
            return present
        newest = await connection.scalar(select(func.max(policy_revisions.c.revision)))
        policy = replace(policy, revision=(newest or 0) + 1)
        await connection.execute(
            insert(policy_revisions).values(
                revision=policy.revision, applied_at=applied_at, document=policy_document(policy)
            )
        )
        return policy


async def _version(connection: AsyncConnection, plan: Plan, applied_at: Any) -> int:
    """The version of this content: the newest one if it is equal, else a new one."""
    newest = select(plan_versions).where(plan_versions.c.id == plan.id).order_by(plan_versions.c.version.desc())
    row = (await connection.execute(newest.limit(1))).first()
    if row is not None and _is(row.document, replace(plan, version=row.version)):
        return int(row.version)
    version = 1 if row is None else int(row.version) + 1
    await connection.execute(
        insert(plan_versions).values(
            id=plan.id,
            version=version,
            applied_at=applied_at,
            document=plan_document(replace(plan, version=version)),
        )
    )
    return version


def _is(document: Mapping[str, Any], plan: Plan) -> bool:
    """Compared as plans, so that a key which came with a later release makes no new version by its default."""
    try:
        return plan_from_document(document) == plan
    except ValueError:
        return False


async def _current(connection: AsyncConnection) -> Policy | None:
    newest = select(policy_revisions.c.document).order_by(policy_revisions.c.revision.desc()).limit(1)
    document = await connection.scalar(newest)
    return None if document is None else policy_from_document(document)
