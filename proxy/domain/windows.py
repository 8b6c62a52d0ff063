"""Budget windows: which [start, end) holds the present, counted from the subscription's anchor.

The n-th window starts at anchor + n intervals, worked out from the anchor each time and never from the window
before: from 31 January monthly windows start on 28 February and then on 31 March again.

Years, months, weeks and days are counted on the wall clock of the zone, so that a window turns at the same time
of day all year. A wall time that the clocks skip counts as if they had not been put forward yet (02:30 becomes
03:30 summer time), and of a wall time that occurs twice the first counts: both as RFC 5545 has it. The anchor
itself is always a start. Hours and minutes are elapsed time: PT5H is five hours, whatever the clocks do.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

LIFETIME = "lifetime"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINUTE_US = 60_000_000
_DAY_US = 24 * 60 * _MINUTE_US
# A twelfth of the mean Gregorian year: close enough to guess a window, from which a step or two leads to it.
_MEAN_MONTH_US = 30_436_875 * _DAY_US // 1_000_000
# A longer window says "for ever"; without the cap its end would leave the calendar.
_LONGEST_US = 100 * 12 * _MEAN_MONTH_US

_DURATION = re.compile(
    r"P(?=.)(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?=.)(?:([0-9]+)H)?(?:([0-9]+)M)?)?"
)


@dataclass(frozen=True, slots=True)
class Duration:
    """An ISO 8601 duration in the three units that do not convert into each other."""

    months: int
    days: int
    elapsed_us: int

    @property
    def mean_us(self) -> int:
        return self.months * _MEAN_MONTH_US + self.days * _DAY_US + self.elapsed_us


@lru_cache(maxsize=256)
def parse_duration(text: str) -> Duration:
    """The duration of `P1M`, `P1Y6M`, `P2W`, `PT5H`, …; ValueError with a sentence for anything else."""
    match = _DURATION.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        raise ValueError(
            f"{text[:40]!r} is no ISO 8601 duration of years, months, weeks, days, hours and minutes, such as"
            ' "P1D", "P1W", "P1M" or "PT5H"'
        )
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in match.groups())
    duration = Duration(12 * years + months, 7 * weeks + days, (60 * hours + minutes) * _MINUTE_US)
    if duration.mean_us == 0:
        raise ValueError(f"{text!r} is no time at all: a window must be at least a minute")
    if duration.mean_us > _LONGEST_US:
        raise ValueError(f'{text!r} is longer than a hundred years: write "{LIFETIME}"')
    return duration


def check_window(window: str) -> None:
    """ValueError with a sentence if `window` is neither "lifetime" nor a duration."""
    if window != LIFETIME:
        try:
            parse_duration(window)
        except ValueError as fault:
            raise ValueError(f'{fault}; for a budget that never renews, "{LIFETIME}"') from None


def window_at(window: str, anchor_us: int, zone: tzinfo, now_us: int) -> tuple[int, int | None]:
    """The window that holds `now_us`, half-open [start, end), in microseconds since 1970.

    Windows before the anchor are counted backwards from it. "lifetime" is (0, None). ValueError if the window
    is not understood.
    """
    if window == LIFETIME:
        return 0, None
    duration = parse_duration(window)
    anchor = _wall(anchor_us, zone)
    n = (now_us - anchor_us) // duration.mean_us
    start = _start(duration, anchor_us, anchor, zone, n)
    while start > now_us:
        n -= 1
        start = _start(duration, anchor_us, anchor, zone, n)
    end = _start(duration, anchor_us, anchor, zone, n + 1)
    while end <= now_us:
        n += 1
        start, end = end, _start(duration, anchor_us, anchor, zone, n + 1)
    return start, end


@lru_cache(maxsize=1024)
def calendar_anchor_us(window: str, zone: tzinfo) -> int:
    """The anchor of windows aligned to the calendar: midnight of 1 January 1970 in the zone, and of Monday,
    5 January, for windows written in weeks. Counted from there, days, months and years begin where the calendar's
    do, and every multiple divides the calendar in the same places for everybody."""
    weeks = window != LIFETIME and "W" in window and not parse_duration(window).months
    return _instant(datetime(1970, 1, 5 if weeks else 1, tzinfo=zone), zone)


def _start(duration: Duration, anchor_us: int, anchor: datetime, zone: tzinfo, n: int) -> int:
    if n == 0 or not (duration.months or duration.days):
        return anchor_us + n * duration.elapsed_us
    wall = _months_later(anchor, n * duration.months) + timedelta(days=n * duration.days)
    return _instant(wall, zone) + n * duration.elapsed_us


def _months_later(wall: datetime, months: int) -> datetime:
    """The same day of a later month, or the last day of a month that has no such day."""
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    return wall.replace(year=year, month=month + 1, day=min(wall.day, monthrange(year, month + 1)[1]))


def _wall(instant_us: int, zone: tzinfo) -> datetime:
    """What the zone's clocks show, as a datetime without a zone."""
    return (_EPOCH + timedelta(microseconds=instant_us)).astimezone(zone).replace(tzinfo=None, fold=0)


def _instant(wall: datetime, zone: tzinfo) -> int:
    """When the zone's clocks show it. `fold=0` asks for the offset before a change, in a gap and in a fold."""
    return (wall.replace(tzinfo=zone, fold=0) - _EPOCH) // _MICROSECOND
