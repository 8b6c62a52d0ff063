"""What an end user reads when a budget is spent must be true, and written for a person."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from proxy.domain.denials import TEMPLATE_FIELDS, denial_message, template_faults
from proxy.domain.policy import Budget, DenialTexts, Plan
from proxy.domain.refusals import BudgetState

DECEMBER_US = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 1_000_000
PLAN = Plan(id="starter", name="Starter", version=3)
TOKENS = Budget("monthly-tokens", "tokens", 1_000_000)
BERLIN = ZoneInfo("Europe/Berlin")


def state(budget: Budget, used: int, asked: int, held: int = 0, can_afford: int = 0) -> BudgetState:
    ends = None if budget.window == "lifetime" else DECEMBER_US
    return BudgetState(
        budget.id, budget.meter, budget.per, budget.limit, used, held, asked, can_afford, ends, upgrade_url=""
    )


def cost(limit: int, window: str = "P1M") -> Budget:
    return Budget("cost", "cost_usd", limit, window)


EXHAUSTED = "You have used {} in your Starter plan. They renew on {}."


@pytest.mark.parametrize(
    ("budget", "used", "held", "asked", "can_afford", "message"),
    [
        (TOKENS, 1_000_000, 0, 50, 0, EXHAUSTED.format("1,000,000 of the 1,000,000 tokens", "1 December 2026")),
        # Less than the plan's shortest answer is nothing.
        (TOKENS, 999_985, 0, 50, 0, EXHAUSTED.format("999,985 of the 1,000,000 tokens", "1 December 2026")),
        # What running requests hold is not there to be used.
        (TOKENS, 900_000, 100_000, 9, 0, EXHAUSTED.format("1,000,000 of the 1,000,000 tokens", "1 December 2026")),
        # A late settle may have gone beyond the limit.
        (TOKENS, 1_000_500, 0, 50, 0, EXHAUSTED.format("1,000,500 of the 1,000,000 tokens", "1 December 2026")),
        (
            TOKENS,
            995_904,
            0,
            5000,
            3096,
            (
                "This request may use 5,000 tokens; 4,096 are left until 1 December 2026."
                " Ask for at most 3,096 output tokens."
            ),
        ),
        (
            TOKENS,
            995_904,
            0,
            9000,
            0,
            "This request may use 9,000 tokens; 4,096 are left until 1 December 2026.",
        ),
        (
            Budget("calls", "requests", 1, "P1D"),
            1,
            0,
            1,
            0,
            EXHAUSTED.format("1 of the 1 request", "1 December 2026"),
        ),
        (
            replace(TOKENS, meter="output_tokens", window="lifetime"),
            1_000_000,
            0,
            50,
            0,
            "You have used the 1,000,000 output tokens of your Starter plan.",
        ),
        (
            replace(TOKENS, window="lifetime"),
            999_000,
            0,
            4096,
            900,
            (
                "This request may use 4,096 tokens; 1,000 are left until the end of your plan."
                " Ask for at most 900 output tokens."
            ),
        ),
        (
            cost(12_500_000),
            12_500_000,
            0,
            900,
            0,
            EXHAUSTED.format("$12.50 of the $12.50 credit", "1 December 2026"),
        ),
        (
            cost(20_000_000),
            19_999_998,
            0,
            900,
            0,
            EXHAUSTED.format("$19.99 of the $20.00 credit", "1 December 2026"),
        ),
        (
            cost(20_000_000),
            19_500_000,
            0,
            2_345_678,
            812,
            (
                "This request may use $2.35 credit; $0.50 are left until 1 December 2026."
                " Ask for at most 812 output tokens."
            ),
        ),
        # A tiny budget of which nothing is used is not used up.
        (
            cost(1_000),
            0,
            0,
            4_321,
            0,
            "This request may use $0.0044 credit; $0.0010 are left until 1 December 2026.",
        ),
        (
            cost(1_234_567_125_000, "lifetime"),
            1_234_567_125_000,
            0,
            1,
            0,
            "You have used the $1,234,567.125 credit of your Starter plan.",
        ),
    ],
)
def test_the_message_fits_what_is_left(
    budget: Budget, used: int, held: int, asked: int, can_afford: int, message: str
) -> None:
    """The three templates each say something else; the wrong one would be a lie."""
    assert denial_message(PLAN, budget, state(budget, used, asked, held, can_afford), UTC) == message


def test_the_date_is_the_customers() -> None:
    """Midnight in London is the next day in Auckland, and an end user lives in one place."""
    budget = replace(TOKENS, limit=10)
    spent = replace(state(budget, 10, 5), resets_at_us=DECEMBER_US - 1_000_000)
    assert "30 November 2026." in denial_message(PLAN, budget, spent, UTC)
    assert "1 December 2026." in denial_message(PLAN, budget, spent, ZoneInfo("Pacific/Auckland"))


def test_a_window_of_a_day_says_the_hour_too() -> None:
    """ "They renew on 1 December" helps little on 1 December."""
    budget = Budget("daily", "tokens", 10, "P1D")
    assert "1 December 2026 at 01:00" in denial_message(PLAN, budget, state(budget, 10, 5), BERLIN)


def test_a_template_may_name_every_field_and_write_braces() -> None:
    """What `faregate check` lets pass must not fail when a customer runs out."""
    text = " ".join(f"{{{name}}}" for name in TEMPLATE_FIELDS) + " {{sic}}"
    assert template_faults(text) == []
    plan = replace(PLAN, denial=DenialTexts(message_exhausted=text))
    assert denial_message(plan, TOKENS, state(TOKENS, 1_000_000, 7, can_afford=1), UTC) == (
        "1,000,000 1,000,000 tokens Starter 1 December 2026 7 0 1 output token {sic}"
    )


def test_a_template_of_one_sentence_is_kept_whole() -> None:
    """A denial without words would be worse than "at most 0"."""
    plan = replace(PLAN, denial=DenialTexts(message_too_large="Ask for {can_afford}"))
    assert denial_message(plan, TOKENS, state(TOKENS, 0, 2_000_000), UTC) == "Ask for 0 output tokens"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{usd} used", "{used}"),
        ("{zzz}", "there are {used}, {limit}"),
        ("{used.__class__}", "unknown field"),
        ("{used[0]}", "unknown field"),
        ("{}", "unknown field"),
        ("{0}", "unknown field"),
        ("{used!r}", "form of its own"),
        ("{used:>{limit}}", "form of its own"),
        ("used}", "brace"),
        ("{used", "brace"),
        ("{ used }", "{used}"),
    ],
)
def test_a_faulty_template_is_told_what_would_be_right(text: str, said: str) -> None:
    """An unknown field would raise in the middle of a refusal; attribute access would leak."""
    (fault,) = template_faults(text)
    assert said in fault


def test_every_fault_of_a_template_is_told() -> None:
    """Nobody wants to hear of them one by one."""
    assert len(template_faults("{a} {used} {b}")) == 2


def test_the_default_texts_have_no_fault() -> None:
    """They are what every plan without texts of its own says."""
    texts = DenialTexts()
    assert not any(
        map(template_faults, (texts.message_exhausted, texts.message_too_large, texts.message_lifetime))
    )
