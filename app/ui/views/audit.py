"""The audit log."""

import orjson
import streamlit as st

from app.ui import draw, session

STATE = "audit"


def show() -> None:
    """Draws the page."""
    draw.title("Audit log", "Sign-ins, denials, changes and deletions, newest first. Nobody can change an entry.")
    with st.container(horizontal=True):
        action = st.text_input("Action", placeholder="key.created", max_chars=64, key="audit-action").strip()
        actor = st.text_input("Actor", placeholder="key:2893478923478923", max_chars=64, key="audit-actor").strip()
        deleted = st.text_input("Deleted conversation", placeholder="its id", max_chars=255, key="audit-conversation")
    query = {"action": action, "actor": actor, "conversation_id": deleted.strip()}
    page = session.client().audit(limit=50, cursor=draw.cursor(STATE, *query.items()), **query)
    draw.leave_if_empty(STATE, page.data)
    if not page.data:
        draw.empty("No entries", "Take a filter away." if any(query.values()) else "What happens will stand here.")
        return
    draw.table(
        ["When", "Actor", "Action", "What", "Details"],
        [
            (
                f'<span style="white-space:nowrap">{draw.when(entry.created_at)}</span>',
                draw.text(entry.actor),
                f'<span style="white-space:nowrap">{draw.text(entry.action)}</span>',
                draw.text(entry.target or draw.NOTHING),
                draw.text(orjson.dumps(entry.details).decode() if entry.details else draw.NOTHING),
            )
            for entry in page.data
        ],
    )
    draw.pager(STATE, page.next_cursor)


show()
