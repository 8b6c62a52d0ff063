"""A standing is compiled once, and again whenever a window or a grant begins or ends; users cost it no memory."""

from __future__ import annotations

import gateway_doubles as given
import pytest

from proxy.domain.grants import Grant
from proxy.domain.policy import Budget
from proxy.gateway.standing import USERS_MAX, Standing

NOW_US = given.NOW_US
SOON_US, LATER_US = NOW_US + 10, NOW_US + 20


def names(standing: Standing, now_us: int) -> list[str | None]:
    [counter] = standing.counters("small", now_us)
    return [source.grant_id for source in counter.filled_from]


def test_a_grant_counts_from_its_first_moment_to_its_last() -> None:
    """Nobody waits for the next window, nor pays with what is over."""
    grant = Grant("g", "tokens", 5, effective_at_us=SOON_US, expires_at_us=LATER_US)
    standing = Standing("", given.identity(grants=(grant,)), given.policy())
    assert names(standing, NOW_US) == [None]
    assert names(standing, SOON_US - 1) == [None]
    assert names(standing, SOON_US) == ["g", None]
    assert names(standing, LATER_US - 1) == ["g", None]
    assert names(standing, LATER_US) == [None]


def test_a_budget_that_nothing_adds_to_stays_one_counter() -> None:
    """The hot path of plans without grants must not pay for those with."""
    [counter] = Standing("", given.identity(), given.policy()).counters("small", NOW_US)
    assert (counter.sources, counter.before, counter.shared) == ((), (), None)


@pytest.mark.parametrize("users", [1, USERS_MAX, 10 * USERS_MAX])
def test_users_are_remembered_up_to_a_bound(users: int) -> None:
    plan = given.plan(budgets=(Budget("mine", "tokens", 5, per="user"),))
    standing = Standing("", given.identity(), given.policy(plans=[plan]))
    for user in range(users):
        [counter] = standing.counters("small", NOW_US, f"u{user}")
        assert counter.name.split("/")[1] == f"user:u{user}"
        assert standing.counters("small", NOW_US, f"u{user}")[0] is counter
    assert len(standing._users) <= USERS_MAX


def test_laid_open_it_counts_on_the_same_counters_and_refuses_nothing() -> None:
    standing = Standing("", given.identity(), given.policy(plans=[given.plan(mode="shadow")]))
    [decided], [made] = (s.counters("small", NOW_US) for s in (standing, standing.laid_open()))
    assert (decided.name, decided.budget.hard, made.budget.hard) == (made.name, True, False)
    assert standing.laid_open() is standing.laid_open()
