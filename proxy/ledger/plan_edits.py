"""Plans that the store owns: made, changed, taken away, and moved between the store and the files.

Each is one transaction under the lock of `plans.py`, with its entry in the audit log. What comes back is the
policy as it is now; whoever asked publishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import AlreadyExists, NotFound, OwnedByFiles, PlanOwner
from proxy.domain.deeds import Deed
from proxy.domain.policy import Plan, Policy
from proxy.domain.written_plans import shown_plan
from proxy.gateway.ports import Clock
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import writing
from proxy.ledger.plans import (
    begin_edit,
    drop_owners,
    owned_by_store,
    put_owner,
    put_revision,
    refuse_if_used,
    versioned_plan,
)
from proxy.ledger.tables import moment

STORE = PlanOwner("store", None)


class SqlPlanEdits:
    """Changes of plans over the admin plane."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(self, plan: Plan, deed: Deed, message: str) -> Policy:
        """A plan of the store's; raises `AlreadyExists` if one of this id is live, whoever owns it."""
        async with writing(self._engine) as connection:
            present, _ = await begin_edit(connection)
            if plan.id in present.plans:
                raise AlreadyExists("plan", plan.id)
            return await self._put(connection, present, plan, deed, message)

    async def replace(self, plan: Plan, deed: Deed, message: str) -> Policy:
        """The same content again changes nothing. Raises `NotFound` or `OwnedByFiles`."""
        async with writing(self._engine) as connection:
            present, owners = await begin_edit(connection)
            must_be_editable(present, owners, plan.id)
            return await self._put(connection, present, plan, deed, message)

    async def delete(self, id: str, deed: Deed) -> Policy:
        """Its versions stay. Raises `NotFound`, `OwnedByFiles`, or `PlanInUse` while customers are on it."""
        async with writing(self._engine) as connection:
            present, owners = await begin_edit(connection)
            must_be_editable(present, owners, id)
            await refuse_if_used(connection, id)
            now_us = self._clock.now_us()
            plans = {name: plan for name, plan in present.plans.items() if name != id}
            policy = await put_revision(connection, present, present.models, plans, now_us)
            await drop_owners(connection, [id])
            await audit(connection, deed, moment(now_us), "plan", id, audited(present, id, STORE), None)
            return policy

    async def give_to(self, id: str, owner: PlanOwner, deed: Deed) -> None:
        """Moves a plan to the store, or to a file; its content and version stay. Raises `NotFound`."""
        async with writing(self._engine) as connection:
            present, owners = await begin_edit(connection)
            if id not in present.plans:
                raise NotFound("plan", id)
            before = owners.get(id, PlanOwner("files", None))
            await put_owner(connection, id, owner)
            told = (audited(present, id, one) for one in (before, owner))
            await audit(connection, deed, moment(self._clock.now_us()), "plan", id, *told)

    async def _put(
        self, connection: AsyncConnection, present: Policy, plan: Plan, deed: Deed, message: str
    ) -> Policy:
        now_us = self._clock.now_us()
        versioned = await versioned_plan(connection, plan, now_us, deed, message)
        plans = present.plans | {plan.id: versioned}
        policy = await put_revision(connection, present, present.models, plans, now_us)
        await put_owner(connection, plan.id, STORE)
        told = (audited(one, plan.id, STORE) for one in (present, policy))
        await audit(connection, deed, moment(now_us), "plan", plan.id, *told)
        return policy


def must_be_editable(present: Policy, owners: Mapping[str, PlanOwner], id: str) -> None:
    """Raises `NotFound` or `OwnedByFiles`."""
    if id not in present.plans:
        raise NotFound("plan", id)
    if not owned_by_store(owners, id):
        raise OwnedByFiles(id, owners[id].file if id in owners else None)


def audited(policy: Policy, id: str, owner: PlanOwner) -> Mapping[str, Any] | None:
    """A plan as the audit log is told it, and as its ETag is made."""
    plan = policy.plans.get(id)
    return None if plan is None else shown_plan(plan, owner.owner, owner.file)
