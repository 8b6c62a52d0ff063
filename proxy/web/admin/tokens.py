"""The tokens of the admin plane: who may do what here."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import Page
from proxy.domain.deeds import BOOTSTRAP, AdminToken
from proxy.web.admin import answers, bodies
from proxy.web.admin.auth import FIRST_OWNER
from proxy.web.admin.errors import AdminError, bad_request
from proxy.web.admin.reading import sliced
from proxy.web.admin.routes import PREFIX, Asked, Route

_FIRST = AdminToken(BOOTSTRAP, FIRST_OWNER.name, "owner", "", None, None, None, None, None)


async def create_token(asked: Asked) -> dict[str, Any]:
    body, deps = asked.body, asked.deps
    if body.expires_at is not None and body.expires_at <= deps.now():
        raise bad_request("invalid_value", "The field 'expires_at' is wrong: it is in the past.", "expires_at")
    id, text, digest = deps.make_token()
    made = await deps.tokens.by(asked.deed).create(id, body.name, body.role, digest, body.expires_at)
    return {**{name: getattr(made, name) for name in answers.AdminToken.model_fields}, "token": text}


async def list_tokens(asked: Asked) -> Page[AdminToken]:
    tokens = [_FIRST, *await asked.deps.tokens.tokens()]
    return sliced(tokens, _by_age, asked.query.limit, asked.query.cursor)


async def get_token(asked: Asked) -> AdminToken:
    id = asked.path["token_id"]
    return _FIRST if id == BOOTSTRAP else await asked.deps.tokens.token(id)


async def revoke_token(asked: Asked) -> None:
    if asked.path["token_id"] == BOOTSTRAP:
        raise AdminError(
            409,
            "bootstrap_token",
            "This is the token that the gate was started with. It is not revoked but changed: set another"
            " FAREGATE_ADMIN_TOKEN (or remove the file admin-token from data.dir), and start the gate again.",
        )
    await asked.deps.tokens.by(asked.deed).revoke(asked.path["token_id"])


def _by_age(token: AdminToken) -> str:
    return f"{token.created_at.isoformat() if token.created_at else ''} {token.id}"


_ALL = f"{PREFIX}/tokens"
_ONE = f"{PREFIX}/tokens/{{token_id}}"

ROUTES = (
    Route(
        "POST", _ALL, create_token, "Make an admin token; it is shown this once.", answers.CreatedToken, 201,
        body=bodies.NewToken, least="owner", reveals=True,
    ),
    Route(
        "GET", _ALL, list_tokens, "List the admin tokens, without the tokens themselves.", answers.AdminToken,
        query=bodies.PageQuery, listed=True, least="owner",
    ),
    Route(
        "GET", _ONE, get_token, "Show what is known of an admin token.", answers.AdminToken, errors=(404,),
        least="owner", volatile=frozenset({"last_used_at"}),
    ),
    Route(
        "DELETE", _ONE, revoke_token, "Revoke an admin token, from the next request on.", status=204,
        errors=(404, 409), least="owner",
    ),
)  # fmt: skip
