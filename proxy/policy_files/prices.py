"""What a model costs: the catalogue's own price, else the table that litellm's pinned release carries.

The table is read from its file, without importing litellm (two seconds of CPU). An entry without a single price
per kind of token (dearer beyond a length, or dearer while it reasons) gives no price at all: half of the truth
would admit a call that the budget cannot pay. Its price is then written in the catalogue.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxy.domain.features import HOSTED_TOOLS
from proxy.domain.money import PICO_PER_USD, pico_per_token, pico_per_unit
from proxy.domain.pricing import Price
from proxy.policy_files.tables import Table, shown

_FILE = "model_prices_and_context_window_backup.json"
_PER_TOKEN = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "request": "input_cost_per_request",
}

_PER_SEARCH = "search_context_cost_per_query"


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the pinned table knows of a model; `price` is None if it is no single price."""

    price: Price | None
    max_output_tokens: int | None
    context_tokens: int | None


def pinned(provider: str, model: str) -> Pinned | None:
    """The table's entry for a provider (LiteLLM's name) and the provider's own name of a model."""
    return _table().get((provider, model))


def written_price(table: Table) -> Price | None:
    """The price in a catalogue entry; None, with the faults noted, if it is not one."""
    parts = {part: pico for part in _PER_TOKEN if (pico := _written(table, part)) is not None}
    for part in ("input", "output"):
        if table.given(part) is None:
            table.fault(f'`price` needs `{part}`, in USD per million tokens, such as {part} = "0.15"')
    calls = {tool: pico for tool in sorted(HOSTED_TOOLS) if (pico := _written(table, tool)) is not None}
    table.finish()
    return Price(**parts, version="policy", calls=calls) if {"input", "output"} <= parts.keys() else None


def _written(table: Table, part: str) -> int | None:
    """The picodollars of one part; None, with the fault noted, if it is not given as it should be."""
    value = table.given(part)
    if value is None:
        return None
    if not isinstance(value, str):
        table.fault(f'a price is text, so that nothing is rounded: {part} = "{shown(value).strip(chr(34))}"', part)
        return None
    try:
        return (pico_per_unit if part == "request" or part in HOSTED_TOOLS else pico_per_token)(value)
    except ValueError as fault:
        table.fault(f"`{part}`: {fault}", part)
        return None


@cache
def _table() -> dict[tuple[str, str], Pinned]:
    found = find_spec("litellm")
    if found is None or found.origin is None:
        return {}
    source = f"litellm-{version('litellm')}"
    entries = json.loads((Path(found.origin).parent / _FILE).read_bytes(), parse_float=Decimal)
    table: dict[tuple[str, str], Pinned] = {}
    for name, entry in entries.items():
        provider = entry.get("litellm_provider")
        if isinstance(provider, str) and entry.get("mode") in ("chat", "responses", "completion"):
            bare = name.removeprefix(f"{provider}/")
            if bare == name and (provider, bare) in table:
                continue  # "gemini/x" says more than another "x" of the same provider.
            limits = _count(entry, "max_output_tokens"), _count(entry, "max_input_tokens")
            table[provider, bare] = Pinned(_price(entry, source), *limits)
    return table


def _price(entry: dict[str, Any], source: str) -> Price | None:
    parts = {part: _pico(entry[key]) for part, key in _PER_TOKEN.items() if entry.get(key) is not None}
    if not parts.get("input") and not parts.get("output"):
        return None  # Nobody gives tokens away: the table does not know.
    if "input" not in parts or "output" not in parts or _depends(entry):
        return None
    return Price(**parts, version=source, calls=_calls(entry))


def _calls(entry: dict[str, Any]) -> dict[str, int]:
    """What a search costs; the dearest, where it hangs on how much is read. Other calls have no price there."""
    by_size: dict[str, Any] = entry.get(_PER_SEARCH) or {}
    dearest = max([_pico(usd) for usd in by_size.values() if isinstance(usd, Decimal | int)], default=0)
    return {"web_search": dearest} if dearest else {}


def _depends(entry: dict[str, Any]) -> bool:
    tiered = any("_above_" in key and key.endswith("_tokens") and "cost" in key for key in entry)
    return (
        tiered
        or entry.get("output_cost_per_reasoning_token", entry["output_cost_per_token"])
        != (entry["output_cost_per_token"])
    )


def _pico(usd: Decimal | int) -> int:
    """Exact, or rounded up where the table is finer than a picodollar."""
    return int((Decimal(usd) * PICO_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def _count(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return int(value) if isinstance(value, int | Decimal) and value > 0 else None
