"""Budgets of several sources, as the scripts are told of them and tell of them (`reserve.lua`, `sources.lua`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proxy.budgets.scripts import Argument
from proxy.domain.policy import Budget
from proxy.domain.reservations import Balance, Counter, Hold, Source

MOST = 2**53 - 1
"""As much as the scripts can count exactly: the limit of a budget that has none."""

# KEYS of `reserve` before the counters.
RESERVE_KEYS = 7


def is_sourced(counter: Counter) -> bool:
    """Whether `reserve` has to be told more of it than a limit and a window."""
    return bool(counter.sources or counter.shared or counter.budget.rollover_max)


def ceiling(budget: Budget) -> int:
    """What its one counter may come to, overage included."""
    return min(MOST, budget.limit + budget.overage_limit) if budget.hard else MOST


def reserve_holds(prefix: str, holds: Iterable[Hold]) -> tuple[list[str], list[str]]:
    """KEYS from the counters on, and the texts of the holds."""
    holds = tuple(holds)
    names = [prefix + name for hold in holds for name in hold.counter.names]
    aside: list[str] = []

    def key(name: str) -> int:
        aside.append(prefix + name)
        return RESERVE_KEYS + len(names) + len(aside)

    texts: list[str] = []
    for number, hold in enumerate(holds):
        counter, budget = hold.counter, hold.counter.budget
        if not is_sourced(counter):
            window = f"{counter.starts_us} {_or_dash(counter.ends_us)}"
            texts.append(f"{hold.amount} {ceiling(budget)} {window}")
            continue
        shared = counter.shared.names if counter.shared else ()
        for at, source in enumerate(counter.filled_from):
            text = f"#{number} {hold.amount} {source.limit} {_kind(source)}"
            text += f" {source.starts_us} {_or_dash(source.ends_us)}"
            if shared:
                text += f" shared={key(shared[at])}"
            if source.grant_id is None:
                text += _over(budget)
                if budget.rollover_max:
                    text += (
                        f" carry={budget.rollover_max},{budget.rollover_min} before={_listed(key, counter.before)}"
                    )
                if counter.shared:
                    text += f" users={budget.users_max}"
                    text += f" shared_before={_listed(key, counter.shared.before)}"
            texts.append(text)
    return names + aside, texts


def ending_texts(number: int, counter: Counter, amount: int) -> list[Argument]:
    """The amounts of a counter's sources for `settle` and `expire`; one where there is one source."""
    if not counter.sources:
        return [amount]
    return [
        f"#{number} {amount} {source.limit} {_kind(source)}{_carry(counter.budget, source)}"
        for source in counter.sources
    ]


def top_up_texts(number: int, hold: Hold) -> list[Argument]:
    counter, budget = hold.counter, hold.counter.budget
    if not counter.sources and not budget.rollover_max:
        return [f"{hold.amount} {ceiling(budget)}"]
    return [
        f"#{number} {hold.amount} {source.limit} {_kind(source)}"
        + ("" if source.grant_id is not None else _carry(budget, source) + _over(budget))
        for source in counter.filled_from
    ]


def holds_as_made(
    prefix: str, holds: Sequence[Hold], amounts: bytes, names: bytes | None = None
) -> tuple[Hold, ...]:
    """The holds as `reserve` and `top_up` say that they came to be."""
    counted = [int(amount) for amount in amounts.split(b",")] if amounts else []
    named = names.decode().split("\t") if names else []
    made, at = [], 0
    for hold in holds:
        counter, count = hold.counter, len(hold.counter.names)
        if named and counter.shared and named[at] != prefix + counter.names[0]:
            counter = counter.shared
        parts = tuple(counted[at : at + count])
        made.append(Hold(counter, sum(parts), parts if counter.sources else ()))
        at += count
    return tuple(made)


def balances(figures: Sequence[int]) -> tuple[Balance, ...]:
    """Four figures of each budget, one after the other."""
    return tuple(Balance(*figures[at : at + 4]) for at in range(0, len(figures), 4))


def _kind(source: Source) -> str:
    return "plan" if source.grant_id is None else "grant"


def _carry(budget: Budget, source: Source) -> str:
    return " carry" if source.grant_id is None and budget.rollover_max else ""


def _over(budget: Budget) -> str:
    if not budget.hard:
        return " over=-"
    return f" over={budget.overage_limit}" if budget.overage_limit else ""


def _or_dash(ends_us: int | None) -> int | str:
    return "-" if ends_us is None else ends_us


def _listed(key: Callable[[str], int], names: Iterable[str]) -> str:
    return ",".join([str(key(name)) for name in names])
