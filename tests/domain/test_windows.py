"""Budgets renew when the customer was told they would: at month ends, across DST, before and after the anchor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.domain.windows import Duration, calendar_anchor_us, check_window, parse_duration, window_at

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Sao_Paulo",
]
WINDOWS = ["P1D", "P1W", "P1M", "P3M", "P1Y", "P2W", "PT5H", "PT1H", "PT45M", "P1DT12H", "P1M3D", "P1Y2M10DT2H30M"]


def us(text: str) -> int:
    when = datetime.fromisoformat(text)
    return (when.replace(tzinfo=when.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def shown(instant_us: int | None, zone: str = "UTC") -> str:
    assert instant_us is not None
    return (EPOCH + timedelta(microseconds=instant_us)).astimezone(ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize(
    ("window", "anchor", "now", "start", "end"),
    [
        # OpenMeter's vectors: no drift to the 28th after a short month.
        ("P1M", "2025-01-31T15:00", "2025-08-13T00:00", "2025-07-31T15:00", "2025-08-31T15:00"),
        ("P1M", "2025-01-31T15:00", "2025-09-30T15:00", "2025-09-30T15:00", "2025-10-31T15:00"),
        ("P1M", "2025-01-30T00:00", "2025-02-13T00:00", "2025-01-30T00:00", "2025-02-28T00:00"),
        ("P1M", "2025-01-31T00:00", "2025-02-28T00:00", "2025-02-28T00:00", "2025-03-31T00:00"),
        ("P1M", "2024-01-31T00:00", "2024-02-29T12:00", "2024-02-29T00:00", "2024-03-31T00:00"),
        ("P1Y", "2024-02-29T00:00", "2025-06-01T00:00", "2025-02-28T00:00", "2026-02-28T00:00"),
        ("P1Y", "2024-02-29T00:00", "2028-02-29T00:00", "2028-02-29T00:00", "2029-02-28T00:00"),
        # Half-open: the end is the next one's start.
        ("P1D", "2026-11-20T10:00", "2026-11-21T09:59:59.999999", "2026-11-20T10:00", "2026-11-21T10:00"),
        ("P1D", "2026-11-20T10:00", "2026-11-21T10:00", "2026-11-21T10:00", "2026-11-22T10:00"),
        ("P1W", "2026-11-20T10:00", "2026-12-03T00:00", "2026-11-27T10:00", "2026-12-04T10:00"),
        ("PT5H", "2026-11-20T10:00", "2026-11-20T20:00", "2026-11-20T20:00", "2026-11-21T01:00"),
        # Before the anchor.
        ("P1M", "2026-03-31T00:00", "2026-02-10T00:00", "2026-01-31T00:00", "2026-02-28T00:00"),
        ("P1D", "2026-11-20T10:00", "2026-11-20T09:59", "2026-11-19T10:00", "2026-11-20T10:00"),
        ("P1D", "1970-01-02T00:00", "1969-12-31T12:00", "1969-12-31T00:00", "1970-01-01T00:00"),
    ],
)
def test_windows_count_from_the_anchor(window: str, anchor: str, now: str, start: str, end: str) -> None:
    """A drifting window bills the wrong month."""
    assert window_at(window, us(anchor), UTC, us(now)) == (us(start), us(end))


@pytest.mark.parametrize(
    ("window", "zone", "anchor", "now", "start", "end"),
    [
        # The wall clock decides: 23 and 25 hours long days.
        ("P1D", "Europe/Berlin", "2026-03-01T00:00+01:00", "2026-03-29T12:00Z", "2026-03-29T00:00+01:00", 23),
        ("P1D", "Europe/Berlin", "2026-03-01T00:00+01:00", "2026-10-25T12:00Z", "2026-10-25T00:00+02:00", 25),
        # 02:30 is skipped on 29 March: it counts as 03:30 summer time, once.
        ("P1D", "Europe/Berlin", "2026-03-01T02:30+01:00", "2026-03-29T12:00Z", "2026-03-29T03:30+02:00", 23),
        ("P1D", "Europe/Berlin", "2026-03-01T02:30+01:00", "2026-03-28T12:00Z", "2026-03-28T02:30+01:00", 24),
        # 02:30 occurs twice on 25 October: the first counts.
        ("P1D", "Europe/Berlin", "2026-03-01T02:30+01:00", "2026-10-25T12:00Z", "2026-10-25T02:30+02:00", 25),
        # Hours are elapsed time: a clock change neither stretches nor splits them.
        ("PT1H", "Europe/Berlin", "2026-03-01T00:30+01:00", "2026-10-25T01:00Z", "2026-10-25T02:30+02:00", 1),
    ],
)
def test_the_wall_clock_of_the_zone_turns_the_window(
    window: str, zone: str, anchor: str, now: str, start: str, end: int
) -> None:
    """A customer's midnight stays midnight when the clocks change."""
    got, until = window_at(window, us(anchor), ZoneInfo(zone), us(now))
    assert until is not None
    assert (shown(got, zone), (until - got) // 3_600_000_000) == (shown(us(start), zone), end)


def test_an_anchor_in_the_second_of_two_equal_hours_is_a_start_all_the_same() -> None:
    """Otherwise the first window of a subscription would begin before the subscription."""
    anchor = us("2026-10-25T02:30+01:00")
    assert window_at("P1D", anchor, ZoneInfo("Europe/Berlin"), anchor)[0] == anchor


def test_a_day_that_a_zone_skipped_makes_no_hole() -> None:
    """Samoa had no 30 December 2011."""
    zone = ZoneInfo("Pacific/Apia")
    now = us("2011-12-30T12:00+00:00")
    start, end = window_at("P1D", us("2011-12-01T08:00-10:00"), zone, now)
    assert end is not None
    assert start <= now < end


def test_a_lifetime_begins_with_the_epoch_and_never_ends() -> None:
    """Every admission of a lifetime budget must name the same counter."""
    assert window_at("lifetime", us("2026-01-01"), UTC, us("2026-11-20")) == (0, None)


instants = st.integers(us("1990-01-01"), us("2060-01-01"))


@given(window=st.sampled_from(WINDOWS), zone=st.sampled_from(ZONES), anchor=instants, now=instants)
def test_windows_tile_time(window: str, zone: str, anchor: int, now: int) -> None:
    """A gap would leave spending ungoverned, an overlap would count it twice."""
    tz = ZoneInfo(zone)
    start, end = window_at(window, anchor, tz, now)
    assert end is not None
    assert start <= now < end
    assert window_at(window, anchor, tz, start) == (start, end)
    assert window_at(window, anchor, tz, end - 1) == (start, end)
    assert window_at(window, anchor, tz, start - 1)[1] == start
    assert window_at(window, anchor, tz, end)[0] == end


@given(
    window=st.sampled_from(["P1D", "P1W", "P1M", "P1Y"]),
    zone=st.sampled_from(ZONES),
    anchor=instants,
    now=instants,
)
def test_every_start_has_the_anchors_wall_time(window: str, zone: str, anchor: int, now: int) -> None:
    """Derived from the anchor: same time of day, and the same day of the month where the month has it."""
    tz = ZoneInfo(zone)
    start = (EPOCH + timedelta(microseconds=window_at(window, anchor, tz, now)[0])).astimezone(tz)
    origin = (EPOCH + timedelta(microseconds=anchor)).astimezone(tz)
    skipped = start.replace(tzinfo=None, fold=0).time() != origin.time()
    assume(not skipped or start.date() == origin.date() or start.utcoffset() == origin.utcoffset())
    assert start.time() == origin.time()
    if window in ("P1M", "P1Y"):
        assert start.day == origin.day or (start.day < origin.day and (start + timedelta(days=1)).day == 1)
    elif window == "P1W":
        assert start.weekday() == origin.weekday() or zone == "Pacific/Apia"


@pytest.mark.parametrize(
    ("text", "months", "days", "elapsed_us"),
    [
        ("P1D", 0, 1, 0),
        ("P2W", 0, 14, 0),
        ("P1M", 1, 0, 0),
        ("P1Y2M3W4DT5H6M", 14, 25, (5 * 60 + 6) * 60_000_000),
        ("PT90M", 0, 0, 5_400_000_000),
    ],
)
def test_durations_are_read(text: str, months: int, days: int, elapsed_us: int) -> None:
    """`M` means months before the T and minutes after it."""
    assert parse_duration(text) == Duration(months, days, elapsed_us)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1",
        "1M",
        "p1m",
        "P1.5M",
        "P-1M",
        "P1MT",
        "P0D",
        "PT0M",
        "PT30S",
        "P1M ",
        "P101Y",
        "month",
        "P١D",
        "P" + "9" * 5000 + "Y",
        "P999999999999D",
    ],
)
def test_anything_else_is_refused_in_a_sentence(text: str) -> None:
    """Whoever edits a plan is told what would be right, and no text is too long to be refused."""
    with pytest.raises(ValueError, match=r"such as|at least a minute|hundred years") as fault:
        parse_duration(text)
    assert len(str(fault.value)) < 300


