"""Upstreams of another wire, by way of LiteLLM's SDK: chat and embeddings of Claude, Gemini and the like.

LiteLLM takes seconds to import and does much that a gate must not: it is imported in a thread, when first an
upstream needs it, with its network look-ups, callbacks, retries and loggers off, and every call says so again.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
from collections.abc import Awaitable, Callable
from functools import partialmethod
from typing import TYPE_CHECKING, Any

import orjson

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_answers import PlainTranslation, StreamTranslation
from proxy.providers.litellm_arguments import CHOSEN, arguments_of
from proxy.providers.litellm_embeddings import EMBEDDING, EmbeddingsTranslation, embedding_arguments
from proxy.providers.litellm_reports import READERS
from proxy.providers.untranslatable import not_carried, untranslatable
from proxy.providers.upstream_errors import parsed_object, refusal_of

if TYPE_CHECKING:
    from proxy.providers.litellm_crossing import Crossing, Lines

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
    # For embeddings `max_retries=0` counts as none given, and two retries as the default.
    "DEFAULT_MAX_RETRIES": "0",
}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
_CALLBACKS = (
    *("callbacks", "success_callback", "failure_callback", "input_callback", "service_callback"),
    *("_async_success_callback", "_async_failure_callback", "_async_input_callback"),
)
_NAMED = re.compile(rf"\b(?:{'|'.join(sorted((*CHOSEN, 'dimensions', 'encoding_format')))})\b")


class LiteLLMProvider:
    """An upstream by LiteLLM's name for its provider ("anthropic", "gemini"). `base_url` None: its own."""

    def __init__(
        self,
        name: str,
        provider: str,
        api_key: str | None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        *,
        keyless: bool = False,
    ) -> None:
        self.name = name
        self.configured = keyless or bool(api_key)
        self._provider = provider
        self._api_key = api_key
        self._base_url = base_url
        self._timeouts = timeouts or Timeouts()
        self._lines: Lines | None = None

    def serves(self, endpoint: Endpoint) -> bool:
        return endpoint == "/v1/chat/completions" or (endpoint == "/v1/embeddings" and self._provider in EMBEDDING)

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head (a plain answer: all of it); raises `UpstreamFailed`."""
        litellm = _loaded or await asyncio.to_thread(load)
        if dispatch.ask.endpoint == "/v1/embeddings":
            given = {**embedding_arguments(dispatch), **self._own(dispatch)}
            answer = await self._called(litellm.aembedding, given, None)
            return EmbeddingsTranslation(answer.model_dump(), dispatch.ask, self._provider, _request_id(answer))
        given = {**arguments_of(dispatch, self._provider, litellm), **self._own(dispatch)}
        # With tools it would otherwise import its MCP gateway, which needs packages that are not there.
        given["_skip_mcp_handler"] = True
        crossing = self._crossing(dispatch)
        answer = await self._called(litellm.acompletion, given, crossing)
        if not dispatch.ask.streamed:
            return PlainTranslation(answer.model_dump(), dispatch.ask, _request_id(answer), crossing)
        return StreamTranslation(
            answer,
            dispatch.ask,
            _request_id(answer),
            (self._timeouts.first_byte_s, self._timeouts.idle_s),
            lambda error: self._failure(error, crossing),
            crossing,
        )

    async def _called(
        self, function: Callable[..., Awaitable[Any]], given: dict[str, Any], crossing: Crossing | None
    ) -> Any:
        if crossing is not None:
            given = {**given, "client": _client(crossing)}
        try:
            async with asyncio.timeout(self._timeouts.connect_s + self._timeouts.first_byte_s):
                return await function(**given)
        except BaseException as error:
            if crossing is not None:
                crossing.end()
            if isinstance(error, Exception):
                raise self._failure(error, crossing) from None
            raise

    async def close(self) -> None:
        if self._lines is not None:
            await self._lines.close()
        if _loaded is not None:
            await _loaded.close_litellm_async_clients()

    def _own(self, dispatch: Dispatch) -> dict[str, Any]:
        """What the gate alone decides of a call."""
        own: dict[str, Any] = {
            "model": f"{self._provider}/{dispatch.upstream_model}",
            "api_key": self._api_key or "none",
            "timeout": self._timeouts.first_byte_s,
            "max_retries": 0,
            "num_retries": 0,
        }
        if self._base_url:
            own["api_base"] = self._base_url
        return own

    def _crossing(self, dispatch: Dispatch) -> Crossing | None:
        """The way over our own connections, for those providers that LiteLLM calls by a client we can give it."""
        reports = READERS.get(self._provider)
        if reports is None:
            return None
        from proxy.providers.litellm_crossing import Crossing, Lines

        if self._lines is None:
            self._lines = Lines(self._timeouts)
        return Crossing(self._lines, reports(), self._api_key, streamed=dispatch.ask.streamed)

    def _failure(self, error: Exception, crossing: Crossing | None) -> UpstreamFailed:
        """What went wrong: by what crossed the wire, else by status and response, never by LiteLLM's classes."""
        if crossing is not None and crossing.failure is not None:
            return crossing.failure
        if isinstance(error, UpstreamFailed):
            return error
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        if type(error).__name__ == "UnsupportedParamsError":
            return not_carried(_field_in(str(error)))
        if crossing is not None and crossing.sent and not isinstance(error, TimeoutError):
            return _unreadable(crossing)
        if headers is not None and isinstance(status, int) and status >= 300:
            return refusal_of(status, dict(headers), _said(str(error)), self._api_key)
        if _never_connected(error):
            message = "The model's provider could not be reached."
            return UpstreamFailed("unsent", "upstream_unreachable", message)
        if isinstance(error, TimeoutError) or status == 408:
            return UpstreamFailed("unknown", "upstream_timeout", "The model's provider did not answer in time.")
        if status in (400, 422) or crossing is not None:
            field = _field_in(str(error).partition("\nReceived Messages")[0])
            return untranslatable(
                field, f"This request cannot be carried over to this model's provider: see '{field}'."
            )
        message = "The model's provider broke off before its answer was complete."
        return UpstreamFailed("unknown", "upstream_reset", message)


