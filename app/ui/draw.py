"""Pieces of pages. What people wrote is shown through these alone: escaped, and never as Markdown or a label."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Any, Literal
from zoneinfo import ZoneInfo

import streamlit as st

Kind = Literal["info", "good", "warning", "bad"]
TONES = {"positive": "good", "yes": "good", "negative": "bad", "no": "bad", "mixed": "warn", "maybe": "warn"}
OUTCOMES = {"yes": "resolved", "no": "unresolved", "maybe": "pending", "curious": "only asking"}
NOTHING = "-"
COLOURS = {
    "positive": "#2e9e6b",
    "neutral": "#8a93a6",
    "mixed": "#d19a2a",
    "negative": "#d2524b",
    "yes": "#2e9e6b",
    "curious": "#8a93a6",
    "maybe": "#d19a2a",
    "no": "#d2524b",
}
# Invisible, or they turn the direction of what is beside them: in an id they would let one look like another.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def text(value: object) -> str:
    """Returns a text as HTML that is that text; its direction does not reach beyond it."""
    return f'<bdi dir="auto">{escape(str(value))}</bdi>'


def name(value: str) -> str:
    """Returns an id or a name as HTML, with the characters that cannot be seen written out."""
    return text(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value))


def anchor(message_id: str) -> str:
    """Returns the HTML id of a message."""
    return f"m-{hashlib.sha256(message_id.encode()).hexdigest()[:20]}"


def badge(label: str, tone: str = "") -> str:
    """Returns a short word on a ground."""
    return f'<span class="ci-badge ci-{tone or "plain"}">{escape(label)}</span>'


def labels(sentiment: str | None, outcome: str | None) -> str:
    """Returns the badges of a sentiment and an outcome."""
    shown = [badge(sentiment, TONES.get(sentiment, ""))] if sentiment else []
    return " ".join([*shown, badge(OUTCOMES.get(outcome, outcome), TONES.get(outcome, ""))] if outcome else shown)


def chips(words: Iterable[str]) -> str:
    """Returns words in a row."""
    return '<div class="ci-chips">' + "".join(f'<span class="ci-chip">{text(word)}</span>' for word in words) + "</div>"


def zone() -> tzinfo:
    """Returns the browser's time zone, or UTC if it does not say."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        return UTC


def when(time: datetime | None, *, never: str = NOTHING) -> str:
    """Returns a time as people of the browser's time zone read it."""
    if time is None:
        return never
    try:
        return f"{time.astimezone(zone()):%d %b %Y, %H:%M}"
    except OverflowError:
        return f"{time:%d %b %Y, %H:%M}"


def title(heading: str, note: str = "") -> None:
    """Draws the heading of a page."""
    st.html(f'<h1 class="ci-title">{text(heading)}</h1>' + (f'<p class="ci-note">{escape(note)}</p>' if note else ""))


def alert(kind: Kind, heading: str, *lines: str) -> None:
    """Draws a box that says what is the matter."""
    role = "alert" if kind == "bad" else "status"
    body = "".join(f"<p>{text(line)}</p>" for line in lines if line)
    st.html(f'<div class="ci-alert ci-{kind}" role="{role}"><strong>{text(heading)}</strong>{body}</div>')


def empty(heading: str, advice: str) -> None:
    """Draws what stands where there is nothing."""
    st.html(f'<div class="ci-empty"><strong>{text(heading)}</strong><p>{text(advice)}</p></div>')


def metrics(*pairs: tuple[str, str]) -> None:
    """Draws figures with their names."""
    shown = "".join(f"<div><dt>{escape(label)}</dt><dd>{text(value)}</dd></div>" for label, value in pairs)
    st.html(f'<dl class="ci-metrics">{shown}</dl>')


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> None:
    """Draws a table; the cells are HTML, and the columns of ``numbers`` end at the right."""

    def row(tag: str, cells: Sequence[str]) -> str:
        sides = (' class="ci-number"' if place in numbers else "" for place in range(len(cells)))
        return (
            "<tr>" + "".join(f"<{tag}{side}>{cell}</{tag}>" for cell, side in zip(cells, sides, strict=True)) + "</tr>"
        )

    body = "".join(row("td", cells) for cells in rows)
    head = row("th", [escape(column) for column in columns])
    st.html(f'<div class="ci-scroll"><table class="ci-table"><thead>{head}</thead><tbody>{body}</tbody></table></div>')


def bars(pairs: Iterable[tuple[str, float, str]]) -> str:
    """Returns bars as HTML: a text, a part from 0 to 1, and what it says."""
    return (
        '<div class="ci-bars">'
        + "".join(
            f'<div>{text(label)}<span class="ci-bar"><i style="width:{min(max(part, 0), 1):.0%}"></i></span>'
            f"<b>{escape(said)}</b></div>"
            for label, part, said in pairs
        )
        + "</div>"
    )


def chart(values: Sequence[dict[str, Any]], height: int, spec: dict[str, Any]) -> None:
    """Draws a chart (Vega-Lite) of values, whose texts are data in it and never names, expressions or URLs."""
    whole = {"data": {"values": list(values)}, "height": height, "autosize": {"type": "fit-x"}, **spec}
    st.vega_lite_chart(spec=whole, width="stretch")


def pager(state: str, next_cursor: str | None) -> None:
    """Draws what turns the pages of a list; the cursors of those before are kept under ``state``."""
    before: list[str] = st.session_state.setdefault(state, [])
    if not before and not next_cursor:
        return
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
        if st.button("Newer", key=f"{state}-newer", disabled=not before):
            before.pop()
            st.rerun()
        st.html(f'<span class="ci-note">Page {len(before) + 1}</span>')
        if st.button("Older", key=f"{state}-older", disabled=not next_cursor):
            before.append(str(next_cursor))
            st.rerun()


def leave_if_empty(state: str, data: Sequence[object]) -> None:
    """Goes to the page before if nothing is left on one that is not the first."""
    if not data and st.session_state.get(state):
        st.session_state[state].pop()
        st.rerun()


def cursor(state: str, *filters: object) -> str | None:
    """Returns the cursor of the page that a pager shows; other filters begin anew."""
    if st.session_state.get(f"{state}-filters") != filters:
        st.session_state[f"{state}-filters"] = filters
        st.session_state[state] = []
    before: list[str] = st.session_state.setdefault(state, [])
    return before[-1] if before else None
