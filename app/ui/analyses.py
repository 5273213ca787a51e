"""Summaries and insights as they are drawn, each statement with the words that it rests on."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

import streamlit as st

from app.client import Analysis, CustomerEffort, EscalationRisk, Evidence, Insights, Item, Message, Summary
from app.ui import draw

LEVELS = {"low": "good", "medium": "warn", "high": "bad"}


class Quotes:
    """Leads from evidence to messages: by a link if the message is on the page, otherwise by a button below."""

    def __init__(self, shown: Iterable[Message]) -> None:
        self._shown = {message["message_id"] for message in shown}
        self.elsewhere: dict[str, str] = {}

    def quote(self, evidence: Evidence) -> str:
        """Returns a quote as HTML."""
        said = f"“{draw.text(evidence.quote)}”"
        if evidence.message_id in self._shown:
            return f'<a class="ci-quote" href="#{draw.anchor(evidence.message_id)}">{said}</a>'
        self.elsewhere.setdefault(evidence.message_id, evidence.quote)
        return f'<span class="ci-quote">{said}</span>'

    def item(self, item: Item, *badges: str) -> str:
        """Returns a statement with its evidence as HTML."""
        marks = [*badges, *([] if item.verified else [draw.badge("not verified", "warn")])]
        return f"<li>{draw.text(item.text)} {' '.join(marks)}{''.join(map(self.quote, item.evidence))}</li>"

    def buttons(self, state: str, go: Callable[[str], None]) -> None:
        """Draws what leads to quoted messages that are not on the page."""
        if not self.elsewhere:
            return
        with st.expander(f"Quoted messages that are not on this page: {len(self.elsewhere)}"):
            for place, (message_id, said) in enumerate(list(self.elsewhere.items())[:20]):
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.html(f'<span class="ci-quote">“{draw.text(said)}”</span>')
                    st.button("Show", key=f"{state}-{place}", on_click=go, args=(message_id,))


def _section(heading: str, content: str) -> str:
    return f'<div class="ci-heading">{escape(heading)}</div>{content}' if content else ""


def _points(items: Sequence[str]) -> str:
    return f'<ul class="ci-points">{"".join(items)}</ul>' if items else ""


def summary(found: Summary, quotes: Quotes) -> None:
    """Draws a summary."""
    actions = [
        quotes.item(
            item,
            *([draw.badge(f"owner: {item.owner}")] if item.owner else []),
            *([draw.badge(f"due: {item.due}", "warn")] if item.due else []),
        )
        for item in found.action_items
    ]
    questions = [
        quotes.item(each, draw.badge(each.status, "good" if each.status == "answered" else "bad"))
        for each in found.questions
    ]
    stale = draw.badge("messages came after it", "warn") if found.stale else ""
    st.html(
        f'<p class="ci-badges">{draw.labels(found.sentiment, found.outcome)} {stale}</p>'
        f'<p class="ci-summary">{draw.text(found.summary)}</p>'
        + _section("Action items", _points(actions))
        + _section("Decisions", _points([quotes.item(item) for item in found.decisions]))
        + _section("Questions", _points(questions))
        + _section("Keywords", draw.chips(found.keywords) if found.keywords else "")
        + _changes(found)
        + _origin(found)
    )


def _changes(found: Summary) -> str:
    if not found.changes:
        return ""
    said = (("opened", "warn"), ("closed", "good"), ("changed", ""))
    points = [
        f"<li>{draw.badge(kind, tone)} {draw.text(change.text)}</li>"
        for kind, tone in said
        for change in getattr(found.changes, kind)
    ]
    return _section("Since the summary before", _points(points))


def _origin(found: Analysis) -> str:
    by, read = found.provenance, found.coverage
    lines = [
        f"{by.model} in {by.latency_ms:,} ms for ${by.cost_usd:.4f}, {draw.when(found.updated_at)}.",
        *([] if read.complete else [f"It read {read.messages_read:,} of {read.messages_total:,} messages."]),
        *(f"{fallback.model} did not answer: {fallback.reason}." for fallback in by.fallbacks),
    ]
    return f'<p class="ci-note">{draw.text(" ".join(lines))}</p>'


def insights(found: Insights, messages: Sequence[Message], quotes: Quotes) -> None:
    """Draws insights: the feeling and its course, the outcome, and what else they tell."""
    feeling, outcome = found.sentiment, found.outcome
    stale = draw.badge("messages came after it", "warn") if found.stale else ""
    st.html(
        f'<p class="ci-badges">{draw.labels(feeling.label, outcome.label)} {stale}</p>'
        + _section("Outcome", f"<p>{draw.text(outcome.reason)}</p>" + "".join(map(quotes.quote, outcome.evidence)))
        + _section("Resolution", f"<p>{draw.text(found.resolution)}</p>" if found.resolution else "")
        + '<div class="ci-heading">The customer\'s feeling, message by message</div>'
    )
    _course(found, messages)
    people = [
        (f"{each.user_id} ({each.user_type.replace('support_', '')})", (each.score + 1) / 2, f"{each.score:+.2f}")
        for each in feeling.by_participant
    ]
    st.html(
        _section("By participant, from -1 to 1", draw.bars(people) if people else "")
        + _effort(found.customer_effort, quotes)
        + _risk(found.escalation_risk, quotes)
        + _section("Topics", draw.chips(found.topics) if found.topics else "")
        + _section("Keywords", draw.bars([(each.text, each.score, f"{each.score:.2f}") for each in found.keywords]))
        + _origin(found)
    )


def _effort(found: CustomerEffort | None, quotes: Quotes) -> str:
    if found is None:
        return ""
    said = f"{draw.badge(found.label, LEVELS.get(found.label, ''))} {draw.text(found.reason)}"
    return _section("Customer effort", said + "".join(map(quotes.quote, found.evidence)))


def _risk(found: EscalationRisk | None, quotes: Quotes) -> str:
    if found is None:
        return ""
    return _section(
        "Escalation risk",
        draw.badge(found.label, LEVELS.get(found.label, "")) + _points([quotes.item(item) for item in found.reasons]),
    )


def _course(found: Insights, messages: Sequence[Message]) -> None:
    said = {message["message_id"]: message["message_content"] for message in messages}
    values = [
        {
            "number": number,
            "score": round(point.score, 3),
            "time": draw.when(point.timestamp),
            "said": said.get(point.message_id, "")[:80],
        }
        for number, point in enumerate(found.sentiment.timeline, 1)
    ]
    if not values:
        draw.empty("No course to show", "The customer has not written enough.")
        return
    tooltip = [
        {"field": "time", "title": "When"},
        {"field": "score", "title": "Score"},
        {"field": "said", "title": "Said"},
    ]
    score = {"domain": [-1, 1]}
    draw.chart(
        values,
        170,
        {
            "layer": [
                {"mark": {"type": "rule", "strokeDash": [4, 4], "color": "#8a93a6"}, "encoding": {"y": {"datum": 0}}},
                {
                    "mark": {"type": "line", "point": {"size": 60}},
                    "encoding": {
                        "x": {
                            "field": "number",
                            "type": "quantitative",
                            "title": "Customer's message",
                            "axis": {"tickMinStep": 1, "format": "d", "grid": False},
                        },
                        "y": {"field": "score", "type": "quantitative", "title": None, "scale": score},
                        "tooltip": tooltip,
                    },
                },
            ]
        },
    )
