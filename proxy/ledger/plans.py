"""Plan versions and policy revisions: what was applied, kept for good; and the files' way into them.

What is edited over the admin plane is in `plan_edits.py`. Both take the same lock, for a revision holds all plans:
two that are made at once would each lack the other's change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import NotFound, PlanInUse, PlanOwner, PlanVersion
from proxy.domain.deeds import Deed, by_the_gate
from proxy.domain.policy import Model, Plan, Policy
from proxy.domain.policy_documents import (
    plan_document,
    plan_from_document,
    policy_document,
    policy_from_document,
)
from proxy.domain.written_plans import shown_plan
from proxy.gateway.ports import Clock
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import reading, writing
from proxy.ledger.tables import (
    customers,
    micros,
    moment,
    plan_owners,
    plan_versions,
    policy_revisions,
    utc_text,
)

# Two keepers may read the same files at once; see ADVISORY_LOCK of migrate.py for what the number is.
APPLY_LOCK = 32734284
FILES = by_the_gate("files")


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

    async def owners(self) -> Mapping[str, PlanOwner]:
        async with reading(self._engine) as connection:
            return await owners_of(connection)

    async def versions(self, id: str) -> Sequence[PlanVersion]:
        wanted = select(plan_versions).where(plan_versions.c.id == id).order_by(plan_versions.c.version.desc())
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).all()
        if not rows:
            raise NotFound("plan", id)
        return [
            PlanVersion(
                plan_from_document(row.document), utc_text(micros(row.applied_at)), row.applied_by, row.message
            )
            for row in rows
        ]


async def current_policy(engine: AsyncEngine) -> Policy | None:
    """The policy that was applied last; None before the first."""
    async with reading(engine) as connection:
        return await present_policy(connection)


async def newest_revision(engine: AsyncEngine) -> int:
    """Of the policy; 0 before the first."""
    async with reading(engine) as connection:
        return int(await connection.scalar(select(func.max(policy_revisions.c.revision))) or 0)


async def apply_policy(
    engine: AsyncEngine,
    clock: Clock,
    models: Mapping[str, Model],
    plans: Sequence[Plan],
    files: Mapping[str, str] | None = None,
    message: str = "",
    deed: Deed = FILES,
) -> Policy:
    """Makes what the files say the policy, and returns it with its revision and the plans' versions.

    A plan whose content changed gets its next version. What equals the present policy changes nothing, and the
    present one is returned. Plans that the store owns stay as they are, whatever the files say of them. `files`
    names the file of each plan. Raises `PlanInUse` if a plan is gone that customers are on.
    """
    async with writing(engine) as connection:
        present, owners = await begin_edit(connection)
        now_us = clock.now_us()
        kept = {id: plan for id, plan in present.plans.items() if owned_by_store(owners, id)}
        versioned = {
            plan.id: await versioned_plan(connection, plan, now_us, deed, message)
            for plan in plans
            if not owned_by_store(owners, plan.id)
        }
        gone = [id for id in present.plans if id not in kept and id not in versioned]
        for id in gone:
            await refuse_if_used(connection, id)
        policy = await put_revision(connection, present, dict(models), versioned | kept, now_us)
        await _note_files(connection, owners, versioned, files or {}, gone)
        for id in sorted({**present.plans, **versioned}):
            if present.plans.get(id) != policy.plans.get(id):
                told = (_shown(p.plans.get(id), files or {}) for p in (present, policy))
                await audit(connection, deed, moment(now_us), "plan", id, *told)
        return policy


async def begin_edit(connection: AsyncConnection) -> tuple[Policy, dict[str, PlanOwner]]:
    """Takes the lock, and returns what is live (revision 0 if nothing is) with the plans' owners."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLY_LOCK})
    present = await present_policy(connection)
    return present or Policy(0, {}, {}), await owners_of(connection)


async def present_policy(connection: AsyncConnection) -> Policy | None:
    newest = select(policy_revisions.c.document).order_by(policy_revisions.c.revision.desc()).limit(1)
    document = await connection.scalar(newest)
    return None if document is None else policy_from_document(document)


async def owners_of(connection: AsyncConnection) -> dict[str, PlanOwner]:
    rows = await connection.execute(select(plan_owners))
    return {row.id: PlanOwner(row.owner, row.file) for row in rows}


def owned_by_store(owners: Mapping[str, PlanOwner], id: str) -> bool:
    return id in owners and owners[id].owner == "store"


async def put_revision(
    connection: AsyncConnection, present: Policy, models: dict[str, Model], plans: dict[str, Plan], now_us: int
) -> Policy:
    """The next revision, or the present one if it says the same."""
    policy = Policy(present.revision, models, {id: plans[id] for id in sorted(plans)})
    if policy == present and present.revision:
        return present
    newest = await connection.scalar(select(func.max(policy_revisions.c.revision)))
    policy = replace(policy, revision=(newest or 0) + 1)
    row = {"revision": policy.revision, "applied_at": moment(now_us), "document": policy_document(policy)}
    await connection.execute(insert(policy_revisions).values(row))
    return policy


async def versioned_plan(connection: AsyncConnection, plan: Plan, now_us: int, deed: Deed, message: str) -> Plan:
    """The plan with the version of this content: the newest one if it is equal, else a new one."""
    newest = select(plan_versions).where(plan_versions.c.id == plan.id).order_by(plan_versions.c.version.desc())
    row = (await connection.execute(newest.limit(1))).first()
    if row is not None and _is(row.document, replace(plan, version=row.version)):
        return replace(plan, version=int(row.version))
    plan = replace(plan, version=1 if row is None else int(row.version) + 1)
    await connection.execute(
        insert(plan_versions).values(
            id=plan.id,
            version=plan.version,
            applied_at=moment(now_us),
            document=plan_document(plan),
            applied_by=deed.actor.name,
            message=message,
        )
    )
    return plan


async def refuse_if_used(connection: AsyncConnection, id: str) -> None:
    on_it = (customers.c.plan == id) | (customers.c.scheduled_plan == id)
    count = await connection.scalar(select(func.count()).select_from(customers).where(on_it))
    if count:
        raise PlanInUse(id, int(count))


async def put_owner(connection: AsyncConnection, id: str, owner: PlanOwner) -> None:
    changed = update(plan_owners).where(plan_owners.c.id == id).values(owner=owner.owner, file=owner.file)
    if (await connection.execute(changed)).rowcount == 0:
        await connection.execute(insert(plan_owners).values(id=id, owner=owner.owner, file=owner.file))


async def drop_owners(connection: AsyncConnection, ids: Iterable[str]) -> None:
    for id in ids:
        await connection.execute(delete(plan_owners).where(plan_owners.c.id == id))


async def _note_files(
    connection: AsyncConnection,
    owners: Mapping[str, PlanOwner],
    plans: Iterable[str],
    files: Mapping[str, str],
    gone: Iterable[str],
) -> None:
    for id in plans:
        owner = PlanOwner("files", files.get(id))
        if owners.get(id) != owner:
            await put_owner(connection, id, owner)
    await drop_owners(connection, gone)


def _is(document: Mapping[str, Any], plan: Plan) -> bool:
    """Compared as plans, so that a key which came with a later release makes no new version by its default."""
    try:
        return plan_from_document(document) == plan
    except ValueError:
        return False


def _shown(plan: Plan | None, files: Mapping[str, str]) -> Mapping[str, Any] | None:
    return None if plan is None else shown_plan(plan, "files", files.get(plan.id))
