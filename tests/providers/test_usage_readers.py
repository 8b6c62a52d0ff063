"""Usage reports decide what is charged, and come from servers that nobody controls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.usage import TOKENS_MAX, Usage
from proxy.providers.usage_readers import (
    chat_usage_of,
    numbers_of,
    read_chat_usage,
    read_embeddings_usage,
    read_messages_usage,
    read_responses_usage,
)

PLAIN = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def parts(usage: Usage) -> tuple[int, int, int, int, int, int, int]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.audio_input_tokens,
        usage.reasoning_tokens,
        usage.audio_output_tokens,
    )


BELIEVED: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    (PLAIN, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10, "completion_tokens": 5}, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10, "total_tokens": 15}, (10, 5, 0, 0, 0, 0, 0)),
    ({"completion_tokens": 5, "total_tokens": 15}, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}, (10, 0, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10, "total_tokens": 10}, (10, 0, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": None, "completion_tokens_details": None}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {}}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 4}}, (10, 5, 4, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 10}}, (10, 5, 10, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6}}, (10, 5, 4, 6, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_tokens": 6}}, (10, 5, 0, 6, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"audio_tokens": 3}}, (10, 5, 0, 0, 3, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"audio_tokens": 8, "cached_tokens": 6}}, (10, 5, 6, 0, 4, 0, 0)),
    ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 5}}, (10, 5, 0, 0, 0, 5, 0)),
    ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3}}, (10, 5, 0, 0, 0, 2, 3)),
    ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": None}}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3}, (10, 5, 7, 0, 0, 0, 0)),
    ({**PLAIN, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}, (10, 5, 4, 2, 0, 0, 0)),
    ({**PLAIN, "cost": 0.5, "service": "x"}, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": TOKENS_MAX, "completion_tokens": 1}, (TOKENS_MAX, 1, 0, 0, 0, 0, 0)),
]

DISPUTED: list[tuple[Any, tuple[int, ...]]] = [
    ({**PLAIN, "total_tokens": 16}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "total_tokens": 0}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "total_tokens": "15"}, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": -1, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10, "completion_tokens": -5, "total_tokens": 5}, (10, 0, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10.0, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": "10", "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": True, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": float("nan"), "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": float("inf"), "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 1 << 53, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": 10**400, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": TOKENS_MAX + 1, "completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": [10], "completion_tokens": {}}, (0,) * 7),
    ({"prompt_tokens": 10}, (10, 0, 0, 0, 0, 0, 0)),
    ({"completion_tokens": 5}, (0, 5, 0, 0, 0, 0, 0)),
    ({"total_tokens": 15}, (0,) * 7),
    ({"prompt_tokens": 10, "total_tokens": 9}, (10, 0, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 11}}, (10, 5, 10, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": -1}}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 6}}, (10, 5, 6, 4, 0, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": {"audio_tokens": 11}}, (10, 5, 0, 0, 10, 0, 0)),
    ({**PLAIN, "prompt_tokens_details": "none"}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 6}}, (10, 5, 0, 0, 0, 5, 0)),
    ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 1.5}}, (10, 5, 0, 0, 0, 0, 0)),
    ({**PLAIN, "completion_tokens_details": [1]}, (10, 5, 0, 0, 0, 0, 0)),
    ({"prompt_tokens": "x", "completion_tokens": "y"}, (0,) * 7),
]

UNREPORTED = [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "lots", [4], True, 7]


@pytest.mark.parametrize(("report", "expected"), BELIEVED)
def test_a_sound_report_is_taken_as_it_is(report: dict[str, Any], expected: tuple[int, ...]) -> None:
    """Every wire's way of saying it must come out in the same parts."""
    usage = read_chat_usage(report)
    assert usage is not None
    assert parts(usage) == expected
    assert not usage.disputed
    assert usage.source == "provider"


@pytest.mark.parametrize(("report", "expected"), DISPUTED)
def test_an_unsound_report_gives_its_sane_part_and_is_disputed(report: Any, expected: tuple[int, ...]) -> None:
    """A lie must neither crash the gate nor pass for the truth, and never turn into a silent zero."""
    usage = read_chat_usage(report)
    assert usage is not None
    assert parts(usage) == expected
    assert usage.disputed


@pytest.mark.parametrize("report", UNREPORTED)
def test_nothing_reported_is_nothing(report: Any) -> None:
    """No prompt is empty: zeros are what servers and LiteLLM write where they do not know."""
    assert read_chat_usage(report) is None


