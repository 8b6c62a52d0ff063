"""What every step of the journey is given: the ports, and what a worker keeps in memory between requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.gateway.drains import Drains
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.leases import Leases
from proxy.gateway.ports import Budgets, Clock, Denials, Meters, Provider, Spawn, Spool, Tokenizers


@dataclass(slots=True)
class House:
    """Built once per worker by the composition root.

    `digest_user` turns a user id that looks like an e-mail address or a phone number into a keyed digest.
    `drains` and `leases` know the attempts under way; `knowledge` knows identities and the policy.
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
