"""What conversations are about."""

import streamlit as st

from app.ui import draw, ranges, session

FEWEST = 50


def show() -> None:
    """Draws the page."""
    draw.title("Topics", "What the conversations of a range are about, found in their words.")
    query = ranges.choose("topics-range", "All")
    with st.spinner("Looking ..."):
        found = session.client().topics(**query)
    if found.status == "too_few":
        more = f"{found.conversations:,} conversations in this range: topics need at least {FEWEST}."
        draw.empty("Too few conversations", more)
        return
    if found.status == "pending" or not found.data:
        draw.empty("Topics are being found", "A worker (python -m app work) does that; look again in a few minutes.")
        st.button("Look again")
        return
    draw.metrics(
        ("Conversations", f"{found.conversations:,}"),
        ("With a topic", ranges.share(found.assigned, found.conversations)),
        ("Topics", f"{len(found.data):,}"),
    )
    st.html(f'<p class="ci-note">As of {draw.when(found.updated_at)}.</p>')
    most = max(topic.share for topic in found.data) or 1
    for place, topic in enumerate(found.data):
        with st.container(border=True):
            said = f"{topic.conversations:,}"
            st.html(draw.bars([(topic.label, topic.share / most, said)]) + draw.chips(topic.keywords))
            if topic.examples:
                with st.expander("Examples"):
                    for number, example in enumerate(topic.examples):
                        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                            shown = draw.name(example.conversation_id)
                            st.html(f'<b>{shown}</b><p class="ci-snippet">{draw.text(example.snippet)}</p>')
                            if st.button("Open", key=f"topic-{place}-{number}"):
                                to = {"id": example.conversation_id}
                                st.switch_page("views/conversation.py", query_params=to)


show()
