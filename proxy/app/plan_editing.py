"""Changes of plans, put together: the reader of plan files, the ledger, and what is live."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from proxy.app.policies import LivePolicy
from proxy.billing.ports import (
    AppliedFiles,
    FilesInTheWay,
    NotFound,
    OwnedByFiles,
    PlanFaults,
    PlanInUse,
    PlanOwner,
)
from proxy.domain.deeds import Deed
from proxy.domain.plan_changes import path_of
from proxy.domain.policy import Plan, Policy
from proxy.domain.written_plans import written_plan
from proxy.ledger.plan_edits import STORE, SqlPlanEdits
from proxy.ledger.plans import SqlPlans
from proxy.policy_files import (
    ASIDE,
    PLANS_FOLDER,
    PolicyFaults,
    PolicyFiles,
    put_aside,
    read_document,
    write_plan,
)


class PlanEditing:
    """Implements `PlanEdits`."""

    def __init__(self, policies: LivePolicy, edits: SqlPlanEdits, plans: SqlPlans, default_plan: str) -> None:
        self._policies = policies
        self._edits = edits
        self._plans = plans
        self._default_plan = default_plan

    async def read(self, document: Mapping[str, Any], id: str | None = None) -> Plan:
        document = document if id is None else {"id": id, **document}
        plan, found = read_document(document, self._live().models)
        faults = [(path_of(place), message) for place, message in found]
        if id is not None and plan is not None and plan.id != id:
            faults.append(("id", f'`id` must be "{id}", as in the path, or be left out'))
        if faults or plan is None:
            raise PlanFaults(faults)
        return plan

    async def create(self, document: Mapping[str, Any], deed: Deed, message: str) -> Plan:
        plan = await self.read(document)
        return (await self._policies.edited(self._edits.create(plan, deed, message))).plans[plan.id]

    async def replace(self, id: str, document: Mapping[str, Any], deed: Deed, message: str) -> Plan:
        await self._must_be_editable(id)
        plan = await self.read(document, id)
        return (await self._policies.edited(self._edits.replace(plan, deed, message))).plans[id]

    async def delete(self, id: str, deed: Deed) -> None:
        if id == self._default_plan and id in self._live().plans:
            await self._must_be_editable(id)
            raise PlanInUse(id, 0)
        await self._policies.edited(self._edits.delete(id, deed))

    async def roll_back(self, id: str, version: int, deed: Deed, message: str) -> Plan:
        versions = {one.plan.version: one.plan for one in await self._plans.versions(id)}
        if version not in versions:
            raise NotFound("version", str(version))
        export = f"faregate plans export {id} --version {version} --dir policies --force"
        await self._must_be_editable(id, f"write that version over it with `{export}`")
        plan = await self.read(written_plan(versions[version]))
        return (await self._policies.edited(self._edits.replace(plan, deed, message))).plans[id]

    async def adopt(self, id: str, to: Literal["files", "store"], deed: Deed) -> Sequence[str]:
        if id not in self._live().plans:
            raise NotFound("plan", id)
        return await (self._to_store(id, deed) if to == "store" else self._to_files(id, deed))

    async def apply_files(self, dry_run: bool, deed: Deed, message: str) -> AppliedFiles:
        policies, before = self._policies, self._live()
        try:
            files = await policies.read()
            if dry_run:
                kept = {id: plan for id, plan in before.plans.items() if id in await self._in_store()}
                after = Policy(before.revision, files.models, files.plans | kept)
            else:
                self._must_apply_files()
                after = await policies.apply_now(files, deed, message)
        except PolicyFaults as refused:
            raise PlanFaults(
                [_of_a_file(fault.file, fault.line, fault.message) for fault in refused.faults]
            ) from None
        ids = sorted({*before.plans, *after.plans})
        changed = [(id, before.plans.get(id), after.plans.get(id)) for id in ids]
        return AppliedFiles(
            [(id, one, other) for id, one, other in changed if _differ(one, other)],
            after.revision,
            policies.notices,
        )

    async def _to_store(self, id: str, deed: Deed) -> list[str]:
        policies = self._policies
        if id in await self._in_store():
            return []
        await self._edits.give_to(id, STORE, deed)
        path = policies.files.written_in.get(id) if policies.files else None
        told = "Files of this plan that other gates have are ignored from now on."
        if path is None:
            return [told]
        place = policies.place(path)
        if policies.shipped:
            told = f"{place} came with Faregate and stays, but is ignored."
        else:
            try:
                aside = await asyncio.to_thread(put_aside, path)
                told = f"{place} is now {policies.place(aside)}, which nobody reads. {told}"
            except OSError as fault:
                told = f"{place} is ignored from now on, but could not be renamed ({fault.strerror}): remove it."
        await policies.reapply()
        return [told]

    async def _to_files(self, id: str, deed: Deed) -> list[str]:
        policies = self._policies
        if id not in await self._in_store():
            return []
        self._must_apply_files()
        if policies.shipped:
            raise FilesInTheWay(
                "This gate runs on the policies that came with it, which are not ours to write: make a directory"
                " policies/ of your own first (`faregate plans export` writes the plans)."
            )
        files = await self._sound_files()
        path = files.ignored.get(id) or policies.directory / PLANS_FOLDER / f"{id}.toml"
        place = policies.place(path)
        if path.exists() and id not in files.ignored:
            raise FilesInTheWay(f"{place} is there already and holds another plan: rename it first.")
        try:
            if id in files.ignored:
                await asyncio.to_thread(put_aside, path)
            await asyncio.to_thread(write_plan, path, self._live().plans[id])
        except OSError as fault:
            raise FilesInTheWay(f"{place} cannot be written: {fault.strerror}.") from fault
        try:
            await self._edits.give_to(id, PlanOwner("files", place), deed)
        except BaseException:
            # A file of a plan that the store still owns would only be ignored, and complained of.
            path.unlink(missing_ok=True)
            raise
        await policies.reapply()
        return [
            f"{place} is written, and from now on the plan is edited there. Give every gate that file.",
            *_aside(path),
        ]

    async def _sound_files(self) -> PolicyFiles:
        try:
            return await self._policies.read()
        except PolicyFaults as refused:
            raise FilesInTheWay(f"The policy files are faulty, put them right first: {refused}.") from None

    def _must_apply_files(self) -> None:
        policies = self._policies
        if not policies.lease.held:
            raise FilesInTheWay(
                f"Another gate, {policies.lease.holder or 'name unknown'}, applies the policy files: ask that."
            )

    async def _must_be_editable(self, id: str, instead: str = "") -> None:
        if id not in self._live().plans:
            raise NotFound("plan", id)
        owner = (await self._plans.owners()).get(id, PlanOwner("files", None))
        if owner.owner == "files":
            raise OwnedByFiles(id, owner.file, instead)

    async def _in_store(self) -> set[str]:
        return {id for id, owner in (await self._plans.owners()).items() if owner.owner == "store"}

    def _live(self) -> Policy:
        return self._policies.policy or Policy(0, {}, {})


def _differ(one: Plan | None, other: Plan | None) -> bool:
    if one is None or other is None:
        return one is not other
    return written_plan(one) != written_plan(other)


def _of_a_file(file: str, line: int, message: str) -> tuple[str, str]:
    return f"{file}:{line}" if line else file, message


def _aside(path: Path) -> list[str]:
    earlier = path.with_name(path.name + ASIDE)
    return [f"What was in its file before, with its comments, is in {earlier.name}."] if earlier.exists() else []
