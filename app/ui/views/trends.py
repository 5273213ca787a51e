"""Counts over time, with what they are counts of."""

from typing import Any

import streamlit as st

from app.client import Trends
from app.ui import draw, ranges, session

METRICS = {"volume": "Volume", "sentiment": "Sentiment", "outcome": "Outcome", "keywords": "Keywords"}
INTERVALS = {"hour": 80, "day": 1_900, "week": 10_000, "month": 10_000}
"""How many days of each the API counts at once."""
LINES = 8
"""How many keywords are drawn as lines."""


def _values(found: Trends, interval: str) -> list[dict[str, Any]]:
    totals = found["totals"]["counts"]
    commonest = sorted(totals, key=lambda label: -totals[label])[:LINES]
    shown = commonest if found["metric"] == "keywords" else list(draw.COLOURS)
    return [
        {
            "start": f"{bucket['start']:%Y-%m-%dT%H:%M:%SZ}",
            "when": ranges.label(bucket["start"], interval),
            "label": draw.OUTCOMES.get(label, label) if found["metric"] == "outcome" else label,
            "count": count,
            "of": bucket["analysed"],
            "share": ranges.share(count, bucket["analysed"]),
        }
        for bucket in found["data"]
        for label, count in bucket["counts"].items()
        if label in shown
    ]


def _time_axis(interval: str) -> dict[str, Any]:
    shown = {"hour": "%d %b %H:%M", "month": "%b %Y"}.get(interval, "%d %b")
    axis = {"format": shown, "labelOverlap": True, "grid": False, "title": None}
    return {"field": "start", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}


def _volume(found: Trends, interval: str) -> None:
    values = [
        {
            "start": f"{bucket['start']:%Y-%m-%dT%H:%M:%SZ}",
            "when": ranges.label(bucket["start"], interval),
            "count": bucket["conversations"],
        }
        for bucket in found["data"]
    ]
    tooltip = [{"field": "when", "title": "From"}, {"field": "count", "title": "Conversations"}]
    encoding = {
        "x": _time_axis(interval),
        "y": {"field": "count", "type": "quantitative", "title": "Conversations", "axis": {"tickMinStep": 1}},
        "tooltip": tooltip,
    }
    draw.chart(values, 320, {"mark": {"type": "bar", "width": {"band": 0.8}}, "encoding": encoding})


def _labelled(found: Trends, interval: str) -> None:
    words = found["metric"] == "keywords"
    shown = [word for word in draw.COLOURS if word in found["totals"]["counts"]]
    names = [draw.OUTCOMES.get(word, word) for word in shown] if found["metric"] == "outcome" else shown
    scale = {} if words else {"scale": {"domain": names, "range": [draw.COLOURS[word] for word in shown]}}
    encoding = {
        "x": _time_axis(interval),
        "y": {"field": "count", "type": "quantitative", "title": "Conversations", "stack": None if words else "zero"},
        "color": {"field": "label", "type": "nominal", "title": None, "legend": {"orient": "bottom"}, **scale},
        "tooltip": [
            {"field": "when", "title": "From"},
            {"field": "label", "title": "Label"},
            {"field": "count", "title": "Conversations"},
            {"field": "of", "title": "Of analysed"},
            {"field": "share", "title": "Share"},
        ],
    }
    mark = {"type": "line", "point": True} if words else {"type": "bar", "width": {"band": 0.8}}
    draw.chart(_values(found, interval), 320, {"mark": mark, "encoding": encoding})


def _totals(found: Trends) -> None:
    totals = found["totals"]
    counts = sorted(totals["counts"].items(), key=lambda pair: -pair[1])
    most = max((count for _, count in counts), default=0)
    if not counts:
        return
    named = draw.OUTCOMES if found["metric"] == "outcome" else {}
    st.html(
        '<div class="ci-heading">In the whole range</div>'
        + draw.bars((named.get(label, label), count / most, f"{count:,}") for label, count in counts[:20])
    )


def show() -> None:
    """Draws the page."""
    draw.title("Trends", "Conversations by when they began, in UTC.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = st.segmented_control(
            "Metric", list(METRICS), default="volume", format_func=lambda each: METRICS[each], required=True
        )
        interval = st.segmented_control("Interval", list(INTERVALS), default="day", required=True) or "day"
        query = ranges.choose("trends-range", "Newest", longest=INTERVALS[interval])
    with st.spinner("Counting ..."):
        found = session.client().trends(metric=metric, interval=interval, **query)
    totals = found["totals"]
    if not totals["conversations"]:
        draw.empty("No conversations in this range", "Choose a longer one, or import a CSV.")
        return
    draw.metrics(
        ("Conversations", f"{totals['conversations']:,}"),
        ("Analysed", f"{totals['analysed']:,}"),
        ("Share analysed", ranges.share(totals["analysed"], totals["conversations"])),
    )
    if metric == "volume":
        _volume(found, interval)
        return
    if not totals["analysed"]:
        draw.empty("None of them is analysed yet", "Summarise them from the list of conversations.")
        return
    _labelled(found, interval)
    _totals(found)
    if metric == "keywords":
        note = f"A keyword that fewer than {found['min_count']} conversations share is not told."
        if not found["complete"]:
            note += " Of so many keywords not all were compared: others may be as common as these."
        st.html(f'<p class="ci-note">{note}</p>')


show()
