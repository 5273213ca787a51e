"""Many conversations summarised at once."""

from typing import Any

import streamlit as st

from app.client import ApiError, Job, Role
from app.ui import draw, problems, session

STATE, RESULT = "job", "job-result"
DONE = ("completed", "failed", "cancelled")
FINAL = (403, 404)
"""What asking again does not change."""


def offer(filters: dict[str, Any]) -> None:
    """Draws what summarises the conversations that pass filters, after saying what it takes."""
    if STATE in st.session_state:
        _progress()
    if st.button("Summarise these conversations", icon=":material/summarize:", key="job-offer"):
        _confirm(filters)


@st.dialog("Summarise conversations")
def _confirm(filters: dict[str, Any]) -> None:
    try:
        estimate = session.client().estimate(**filters)
    except ApiError as error:
        problems.show(error)
        return
    cost = "unknown" if estimate.cost_usd is None else f"${estimate.cost_usd:,.4f}"
    draw.metrics(("Conversations", f"{estimate.conversations:,}"), ("To read", f"{estimate.to_read:,}"), ("Cost", cost))
    st.html(f'<p class="ci-note">By {draw.text(estimate.model)}, about {estimate.tokens:,} tokens.</p>')
    if not estimate.to_read:
        draw.alert("good", "Nothing to do", "Every one of them has a summary that is up to date.")
    elif st.button("Begin", type="primary"):
        try:
            st.session_state[STATE] = session.client().summarize_all(**filters).id
            st.session_state.pop(RESULT, None)
        except ApiError as error:
            problems.show(error)
            return
        st.rerun()


@st.fragment(run_every=1.0)
def _progress() -> None:
    known: Job | ApiError | None = st.session_state.get(RESULT)
    with problems.told():
        job = known or _ask(st.session_state[STATE])
        if isinstance(job, ApiError):
            draw.alert("bad", *problems.explain(job))
        else:
            done = job.done + job.failed
            st.progress(done / job.total if job.total else 1.0, f"{done:,} of {job.total:,} summarised")
            if job.status not in DONE:
                if session.may(Role.EDITOR) and st.button("Cancel"):
                    session.client().cancel_job(job.id)
                return
            _result(job)
        st.session_state[RESULT] = job
        if st.button("Show the list anew"):
            del st.session_state[STATE], st.session_state[RESULT]
            st.rerun()


def _ask(job_id: str) -> Job | ApiError:
    """Returns how far a job is, or why that cannot be known any more."""
    try:
        return session.client().job(job_id)
    except ApiError as error:
        if error.status in FINAL:
            return error
        raise


def _result(job: Job) -> None:
    kind: draw.Kind = "good" if job.status == "completed" and not job.failed else "warning"
    draw.alert(kind, f"The job has ended: {job.status}", f"{job.done:,} done, {job.failed:,} failed.")
    if job.errors:
        with st.expander(f"Not summarised: {job.failed:,}"):
            rows = [(draw.name(error.conversation_id), draw.text(error.code)) for error in job.errors]
            draw.table(["Conversation", "Why"], rows)
            if job.failed > len(rows):
                st.html(f'<p class="ci-note">The first {len(rows):,} of {job.failed:,}.</p>')
