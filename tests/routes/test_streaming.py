"""Summaries as event streams: what is shown while a model writes, and what is taken back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.routes import streams
from app.routes.streams import wants_events
from app.schemas.enums import Role
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.live import bearer, following
from tests.support.providers import (
    LEAK,
    Providers,
    Reply,
    failure,
    gemini_reply,
    grok_reply,
    open_providers,
    summary_answer,
)
from tests.support.server import running_server
from tests.support.sse import EVENTS, Stream, shown, streaming

ASK = {"conversation_id": "c1"}
TEXT = " ".join(f"Sentence {number} of the summary." for number in range(40))
OTHER = " ".join(f"What Gemini says, part {number}." for number in range(40))
SAID = summary_answer(summary=TEXT)
GOOD = grok_reply(SAID)


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = GOOD
        opened.gemini.reply = gemini_reply(summary_answer(summary=OTHER))
        yield opened


@pytest.fixture
def deadline_s() -> float:
    return 60.0


@pytest.fixture
def settings(settings: Settings, providers: Providers, deadline_s: float) -> Settings:
    more = {"llm_max_input_chars": 20_000, "llm_deadline_s": deadline_s}
    return settings.model_copy(update={**providers.settings, **more})


@pytest.fixture
async def key(url: str, workspace: Workspace) -> str:
    """An editor's key, when there is a conversation."""
    await store(workspace, "m1")
    return workspace.keys[Role.EDITOR]


async def store(workspace: Workspace, message_id: str, **more: str) -> None:
    stored = await workspace.editor.post("/chats", json=message(message_id=message_id, **more))
    assert stored.status_code == 201, stored.text


def held(providers: Providers) -> None:
    """Makes Grok stop in the middle of a stream."""
    providers.grok.middle.clear()


async def finished(stream: Stream, begun: str = "") -> dict[str, Any]:
    """Returns the summary that a stream ends with, after its text."""
    events = [("summary.delta", {"text": begun}), *await stream.rest()]
    assert [name for name, _ in events].count("summary.updated") == 1
    name, summary = events[-1]
    assert name == "summary.updated"
    assert shown(events) == summary["summary"]
    return dict(summary)


