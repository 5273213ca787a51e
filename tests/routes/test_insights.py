"""Insights over HTTP; what they share with summaries is tested there."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from app.factory import Services
from app.llm.tasks import INSIGHTS
from app.schemas.analyses import InsightsBody
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
        customer_effort={
            "label": "high",
            "score": 0.75,
            "reason": "She waits.",
            "evidence": [{"message_id": "m1", "quote": "not arrived yet"}],
        },
        escalation_risk={
            "label": "medium",
            "score": 0.5,
            "reasons": [
                {
                    "text": "She asks for a manager.",
                    "evidence": [{"message_id": "m1", "quote": "Your manager, please!"}],
                },
                {"text": "It is late.", "evidence": [{"message_id": "m1", "quote": "not arrived yet"}]},
                {"text": "She will sue.", "evidence": [{"message_id": "m9", "quote": "My lawyer will write."}]},
                {"text": "She sounds upset.", "evidence": []},
            ],
        },
        topics=["late parcel", "replacement", "late parcel"],
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
    assert body["customer_effort"] == {**said["customer_effort"], "verified": True}
    [manager, late, sue, upset] = said["escalation_risk"]["reasons"]
    assert body["escalation_risk"]["reasons"] == [
        {**manager, "verified": False},
        {**late, "verified": True},
        {**sue, "evidence": [], "verified": False},
        {**upset, "verified": False},
    ]
    assert body["topics"] == ["late parcel", "replacement"]
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


async def test_filters_go_by_the_latest_analysis_whichever_it_is(workspace: Workspace, providers: Providers) -> None:
    async def found() -> list[str]:
        filters = {
            "mixed, curious, parcel": {"sentiment": "mixed", "outcome": "curious", "keyword": "parcel"},
            "negative, maybe, refund": {"sentiment": "negative", "outcome": "maybe", "keyword": "refund"},
        }
        pages = {
            name: [
                (await workspace.viewer.get("/chats", params=each)).json()["data"],
                (await workspace.viewer.get("/users/ana/chats", params=each)).json()["data"],
            ]
            for name, each in filters.items()
        }
        assert all(len({len(page) for page in both}) == 1 for both in pages.values())
        return [name for name, [page, _] in pages.items() if page]

    by_summary, by_insights = ["negative, maybe, refund"], ["mixed, curious, parcel"]
    for path, answer, expected in (
        ("/chats/summarize", summary_answer(keywords=["refund"]), by_summary),
        ("/chats/insights", insights_answer(), by_insights),
        ("/chats/summarize", summary_answer(keywords=["refund"]), by_summary),
    ):
        providers.grok.reply = grok_reply(answer)
        assert (await workspace.editor.post(path, json={**ASK, "force": True})).status_code == 200
        assert await found() == expected


async def test_insights_that_were_made_before_there_were_effort_risk_and_topics_can_be_read(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    body = (await workspace.editor.post("/chats/insights", json=ASK)).json()
    new = {"customer_effort": None, "escalation_risk": None, "topics": None}
    old = {name: body[name] for name in InsightsBody.model_fields if name not in new}
    row, _ = await services.workspaces.get_or_create("ours")
    keys = await services.workspaces.keys(row.workspace_id)
    postgresql.execute(
        "UPDATE insights SET details = %s WHERE workspace_id = %s AND conversation_id = 'c1'",
        [keys.conversation("c1").seal("insights", "details", json.dumps(old)), row.workspace_id],
    )
    postgresql.commit()
    assert (await workspace.viewer.get("/chats/c1/insights")).json() == {**body, **new}
    assert (await workspace.editor.post("/chats/insights", json=ASK)).json() == {**body, **new}
    anew = (await workspace.editor.post("/chats/insights", json={**ASK, "force": True})).json()
    assert {name: anew[name] for name in new} == {name: body[name] for name in new}


async def test_a_conversation_in_parts_gets_one_answer_of_each_kind(workspace: Workspace, providers: Providers) -> None:
    long = [message(message_id=f"l{n}", message_content=f"{n} " + "late " * 10_000) for n in range(16)]
    assert (await workspace.editor.post("/chats", json=long)).status_code == 201
    whole: Any = insights_answer(topics=["from all parts"])
    providers.grok.replies = [grok_reply(insights_answer(topics=[f"part {n}"])) for n in range(2)]
    providers.grok.reply = grok_reply(whole)
    body = (await workspace.editor.post("/chats/insights", json=ASK)).json()
    assert body["topics"] == ["from all parts"]
    shown = json.loads(providers.grok.requests[-1].body["messages"][1]["content"])
    assert sorted(each["topics"] for each in shown) == [["part 0"], ["part 1"]]
    assert set(shown[0]) == set(whole)


async def test_gemini_answers_for_grok(workspace: Workspace, providers: Providers) -> None:
    providers.grok.reply = failure(503)
    providers.gemini.reply = gemini_reply(insights_answer())
    provenance = (await workspace.editor.post("/chats/insights", json=ASK)).json()["provenance"]
    assert (provenance["model"], provenance["provider"]) == ("gemini/gemini-2.5-flash", "gemini")
    assert provenance["fallbacks"] == [{"model": "xai/grok-4.3", "reason": "unavailable"}]


async def test_nothing_that_insights_say_is_stored_in_plain_or_outlives_the_conversation(
    workspace: Workspace, providers: Providers, postgresql: psycopg.Connection
) -> None:
    reason = {"text": CANARY, "evidence": [{"message_id": "m1", "quote": CANARY}]}
    said = insights_answer(
        resolution=CANARY,
        keywords=[{"text": CANARY, "score": 1.0}],
        customer_effort={"label": "low", "score": 0.0, "reason": CANARY, "evidence": []},
        escalation_risk={"label": "high", "score": 1.0, "reasons": [reason]},
        topics=[CANARY],
    )
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

    async def test_an_angry_customer_is_heard(self, workspace: Workspace) -> None:
        told = [
            "I have called you three times already and I am still waiting for my parcel.",
            "This is ridiculous. Let me speak to a manager, or I will cancel my account.",
        ]
        sent = [message("c2", f"m{n}", message_content=text) for n, text in enumerate(told)]
        assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
        body = (await workspace.editor.post("/chats/insights", json={"conversation_id": "c2"})).json()
        assert (body["customer_effort"]["label"], body["customer_effort"]["verified"]) == ("medium", True)
        assert body["customer_effort"]["evidence"] == [{"message_id": "m0", "quote": told[0]}]
        assert body["escalation_risk"]["label"] == "high"
        assert all(reason["verified"] for reason in body["escalation_risk"]["reasons"])
        assert body["topics"] == ["parcel"]
