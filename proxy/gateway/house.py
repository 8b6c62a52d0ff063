"""What every step of the journey is given: the ports, and what a worker keeps in memory between requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from proxy.gateway.drains import Drains
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.leases import Leases
from proxy.gateway.ports import (
    Budgets,
    Call,
    Clock,
    Denials,
    Meters,
    Provider,
    Spawn,
    Spool,
    StoredResponses,
    Tokenizers,
)
from proxy.gateway.rests import Rests
from proxy.gateway.retries import RetryRule, pause
from proxy.gateway.turns import Turns


@dataclass(slots=True)
class House:
    """Built once per worker by the composition root.

    `digest_user` turns a user id that looks like an e-mail address or a phone number into a keyed digest.
    `drains` and `leases` know the attempts under way; `knowledge` knows identities and the policy. `rests` knows
    the targets that are not well; `turns` has the upstreams whose concurrency is limited, and only those;
    `retries` the rule of each upstream. `pause` waits until a call's client leaves; `chance` is from 0 to 1.
    """

    budgets: Budgets
    knowledge: Knowledge
    providers: Mapping[str, Provider]
    tokenizers: Tokenizers
    spool: Spool
    denials: Denials
    meters: Meters
    clock: Clock
    spawn: Spawn
    pepper: bytes
    new_request_id: Callable[[], str]
    digest_user: Callable[[str], str]
    drains: Drains
    leases: Leases
    stored_responses: StoredResponses
    rests: Rests
    turns: Mapping[str, Turns]
    retries: Mapping[str, RetryRule]
    chance: Callable[[], float]
    pause: Callable[[float, Call], Awaitable[None]] = pause
