"""Changes of plans in memory, with the real reader of plan documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from proxy.billing.ports import AlreadyExists, AppliedFiles, NotFound, OwnedByFiles, PlanFaults, PlanOwner
from proxy.domain.deeds import Deed
from proxy.domain.plan_changes import path_of
from proxy.domain.policy import Plan
from proxy.domain.written_plans import shown_plan, written_plan
from proxy.policy_files import read_document
from tests.doubles.directory import MemoryPlans

MODELS = ["gpt-4o-mini"]


class MemoryPlanEdits:
    """`asked` remembers by whom, and why."""

    def __init__(self, plans: MemoryPlans) -> None:
        self.plans = plans
        self.asked: list[tuple[str, str]] = []
        self.fault: Exception | None = None

    async def read(self, document: Mapping[str, Any], id: str | None = None) -> Plan:
        plan, found = read_document(document if id is None else {"id": id, **document}, MODELS)
        faults = [(path_of(place), message) for place, message in found]
        if plan is None or faults:
            raise PlanFaults(faults)
        return plan

    async def create(self, document: Mapping[str, Any], deed: Deed, message: str) -> Plan:
        plan = await self.read(document)
        if plan.id in self.plans.held:
            raise AlreadyExists("plan", plan.id)
        deed.require(None)
        return self._put(plan, deed, message)

    async def replace(self, id: str, document: Mapping[str, Any], deed: Deed, message: str) -> Plan:
        await self._editable(id, deed)
        return self._put(await self.read(document, id), deed, message)

    async def delete(self, id: str, deed: Deed) -> None:
        await self._editable(id, deed)
        del self.plans.held[id]

    async def roll_back(self, id: str, version: int, deed: Deed, message: str) -> Plan:
        await self._editable(id, deed)
        for one in await self.plans.versions(id):
            if one.plan.version == version:
                return self._put(await self.read(written_plan(one.plan)), deed, message)
        raise NotFound("version", str(version))

    async def adopt(self, id: str, to: Literal["files", "store"], deed: Deed) -> Sequence[str]:
        await self.plans.plan(id)
        self.plans.owned[id] = PlanOwner(to, f"plans/{id}.toml" if to == "files" else None)
        return ["The file has moved."]

    async def apply_files(self, dry_run: bool, deed: Deed, message: str) -> AppliedFiles:
        before = self.plans.held["starter"]
        after = replace(before, name="Renamed", version=0 if dry_run else before.version + 1)
        if not dry_run:
            self._put(after, deed, message)
        return AppliedFiles([("starter", before, after)], 7, ["Something to know."])

    def _put(self, plan: Plan, deed: Deed, message: str) -> Plan:
        if self.fault:
            raise self.fault
        before = self.plans.held.get(plan.id)
        if before is not None:
            self.plans.past.setdefault(plan.id, []).append(before)
        plan = replace(plan, version=1 if before is None else before.version + 1)
        self.plans.held[plan.id] = plan
        self.plans.owned.setdefault(plan.id, PlanOwner("store", None))
        self.asked.append((deed.actor.name, message))
        return plan

    async def _editable(self, id: str, deed: Deed) -> None:
        plan, owner = await self.plans.plan(id), self.plans.owned[id]
        if owner.owner == "files":
            raise OwnedByFiles(id, owner.file)
        deed.require(shown_plan(plan, owner.owner, owner.file))
