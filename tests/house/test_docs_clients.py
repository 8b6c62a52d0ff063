"""The page of clients says what is tried: which, in which version, on which endpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.clients.speakers import EMBEDDING, ENDPOINTS

HOME = Path(__file__).parents[2]
PAGE = (HOME / "docs/reference/clients.md").read_text()
ROWS = {
    row[0]: row[1:]
    for row in re.findall(r"^\| ([a-z-]+) \| ([\d.]+) \| (.+?) \| `([a-z-]+)` \| (.+) \|$", PAGE, re.MULTILINE)
}
PACKAGES = {
    "openai-python": "openai",
    "openai-node": "openai",
    "anthropic-python": "anthropic",
    "anthropic-typescript": "@anthropic-ai/sdk",
    "langchain-openai": "langchain-openai",
    "pydantic-ai": "pydantic-ai-slim",
    "openai-agents": "openai-agents",
    "ai-sdk-openai": "@ai-sdk/openai",
    "ai-sdk-openai-compatible": "@ai-sdk/openai-compatible",
    "ai-sdk-anthropic": "@ai-sdk/anthropic",
    "litellm": "litellm",
}
ON_NODE = ("openai-node", "anthropic-typescript", "ai-sdk-openai", "ai-sdk-openai-compatible", "ai-sdk-anthropic")
PATHS = {"chat": "/v1/chat/completions"}


def of_python(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (HOME / "tests/clients" / lock).read_text(), re.MULTILINE))


def of_node() -> dict[str, str]:
    packages = json.loads((HOME / "tests/clients/node/package-lock.json").read_text())["packages"]
    return {name.removeprefix("node_modules/"): package["version"] for name, package in packages.items() if name}


def spoken() -> dict[str, set[str]]:
    """The endpoints that the suite tries each client on, by its own lists; the counting of tokens is none."""
    paths: dict[str, set[str]] = {}
    for client, endpoint in ENDPOINTS:
        paths.setdefault(client, set()).add(PATHS.get(endpoint, f"/v1/{endpoint}"))
    for client in EMBEDDING:
        paths[client].add("/v1/embeddings")
    return paths


def test_the_versions_are_those_of_the_locks() -> None:
    """ "Works with" without a version, or with last year's, is a promise that nobody has tried."""
    node, python, litellm = of_node(), of_python("python.lock"), of_python("litellm.lock")
    assert ROWS.keys() == PACKAGES.keys()
    locked = {
        client: (node if client in ON_NODE else litellm if client == "litellm" else python)[package]
        for client, package in PACKAGES.items()
    }
    assert {client: row[0] for client, row in ROWS.items()} == locked
    assert f"`ai` {node['ai']} " in PAGE


def test_every_endpoint_that_is_tried_is_named_and_no_other() -> None:
    """Whoever reads which endpoint a client calls opens just that one."""
    described = {client: set(re.findall(r"`(/v1/[a-z/]+)`", row[1])) for client, row in ROWS.items()}
    assert described == spoken()


def test_every_client_has_its_three_lines() -> None:
    """A new client is pointed at the gate by copying, not by guessing."""
    snippets = dict(re.findall(r"^### ([a-z-]+)\n\n```(?:python|js)\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
    assert snippets.keys() == PACKAGES.keys()
    assert {client for client, lines in snippets.items() if len(lines.splitlines()) != 3} == set()
    assert {client for client, lines in snippets.items() if "http://127.0.0.1:8080" not in lines} == set()
