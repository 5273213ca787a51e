"""Insights over HTTP; what they share with summaries is tested there."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from app.llm.tasks import INSIGHTS
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.providers import (
    Providers,
    failure,
    gemini_reply,
    grok_reply,
    insights_answer,
    open_providers,
    summary_answer,
)

CANARY = "zanzibarquokka"
ASK = {"conversation_id": "c1"}
FEELING: Any = insights_answer()["sentiment"]


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(insights_answer())
        yield opened


@pytest.fixture
def settings(settings: Settings, providers: Providers) -> Settings:
    return settings.model_copy(update=providers.settings)


@pytest.fixture(autouse=True)
async def _chat(workspace: Workspace) -> None:
    agent = {"user_id": "bob", "user_type": "support_agent"}
    reply = message(message_id="m2", message_content="Sorry! I will send another by Friday.", **agent)
    assert (await workspace.editor.post("/chats", json=[message(), reply])).status_code == 201


async def test_insights_are_what_grok_said_about_who_and_what_exists(
    workspace: Workspace, providers: Providers
) -> None:
    said: Any = insights_answer(
        sentiment={
            **FEELING,
            "by_participant": [{"user_id": name, "label": "negative", "score": -0.5} for name in ("ana", "eve")],
            "timeline": [{"message_id": name, "score": -1.0} for name in ("m9", "m1")],
        },
        outcome={
            "label": "maybe",
            "confidence": 0.5,
            "reason": "Another was promised.",
            "evidence": [{"message_id": "m2", "quote": "another by Friday"}],
        },
    )
    providers.grok.reply = grok_reply(said)
    made = await workspace.editor.post("/chats/insights", json=ASK)
    assert made.status_code == 200, made.text
    body = made.json()
    assert body["sentiment"] == {
        **FEELING,
        "by_participant": [{"user_id": "ana", "user_type": "customer", "label": "negative", "score": -0.5}],
        "timeline": [{"message_id": "m1", "timestamp": message()["timestamp"], "score": -1.0}],
    }
    assert body["outcome"] == {**said["outcome"], "verified": True}
    assert (body["keywords"], body["resolution"]) == (said["keywords"], said["resolution"])
    assert body["coverage"] == {"messages_read": 2, "messages_total": 2, "complete": True}
    transcript = providers.grok.requests[0].body["messages"][1]["content"]
    provenance = body["provenance"]
    assert provenance["input_sha256"] == hashlib.sha256(transcript.encode()).hexdigest()
    assert (provenance["model"], provenance["prompt_version"]) == ("xai/grok-4.3", INSIGHTS.version)
    assert (await workspace.viewer.get("/chats/c1/insights")).json() == body


async def test_insights_are_made_once_and_go_stale(workspace: Workspace, providers: Providers) -> None:
    first = await workspace.editor.post("/chats/insights", json=ASK)
    assert (await workspace.editor.post("/chats/insights", json=ASK)).json() == first.json()
    assert len(providers.requests) == 1
    await workspace.editor.post("/chats", json=message(message_id="m3"))
    assert (await workspace.viewer.get("/chats/c1/insights")).json() == {**first.json(), "stale": True}
    assert (await workspace.editor.post("/chats/insights", json={**ASK, "force": False})).json()["stale"] is False
    assert len(providers.requests) == 2


async def test_summaries_and_insights_do_not_mix_and_the_latest_gives_the_labels(
    workspace: Workspace, providers: Providers
) -> None:
    await workspace.editor.post("/chats/insights", json=ASK)
    assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 404
    labelled = (await workspace.viewer.get("/chats", params={"keyword": "parcel", "outcome": "curious"})).json()
    assert [each["sentiment"] for each in labelled["data"]] == ["mixed"]
    providers.grok.reply = grok_reply(summary_answer())
    await workspace.editor.post("/chats/summarize", json=ASK)
    conversation = (await workspace.viewer.get("/chats/c1")).json()
    assert (conversation["sentiment"], conversation["outcome"]) == ("negative", "maybe")
    assert (await workspace.viewer.get("/chats/c1/insights")).json()["outcome"]["label"] == "curious"


async def test_gemini_answers_for_grok(workspace: Workspace, providers: Providers) -> None:
    providers.grok.reply = failure(503)
    providers.gemini.reply = gemini_reply(insights_answer())
    provenance = (await workspace.editor.post("/chats/insights", json=ASK)).json()["provenance"]
    assert (provenance["model"], provenance["provider"]) == ("gemini/gemini-2.5-flash", "gemini")
    assert provenance["fallbacks"] == [{"model": "xai/grok-4.3", "reason": "unavailable"}]


async def test_nothing_that_insights_say_is_stored_in_plain_or_outlives_the_conversation(
    workspace: Workspace, providers: Providers, postgresql: psycopg.Connection
) -> None:
    said = insights_answer(resolution=CANARY, keywords=[{"text": CANARY, "score": 1.0}])
    providers.grok.reply = grok_reply(said)
    assert CANARY in (await workspace.editor.post("/chats/insights", json=ASK)).text
    rows = [
        str(postgresql.execute(f"SELECT to_jsonb(t)::text FROM {table} AS t").fetchall())
        for table in ("insights", "conversations")
    ]
    assert not [each for each in rows if CANARY in each or CANARY.encode().hex() in each]
    receipt = (await workspace.admin.delete("/chats/c1")).json()
    assert receipt["deleted"]["insights"] == 1
    assert postgresql.execute("SELECT count(*) FROM insights").fetchone() == (0,)


class TestWithoutAProvider:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"xai_api_key": None, "gemini_api_key": None})

    async def test_the_built_in_engine_answers_and_says_so(self, workspace: Workspace, providers: Providers) -> None:
        for path in ("/chats/insights", "/chats/summarize"):
            made = await workspace.editor.post(path, json=ASK)
            provenance = made.json()["provenance"]
            assert (provenance["model"], provenance["provider"]) == ("local/extractive", "local")
            assert (provenance["fallbacks"], provenance["cost_usd"]) == ([], 0)
        assert not providers.requests
