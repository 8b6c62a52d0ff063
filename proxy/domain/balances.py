"""What is left of a budget, read from its counters: as `reserve.lua` decides, for those who only look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.domain.reservations import Counter


@dataclass(frozen=True, slots=True)
class Tally:
    """A counter as it is kept. `carry` is None, and `touched` false, until its window is used for the first time;
    `users` is how many users have a counter of their own, of the one that all others share."""

    used: int = 0
    held: int = 0
    carry: int | None = None
    users: int = 0
    touched: bool = False


UNTOUCHED = Tally()


@dataclass(frozen=True, slots=True)
class Level:
    """Of one budget, over all its sources. `granted` is what grants and the windows before add to its limit,
    `remaining` what its sources have left, `overage` what lies beyond them."""

    granted: int
    used: int
    held: int
    remaining: int
    overage: int


def names_of(counters: Iterable[Counter]) -> list[str]:
    """Every counter that `level_of` looks at."""
    names: list[str] = []
    for counter in counters:
        for at in (counter, counter.shared):
            if at is not None:
                names += (*at.names, *at.before)
    return names


def level_of(counter: Counter, tallies: Mapping[str, Tally]) -> Level:
    """How a budget stands; `tallies` has those of `names_of`."""
    counter = _chosen(counter, tallies)
    carried = carry(counter, tallies)
    granted, used, held, remaining, overage = carried, 0, 0, 0, 0
    for source in counter.filled_from:
        tally = tallies.get(source.name, UNTOUCHED)
        left = source.limit - tally.used - tally.held
        if source.grant_id is None:
            left += carried
            overage = max(0, -left)
        else:
            granted += source.limit
        used, held, remaining = used + tally.used, held + tally.held, remaining + max(0, left)
    return Level(granted, used, held, remaining, overage)


def carry(counter: Counter, tallies: Mapping[str, Tally]) -> int:
    """What the window has of the ones before: min(rollover_max, max(left, rollover_min)), from the last that was
    used on. One that nobody has used has left everything, and one before the subscription nothing."""
    budget = counter.budget
    if not budget.rollover_max:
        return 0
    known = tallies.get(counter.name, UNTOUCHED).carry
    if known is not None:
        return known
    looked_at: list[Tally] = []
    carried = 0
    for name in counter.before:
        looked_at.append(tallies.get(name, UNTOUCHED))
        if looked_at[-1].touched:
            carried = looked_at[-1].carry or 0
            break
    for tally in reversed(looked_at):
        left = budget.limit + carried - tally.used - tally.held
        carried = min(budget.rollover_max, max(left, budget.rollover_min))
    return carried


def _chosen(counter: Counter, tallies: Mapping[str, Tally]) -> Counter:
    """A user's own counter, or the shared one if that user has none and as many as may have one already."""
    shared = counter.shared
    if shared is None or tallies.get(counter.name, UNTOUCHED).touched:
        return counter
    full = tallies.get(shared.name, UNTOUCHED).users >= counter.budget.users_max
    return shared if full else counter
