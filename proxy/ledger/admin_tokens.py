"""The tokens of the admin plane. The first owner's is none of them: it is given from outside, and always valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import RowMapping, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.ports import NotFound
from proxy.domain.deeds import AdminToken, Deed, Role, by_the_gate
from proxy.gateway.ports import Clock
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import reading, writing
from proxy.ledger.tables import admin_tokens, moment

UNNOTED_MAX = 10_000
_FIELDS = tuple(column.name for column in admin_tokens.columns)


class SqlAdminTokens:
    """Implements `AdminTokens`. When a token was used is noted in memory, and written down by `note_uses`."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._deed = by_the_gate("admin tokens")
        self._uses: dict[str, datetime] = {}

    def by(self, deed: Deed) -> SqlAdminTokens:
        """The same tokens, where every write is this deed."""
        bound = SqlAdminTokens(self._engine, self._clock)
        bound._deed, bound._uses = deed, self._uses
        return bound

    async def create(self, id: str, name: str, role: Role, digest: str, expires_at: datetime | None) -> AdminToken:
        now = self._now()
        made = AdminToken(id, name, role, digest, now, self._deed.actor.id, expires_at, None, None)
        async with writing(self._engine) as connection:
            row = {name: getattr(made, name) for name in _FIELDS}
            await connection.execute(insert(admin_tokens).values(**row))
            await audit(connection, self._deed, now, "token", id, None, made)
        return made

    async def tokens(self) -> Sequence[AdminToken]:
        wanted = select(admin_tokens).order_by(admin_tokens.c.created_at, admin_tokens.c.id)
        async with reading(self._engine) as connection:
            return [self._token(row) for row in (await connection.execute(wanted)).mappings()]

    async def token(self, id: str) -> AdminToken:
        async with reading(self._engine) as connection:
            return self._token(await _row(connection, id))

    async def with_digest(self, digest: str) -> AdminToken | None:
        wanted = select(admin_tokens).where(admin_tokens.c.digest == digest)
        async with reading(self._engine) as connection:
            row = (await connection.execute(wanted)).mappings().first()
        return None if row is None else self._token(row)

    async def revoke(self, id: str) -> None:
        now = self._now()
        async with writing(self._engine) as connection:
            live = (admin_tokens.c.id == id) & admin_tokens.c.revoked_at.is_(None)
            before = self._token(await _row(connection, id, locked=True))
            await connection.execute(update(admin_tokens).where(live).values(revoked_at=now))
            after = self._token(await _row(connection, id))
            await audit(connection, self._deed, now, "token", id, before, after)

    def used(self, id: str) -> None:
        if id in self._uses or len(self._uses) < UNNOTED_MAX:
            self._uses[id] = self._now()

    async def note_uses(self) -> None:
        """Writes down which tokens were used since the last time. Nobody asked for it, so it is no entry of the
        audit log."""
        uses, noted = dict(self._uses), admin_tokens.c.last_used_at
        if not uses:
            return
        async with writing(self._engine) as connection:
            for id, at in uses.items():
                its = (admin_tokens.c.id == id) & or_(noted.is_(None), noted < at)
                await connection.execute(update(admin_tokens).where(its).values(last_used_at=at))
        for id, at in uses.items():
            if self._uses.get(id) == at:
                del self._uses[id]

    def _token(self, row: RowMapping) -> AdminToken:
        token = AdminToken(**row)
        used = self._uses.get(token.id)
        return token if used is None else replace(token, last_used_at=used)

    def _now(self) -> datetime:
        return moment(self._clock.now_us())


async def _row(connection: AsyncConnection, id: str, *, locked: bool = False) -> RowMapping:
    wanted = select(admin_tokens).where(admin_tokens.c.id == id)
    row = (await connection.execute(wanted.with_for_update() if locked else wanted)).mappings().first()
    if row is None:
        raise NotFound("token", id)
    return row
