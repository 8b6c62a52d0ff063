"""What a worker knows without asking: who stands behind a secret, and the policy in force.

Nothing here is trusted to be fresh. The admission script compares revisions, and a refusal that rests on
remembered facts alone is given only after `confirm` has found them current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy.domain.identity import Identity
from proxy.domain.policy import Policy
from proxy.gateway.ports import Directory
from proxy.gateway.standing import Standing

# About 1 KB each; beyond it the oldest is forgotten and read again when it calls.
IDENTITIES_MAX = 50_000


class Knowledge:
    """Identities by digest, the policy, and the standings compiled from both."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._standings: dict[str, Standing] = {}
        self._policy: Policy | None = None
        self._reading: dict[str, asyncio.Future[Standing | None]] = {}
        self._policy_reading: asyncio.Future[None] | None = None

    async def policy(self) -> Policy:
        """The policy in force, read on first use. May raise `StoreAway` or `DirectoryIncomplete`."""
        while self._policy is None:
            await self._policy_is_read()
        return self._policy

    def remembered(self, digest: str) -> Standing | None:
        """The standing of a digest if it was compiled under the policy in force: the hot path's one look-up."""
        standing = self._standings.get(digest)
        if standing is not None and standing.policy is self._policy:
            return standing
        return None

    async def standing(self, digest: str) -> Standing | None:
        """The standing behind a digest, read from Redis where it is not remembered; None: no such secret."""
        standing = self.remembered(digest)
        if standing is not None:
            return standing
        return await self._shared(digest, self._read)

    async def refresh(self, digest: str) -> Standing | None:
        """Reads both again after a `Stale`. What is being read by now may be too old, so it is only waited for."""
        if (earlier := self._reading.get(digest)) is not None:
            await asyncio.wait({earlier})
        return await self._shared(digest, self._read_again)

    async def follow_policy(self, standing: Standing) -> Standing:
        """After a `Stale` that is about the policy alone: the same identity under the newest policy.

        An edit makes everybody stale at once. Only the policy is read, and once for all who wait.
        """
        # The first read may have begun before the edit; the second has not.
        for _ in range(2):
            if self._policy is not None and self._policy.revision > standing.policy.revision:
                break
            await self._policy_is_read()
        known, policy = self.remembered(standing.digest), await self.policy()
        if known is not None and known.identity.revision >= standing.identity.revision:
            return known
        return self._remember(standing.digest, standing.identity, policy)

    async def _policy_is_read(self) -> None:
        """Waits for the read that is under way, or for a new one."""
        if self._policy_reading is None:
            self._policy_reading = asyncio.ensure_future(self._read_policy())
            self._policy_reading.add_done_callback(self._policy_was_read)
        await asyncio.shield(self._policy_reading)

    def _policy_was_read(self, reading: asyncio.Future[None]) -> None:
        self._policy_reading = None
        if not reading.cancelled():
            # Those who wait for it are told of its fault; there may be nobody left.
            reading.exception()

    async def _read_policy(self) -> None:
        policy = await self._directory.policy()
        if self._policy is None or policy.revision != self._policy.revision:
            self._policy = policy

    async def _shared(self, digest: str, read: Callable[[str], Awaitable[Standing | None]]) -> Standing | None:
        """A crowd of first requests, or all that an edit made stale at once, costs one read and not hundreds."""
        reading = self._reading.get(digest)
        if reading is None:
            reading = self._reading[digest] = asyncio.ensure_future(read(digest))
            reading.add_done_callback(lambda _: self._reading.pop(digest))
        return await asyncio.shield(reading)

    async def _read(self, digest: str) -> Standing | None:
        policy = await self.policy()
        known = self._standings.get(digest)
        identity = known.identity if known else await self._directory.identity(digest)
        if identity is None:
            return None
        return self._remember(digest, identity, policy)

    async def _read_again(self, digest: str) -> Standing | None:
        self._standings.pop(digest, None)
        await self._read_policy()
        identity = await self._directory.identity(digest)
        return None if identity is None else self._remember(digest, identity, await self.policy())

    def in_force(self, standing: Standing, now_us: int) -> Standing:
        """The standing with the plan of `now_us`, by Redis's clock: a scheduled change needs no job."""
        if standing.identity.scheduled is None:
            return standing
        present = standing.at(now_us)
        if self._standings.get(standing.digest) is standing:
            self._standings[standing.digest] = present
        return present

    async def confirm(self, standing: Standing) -> bool:
        """True if what is remembered is what Redis says now: one round trip, paid by refusals only."""
        return await self._directory.current(standing.identity, standing.policy.revision)

    def forget(self) -> None:
        """Forgets every identity and the policy: after Redis lost its data, nothing remembered counts."""
        self._standings.clear()
        self._policy = None

    def _remember(self, digest: str, identity: Identity, policy: Policy) -> Standing:
        if len(self._standings) >= IDENTITIES_MAX:
            self._standings.pop(next(iter(self._standings)))
        standing = Standing(digest, identity, policy)
        self._standings[digest] = standing
        return standing
