"""The admin plane's own ports in memory: tokens, the audit log, idempotency keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from proxy.billing.ports import ChainHead, Earlier, KeptAnswer, NotFound, Page, Verification
from proxy.domain.deeds import AdminToken, Deed, Role, by_the_gate
from tests.doubles.directory import NOW, page


class MemoryAdminTokens:
    def __init__(self) -> None:
        self.kept: dict[str, AdminToken] = {}
        self.deed = by_the_gate("tests")

    def by(self, deed: Deed) -> MemoryAdminTokens:
        bound = copy.copy(self)
        bound.deed = deed
        return bound

    async def create(self, id: str, name: str, role: Role, digest: str, expires_at: datetime | None) -> AdminToken:
        self.kept[id] = AdminToken(id, name, role, digest, NOW, self.deed.actor.id, expires_at, None, None)
        return self.kept[id]

    async def tokens(self) -> Sequence[AdminToken]:
        return list(self.kept.values())

    async def token(self, id: str) -> AdminToken:
        if id not in self.kept:
            raise NotFound("token", id)
        return self.kept[id]

    async def with_digest(self, digest: str) -> AdminToken | None:
        return next((token for token in self.kept.values() if token.digest == digest), None)

    async def revoke(self, id: str) -> None:
        self.deed.require(await self.token(id))
        self.kept[id] = replace(await self.token(id), revoked_at=NOW)

    def used(self, id: str) -> None:
        self.kept[id] = replace(self.kept[id], last_used_at=NOW)


class MemoryAuditLog:
    """Of what it is told it writes down refusals alone: changes are told to the ledger, not to this port."""

    def __init__(self) -> None:
        self.written: list[Deed] = []
        self.asked: dict[str, Any] = {}
        self.anchor: ChainHead | None = None
        self.fault: str | None = None

    async def refused(self, deed: Deed) -> None:
        self.written.append(deed)

    async def entries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        self.asked = dict(filters)
        return page([_entry(seq, deed) for seq, deed in enumerate(self.written, 1)][::-1], limit, cursor)

    async def verify(self, anchor: ChainHead | None = None, last: int | None = None) -> Verification:
        self.anchor = anchor
        return Verification(len(self.written), ChainHead(len(self.written), "0" * 64), self.fault)


class MemoryIdempotency:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[str, str, KeptAnswer | None]] = {}

    async def claim(self, token_id: str, key: str, fingerprint: str, claim: str) -> Earlier | None:
        if (token_id, key) not in self.kept:
            self.kept[token_id, key] = (fingerprint, claim, None)
            return None
        known, _, answer = self.kept[token_id, key]
        if known != fingerprint:
            return Earlier("reused", None, None)
        return Earlier("under_way" if answer is None else "answered", "thing it", answer)

    async def keep(self, token_id: str, key: str, claim: str, answer: KeptAnswer) -> None:
        self.kept[token_id, key] = (self.kept[token_id, key][0], claim, answer)

    async def release(self, token_id: str, key: str, claim: str) -> None:
        del self.kept[token_id, key]


def _entry(seq: int, deed: Deed) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": NOW,
        "actor": {"id": deed.actor.id, "name": deed.actor.name, "role": deed.actor.role},
        "method": deed.method,
        "route": deed.route,
        "resource": None,
        "outcome": "refused",
        "changes": {},
        "request_id": deed.request_id,
        "idempotency_key": deed.idempotency_key,
        "network": deed.network,
        "hash": "0" * 64,
    }
