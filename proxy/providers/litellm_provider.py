"""Upstreams of another wire, by way of LiteLLM's SDK: chat completions to Claude, Gemini and the like.

LiteLLM takes seconds to import and does much that a gate must not: it is imported in a thread, when first an
upstream needs it, with its network look-ups, callbacks, retries and loggers off, and every call says so again.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
from typing import Any

import orjson

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_answers import PlainTranslation, StreamTranslation
from proxy.providers.litellm_arguments import arguments_of, untranslatable
from proxy.providers.upstream_errors import parsed_object, refusal_of

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
_CALLBACKS = (
    *("callbacks", "success_callback", "failure_callback", "input_callback", "service_callback"),
    *("_async_success_callback", "_async_failure_callback", "_async_input_callback"),
)
_NAMED = re.compile(r"'([a-z_]{1,64})'")


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

    def serves(self, endpoint: Endpoint) -> bool:
        return endpoint == "/v1/chat/completions"

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head (a plain answer: all of it); raises `UpstreamFailed`."""
        given = {**arguments_of(dispatch), **self._own(dispatch)}
        litellm = _loaded or await asyncio.to_thread(load)
        try:
            async with asyncio.timeout(self._timeouts.connect_s + self._timeouts.first_byte_s):
                answer = await litellm.acompletion(**given)
        except Exception as error:
            raise self._failure(error) from None
        request_id = _request_id(answer)
        if not dispatch.ask.streamed:
            return PlainTranslation(answer.model_dump(), dispatch.ask, request_id)
        deadlines_s = (self._timeouts.first_byte_s, self._timeouts.idle_s)
        return StreamTranslation(answer, dispatch.ask, request_id, deadlines_s, self._failure)

    async def close(self) -> None:
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
            # With tools it would otherwise import its MCP gateway, which needs packages that are not there.
            "_skip_mcp_handler": True,
        }
        if self._base_url:
            own["api_base"] = self._base_url
        if dispatch.ask.streamed:
            own |= {"stream": True, "stream_options": {"include_usage": True}}
        return own

    def _failure(self, error: Exception) -> UpstreamFailed:
        """What an exception of LiteLLM means: by status and response, never by its class."""
        if isinstance(error, UpstreamFailed):
            return error
        if type(error).__name__ == "UnsupportedParamsError":
            param = next(iter(_NAMED.findall(str(error))), "model")
            return untranslatable(param, f"'{param}' is not supported by this model's provider. Leave it out.")
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        if headers is not None and isinstance(status, int) and status >= 300:
            return refusal_of(status, dict(headers), _said(str(error)), self._api_key)
        if _never_connected(error):
            message = "The model's provider could not be reached."
            return UpstreamFailed("unsent", "upstream_unreachable", message)
        if isinstance(error, TimeoutError) or status == 408:
            return UpstreamFailed("unknown", "upstream_timeout", "The model's provider did not answer in time.")
        message = "The model's provider broke off before its answer was complete."
        return UpstreamFailed("unknown", "upstream_reset", message)


_loaded: Any = None


def load() -> Any:
    """LiteLLM with everything off that talks, logs or retries by itself."""
    global _loaded
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
        _loaded = litellm
    return _loaded


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
