"""Counters: their names, the windows they run over, and the order in which what fills them is burnt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from proxy.domain.counters import KEPT_US, counter_of, expires_us, is_grant, shared_of, user_subject
from proxy.domain.grants import Grant
from proxy.domain.identity import Identity
from proxy.domain.policy import Budget

DAY_US = 86_400_000_000


def us(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[arg-type,misc]


ANCHOR_US, NOW_US = us(2026, 1, 31), us(2026, 3, 15)
WHO = Identity("acme", "bot", "type", "sec", 0, "active", "starter", ANCHOR_US, "UTC", 1, 3)
BUDGET = Budget("b", "tokens", 100, "P1M")
# The window in which now lies.
STARTS, ENDS = us(2026, 2, 28), us(2026, 3, 31)


def grant(id: str, **more: Any) -> Grant:
    return Grant(id, "tokens", **{"amount": 10, "created_at_us": 5, **more})


def order(*grants: Grant, budget: Budget = BUDGET, now_us: int = NOW_US) -> list[str]:
    counter = counter_of(replace(WHO, grants=grants), budget, ZoneInfo("UTC"), now_us)
    return [source.grant_id or "plan" for source in counter.filled_from]


@pytest.mark.parametrize(
    ("grants", "burnt"),
    [
        ([], ["plan"]),
        ([grant("a", priority=1), grant("b", priority=200)], ["a", "plan", "b"]),
        ([grant("never")], ["plan", "never"]),
        ([grant("a", expires_at_us=ENDS - 1), grant("b", expires_at_us=ENDS + 1)], ["a", "plan", "b"]),
        ([grant("older", expires_at_us=ENDS), grant("newer", expires_at_us=ENDS, created_at_us=STARTS + 1)],
         ["older", "plan", "newer"]),
        ([grant("b"), grant("a"), grant("c", created_at_us=1)], ["plan", "c", "a", "b"]),
    ],
)  # fmt: skip
def test_sources_burn_by_priority_then_expiry_then_creation_then_id(grants: list[Grant], burnt: list[str]) -> None:
    """What a customer loses first is used first; the plan's own allowance expires with its window."""
    assert order(*grants) == burnt


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"effective_at_us": NOW_US}, True),
        ({"effective_at_us": NOW_US + 1}, False),
        ({"expires_at_us": NOW_US}, False),
        ({"expires_at_us": NOW_US + 1}, True),
        ({"per": "agent"}, False),
        ({"budget_id": "b"}, True),
        ({"budget_id": "other"}, False),
    ],
)
def test_a_grant_counts_from_its_effective_date_until_before_its_expiry(
    changes: dict[str, Any], counts: bool
) -> None:
    assert ("g" in order(grant("g", **changes))) is counts


def test_names_say_whose_and_when() -> None:
    zone = ZoneInfo("UTC")
    who = replace(WHO, grants=(grant("g", expires_at_us=NOW_US + 1), grant("h", budget_id="b")))
    assert counter_of(who, BUDGET, zone, NOW_US).names == (
        f"acme/customer/b/tokens/grant:g/{NOW_US + 1}",
        f"acme/customer/b/tokens/P1M/{STARTS}",
        "acme/customer/b/tokens/grant:h/-",
    )
    agents = counter_of(WHO, replace(BUDGET, per="agent"), zone, NOW_US)
    assert agents.name == f"acme/agent:bot/b/tokens/P1M/{STARTS}"
    mine = counter_of(WHO, replace(BUDGET, per="user"), zone, NOW_US, "ann/b~c")
    assert mine.name == f"acme/user:ann%2Fb%7Ec/b/tokens/P1M/{STARTS}"
    assert mine.shared is not None
    assert mine.shared.name == shared_of(mine.name) == f"acme/user:-/b/tokens/P1M/{STARTS}"
    assert counter_of(WHO, replace(BUDGET, per="user"), zone, NOW_US) == mine.shared
    assert [shared_of(name) for name in (mine.shared.name, agents.name)] == [None, None]


@pytest.mark.parametrize("user_id", ["x" * 65, "ß" * 30, "~" * 64])
def test_a_users_subject_is_short_whatever_the_id(user_id: str) -> None:
    """Whoever invents long ids fills Redis no faster."""
    assert len(user_subject(user_id)) <= 70
    assert user_subject(user_id) != user_subject(user_id + "x")


@pytest.mark.parametrize("user_id", [None, "", "-"])
def test_calls_without_a_user_share_one(user_id: str | None) -> None:
    assert user_subject(user_id) == "user:-"


@pytest.mark.parametrize(
    ("rollover_max", "now_us", "windows"),
    [
        (50, NOW_US, [us(2026, 1, 31)]),
        (50, us(2026, 2, 1), []),
        (250, us(2026, 5, 1), [us(2026, 3, 31), us(2026, 2, 28), us(2026, 1, 31)]),
        (250, us(2026, 9, 1), [us(2026, 7, 31), us(2026, 6, 30), us(2026, 5, 31)]),
    ],
)
def test_as_many_windows_are_looked_back_on_as_can_matter(
    rollover_max: int, now_us: int, windows: list[int]
) -> None:
    """None before the subscription began, and no more than fill what may be carried over."""
    counter = counter_of(WHO, replace(BUDGET, rollover_max=rollover_max), ZoneInfo("UTC"), now_us)
    assert [int(name.rsplit("/", 1)[1]) for name in counter.before] == windows


def test_a_calendar_budget_begins_with_the_calendars_month() -> None:
    counter = counter_of(WHO, replace(BUDGET, anchor="calendar"), ZoneInfo("Asia/Tokyo"), NOW_US)
    assert counter.starts_us == us(2026, 3, 1) - 9 * 3_600_000_000


@pytest.mark.parametrize(
    ("name", "expires"),
    [
        ("acme/customer/b/tokens/P1D/0", 2 * DAY_US + KEPT_US),
        ("acme/customer/b/tokens/lifetime/0", None),
        ("acme/customer/b/tokens/grant:g/7", 7 + KEPT_US),
        ("acme/customer/b/tokens/grant:g/-", None),
    ],
)
def test_a_counter_goes_well_after_it_was_needed_last(name: str, expires: int | None) -> None:
    assert expires_us(name) == expires
    assert is_grant(name) is ("grant" in name)
