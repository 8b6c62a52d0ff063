"""The page of fields says what the readers do: which field costs what, and what lets it through."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from proxy.domain import (
    chat_requests,
    completions_requests,
    embeddings_requests,
    messages_requests,
    responses_requests,
)
from proxy.domain.features import GATE_FEATURES, HOSTED_TOOLS
from proxy.domain.requests import READERS

HOME = Path(__file__).parents[2]
PAGE = (HOME / "docs/reference/fields.md").read_text()
POLICIES = (HOME / "policies/README.md").read_text()

MODULES: Mapping[str, ModuleType] = {
    "/v1/chat/completions": chat_requests,
    "/v1/responses": responses_requests,
    "/v1/messages": messages_requests,
    "/v1/completions": completions_requests,
    "/v1/embeddings": embeddings_requests,
}


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {heading!r}"
    return found[1]


def rows(module: ModuleType) -> list[str]:
    """The table's rows as they must stand there."""
    harmless, needs = getattr(module, "HARMLESS", {}), getattr(module, "NEEDS", {})
    made = []
    for name, effect in module.FIELDS.items():
        values = ", ".join(f"`{json.dumps(value)}`" for value in harmless.get(name, ()))
        unlocked = f"`{needs[name]}`" if name in needs else "refused" if effect == "costs extra" else ""
        made.append(f"| `{name}` | {effect} | {values} | {unlocked} |")
    return made


@pytest.mark.parametrize("endpoint", MODULES)
def test_the_table_of_an_endpoint_is_the_one_of_its_reader(endpoint: str) -> None:
    """FIELDS, HARMLESS and NEEDS decide; the page must not say otherwise."""
    said = re.findall(r"^\| `.*$", section(f"`{endpoint}`"), re.MULTILINE)
    assert said == rows(MODULES[endpoint])


def test_every_endpoint_has_its_table() -> None:
    """Counting tokens takes what a message takes."""
    assert READERS.keys() - {"/v1/messages/count_tokens"} == MODULES.keys()


def test_what_needs_a_feature_costs_extra_and_its_feature_exists() -> None:
    """A field that needs something else would be refused for ever."""
    for module in MODULES.values():
        for name, feature in getattr(module, "NEEDS", {}).items():
            assert module.FIELDS[name] == "costs extra"
            assert feature in GATE_FEATURES
        for name in getattr(module, "HARMLESS", {}):
            assert module.FIELDS[name] == "costs extra"


def test_every_feature_is_told_with_what_it_lets_through() -> None:
    """In the gate's own words, with the fields that are in need of it."""
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("Features"), re.MULTILINE))
    assert told == {name: words for name, words in GATE_FEATURES.items() if name != "priority"}
    for module in MODULES.values():
        for name, feature in getattr(module, "NEEDS", {}).items():
            row = re.search(rf"^\| `{feature}` .*$", section("Features"), re.MULTILINE)
            assert row is not None
            assert f"`{name}`" in row[0]


def test_the_policies_page_names_every_feature_and_every_price_of_a_call() -> None:
    """A plan key that nobody can find does not exist."""
    assert {name for name in GATE_FEATURES if f"`{name}`" not in POLICIES} == set()
    price = next(line for line in POLICIES.splitlines() if line.startswith("`price` is in USD"))
    calls = POLICIES[POLICIES.index(price) :]
    assert {name for name in HOSTED_TOOLS if f"`{name}`" not in calls} == set()
