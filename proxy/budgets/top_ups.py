"""Raising what a reservation holds: the arguments of `top_up.lua`, and its replies in the domain's words."""

from __future__ import annotations

from typing import Any

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Argument, Script
from proxy.domain.reservations import Closed, Exceeded, Lost, ToppedUp, TopUp, TopUpReply

TOP_UP = Script("top_up")


def top_up_call(
    keys: ShardKeys, epoch: bytes, seq: int, lease_us: int, asked: TopUp
) -> tuple[list[str], list[Argument]]:
    """KEYS and ARGV."""
    names = [keys.shard, keys.held, keys.leases, keys.observed]
    arguments: list[Argument] = [epoch, seq, lease_us, asked.ref, asked.observed_output_tokens]
    for hold in asked.holds:
        names.append(keys.counter(hold.counter.name))
        arguments.append(f"{hold.amount} {hold.counter.budget.limit}")
    return names, arguments


def top_up_reply(reply: list[Any]) -> TopUpReply:
    word = reply[0]
    if word == b"topped_up":
        return ToppedUp(reply[1])
    if word == b"exceeded":
        return Exceeded(reply[1], tuple(zip(reply[2::2], reply[3::2], strict=True)))
    return Lost() if word == b"lost" else Closed()
