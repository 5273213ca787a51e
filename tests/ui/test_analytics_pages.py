"""Trends, topics and webhooks as they are drawn, whatever the API answers."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.ui import draw, session
from tests.ui.conftest import UI_URL, Browser, Visit
from tests.ui.test_client import answering
from tests.ui.test_pages import HOSTILE

TIME = "2026-11-22T00:00:00.000000Z"
COUNTS: dict[str, int] = {}
WORKSPACE = {"id": "1", "name": HOSTILE, "role": "admin"}
ME = {
    "user": {"id": "1", "email": "ana@example.com", "name": None, "provider": "google"},
    "workspace": WORKSPACE,
    "workspaces": [WORKSPACE],
    "role": "admin",
    "credential": {"kind": "session", "actor": "member:1", "key_id": None},
    "limits": {},
}


def trends(metric: str, counts: dict[str, int], conversations: int = 41) -> dict[str, Any]:
    totals = {"conversations": conversations, "analysed": sum(counts.values()), "counts": counts}
    rows = [{"start": TIME, **totals}]
    return {
        "metric": metric,
        "interval": "day",
        "from": TIME,
        "to": TIME,
        "min_count": 3,
        "complete": "refund" not in counts,
        "totals": totals,
        "data": rows,
    }


def topics(status: str, count: int = 60, data: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    more = {"conversations": count, "assigned": count, "updated_at": TIME, "data": data or []}
    return {"from": None, "to": None, "status": status, **more}


Answers = dict[str, tuple[int, Any]]


@pytest.fixture
def api(browser: Browser) -> Iterator[Answers]:
    """What an API answers at each path."""
    answers: Answers = {"/auth/me": (200, ME), "/chats": (200, {"data": [], "has_more": False, "next_cursor": None})}

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        status, body = answers.get(path.partition("?")[0], (404, {"code": "not_found", "detail": "Not here."}))
        return status, {"Retry-After": "3"}, orjson.dumps(body)

    with answering(answer) as (url, _):
        session.configure(url, UI_URL)
        yield answers


def test_trends_have_their_denominators(api: Answers) -> None:
    api["/analytics/trends"] = 200, trends("outcome", {"yes": 20, "no": 4})
    seen = Visit("ck_any").open("trends")
    assert all(part in seen.text for part in ("41", "24", "59%"))
    assert seen.at.get("vega_lite_chart")
    next(each for each in seen.at.button_group if each.label == "Metric").set_value("outcome")
    assert all(part in seen.run().text for part in ("resolved", "unresolved", "In the whole range"))
    api["/analytics/trends"] = 200, trends("volume", {}, 0)
    assert "No conversations in this range" in seen.run().text


def test_keywords_are_text(api: Answers) -> None:
    api["/analytics/trends"] = 200, trends("keywords", {HOSTILE: 5, "refund": 4})
    seen = Visit("ck_any").open("trends")
    next(each for each in seen.at.button_group if each.label == "Metric").set_value("keywords")
    seen.run()
    assert "A keyword that fewer than 3 conversations share is not told. Of so many keywords not all were" in seen.text
    assert "<img" not in seen.html
    assert "&lt;img src=x" in seen.html


def test_topics_are_ready_pending_or_too_few(api: Answers) -> None:
    example = {"conversation_id": "c1", "snippet": HOSTILE}
    topic = {"topic_id": "1", "label": HOSTILE, "keywords": [HOSTILE], "conversations": 30, "share": 0.5}
    api["/analytics/topics"] = 200, topics("ready", data=[{**topic, "examples": [example]}])
    seen = Visit("ck_any").open("topics")
    assert "30" in seen.text
    assert "Open" in seen.labels
    assert "<script" not in seen.html
    api["/analytics/topics"] = 200, topics("too_few", 12)
    assert "12 conversations in this range: topics need at least 50." in seen.run().text
    api["/analytics/topics"] = 200, topics("pending")
    assert "Topics are being found" in seen.run().text


def test_webhooks_are_listed(api: Answers) -> None:
    hook = {"id": "1", "url": "https://example.com/hook", "events": ["job.finished"], "enabled": False}
    hook |= {"created_at": TIME, "disabled_reason": "gone"}
    api["/webhooks"] = 200, {"data": [hook], "has_more": False, "next_cursor": None}
    seen = Visit("ck_any").open("webhooks")
    assert all(part in seen.text for part in ("https://example.com/hook", "job.finished", "disabled: gone"))
    api["/webhooks"] = 200, {"data": [], "has_more": False, "next_cursor": None}
    assert "No webhooks yet" in seen.run().text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "Your role does not allow this"),
        (404, "There is nothing here"),
        (422, "This cannot be done"),
        (429, "Try again in 3 seconds."),
        (500, "The service could not answer"),
        (503, "GET /readyz of the API says which one."),
    ],
)
def test_errors_say_what_to_do(api: Answers, status: int, said: str) -> None:
    api["/analytics/trends"] = status, {"code": "x", "detail": HOSTILE, "request_id": "r1"}
    seen = Visit("ck_any").open("trends")
    assert said in seen.text
    assert "Try again" in seen.labels
    assert "<script" not in seen.html
    api["/analytics/trends"] = 200, trends("volume", {})
    assert "41" in seen.click("Try again").text


def test_nothing_is_shown_of_a_defect(
    api: Answers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api["/analytics/topics"] = 200, topics("ready", data=[{"label": "what a customer wrote"}])
    assert "not what this version of the interface knows" in Visit("ck_any").open("topics").text
    api["/analytics/trends"] = 200, trends("volume", {})
    monkeypatch.setattr(draw, "metrics", lambda *_: COUNTS["what a customer wrote"])
    assert "Something went wrong on our side" in Visit("ck_any").open("trends").text
    assert "defect: KeyError at" in caplog.text
    assert "what a customer wrote" not in caplog.text


def test_an_api_that_is_away_is_told_with_what_to_check(browser: Browser) -> None:
    session.configure("http://127.0.0.1:1", UI_URL)
    seen = Visit("ck_any").run()
    assert all(part in seen.text for part in ("The API does not answer", "API_URL"))
    assert "Try again" in seen.labels


def test_the_cookie_is_forwarded_with_proof_and_providers_are_offered(browser: Browser) -> None:
    places = {"data": [{"provider": "google", "login_url": "http://localhost:8000/auth/login/google"}]}
    answers = {"/auth/me": (401, {}), "/auth/providers": (200, places)}

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        status, body = answers.get(path.partition("?")[0], (404, {}))
        return status, {}, orjson.dumps(body)

    with answering(answer) as (url, asked):
        session.configure(url, UI_URL)
        seen = Visit().run()
        assert 'href="http://localhost:8000/auth/login/google?next=/ui"' in seen.html
        assert "cookie" not in asked[0]
        browser.cookies["__Host-session"] = "mine"
        asked.clear()
        seen = Visit().run()
        assert (asked[0]["cookie"], asked[0]["sec-fetch-site"]) == ("__Host-session=mine", "same-origin")
        assert seen.at.text_input
        asked.clear()
        seen.run()  # a session that has ended is not shown again
        assert "cookie" not in asked[0]
        browser.url = "http://127.0.0.1:8501"
        assert "open this page at its own address" in Visit().run().text
        browser.cookies["__Host-session"] = "a b\r\nX-Evil: 1"
        asked.clear()
        Visit().run()
        assert "cookie" not in asked[0]


def test_the_address_that_asks_is_told_by_whoever_is_not_signed_in_too(browser: Browser) -> None:
    browser.ip_address = "198.51.100.7"
    with answering(lambda path: (401 if path == "/auth/me" else 200, {}, b'{"data": []}')) as (url, asked):
        session.configure(url, UI_URL)
        seen = Visit().run()
        seen.at.text_input[0].input("ck_wrong")
        assert "This key does not work" in seen.click("Sign in").text
        assert {each.get("x-forwarded-for") for each in asked} == {"198.51.100.7"}
        assert [each for each in asked if "authorization" in each]


def test_a_session_that_goes_on_is_not_said_to_have_ended(api: Answers, browser: Browser) -> None:
    browser.cookies["__Host-session"] = "mine"
    api["/auth/logout"] = 503, {"code": "database_unavailable", "detail": "Not now."}
    seen = Visit().run().click("Sign out")
    assert "You are still signed in" in seen.text
    assert "You are signed out." not in seen.text
    assert "Sign out" in seen.labels
    api["/auth/logout"] = 401, {"code": "unauthenticated", "detail": "It has ended."}
    assert "You are signed out." in seen.click("Sign out").text


def test_why_providers_are_not_offered_is_said(api: Answers) -> None:
    api["/auth/providers"] = 200, {"data": [{"provider": "google", "login_url": "https://api.example.com/auth/login"}]}
    seen = Visit().run()
    assert "does not lead here" in seen.text
    assert "PUBLIC_BASE_URL" in seen.text
    assert "Sign in with Google" not in seen.text


def test_a_job_tells_what_it_left_out(api: Answers) -> None:
    known = {"conversation_id": "c1", "message_count": 1, "participants": [], "sentiment": None, "outcome": None}
    known |= {"first_message_at": TIME, "last_message_at": TIME}
    api["/chats"] = 200, {"data": [known], "has_more": False, "next_cursor": None}
    errors = [{"conversation_id": HOSTILE, "code": "conversation_deleted"}]
    counts = {"total": 5, "done": 3, "failed": 2, "cost_usd": 0}
    api["/jobs/1"] = 200, {"id": "1", "status": "completed", **counts, "errors": errors}
    seen = Visit("ck_any")
    seen.at.session_state["job"] = "1"
    seen.run()
    assert all(part in seen.text for part in ("3 done, 2 failed.", "conversation_deleted", "The first 1 of 2."))
    assert "<script" not in seen.html
