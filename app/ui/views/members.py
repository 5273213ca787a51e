"""Who belongs to the workspace, and its settings."""

import streamlit as st

from app.client import ApiError, Member, Role
from app.ui import draw, problems, session

STATE, REDACT, CHANGED = "members", "redact", "redact-changed"


def _invite() -> None:
    with st.popover("Invite", icon=":material/person_add:"), st.form("invite", border=False, clear_on_submit=True):
        email = st.text_input("E-mail address", placeholder="bob@example.com", max_chars=254)
        role = st.selectbox("Role", [str(each) for each in Role])
        if st.form_submit_button("Invite", type="primary"):
            try:
                session.client().invite(email.strip(), role)
            except ApiError as error:
                problems.show(error)
            else:
                st.rerun()


def _row(member: Member) -> None:
    invited = f"invited until {draw.when(member.invitation_expires_at)}"
    since = f"joined {draw.when(member.joined_at)}" if member.joined_at else invited
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False, key=f"member-{member.id}"):
        st.html(
            f'<div class="ci-item-head"><strong>{draw.name(member.name or member.email)}</strong>'
            f"{draw.badge(member.role)}{draw.badge('invited', 'warn') if member.joined_at is None else ''}</div>"
            f'<div class="ci-note">{draw.name(member.email)} · {since}</div>'
        )
        with st.popover("Change"):
            roles = [str(each) for each in Role]
            role = st.selectbox("Role", roles, index=roles.index(member.role), key=f"role-{member.id}")
            if st.button("Give this role", key=f"change-{member.id}", width="stretch", disabled=role == member.role):
                session.client().change_member(member, role)
                st.rerun()
            if st.button(
                "Remove", key=f"remove-{member.id}", width="stretch", help="Their keys and sessions go along."
            ):
                session.client().remove_member(member)
                st.rerun()


def _settings() -> None:
    st.html('<div class="ci-heading">Settings</div>')
    # A widget remembers what it was: another admin may have changed it since.
    st.session_state[REDACT] = session.client().workspace().redact
    st.toggle("Providers of models see placeholders for addresses, numbers and ids", key=REDACT, on_change=_redact)
    if (said := st.session_state.pop(CHANGED, None)) is None:
        return
    if isinstance(said, ApiError):
        problems.show(said)
    else:
        draw.alert("good", "Changed", "It holds from the next call on.")


def _redact() -> None:
    st.session_state[CHANGED] = True
    try:
        session.client().set_redaction(redact=st.session_state[REDACT])
    except ApiError as error:
        st.session_state[CHANGED] = error


def show() -> None:
    """Draws the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        draw.title("Members", "People who sign in with Google or GitHub.")
        _invite()
    page = session.client().members(limit=20, cursor=draw.cursor(STATE))
    draw.leave_if_empty(STATE, page.data)
    if not page.data:
        draw.empty("No members yet", "Invite somebody by the e-mail address that Google or GitHub knows them by.")
    for member in page.data:
        _row(member)
    draw.pager(STATE, page.next_cursor)
    _settings()


show()
