"""A tool that the provider runs makes one request as dear as many: what is held for it must be no less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.asks import Ask, Attribution, Extra
from proxy.domain.bounds import Bounds, affordable_output, amount
from proxy.domain.features import GATE_FEATURES, HOSTED_TOOLS
from proxy.domain.hosted_tools import calls_bound_pico, most_calls, most_input
from proxy.domain.policy import Budget
from proxy.domain.pricing import Price, cost_pico
from proxy.domain.requests import read_request
from proxy.domain.usage import Usage

PRICE = Price(1, 1, calls={"web_search": 10, "file_search": 3, "mcp": 0})
SEARCH = {"type": "web_search"}
FILES = {"type": "file_search", "vector_store_ids": ["vs_1"]}
CLAUDES = {"type": "web_search_20250305", "name": "web_search"}
FETCHING = {"type": "web_fetch_20250910", "name": "web_fetch"}


def ask(endpoint: str, **more: Any) -> Ask:
    hello = [{"role": "user", "content": "hello"}]
    body = {"model": "m", **({"input": "x"} if endpoint == "responses" else {"messages": hello, "max_tokens": 9})}
    return read_request(f"/v1/{endpoint}", "", {**body, **more}, {}, lambda user: user)


CALLS = [
    # endpoint, fields                                                        calls   what they may cost
    ("chat/completions", {}, 0, 0),
    ("chat/completions", {"web_search_options": {}}, 1, 10),
    ("chat/completions", {"service_tier": "priority"}, 0, 0),
    ("responses", {"tools": [SEARCH], "max_tool_calls": 4}, 4, 40),
    ("responses", {"tools": [SEARCH, FILES], "max_tool_calls": 4}, 4, 40),
    ("responses", {"tools": [FILES], "max_tool_calls": 4}, 4, 12),
    ("responses", {"tools": [SEARCH]}, 0, 0),
    ("messages", {"tools": [{**CLAUDES, "max_uses": 5}]}, 5, 50),
    ("messages", {"tools": [{**CLAUDES, "max_uses": 5}, {**FETCHING, "max_uses": 2}]}, 7, 50),
    ("messages", {"tools": [{"type": "code_execution_20250825", "max_uses": 5}]}, 0, 0),
]


@pytest.mark.parametrize(("endpoint", "fields", "calls", "pico"), CALLS)
def test_calls_are_bounded_by_what_the_request_says_of_them(
    endpoint: str, fields: dict[str, Any], calls: int, pico: int
) -> None:
    """Limits of single tools add up; a limit that tools share may all go to the dearest of them."""
    extras = ask(endpoint, **fields).extras
    assert (most_calls(extras), calls_bound_pico(extras, PRICE)) == (calls, pico)


@pytest.mark.parametrize(("endpoint", "fields", "calls", "pico"), CALLS)
def test_every_call_may_fill_the_context_once_more(
    endpoint: str, fields: dict[str, Any], calls: int, pico: int
) -> None:
    """Each turn of the provider's own loop reads, and bills, all that was found before."""
    asked = ask(endpoint, **fields)
    hosts = any(extra.feature in HOSTED_TOOLS for extra in asked.extras)
    assert most_input(asked, 70, 1_000) == (1_000 * (1 + calls) if hosts else 70)
    assert most_input(replace(asked, extras=(), inputs=2), 5_000, 1_000) == 2_000


def test_a_bound_holds_what_the_calls_cost_beside_the_tokens() -> None:
    """And it is charged by the same prices: a call of unknown price costs nothing, which no cost budget sees."""
    price = Price(2_000_000, 3_000_000, calls={"web_search": 10_000_000})
    bounds = Bounds(5, 7, 1, 1, price, 40_000_000)
    assert amount("cost_usd", bounds) == 5 * 2 + 7 * 3 + 40
    budget = Budget("c", "cost_usd", 5 * 2 + 6 * 3 + 40)
    assert affordable_output(bounds, [(budget, budget.limit)]) == 6
    assert affordable_output(bounds, [(budget, 49)]) == 0
    usage = Usage(5, 7, calls={"web_search": 4})
    assert cost_pico(usage, price) == (5 * 2 + 7 * 3 + 40) * 1_000_000
    assert price.knows(usage)
    assert not price.knows(Usage(5, 7, calls={"web_search": 4, "mcp": 1}))
    assert price.knows(Usage(5, 7))


limits = st.sampled_from(["max_tool_calls", "tools.0.max_uses", "tools.1.max_uses"])


@given(
    tools=st.lists(st.tuples(st.sampled_from(sorted(HOSTED_TOOLS)), limits), max_size=5),
    most=st.fixed_dictionaries(
        dict.fromkeys(["max_tool_calls", "tools.0.max_uses", "tools.1.max_uses"], st.integers(0, 9))
    ),
    prices=st.dictionaries(st.sampled_from(sorted(HOSTED_TOOLS)), st.integers(0, 100)),
    spread=st.randoms(use_true_random=False),
)
def test_no_calls_within_their_limits_cost_more_than_the_bound(
    tools: list[tuple[str, str]], most: dict[str, int], prices: dict[str, int], spread: Any
) -> None:
    """Zero overshoot in money rests on it."""
    price = Price(0, 0, calls=prices)
    extras = [Extra(f"tools.{at}", tool, most[limit], limit) for at, (tool, limit) in enumerate(tools)]
    calls: dict[str, int] = {}
    for limit, count in most.items():
        sharing = [tool for tool, limited_by in tools if limited_by == limit]
        for _ in range(count if sharing else 0):
            tool = spread.choice(sharing)
            calls[tool] = calls.get(tool, 0) + 1
    assert sum(calls.values()) <= most_calls(extras)
    assert cost_pico(Usage(calls=calls), price) <= calls_bound_pico(extras, price)


def test_every_hosted_tool_is_a_feature_of_the_gates() -> None:
    """A word that no plan can have would refuse for ever, and one that is no word would never."""
    assert GATE_FEATURES.keys() > HOSTED_TOOLS
    assert GATE_FEATURES.keys() - HOSTED_TOOLS == {"priority", "priority_tier", "remote_images"}
    assert Ask("/v1/embeddings", "m", {}, False, False, 0, 1, 1, 1, (), Attribution()).extras == ()
