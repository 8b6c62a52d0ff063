"""Answers of embeddings on the OpenAI wire: one body, passed on as it is, and a report of input alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.domain.usage import Usage
from proxy.providers.delivered import Delivered
from proxy.providers.native_answers import PlainAnswer, json_object
from proxy.providers.usage_readers import read_embeddings_usage

# 2,048 vectors of 3,072 numbers, written out: what OpenAI's largest model answers to the largest request.
BODY_BYTES_MAX = 192 * 1024 * 1024

_VECTOR = re.compile(rb'"embedding"\s*:\s*(?:"[A-Za-z0-9+/=_-]*"|\[[^\]\[{}"]*\])')


class PlainEmbeddings(PlainAnswer):
    """Embeddings, as numbers or as base64. Nothing is made but them, so an estimate is of the input alone."""

    def _bytes_max(self) -> int:
        return BODY_BYTES_MAX

    def _said(self, body: bytes) -> dict[str, Any] | None:
        """The body without its vectors, which can be a hundred megabytes: millions of objects to nobody's use."""
        return json_object(_VECTOR.sub(b'"embedding":0', body))

    def _is_error(self, said: Mapping[str, Any]) -> bool:
        return bool(said.get("error") and not said.get("data"))

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        return read_embeddings_usage(said.get("usage"))

    def _delivered_in(self, body: bytes) -> Delivered:
        return Delivered()
