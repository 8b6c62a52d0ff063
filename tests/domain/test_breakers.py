"""The breaker as a table of moments, and against all histories that Hypothesis can think of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.breakers import (
    FAILURES_TO_REST,
    LONGEST_REST_US,
    MOMENT_US,
    OUTAGE_FAILURES,
    OUTAGE_US,
    Breaker,
)

S = 1_000_000


def failing(breaker: Breaker, from_us: int = 0, times: int = FAILURES_TO_REST, every_us: int = MOMENT_US) -> int:
    """Fails again and again; returns when the last failure was."""
    for time in range(times):
        breaker.failed(from_us + time * every_us, probe=False)
    return from_us + (times - 1) * every_us


def test_it_rests_after_the_fifth_failure_in_a_row_and_not_before() -> None:
    """One bad answer is none of the next request's business."""
    breaker = Breaker()
    at = failing(breaker, times=FAILURES_TO_REST - 1)
    assert breaker.wait_us(at) == 0
    assert breaker.failed(at + S, probe=False)
    assert breaker.wait_us(at + S) == 5 * S
    assert breaker.wait_us(at + 6 * S) == 0


def test_a_burst_that_fails_at_one_moment_is_one_hiccup() -> None:
    """A hundred requests on a connection that broke are one event, and not worth a rest of seconds."""
    breaker = Breaker()
    at = failing(breaker, times=100, every_us=MOMENT_US // 200)
    assert at < MOMENT_US
    assert breaker.wait_us(at) == 0
    assert breaker.failed(MOMENT_US, probe=False)


def test_a_success_between_them_makes_the_failures_no_series() -> None:
    breaker = Breaker()
    at = failing(breaker, times=4)
    breaker.answered()
    breaker.succeeded()
    at = failing(breaker, at + S, times=4)
    assert breaker.wait_us(at) == 0
    assert not breaker.idle


def test_streams_that_begin_and_always_break_are_a_series_all_the_same() -> None:
    """An answer that has begun proves that the target lives, not that it is well."""
    breaker = Breaker()
    for second in range(FAILURES_TO_REST):
        breaker.answered()
        breaker.failed(second * S, probe=False)
    assert breaker.wait_us(FAILURES_TO_REST * S) > 0


RESTS = [
    # which rest, asked for, length in seconds
    (1, 0, 5),
    (2, 0, 10),
    (3, 0, 20),
    (4, 0, 40),
    (5, 0, 60),
    (6, 0, 60),
    (1, 3, 5),
    (1, 17, 17),
    (1, 3600, 60),
    (3, 30, 30),
]


@pytest.mark.parametrize(("which", "asked_s", "length_s"), RESTS)
def test_each_failed_probe_doubles_the_rest_up_to_a_minute(which: int, asked_s: int, length_s: int) -> None:
    """And an upstream that asks for longer gets it, within the same bound."""
    breaker, at = Breaker(), 0
    at = failing(breaker, times=FAILURES_TO_REST - 1)
    for rest in range(1, which + 1):
        if rest > 1:
            assert breaker.begin(at)
        breaker.failed(at, probe=rest > 1, asked_rest_us=asked_s * S if rest == which else 0)
        wait_us = breaker.wait_us(at)
        at += wait_us
    assert wait_us == length_s * S


def test_only_one_probe_is_sent_at_a_time() -> None:
    breaker = Breaker()
    at = failing(breaker) + 5 * S
    assert breaker.begin(at)
    assert breaker.wait_us(at) > 0
    breaker.abandoned()
    assert breaker.wait_us(at) == 0
    assert breaker.begin(at)
    assert breaker.answered()
    assert breaker.wait_us(at) == 0
    assert not breaker.begin(at)


def test_what_began_before_the_rest_and_fails_in_it_is_no_news() -> None:
    """The slow failures of one outage must not make the rest of the next minute out of it."""
    breaker = Breaker()
    at = failing(breaker)
    wait_us = breaker.wait_us(at)
    assert not breaker.failed(at + S, probe=False)
    assert breaker.wait_us(at + S) == wait_us - S


def test_where_nothing_else_is_left_only_an_outage_is_a_rest() -> None:
    """A gate with one provider must not make five seconds of nothing out of one second of trouble."""
    breaker = Breaker()
    failing(breaker, times=4)
    at = failing(breaker, OUTAGE_US, times=OUTAGE_FAILURES - 5, every_us=0)
    assert breaker.wait_us(at) == 5 * S
    assert breaker.wait_us(at, last_resort=True) == 0
    assert not breaker.begin(at)
    breaker.failed(at, probe=False)
    assert breaker.wait_us(at, last_resort=True) == breaker.wait_us(at) == 5 * S


def test_many_failures_in_a_few_seconds_are_no_outage_yet() -> None:
    breaker = Breaker()
    at = failing(breaker, times=100, every_us=OUTAGE_US // 200)
    assert breaker.wait_us(at) > 0
    assert breaker.wait_us(at, last_resort=True) == 0


def test_an_answer_that_comes_during_the_rest_ends_it() -> None:
    breaker = Breaker()
    at = failing(breaker)
    assert breaker.answered()
    assert breaker.wait_us(at) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("begin", "failed", "answered", "succeeded", "abandoned")),
        st.integers(0, 70 * S),
        st.integers(0, 200 * S),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_it_never_shuts_a_target_out_for_good(steps: list[Any]) -> None:
    """Rests are a minute at most, at most one probe is out, and once it is back the target can be tried."""
    breaker, now_us, probes = Breaker(), 0, 0
    for what, later_us, asked_us in steps:
        now_us += later_us
        if what == "begin":
            if breaker.wait_us(now_us) == 0 and breaker.begin(now_us):
                probes += 1
        elif what == "failed":
            began = breaker.failed(now_us, probe=probes > 0, asked_rest_us=asked_us)
            assert began or probes == 0
            probes = 0
        elif what == "answered":
            breaker.answered()
            probes = 0
        elif what == "succeeded":
            breaker.succeeded()
        elif probes:
            breaker.abandoned()
            probes = 0
        assert probes <= 1
        assert breaker.probing == (probes == 1)
        assert 0 <= breaker.wait_us(now_us) <= LONGEST_REST_US
        if probes == 0:
            assert breaker.wait_us(now_us + LONGEST_REST_US) == 0
