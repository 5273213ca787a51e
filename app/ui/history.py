"""A long conversation, a part at a time: what leads to a message that is not among the newest."""

import itertools
from collections.abc import Sequence

import streamlit as st

from app.client import ApiError, ConversationPage, Message, beginning
from app.ui import chat, draw, problems, session

STATE = "history"
SIZE, LOADED = 200, 1_000
"""How many messages a part has, and how many are asked for at once: several parts."""


class History:
    """Which part of a conversation is shown: the place of its first message, and the message that is looked for."""

    def __init__(self, conversation_id: str, wanted: str = "") -> None:
        self.conversation_id = conversation_id
        self.first = 0
        self.hit = ""
        self.notice: tuple[str, ...] = ()
        self._wanted = wanted
        self._cursors: list[str | None] = [None]
        self._loaded: tuple[int, ConversationPage] | None = None

    def load(self) -> list[Message]:
        """Returns the messages of the part; they are asked for once, however often they are drawn."""
        if self._wanted:
            wanted, self._wanted = self._wanted, ""
            with st.spinner("Looking for the message ..."):
                self._find(wanted)
        start = self.first % LOADED
        return self._load(self.first // LOADED)["messages"][start : start + SIZE]

    def more(self) -> bool:
        """Says whether there are later messages."""
        page = self._load(self.first // LOADED)
        return page["has_more"] or self.first % LOADED + SIZE < len(page["messages"])

    def turn(self, messages: int) -> None:
        """Goes so many messages on, or back."""
        self.first += messages
        self.hit, self.notice = "", ()

    def _load(self, number: int) -> ConversationPage:
        if self._loaded is None or self._loaded[0] != number:
            page = session.client().conversation(self.conversation_id, limit=LOADED, cursor=self._cursors[number])
            page["messages"] = list(map(beginning, page["messages"]))
            self._cursors[number + 1 :] = [page["next_cursor"]]
            self._loaded = number, page
        return self._loaded[1]

    def _find(self, message_id: str) -> None:
        """Goes to the part with a message, or as far as that leads."""
        self._load(0)
        try:
            for number in itertools.count():
                page = self._load(number)
                self.first = number * LOADED
                ids = [message["message_id"] for message in page["messages"]]
                if message_id in ids:
                    self.first += ids.index(message_id) // SIZE * SIZE
                    self.hit = message_id
                    return
                if not page["has_more"]:
                    break
        except ApiError as error:
            self.notice = problems.explain(error)
            return
        self.notice = "The message is not there any more", "This is the end of the conversation."


def shown(conversation_id: str) -> History | None:
    """Returns the part of a conversation that is shown in place of its newest messages."""
    found: History | None = st.session_state.get(STATE)
    return found if found and found.conversation_id == conversation_id else None


def go(conversation_id: str, message_id: str = "") -> None:
    """Shows the part with a message, or the first one, when the page is drawn next."""
    st.session_state[STATE] = History(conversation_id, message_id)


def newest() -> None:
    """Shows the newest messages again."""
    del st.session_state[STATE]


def draw_part(history: History, messages: Sequence[Message]) -> None:
    """Draws a part, and what turns to the next."""
    if history.notice:
        draw.alert("warning", *history.notice)
    place = next((n for n, message in enumerate(messages) if message["message_id"] == history.hit), 0)
    if place > 2:  # the box begins with what was looked for
        with st.expander(f"{place - 2} messages before"):
            chat.show(messages[: place - 2], "chat-before", follow=False)
        messages = messages[place - 2 :]
    chat.show(messages, f"chat-part-{history.first}", hit=history.hit, follow=False)
    with st.container(horizontal=True):
        st.button("Earlier", disabled=history.first == 0, on_click=history.turn, args=(-SIZE,))
        st.button("Later", disabled=not history.more(), on_click=history.turn, args=(SIZE,))
        st.button("Newest, live", type="primary", on_click=newest)
