"""What a worker remembers: many who ask at once cost one read, and what is read is what Redis says now."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway_doubles import PEPPER, SECRET, FakeDirectory, policy

from proxy.domain.identity import Identity, ScheduledPlan
from proxy.domain.policy import Policy
from proxy.domain.secrets import digest
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.ports import StoreAway

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
        read = self.now
        await asyncio.sleep(0)
        return read


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


async def test_an_edit_costs_one_read_however_many_it_made_stale() -> None:
    """A thousand customers on a plan: a look-up for each of them would take longer than a request may wait."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    standing = await knowledge.standing(DIGEST)
    assert standing is not None
    directory.now = policy(2)
    followed = await asyncio.gather(*(knowledge.follow_policy(standing) for _ in range(300)))
    assert len({id(one) for one in followed}) == 1
    assert (followed[0].policy.revision, followed[0].identity) == (2, standing.identity)
    assert (directory.reads, directory.policies_read) == (1, 2)
    assert knowledge.remembered(DIGEST) is followed[0]


async def test_nobody_is_given_a_policy_that_was_read_before_the_edit_that_he_was_told_of() -> None:
    """He would be told that he is stale again, and at last be refused."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    first = await knowledge.standing(DIGEST)
    assert first is not None
    early = asyncio.ensure_future(knowledge.follow_policy(first))
    while directory.policies_read < 2:
        await asyncio.sleep(0)
    began_before, directory.now = directory.now, policy(2)
    assert began_before.revision == 1
    late = await knowledge.follow_policy(first)
    assert late.policy.revision == (await early).policy.revision == 2


async def test_a_policy_that_cannot_be_read_is_told_to_all_and_then_asked_for_again() -> None:
    """Redis away for a moment."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    standing = await knowledge.standing(DIGEST)
    assert standing is not None
    directory.now, fresh = policy(1), policy(2)

    async def away() -> Policy:
        raise StoreAway("away")

    directory.policy = away  # type: ignore[method-assign]
    told = await asyncio.gather(*(knowledge.follow_policy(standing) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [StoreAway] * 3
    del directory.policy
    directory.now = fresh
    assert (await knowledge.follow_policy(standing)).policy.revision == 2


async def test_a_read_that_failed_is_not_remembered() -> None:
    """The next request asks again, however many got the failure."""
    directory = SlowDirectory()
    knowledge = Knowledge(directory)
    directory.who, who = None, directory.who
    assert await asyncio.gather(*(knowledge.standing(DIGEST) for _ in range(3))) == [None] * 3
    directory.who = who
    assert await knowledge.standing(DIGEST) is not None


async def test_a_scheduled_change_comes_due_without_anybody_telling() -> None:
    """The keeper may be late; the first request from that moment on is decided by the new plan."""
    directory = FakeDirectory()
    assert directory.who is not None
    old, new = directory.who.plan_id, "starter-next"
    directory.now = replace(policy(), plans={**policy().plans, new: replace(policy().plans[old], id=new)})
    directory.who = replace(directory.who, scheduled=ScheduledPlan(new, 1000))
    knowledge = Knowledge(directory)
    standing = await knowledge.standing(DIGEST)
    assert standing is not None
    assert knowledge.in_force(standing, 999) is standing
    changed = knowledge.in_force(standing, 1000)
    assert (standing.plan.id, changed.plan.id, changed.identity.scheduled) == (old, new, None)
    assert knowledge.remembered(DIGEST) is changed
    assert knowledge.in_force(standing, 1001).plan.id == new, "whoever still holds the old one"
    assert knowledge.remembered(DIGEST) is changed


async def test_overrides_win_over_the_plan_and_grant_nothing_without_one() -> None:
    """A plan that is gone grants nothing, whatever the customer was promised beside it."""
    directory = FakeDirectory()
    assert directory.who is not None
    promised = {"features": {"web_search": True}, "models": ["gpt-4o-mini"]}
    directory.who = replace(directory.who, overrides=promised)
    standing = await Knowledge(directory).standing(DIGEST)
    assert standing is not None
    assert (standing.plan.features["web_search"], standing.plan.models) == (True, frozenset({"gpt-4o-mini"}))
    directory.who = replace(directory.who, plan_id="gone")
    without = await Knowledge(directory).standing(DIGEST)
    assert without is not None
    assert (without.plan.features, without.plan.models) == ({}, frozenset())
