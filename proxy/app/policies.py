"""The policy's way to the gate: from files and from edits, versioned in the ledger, published to Redis.

The ledger has the truth. Of several keepers the one that holds the lease applies its files; the others follow what
the ledger says, so that two with different files do not undo each other's work. Every keeper publishes what it has
learned: publishing never goes backwards, and what Redis missed while it was away is made up for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.clock import id_maker
from proxy.billing.ports import NotProjected, PlanInUse
from proxy.budgets.keeper_lease import LEASE_S, KeeperLease
from proxy.budgets.redis_directory import DirectoryProjector
from proxy.domain.deeds import Deed
from proxy.domain.policy import Policy
from proxy.domain.policy_documents import policy_document
from proxy.gateway.ports import Clock, StoreAway
from proxy.ledger.plans import FILES, SqlPlans, apply_policy, current_policy, newest_revision
from proxy.policy_files import PLANS_FOLDER, PolicyFaults, PolicyFiles, policies_dir, read_policies
from proxy.settings import Fault, Settings
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)

LOOK_S = 1.0
AWAY = (StoreAway, SQLAlchemyError, OSError, TimeoutError)


class LivePolicy:
    """What is live, and what the files say. A bad edit changes nothing, and is told: what was live stays live."""

    def __init__(
        self,
        settings: Settings,
        engine: AsyncEngine,
        projector: DirectoryProjector,
        clock: Clock,
        counters: Counters,
        lease: KeeperLease,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._projector = projector
        self._clock = clock
        self._counters = counters
        self.lease = lease
        self.directory = policies_dir(settings)
        self.shipped = not (settings.policies_given or settings.policies.dir.is_dir())
        """Whether these are the files that came with Faregate, which are not ours to write."""
        self.policy: Policy | None = None
        self.files: PolicyFiles | None = None
        """What was read last without a fault."""
        self.faults: tuple[str, ...] = ()
        self.notices: tuple[str, ...] = ()
        self.on_news: Callable[[], None] = lambda: None
        """Called when faults or notices have changed."""
        self._alone = asyncio.Lock()
        self._published = 0
        self._again = False

    async def begin(self) -> None:
        """At the start. Raises `PolicyFaults` only if nothing has ever been live that could stay it."""
        async with self._alone:
            try:
                files = await self.read()
                if await self.lease.take() or not await self._follow_other():
                    await self._apply(files)
                self._well(files)
            except PolicyFaults as refused:
                self.policy = await current_policy(self._engine)
                if self.policy is None:
                    raise
                self._refuse(refused)
                await self.publish()

    async def run(self) -> None:
        """Keeps the lease or waits for it, and follows the ledger, for as long as the keeper lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except AWAY as away:
                self._counters.store_fault("policy")
                log.debug("policy.look_failed", why=str(away))

    async def end(self) -> None:
        """Lets the next keeper apply its files at once."""
        try:
            await self.lease.give_up()
        except StoreAway:
            log.debug("policy.lease_ends_by_itself")

    async def look(self) -> None:
        """One look, and what follows from it. Raises one of `AWAY`."""
        held_before = self.lease.held
        mine = await self.lease.take()
        learned = await self._follow()
        if mine and (learned or not held_before or self._again):
            await self.reapply()
        elif learned and self.files is not None:
            self._well(self.files)
        if self.policy is not None and self._published != self.policy.revision:
            await self.publish()

    async def reapply(self) -> None:
        """After an edit of the files. Faults are said and whatever is away is tried again; nothing is raised."""
        async with self._alone:
            before = self.policy.revision if self.policy else 0
            self._again = False
            try:
                files = await self.read()
                if self.lease.held:
                    await self._apply(files)
            except PolicyFaults as refused:
                self._refuse(refused)
            except AWAY as away:
                self._again = True
                self._counters.add("policy_reloads", 1, "failed")
                log.error("policy.not_published", why=str(away))
            else:
                self._well(files)
                if self.policy is not None and self.policy.revision != before:
                    self._counters.add("policy_reloads", 1, "applied")
                    log.info("policy.applied", revision=self.policy.revision)

    async def read(self) -> PolicyFiles:
        """The files as they are now; raises `PolicyFaults`."""
        owners = await SqlPlans(self._engine).owners()
        elsewhere = [id for id, owner in owners.items() if owner.owner == "store"]
        return await asyncio.to_thread(read_policies, self.directory, self._settings, elsewhere)

    async def apply_now(self, files: PolicyFiles, deed: Deed, message: str) -> Policy:
        """As an admin asks for it; raises `PolicyFaults`, or `NotProjected`."""
        async with self._alone:
            try:
                policy = await self._apply(files, deed, message)
            except PolicyFaults as refused:
                self._refuse(refused)
                raise
            except StoreAway as away:
                raise NotProjected() from away
            self._well(files)
            return policy

    async def edited(self, edit: Awaitable[Policy]) -> Policy:
        """Does an edit of the store's plans and publishes it; raises `NotProjected` if only the ledger has it."""
        async with self._alone:
            policy = self.policy = await edit
            try:
                await self.publish()
            except StoreAway as away:
                raise NotProjected() from away
            return policy

    async def publish(self) -> None:
        """Publishes what is live, also again: to a Redis that has forgotten it."""
        if (policy := self.policy) is not None:
            await self._projector.publish_policy(policy_document(policy), policy.revision)
            self._published = policy.revision

    def details(self) -> dict[str, list[str]]:
        """For `/readyz`: what an operator should look at. Nothing of it keeps the gate from serving."""
        return {"policy_faults": list(self.faults), "policy_notices": list(self.notices)}

    def place(self, path: Path) -> str:
        """A file as it is called below `policies/`."""
        return str(path.relative_to(self.directory))

    async def _apply(self, files: PolicyFiles, deed: Deed = FILES, message: str = "") -> Policy:
        places = {id: self.place(path) for id, path in files.written_in.items()}
        plans = list(files.plans.values())
        try:
            policy = await apply_policy(self._engine, self._clock, files.models, plans, places, message, deed)
        except PlanInUse as used:
            told = f'has no file for the plan "{used.id}" any more. {used} Or put its file back'
            raise PolicyFaults([Fault(str(self.directory / PLANS_FOLDER), 0, told)]) from None
        self.policy = policy
        await self.publish()
        return policy

    async def _follow(self) -> bool:
        """Takes over what another keeper has made live; returns whether there was something."""
        newest = await newest_revision(self._engine)
        if self.policy is not None and newest == self.policy.revision:
            return False
        async with self._alone:
            before, self.policy = self.policy, await current_policy(self._engine)
            return self.policy != before

    async def _follow_other(self) -> bool:
        """Follows the keeper that has the lease; False: it never had a policy, and is gone now."""
        async with asyncio.timeout(LEASE_S * 2):
            while (policy := await current_policy(self._engine)) is None:
                await asyncio.sleep(0.1)
                if await self.lease.take():
                    return False
        self.policy = policy
        await self.publish()
        return True

    def _refuse(self, refused: PolicyFaults) -> None:
        told = tuple(str(self._shortened(fault)) for fault in refused.faults)
        self._counters.add("policy_reloads", 1, "refused")
        live = self.policy.revision if self.policy else 0
        log.error("policy.refused", faults=[str(fault) for fault in refused.faults], live_revision=live)
        self._say(told, self.notices)

    def _well(self, files: PolicyFiles) -> None:
        self.files = files
        self._say((), tuple(self._worth_knowing(files)))

    def _say(self, faults: tuple[str, ...], notices: tuple[str, ...]) -> None:
        for notice in notices:
            if notice not in self.notices:
                log.warning("policy.notice", notice=notice)
        news = (faults, notices) != (self.faults, self.notices)
        self.faults, self.notices = faults, notices
        self._counters.set("policy_faults", len(faults))
        if news:
            self.on_news()

    def _worth_knowing(self, files: PolicyFiles) -> Sequence[str]:
        told = [
            f'{self.place(path)} is ignored: the plan "{id}" is owned by the store. Remove the file, or move the'
            f" plan to it with `faregate plans adopt {id} --to files`."
            for id, path in sorted(files.ignored.items())
        ]
        if not self.lease.held and self.policy is not None and (differ := self._differing(files, self.policy)):
            told.append(
                f"What is live differs from the files here ({', '.join(differ)}): another gate,"
                f" {self.lease.holder or 'of a name unknown'}, applies its own."
            )
        return told

    def _differing(self, files: PolicyFiles, policy: Policy) -> list[str]:
        """The plans whose files say something else than what is live, and the catalogue."""
        differ = [
            id
            for id, plan in sorted(files.plans.items())
            if id not in policy.plans or replace(plan, version=policy.plans[id].version) != policy.plans[id]
        ]
        return [*differ, "models.toml"] if files.models != policy.models else differ

    def _shortened(self, fault: Fault) -> Fault:
        """Named from the directory: what answers without a token need not say where on the disk that is."""
        path = Path(fault.file).absolute()
        inside = path.is_relative_to(self.directory.absolute())
        name = str(path.relative_to(self.directory.absolute())) if inside else path.name
        return Fault(name, fault.line, fault.message)


def keeper_id(folder: Path) -> str:
    """A name that a keeper keeps over its restarts, made at its first start; one data folder has one keeper."""
    path = folder / "keeper-id"
    try:
        if known := path.read_text().strip():
            return known
    except FileNotFoundError:
        pass
    made = id_maker("keeper")()
    path.write_text(made + "\n")
    return made
