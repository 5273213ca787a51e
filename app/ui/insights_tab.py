"""A conversation's insights beside it."""

from collections.abc import Sequence
from typing import Literal

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
    """Draws the insights, and what makes them; raises ``ApiError``."""
    place = st.container()
    known = _load(conversation_id, view.message_count)
    kind: Literal["primary", "secondary"]
    label, kind = ("Analyse again", "secondary") if known else ("Analyse", "primary")
    wanted = session.may(Role.EDITOR) and st.button(label, type=kind)
    with place:
        found = _make(conversation_id, view.message_count, force=bool(known)) if wanted else known
        if found is None:
            draw.empty("No insights yet", "They tell how the customer felt, and whether they got what they came for.")
            return
        quotes = analyses.Quotes(messages)
        analyses.insights(found, messages, quotes)
        quotes.buttons("insights", lambda message_id: history.go(conversation_id, message_id))


def _make(conversation_id: str, count: int, *, force: bool) -> Insights | None:
    try:
        with st.spinner("Reading the conversation ..."):
            made = session.client().analyze(conversation_id, force=force)
    except ApiError as error:
        problems.show(error)
        return None
    st.session_state[STATE] = (conversation_id, count, made)
    return made
