"""The OpenAI wire, natively: the request re-serialised from the parsed body, the answer byte for byte.

In: a `Dispatch`. Out: an `Answer` (`openai_answers`). URL, headers and key are the gate's alone; nothing of a
client's headers goes upstream but a well-formed `traceparent`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import orjson

from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Exchange, Head, Timeouts, UpstreamConnections
from proxy.providers.openai_answers import PlainAnswer, StreamedAnswer
from proxy.providers.upstream_errors import ERROR_BODY_BYTES_MAX, refusal_of

ERROR_BODY_S = 10.0

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class OpenAIWire:
    """An upstream that speaks OpenAI's chat completions. `base_url` ends with the version ("…/v1").

    Without an `api_key` it is not `configured`, unless it needs none (`keyless`: a server of one's own).
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None,
        timeouts: Timeouts | None = None,
        *,
        keyless: bool = False,
    ) -> None:
        self.name = name
        self.configured = keyless or bool(api_key)
        self._api_key = api_key
        address, _, query = base_url.partition("?")
        url = address.rstrip("/") + "/chat/completions" + (f"?{query}" if query else "")
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": "faregate",
        }
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._connections = UpstreamConnections(url, headers, timeouts or Timeouts())

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head; raises `UpstreamFailed`."""
        head, exchange = await self._connections.post(request_body(dispatch), _trace(dispatch))
        if not 200 <= head.code < 300:
            raise await self._refusal(head, exchange)
        if head.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            exchange.drop()
            message = "The model's provider answered in an encoding that was not asked for."
            raise UpstreamFailed("unknown", "upstream_unreadable", message)
        content_type = head.headers.get("content-type", "text/event-stream").lower()
        if dispatch.ask.streamed and content_type.startswith("text/event-stream"):
            return StreamedAnswer(head, exchange, dispatch.ask)
        return PlainAnswer(head, exchange, dispatch.ask)

    async def close(self) -> None:
        await self._connections.close()

    async def _refusal(self, head: Head, exchange: Exchange) -> UpstreamFailed:
        try:
            async with asyncio.timeout(ERROR_BODY_S):
                body = await exchange.whole(ERROR_BODY_BYTES_MAX)
        except (UpstreamFailed, TimeoutError):
            body = b""
        return refusal_of(head.code, head.headers, body, self._api_key)


def request_body(dispatch: Dispatch) -> bytes:
    """The client's body with the catalogue's model, the admitted output limit, and usage asked for."""
    ask, model = dispatch.ask, dispatch.model
    body: dict[str, Any] = {**ask.body, "model": model.upstream_model}
    body.pop("max_tokens", None)
    body.pop("max_completion_tokens", None)
    body[model.output_limit_field] = dispatch.output_limit
    if ask.streamed:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    try:
        return orjson.dumps(body)
    except TypeError:
        message = "The body holds a number beyond 64 bits or text that is no Unicode, which cannot be sent on."
        raise UpstreamFailed("unsent", "unsendable", message, status=400, blame="request") from None


def _trace(dispatch: Dispatch) -> bytes:
    trace = dispatch.forward_headers.get("traceparent")
    if trace and _TRACEPARENT.fullmatch(trace):
        return b"traceparent: %b\r\n" % trace.encode("ascii")
    return b""
