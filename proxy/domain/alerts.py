"""Alerts: what of note has happened, told once, to the admins and to the seller's own systems.

Which budget has come how far is read from what the ledger has recorded, so an alert is never early. Its `key`
names what happened as nothing else does: however often and by whomever it is raised, it is one alert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Literal
from urllib.parse import unquote

from proxy.domain.counters import GRANT, SHARED_USER
from proxy.domain.denials import used_up
from proxy.domain.grants import Grant
from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.policy import Budget, Plan

AlertType = Literal[
    "budget.threshold_reached",
    "budget.exhausted",
    "budget.renewed",
    "grant.expiring",
    "plan.changed",
    "upstream.down",
    "upstream.up",
    "drift.found",
]
ALERT_TYPES: tuple[AlertType, ...] = (
    "budget.threshold_reached",
    "budget.exhausted",
    "budget.renewed",
    "grant.expiring",
    "plan.changed",
    "upstream.down",
    "upstream.up",
    "drift.found",
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something of note. `data` is what is told, as JSON values.

    `subject` is whom or what of the customer, or of the gate, it is about: "customer", "agent:<id>", "user:<id>",
    an upstream's model, a counter. The window is that of a budget, in microseconds since 1970; `renews`: its end
    is to be told, too.
    """

    type: AlertType
    key: str
    data: Mapping[str, Any]
    customer_id: str | None = None
    subject: str | None = None
    budget_id: str | None = None
    threshold: str | None = None
    window_start_us: int | None = None
    window_end_us: int | None = None
    renews: bool = False


@dataclass(frozen=True, slots=True)
class CounterName:
    """What a counter's name says (`domain.counters`): of a budget's window, or of a grant within a budget.

    `starts_us` is None for a grant's.
    """

    customer_id: str
    subject: str
    budget_id: str
    meter: str
    window: str
    starts_us: int | None
    grant_id: str | None = None

    @classmethod
    def read(cls, name: str) -> CounterName | None:
        """None for a text that is no counter's name."""
        parts = name.split("/")
        if len(parts) != 6:
            return None
        customer_id, subject, budget_id, meter, window, starts = parts
        if window.startswith(GRANT):
            return cls(customer_id, subject, budget_id, meter, "", None, window.removeprefix(GRANT))
        return cls(customer_id, subject, budget_id, meter, window, int(starts)) if starts.isdecimal() else None

    @property
    def budget(self) -> tuple[str, str]:
        """(id, meter): a plan that gives the id to another meter has another budget."""
        return self.budget_id, self.meter

    def counts(self, budget: Budget) -> bool:
        return (budget.id, budget.meter, budget.window) == (self.budget_id, self.meter, self.window)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How far one budget of a plan is used in one window, for one subject. `granted` comes on top of its limit.

    `counter` is the name by which the window is told from all others.
    """

    counter: str
    name: CounterName
    plan: Plan
    budget: Budget
    used: int
    ends_us: int | None
    granted: int = 0

    @property
    def allowed(self) -> int:
        return self.budget.limit + self.granted


def budget_alerts(use: BudgetUse) -> list[Alert]:
    """Every threshold that is reached, from the lowest on, and whether nothing more is admitted."""
    reached = sorted(
        (amount, threshold)
        for threshold in use.budget.alert_at
        if (amount := threshold_amount(threshold, use.allowed)) is not None and use.used >= amount
    )
    alerts = [_of_budget("budget.threshold_reached", use, threshold) for _, threshold in reached]
    if exhausted(use):
        alerts.append(_of_budget("budget.exhausted", use))
    return alerts


def threshold_amount(threshold: str, allowed: int) -> int | None:
    """From which amount on a threshold ("80%", "500000") is reached; None: never, where nothing is allowed."""
    if not threshold.endswith("%"):
        return int(threshold)
    share = Fraction(threshold[:-1]) * allowed / 100
    return -(-share.numerator // share.denominator) if allowed > 0 else None


def exhausted(use: BudgetUse) -> bool:
    """Whether so little is left that the end user is told that it is used up. A soft budget never is."""
    budget = use.budget
    return budget.hard and used_up(use.plan, budget, use.allowed + budget.overage_limit - use.used)


def renewal(use: BudgetUse, before_start_us: int) -> Alert:
    """The window after the one that started at `before_start_us` has begun; `use` is of the present one."""
    alert = _of_budget("budget.renewed", use)
    return Alert(
        alert.type,
        f"{alert.type}/{use.counter}/after/{before_start_us}",
        alert.data,
        alert.customer_id,
        alert.subject,
        alert.budget_id,
        None,
        alert.window_start_us,
        alert.window_end_us,
    )


def grant_expiring(customer_id: str, grant: Grant, remaining: int | None = None) -> Alert:
    """A grant ends soon. `remaining` None: it is not known how much of it is left."""
    data = {
        "customer_id": customer_id,
        "grant_id": grant.id,
        "meter": grant.meter,
        "per": grant.per,
        "budget_id": grant.budget_id,
        "amount": shown(grant.meter, grant.amount),
        "expires_at": None if grant.expires_at_us is None else instant(grant.expires_at_us),
    }
    if remaining is not None:
        data["remaining"] = shown(grant.meter, remaining)
    return Alert(
        "grant.expiring",
        f"grant.expiring/{grant.id}",
        data,
        customer_id,
        "customer",
        grant.budget_id,
        window_end_us=grant.expires_at_us,
    )


def plan_changed(id: str, revision: int, before: Plan | None, after: Plan | None, changes: list[Any]) -> Alert:
    """A plan was made, changed or taken away by a policy's revision."""
    data = {
        "plan": id,
        "name": (after or before or Plan(id, id, 0)).name,
        "version": after.version if after else None,
        "version_before": before.version if before else None,
        "policy_revision": revision,
        "changes": changes,
    }
    return Alert("plan.changed", f"plan.changed/{revision}/{id}", data, subject=id)


