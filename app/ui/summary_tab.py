"""A conversation's summary beside it, as it is written too."""

from collections.abc import Sequence

import streamlit as st

from app.client import ApiError, Message, Role, View
from app.ui import analyses, draw, history, problems, session

RATINGS = ("down", "up")


def summary_tab(conversation_id: str, view: View, messages: Sequence[Message]) -> None:
    """Draws the summary, and what makes it anew."""
    found = view.summary
    if view.written:
        st.html(
            f'<div class="ci-heading">Being written</div><p class="ci-summary ci-writing">{draw.text(view.written)}</p>'
        )
    if view.error:
        heading, *advice = problems.explain(view.error)
        draw.alert("warning", heading, *advice)
    if found:
        quotes = analyses.Quotes(messages)
        analyses.summary(found, quotes)
        quotes.buttons("summary", lambda message_id: history.go(conversation_id, message_id))
    elif not view.written:
        draw.empty("No summary yet", "It is made when somebody asks, and again two seconds after new messages.")
    with st.container(horizontal=True, vertical_alignment="center"):
        if session.may(Role.EDITOR):
            label = "Summarise again" if found else "Summarise"
            # What is asked for on the socket is told there as it is written.
            wanted = st.button(label, type="secondary" if found else "primary", disabled=view.state != "live")
            if wanted and not session.follow(conversation_id).summarize():
                st.toast("Not connected: try again.")
        if found:
            _rating(conversation_id, str(found.updated_at))


def _rating(conversation_id: str, version: str) -> None:
    key = f"rating-{version}"

    def rate() -> None:
        choice = st.session_state.get(key)
        if choice is None:
            return
        try:
            session.client().rate(conversation_id, RATINGS[choice])
            st.session_state["rated"] = key
        except ApiError as error:
            st.session_state["rated"] = error

    st.feedback("thumbs", key=key, on_change=rate)
    said = st.session_state.get("rated")
    if said == key:
        st.html('<span class="ci-note" role="status">Thank you: it is kept with this version.</span>')
    elif isinstance(said, ApiError):
        draw.alert("bad", *problems.explain(said))
