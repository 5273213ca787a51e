"""A conversation as a chat."""

from collections.abc import Sequence

import streamlit as st

from app.client import Message
from app.ui import draw

TOGETHER = 20
"""How many messages are one element of the page: those before stay as they are when others come."""


def bubble(message: Message, hit: str = "") -> str:
    """Returns a message as HTML."""
    side = "agent" if message["user_type"] == "support_agent" else "customer"
    marked = " ci-hit" if message["message_id"] == hit else ""
    return (
        f'<div class="ci-msg ci-{side}{marked}" id="{draw.anchor(message["message_id"])}">'
        f'<div class="ci-msg-head">{draw.name(message["user_id"])} · {side} · {draw.when(message["timestamp"])}</div>'
        f'<div class="ci-msg-text">{draw.text(message["message_content"])}</div></div>'
    )


def show(messages: Sequence[Message], key: str, *, hit: str = "", follow: bool = True) -> None:
    """Draws messages in a box that scrolls, at its end if ``follow``."""
    with st.container(height=540, key=key, autoscroll=follow, border=True, gap=None):
        if not messages:
            draw.empty("No messages yet", "Write the first one below.")
        for first in range(0, len(messages), TOGETHER):
            st.html("".join(bubble(message, hit) for message in messages[first : first + TOGETHER]))
