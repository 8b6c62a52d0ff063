"""The values that bodies, queries and answers are made of, each with its bounds and its complaint."""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints, WithJsonSchema

from proxy.domain.accounts import AGENT_KINDS
from proxy.domain.money import microusd
from proxy.domain.policy import ATTEMPT_METERS

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"
_ID = re.compile(ID_PATTERN)
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
# Microseconds up to here stay exact in a Lua number.
_YEARS = range(1970, 2200)
# Sums of these stay exact in Redis too.
AMOUNT_MOST = 10**15


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'starter'?" if one of the known words is near, else "" (to be put behind a sentence)."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""


# Besides what is printable: the joiners, without which Persian names and many an emoji fall apart.
_KEPT = " \n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def _printable(text: str) -> str:
    """Control characters would reach terminals, CSV files and a database that takes no NUL."""
    if any(not (c.isprintable() or c in _KEPT) for c in text):
        raise ValueError("it holds control characters; only printable text is kept")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ValueError("this is no e-mail address; it looks like name@example.com")
    return text


@functools.cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _timezone(text: str) -> str:
    if text not in _timezones():
        hint = nearest(text, _timezones()) or " Examples: UTC, Europe/Berlin, America/New_York."
        raise ValueError(f"{text!r} is no IANA time zone.{hint}")
    return text


def _kind(text: str) -> str:
    if text not in AGENT_KINDS:
        raise ValueError(f"{text!r} is no known kind of agent. The known ones are {', '.join(AGENT_KINDS)}.")
    return text


def _instant(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    example = "write it like 2026-12-01T00:00:00Z"
    if not isinstance(value, str):
        raise ValueError(f"a time is ISO 8601 text: {example}")
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"this is no ISO 8601 time; {example}") from None
    if read.tzinfo is None:
        raise ValueError(f"this time has no zone; {example}")
    if read.year not in _YEARS:
        raise ValueError(f"a time lies between the years {_YEARS[0]} and {_YEARS[-1]}")
    return read.astimezone(UTC)


def _meter(text: str) -> str:
    if text not in ATTEMPT_METERS:
        hint = nearest(text, ATTEMPT_METERS) or f" The meters are {', '.join(ATTEMPT_METERS)}."
        raise ValueError(f"{text[:40]!r} is no meter.{hint}")
    return text


def _amount(value: Any) -> int | str:
    if type(value) is int or isinstance(value, str):
        return value
    raise ValueError('an amount is a whole number, or of cost_usd USD as text, such as "12.50"')


def counted(meter: str, amount: int | str) -> int:
    """An amount in the unit that is counted, of `cost_usd` microdollars; ValueError says what would be right."""
    if meter == "cost_usd":
        units = microusd(amount)
    elif isinstance(amount, str):
        raise ValueError(f"the amount of {meter} is a whole number, not text")
    else:
        units = amount
    if not 0 < units <= AMOUNT_MOST:
        raise ValueError(f"the amount must be more than zero and at most {AMOUNT_MOST:,}")
    return units


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]
Phone = Annotated[str, StringConstraints(min_length=1, max_length=50), AfterValidator(_printable)]
Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_printable)]
Filter = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
Cursor = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_printable)]
Email = Annotated[
    str,
    StringConstraints(max_length=320),
    AfterValidator(_email),
    AfterValidator(_printable),
    WithJsonSchema({"type": "string", "maxLength": 320, "format": "email"}),
]
Meter = Annotated[str, AfterValidator(_meter), WithJsonSchema({"type": "string", "enum": list(ATTEMPT_METERS)})]
Amount = Annotated[
    Any,
    BeforeValidator(_amount),
    WithJsonSchema({"type": ["integer", "string"], "examples": [1_000_000, "12.50"]}),
]
Timezone = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_timezone),
    WithJsonSchema({"type": "string", "maxLength": 64, "examples": ["UTC", "Europe/Berlin"]}),
]
Kind = Annotated[str, AfterValidator(_kind), WithJsonSchema({"type": "string", "enum": list(AGENT_KINDS)})]
Instant = Annotated[
    AwareDatetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
