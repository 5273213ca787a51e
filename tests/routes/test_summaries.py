"""Summaries over HTTP, made by Grok and Gemini on loopback."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from app.llm.gateway import Gateway
from app.llm.tasks import SUMMARY
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.providers import (
    GEMINI_KEY,
    LEAK,
    XAI_KEY,
    Providers,
    failure,
    gemini_reply,
    grok_reply,
    open_providers,
    summary_answer,
)

CANARY = "zanzibarquokka"
ASK = {"conversation_id": "c1"}


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer())
        yield opened


@pytest.fixture
def deadline_s() -> float:
    return 60.0


@pytest.fixture
def settings(settings: Settings, providers: Providers, deadline_s: float) -> Settings:
    more = {"llm_max_input_chars": 20_000, "llm_deadline_s": deadline_s}
    return settings.model_copy(update={**providers.settings, **more})


@pytest.fixture
async def chat(workspace: Workspace) -> list[dict[str, str]]:
    agent = {"user_id": "bob", "user_type": "support_agent"}
    sent = [
        message(message_content=f"My parcel with the {CANARY} has not arrived."),
        message(message_id="m2", message_content="Sorry! I will send another by Friday.", **agent),
    ]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    return sent


async def store(workspace: Workspace, message_id: str = "m3") -> None:
    stored = await workspace.editor.post("/chats", json=message(message_id=message_id))
    assert stored.status_code == 201, stored.text


async def summarize(workspace: Workspace, **more: object) -> httpx.Response:
    return await workspace.editor.post("/chats/summarize", json={**ASK, **more})


@pytest.mark.usefixtures("chat")
async def test_a_summary_is_what_grok_said_and_where_it_comes_from(workspace: Workspace, providers: Providers) -> None:
    quote = {"message_id": "m2", "quote": "I will send another by Friday"}
    action = {"text": "Send another parcel", "evidence": [quote], "owner": "bob", "due": "Friday"}
    lie = {"text": "A refund was granted", "evidence": [{**quote, "quote": "refund granted"}]}
    question = {
        "text": "Where is it?",
        "evidence": [{**quote, "message_id": "x"}],
        "status": "answered",
        "answer": "Lost",
    }
    said = summary_answer(action_items=[action], decisions=[lie], questions=[question])
    providers.grok.reply = grok_reply(said)
    made = await summarize(workspace)
    body = made.json()
    assert body | {"conversation_id": "c1", "summary": said["summary"], "keywords": ["parcel"]} == body
    assert body | {"sentiment": "negative", "outcome": "maybe", "stale": False} == body
    assert body["action_items"] == [{**action, "verified": True}]
    assert body["decisions"] == [{**lie, "verified": False}]
    assert body["questions"] == [{**question, "evidence": [], "verified": False}]
    assert body["coverage"] == {"messages_read": 2, "messages_total": 2, "complete": True}
    provenance = body["provenance"]
    assert provenance.pop("latency_ms") >= 0
    assert provenance.pop("cost_usd") == pytest.approx(0.0015)
    transcript = providers.grok.requests[0].body["messages"][1]["content"]
    assert provenance == {
        "model": "xai/grok-4.3",
        "provider": "xai",
        "fallbacks": [],
        "prompt_version": SUMMARY.version,
        "input_sha256": hashlib.sha256(transcript.encode()).hexdigest(),
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
    }
    assert datetime.fromisoformat(body["created_at"]) <= datetime.fromisoformat(body["updated_at"])
    assert (await workspace.viewer.get("/chats/c1/summary")).json() == made.json()


@pytest.mark.usefixtures("chat")
async def test_a_model_is_asked_again_only_when_messages_came_or_by_force(
    workspace: Workspace, providers: Providers
) -> None:
    first = await summarize(workspace)
    assert (await summarize(workspace)).json() == first.json()
    assert len(providers.requests) == 1
    providers.grok.reply = grok_reply(summary_answer(summary="Anew."))
    forced = (await summarize(workspace, force=True)).json()
    assert (forced["summary"], forced["created_at"]) == ("Anew.", first.json()["created_at"])
    assert forced["updated_at"] > first.json()["updated_at"]
    await store(workspace)
    stale = (await workspace.viewer.get("/chats/c1/summary")).json()
    assert stale == {**forced, "stale": True}
    anew = (await summarize(workspace)).json()
    assert (anew["stale"], anew["coverage"]["messages_total"]) == (False, 3)
    assert len(providers.requests) == 3


@pytest.mark.usefixtures("chat")
async def test_conversations_are_found_by_what_the_latest_summary_says(
    workspace: Workspace, providers: Providers
) -> None:
    providers.grok.reply = grok_reply(summary_answer(keywords=["Lost Parcel"]))
    await summarize(workspace)

    async def found(**query: str) -> list[str]:
        listed = await workspace.viewer.get("/chats", params=query)
        return [each["conversation_id"] for each in listed.json()["data"]]

    assert await found(sentiment="negative", outcome="maybe", keyword="lost parcel") == ["c1"]
    assert await found(sentiment="positive") == await found(outcome="no") == await found(keyword="refund") == []
    providers.grok.reply = grok_reply(summary_answer(sentiment="positive", keywords=["refund"]))
    await summarize(workspace, force=True)
    assert await found(sentiment="positive", keyword="refund") == ["c1"]
    assert await found(sentiment="negative") == await found(keyword="lost parcel") == []


@pytest.mark.usefixtures("chat")
async def test_nothing_of_a_failing_provider_gets_into_answers_logs_or_what_is_kept(
    workspace: Workspace, providers: Providers, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    providers.grok.reply = failure(401)
    providers.gemini.reply = gemini_reply({"summary": LEAK})
    made = await summarize(workspace)
    provenance = made.json()["provenance"]
    assert provenance["model"] == "local/extractive"
    assert provenance["fallbacks"] == [
        {"model": "xai/grok-4.3", "reason": "unauthorized"},
        {"model": "gemini/gemini-2.5-flash", "reason": "invalid_answer"},
    ]
    out, err = capfd.readouterr()
    for secret in (LEAK, XAI_KEY, GEMINI_KEY, SUMMARY.prompt[:40]):
        assert secret not in made.text + out + err + caplog.text, secret
    assert CANARY not in out + err + caplog.text


@pytest.mark.usefixtures("chat")
async def test_nothing_that_a_summary_says_is_stored_in_plain(
    workspace: Workspace, providers: Providers, postgresql: psycopg.Connection
) -> None:
    item = {"text": CANARY, "evidence": [{"message_id": "m1", "quote": CANARY}]}
    providers.grok.reply = grok_reply(summary_answer(summary=CANARY, decisions=[item], keywords=[CANARY]))
    assert CANARY in (await summarize(workspace)).text
    for table in ("summaries", "conversations", "messages"):
        rows = postgresql.execute(f"SELECT to_jsonb(t)::text FROM {table} AS t").fetchall()
        assert rows
        for hidden in (CANARY, CANARY.encode().hex(), "grok"):
            assert hidden not in str(rows)


@pytest.mark.usefixtures("chat")
async def test_twenty_requests_at_once_make_one_call_even_if_the_first_one_leaves(
    workspace: Workspace, providers: Providers
) -> None:
    providers.grok.hold()
    first = asyncio.create_task(summarize(workspace))
    await providers.grok.asked.wait()
    asked = [asyncio.create_task(summarize(workspace)) for _ in range(20)]
    await asyncio.gather(*(workspace.viewer.get("/chats/c1") for _ in range(20)))
    first.cancel()
    providers.grok.gate.set()
    answers = await asyncio.gather(*asked)
    assert {each.status_code for each in answers} == {200}
    assert len({each.text for each in answers}) == 1
    assert len(providers.requests) == 1


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("force", [False, True])
async def test_who_joins_a_running_call_after_a_new_message_gets_a_summary_that_has_read_it(
    workspace: Workspace, providers: Providers, force: bool
) -> None:
    providers.grok.hold()
    early = asyncio.create_task(summarize(workspace))
    await providers.grok.asked.wait()
    await store(workspace)
    late = asyncio.create_task(summarize(workspace, force=force))
    assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 404
    providers.grok.gate.set()
    assert (await early).status_code == 200
    assert (await late).json()["coverage"] == {"messages_read": 3, "messages_total": 3, "complete": True}
    assert len(providers.requests) == 2


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("deadline_s", [4.0])
async def test_who_joins_a_call_that_hangs_waits_for_one_deadline_all_the_same(
    workspace: Workspace, providers: Providers, deadline_s: float
) -> None:
    providers.grok.hold()
    early = asyncio.create_task(summarize(workspace))
    await providers.grok.asked.wait()
    await store(workspace)
    async with asyncio.timeout(deadline_s + 2):
        late = (await summarize(workspace)).json()
    assert (await early).json()["coverage"]["messages_total"] == 2
    assert (late["provenance"]["provider"], late["coverage"]["messages_total"]) == ("local", 3)


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("deadline_s", [0.5])
async def test_who_waits_for_another_instance_waits_for_one_deadline_too(
    workspace: Workspace, postgresql: psycopg.Connection[Any], deadline_s: float
) -> None:
    await summarize(workspace)
    await store(workspace)
    postgresql.execute(
        "INSERT INTO analysis_claims (workspace_id, conversation_id, kind, claim_id, leased_until)"
        " SELECT workspace_id, conversation_id, 'summary', 1, now() + interval '1 hour' FROM conversations"
    )
    postgresql.commit()
    async with asyncio.timeout(deadline_s + 3):
        answer = await summarize(workspace)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    postgresql.execute("DELETE FROM analysis_claims")
    postgresql.commit()
    assert (await summarize(workspace)).json()["coverage"]["messages_total"] == 3


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("recreated", [False, True])
async def test_a_conversation_deleted_while_a_model_answers_stays_deleted(
    workspace: Workspace, providers: Providers, recreated: bool
) -> None:
    providers.grok.hold()
    running = asyncio.create_task(summarize(workspace))
    await providers.grok.asked.wait()
    assert (await workspace.admin.delete("/chats/c1")).status_code == 200
    if recreated:
        await store(workspace, "m1")
    providers.grok.gate.set()
    assert (await running).status_code == 404
    assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 404
    found = await workspace.viewer.get("/chats/c1")
    assert (found.status_code, found.json().get("sentiment")) == (200 if recreated else 404, None)
    if recreated:
        assert (await summarize(workspace)).status_code == 200


@pytest.mark.usefixtures("chat")
async def test_a_defect_is_told_without_its_text_and_does_not_block_the_next_request(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> Any:
        raise RuntimeError(CANARY)

    with monkeypatch.context() as broken:
        broken.setattr(Gateway, "answer", fail)
        failed = await summarize(workspace)
    assert (failed.status_code, failed.json()["code"]) == (500, "internal")
    assert CANARY not in failed.text
    assert (await summarize(workspace)).status_code == 200


async def test_a_conversation_of_any_length_is_read_whole(workspace: Workspace, providers: Providers) -> None:
    complete = {"messages_read": 2_000, "messages_total": 2_000, "complete": True}
    sent = [message(message_id=f"m{n:04}", message_content=f"Line {n:04} of it.") for n in range(2_000)]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    assert (await summarize(workspace)).json()["coverage"] == complete
    transcripts = [json.loads(request.body["messages"][1]["content"]) for request in providers.grok.requests]
    parts = sorted((each for each in transcripts if "part" in each), key=lambda each: each["part"])
    assert [m["text"] for part in parts for m in part["messages"]] == [m["message_content"] for m in sent]
    assert len(transcripts) > len(parts) >= 10
    providers.grok.requests.clear()
    providers.grok.reply = failure(400, code="context_length_exceeded")
    local = (await summarize(workspace, force=True)).json()
    assert local["provenance"]["fallbacks"][0] == {"model": "xai/grok-4.3", "reason": "too_long"}
    assert local["coverage"] == complete


@pytest.mark.parametrize("kind", ["summary", "insights"])
@pytest.mark.usefixtures("chat")
async def test_only_editors_of_the_same_workspace_may_ask_and_only_its_viewers_read(
    workspace: Workspace, other_workspace: Workspace, anonymous: httpx.AsyncClient, providers: Providers, kind: str
) -> None:
    path = {"summary": "/chats/summarize", "insights": "/chats/insights"}[kind]
    assert (await workspace.viewer.get(f"/chats/c1/{kind}")).status_code == 404
    assert (await workspace.viewer.post(path, json=ASK)).status_code == 403
    assert (await anonymous.post(path, json=ASK)).status_code == 401
    foreign = await other_workspace.editor.post(path, json=ASK)
    absent = await workspace.editor.post(path, json={"conversation_id": "absent"})
    assert (foreign.status_code, foreign.json()["detail"]) == (404, absent.json()["detail"])
    assert not providers.requests
    assert (await workspace.editor.post(path, json=ASK)).status_code == 200
    assert (await workspace.viewer.get(f"/chats/c1/{kind}")).status_code == 200
    foreign = await other_workspace.admin.get(f"/chats/c1/{kind}")
    absent = await workspace.admin.get(f"/chats/absent/{kind}")
    assert (foreign.status_code, foreign.json()["detail"]) == (404, absent.json()["detail"])


@pytest.mark.parametrize("path", ["/chats/summarize", "/chats/insights"])
@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{}", "application/json", 422),
        (b'{"conversation_id": ""}', "application/json", 422),
        (b'{"conversation_id": "a\\u0000"}', "application/json", 422),
        (b'{"conversation_id": "c1", "force": "yes"}', "application/json", 422),
        (b'{"conversation_id": "c1", "model": "x"}', "application/json", 422),
        (b'{"conversation_id": "c1"', "application/json", 400),
        (b'{"conversation_id": "c1"}', "text/plain", 415),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    workspace: Workspace, path: str, body: bytes, media: str, status: int
) -> None:
    refused = await workspace.editor.post(path, content=body, headers={"Content-Type": media})
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
