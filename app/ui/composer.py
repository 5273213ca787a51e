"""Writing into a conversation, as either side."""

import time
from dataclasses import dataclass
from uuid import uuid4

import streamlit as st

from app.client import ApiError, UserType, View
from app.ui import draw, problems, session

SIDES = {UserType.CUSTOMER: "Customer", UserType.SUPPORT_AGENT: "Agent"}
SEEN_S = 1.5
"""How long the page waits for what was written to come back."""


@dataclass(frozen=True)
class Draft:
    """A message to be sent; ``before`` is how many there were when it was written."""

    id: str
    conversation_id: str
    sender: str
    side: UserType
    text: str
    before: int


def show(conversation_id: str, view: View) -> None:
    """Draws what is written with."""
    with st.container(horizontal=True, vertical_alignment="top"):
        side = st.segmented_control(
            "Write as",
            list(SIDES),
            default=UserType.CUSTOMER,
            format_func=lambda each: SIDES[each],
            key="side",
            required=True,
        )
        known = [m["user_id"] for m in view.messages if m["user_type"] == side]
        usual = known[0] if known else ("customer" if side == UserType.CUSTOMER else "agent")
        sender = st.text_input("Who", value=usual, max_chars=255, key=f"sender-{conversation_id}-{side}")
    st.chat_input(
        "Write a message",
        key="message",
        max_chars=100_000,
        on_submit=_written,
        args=(conversation_id, sender.strip() or usual, side or UserType.CUSTOMER, view.message_count),
    )
    for message, error in _unsent().items():
        if message.conversation_id == conversation_id:
            heading, *advice = problems.explain(error)
            draw.alert("bad", f"Not sent: {heading}", *advice, message.text)
            with st.container(horizontal=True):
                st.button("Send again", key=f"again-{message.id}", on_click=_send, args=(message,))
                st.button("Discard", key=f"discard-{message.id}", on_click=_discard, args=(message,))


def _unsent() -> dict[Draft, ApiError]:
    """Returns what could not be sent, and why."""
    found: dict[Draft, ApiError] = st.session_state.setdefault("unsent", {})
    return found


def _discard(message: Draft) -> None:
    del _unsent()[message]


def _written(conversation_id: str, sender: str, side: UserType, before: int) -> None:
    if text := st.session_state.get("message"):
        _send(Draft(str(uuid4()), conversation_id, sender, side, str(text), before))


def _send(message: Draft) -> None:
    try:
        # It may have been stored without our hearing of it: by its id it is stored once, however often it is sent.
        session.client().send(message.conversation_id, message.sender, message.side, message.text, message.id)
    except ApiError as error:
        _unsent()[message] = error
        return
    _unsent().pop(message, None)
    follower = session.follow(message.conversation_id)
    if follower.look().state == "refused":  # it was not there before
        session.unfollow()
        return
    waited = time.monotonic() + SEEN_S
    while follower.look().message_count <= message.before and time.monotonic() < waited:
        time.sleep(0.02)
