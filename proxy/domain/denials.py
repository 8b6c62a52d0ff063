"""A spent budget, told to the end user: the plan's own templates, with numbers and dates written for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from string import Formatter
from typing import Literal

from proxy.domain.money import MICRO_PER_USD
from proxy.domain.policy import Budget, Plan
from proxy.domain.refusals import BudgetState
from proxy.domain.windows import LIFETIME, parse_duration

Rounding = Literal["down", "up", "exact"]

TEMPLATE_FIELDS = ("used", "limit", "meter", "plan", "resets_at", "asked", "remaining", "can_afford")

_METER_WORDS = {"cost_usd": "credit"}
_TOKEN_METERS = ("tokens", "input_tokens", "output_tokens")
# strftime would speak the server's language.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_CENT = MICRO_PER_USD // 100
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def denial_message(plan: Plan, budget: Budget, state: BudgetState, zone: tzinfo) -> str:
    """The sentence for an end user whose request `budget` refuses; dates are in `zone`.

    What running requests hold counts as used, so that used and remaining add up to the limit. A sentence of the
    template that says what could be afforded is left out when nothing can: "at most 0" helps nobody.
    """
    remaining = state.remaining
    spent = used_up(plan, budget, remaining)
    template = _template(plan, budget, spent)
    if state.can_afford == 0:
        kept = [part for part in _SENTENCE_END.split(template) if "{can_afford}" not in part]
        template = " ".join(kept) or template
    amount = _dollars if budget.meter == "cost_usd" else _count
    return template.format(
        used=amount(state.used + state.held, "down"),
        limit=amount(state.limit, "exact"),
        meter=_meter_word(budget.meter, state.limit if spent else state.asked),
        plan=plan.name,
        resets_at=_date(budget, state.resets_at_us, zone),
        asked=amount(state.asked, "up"),
        remaining=amount(max(0, remaining), "down"),
        can_afford=f"{state.can_afford:,} output token{'' if state.can_afford == 1 else 's'}",
    )


def template_faults(text: str) -> list[str]:
    """What is wrong with a template, a sentence each; empty if it can be used."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return ["has a brace without its partner: a field is {used}, and a brace itself is written {{ or }}"]
    faults = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in TEMPLATE_FIELDS:
            faults.append(f"has an unknown field {{{name}}}; {_nearest_field(name)}")
        elif form or conversion:
            faults.append(f"asks for {{{name}}} in a form of its own; write {{{name}}}, it is written for people")
    return faults


def used_up(plan: Plan, budget: Budget, remaining: int) -> bool:
    """Whether so little is left that a person would say it is used up."""
    if remaining <= 0:
        return True
    if budget.meter in _TOKEN_METERS:
        return remaining < min(plan.min_output_tokens, budget.limit)
    # Less than a cent is nothing, unless the whole budget is a few cents.
    return budget.meter == "cost_usd" and remaining < min(_CENT, budget.limit // 100)


def _template(plan: Plan, budget: Budget, spent: bool) -> str:
    if not spent:
        return plan.denial.message_too_large
    return plan.denial.message_lifetime if budget.window == LIFETIME else plan.denial.message_exhausted


def _nearest_field(name: str) -> str:
    near = get_close_matches(name, TEMPLATE_FIELDS, n=1, cutoff=0.6)
    if near:
        return f"did you mean {{{near[0]}}}?"
    return "there are " + ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)


def _meter_word(meter: str, amount: int) -> str:
    word = _METER_WORDS.get(meter, meter.replace("_", " "))
    return word.removesuffix("s") if amount == 1 else word


def _date(budget: Budget, resets_at_us: int | None, zone: tzinfo) -> str:
    """ "1 December 2026", in `zone`; with the time of day for windows that renew daily or more often."""
    if resets_at_us is None:
        return "the end of your plan"
    when = (_EPOCH + timedelta(microseconds=resets_at_us)).astimezone(zone)
    date = f"{when.day} {_MONTHS[when.month - 1]} {when.year}"
    frequent = budget.window != LIFETIME and parse_duration(budget.window).mean_us <= _DAY_US
    return f"{date} at {when:%H:%M}" if frequent and (when.hour or when.minute) else date


def _count(amount: int, rounding: Rounding) -> str:
    return f"{amount:,}"


def _dollars(microusd: int, rounding: Rounding) -> str:
    """ "$12.50": cents, or two significant digits of what is less than ten cents; a limit to its last digit."""
    digits = 2
    if rounding == "exact":
        digits = next(digits for digits in range(2, 7) if microusd % 10 ** (6 - digits) == 0)
    elif 0 < microusd < 10 * _CENT:
        digits = min(6, 8 - len(str(microusd)))
    step = 10 ** (6 - digits)
    whole, fraction = divmod(-(-microusd // step) if rounding == "up" else microusd // step, 10**digits)
    return f"${whole:,}.{fraction:0{digits}d}"