def test_a_window_that_is_not_understood_says_that_lifetime_is() -> None:
    """The two kinds of window are told together."""
    check_window("lifetime")
    check_window("P1M")
    with pytest.raises(ValueError, match="lifetime"):
        check_window("monthly")


def calendar(window: str, zone: str, now: str) -> tuple[str, str]:
    where = ZoneInfo(zone)
    now_us = round(datetime.fromisoformat(now).replace(tzinfo=where).timestamp() * 1_000_000)
    starts, ends = window_at(window, calendar_anchor_us(window, where), where, now_us)
    assert ends is not None
    shown = [
        datetime.fromtimestamp(at / 1_000_000, where).isoformat(timespec="minutes")[:16] for at in (starts, ends)
    ]
    return shown[0], shown[1]


@pytest.mark.parametrize(
    ("window", "zone", "now", "starts", "ends"),
    [
        ("P1D", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("P1D", "Europe/Berlin", "2026-10-25T23:30", "2026-10-25T00:00", "2026-10-26T00:00"),
        ("P1D", "America/New_York", "2026-11-01T00:00", "2026-11-01T00:00", "2026-11-02T00:00"),
        ("P1W", "Asia/Tokyo", "2026-11-22T23:59", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("P1W", "Asia/Tokyo", "2026-11-23T00:00", "2026-11-23T00:00", "2026-11-30T00:00"),
        ("P1M", "Europe/Berlin", "2026-03-31T23:59", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("P3M", "UTC", "2026-05-20T00:00", "2026-04-01T00:00", "2026-07-01T00:00"),
        ("P1Y", "Pacific/Auckland", "2026-06-01T00:00", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("P2W", "UTC", "2026-11-20T00:00", "2026-11-09T00:00", "2026-11-23T00:00"),
        ("PT6H", "UTC", "2026-11-20T13:00", "2026-11-20T12:00", "2026-11-20T18:00"),
        ("P1M", "Africa/Cairo", "2014-05-15T12:00", "2014-05-01T00:00", "2014-06-01T00:00"),
    ],
)
def test_calendar_windows_begin_where_the_calendar_does(
    window: str, zone: str, now: str, starts: str, ends: str
) -> None:
    """ "From the first" is what people mean by a month; the clocks' changes move no boundary."""
    assert calendar(window, zone, now) == (starts, ends)


@given(
    st.sampled_from(["P1D", "P7D", "P1W", "P2W", "P1M", "P3M", "P1Y", "PT5H"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]),
    st.integers(1_500_000_000, 2_200_000_000),
)
def test_calendar_windows_hold_the_present_and_follow_each_other(window: str, zone: str, now_s: int) -> None:
    where = ZoneInfo(zone)
    anchor = calendar_anchor_us(window, where)
    starts, ends = window_at(window, anchor, where, now_s * 1_000_000)
    assert ends is not None
    assert starts <= now_s * 1_000_000 < ends
    assert window_at(window, anchor, where, ends)[0] == ends
    assert window_at(window, anchor, where, starts - 1)[1] == starts
