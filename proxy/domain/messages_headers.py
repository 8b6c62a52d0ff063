"""The headers that a Messages request takes upstream: which version of the wire, and which of its betas.

A beta that only changes how the same tokens are written is harmless. One that serves a tool of the provider's
goes upstream where the body has that tool, which needs the plan's feature anyway. One that costs more by being
named (a longer context at a higher price), that reaches into the provider's account, or that nobody here has heard
of, is left out: a client that is newer than this table loses a beta, not its calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import cast

from proxy.domain.faults import bad_value
from proxy.domain.request_parts import forwarded

VERSION = "2023-06-01"
"""What a request without `anthropic-version` means."""

# Betas by their names without the date.
HARMLESS_BETAS = frozenset(
    (
        "adaptive-thinking", "advanced-tool-use", "cache-diagnosis", "claude-code", "computer-use",
        "context-management", "dev-full-thinking", "effort", "extended-cache-ttl", "fallback-credit",
        "fine-grained-tool-streaming", "inline-tools", "interleaved-thinking", "max-tokens-3-5-sonnet",
        "mid-conversation-output-config", "mid-conversation-system-clear-at", "mid-conversation-tool-changes",
        "model-context-window-exceeded", "output-128k", "output-300k", "pdfs", "prompt-caching",
        "prompt-caching-scope", "redact-thinking", "structured-outputs", "task-budgets",
        "thinking-binding-controls", "thinking-display-updates", "thinking-token-count", "token-counting",
        "token-efficient-tools", "tool-examples",
    )
)  # fmt: skip

# Of use only with what the feature allows, so that they go upstream with it.
BETAS_OF_FEATURES = {
    "code-execution": "code_interpreter",
    "mcp-client": "mcp",
    "skills": "code_interpreter",
    "web-fetch": "web_fetch",
    "web-search": "web_search",
}

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")
# Most dates have hyphens; that of "claude-code-20250219" has none.
_BETA = re.compile(r"([a-z0-9][a-z0-9-]{0,63})-(?:\d{4}-\d{2}-\d{2}|\d{8})")


def headers_upstream(headers: Mapping[str, str], features: Collection[str]) -> dict[str, str]:
    """The client's headers that go upstream; raises `Refused` (400) for a version that is no date.

    `features` are those that the body's own fields need.
    """
    version = headers.get("anthropic-version") or VERSION
    if _VERSION.fullmatch(version) is None:
        raise bad_value("anthropic-version", f"it must be a date such as {VERSION}")
    kept = {**(forwarded(headers) or {}), "anthropic-version": version}
    if betas := [beta for beta in _betas(headers) if _passes(beta, features)]:
        kept["anthropic-beta"] = ",".join(dict.fromkeys(betas))
    return kept


def _betas(headers: Mapping[str, str]) -> list[str]:
    """The values of a header that may be repeated, and hold several."""
    if hasattr(headers, "getall"):
        every = cast(Callable[[str, list[str]], list[str]], headers.getall)("anthropic-beta", [])
    else:
        every = [headers["anthropic-beta"]] if "anthropic-beta" in headers else []
    return [beta.strip() for value in every for beta in value.split(",")]


def _passes(beta: str, features: Collection[str]) -> bool:
    written = _BETA.fullmatch(beta)
    if written is None:
        return False
    return written[1] in HARMLESS_BETAS or BETAS_OF_FEATURES.get(written[1]) in features