def _unreadable(crossing: Crossing) -> UpstreamFailed:
    """An answer came, and LiteLLM could make nothing of it."""
    usage = crossing.reports.usage()
    message = "The model's provider answered with something that cannot be read."
    return UpstreamFailed(
        "unknown",
        "upstream_unreadable",
        message,
        provider_request_id=crossing.provider_request_id,
        usage=usage,
    )


def _field_in(text: str) -> str:
    """The field that LiteLLM's sentence is about; without one it is the messages that it could not make out."""
    found = _NAMED.search(text)
    if found is None and "effort" in text:
        return "reasoning_effort"
    return found.group() if found else "messages"


_loaded: Any = None
_client: Callable[[Crossing], Any]


def load() -> Any:
    """LiteLLM with everything off that talks, logs or retries by itself."""
    global _client, _loaded
    if _loaded is None:
        os.environ.update(_ENVIRONMENT)
        for name in _LOGGERS:
            logging.getLogger(name).disabled = True
        # It logs whole addresses, and Gemini's carry the key.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        litellm.turn_off_message_logging = True
        litellm.telemetry = False
        litellm.drop_params = False
        for name in _CALLBACKS:
            setattr(litellm, name, [])
        for name in _LOGGERS:
            logging.getLogger(name).disabled = True
        _client = _client_maker()
        _loaded = litellm
    return _loaded


def _client_maker() -> Callable[[Crossing], Any]:
    """Makes LiteLLM's own kind of client for one call, which goes where we say and nowhere else."""
    importlib.import_module("proxy.providers.litellm_crossing")
    handler: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    # Where it uses a client of its own (embeddings), that would carry the key to wherever a redirect points.
    handler.__init__ = partialmethod(handler.__init__, follow_redirects=False)
    return lambda crossing: handler(transport=crossing)


def _request_id(answer: Any) -> str | None:
    headers = (getattr(answer, "_hidden_params", None) or {}).get("additional_headers") or {}
    for name in ("llm_provider-request-id", "llm_provider-x-request-id"):
        value = headers.get(name)
        if isinstance(value, str) and len(value) <= 128 and value.isascii() and value.isprintable():
            return value
    return None


def _said(text: str) -> bytes:
    """The provider's error object out of LiteLLM's text, or a plain sentence made into one."""
    start, end = text.find("{"), text.rfind("}")
    found = parsed_object(text[start : end + 1].encode()) if 0 <= start < end else None
    if found is not None and isinstance(found.get("error"), dict):
        return orjson.dumps({"error": found["error"]})
    sentence = re.sub(r"^(?:\S*(?:Error|Exception)\s*[:\-]\s*)+", "", text)
    sentence = sentence.split(". Handle with")[0]
    return orjson.dumps({"error": {"message": sentence if start < 0 else None}})


def _never_connected(error: BaseException) -> bool:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return False
        if type(seen).__name__ in ("ConnectError", "ConnectTimeout", "ClientConnectorError"):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
