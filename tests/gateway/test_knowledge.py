"""What a worker remembers: many who ask at once cost one read, and what is read is what Redis says now."""

from __future__ import annotations

import asyncio

from gateway_doubles import PEPPER, SECRET, FakeDirectory, policy

from proxy.domain.identity import Identity
from proxy.domain.policy import Policy
from proxy.domain.secrets import digest
from proxy.gateway.knowledge import Knowledge

DIGEST = digest(PEPPER, SECRET)


class SlowDirectory(FakeDirectory):
    def __init__(self) -> None:
        super().__init__()
        self.policies_read = 0

    async def identity(self, keyed: str) -> Identity | None:
        await asyncio.sleep(0)
        return await super().identity(keyed)

    async def policy(self) -> Policy:
        self.policies_read += 1
        await asyncio.sleep(0)
        return self.now


async def test_a_crowd_of_first_requests_costs_one_read() -> None:
    """Hundreds of look-ups at once would use up the connections, and be answered with 503."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    standings = await asyncio.gather(*(knowledge.standing(DIGEST) for _ in range(300)))
    assert len({id(standing) for standing in standings}) == 1
    assert (directory.reads, directory.policies_read) == (1, 1)


async def test_all_that_an_edit_made_stale_at_once_cost_two_reads() -> None:
    """After an edited plan every request under way is stale in the same moment. Nobody is given what was read
    before he asked, so those who come while it is read share the next one."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    await knowledge.standing(DIGEST)
    directory.now = policy(2)
    standings = await asyncio.gather(*(knowledge.refresh(DIGEST) for _ in range(300)))
    assert {standing.policy.revision for standing in standings if standing} == {2}
    assert (directory.reads, directory.policies_read) == (3, 3)


async def test_a_read_that_failed_is_not_remembered() -> None:
    """The next request asks again, however many got the failure."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    directory.who, who = None, directory.who
    assert await asyncio.gather(*(knowledge.standing(DIGEST) for _ in range(3))) == [None] * 3
    directory.who = who
    assert await knowledge.standing(DIGEST) is not None
