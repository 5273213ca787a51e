"""Webhooks: who is told what."""

from typing import Any

import streamlit as st

from app.client import ApiError
from app.ui import draw, problems, session

NEW = "new-webhook"
EVENTS = ["summary.created", "insights.created", "conversation.deleted", "job.finished", "question.unanswered"]


def _make() -> None:
    with st.popover("New webhook", icon=":material/add:"), st.form("webhook", border=False):
        url = st.text_input("URL", placeholder="https://example.com/hook", max_chars=2_000)
        events = st.multiselect("Events", EVENTS, default=EVENTS)
        if st.form_submit_button("Make it", type="primary"):
            try:
                st.session_state[NEW] = session.client().make_webhook(url.strip(), events)
            except ApiError as error:
                problems.show(error)
            else:
                st.rerun()


def _row(hook: dict[str, Any]) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False):
        state = (
            ""
            if hook.get("enabled", True)
            else draw.badge(f"disabled: {hook.get('disabled_reason') or 'by hand'}", "bad")
        )
        failing = draw.badge("failing", "warn") if hook.get("failing_since") and not state else ""
        st.html(
            f'<div class="ci-item-head"><strong>{draw.name(str(hook.get("url", "")))}</strong>{state}{failing}</div>'
            + draw.chips(map(str, hook.get("events") or []))
        )
        if st.button("Delete", key=f"delete-{hook.get('id')}"):
            session.client().delete_webhook(str(hook.get("id")))
            st.rerun()


def show() -> None:
    """Draws the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        draw.title("Webhooks", "Addresses of yours that are told of events, signed (Standard Webhooks).")
        _make()
    if made := st.session_state.get(NEW):
        draw.alert("good", "The webhook is made", "Copy its secret now: it is what its messages are signed with.")
        st.code(str(made.get("secret", "")), language=None, wrap_lines=True)
        if st.button("I have copied it"):
            del st.session_state[NEW]
            st.rerun()
    hooks = session.client().webhooks().get("data") or []
    if not hooks:
        draw.empty("No webhooks yet", "Make one to be told when a summary, insights or a job are there.")
    for hook in hooks:
        _row(hook)


show()
