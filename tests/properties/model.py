"""The reservation protocol as plain Python: what the scripts must do, said a second time and differently.

A shard is a few dictionaries; every verb returns the reply that the script must give. There is no Redis, no
concurrency and no clock here: the present is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

MINUTE_US = 60_000_000
# What is left of a budget without a limit is not told to the last unit.
PLENTY = 2**52


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
    """A counter. `carry` is None until its window is touched; `users` is that of the counter that many share."""

    used: int = 0
    held: int = 0
    carry: int | None = None
    users: int = 0
    touched: bool = False


@dataclass
class Event:
    kind: str
    seq: int
    charged: dict[str, int]
    late: bool
    disputed: bool
    prior: tuple[int, int, int]


@dataclass(frozen=True)
class Spring:
    """One of the sources of a budget; `limit` of the plan's own is without overage and carry."""

    name: str
    limit: int
    starts_us: int
    ends_us: int | None
    is_plan: bool = True


@dataclass(frozen=True)
class Wanted:
    """What a reservation asks of one budget. `springs` are in burn order.

    `over` None: anything may go beyond. `carry` (most, least) with the counters of the windows `before`, the
    newest first. `many`: the same budget as it is counted for all users together; `users_most` have their own.
    """

    amount: int
    springs: tuple[Spring, ...]
    over: int | None = 0
    carry: tuple[int, int] | None = None
    before: tuple[str, ...] = ()
    many: Wanted | None = None
    users_most: int = 0

    @property
    def plan(self) -> Spring:
        return next(spring for spring in self.springs if spring.is_plan)


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
    asked: dict[str, list[Wanted]] = field(default_factory=dict)
    """Of every reservation that was held: the budgets, on the counters that were chosen."""

    def balance(self, name: str) -> Balance:
        return self.balances.get(name, Balance())

    def chosen(self, wanted: Wanted) -> Wanted:
        """A user has a counter of its own if it had one before, or if not as many others have one already."""
        if wanted.many is None or self.balance(wanted.plan.name).touched:
            return wanted
        full = self.balance(wanted.many.plan.name).users >= wanted.users_most
        return wanted.many if full else wanted

    def carry(self, wanted: Wanted) -> int:
        """What the window has of the ones before."""
        if wanted.carry is None:
            return 0
        known = self.balance(wanted.plan.name).carry
        if known is not None:
            return known
        most, least = wanted.carry
        carry = 0
        windows = []
        for name in wanted.before:
            windows.append(self.balance(name))
            if self.balance(name).touched:
                carry = self.balance(name).carry or 0
                break
        for window in reversed(windows):
            left = wanted.plan.limit + carry - window.used - window.held
            carry = min(most, max(left, least))
        return carry

    def left_of(self, wanted: Wanted, spring: Spring, own: int = 0) -> int:
        """What a source could still give; `own` is what the asking reservation holds of it."""
        balance = self.balance(spring.name)
        limit = spring.limit + (self.carry(wanted) if spring.is_plan else 0)
        return max(0, limit - balance.used - balance.held + own)

    def room(self, wanted: Wanted) -> int:
        """How much more a budget admits: what its sources have left, and overage."""
        left = sum(self.left_of(wanted, spring) for spring in wanted.springs)
        if wanted.over is None:
            return min(2**53 - 1, left + 2**53 - 1)
        plan = self.balance(wanted.plan.name)
        over = max(0, plan.used + plan.held - wanted.plan.limit - self.carry(wanted))
        if left > 0:
            return left + max(0, wanted.over - over)
        return wanted.over - over

    def burnt(self, wanted: Wanted, amount: int, own: dict[str, int] | None = None) -> dict[str, int]:
        """An amount divided among the sources in order, the rest on the plan's own."""
        pays = {}
        for spring in wanted.springs:
            pays[spring.name] = min(amount, self.left_of(wanted, spring, (own or {}).get(spring.name, 0)))
            amount -= pays[spring.name]
        pays[wanted.plan.name] += amount
        return pays

    def told(self, wanted: Wanted) -> tuple[int, int, int, int]:
        balances = [self.balance(spring.name) for spring in wanted.springs]
        grants = sum(spring.limit for spring in wanted.springs if not spring.is_plan)
        used, held = sum(b.used for b in balances), sum(b.held for b in balances)
        return (used, held, grants + self.carry(wanted), min(self.room(wanted), PLENTY))

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
        chosen = [self.chosen(w) for w in wanted]
        springs = [spring for w in chosen for spring in w.springs]
        if any(now < s.starts_us or (s.ends_us is not None and now >= s.ends_us) for s in springs):
            return ("window", now)
        if any(w.amount > self.room(w) for w in chosen):
            return ("exceeded", now, tuple(self.told(w) for w in chosen))
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
        amounts: dict[str, int] = {}
        for asked, w in zip(wanted, chosen, strict=True):
            parts, carry = self.burnt(w, w.amount), self.carry(w)
            if asked.many not in (None, w) and not self.balance(w.plan.name).touched:
                assert asked.many is not None
                self.balances.setdefault(asked.many.plan.name, Balance()).users += 1
            for name, part in parts.items():
                balance = self.balances.setdefault(name, Balance())
                balance.held += part
                balance.touched = True
            if w.carry is not None:
                self.balances[w.plan.name].carry = carry
            amounts |= parts
        self.held[ref] = Hold(customer, now, tokens_from, tokens_tat, amounts, now + self.lease_us)
        self.asked[ref] = chosen
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
        amounts: list[int],
        usage: tuple[int, int, int],
        tokens_limit: int | None,
        rate_tokens: int,
    ) -> tuple[str, int]:
        """`amounts` are of the budgets, in the order in which they were asked for."""
        if ref in self.held:
            hold = self._let_go(ref)
            if tokens_limit:
                spent = math.ceil(rate_tokens * MINUTE_US / tokens_limit)
                self._give_back(now, hold, hold.tokens_to - hold.tokens_from - spent)
            paid = self._pay(ref, amounts)
            return self._finish(now, ref, "settled", usage, paid)
        done = self.done.get(ref)
        if done is None or done.state == "tombstone":
            return ("unknown", self.seq)
        if done.state != "settled":
            difference = self._pay(ref, amounts, done.charged)
            self.clock_us = now
            self._write(Event("correction", 0, difference, late=True, disputed=False, prior=done.usage))
            paid = {name: before + difference[name] for name, before in done.charged.items()}
            self.done[ref] = Done("settled", usage, paid)
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

    def top_up(self, now: int, ref: str, totals: list[int], limits: list[int], observed: int) -> Any:
        """`limits` are those of the plan's own sources by now."""
        if ref not in self.held:
            return ("lost",)
        hold = self.held[ref]
        asked = [self._limited(wanted, limit) for wanted, limit in zip(self.asked[ref], limits, strict=True)]
        own = [sum(hold.amounts[spring.name] for spring in wanted.springs) for wanted in asked]
        more = [max(0, total - held) for total, held in zip(totals, own, strict=True)]
        if any(amount > self.room(wanted) for amount, wanted in zip(more, asked, strict=True)):
            return ("exceeded", now, tuple(self.told(wanted) for wanted in asked))
        for amount, wanted in zip(more, asked, strict=True):
            for name, part in self.burnt(wanted, amount).items():
                self.balances[name].held += part
                hold.amounts[name] += part
        hold.deadline_us = now + self.lease_us
        hold.observed = max(hold.observed, observed)
        self.clock_us = now
        return ("topped_up", now)

    def _limited(self, wanted: Wanted, limit: int) -> Wanted:
        springs = tuple(replace(s, limit=limit) if s.is_plan else s for s in wanted.springs)
        return replace(wanted, springs=springs)

    def overdue(self, now: int) -> dict[str, int]:
        return {ref: hold.observed for ref, hold in self.held.items() if hold.deadline_us <= now}

    def expire(
        self, now: int, ref: str, observed: int, amounts: list[int], usage: tuple[int, int, int]
    ) -> tuple[str, int]:
        if ref not in self.overdue(now) or self.held[ref].observed != observed:
            return ("duplicate", self.seq)
        self._let_go(ref)
        self._finish(now, ref, "expired", usage, self._pay(ref, amounts))
        return ("settled", self.seq)

    def _let_go(self, ref: str) -> Hold:
        hold = self.held.pop(ref)
        for name, amount in hold.amounts.items():
            self.balances[name].held -= amount
        return hold

    def _give_back(self, now: int, hold: Hold, unused: int) -> None:
        hold.customer.tokens_tat -= max(0, min(unused, hold.tokens_to - max(now, hold.tokens_from)))

    def _pay(self, ref: str, amounts: list[int], before: dict[str, int] | None = None) -> dict[str, int]:
        """Charges the budgets of a reservation, or what they differ from what was charged `before`."""
        changes: dict[str, int] = {}
        for wanted, amount in zip(self.asked[ref], amounts, strict=True):
            paid = {spring.name: (before or {}).get(spring.name, 0) for spring in wanted.springs}
            more = amount - sum(paid.values())
            changes |= self.burnt(wanted, more) if more >= 0 else self._given_back(wanted, -more, paid)
        for name, change in changes.items():
            self.balances[name].used += change
        return changes

    def _given_back(self, wanted: Wanted, amount: int, paid: dict[str, int]) -> dict[str, int]:
        """What was overage first, then in the reverse of the burn order, from nobody more than it had paid."""
        plan = wanted.plan
        balance = self.balance(plan.name)
        over = max(0, balance.used + balance.held - plan.limit - self.carry(wanted))
        overage = min(amount, paid[plan.name], over) if len(wanted.springs) > 1 else 0
        changes = dict.fromkeys(paid, 0)
        changes[plan.name] -= overage
        amount -= overage
        for spring in reversed(wanted.springs):
            back = min(amount, paid[spring.name] + changes[spring.name])
            changes[spring.name] -= back
            amount -= back
        return changes

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
