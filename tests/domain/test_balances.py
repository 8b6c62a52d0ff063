"""Who looks at a budget sees what the scripts decide by; the protocol's state machine compares them too."""

from __future__ import annotations

import pytest

from proxy.domain.balances import Level, Tally, level_of, names_of
from proxy.domain.policy import Budget
from proxy.domain.reservations import Counter, Source

MINE = Budget("b", "tokens", 100, per="user", users_max=2)
SHARED = Counter("shared", MINE, 0, 9)
OWN = Counter("own", MINE, 0, 9, (), (), SHARED)
FILLED = Counter(
    "plan",
    Budget("b", "tokens", 100, rollover_max=60, rollover_min=5),
    0,
    9,
    (Source("grant", 50, 0, None, "g"), Source("plan", 100, 0, 9, None)),
    ("yesterday", "before"),
)


@pytest.mark.parametrize(
    ("tallies", "used"),
    [
        ({}, 0),
        ({"own": Tally(7, touched=True), "shared": Tally(9, users=2, touched=True)}, 7),
        ({"shared": Tally(9, users=1, touched=True)}, 0),
        ({"shared": Tally(9, users=2, touched=True)}, 9),
    ],
)
def test_a_user_is_shown_the_counter_that_the_next_call_would_move(tallies: dict[str, Tally], used: int) -> None:
    assert level_of(OWN, tallies).used == used
    assert names_of([OWN]) == ["own", "shared"]


@pytest.mark.parametrize(
    ("tallies", "level"),
    [
        ({"plan": Tally(0, 0, 7, touched=True)}, Level(57, 0, 0, 157, 0)),
        ({"plan": Tally(90, 40, 10, touched=True), "grant": Tally(20, 5)}, Level(60, 110, 45, 25, 20)),
        ({"yesterday": Tally(80, touched=True)}, Level(70, 0, 0, 170, 0)),
        ({"yesterday": Tally(120, touched=True)}, Level(55, 0, 0, 155, 0)),
        ({"before": Tally(70, 0, 20, touched=True)}, Level(110, 0, 0, 210, 0)),
        ({"grant": Tally(60, touched=True)}, Level(110, 60, 0, 160, 0)),
    ],
)
def test_what_is_left_is_the_sum_of_what_each_source_has_left(tallies: dict[str, Tally], level: Level) -> None:
    """What is overdrawn takes nothing from the others."""
    assert level_of(FILLED, tallies) == level
