"""What each route of the data plane answers, and the exact table that finds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol
from urllib.parse import unquote

import orjson

from proxy.domain.refusals import Refusal, Refused
from proxy.domain.requests import READERS
from proxy.gateway.ports import Call
from proxy.web.api.call import HttpCall
from proxy.web.errors import fault_response, wire_of

Handler = Callable[[HttpCall], Awaitable[None]]
Journey = Callable[[Call], Awaitable[None]]
Stored = Callable[[Call, Literal["GET", "DELETE"], str], Awaitable[None]]
"""(call, method, id): shows or deletes a response that an upstream keeps."""

JSON = {"content-type": "application/json"}
MODEL = "/v1/models/"
RESPONSE = "/v1/responses/"
# What OpenAI serves below that path and is no id.
NO_RESPONSES = frozenset(("compact", "input_tokens"))


class Catalogue(Protocol):
    """What a caller may see of the policy. Both raise `Refused` (a bad secret first of all)."""

    async def models(self, call: Call) -> list[dict[str, Any]]:
        """The models that the caller's plan allows: `id`, `object`, `created`, `owned_by`."""
        ...

    async def entitlements(self, call: Call) -> dict[str, Any]:
        """The caller's own entitlements, in the shape of DESIGN 5.5."""
        ...


class Routes:
    """The table. `not_ready` says in a sentence what is missing before this worker can serve, or None.

    `details` is what an operator should know although it serves.
    """

    def __init__(
        self,
        journey: Journey,
        catalogue: Catalogue,
        not_ready: Callable[[], str | None],
        stored: Stored,
        details: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._stored = stored
        self._details = details
        self._catalogue = catalogue
        self._not_ready = not_ready
        self._table: dict[str, Mapping[str, Handler]] = {
            **{endpoint: {"POST": journey} for endpoint in READERS},
            "/v1/models": {"GET": self._models},
            "/v1/entitlements": {"GET": self._entitlements},
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": self._ready},
        }
        self._model_methods: Mapping[str, Handler] = {"GET": self._model}
        self._response_methods: Mapping[str, Handler] = {
            "GET": self._show_response,
            "DELETE": self._delete_response,
        }
        self._known = ", ".join(f"{next(iter(methods))} {path}" for path, methods in self._table.items())

    async def serve(self, call: HttpCall) -> None:
        """Answers by the exact path, byte for byte: nothing is decoded, folded or tidied first."""
        path = call.endpoint
        methods = self._table.get(path)
        if methods is None:
            methods = self._methods_below(path)
        if methods is None:
            wire = wire_of(path)
            await call.answer(*fault_response(404, "unknown_url", self._unknown(), call.request_id, wire))
            return
        handler = methods.get(call.method)
        if handler is not None:
            await handler(call)
            return
        allowed = ", ".join(methods)
        message = f"This path takes {allowed} only."
        response = fault_response(
            405, "method_not_allowed", message, call.request_id, wire_of(path), allow=allowed
        )
        await call.answer(*response)

    def _methods_below(self, path: str) -> Mapping[str, Handler] | None:
        """Of the paths that end in an id; None where there is nothing."""
        if path.startswith(MODEL) and len(path) > len(MODEL):
            return self._model_methods
        id = path.removeprefix(RESPONSE)
        if id and id != path and "/" not in id and id not in NO_RESPONSES:
            return self._response_methods
        return None

    def _unknown(self) -> str:
        return f"There is nothing at this path. Known: {self._known}."

    async def _models(self, call: HttpCall) -> None:
        data = await self._catalogue.models(call)
        await call.answer(200, JSON, orjson.dumps({"object": "list", "data": data}))

    async def _model(self, call: HttpCall) -> None:
        asked = call.endpoint[len(MODEL) :]
        # Clients encode the slashes of an id; it is only ever compared with ids that exist.
        wanted = {asked, unquote(asked)}
        for model in await self._catalogue.models(call):
            if model["id"] in wanted:
                await call.answer(200, JSON, orjson.dumps(model))
                return
        message = "There is no such model in your plan. GET /v1/models lists those that are."
        raise Refused(Refusal("model_not_found", message, 404, param="model"))

    async def _show_response(self, call: HttpCall) -> None:
        await self._stored(call, "GET", call.endpoint[len(RESPONSE) :])

    async def _delete_response(self, call: HttpCall) -> None:
        await self._stored(call, "DELETE", call.endpoint[len(RESPONSE) :])

    async def _entitlements(self, call: HttpCall) -> None:
        await call.answer(200, JSON, orjson.dumps(await self._catalogue.entitlements(call)))

    async def _health(self, call: HttpCall) -> None:
        await call.answer(200, JSON, b'{"status":"ok"}')

    async def _ready(self, call: HttpCall) -> None:
        missing = self._not_ready()
        if missing is None:
            await call.answer(200, JSON, orjson.dumps({"status": "ready", "details": self._details()}))
        else:
            await call.answer(*fault_response(503, "not_ready", missing, call.request_id))
