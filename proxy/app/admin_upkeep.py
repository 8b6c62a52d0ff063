"""What the admin plane does when nobody asks: it notes which tokens were used and forgets old keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from proxy.ledger.admin_tokens import SqlAdminTokens
from proxy.ledger.idempotency import SqlIdempotency

log = structlog.get_logger(__name__)

EVERY_S = 60.0
AWAY = (SQLAlchemyError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class AdminUpkeep:
    """Off every path: a request notes in memory what is written down here."""

    tokens: SqlAdminTokens
    keys: SqlIdempotency
    every_s: float = EVERY_S

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            await self.round()

    async def round(self) -> None:
        try:
            await self.tokens.note_uses()
            await self.keys.sweep()
        except AWAY as away:
            log.warning("admin.upkeep_waits", fault=type(away).__name__, reason=str(away))

    async def last_round(self) -> None:
        """Before the ledger is closed; it must not keep the gate from ending."""
        try:
            async with asyncio.timeout(2.0):
                await self.tokens.note_uses()
        except AWAY as away:
            log.warning("admin.uses_not_noted", fault=type(away).__name__)
