"""Turns: an upstream with `max_concurrency` takes so many calls at once, and the others wait in order.

Requests of plans with the feature `priority` go first. Within a class the customers take turns, each with its
oldest request; so nobody waits behind all that another has sent. The queue is bounded in length and in time, and
left at once by whoever's client leaves. A slot is free, or somebody's, at every moment: it is handed over where
it is given back, and never to one that has left.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Literal

from proxy.gateway.ports import Call, Clock, Meters

Outcome = Literal["turn", "gone", "late", "full"]
"""How waiting ended: the turn came, the client left, it took too long, or there was no room to wait in."""


def share(whole: int, workers: int, index: int) -> int:
    """The slots of worker `index` (from 1), where `whole` are divided: what does not divide goes to the first."""
    return whole // workers + (index <= whole % workers)


class Turns:
    """The slots of one upstream in this worker, and the requests that wait for one."""

    def __init__(
        self, upstream: str, slots: int, queue_max: int, queue_timeout_s: float, clock: Clock, meters: Meters
    ) -> None:
        self.free = slots
        self._upstream = upstream
        self._timeout_s = queue_timeout_s
        self._first, self._others = _Class(queue_max), _Class(queue_max)
        self._clock = clock
        self._meters = meters

    @property
    def waiting(self) -> int:
        return self._first.length + self._others.length

    def has_room(self, customer_id: str, priority: bool) -> bool:
        """Whether a request of this customer would get a slot or may wait for one."""
        return self.free > 0 or self._class(priority).has_room(customer_id)

    async def take(self, customer_id: str, priority: bool, call: Call) -> tuple[Outcome, int]:
        """Waits for a slot; how that ended, and how long it took in microseconds. Only a `turn` is given back."""
        if self.free:
            self.free -= 1
            return "turn", 0
        queue, since_us = self._class(priority), self._clock.monotonic_us()
        waiter = queue.enter(customer_id)
        if waiter is None:
            self._meters.waited(self._upstream, "full", 0)
            return "full", 0
        self._meters.waiting(self._upstream, self.waiting)
        try:
            outcome = await self._turn_of(waiter, call)
        finally:
            queue.leave(waiter)
            self._meters.waiting(self._upstream, self.waiting)
        waited_us = self._clock.monotonic_us() - since_us
        self._meters.waited(self._upstream, outcome, waited_us // 1000)
        return outcome, waited_us

    def give_back(self) -> None:
        """A slot is free: it is the next one's who waits."""
        while (following := self._first.next() or self._others.next()) is not None:
            if following.end("turn"):
                return
        self.free += 1

    async def _turn_of(self, waiter: _Waiter, call: Call) -> Outcome:
        timer = asyncio.get_running_loop().call_later(self._timeout_s, waiter.end, "late")
        call.when_gone(waiter.left)
        try:
            return await waiter.ended
        except asyncio.CancelledError:
            if waiter.has("turn"):
                self.give_back()
            raise
        finally:
            call.when_gone(None)
            timer.cancel()

    def _class(self, priority: bool) -> _Class:
        return self._first if priority else self._others


class _Waiter:
    """One request in the queue. However many want to end its waiting, the first of them does."""

    __slots__ = ("customer_id", "ended", "queue")

    def __init__(self, customer_id: str, queue: _Class) -> None:
        self.customer_id = customer_id
        self.queue = queue
        self.ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Outcome) -> bool:
        """Whether this is how it ended; False where it had ended before."""
        self.queue.leave(self)
        if self.ended.done():
            return False
        self.ended.set_result(outcome)
        return True

    def left(self) -> None:
        self.end("gone")

    def has(self, outcome: Outcome) -> bool:
        return self.ended.done() and not self.ended.cancelled() and self.ended.result() == outcome


class _Class:
    """Waiters of one class: the customers in the order of their turns, and each one's requests as they came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._customers: OrderedDict[str, dict[_Waiter, None]] = OrderedDict()
        self.length = 0

    def has_room(self, customer_id: str) -> bool:
        return self.length < self._most or self._longest_beyond(customer_id) is not None

    def enter(self, customer_id: str) -> _Waiter | None:
        """A place at the end of the customer's own line; None if there is no room.

        Where the queue is full, whoever has sent most makes room: its newest request goes.
        """
        if self.length >= self._most:
            longest = self._longest_beyond(customer_id)
            if longest is None:
                return None
            next(reversed(longest)).end("full")
        waiter = _Waiter(customer_id, self)
        self._customers.setdefault(customer_id, {})[waiter] = None
        self.length += 1
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        """Takes it out of the queue, if it is in there."""
        line = self._customers.get(waiter.customer_id)
        if line is None or waiter not in line:
            return
        del line[waiter]
        self.length -= 1
        if not line:
            del self._customers[waiter.customer_id]

    def next(self) -> _Waiter | None:
        """Whose turn it is; its customer's next turn comes after everybody else's."""
        if not self._customers:
            return None
        customer_id, line = next(iter(self._customers.items()))
        self._customers.move_to_end(customer_id)
        return next(iter(line))

    def _longest_beyond(self, customer_id: str) -> dict[_Waiter, None] | None:
        """The longest line, if it would still be no shorter than this customer's after the exchange."""
        longest = max(self._customers.values(), key=len, default={})
        own = len(self._customers.get(customer_id, ()))
        return longest if len(longest) > own + 1 else None
