"""Writing into a conversation, as either side."""

import time

import streamlit as st

from app.client import ApiError, UserType, View
from app.ui import draw, problems, session

SIDES = {UserType.CUSTOMER: "Customer", UserType.SUPPORT_AGENT: "Agent"}
SEEN_S = 1.5
"""How long the page waits for what was written to come back."""


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
        on_submit=_send,
        args=(conversation_id, sender.strip() or usual, side or UserType.CUSTOMER, view.message_count),
    )
    if error := st.session_state.pop("unsent", None):
        heading, *advice = problems.explain(error)
        draw.alert("bad", f"Not sent: {heading}", *advice)


def _send(conversation_id: str, sender: str, side: UserType, before: int) -> None:
    written = st.session_state.get("message")
    if not written:
        return
    try:
        session.client().send(conversation_id, sender, side, str(written))
    except ApiError as error:
        st.session_state["unsent"] = error
        return
    follower = session.follow(conversation_id)
    if follower.look().state == "refused":  # it was not there before
        session.unfollow()
        return
    waited = time.monotonic() + SEEN_S
    while follower.look().message_count <= before and time.monotonic() < waited:
        time.sleep(0.02)
