"""Signing in: with a key, or with a provider through the API."""

from html import escape
from urllib.parse import urlsplit

import streamlit as st

from app.client import ApiError
from app.ui import draw, problems, session

BACK = "/ui"
"""The API's own path that leads to this interface: where a sign-in ends."""


def show() -> None:
    """Draws the sign-in."""
    _, middle, _ = st.columns([1, 1.4, 1])
    with middle:
        st.html('<h1 class="ci-title">Chat insights</h1><p class="ci-note">Sign in to your workspace.</p>')
        if notice := st.session_state.pop("notice", None):
            draw.alert("info", notice)
        with st.form("key", border=True):
            key = st.text_input("API key", type="password", placeholder="ck_...", autocomplete="off")
            wanted = st.form_submit_button("Sign in", type="primary", width="stretch")
        if wanted:
            _sign_in(key.strip())
        _providers()
        st.html(
            '<p class="ci-note">The key stays in the memory of this browser\'s session at the server, and goes with it.'
            " ./scripts/run puts one for the sample data into <code>.data/admin_key</code>.</p>"
        )


def _sign_in(key: str) -> None:
    if not key:
        draw.alert("warning", "Enter an API key", "An admin of your workspace can make one for you.")
        return
    try:
        session.sign_in(key)
    except ApiError as error:
        if error.status != session.UNAUTHENTICATED:
            problems.show(error)
            return
        draw.alert(
            "bad", "This key does not work", "It may be mistyped, expired or deleted. Ask an admin for a new one."
        )
        return
    st.rerun()


def _providers() -> None:
    try:
        places = session.anonymous().providers().data
    except ApiError as error:
        problems.show(error)
        return
    if not places:
        return
    here = urlsplit(session.place().ui_url)
    if urlsplit(st.context.url or session.place().ui_url).netloc != here.netloc:
        draw.alert(
            "info", "To sign in with Google or GitHub, open this page at its own address", session.place().ui_url
        )
        return
    if any(urlsplit(place.login_url).hostname != here.hostname for place in places):
        draw.alert(
            "info",
            "Signing in with Google or GitHub does not lead here",
            f"UI_URL and PUBLIC_BASE_URL have to be on one host, and this is {here.hostname}: cookies know no other.",
        )
        return
    links = (
        f'<a class="ci-button" href="{escape(place.login_url)}?next={BACK}">Sign in with {_shown(place.provider)}</a>'
        for place in places
    )
    st.html('<div class="ci-or">or</div>' + "".join(links))


def _shown(provider: str) -> str:
    return {"github": "GitHub", "google": "Google"}.get(provider, escape(provider))
