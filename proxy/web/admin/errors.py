"""What goes wrong on the admin plane, and how it is told.

AdminError            anything that is answered with an error body
  bad_request         400: the body, a parameter or a value is at fault; `param` says which
  unauthorized        401: no token, or the wrong one; never says more
  insufficient_role   403: the token's role does not allow it
  not_found           404: no such thing, or no such route
  conflict            409: the id is taken, or the idempotency key is in use
  precondition_failed 412: it is no longer what the client has seen
  reused              422: the idempotency key was used for something else
  too_many_attempts   429: an address that guessed too often
  unavailable         503: written but not live yet, or Redis is away
"""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import (
    AlreadyExists,
    BadCursor,
    ClaimLost,
    FilesInTheWay,
    NotFound,
    NotProjected,
    OwnedByFiles,
    PlanFaults,
    PlanInUse,
    TooManyGrants,
)
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
        faults: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(code)
        self.faults = faults
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": _type_of(self.status),
                "param": self.param,
                "code": self.code,
                **({} if self.faults is None else {"faults": self.faults}),
            }
        }


def _type_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    if status == 403:
        return "permission_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def bad_request(code: str, message: str, param: str | None = None) -> AdminError:
    return AdminError(400, code, message, param=param)


def unauthorized() -> AdminError:
    return AdminError(
        401,
        "invalid_admin_token",
        "The admin plane needs an admin token: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def key_in_use() -> AdminError:
    return AdminError(
        409,
        "idempotency_key_in_use",
        "A request with this Idempotency-Key is still being done. Send it again in a moment.",
        param="Idempotency-Key",
        headers={"Retry-After": "1"},
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


def _of_a_plan(faulty: PlanFaults) -> AdminError:
    count = len(faulty.faults)
    first = faulty.faults[0][1] if count else ""
    told = f"The plan has {count:,} faults, of which the first is: {first}." if count > 1 else f"{faulty}."
    faults = [{"path": path, "message": message} for path, message in faulty.faults]
    return AdminError(400, "invalid_plan", told, param=faulty.faults[0][0] or None, faults=faults)


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
        case TooManyGrants():
            return bad_request("too_many_grants", str(fault))
        case PlanFaults():
            return _of_a_plan(fault)
        case OwnedByFiles():
            return AdminError(409, "owned_by_files", str(fault))
        case PlanInUse():
            return AdminError(409, "plan_in_use", str(fault))
        case FilesInTheWay():
            return AdminError(409, "files_in_the_way", str(fault))
        case ClaimLost():
            return key_in_use()
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
