"""Reserving: the arguments of `reserve.lua`, and its replies in the domain's words."""

from __future__ import annotations

from typing import Any, cast

from proxy.budgets.keys import ShardKeys, secret_field
from proxy.budgets.scripts import Argument
from proxy.budgets.sources import balances, ceiling, holds_as_made, is_sourced, reserve_holds
from proxy.domain.reservations import (
    Closed,
    Exceeded,
    Finished,
    Full,
    Held,
    Limited,
    Reservation,
    ReserveReply,
    Stale,
    State,
    WindowPassed,
)

CLOSED = Closed()

_FULL = Full()
_STATES: dict[bytes, State] = {b"settled": "settled", b"released": "released", b"expired": "expired"}


def reserve_call(
    keys: ShardKeys, epoch: bytes, seq: int, lease_us: int, reservation: Reservation
) -> tuple[list[str], list[Argument]]:
    """KEYS and ARGV."""
    customer, limits = reservation.customer_id, reservation.limits
    names = [
        keys.shard,
        keys.customer(customer),
        keys.rates(customer),
        keys.holding(customer),
        keys.held,
        keys.leases,
        keys.done(reservation.ref),
    ]
    arguments: list[Argument] = [
        epoch,
        seq,
        reservation.ref,
        secret_field(reservation.secret_id),
        reservation.customer_revision,
        reservation.policy_revision,
        1 if reservation.first else 0,
        or_dash(limits.requests_per_minute),
        or_dash(limits.tokens_per_minute),
        or_dash(limits.concurrent_requests),
        reservation.rate_tokens,
        lease_us,
        reservation.record,
    ]
    prefix = keys.counters
    counters: list[str] = []
    texts: list[str] = []
    for hold in reservation.holds:
        counter = hold.counter
        if is_sourced(counter):
            counters, texts = reserve_holds(prefix, reservation.holds)
            break
        counters.append(prefix + counter.name)
        ends = "-" if counter.ends_us is None else counter.ends_us
        texts.append(f"{hold.amount} {ceiling(counter.budget)} {counter.starts_us} {ends}")
    return names + counters, arguments + texts


def reserve_reply(prefix: str, reservation: Reservation, reply: list[Any]) -> ReserveReply:
    word = reply[0]
    if word == b"held":
        if len(reply) == 4:
            return Held(reply[1], reply[2], reply[3])
        holds = holds_as_made(prefix, reservation.holds, reply[4], reply[5])
        return Held(reply[1], reply[2], reply[3], holds)
    if word == b"exceeded":
        return Exceeded(reply[1], balances(reply[2:]))
    if word == b"limited":
        return Limited(reply[1], cast(Any, reply[2].decode()), reply[3])
    if word == b"stale":
        return Stale(cast(Any, reply[1].decode()))
    if word == b"window":
        return WindowPassed(reply[1])
    if word == b"finished":
        return Finished(_STATES[reply[1]])
    if word == b"full":
        return _FULL
    return CLOSED


def or_dash(limit: int | None) -> Argument:
    return "-" if limit is None else limit
