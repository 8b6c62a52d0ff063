"""What goes wrong on the admin plane, and how it is told.

AdminError            anything that is answered with an error body
  bad_request         400: the body, a parameter or a value is at fault; `param` says which
  unauthorized        401: no token, or the wrong one; never says more
  not_found           404: no such thing, or no such route
  conflict            409: the id is taken
  too_many_attempts   429: an address that guessed too often
  unavailable         503: written but not live yet, or Redis is away
"""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import AlreadyExists, BadCursor, NotFound, NotProjected
from proxy.gateway.ports import StoreAway


class AdminError(Exception):
    """An answer that is an error. All four keys of the body are always there."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": _type_of(self.status),
                "param": self.param,
                "code": self.code,
            }
        }


def _type_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def bad_request(code: str, message: str, param: str | None = None) -> AdminError:
    return AdminError(400, code, message, param=param)


def unauthorized() -> AdminError:
    return AdminError(
        401,
        "invalid_admin_token",
        "The admin plane needs the admin token: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def no_route(path: str) -> AdminError:
    return AdminError(
        404,
        "unknown_route",
        f"There is nothing at {path[:200]}. GET /admin/v1/openapi.json lists every route.",
    )


def missing(kind: str, id: str) -> AdminError:
    return AdminError(404, "not_found", str(NotFound(kind, id[:128])))


def bad_cursor() -> AdminError:
    return bad_request("invalid_cursor", "This cursor is none that a list here has given out.", "cursor")


def from_port(fault: Exception, path_ids: dict[str, str]) -> AdminError | None:
    """The answer to a fault of a port; None if it is none that a client should hear about.

    A thing named in the path that is not there is 404; named in the body, the body is at fault.
    """
    match fault:
        case NotFound():
            if fault.id in path_ids.values():
                return missing(fault.kind, fault.id)
            # "contact of this customer" is told as that, and is a contact to programs.
            kind = fault.kind.partition(" of ")[0].replace(" ", "_")
            return bad_request(f"{kind}_not_found", str(fault), f"{kind}_id")
        case AlreadyExists():
            return AdminError(409, "already_exists", str(fault), param="id")
        case BadCursor():
            return bad_cursor()
        case NotProjected():
            return AdminError(
                503,
                "not_projected",
                "This is written down, but Redis is away: the gate obeys it as soon as Redis is back.",
            )
        case StoreAway():
            return AdminError(503, "gate_unavailable", "Redis does not answer; try again when it is back.")
        case _:
            return None
