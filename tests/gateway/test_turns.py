"""The queue of one upstream: never more at once than it takes, no slot lost, and in fair order."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import gateway_doubles as given
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.gateway.turns import Outcome, Turns, share


class Client:
    """A call, as far as a queue knows one."""

    def __init__(self) -> None:
        self.gone = False
        self._act: Any = None

    def when_gone(self, act: Any) -> None:
        if act is not None and self.gone:
            act()
        else:
            self._act = act

    def leave(self) -> None:
        self.gone = True
        act, self._act = self._act, None
        if act is not None:
            act()


def turns(slots: int = 1, queue_max: int = 100, timeout_s: float = 30.0) -> Turns:
    return Turns("up", slots, queue_max, timeout_s, given.FakeClock(), given.FakeMeters())


async def settled() -> None:
    """Everything that is ready to run has run."""
    for _ in range(4):
        await asyncio.sleep(0)


class Crowd:
    """Requests at one queue, each with the order in which its turn came."""

    def __init__(self, queue: Turns) -> None:
        self.queue = queue
        self.came: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self.clients: dict[str, Client] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, name: str, customer: str = "acme", *, priority: bool = False) -> None:
        client = self.clients[name] = Client()

        async def wait() -> None:
            outcome, _ = await self.queue.take(customer, priority, client)  # type: ignore[arg-type]
            self.outcomes[name] = outcome
            if outcome == "turn":
                self.came.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await settled()

    async def give_back(self, times: int = 1) -> None:
        for _ in range(times):
            self.queue.give_back()
            await settled()


async def test_priority_goes_first_and_within_a_class_the_customers_take_turns() -> None:
    """A customer with a hundred requests waiting does not keep the others from their first."""
    crowd = Crowd(turns())
    await crowd.send("running")
    for name in ("a1", "a2", "a3", "b1", "c1"):
        await crowd.send(name, name[0])
    for name in ("p1", "p2", "q1"):
        await crowd.send(name, name[0], priority=True)
    await crowd.give_back(8)
    assert crowd.came == ["running", "p1", "q1", "p2", "a1", "b1", "c1", "a2", "a3"]


async def test_no_more_wait_than_may_and_who_has_sent_most_makes_room() -> None:
    """One customer's flood fills the queue, yet another one still gets a place in it."""
    crowd = Crowd(turns(queue_max=3))
    await crowd.send("running")
    for name in ("a1", "a2", "a3", "a4"):
        await crowd.send(name, "a")
    assert crowd.outcomes["a4"] == "full"
    await crowd.send("b1", "b")
    assert crowd.outcomes["a3"] == "full"
    assert crowd.queue.waiting == 3
    await crowd.give_back(3)
    assert crowd.came == ["running", "a1", "b1", "a2"]


async def test_priority_has_a_queue_of_its_own() -> None:
    """Those who go first are not turned away because the others are many."""
    crowd = Crowd(turns(queue_max=1))
    for name in ("running", "a1", "a2"):
        await crowd.send(name)
    assert not crowd.queue.has_room("other", priority=False)
    assert crowd.queue.has_room("other", priority=True)
    await crowd.send("p1", priority=True)
    await crowd.give_back()
    assert crowd.came == ["running", "p1"]


async def test_nobody_waits_longer_than_is_said() -> None:
    crowd = Crowd(turns(timeout_s=0.01))
    await crowd.send("running")
    await crowd.send("late")
    await crowd.tasks["late"]
    assert crowd.outcomes["late"] == "late"
    await crowd.give_back()
    assert crowd.queue.free == 1


async def test_a_client_that_leaves_leaves_the_queue_at_once() -> None:
    crowd = Crowd(turns())
    await crowd.send("running")
    await crowd.send("leaving")
    crowd.clients["leaving"].leave()
    await settled()
    assert (crowd.outcomes["leaving"], crowd.queue.waiting) == ("gone", 0)