async def test_the_text_comes_while_it_is_written_and_then_the_summary(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    held(providers)
    async with streaming(url, key) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        begun = await stream.text(TEXT.index("Sentence 10"))
        assert TEXT.startswith(begun)
        assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 404
        providers.grok.middle.set()
        summary = await finished(stream, begun)
    assert summary == (await workspace.viewer.get("/chats/c1/summary")).json()
    [request] = providers.requests
    assert (request.body["stream"], request.body["stream_options"]) == (True, {"include_usage": True})
    made = summary["provenance"]
    assert (made["model"], made["prompt_tokens"], made["completion_tokens"]) == ("xai/grok-4.3", 1_000, 100)
    assert made["cost_usd"] == pytest.approx(1_000 * 1.25e-6 + 100 * 2.5e-6)


async def test_nobody_who_waits_for_json_is_streamed_to(url: str, key: str, providers: Providers) -> None:
    async with httpx.AsyncClient(base_url=url, headers=bearer(key)) as client:
        answer = await client.post("/chats/summarize", json=ASK)
    assert answer.json()["summary"] == TEXT
    assert "stream" not in providers.requests[0].body


async def test_a_stored_summary_is_the_only_event(url: str, key: str, providers: Providers) -> None:
    for _ in range(2):
        async with streaming(url, key) as stream:
            events = await stream.rest()
    [(name, summary)] = events
    assert (name, summary["summary"], len(providers.requests)) == ("summary.updated", TEXT, 1)


BROKEN: dict[str, tuple[Reply, str, int]] = {
    "cut": (replace(GOOD, manner="cut"), "unavailable", 1),
    "an early end": (replace(GOOD, manner="end"), "unavailable", 1),
    "silence in the middle": (replace(GOOD, manner="hang"), "timeout", 1),
    "garbage in the middle": (replace(GOOD, manner="garbage"), "unavailable", 1),
    "wrong shape at the end": (grok_reply(summary_answer(summary=TEXT, note=LEAK)), "invalid_answer", 2),
    "no end of the JSON": (grok_reply(json.dumps(SAID)[:-20]), "invalid_answer", 2),
    "too long": (grok_reply(SAID, finish="length"), "cut_answer", 2),
    "refused at the end": (grok_reply(SAID, finish="content_filter"), "refused", 1),
}


@pytest.mark.parametrize(("reply", "reason", "calls"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_a_failed_stream_has_shown_is_taken_back(
    settings: Settings, workspace: Workspace, providers: Providers, reply: Reply, reason: str, calls: int
) -> None:
    await store(workspace, "m1")
    providers.grok.reply = reply
    held(providers)
    patient = settings.model_copy(update={"llm_timeout_s": 3.0})
    with running_server(patient) as url:
        async with streaming(url, workspace.keys[Role.EDITOR]) as stream:
            begun = await stream.text(100)
            assert TEXT.startswith(begun)
            providers.grok.middle.set()
            events = await stream.rest()
    restarts = [data for name, data in events if name == "summary.restarted"]
    assert restarts[0] == {"reason": reason}
    assert all(each == restarts[0] for each in restarts)
    assert shown(events) == OTHER
    name, summary = events[-1]
    assert (name, summary["summary"]) == ("summary.updated", OTHER)
    assert summary["provenance"]["fallbacks"] == [{"model": "xai/grok-4.3", "reason": reason}]
    assert (len(providers.grok.requests), len(providers.gemini.requests)) == (calls, 1)
    assert ":streamGenerateContent?alt=sse" in providers.gemini.requests[0].target
    assert summary == (await workspace.viewer.get("/chats/c1/summary")).json()
    assert LEAK not in json.dumps(events)


SILENT: dict[str, tuple[Reply, str]] = {
    "an answer of 10 MB": (
        grok_reply(summary_answer(summary="".join(f"{n:07} " for n in range(1_300_000)))),
        "answer_too_long",
    ),
    "prose": (grok_reply("Sure! " + TEXT), "invalid_answer"),
    "null": (grok_reply(None), "empty_answer"),
    "a JSON body": (Reply(GOOD.body), "empty_answer"),
    "a body of 10 MB": (Reply(b"data: " + b"x" * 10_000_000, content_type="text/event-stream"), "unavailable"),
    "compressed unasked": (Reply(b"data: x\n\n", content_type="text/event-stream", encoding="gzip"), "empty_answer"),
    "an outage": (failure(503), "unavailable"),
}


@pytest.mark.parametrize(("reply", "reason"), SILENT.values(), ids=SILENT.keys())
async def test_who_was_shown_nothing_is_told_of_no_restart(
    url: str, key: str, providers: Providers, reply: Reply, reason: str
) -> None:
    providers.grok.reply = reply
    async with streaming(url, key) as stream:
        events = await stream.rest()
    assert "summary.restarted" not in [name for name, _ in events]
    assert events[-1][1]["provenance"]["fallbacks"] == [{"model": "xai/grok-4.3", "reason": reason}]
    assert shown(events) == OTHER


async def test_a_stream_whose_usage_nobody_knows_is_paid_as_reserved(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    providers.grok.reply = replace(GOOD, manner="cut")
    async with streaming(url, key) as stream:
        await stream.rest()
    usage = (await workspace.admin.get("/analytics/usage")).json()["data"]
    [cost_usd] = [row["cost_usd"] for row in usage if row["model"] == "xai/grok-4.3"]
    assert cost_usd > 16_384 * 2.5e-6


async def test_the_built_in_engine_speaks_once(url: str, key: str, providers: Providers) -> None:
    providers.grok.reply = providers.gemini.reply = failure(401)
    async with streaming(url, key) as stream:
        events = await stream.rest()
    assert [name for name, _ in events] == ["summary.delta", "summary.updated"]
    assert events[0][1]["text"] == events[1][1]["summary"]


async def test_placeholders_are_never_shown_by_halves(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    mail = "ana.person@example.com"
    await store(workspace, "m2", message_content=f"Write to {mail}, I am ana.")
    text = "[EMAIL_1], EMAIL_1, [EMAIL_99], [MESSAGE_1] [not one] EMAIL_"
    said = json.dumps(summary_answer(summary=text))
    shown, rest = said[: len(text) + 20], said[len(text) + 20 :]
    providers.grok.reply = grok_reply(said, pieces=[*shown, rest])
    held(providers)
    providers.grok.reply = replace(providers.grok.reply, manner="drip")
    providers.grok.middle.set()
    async with streaming(url, key) as stream:
        events = await stream.rest()
    sent = json.dumps(providers.grok.requests[0].body)
    assert mail not in sent
    final = events[-1][1]["summary"]
    assert final == f"{mail}, {mail}, [EMAIL_99], m1 [not one] EMAIL_"
    deltas = [data["text"] for name, data in events if name == "summary.delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == final
    for place in range(1, len(deltas) + 1):
        begun = "".join(deltas[:place])
        left = begun.replace(mail, "").replace("[EMAIL_99]", "")
        assert "EMAIL" not in left or begun == final, begun
        assert not left.endswith("[") or begun == final, begun


async def test_only_the_whole_of_a_long_conversation_is_shown(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    sent = [message(message_id=f"n{n:03}", message_content=f"Parcel {n} is late.") for n in range(400)]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    async with streaming(url, key) as stream:
        events = await stream.rest()
    assert shown(events) == TEXT
    assert [name for name, _ in events if name != "summary.delta"] == ["summary.updated"]
    streamed = [request for request in providers.requests if "stream" in request.body]
    assert streamed == [providers.requests[-1]]
    assert len(providers.requests) > 3


async def test_twenty_readers_share_one_call_and_late_ones_get_the_text_so_far(
    url: str, key: str, providers: Providers
) -> None:
    held(providers)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(streaming(url, key))
        begun = await first.text(200)
        others = [await stack.enter_async_context(streaming(url, key)) for _ in range(19)]
        texts = [await each.text(len(begun)) for each in others]
        assert all(TEXT.startswith(text) for text in texts)
        providers.grok.middle.set()
        readers = zip([first, *others], [begun, *texts], strict=True)
        summaries = await asyncio.gather(*(finished(stream, text) for stream, text in readers))
    assert all(summary == summaries[0] for summary in summaries)
    assert len(providers.requests) == 1


async def test_another_instance_brings_the_end_alone(
    url: str, other_url: str, key: str, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.2)
    held(providers)
    async with streaming(url, key) as here:
        begun = await here.text(100)
        async with streaming(other_url, key) as there:
            assert await anext(there.lines) == ": ping"
            providers.grok.middle.set()
            summary = await finished(here, begun)
            assert await there.rest() == [("summary.updated", summary)]
    assert len(providers.requests) == 1


async def test_a_reader_who_leaves_ends_nothing(url: str, key: str, workspace: Workspace, providers: Providers) -> None:
    held(providers)
    async with streaming(url, key, headers={"Idempotency-Key": "left"}) as stream:
        await stream.text(100)
    async with streaming(url, key, headers={"Idempotency-Key": "left"}) as stream:
        assert stream.response.status_code == 409, "it is being carried out"
    providers.grok.middle.set()
    async with httpx.AsyncClient(base_url=url, headers=bearer(key)) as client:
        while (again := await client.post("/chats/summarize", json=ASK, headers={"Idempotency-Key": "left"})).is_error:
            assert again.status_code == 409
    assert (again.json()["summary"], again.headers["idempotency-replayed"]) == (TEXT, "true")
    assert (await workspace.viewer.get("/chats/c1/summary")).json()["summary"] == TEXT
    assert len(providers.requests) == 1


async def test_the_same_request_again_gets_the_last_event_alone(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    repeatable = {"Idempotency-Key": "once"}
    async with streaming(url, key, headers=repeatable, force=True) as stream:
        assert "idempotency-replayed" not in stream.response.headers
        first = await finished(stream)
    async with streaming(url, key, headers=repeatable, force=True) as stream:
        assert stream.response.headers["idempotency-replayed"] == "true"
        assert await stream.rest() == [("summary.updated", first)]
    async with streaming(url, key, headers=repeatable) as stream:
        assert stream.response.status_code == 422
    async with httpx.AsyncClient(base_url=url, headers=bearer(key)) as client:
        again = await client.post("/chats/summarize", json={**ASK, "force": True}, headers=repeatable)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")
    assert len(providers.requests) == 1


async def test_what_fails_before_the_first_event_is_an_ordinary_problem(
    url: str, key: str, workspace: Workspace, other_workspace: Workspace, providers: Providers
) -> None:
    cases: list[tuple[str, dict[str, Any], int]] = [
        (key, {"conversation_id": "absent"}, 404),
        (other_workspace.keys[Role.EDITOR], {}, 404),
        (workspace.keys[Role.VIEWER], {}, 403),
        ("nonsense", {}, 401),
        (key, {"conversation_id": "c1", "force": "yes"}, 422),
    ]
    for shown_key, more, status in cases:
        async with streaming(url, shown_key, **more) as stream:
            assert stream.response.status_code == status
            assert stream.response.headers["content-type"] == "application/problem+json"
            document = json.loads(await anext(stream.lines))
        assert document["status"] == status
    assert not providers.requests


async def test_what_fails_after_the_first_event_is_the_last_one(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    held(providers)
    async with streaming(url, key, headers={"X-Request-Id": "mine"}) as stream:
        await stream.text(100)
        assert (await workspace.admin.delete("/chats/c1")).status_code == 200
        providers.grok.middle.set()
        *_, (name, problem) = await stream.rest()
    assert (name, problem["status"], problem["code"], problem["request_id"]) == ("error", 404, "not_found", "mine")


async def test_whose_key_ends_reads_no_further(url: str, workspace: Workspace, providers: Providers, key: str) -> None:
    made = (await workspace.admin.post("/auth/keys", json={"name": "x", "role": "editor"})).json()
    held(providers)
    async with streaming(url, key) as other, streaming(url, made["key"]) as stream:
        begun = await other.text(200)
        await stream.text(100)
        assert (await workspace.admin.delete(f"/auth/keys/{made['id']}")).status_code == 204
        async with asyncio.timeout(5):
            *deltas, (name, problem) = await stream.rest()
        assert {name for name, _ in deltas} <= {"summary.delta"}
        assert (name, problem["status"]) == ("error", 401)
        providers.grok.middle.set()
        assert (await finished(other, begun))["summary"] == TEXT


async def test_who_does_not_read_is_left_and_nobody_else(
    app: FastAPI, workspace: Workspace, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SLOW_S", 0.1)
    await store(workspace, "m1")
    held(providers)
    body = json.dumps(ASK).encode()
    headers = {**EVENTS, **bearer(workspace.keys[Role.EDITOR]), "Content-Type": "application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/chats/summarize",
        "raw_path": b"/chats/summarize",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "app": app,
        "http_version": "1.1",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    received = [{"type": "http.request", "body": body}]
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop() if received else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # the network's buffers are full

    reading = asyncio.create_task(workspace.editor.post("/chats/summarize", json=ASK))
    async with asyncio.timeout(20):
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    providers.grok.middle.set()
    assert (await reading).json()["summary"] == TEXT
    assert len(providers.requests) == 1


async def test_asking_for_a_job_wins(url: str, key: str) -> None:
    async with streaming(url, key, headers={"Prefer": "respond-async"}) as stream:
        assert stream.response.status_code == 202
        assert stream.response.headers["content-type"] == "application/json"


async def test_a_silent_stream_is_kept_awake(
    url: str, key: str, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.05)
    providers.grok.hold()
    async with streaming(url, key) as stream:
        assert await anext(stream.lines) == ": ping"
        providers.grok.gate.set()
        assert (await finished(stream))["summary"] == TEXT


@pytest.mark.parametrize("deadline_s", [2.0])
async def test_a_dripping_stream_ends_with_the_deadline(url: str, key: str, providers: Providers) -> None:
    said = json.dumps(SAID)
    providers.grok.reply = replace(grok_reply(said, pieces=list(said)), manner="drip")
    async with asyncio.timeout(4), streaming(url, key) as stream:
        begun = await stream.text(1)
        assert TEXT.startswith(begun)
        events = await stream.rest()
    name, summary = events[-1]
    assert (name, summary["provenance"]["model"]) == ("summary.updated", "local/extractive")
    assert summary["provenance"]["fallbacks"][0] == {"model": "xai/grok-4.3", "reason": "timeout"}
    assert ("summary.restarted", {"reason": "timeout"}) in events
    assert shown(events) == summary["summary"]


async def test_two_sockets_see_what_somebody_else_has_asked_for(
    url: str, key: str, workspace: Workspace, providers: Providers
) -> None:
    providers.grok.replies = [replace(GOOD, manner="cut")]
    held(providers)
    async with (
        following(url, bearer(workspace.keys[Role.VIEWER])) as one,
        following(url, bearer(workspace.keys[Role.ADMIN])) as two,
    ):
        for each in (one, two):
            assert (await each.next())["type"] == "snapshot"
        async with httpx.AsyncClient(base_url=url, headers=bearer(key)) as client:
            asked = asyncio.create_task(client.post("/chats/summarize", json=ASK))
            firsts = [await each.next() for each in (one, two)]
            assert not asked.done()
            providers.grok.middle.set()
            made = (await asked).json()
        for each, first in zip((one, two), firsts, strict=True):
            assert first["type"] == "summary.delta"
            assert TEXT.startswith(first["text"])
            *events, told = [(event["type"], event) for event in [first, *await each.until("summary.updated")]]
            assert ("summary.restarted", {"type": "summary.restarted", "reason": "unavailable"}) in events
            assert {name for name, _ in events} == {"summary.delta", "summary.restarted"}
            assert shown(events) == told[1]["summary"]["summary"] == OTHER
            assert told[1]["summary"] == made


async def test_the_next_summary_is_told_from_its_beginning(url: str, key: str, providers: Providers) -> None:
    async with (
        following(url, bearer(key)) as socket,
        httpx.AsyncClient(base_url=url, headers=bearer(key)) as client,
    ):
        await socket.next()
        for text in (TEXT, OTHER):
            providers.grok.reply = grok_reply(summary_answer(summary=text))
            assert (await client.post("/chats/summarize", json={**ASK, "force": True})).status_code == 200
            *deltas, told = await socket.until("summary.updated")
            assert {event["type"] for event in deltas} == {"summary.delta"}
            assert "".join(event["text"] for event in deltas) == told["summary"]["summary"] == text


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream ; charset=utf-8", True),
        ("text/event-stream, application/json", True),
        ("text/event-stream, */*;q=0.5", True),
        ("application/json;q=0.9, text/event-stream;q=1", True),
        ("application/json, text/event-stream;q=0.5", False),
        ('application/json, text/html;x=", text/event-stream;"', False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=nan", False),
        ("text/event-stream;q=x", False),
        ("text/*", False),
        ("*/*", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_events_are_for_who_names_them(accept: str, events: bool) -> None:
    assert wants_events(accept) is events


async def test_accept_may_be_on_several_lines(workspace: Workspace) -> None:
    await store(workspace, "m1")
    for last, media in (("text/event-stream", "text/event-stream"), ("text/event-stream;q=0.1", "application/json")):
        headers = [("Accept", "application/json;q=0.5"), ("Accept", last)]
        answer = await workspace.editor.post("/chats/summarize", json=ASK, headers=headers)
        assert answer.headers["content-type"].partition(";")[0] == media
