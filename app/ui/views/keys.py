"""API keys: who has one, made, replaced, ended."""

from datetime import UTC, datetime, timedelta

import streamlit as st

from app.client import ApiError, Key, NewKey, Role
from app.ui import draw, problems, session

STATE = "keys"
NEW = "new-key"
LASTS = {"Never ends": None, "30 days": 30, "90 days": 90, "1 year": 365}


def _make() -> None:
    with st.popover("New key", icon=":material/add:"), st.form("key", border=False, clear_on_submit=True):
        name = st.text_input("What it is for", placeholder="checkout service", max_chars=255)
        role = st.selectbox("Role", [str(each) for each in Role])
        lasts = st.selectbox("Ends after", list(LASTS))
        if st.form_submit_button("Make the key", type="primary"):
            days = LASTS[lasts]
            ends = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" if days else None
            try:
                st.session_state[NEW] = session.client().make_key(name.strip(), role, ends)
            except ApiError as error:
                problems.show(error)
            else:
                st.rerun()


def _once(made: NewKey) -> None:
    draw.alert("good", f"The key {made.name} is made", "Copy it now: it is shown this once, and stored as a hash only.")
    st.code(made.key, language=None, wrap_lines=True)
    if st.button("I have copied it"):
        del st.session_state[NEW]
        st.rerun()


def _row(key: Key) -> None:
    ended = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    ends = f" · ends {draw.when(key.expires_at)}" if key.expires_at else ""
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False, key=f"key-{key.id}"):
        st.html(
            f'<div class="ci-item-head"><strong>{draw.name(key.name)}</strong>{draw.badge(key.role)}'
            f"{draw.badge('ended', 'bad') if ended else ''}</div>"
            f'<div class="ci-note">Made {draw.when(key.created_at)} · last used'
            f" {draw.when(key.last_used_at, never='never')}{ends} · {draw.name(key.id)}</div>"
        )
        with st.popover("Change"):
            if st.button(
                "Replace it", key=f"rotate-{key.id}", help="The old one works for another day.", width="stretch"
            ):
                st.session_state[NEW] = session.client().rotate_key(key)
                st.rerun()
            if st.button(
                "Delete it", key=f"delete-{key.id}", help="Refused everywhere within 5 seconds.", width="stretch"
            ):
                session.client().delete_key(key)
                st.rerun()


def show() -> None:
    """Draws the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        draw.title("API keys", "For your servers: each with a role, and an end if wanted.")
        _make()
    if NEW in st.session_state:
        _once(st.session_state[NEW])
    page = session.client().keys(limit=20, cursor=draw.cursor(STATE))
    draw.leave_if_empty(STATE, page.data)
    if not page.data:
        draw.empty("No keys yet", "Make one for whatever is to send or read conversations.")
    for key in page.data:
        _row(key)
    draw.pager(STATE, page.next_cursor)


show()
