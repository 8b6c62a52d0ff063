"""The audit log as it is read: who changed what from what to what, and whether the log itself is whole."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import ChainHead, Page
from proxy.web.admin import answers, bodies
from proxy.web.admin.routes import PREFIX, Asked, Route


async def list_audit_log(asked: Asked) -> Page[Any]:
    query = asked.query
    filters = bodies.filters_of(query)
    if "resource" in filters:
        kind, slash, id = filters.pop("resource").partition("/")
        filters |= {"resource_kind": kind, **({"resource_id": id} if slash else {})}
    return await asked.deps.audit_log.entries(filters, query.limit, query.cursor)


async def verify_audit_log(asked: Asked) -> dict[str, Any]:
    query = asked.query
    anchor = None if query.seq is None else ChainHead(query.seq, query.hash)
    found = await asked.deps.audit_log.verify(anchor)
    return {
        "ok": found.fault is None,
        "entries": found.entries,
        "head": {"seq": found.head.seq, "hash": found.head.hash},
        "fault": found.fault,
    }


ROUTES = (
    Route(
        "GET", f"{PREFIX}/audit-log", list_audit_log, "List who changed what from what to what, newest first.",
        answers.AuditEntry, query=bodies.AuditQuery, listed=True,
    ),
    Route(
        "GET", f"{PREFIX}/audit-log/verification", verify_audit_log,
        "Compute the chain of the audit log anew, and say whether it is as it was written.",
        answers.AuditVerification, query=bodies.AnchorQuery,
    ),
)  # fmt: skip
