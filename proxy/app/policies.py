"""The policy's way from files to the gate: read whole, versioned in the ledger, published to Redis."""

from __future__ import annotations

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.budgets.redis_directory import DirectoryProjector
from proxy.domain.policy import Policy
from proxy.domain.policy_documents import policy_document
from proxy.gateway.ports import Clock, StoreAway
from proxy.ledger.plans import apply_policy
from proxy.policy_files import PolicyFaults, policies_dir, read_policies
from proxy.settings import Settings
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)


class LivePolicy:
    """Applies the policy files. A bad edit changes nothing: what was live stays live, and the log says why."""

    def __init__(
        self,
        settings: Settings,
        engine: AsyncEngine,
        projector: DirectoryProjector,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._projector = projector
        self._clock = clock
        self._counters = counters
        self.directory = policies_dir(settings)
        self.policy: Policy | None = None
        self.faults: tuple[str, ...] = ()

    async def apply(self) -> Policy:
        """Reads, versions and publishes; raises `PolicyFaults`, and then nothing has changed."""
        files = read_policies(self.directory, self._settings)
        policy = await apply_policy(self._engine, self._clock, files.models, list(files.plans.values()))
        await self._projector.publish_policy(policy_document(policy), policy.revision)
        self.policy, self.faults = policy, ()
        return policy

    async def reapply(self) -> None:
        """After an edit of the files."""
        before = self.policy.revision if self.policy else 0
        try:
            policy = await self.apply()
        except PolicyFaults as refused:
            self.faults = tuple(str(fault) for fault in refused.faults)
            self._counters.add("policy_reloads", 1, "refused")
            log.error("policy.refused", faults=self.faults, live_revision=before)
        except (StoreAway, OSError) as away:
            self._counters.add("policy_reloads", 1, "failed")
            log.error("policy.not_published", why=str(away))
        else:
            if policy.revision != before:
                self._counters.add("policy_reloads", 1, "applied")
                log.info("policy.applied", revision=policy.revision)

    async def publish(self) -> None:
        """Publishes what is live again: to a Redis that has forgotten it."""
        if self.policy is not None:
            await self._projector.publish_policy(policy_document(self.policy), self.policy.revision)
