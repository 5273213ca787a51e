"""What Streamlit runs for each browser, again with each click: who is it, and which page."""

from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app.client import ApiError, Role
from app.ui import draw, problems, session, sign_in

HERE = Path(__file__).parent
CONVERSATION = "views/conversation.py"


def _page(file: str, title: str, icon: str, path: str = "", needs: Role = Role.VIEWER) -> StreamlitPage:
    """Returns a page; one that is not for the caller's role stands in no menu, but says so at its address."""
    shown: Literal["visible", "hidden"] = "visible" if session.may(needs) and file != CONVERSATION else "hidden"
    return st.Page(
        file, title=title, icon=f":material/{icon}:", url_path=path or None, default=not path, visibility=shown
    )


def _pages() -> dict[str, list[StreamlitPage]]:
    return {
        "": [
            _page("views/conversations.py", "Conversations", "forum"),
            _page(CONVERSATION, "Conversation", "chat", "conversation"),
            _page("views/imports.py", "Import", "upload_file", "import", Role.EDITOR),
        ],
        "Over time": [
            _page("views/trends.py", "Trends", "show_chart", "trends"),
            _page("views/topics.py", "Topics", "category", "topics"),
        ],
        "Workspace": [
            _page("views/usage.py", "Usage and cost", "payments", "usage"),
            _page("views/keys.py", "API keys", "key", "keys", Role.ADMIN),
            _page("views/members.py", "Members", "group", "members", Role.ADMIN),
            _page("views/audit.py", "Audit log", "history", "audit", Role.ADMIN),
            _page("views/webhooks.py", "Webhooks", "webhook", "webhooks", Role.ADMIN),
        ],
    }


def _who() -> None:
    found = session.me()
    assert found
    who = found.user.email if found.user else "API key"
    st.html(
        f'<div class="ci-who"><strong>{draw.name(found.workspace.name)}</strong>'
        f"<span>{draw.name(who)}</span><span>{draw.badge(found.role)}</span></div>"
    )
    if st.button("Sign out", icon=":material/logout:", width="stretch"):
        try:
            session.sign_out()
        except ApiError as error:
            draw.alert("bad", "You are still signed in", "The session could not be ended at the API: try again.")
            draw.alert("info", *problems.explain(error))
        else:
            st.session_state["notice"] = "You are signed out."
            st.rerun()


def main() -> None:
    """Draws the page that the browser is at, or the sign-in in its place."""
    st.set_page_config(page_title="Chat insights", page_icon=HERE / "icon.svg", layout="wide")
    st.html(HERE / "style.css")
    try:
        signed_in = session.me()
    except ApiError as error:
        st.navigation(_pages(), position="hidden")
        problems.show(error)
        st.button("Try again")
        return
    page = st.navigation(_pages(), position="sidebar" if signed_in else "hidden")
    if not signed_in:
        sign_in.show()
        return
    with st.sidebar:
        _who()
    if page.title != "Conversation":
        session.unfollow()
    with problems.told():
        page.run()


main()
