"""The range of time that a page is about."""

from datetime import UTC, datetime, timedelta

import streamlit as st

DAYS = {"7 days": 7, "30 days": 30, "90 days": 90, "1 year": 365, "All": None}


def choose(key: str, usual: str = "30 days") -> dict[str, str]:
    """Draws the choice of a range and returns it as ``from_`` and ``to``, in whole hours."""
    chosen = st.segmented_control("Range", list(DAYS), default=usual, key=key, required=True) or usual
    return since(DAYS[chosen])


def since(days: int | None) -> dict[str, str]:
    """Returns the last days, up to the end of this hour."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    begun = end - timedelta(days=days) if days else datetime(2000, 1, 1, tzinfo=UTC)
    return {"from_": f"{begun:%Y-%m-%dT%H:%M:%SZ}", "to": f"{end:%Y-%m-%dT%H:%M:%SZ}"}


def label(time: datetime, interval: str) -> str:
    """Returns the beginning of an interval, which is one of UTC, as it stands at an axis."""
    return (
        f"{time:%d %b %H:%M}" if interval == "hour" else f"{time:%b %Y}" if interval == "month" else f"{time:%d %b %Y}"
    )


def share(part: int, whole: int) -> str:
    """Returns a share as a percentage."""
    return f"{part / whole:.0%}" if whole else "-"