async def test_a_slot_handed_to_one_that_leaves_in_the_same_moment_is_not_lost() -> None:
    """It got the turn before it knew: it has the slot, and gives it back as everybody does."""
    crowd = Crowd(turns())
    await crowd.send("running")
    await crowd.send("leaving")
    await crowd.send("next")
    crowd.queue.give_back()
    crowd.clients["leaving"].leave()
    await settled()
    assert crowd.outcomes["leaving"] == "turn"
    await crowd.give_back()
    assert crowd.came == ["running", "leaving", "next"]


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_cancelled_wait_loses_no_slot(handed_over: bool) -> None:
    """Whether the slot was on its way to it or not, the next one gets it."""
    crowd = Crowd(turns())
    await crowd.send("running")
    await crowd.send("cancelled")
    await crowd.send("next")
    if handed_over:
        crowd.queue.give_back()
        crowd.tasks["cancelled"].cancel()
    else:
        crowd.tasks["cancelled"].cancel()
        crowd.queue.give_back()
    await settled()
    assert crowd.came == ["running", "next"]
    await crowd.give_back()
    assert (crowd.queue.free, crowd.queue.waiting) == (1, 0)


@pytest.mark.parametrize(("whole", "workers", "shares"), [(4, 2, [2, 2]), (5, 3, [2, 2, 1]), (7, 1, [7])])
def test_slots_are_divided_among_the_workers_to_the_last(whole: int, workers: int, shares: list[int]) -> None:
    """All of them together never send more than the upstream takes."""
    assert [share(whole, workers, index) for index in range(1, workers + 1)] == shares


CUSTOMERS = st.sampled_from("abc")
SLOTS, QUEUE_MAX = 2, 4


class Queueing(RuleBasedStateMachine):
    """Requests come, leave, are cancelled and end in any order; the model knows who must be where."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.crowd = Crowd(turns(SLOTS, QUEUE_MAX))
        self.count = 0
        self.waiting: dict[str, tuple[str, bool]] = {}
        self.running: set[str] = set()

    def _run(self, work: Any) -> None:
        self.loop.run_until_complete(work)
        before = self.running | self.waiting.keys()
        for name in list(self.waiting):
            outcome = self.crowd.outcomes.get(name)
            if outcome == "turn":
                self.running.add(name)
            if outcome is not None or self.crowd.tasks[name].done():
                del self.waiting[name]
        assert self.running <= before

    @rule(customer=CUSTOMERS, priority=st.booleans())
    def comes(self, customer: str, priority: bool) -> None:
        self.count += 1
        name = f"{customer}{self.count}"
        roomy = self.crowd.queue.has_room(customer, priority)
        self.waiting[name] = (customer, priority)
        self._run(self.crowd.send(name, customer, priority=priority))
        assert roomy == (self.crowd.outcomes.get(name) != "full")

    @precondition(lambda self: self.running)
    @rule(pick=st.randoms(use_true_random=False))
    def ends(self, pick: Any) -> None:
        self.running.remove(pick.choice(sorted(self.running)))
        before, came = dict(self.waiting), len(self.crowd.came)
        self._run(self.crowd.give_back())
        served = self.crowd.came[came:]
        assert len(served) == min(1, len(before))
        for name in served:
            customer, priority = before[name]
            assert priority or not any(first for _, first in before.values())
            older = [other for other, of in before.items() if of == (customer, priority)]
            assert name == older[0]

    @precondition(lambda self: self.waiting)
    @rule(pick=st.randoms(use_true_random=False), cancels=st.booleans(), ends_too=st.booleans())
    def leaves(self, pick: Any, cancels: bool, ends_too: bool) -> None:
        """In the same moment, perhaps, as a slot is given back, before or after it."""
        name = pick.choice(sorted(self.waiting))

        async def go() -> None:
            if ends_too and self.running:
                self.running.remove(min(self.running))
                self.crowd.queue.give_back()
            if cancels:
                self.crowd.tasks[name].cancel()
            else:
                self.crowd.clients[name].leave()
            await settled()

        self._run(go())
        assert name not in self.waiting

    @invariant()
    def nothing_is_lost(self) -> None:
        queue = self.crowd.queue
        assert len(self.running) + queue.free == SLOTS
        assert queue.waiting == len(self.waiting)
        assert not (queue.free and queue.waiting)
        for first in (False, True):
            lengths = Counter(customer for customer, priority in self.waiting.values() if priority == first)
            assert lengths.total() <= QUEUE_MAX

    def teardown(self) -> None:
        async def all_ended() -> None:
            for task in self.crowd.tasks.values():
                task.cancel()
            await asyncio.gather(*self.crowd.tasks.values(), return_exceptions=True)

        self.loop.run_until_complete(all_ended())
        self.loop.close()


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
