"""The list of conversations, with search and filters."""

from html import escape
from typing import Any

import streamlit as st

from app.client import ConversationItem, Outcome, Role, Sentiment
from app.ui import draw, jobs, ranges, session

PAGE = "views/conversation.py"
STATE = "conversations"
ANY = "Any"


def _filters() -> dict[str, Any]:
    with st.container(border=True, key="filters"):
        words, user, keyword = st.columns([2.4, 1, 1])
        q = words.text_input("Search", placeholder='words, "a phrase", or, -not', key="f-q", max_chars=512)
        user_id = user.text_input("Person", placeholder="user id", key="f-user", max_chars=255)
        named = keyword.text_input("Keyword", placeholder="of the analysis", key="f-keyword", max_chars=100)
        feeling, end, since, until = st.columns(4)
        sentiment = feeling.selectbox("Sentiment", [ANY, *Sentiment], key="f-sentiment")
        outcome = end.selectbox(
            "Outcome", [ANY, *Outcome], key="f-outcome", format_func=lambda value: draw.OUTCOMES.get(value, value)
        )
        first = ranges.pick("From", "f-from", since)
        last = ranges.pick("To", "f-to", until)
    given = {
        "q": q.strip(),
        "user_id": user_id.strip(),
        "keyword": named.strip(),
        "sentiment": None if sentiment == ANY else str(sentiment),
        "outcome": None if outcome == ANY else str(outcome),
        "from": ranges.day(first),
        "to": ranges.day(last, after=1),
    }
    return {name: value for name, value in given.items() if value}


def _clear() -> None:
    blank = {"f-sentiment": ANY, "f-outcome": ANY, "f-from": None, "f-to": None}
    st.session_state.update({"f-q": "", "f-user": "", "f-keyword": "", **blank})


def _item(item: ConversationItem, place: int) -> None:
    people = item["participants"]
    names = ", ".join(draw.name(person["user_id"]) for person in people[:3])
    more = f" and {len(people) - 3} more" if len(people) > 3 else ""
    count = item["message_count"]
    found = "".join(
        f'<p class="ci-snippet">{draw.text(match["snippet"])}</p>' for match in (item.get("matches") or ())[:3]
    )
    with st.container(border=True, horizontal=True, vertical_alignment="center", wrap=False, key=f"item-{place}"):
        st.html(
            f'<div class="ci-item-head"><strong>{draw.name(item["conversation_id"])}</strong>'
            f"{draw.labels(item['sentiment'], item['outcome'])}</div>"
            f'<div class="ci-note">{names}{escape(more)} · {count:,} message{"s" if count != 1 else ""} · '
            f"{draw.when(item['last_message_at'])}</div>{found}"
        )
        if st.button("Open", key=f"open-{place}"):
            st.switch_page(PAGE, query_params={"id": item["conversation_id"]})


def _new() -> None:
    with st.popover("New conversation", icon=":material/add:"), st.form("new", border=False):
        wanted = st.text_input("Its id", placeholder="order-1042", max_chars=255)
        if st.form_submit_button("Begin") and wanted.strip():
            st.switch_page(PAGE, query_params={"id": wanted.strip()})


def show() -> None:
    """Draws the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        draw.title("Conversations")
        if session.may(Role.EDITOR):
            _new()
    filters = _filters()
    query = {("from_" if name == "from" else name): value for name, value in filters.items()}
    with st.spinner("Looking ..."):
        page = session.client().conversations(limit=20, cursor=draw.cursor(STATE, *sorted(filters.items())), **query)
    draw.leave_if_empty(STATE, page["data"])
    if not page["data"]:
        if filters:
            draw.empty("Nothing matches", "Take a filter away, or look for other words.")
            st.button("Clear the filters", on_click=_clear)
        else:
            draw.empty("No conversations yet", "Import a CSV, or send messages to POST /chats with an API key.")
            if session.may(Role.EDITOR):
                st.page_link("views/imports.py", label="Import a CSV", icon=":material/upload_file:")
        return
    for place, item in enumerate(page["data"]):
        _item(item, place)
    draw.pager(STATE, page["next_cursor"])
    if session.may(Role.EDITOR):
        jobs.offer(filters)


show()
