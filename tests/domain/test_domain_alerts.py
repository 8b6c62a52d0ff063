from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.alerts import (
    BudgetUse,
    CounterName,
    budget_alerts,
    drift_found,
    grant_expiring,
    plan_changed,
    renewal,
    threshold_amount,
    upstream_turn,
)
from proxy.domain.grants import Grant
from proxy.domain.policy import Budget, Plan

STARTS_US, ENDS_US = 1_795_200_000_000_000, 1_797_792_000_000_000
NAME = f"acme/customer/monthly/tokens/P1M/{STARTS_US}"


def use(used: int, name: str = NAME, granted: int = 0, ends_us: int | None = ENDS_US, **terms: Any) -> BudgetUse:
    given = {"meter": "tokens", "limit": 1000, **terms}
    budget = Budget("monthly", **given)
    read = CounterName.read(name)
    assert read is not None
    return BudgetUse(name, read, Plan("starter", "Starter", 2, budgets=(budget,)), budget, used, ends_us, granted)


def told(use: BudgetUse) -> list[tuple[str, str | None]]:
    return [(alert.type.removeprefix("budget."), alert.threshold) for alert in budget_alerts(use)]


REACHED = "threshold_reached"


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0, []),
        (799, []),
        (800, [(REACHED, "80%")]),
        (949, [(REACHED, "80%")]),
        (950, [(REACHED, "80%"), (REACHED, "95%")]),
        # 15 tokens are less than an answer takes: the end user is told that it is used up.
        (985, [(REACHED, "80%"), (REACHED, "95%"), ("exhausted", None)]),
        (1000, [(REACHED, "80%"), (REACHED, "95%"), (REACHED, "100%"), ("exhausted", None)]),
        (5000, [(REACHED, "80%"), (REACHED, "95%"), (REACHED, "100%"), ("exhausted", None)]),
    ],
)
def test_thresholds_are_reached_at_their_amount_and_not_before(used: int, expected: list[Any]) -> None:
    """Told early, an alert is wrong; told late, it is of no use."""
    assert told(use(used)) == expected


@pytest.mark.parametrize(
    ("threshold", "allowed", "amount"),
    [
        ("80%", 1000, 800),
        ("33.33%", 1000, 334),
        ("0.01%", 3, 1),
        ("200%", 10, 20),
        ("100%", 1, 1),
        ("80%", 2**53, 7_205_759_403_792_794),
        ("500000", 1000, 500_000),
        ("80%", 0, None),
        ("7", 0, 7),
    ],
)
def test_a_share_is_rounded_up_and_exact(threshold: str, allowed: int, amount: int | None) -> None:
    """A float would find 80 % of a large limit a token early."""
    assert threshold_amount(threshold, allowed) == amount


def test_grants_raise_what_thresholds_are_shares_of() -> None:
    """Whoever bought a credit pack is not told that the plan's own allowance runs out."""
    assert told(use(1000, granted=1000)) == []
    assert told(use(1600, granted=1000)) == [(REACHED, "80%")]


def test_amounts_are_thresholds_too() -> None:
    assert told(use(600, alert_at=("500", "700"))) == [(REACHED, "500")]


def test_overage_and_soft_budgets_are_not_exhausted_by_their_limit() -> None:
    """Nothing is refused yet."""
    assert ("exhausted", None) not in told(use(1100, overage_limit=200))
    assert ("exhausted", None) in told(use(1200, overage_limit=200))
    assert ("exhausted", None) not in told(use(10_000, hard=False))


def test_a_budget_of_nothing_is_exhausted_from_the_start() -> None:
    assert told(use(0, limit=0)) == [("exhausted", None)]


def test_the_data_names_the_window_and_writes_money_as_usd() -> None:
    """What is carried outside is in the words of the entitlements, and adds up."""
    name = f"acme/agent:scout/spend/cost_usd/P1M/{STARTS_US}"
    (alert,) = budget_alerts(use(4_000_001, name, limit=5_000_000, meter="cost_usd", per="agent"))
    assert alert.data == {
        "customer_id": "acme",
        "agent_id": "scout",
        "plan": "starter",
        "budget_id": "monthly",
        "meter": "cost_usd",
        "per": "agent",
        "window": "P1M",
        "threshold": "80%",
        "limit": "5",
        "granted": "0",
        "used": "4.000001",
        "remaining": "0.999999",
        "starts_at": "2026-11-20T18:40:00Z",
        "resets_at": "2026-12-20T18:40:00Z",
    }
    assert (alert.window_start_us, alert.window_end_us, alert.renews) == (STARTS_US, ENDS_US, True)


def test_a_users_alert_names_the_user_and_a_lifetime_never_renews() -> None:
    name = "acme/user:ann%40example.com/monthly/tokens/lifetime/0"
    (alert,) = budget_alerts(use(900, name, ends_us=None, per="user", window="lifetime"))
    assert (alert.data["user_id"], alert.data["resets_at"], alert.renews) == ("ann@example.com", None, False)


def test_keys_tell_apart_what_is_apart_and_nothing_else() -> None:
    """The key is what makes an alert one: too wide and one is lost, too narrow and one comes twice."""
    later = NAME.replace(str(STARTS_US), str(ENDS_US))
    keys = [alert.key for one in (use(1000), use(2000), use(1000, later)) for alert in budget_alerts(one)]
    assert len(keys) == 12
    assert len(set(keys)) == 8


@pytest.mark.parametrize("name", ["", "a/b", f"{NAME}/more", "acme/customer/b/tokens/P1M/soon", "a/b/c/d/e/-"])
def test_what_is_no_counters_name_is_not_read_as_one(name: str) -> None:
    assert CounterName.read(name) is None


@pytest.mark.parametrize("expires", ["-", "1797792000000000"])
def test_a_grants_counter_names_its_grant(expires: str) -> None:
    read = CounterName.read(f"acme/customer/monthly/tokens/grant:pack/{expires}")
    assert read is not None
    assert (read.grant_id, read.budget, read.starts_us) == ("pack", ("monthly", "tokens"), None)


def test_other_alerts_say_what_they_are_about() -> None:
    plan = Plan("starter", "Starter", 3)
    changed = plan_changed("starter", 7, None, plan, [{"path": "id", "from": None, "to": "starter"}])
    assert (changed.subject, changed.data["version_before"], changed.data["version"]) == ("starter", None, 3)
    assert upstream_turn("openai", "gpt", True, 5).type == "upstream.down"
    assert upstream_turn("openai", "gpt", False, 6).subject == "openai/gpt"
    grant = Grant("pack", "cost_usd", 1_500_000, expires_at_us=ENDS_US)
    assert grant_expiring("acme", grant).data["amount"] == "1.5"
    drift = drift_found(NAME, "used", 5, 6, "3/e/9", corrected=True)
    assert (drift.data["seen"], drift.data["right"], drift.data["corrected"]) == (5, 6, True)


def test_a_renewal_is_told_once_for_each_window_that_was_alerted_of() -> None:
    one, again = renewal(use(0), 5), renewal(use(10), 5)
    assert one.key == again.key != renewal(use(0), 6).key
    assert not one.renews
