"""A long conversation, a part at a time: what leads to a message that is not among the newest."""

import streamlit as st

from app.client import ApiError, ConversationPage
from app.ui import chat, problems, session

STATE, TROUBLE = "history", "history-trouble"
SIZE = 200
"""How many messages a part has."""


class History:
    """Which part of a conversation is shown: the cursors up to it, and the message that was looked for."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.cursors: list[str | None] = [None]
        self.hit = ""
        self._loaded: tuple[str | None, ConversationPage] | None = None

    def load(self) -> ConversationPage:
        """Returns the part; it is asked for once, however often it is drawn."""
        if self._loaded is None or self._loaded[0] != self.cursors[-1]:
            page = session.client().conversation(self.conversation_id, limit=SIZE, cursor=self.cursors[-1])
            self._loaded = self.cursors[-1], page
        return self._loaded[1]

    def turn(self, later: str | None) -> None:
        """Goes to the part that begins at a cursor, or to the one before."""
        self.cursors = [*self.cursors, later] if later else self.cursors[:-1]
        self.hit = ""

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
    """Shows the part with a message, or the first one, when the page is drawn next."""
    history = History(conversation_id)
    try:
        if message_id:
            history.find(message_id)
    except ApiError as error:
        st.session_state[TROUBLE] = error
        return
    st.session_state[STATE] = history


def newest() -> None:
    """Shows the newest messages again."""
    del st.session_state[STATE]


def trouble() -> None:
    """Draws what kept a message from being found."""
    if error := st.session_state.pop(TROUBLE, None):
        problems.show(error)


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
        st.button("Earlier", disabled=len(history.cursors) < 2, on_click=history.turn, args=(None,))
        st.button("Later", disabled=not page["has_more"], on_click=history.turn, args=(page["next_cursor"],))
        st.button("Newest, live", type="primary", on_click=newest)
