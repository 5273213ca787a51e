"""The range of time that a page is about."""

from datetime import UTC, date, datetime, time, timedelta

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.ui import draw

DAYS = {"7 days": 7, "30 days": 30, "90 days": 90, "1 year": 365}
DATES = "Dates"
EARLIEST, LATEST = date(1900, 1, 1), date(2199, 12, 31)


def choose(key: str, usual: str, *, longest: int = 10_000) -> dict[str, str]:
    """Draws the choice of a range and returns it as ``from_`` and ``to``; empty is what the API chooses.

    Ranges of more than ``longest`` days are not offered.
    """
    names = [usual, *(name for name, days in DAYS.items() if name != usual and days <= longest), DATES]
    names.sort(key=lambda name: (name == DATES, DAYS.get(name, 0)))
    chosen = st.segmented_control("Range", names, default=usual, key=f"{key}-{len(names)}", required=True) or usual
    if chosen in DAYS:
        return _last(DAYS[chosen])
    if chosen != DATES:
        return {}
    first = pick("From", f"{key}-from")
    last = pick("To", f"{key}-to")
    found = {"from_": day(first), "to": day(last, after=1)}
    return {name: value for name, value in found.items() if value}


def pick(label: str, key: str, place: DeltaGenerator | None = None) -> date | None:
    """Draws the choice of a day, where the page is or in a place of it."""
    return (place or st).date_input(label, value=None, min_value=EARLIEST, max_value=LATEST, key=key)


def day(value: date | None, *, after: int = 0) -> str | None:
    """Returns when a day of the browser's time zone begins, or one some days later; None at the ends of time."""
    if value is None:
        return None
    try:
        begun = datetime.combine(value + timedelta(days=after), time(), draw.zone()).astimezone(UTC)
    except OverflowError:
        return None
    return begun.strftime("%Y-%m-%dT%H:%M:%SZ")


def _last(days: int) -> dict[str, str]:
    """Returns the last days, up to the end of this hour."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return {"from_": f"{end - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}", "to": f"{end:%Y-%m-%dT%H:%M:%SZ}"}


def label(begun: datetime, interval: str) -> str:
    """Returns the beginning of an interval, which is one of UTC, in words."""
    return (
        f"{begun:%d %b %H:%M}"
        if interval == "hour"
        else f"{begun:%b %Y}"
        if interval == "month"
        else f"{begun:%d %b %Y}"
    )


def share(part: int, whole: int) -> str:
    """Returns a share as a percentage."""
    return f"{part / whole:.0%}" if whole else draw.NOTHING
