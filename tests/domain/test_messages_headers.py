"""What goes upstream of a client's headers on Anthropic's wire: one word in them can double a price."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.domain.asks import Ask
from proxy.domain.messages_requests import read_messages
from proxy.domain.refusals import Refused


def read(body: dict[str, Any] | None = None, headers: Any = None) -> Ask:
    messages = [{"role": "user", "content": "hello"}]
    return read_messages({"model": "m", "max_tokens": 9, "messages": messages, **(body or {})}, headers or {}, str)


SERVING = "mcp-client-2025-11-20,code-execution-2025-05-22"
BOTH = "effort-2025-11-24,interleaved-thinking-2025-05-14"


@pytest.mark.parametrize(
    ("sent", "body", "goes_up"),
    [
        (None, {}, None),
        ("claude-code-20250219", {}, "claude-code-20250219"),
        (BOTH, {}, BOTH),
        (" effort-2025-11-24 ,, effort-2025-11-24", {}, "effort-2025-11-24"),
        ("context-1m-2025-08-07,pdfs-2024-09-25,oauth-2025-04-20", {}, "pdfs-2024-09-25"),
        ("fast-mode-2026-02-01,files-api-2025-04-14,compact-2026-09-04", {}, None),
        ("server-side-fallback-2026-07-01,from-next-year-2027-01-01", {}, None),
        (SERVING, {}, None),
        (SERVING, {"mcp_servers": [{"url": "https://x"}]}, "mcp-client-2025-11-20"),
        (SERVING, {"tools": [{"type": "code_execution_20250522"}]}, "code-execution-2025-05-22"),
        ("effort-2025-11-24\r\nx-evil: 1", {}, None),
        ("effort", {}, None),
        ("x" * 5_000, {}, None),
    ],
)
def test_betas_go_up_by_allow_list_only(sent: str | None, body: dict[str, Any], goes_up: str | None) -> None:
    """One of them doubles the price of a long prompt by being named."""
    ask = read(body, {} if sent is None else {"anthropic-beta": sent})
    assert ask.forward_headers is not None
    assert ask.forward_headers.get("anthropic-beta") == goes_up


def test_a_repeated_beta_header_is_read_whole() -> None:
    headers = CIMultiDict([("Anthropic-Beta", "effort-2025-11-24"), ("anthropic-beta", "pdfs-2024-09-25")])
    ask = read(None, headers)
    assert ask.forward_headers == {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "effort-2025-11-24,pdfs-2024-09-25",
    }


def test_the_version_of_the_wire_is_the_clients_or_the_first() -> None:
    assert read().forward_headers == {"anthropic-version": "2023-06-01"}
    assert read(None, {"anthropic-version": "2026-10-21"}).forward_headers == {"anthropic-version": "2026-10-21"}
    with pytest.raises(Refused) as caught:
        read(None, {"anthropic-version": "2023-06-01\r\nx: y"})
    assert caught.value.refusal.param == "anthropic-version"
