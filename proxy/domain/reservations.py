"""Reservations: what is held for one attempt, and what Redis may say to it.

A reservation is `held`, then `settled`, `released` or `expired` (reservation.md 3.2). Its reference is the
usage event's id, `{request_id}:{attempt}`.

What every request makes anew is not frozen: that would make its making three times as dear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.domain.policy import Budget, RateLimits

State = Literal["held", "settled", "released", "expired"]

LIFETIME_START_US = 0


@dataclass(frozen=True, slots=True)
class Counter:
    """One budget's running count over one window, for one subject.

    `name` is unique within the installation and says everything that tells counters apart: customer,
    subject, budget id, meter, window and window start, but never the plan, so that a change of plan carries
    usage over. `ends_us` is None for a lifetime.
    """

    name: str
    budget: Budget
    starts_us: int
    ends_us: int | None


@dataclass(slots=True)
class Hold:
    """An amount asked of one counter, in its meter's unit."""

    counter: Counter
    amount: int


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
    """Admitted. `*_tat_us` are the GCRA's theoretical arrival times after this request (0: no limit)."""

    now_us: int
    requests_tat_us: int
    tokens_tat_us: int


@dataclass(frozen=True, slots=True)
class Exceeded:
    """At least one budget would be exceeded; nothing is held. `states`: (used, held) of every hold, in order."""

    now_us: int
    states: tuple[tuple[int, int], ...]


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
    """At least the totals that were asked for are held, and the lease is renewed."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The reference is not held (any more): its lease ran out, or Redis lost it."""


TopUpReply = ToppedUp | Exceeded | Lost | Closed


@dataclass(slots=True)
class Settlement:
    """The end of an attempt that was carried: what each counter is really charged, and the event that says so.

    `amounts` follow the reservation's holds. `rate_tokens` is what the tokens-per-minute limit really took.
    `event` is the usage event as JSON, without what only Redis knows (`seq`, `charged`, `late`, `disputed` on
    conflict). `usage` is (input, output, cost in picodollars), by which a late settle is told from a
    duplicate and its correction is computed.
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
