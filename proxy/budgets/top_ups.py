"""Raising what a reservation holds: the arguments of `top_up.lua`, and its replies in the domain's words."""

from __future__ import annotations

from typing import Any

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Argument, Script
from proxy.budgets.sources import balances, holds_as_made, top_up_texts
from proxy.domain.reservations import Closed, Exceeded, Lost, ToppedUp, TopUp, TopUpReply

TOP_UP = Script("top_up")


def top_up_call(
    keys: ShardKeys, epoch: bytes, seq: int, lease_us: int, asked: TopUp
) -> tuple[list[str], list[Argument]]:
    """KEYS and ARGV."""
    names = [keys.shard, keys.held, keys.leases, keys.observed]
    arguments: list[Argument] = [epoch, seq, lease_us, asked.ref, asked.observed_output_tokens]
    for number, hold in enumerate(asked.holds):
        names += map(keys.counter, hold.counter.names)
        arguments += top_up_texts(number, hold)
    return names, arguments


def top_up_reply(prefix: str, asked: TopUp, reply: list[Any]) -> TopUpReply:
    word = reply[0]
    if word == b"topped_up":
        return ToppedUp(reply[1], holds_as_made(prefix, asked.holds, reply[2]))
    if word == b"exceeded":
        return Exceeded(reply[1], balances(reply[2:]))
    return Lost() if word == b"lost" else Closed()
