"""Reservations: what is held for one attempt, and what Redis may say to it.

A reservation is `held`, then `settled`, `released` or `expired` (reservation.md 3.2). Its reference is the
usage event's id, `{request_id}:{attempt}`.

What every request makes anew is not frozen: that would make its making three times as dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from proxy.domain.policy import Budget, RateLimits

State = Literal["held", "settled", "released", "expired"]

LIFETIME_START_US = 0


@dataclass(frozen=True, slots=True)
class Source:
    """One of the places that a budget's amount comes from: a grant, or the plan's own allowance of the window
    (`grant_id` None). `name` is that of its own counter, [starts, ends) when it may be held; None: for ever."""

    name: str
    limit: int
    starts_us: int
    ends_us: int | None
    grant_id: str | None


@dataclass(frozen=True, slots=True)
class Counter:
    """One budget's running count over one window, for one subject.

    `name` is unique within the installation and says everything that tells counters apart: customer,
    subject, budget id, meter, window and window start, but never the plan, so that a change of plan carries
    usage over. `ends_us` is None for a lifetime.

    `sources` are in burn order, the plan's own (of this counter's name) among them; empty where that is the only
    one. `before` names this counter's predecessors, the newest first, whose rest is carried over. `shared` is the
    counter on which a user's calls are counted once too many users have one of their own.
    """

    name: str
    budget: Budget
    starts_us: int
    ends_us: int | None
    sources: tuple[Source, ...] = ()
    before: tuple[str, ...] = ()
    shared: Counter | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every counter that its amount may be held on, in burn order."""
        return tuple([source.name for source in self.sources]) if self.sources else (self.name,)

    @property
    def filled_from(self) -> tuple[Source, ...]:
        """Its sources, also where the plan's own is the only one."""
        if self.sources:
            return self.sources
        return (Source(self.name, self.budget.limit, self.starts_us, self.ends_us, None),)


@dataclass(slots=True)
class Hold:
    """An amount asked of one counter, in its meter's unit.

    `parts`: what each of its sources holds of it, once it is held; empty where there is one source.
    """

    counter: Counter
    amount: int
    parts: tuple[int, ...] = ()


@dataclass(slots=True)
class Reservation:
    """What the `reserve` script is asked to hold, all or nothing.

    `first` is true for the request's first attempt: only then requests per minute and concurrency are
    checked. `rate_tokens` is what the tokens-per-minute limit takes. `record` is the JSON that stays with the
    reservation, enough to write its orphaned event should nobody settle it.
    """

    ref: str
    customer_id: str
    shard: int
    secret_id: str
    customer_revision: int
    policy_revision: int
    first: bool
    holds: tuple[Hold, ...]
    limits: RateLimits
    rate_tokens: int
    record: bytes


@dataclass(slots=True)
class Held:
    """Admitted. `*_tat_us` are the GCRA's theoretical arrival times after this request (0: no limit).

    `holds`: as they came to be, where that is not how they were asked for: on which counter of a user's and
    divided among which sources.
    """

    now_us: int
    requests_tat_us: int
    tokens_tat_us: int
    holds: tuple[Hold, ...] | None = None


class Balance(NamedTuple):
    """Of one budget, over all its sources: what is used and held, what grants and the windows before have added to
    its limit, and how much more could be held just now, overage included."""

    used: int
    held: int
    granted: int
    left: int


@dataclass(frozen=True, slots=True)
class Exceeded:
    """At least one budget would be exceeded; nothing is held. `states`: the balance of every hold, in order."""

    now_us: int
    states: tuple[Balance, ...]


@dataclass(frozen=True, slots=True)
class Limited:
    """A rate limit refused; nothing is held. `wait_us`: when it would fit again (0 for concurrency)."""

    now_us: int
    limit: Literal["requests", "tokens", "concurrent_requests"]
    wait_us: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The caller's knowledge is out of date: read it again and try again."""

    what: Literal["customer", "secret", "policy"]


@dataclass(frozen=True, slots=True)
class WindowPassed:
    """A counter's window does not hold the present; work the windows out again for `now_us`."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The shard's counters are unknown (epoch missing, or `seq` behind): nothing may be admitted."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The reference is already done (a tombstone, or a duplicate after the fact)."""

    state: State


@dataclass(frozen=True, slots=True)
class Full:
    """As many events as may wait for the ledger do so: nothing more is admitted until it has caught up."""


ReserveReply = Held | Exceeded | Limited | Stale | WindowPassed | Closed | Finished | Full


@dataclass(frozen=True, slots=True)
class TopUp:
    """Raises what a reservation holds, all or nothing. `holds` are the new totals: asking twice adds nothing."""

    ref: str
    shard: int
    holds: tuple[Hold, ...]
    observed_output_tokens: int


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """At least the totals that were asked for are held, and the lease is renewed. `holds`: what is held now."""

    now_us: int
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The reference is not held (any more): its lease ran out, or Redis lost it."""


TopUpReply = ToppedUp | Exceeded | Lost | Closed


@dataclass(slots=True)
class Settlement:
    """The end of an attempt that was carried: what each counter is really charged, and the event that says so.

    `amounts` follow the reservation's holds; `parts` are what their sources held. `rate_tokens` is what the
    tokens-per-minute limit really took. `event` is the usage event as JSON, without what only Redis knows (`seq`,
    `charged`, `late`, `disputed` on conflict). `usage` is (input, output, cost in picodollars), by which a late
    settle is told from a duplicate and its correction is computed.
    """

    ref: str
    customer_id: str
    shard: int
    counters: tuple[Counter, ...]
    amounts: tuple[int, ...]
    rate_tokens: int
    limits: RateLimits
    usage: tuple[int, int, int]
    event: bytes
    parts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class LiveReservation:
    """A reservation under way, as its worker hands it over when Redis has lost it. `record` is JSON text."""

    ref: str
    shard: int
    customer_id: str
    admitted_us: int
    counters: tuple[str, ...]
    amounts: tuple[int, ...]
    record: str


@dataclass(slots=True)
class Settled:
    """What became of a settlement or a release.

    `outcome`: `settled` or `released` (as asked); `late` (after expiry or release: recorded as a correction);
    `duplicate` (the same again: nothing done); `conflict` (another usage for a finished reference: recorded as
    disputed, counters left alone); `unknown` (Redis does not know the reference: for the spool);
    `closed` (the shard is closed: for the spool).
    """

    outcome: Literal["settled", "released", "late", "duplicate", "conflict", "unknown", "closed", "tombstone"]
    seq: int
    now_us: int


def by_counter(counters: Sequence[Counter], amounts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Amounts of sources, as Redis keeps them one after the other, by counter."""
    grouped, at = [], 0
    for counter in counters:
        count = len(counter.names)
        grouped.append(tuple(amounts[at : at + count]))
        at += count
    return tuple(grouped)


def sources_of(settlement: Settlement) -> list[tuple[Counter, Source]]:
    """Every source of a settlement's counters in burn order, each with its budget's counter."""
    return [(counter, source) for counter in settlement.counters for source in counter.filled_from]


def shares(settlement: Settlement) -> list[int]:
    """What each of `sources_of` pays if nobody knows what they have left: what it held, and the plan the rest."""
    paid = []
    for at, counter in enumerate(settlement.counters):
        rest = settlement.amounts[at]
        own = settlement.parts[at] if settlement.parts else ()
        pays = [0] * len(counter.filled_from)
        for source, held in enumerate(own):
            pays[source] = min(rest, held)
            rest -= pays[source]
        plan = next(i for i, source in enumerate(counter.filled_from) if source.grant_id is None)
        pays[plan] += rest
        paid += pays
    return paid