@pytest.mark.parametrize(
    ("start", "delta", "expected", "disputed"),
    [
        ({"input_tokens": 5, "output_tokens": 1}, {"output_tokens": 9}, (5, 9, 0, 0, 0, 0, 0), False),
        (
            {"input_tokens": 5, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100},
            {"output_tokens": 9},
            (1105, 9, 1000, 100, 0, 0, 0),
            False,
        ),
        ({"input_tokens": 5}, {"input_tokens": 7, "output_tokens": 9}, (7, 9, 0, 0, 0, 0, 0), False),
        ({"input_tokens": 5, "output_tokens": 1}, {"output_tokens": None}, (5, 1, 0, 0, 0, 0, 0), False),
        ({"input_tokens": 5, "output_tokens": 1}, None, (5, 1, 0, 0, 0, 0, 0), False),
        (None, {"output_tokens": 9}, (0, 9, 0, 0, 0, 0, 0), True),
        ({"input_tokens": -5}, {"output_tokens": 9}, (0, 9, 0, 0, 0, 0, 0), True),
        ("x", {"output_tokens": 9}, (0, 9, 0, 0, 0, 0, 0), True),
        (
            {"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
            None,
            (5, 9, 0, 0, 0, 4, 0),
            False,
        ),
    ],
)
def test_anthropics_last_report_wins_and_its_caches_count_as_input(
    start: Any, delta: Any, expected: tuple[int, ...], disputed: bool
) -> None:
    """Its reports are cumulative (adding them would bill twice) and leave the caches out of the input."""
    usage = read_messages_usage(start, delta)
    assert usage is not None
    assert parts(usage) == expected
    assert usage.disputed is disputed


def test_raw_keeps_numbers_and_no_text() -> None:
    """What a provider writes beside its numbers may be content, and content is never kept."""
    report = {
        **PLAIN,
        "note": "secret",
        "ok": True,
        "odd name!": 1,
        "deep": {"cost": 0.5, "text": "x", "nan": float("nan")},
    }
    assert numbers_of(report) == {**PLAIN, "deep": {"cost": 0.5}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(
    [
        *("input_tokens_details", "output_tokens_details", "cache_write_tokens", "cache_creation"),
        *("ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens", "prompt_cache_hit_tokens"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"),
        *("completion_tokens_details", "cached_tokens", "audio_tokens", "reasoning_tokens", "input_tokens"),
        *("output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    ]
)
REPORT = st.recursive(
    JSON, lambda inner: st.dictionaries(FIELD, inner | st.integers(0, 20), max_size=6), max_leaves=12
)


@given(REPORT, REPORT)
def test_any_report_whatever_gives_parts_that_add_up(report: Any, other: Any) -> None:
    """Pricing assumes disjoint parts: a negative remainder would be money given away."""
    said = {"model": "gemini-x", "usage": report, "x_groq": {"usage": other}}
    read = (
        read_chat_usage(report),
        chat_usage_of(said),
        read_messages_usage(report, other),
        read_responses_usage(report),
        read_embeddings_usage(report),
    )
    for usage in read:
        if usage is None:
            continue
        assert min(parts(usage)) >= 0
        assert usage.uncached_input_tokens >= 0
        assert usage.reasoning_tokens <= usage.output_tokens
        assert usage.audio_output_tokens <= usage.output_tokens
        assert max(parts(usage)) <= 3 * TOKENS_MAX
        assert usage.cache_write_1h_tokens <= usage.cache_write_tokens


def test_reasoning_beside_the_completion_is_output_where_the_total_says_so() -> None:
    """xAI counts it so; what no field explains is a contradiction, but where a provider is known for it."""
    details = {"completion_tokens_details": {"reasoning_tokens": 6}}
    usage = read_chat_usage({**PLAIN, "total_tokens": 21, **details})
    assert usage is not None
    assert (parts(usage), usage.disputed) == ((10, 11, 0, 0, 0, 6, 0), False)
    for report in ({**PLAIN, "total_tokens": 22, **details}, {**PLAIN, "total_tokens": 14}):
        usage = read_chat_usage(report)
        assert usage is not None
        assert (usage.output_tokens, usage.disputed) == (5, True)
    thinking = chat_usage_of({"model": "gemini-3", "usage": {**PLAIN, "total_tokens": 99}})
    assert thinking is not None
    assert (thinking.input_tokens, thinking.output_tokens, thinking.disputed) == (10, 89, False)


@pytest.mark.parametrize("said", [{}, {"usage": None}, {"x_groq": None}, {"x_groq": {"id": "r"}}, {"x_groq": [1]}])
def test_a_chunk_without_a_report_has_none(said: dict[str, Any]) -> None:
    assert chat_usage_of(said) is None


@pytest.mark.parametrize(
    ("total", "minutes", "hour", "written", "for_an_hour"),
    [
        (500, 100, 400, 500, 400),
        (500, 500, 0, 500, 0),
        (500, None, None, 500, 0),
        (None, 100, 400, 500, 400),
        (700, 100, 400, 700, 600),
        (700, 500, 0, 700, 0),
        (50, 100, 400, 50, 50),
    ],
)
def test_what_anthropic_writes_to_its_cache_for_an_hour_is_known_apart(
    total: int | None, minutes: int | None, hour: int | None, written: int, for_an_hour: int
) -> None:
    """It costs more. In a stream the total runs on but not its split, and what that leaves open is dearer."""
    split = {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour}
    usage = read_messages_usage(
        {"input_tokens": 5, "cache_creation": split}, {"output_tokens": 9, "cache_creation_input_tokens": total}
    )
    assert usage is not None
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (written, for_an_hour)
    assert (usage.input_tokens, usage.disputed) == (5 + written, False)
