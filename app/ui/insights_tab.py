"""A conversation's insights beside it."""

from collections.abc import Sequence

import streamlit as st

from app.client import ApiError, Insights, Message, Role, View
from app.ui import analyses, draw, history, problems, session

STATE = "insights"
ABSENT = 404


def _load(conversation_id: str, count: int) -> Insights | None:
    """Returns the insights that are stored; they are asked for again when messages have come."""
    known = st.session_state.get(STATE)
    if known and known[:2] == (conversation_id, count):
        found: Insights | None = known[2]
        return found
    try:
        found = session.client().insights(conversation_id)
    except ApiError as error:
        if error.status != ABSENT:
            raise
        found = None
    st.session_state[STATE] = (conversation_id, count, found)
    return found


def insights_tab(conversation_id: str, view: View, messages: Sequence[Message]) -> None:
    """Draws the insights, and what makes them."""
    try:
        found = _load(conversation_id, view.message_count)
        if found:
            quotes = analyses.Quotes(messages)
            analyses.insights(found, messages, quotes)
            quotes.buttons("insights", lambda message_id: history.go(conversation_id, message_id))
        else:
            draw.empty("No insights yet", "They tell how the customer felt, and whether they got what they came for.")
        if session.may(Role.EDITOR) and st.button(
            "Analyse again" if found else "Analyse", type="secondary" if found else "primary"
        ):
            with st.spinner("Reading the conversation ..."):
                made = session.client().analyze(conversation_id, force=bool(found))
            st.session_state[STATE] = (conversation_id, view.message_count, made)
            st.rerun()
    except ApiError as error:
        problems.show(error)