def upstream_turn(upstream: str, model: str, down: bool, at_us: int) -> Alert:
    """A target was put to rest after failures, or is in service again."""
    type: AlertType = "upstream.down" if down else "upstream.up"
    return Alert(
        type,
        f"{type}/{upstream}/{model}/{at_us}",
        {"upstream": upstream, "model": model},
        subject=f"{upstream}/{model}",
    )


def drift_found(counter: str, field: str, seen: int | None, right: int, place: str, *, corrected: bool) -> Alert:
    """A counter is not what the record says. `place` tells one such finding from another."""
    data = {"counter": counter, "field": field, "seen": seen, "right": right, "corrected": corrected}
    return Alert("drift.found", f"drift.found/{place}/{field}/{counter}", data, subject=counter)


def instant(us: int) -> str:
    """ "2026-12-01T00:00:00Z"."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="auto").replace("+00:00", "Z")


def shown(meter: str, amount: int) -> int | str:
    """The meter's unit as an integer; of `cost_usd` a decimal text of USD."""
    return usd_text(amount * PICO_PER_MICRO) if meter == "cost_usd" else amount


def _of_budget(type: AlertType, use: BudgetUse, threshold: str | None = None) -> Alert:
    name, budget, meter = use.name, use.budget, use.budget.meter
    kind, _, id = name.subject.partition(":")
    whose = {f"{kind}_id": unquote(id)} if kind in ("agent", "user") and name.subject != SHARED_USER else {}
    lifetime = use.ends_us is None
    data = {
        "customer_id": name.customer_id,
        **whose,
        "plan": use.plan.id,
        "budget_id": budget.id,
        "meter": meter,
        "per": budget.per,
        "window": budget.window,
        **({} if threshold is None else {"threshold": _told(threshold, meter)}),
        "limit": shown(meter, budget.limit),
        "granted": shown(meter, use.granted),
        "used": shown(meter, use.used),
        "remaining": shown(meter, max(0, use.allowed - use.used)),
        "starts_at": None if lifetime or name.starts_us is None else instant(name.starts_us),
        "resets_at": None if use.ends_us is None else instant(use.ends_us),
    }
    return Alert(
        type,
        f"{type}/{use.counter}" + ("" if threshold is None else f"/{threshold}"),
        data,
        name.customer_id,
        name.subject,
        budget.id,
        threshold,
        name.starts_us,
        use.ends_us,
        renews=not lifetime,
    )


def _told(threshold: str, meter: str) -> str:
    return threshold if threshold.endswith("%") else str(shown(meter, int(threshold)))
