"""A wrong price is a wrong bill: prices are exact, or there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest

from proxy.domain.money import PICO_PER_USD
from proxy.domain.pricing import Price
from proxy.policy_files import PolicyFaults, read_policies
from proxy.policy_files import prices as room
from proxy.settings import Settings

Policies = Callable[..., Path]
MODEL = '[models.m]\nupstream = "openai"\nupstream_model = "gpt-4o-mini"\n'


def test_the_catalogues_own_price_goes_first(policies: Policies) -> None:
    """Every part, in picodollars per token; a request's own price in picodollars."""
    text = (
        'price = { input = "0.15", cached_input = "0.075", output = "0.60", cache_write = "0.1875",'
        ' cache_write_1h = "0.30", audio_input = "10", audio_output = "20", request = "0.01" }\n'
    )
    model = read_policies(policies(models=MODEL + text, x='id = "x"'), Settings()).models["m"]
    parts = (150_000, 600_000, 75_000, 187_500, 10_000_000, 20_000_000)
    assert model.price == Price(*parts, request=10_000_000_000, version="policy", cache_write_1h=300_000)


def test_calls_of_the_providers_own_tools_have_prices(policies: Policies) -> None:
    """In USD per call, by the plan's word for each; what costs nothing is written so, since unknown is refused."""
    text = 'price = { input = "0.15", output = "0.60", web_search = "0.01", web_fetch = "0", mcp = "0.000001" }\n'
    model = read_policies(policies(models=MODEL + text, x='id = "x"'), Settings()).models["m"]
    assert model.price == Price(
        150_000, 600_000, version="policy", calls={"mcp": 1_000_000, "web_fetch": 0, "web_search": 10_000_000_000}
    )


@pytest.mark.parametrize("price", ["0.01", '"a cent"', '"-1"', '"0.0000000000001"'])
def test_a_price_of_calls_that_is_none_is_told(policies: Policies, price: str) -> None:
    text = f'price = {{ input = "0.15", output = "0.60", web_search = {price} }}\n'
    with pytest.raises(PolicyFaults, match="web_search"):
        read_policies(policies(models=MODEL + text, x='id = "x"'), Settings())


def test_the_pinned_table_knows_what_a_search_costs() -> None:
    """Where it hangs on how much is read, the dearest: what is held must be enough."""
    known = room.pinned("openai", "gpt-5")
    assert known is not None
    assert known.price is not None
    assert known.price.calls == {"web_search": 10_000_000_000}
    entry = {"search_context_cost_per_query": {"low": Decimal("0.01"), "high": Decimal("0.03"), "note": "x"}}
    assert room._calls(entry) == {"web_search": 30_000_000_000}
    assert room._calls({}) == room._calls({"search_context_cost_per_query": {"low": 0}}) == {}


def test_the_pinned_table_knows_what_an_hour_in_the_cache_costs() -> None:
    """Anthropic asks twice the plain price for it."""
    known = room.pinned("anthropic", "claude-sonnet-4-5")
    assert known is not None
    assert known.price is not None
    assert (known.price.cache_write, known.price.cache_write_1h) == (3_750_000, 6_000_000)


def test_without_a_price_the_pinned_table_is_asked(policies: Policies) -> None:
    """By the provider's name of the model, with the release that the table came with."""
    model = read_policies(policies(models=MODEL, x='id = "x"'), Settings()).models["m"]
    assert model.price is not None
    assert (model.price.input, model.price.cached_input, model.price.output) == (150_000, 75_000, 600_000)
    assert model.price.version.startswith("litellm-1.")
    assert (model.max_output_tokens, model.context_tokens) == (16_384, 128_000)


def test_the_table_is_read_without_importing_litellm() -> None:
    """It would cost two seconds of CPU and 160 MB."""
    script = (
        "import sys; from proxy.policy_files.prices import pinned;"
        " assert pinned('gemini', 'gemini-2.5-flash'); assert 'litellm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_prices_are_the_tables_own_digits() -> None:
    """Not those of a float: every price that is used is compared with the file's text."""
    found = find_spec("litellm")
    assert found is not None
    assert found.origin is not None
    entries = json.loads((Path(found.origin).parent / room._FILE).read_text(), parse_float=str)
    compared = 0
    for (provider, name), known in room._table().items():
        entry = entries.get(f"{provider}/{name}") or entries[name]
        if known.price is not None:
            assert abs(Decimal(entry["input_cost_per_token"]) * PICO_PER_USD - known.price.input) < 1
            assert known.price.output >= Decimal(entry["output_cost_per_token"]) * PICO_PER_USD
            compared += 1
    assert compared > 500


@pytest.mark.parametrize(
    "entry",
    [
        {"input_cost_per_token": 0, "output_cost_per_token": 0},
        {"input_cost_per_token": 1},
        {"input_cost_per_token": 1, "output_cost_per_token": 2, "input_cost_per_token_above_200k_tokens": 2},
        {"input_cost_per_token": 1, "output_cost_per_token": 2, "output_cost_per_reasoning_token": 3},
    ],
)
def test_half_a_price_is_none(entry: dict[str, int]) -> None:
    """Free, unknown, dearer beyond a length or while reasoning: a cost budget must not admit it at less."""
    assert room._price(entry, "litellm-x") is None


def test_what_is_finer_than_a_picodollar_is_rounded_up() -> None:
    """Never charge a budget less than was paid."""
    assert room._pico(Decimal("1.5e-07")) == 150_000
    assert room._pico(Decimal("1.00000000000001e-07")) == 100_001


def test_nobodys_model_has_no_price(policies: Policies) -> None:
    """It may be used all the same, where no cost budget applies."""
    models = '[models.m]\nupstream = "openai"\nmax_output_tokens = 1\ncontext_tokens = 1\n'
    assert read_policies(policies(models=models, x='id = "x"'), Settings()).models["m"].price is None
