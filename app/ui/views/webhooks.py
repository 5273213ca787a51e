"""Webhooks: who is told what."""

import streamlit as st

from app.client import ApiError, NewWebhook, Webhook, WebhookEvent
from app.ui import draw, problems, session

STATE, NEW = "webhooks", "new-webhook"
EVENTS = [str(event) for event in WebhookEvent]


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


def _row(hook: Webhook) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False):
        state = "" if hook.enabled else draw.badge(f"disabled: {hook.disabled_reason or 'by hand'}", "bad")
        failing = draw.badge("failing", "warn") if hook.failing_since and not state else ""
        st.html(
            f'<div class="ci-item-head"><strong>{draw.name(hook.url)}</strong>{state}{failing}</div>'
            + draw.chips(hook.events)
        )
        if st.button("Delete", key=f"delete-{hook.id}"):
            session.client().delete_webhook(hook)
            st.rerun()


def _once(made: NewWebhook) -> None:
    draw.alert("good", "The webhook is made", "Copy its secret now: it is what its messages are signed with.")
    st.code(made.secret or "", language=None, wrap_lines=True)
    if st.button("I have copied it"):
        del st.session_state[NEW]
        st.rerun()


def show() -> None:
    """Draws the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        draw.title("Webhooks", "Addresses of yours that are told of events, signed (Standard Webhooks).")
        _make()
    if NEW in st.session_state:
        _once(st.session_state[NEW])
    page = session.client().webhooks(limit=20, cursor=draw.cursor(STATE))
    draw.leave_if_empty(STATE, page.data)
    if not page.data:
        draw.empty("No webhooks yet", "Make one to be told when a summary, insights or a job are there.")
    for hook in page.data:
        _row(hook)
    draw.pager(STATE, page.next_cursor)


show()
