"""A caller's standing: its plan at the policy in force, with the counters of the windows that run now."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from proxy.domain.identity import Identity
from proxy.domain.policy import Budget, Plan, Policy
from proxy.domain.reservations import Counter
from proxy.domain.windows import window_at

NO_PLAN = Plan(id="", name="no", version=0)


class Standing:
    """Compiled once per identity and policy, so that a request formats no key and computes no window."""

    __slots__ = ("_all", "_counters", "_until_us", "digest", "identity", "plan", "policy", "zone")

    def __init__(self, digest: str, identity: Identity, policy: Policy) -> None:
        self.digest = digest
        self.identity = identity
        self.policy = policy
        self.plan = policy.plans.get(identity.plan_id, NO_PLAN)
        self.zone = ZoneInfo(identity.timezone)
        self._all: tuple[Counter, ...] = ()
        self._counters: dict[str, tuple[Counter, ...]] = {}
        self._until_us = -1

    def counters(self, model_id: str, now_us: int) -> tuple[Counter, ...]:
        """The counters that a call of this model moves at `now_us`, in the order of the plan's budgets."""
        if now_us >= self._until_us:
            self.turn_windows(now_us)
        counters = self._counters.get(model_id)
        if counters is None:
            counters = tuple(c for c in self._all if c.budget.counts(model_id))
            self._counters[model_id] = counters
        return counters

    def all_counters(self, now_us: int) -> tuple[Counter, ...]:
        """Every budget's counter at `now_us`."""
        if now_us >= self._until_us:
            self.turn_windows(now_us)
        return self._all

    def turn_windows(self, now_us: int) -> None:
        """Work the windows out again: one of them does not hold the present any more."""
        self._all = tuple(self._counter(budget, now_us) for budget in self.plan.budgets)
        self._counters = {}
        self._until_us = min((c.ends_us for c in self._all if c.ends_us is not None), default=1 << 62)

    def _counter(self, budget: Budget, now_us: int) -> Counter:
        starts, ends = window_at(budget.window, self.identity.anchor_us, self.zone, now_us)
        who = self.identity
        subject = f"agent:{who.agent_id}" if budget.per == "agent" else "customer"
        name = f"{who.customer_id}/{subject}/{budget.id}/{budget.meter}/{budget.window}/{starts}"
        return Counter(name, budget, starts, ends)
