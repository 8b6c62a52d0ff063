"""The reservation protocol as plain Python: what the scripts must do, said a second time and differently.

A shard is a few dictionaries; every verb returns the reply that the script must give. There is no Redis, no
concurrency and no clock here: the present is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

MINUTE_US = 60_000_000


@dataclass
class Customer:
    revision: int = 1
    secrets: dict[str, int] = field(default_factory=dict)
    requests_tat: int = 0
    tokens_tat: int = 0


@dataclass
class Hold:
    customer: Customer
    admitted_us: int
    tokens_from: int
    tokens_to: int
    amounts: dict[str, int]
    deadline_us: int
    observed: int = 0


@dataclass
class Done:
    state: str
    usage: tuple[int, int, int]
    charged: dict[str, int]
    disputed: set[tuple[int, int, int]] = field(default_factory=set)


@dataclass
class Balance:
    used: int = 0
    held: int = 0


@dataclass
class Event:
    kind: str
    seq: int
    charged: dict[str, int]
    late: bool
    disputed: bool
    prior: tuple[int, int, int]


@dataclass(frozen=True)
class Wanted:
    """What a reservation asks of one counter."""

    name: str
    amount: int
    limit: int
    starts_us: int
    ends_us: int | None


@dataclass
class Shard:
    lease_us: int
    epoch: str = "e1"
    seq: int = 0
    clock_us: int = 0
    policy: int = 1
    full: bool = False
    customers: dict[str, Customer] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    held: dict[str, Hold] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("settled", "released", "expired"), 0))
    admitted: int = 0

    def under_way(self, customer: Customer) -> int:
        return sum(hold.customer is customer for hold in self.held.values())

    def reserve(
        self,
        now: int,
        ref: str,
        customer_id: str,
        secret: str,
        revision: int,
        policy: int,
        first: bool,
        wanted: list[Wanted],
        requests_limit: int | None,
        tokens_limit: int | None,
        at_once_limit: int | None,
        rate_tokens: int,
    ) -> tuple[Any, ...]:
        customer = self.customers[customer_id]
        if revision != customer.revision:
            return ("stale", "customer")
        expires_ms = customer.secrets.get(secret)
        if expires_ms is None or (expires_ms and now >= expires_ms * 1000):
            return ("stale", "secret")
        if policy < self.policy:
            return ("stale", "policy")
        if ref in self.done:
            state = self.done[ref].state
            return ("finished", "released" if state == "tombstone" else state)
        requests_tat = customer.requests_tat if requests_limit else 0
        tokens_tat = customer.tokens_tat if tokens_limit else 0
        if ref in self.held:
            return ("held", now, requests_tat, tokens_tat)
        if any(now < w.starts_us or (w.ends_us is not None and now >= w.ends_us) for w in wanted):
            return ("window", now)
        states = [self.balances.get(w.name, Balance()) for w in wanted]
        if any(b.used + b.held + w.amount > w.limit for b, w in zip(states, wanted, strict=True)):
            return ("exceeded", now, tuple((b.used, b.held) for b in states))
        if requests_limit and first:
            requests_tat = max(requests_tat, now) + math.ceil(MINUTE_US / requests_limit)
            if requests_tat - now > MINUTE_US:
                return ("limited", now, "requests", min(requests_tat - now - MINUTE_US, MINUTE_US))
        if at_once_limit is not None and first and self.under_way(customer) >= at_once_limit:
            return ("limited", now, "concurrent_requests", 0)
        tokens_from = 0
        if tokens_limit:
            tokens_from = max(tokens_tat, now)
            tokens_tat = tokens_from + math.ceil(rate_tokens * MINUTE_US / tokens_limit)
            if tokens_tat - now > MINUTE_US:
                return ("limited", now, "tokens", min(tokens_tat - now - MINUTE_US, MINUTE_US))
        if self.full:
            return ("full",)
        for w in wanted:
            self.balances.setdefault(w.name, Balance()).held += w.amount
        amounts = {w.name: w.amount for w in wanted}
        self.held[ref] = Hold(customer, now, tokens_from, tokens_tat, amounts, now + self.lease_us)
        self.admitted += 1
        self.clock_us = now
        if requests_limit and first:
            customer.requests_tat = requests_tat
        if tokens_limit:
            customer.tokens_tat = tokens_tat
        return ("held", now, requests_tat, tokens_tat)

    def settle(
        self,
        now: int,
        ref: str,
        amounts: dict[str, int],
        usage: tuple[int, int, int],
        tokens_limit: int | None,
        rate_tokens: int,
    ) -> tuple[str, int]:
        if ref in self.held:
            hold = self._let_go(ref)
            if tokens_limit:
                spent = math.ceil(rate_tokens * MINUTE_US / tokens_limit)
                self._give_back(now, hold, hold.tokens_to - hold.tokens_from - spent)
            self._charge(amounts)
            return self._finish(now, ref, "settled", usage, amounts)
        done = self.done.get(ref)
        if done is None or done.state == "tombstone":
            return ("unknown", self.seq)
        if done.state != "settled":
            difference = {name: amount - done.charged[name] for name, amount in amounts.items()}
            self._charge(difference)
            self.clock_us = now
            self._write(Event("correction", 0, difference, late=True, disputed=False, prior=done.usage))
            self.done[ref] = Done("settled", usage, amounts)
            return ("late", self.seq)
        if done.usage == usage or usage in done.disputed:
            return ("duplicate", self.seq)
        done.disputed.add(usage)
        self.clock_us = now
        self._write(Event("correction", 0, {}, late=False, disputed=True, prior=done.usage))
        return ("conflict", self.seq)

    def release(self, now: int, ref: str) -> tuple[str, int]:
        if ref in self.done:
            return ("duplicate", self.seq)
        if ref not in self.held:
            self.done[ref] = Done("tombstone", (0, 0, 0), {})
            return ("tombstone", self.seq)
        hold = self._let_go(ref)
        self._give_back(now, hold, hold.tokens_to - hold.tokens_from)
        return self._finish(now, ref, "released", (0, 0, 0), dict.fromkeys(hold.amounts, 0))

    def extend(self, now: int, observed: dict[str, int]) -> set[str]:
        for ref in observed.keys() & self.held.keys():
            hold = self.held[ref]
            hold.deadline_us = now + self.lease_us
            hold.observed = max(hold.observed, observed[ref])
            self.clock_us = now
        return observed.keys() - self.held.keys()

    def top_up(self, now: int, ref: str, totals: dict[str, int], limits: dict[str, int], observed: int) -> Any:
        if ref not in self.held:
            return ("lost",)
        hold = self.held[ref]
        more = {name: max(0, total - hold.amounts[name]) for name, total in totals.items()}
        states = {name: self.balances[name] for name in totals}
        if any(b.used + b.held + more[name] > limits[name] for name, b in states.items()):
            return ("exceeded", now, tuple((b.used, b.held) for b in states.values()))
        for name, amount in more.items():
            self.balances[name].held += amount
            hold.amounts[name] += amount
        hold.deadline_us = now + self.lease_us
        hold.observed = max(hold.observed, observed)
        self.clock_us = now
        return ("topped_up", now)

    def overdue(self, now: int) -> dict[str, int]:
        return {ref: hold.observed for ref, hold in self.held.items() if hold.deadline_us <= now}

    def expire(
        self, now: int, ref: str, observed: int, amounts: dict[str, int], usage: tuple[int, int, int]
    ) -> tuple[str, int]:
        if ref not in self.overdue(now) or self.held[ref].observed != observed:
            return ("duplicate", self.seq)
        self._let_go(ref)
        self._charge(amounts)
        self._finish(now, ref, "expired", usage, amounts)
        return ("settled", self.seq)

    def _let_go(self, ref: str) -> Hold:
        hold = self.held.pop(ref)
        for name, amount in hold.amounts.items():
            self.balances[name].held -= amount
        return hold

    def _give_back(self, now: int, hold: Hold, unused: int) -> None:
        hold.customer.tokens_tat -= max(0, min(unused, hold.tokens_to - max(now, hold.tokens_from)))

    def _charge(self, amounts: dict[str, int]) -> None:
        for name, amount in amounts.items():
            self.balances[name].used += amount

    def _finish(
        self, now: int, ref: str, state: str, usage: tuple[int, int, int], charged: dict[str, int]
    ) -> tuple[str, int]:
        self.clock_us = now
        self.finished[state] += 1
        self.done[ref] = Done(state, usage, charged)
        self._write(Event("terminal", 0, charged, late=False, disputed=False, prior=(0, 0, 0)))
        return (state, self.seq)

    def _write(self, event: Event) -> None:
        self.seq += 1
        event.seq = self.seq
        self.events.append(event)
