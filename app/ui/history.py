"""A long conversation, a part at a time: what leads to a message that is not among the newest."""

import streamlit as st

from app.client import ConversationPage
from app.ui import chat, session

STATE = "history"
SIZE = 200
"""How many messages a part has."""


class History:
    """Which part of a conversation is shown: the cursors up to it, and the message that was looked for."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.cursors: list[str | None] = [None]
        self.hit = ""

    def load(self) -> ConversationPage:
        """Returns the part."""
        return session.client().conversation(self.conversation_id, limit=SIZE, cursor=self.cursors[-1])

    def find(self, message_id: str) -> None:
        """Goes to the part with a message, or to the last one if the message is gone."""
        self.cursors, self.hit = [None], message_id
        while True:
            page = self.load()
            if not page["has_more"] or any(message["message_id"] == message_id for message in page["messages"]):
                return
            self.cursors.append(page["next_cursor"])


def shown(conversation_id: str) -> History | None:
    """Returns the part of a conversation that is shown in place of its newest messages."""
    found: History | None = st.session_state.get(STATE)
    return found if found and found.conversation_id == conversation_id else None


def go(conversation_id: str, message_id: str = "") -> None:
    """Shows the part with a message, or the first one."""
    history = History(conversation_id)
    if message_id:
        history.find(message_id)
    st.session_state[STATE] = history
    st.rerun()


def draw_part(history: History, page: ConversationPage) -> None:
    """Draws a part, and what turns to the next."""
    messages = page["messages"]
    place = next((n for n, message in enumerate(messages) if message["message_id"] == history.hit), 0)
    if place > 2:  # the box begins with what was looked for
        with st.expander(f"{place - 2} messages before"):
            chat.show(messages[: place - 2], "chat-before", follow=False)
        messages = messages[place - 2 :]
    chat.show(messages, f"chat-part-{len(history.cursors)}", hit=history.hit, follow=False)
    with st.container(horizontal=True):
        if st.button("Earlier", disabled=len(history.cursors) < 2):
            history.cursors.pop()
            history.hit = ""
            st.rerun()
        if st.button("Later", disabled=not page["has_more"]):
            history.cursors.append(page["next_cursor"])
            history.hit = ""
            st.rerun()
        if st.button("Newest, live", type="primary"):
            del st.session_state[STATE]
            st.rerun()
