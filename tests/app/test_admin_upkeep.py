"""What the admin plane does when nobody asks: it goes on whatever the ledger does, and no gate waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.app.admin_upkeep import AdminUpkeep


class Noted:
    """Tokens and keys at once: counts what is asked of it, and fails when told to."""

    def __init__(self) -> None:
        self.uses, self.swept, self.fault = 0, 0, None
        self.twice = asyncio.Event()

    async def note_uses(self) -> None:
        self.uses += 1
        if self.uses == 2:
            self.twice.set()
        if self.fault is not None:
            raise self.fault

    async def sweep(self) -> int:
        self.swept += 1
        return 0


async def test_uses_are_noted_and_old_keys_forgotten_again_and_again() -> None:
    """Also after a round in which the ledger was away."""
    noted: Any = Noted()
    noted.fault = OSError("the ledger is away")
    running = asyncio.create_task(AdminUpkeep(noted, noted, every_s=0.001).run())
    async with asyncio.timeout(5):
        await noted.twice.wait()
        noted.fault = None
        while not noted.swept:
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_last_uses_are_noted_before_the_ledger_is_closed() -> None:
    """And a ledger that is away keeps nothing from ending."""
    noted: Any = Noted()
    await AdminUpkeep(noted, noted).last_round()
    noted.fault = OSError("the ledger is away")
    await AdminUpkeep(noted, noted).last_round()

    assert (noted.uses, noted.swept) == (2, 0)
