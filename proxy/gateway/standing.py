"""A caller's standing: its plan at the policy in force, with the counters of the windows that run now."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

from proxy.domain.counters import counter_of
from proxy.domain.identity import Identity
from proxy.domain.overrides import with_overrides
from proxy.domain.policy import Plan, Policy, RateLimits
from proxy.domain.reservations import Counter

# Of one caller, 500 bytes each: so many users' counters are remembered.
USERS_MAX = 64

NO_PLAN = Plan(id="", name="no", version=0)


class Standing:
    """Compiled once per identity and policy, so that a request formats no key and computes no window.

    `lenient`: the plan's terms are not asked (`laid_open`). `verified_us`: when Redis last admitted a call of it,
    by the monotonic clock; kept only for plans that stay open while Redis is away.
    """

    __slots__ = (
        "_all",
        "_counters",
        "_open",
        "_per_user",
        "_until_us",
        "_users",
        "digest",
        "identity",
        "lenient",
        "plan",
        "policy",
        "verified_us",
        "zone",
    )

    def __init__(self, digest: str, identity: Identity, policy: Policy) -> None:
        self.digest = digest
        self.identity = identity
        self.policy = policy
        self.plan = policy.plans.get(identity.plan_id, NO_PLAN)
        if self.plan is not NO_PLAN:
            self.plan = with_overrides(self.plan, identity.overrides, policy.models)
        self.zone = ZoneInfo(identity.timezone)
        self._all: tuple[Counter, ...] = ()
        self._counters: dict[str, tuple[Counter, ...]] = {}
        self._users: dict[tuple[str, str], Counter] = {}
        self._per_user = any(budget.per == "user" for budget in self.plan.budgets)
        self._until_us = -1
        self._open: Standing | None = None
        self.lenient = False
        self.verified_us: int | None = None

    def at(self, now_us: int) -> Standing:
        """Itself, or what it has become where a scheduled change of plan has come due.

        What was admitted keeps the standing that it was admitted with.
        """
        scheduled = self.identity.scheduled
        if scheduled is None or now_us < scheduled.at_us:
            return self
        identity = replace(self.identity, plan_id=scheduled.plan_id, scheduled=None)
        return Standing(self.digest, identity, self.policy)

    def laid_open(self) -> Standing:
        """The same, refusing nothing: what goes beyond its budgets is overage."""
        if self._open is None:
            budgets = tuple(replace(budget, hard=False) for budget in self.plan.budgets)
            self._open = Standing(self.digest, self.identity, self.policy)
            self._open.plan = replace(self.plan, budgets=budgets, rate_limits=RateLimits())
            self._open.lenient = True
        return self._open

    def counters(self, model_id: str, now_us: int, user_id: str | None = None) -> tuple[Counter, ...]:
        """The counters that a call of this model for this user moves at `now_us`, in the order of the plan's
        budgets."""
        if now_us >= self._until_us:
            self.turn_windows(now_us)
        counters = self._counters.get(model_id)
        if counters is None:
            counters = tuple([c for c in self._all if c.budget.counts(model_id)])
            self._counters[model_id] = counters
        if user_id is None or not self._per_user:
            return counters
        return tuple([self._of_user(c, user_id, now_us) if c.budget.per == "user" else c for c in counters])

    def all_counters(self, now_us: int, user_id: str | None = None) -> tuple[Counter, ...]:
        """Every budget's counter at `now_us`."""
        if now_us >= self._until_us:
            self.turn_windows(now_us)
        if user_id is None or not self._per_user:
            return self._all
        return tuple([self._of_user(c, user_id, now_us) if c.budget.per == "user" else c for c in self._all])

    def turn_windows(self, now_us: int) -> None:
        """Work the windows out again: one of them, or of the grants, does not hold the present any more."""
        who = self.identity
        self._all = tuple([counter_of(who, budget, self.zone, now_us) for budget in self.plan.budgets])
        self._counters = {}
        self._users = {}
        turns = [counter.ends_us for counter in self._all]
        for grant in who.grants:
            turns += (grant.effective_at_us, grant.expires_at_us)
        self._until_us = min((turn for turn in turns if turn is not None and turn > now_us), default=1 << 62)

    def _of_user(self, of_nobody: Counter, user_id: str, now_us: int) -> Counter:
        """Compiled once per user, as far as there is room: users are many, and most make a few calls in a row."""
        key = (of_nobody.budget.id, user_id)
        counter = self._users.get(key)
        if counter is None:
            if len(self._users) >= USERS_MAX:
                self._users.clear()
            counter = counter_of(self.identity, of_nobody.budget, self.zone, now_us, user_id)
            self._users[key] = counter
        return counter
