"""Who uses the interface, and where the API is.

A key that was typed lives in the memory of its browser's session and nowhere else, and a cookie in the connection that
brought it; both go to the API alone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import streamlit as st

from app.client import ApiError, Client, Follower, Me, Role
from app.ui import uploads

SESSION_COOKIE = "__Host-session"
UNAUTHENTICATED = 401
_KEY, _ME, _ENDED, _FOLLOWER = "credential", "me", "ended", "follower"
_SENDABLE = re.compile(r"[!-~]{1,4096}", re.ASCII)
_RANK = list(Role)


@dataclass(frozen=True)
class Place:
    """Where the API is, and where browsers reach the interface."""

    api_url: str
    ui_url: str


_places: list[Place] = []


def configure(api_url: str, ui_url: str) -> None:
    """Says where things are, once for the process."""
    _places[:] = [Place(api_url, ui_url)]


def place() -> Place:
    """Returns where things are."""
    return _places[0]


def _headers() -> dict[str, str] | None:
    if key := st.session_state.get(_KEY):
        return {"Authorization": f"Bearer {key}"}
    cookie = st.context.cookies.get(SESSION_COOKIE, "")
    if _ENDED in st.session_state or not _SENDABLE.fullmatch(cookie):
        return None
    # The cookie comes from a page of ours only (see front_door), which is what the API asks with this header.
    return {"Cookie": f"{SESSION_COOKIE}={cookie}", "Sec-Fetch-Site": "same-origin"}


def _client(headers: Mapping[str, str]) -> Client:
    """Returns a client that also says for which address it asks, since limits count by it."""
    address = st.context.ip_address  # none if the interface and the browser are on one machine
    forwarded = {"X-Forwarded-For": address} if address else {}  # believed of TRUSTED_PROXIES
    return Client(place().api_url, {**headers, **forwarded})


def anonymous() -> Client:
    """Returns a client for what anybody may ask."""
    return _client({})


def client() -> Client:
    """Returns a client that asks for whoever is signed in; raises ``ApiError`` if nobody is."""
    headers = _headers()
    if headers is None:
        raise ApiError(UNAUTHENTICATED, "unauthenticated", "Sign in first.")
    return _client(headers)


def me() -> Me | None:
    """Returns who is signed in, or None; raises ``ApiError`` if that cannot be found out."""
    if _ME not in st.session_state and _headers() is not None:
        try:
            st.session_state[_ME] = client().me()
        except ApiError as error:
            if error.status != UNAUTHENTICATED:
                raise
            end()
    found: Me | None = st.session_state.get(_ME)
    return found


def may(role: Role) -> bool:
    """Says whether who is signed in has a role or a stronger one."""
    found = st.session_state.get(_ME)
    return found is not None and _RANK.index(found.role) >= _RANK.index(role)


def sign_in(key: str) -> None:
    """Signs in with an API key; raises ``ApiError`` if it is none."""
    if not _SENDABLE.fullmatch(key):
        raise ApiError(UNAUTHENTICATED, "unauthenticated", "This is no API key.")
    found = _client({"Authorization": f"Bearer {key}"}).me()
    end()
    st.session_state[_KEY], st.session_state[_ME] = key, found


def sign_out() -> None:
    """Ends the session of a cookie at the API, and forgets everything here; raises ``ApiError`` if it goes on."""
    try:
        if _KEY not in st.session_state:
            client().sign_out()
    except ApiError as error:
        if error.status != UNAUTHENTICATED:
            raise
    end()


def end() -> None:
    """Forgets who was signed in and what they looked at; the cookie of this page is not believed any more."""
    if follower := st.session_state.get(_FOLLOWER):
        follower.close()
    uploads.forbid()
    st.session_state.clear()
    st.session_state[_ENDED] = True


def follow(conversation_id: str) -> Follower:
    """Returns the follower of a conversation, the only one of this session."""
    follower: Follower | None = st.session_state.get(_FOLLOWER)
    if follower and follower.conversation_id == conversation_id and not follower.lapsed:
        return follower
    unfollow()
    begun = Follower(place().api_url, conversation_id, _for_socket(client()))
    st.session_state[_FOLLOWER] = begun
    return begun


def unfollow() -> None:
    """Follows nothing any more."""
    if follower := st.session_state.pop(_FOLLOWER, None):
        follower.close()


def _for_socket(asking: Client) -> Callable[[], Mapping[str, str]]:
    if key := st.session_state.get(_KEY):
        return lambda: {"Authorization": f"Bearer {key}"}
    return lambda: {"Authorization": f"Bearer {asking.access_token()}"}
