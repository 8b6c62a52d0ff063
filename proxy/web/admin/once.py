"""`Idempotency-Key`: a write that is sent twice is done once, and answered twice."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel

from proxy import telemetry
from proxy.billing.ports import Earlier, Idempotency, KeptAnswer
from proxy.domain.deeds import Deed
from proxy.web.admin.errors import AdminError, bad_request, key_in_use
from proxy.web.admin.routes import Route
from proxy.web.admin.writing import encoded, replayed

Do = Callable[[Deed], Awaitable[web.Response]]

_KEY = re.compile(r"[\x20-\x7e]{1,255}")


async def once(
    route: Route, request: web.Request, body: BaseModel | None, keys: Idempotency, deed: Deed, do: Do
) -> web.Response:
    """What `do` answers, or what it has answered before to the same key.

    Kept is what was answered to a request that was done; one that was refused has changed nothing, and its key may
    be used again. Raises `AdminError` 400, 409 or 422.
    """
    key = key_of(route, request)
    if key is None:
        return await do(deed)
    claim, token_id = os.urandom(16).hex(), deed.actor.id
    earlier = await keys.claim(token_id, key, _fingerprint(request, body), claim)
    if earlier is not None:
        return _again(request, earlier)
    try:
        answer = await do(replace(deed, idempotency_key=key, claim=claim))
    except BaseException:
        await _note(keys.release(token_id, key, claim))
        raise
    raw = answer.body if isinstance(answer.body, bytes) else b""
    kept = KeptAnswer(answer.status, None if route.reveals else raw.decode(), answer.headers.get("ETag"))
    await _note(keys.keep(token_id, key, claim, kept))
    return answer


def key_of(route: Route, request: web.Request) -> str | None:
    given = request.headers.get("Idempotency-Key")
    if given is None or route.reads:
        return None
    if not _KEY.fullmatch(given):
        told = "An Idempotency-Key is 1 to 255 printable ASCII characters; a random UUID is a good one."
        raise bad_request("invalid_idempotency_key", told, "Idempotency-Key")
    return given


def _fingerprint(request: web.Request, body: BaseModel | None) -> str:
    """Tells one request from another: by its fields, not by how they happen to be ordered or spaced."""
    fields: Any = body.model_dump(exclude_unset=True, by_alias=True) if body else None
    sorted_fields = orjson.dumps(orjson.loads(encoded(fields)), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(f"{request.method} {request.raw_path}\n".encode() + sorted_fields).hexdigest()


def _again(request: web.Request, earlier: Earlier) -> web.Response:
    match earlier.state:
        case "reused":
            raise AdminError(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request within the last 24 hours. Make a new one.",
                param="Idempotency-Key",
            )
        case "under_way":
            raise key_in_use()
    answer = earlier.answer
    if answer is None:
        raise AdminError(
            409,
            "already_done",
            f"This was done ({earlier.resource}), but its answer is not there: it is being given just now, or was"
            " lost. GET what it is now.",
            param="Idempotency-Key",
        )
    if answer.body is None:
        raise _shown(request, earlier.resource or "")
    headers = {"Idempotency-Replayed": "true", **({"ETag": answer.etag} if answer.etag else {})}
    return replayed(answer.status, answer.body, headers)


def _shown(request: web.Request, resource: str) -> AdminError:
    made = resource.rpartition(" ")[2]
    return AdminError(
        409,
        "secret_already_shown",
        f"This made the {resource}, which was shown once and is kept nowhere. If the answer did not reach you,"
        " revoke that one and make another under a new Idempotency-Key.",
        param="Idempotency-Key",
        headers={"Location": f"{request.path}/{made}", "Idempotency-Replayed": "true"},
    )


async def _note(noting: Awaitable[None]) -> None:
    """What became of the key. If it cannot be noted, the write is as it is all the same: a second time finds that
    it was done (which its own transaction has said), or waits until the claim is old enough to be taken over."""
    try:
        await noting
    except Exception:
        telemetry.logger("admin").exception("idempotency.not_noted")
