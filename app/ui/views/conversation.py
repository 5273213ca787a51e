"""A conversation as a chat, live, with what was made of it beside it."""

import streamlit as st

from app.client import Role, View
from app.ui import chat, composer, draw, history, problems, session
from app.ui.insights_tab import insights_tab
from app.ui.summary_tab import summary_tab

ABSENT = 404
PATIENCE_S = 2.0
"""How long the first drawing waits for the conversation."""


def _head(conversation_id: str, view: View) -> None:
    states = {"live": ("live", "good"), "connecting": ("connecting ...", "warn"), "deleted": ("deleted", "bad")}
    label, tone = states.get(view.state, ("not live", "warn"))
    found = view.summary
    count = f"{view.message_count:,} message{'s' if view.message_count != 1 else ''}" if view.loaded else ""
    st.html(
        f'<div class="ci-item-head"><h1 class="ci-title">{draw.name(conversation_id)}</h1>{draw.badge(label, tone)}'
        f"{draw.labels(found.sentiment, found.outcome) if found else ''}"
        f'<span class="ci-note">{count}</span></div>'
    )


def _ended(conversation_id: str, view: View) -> bool:
    """Draws why there is nothing to follow, and says whether that is so."""
    if view.state == "deleted":
        draw.alert("warning", "This conversation was deleted", "Everything that was made from it went with it.")
        st.page_link("views/conversations.py", label="All conversations", icon=":material/arrow_back:")
        return True
    if view.state != "refused" or view.error is None:
        return False
    if view.error.status == ABSENT and session.may(Role.EDITOR):
        draw.empty("There is no such conversation yet", "It begins with the first message.")
        composer.show(conversation_id, view)
        return True
    problems.show(view.error)
    st.button("Try again", on_click=session.unfollow)
    return True


@st.fragment(run_every=1.0)
def _live(conversation_id: str) -> None:
    with problems.told():
        _draw(conversation_id, session.follow(conversation_id).wait(PATIENCE_S))


def _draw(conversation_id: str, view: View) -> None:
    _head(conversation_id, view)
    if _ended(conversation_id, view):
        return
    if view.trouble:
        draw.alert("warning", *problems.explain(view.trouble))
    if not view.loaded:
        draw.empty("Loading ...", "The conversation is asked for again and again until it comes.")
        return
    part = history.shown(conversation_id)
    messages = part.load() if part else view.messages
    left, right = st.columns([1.25, 1], gap="large")
    with left, st.container(key="chat-side"):
        if part:
            history.draw_part(part, messages)
        else:
            if len(view.messages) < view.message_count:
                note = f"The newest {len(view.messages):,} of {view.message_count:,} messages."
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.html(f'<span class="ci-note">{note}</span>')
                    st.button("From the beginning", on_click=history.go, args=(conversation_id,))
            chat.show(view.messages, "chat")
            if session.may(Role.EDITOR):
                composer.show(conversation_id, view)
    with right:
        first, second = st.tabs(["Summary", "Insights"])
        with first:
            summary_tab(conversation_id, view, messages)
        with second:
            insights_tab(conversation_id, view, messages)


def show() -> None:
    """Draws the page."""
    conversation_id = st.query_params.get("id", "")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.page_link("views/conversations.py", label="All conversations", icon=":material/arrow_back:")
        if conversation_id and session.may(Role.ADMIN):
            with st.popover("Delete", icon=":material/delete:"):
                st.html("<p>Every message goes, and everything that was made from them. It cannot be undone.</p>")
                if st.button("Delete the conversation", type="primary"):
                    session.client().delete_conversation(conversation_id)
                    st.switch_page("views/conversations.py")
    if not conversation_id:
        draw.empty("No conversation is chosen", "Open one from the list.")
        return
    _live(conversation_id)


show()
