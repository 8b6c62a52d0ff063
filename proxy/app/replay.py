"""How a spooled settlement is carried out after all."""

from __future__ import annotations

from proxy.domain.reservations import Settlement
from proxy.gateway.ports import Budgets
from proxy.ledger.spool import Replay
from proxy.ledger.spool_records import Verb

# What Redis has not taken: the shard is closed, or has lost the reference. The record stays in the spool.
NOT_TAKEN = ("closed", "unknown")


def replay_into(budgets: Budgets) -> Replay:
    """Settles or releases by reference; True once Redis has it, now or before. Raises `StoreAway`."""

    async def replay(settlement: Settlement, verb: Verb) -> bool:
        act = budgets.release if verb == "release" else budgets.settle
        return (await act(settlement)).outcome not in NOT_TAKEN

    return replay
