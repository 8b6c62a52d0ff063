from __future__ import annotations

import pytest

from proxy.domain.usage_events import FIELDS, INPUT_PARTS, correction

EVENT = {
    "request_id": "r",
    "attempt": 2,
    "kind": "terminal",
    "disputed": False,
    "status": "succeeded",
    "input_tokens": 19,
    "output_tokens": 24,
    "uncached_input_tokens": 4,
    "cache_read_tokens": 10,
    "cache_write_tokens": 3,
    "audio_input_tokens": 2,
    "reasoning_tokens": 5,
    "audio_output_tokens": 1,
    "cost_usd": "0.00001725",
    "held": [{"amount": 9}],
    "billable": True,
}


@pytest.mark.parametrize(
    ("prior", "disputed", "tokens", "cost", "uncached", "reasoning", "billable"),
    [
        ((0, 0, 0), False, (19, 24), "0.00001725", 4, 5, True),
        ((500, 3, 77_000_000), False, (-481, 21), "-0.00005975", -496, 5, True),
        ((10, 24, 17_250_000), True, (9, 0), "0", 9, 0, False),
    ],
)
def test_a_correction_says_the_signed_difference(prior, disputed, tokens, cost, uncached, reasoning, billable):
    """An attempt's usage is the sum of its rows; a wrong sign would bill it twice."""
    row = correction(EVENT, prior, 7, late=not disputed, disputed=disputed)
    assert (row["id"], row["kind"], row["seq"], row["held"]) == ("r:2:c7", "correction", 7, [])
    assert (row["input_tokens"], row["output_tokens"]) == tokens
    assert (row["cost_usd"], row["uncached_input_tokens"], row["reasoning_tokens"]) == (cost, uncached, reasoning)
    assert (row["late"], row["disputed"], row["billable"]) == (not disputed, disputed, billable)
    assert sum(row[part] for part in INPUT_PARTS) == row["input_tokens"]
    assert EVENT["held"], "the event that was given must not change"


def test_an_unpriced_correction_has_no_cost():
    """Unknown stays unknown."""
    assert correction(EVENT | {"cost_usd": None}, (0, 0, 0), 1, late=True, disputed=False)["cost_usd"] is None


def test_a_doubtful_report_stays_doubtful_when_it_is_late():
    """What contradicted itself is no less in doubt for having come late."""
    row = correction(EVENT | {"disputed": True, "billable": False}, (0, 0, 0), 1, late=True, disputed=False)
    assert (row["disputed"], row["billable"]) == (True, False)


def test_no_field_is_named_twice():
    """Columns, exports and the API are made from this list."""
    assert len(set(FIELDS)) == len(FIELDS) == 48
