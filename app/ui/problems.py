"""What went wrong, and what to do about it."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.client import ApiError
from app.ui import draw, session

OURS = 500

_log = logging.getLogger(__name__)


@contextmanager
def told() -> Iterator[None]:
    """Draws what goes wrong in the block. Of a defect the log gets the kind and the place, without its text."""
    try:
        yield
    except ApiError as error:
        show(error)
        st.button("Try again", key="again")
    except Exception as error:  # noqa: BLE001 — its text may hold what people wrote
        place = traceback.extract_tb(error.__traceback__)[-1]
        _log.error("defect: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
        draw.alert("bad", "Something went wrong on our side", "The log of the interface says where.")


def show(error: ApiError) -> None:
    """Draws an error of the API; who is not signed in any more is asked to do so again."""
    if error.status == session.UNAUTHENTICATED:
        session.end()
        st.session_state["notice"] = "You are signed out: the key or session has ended. Sign in again."
        st.rerun()
    heading, *advice = explain(error)
    draw.alert("bad", heading, *advice, f"Request {error.request_id}" if error.status >= OURS else "")


def explain(error: ApiError) -> tuple[str, ...]:
    """Returns a heading and lines of advice."""
    wait = f" Try again in {error.retry_after_s} seconds." if error.retry_after_s else " Try again in a moment."
    match error.status:
        case 0:
            return (
                "The API does not answer",
                f"{error.detail} Is it running (python -m app serve), and is API_URL right?",
            )
        case 403:
            found = session.me()
            role = f"You are signed in as {found.role}. " if found else ""
            return (
                "Your role does not allow this",
                f"{error.detail}",
                f"{role}An admin of the workspace can change it.",
            )
        case 404:
            return ("There is nothing here", error.detail)
        case 429:
            return ("Too many requests", f"{error.detail}{wait}")
        case 503:
            return ("A part of the service is down", f"{error.detail}{wait}", "GET /readyz of the API says which one.")
        case 422 | 400 | 409 | 413 | 415:
            return ("This cannot be done", error.detail, *error.parts[:5])
        case _:
            return ("The service could not answer", error.detail)
