"""What providers are shown of a conversation, and whether a workspace lets them see all of it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

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

CONVERSATION = "order-4711-ana"
CUSTOMER, AGENT = "ana.person@example.com", "agent-bob"
VALUES = {
    "EMAIL": ["ana.second@example.org", "ＢＯＢ@example.net"],
    "PHONE": ["+49 (30) 1234-5678", "(555) 010-4477"],
    "CARD": ["4111 1111 1111 1111", "3782-822463-10005"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "gb29nwbk60161331926819"],
    "IP": ["203.0.113.77", "2001:db8::1:77"],
    "NUMBER": ["٠١٢٣٤٥٦٧٨٩", "99887766"],
    "ID": ["INV-20931", "1Z999AA10123456784"],
}
READABLE = "On 2026-11-22 at 10:30 I paid $1,234.50 for 12 boxes, version 2.10.3."


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        yield opened


@pytest.fixture
def settings(settings: Settings, providers: Providers) -> Settings:
    return settings.model_copy(update=providers.settings)


@pytest.fixture
async def chat(workspace: Workspace) -> list[dict[str, str]]:
    lines = [f"My {kind.lower()} is {value}, ok?" for kind, values in VALUES.items() for value in values]
    texts = [*lines, f"{CUSTOMER} asked in m-00001 of {CONVERSATION}. [EMAIL_1] {READABLE}"]
    sent = [
        message(
            CONVERSATION,
            f"m-{number:05}",
            user_id=AGENT if number % 2 else CUSTOMER,
            user_type="support_agent" if number % 2 else "customer",
            message_content=text,
        )
        for number, text in enumerate(texts)
    ]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    return sent


def on_the_wire(providers: Providers) -> list[str]:
    return [json.dumps(request.body, ensure_ascii=False) for request in providers.requests]


def secrets(chat: list[dict[str, str]]) -> set[str]:
    ids = {each[name] for each in chat for name in ("conversation_id", "message_id", "user_id")}
    return ids.union(*VALUES.values())


def shown(providers: Providers) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(providers.grok.requests[0].body["messages"][1]["content"])
    return found


async def summarize(workspace: Workspace) -> dict[str, Any]:
    wanted = {"conversation_id": CONVERSATION, "force": True}
    made = await workspace.editor.post("/chats/summarize", json=wanted)
    assert made.status_code == 200, made.text
    found: dict[str, Any] = made.json()
    return found


async def test_no_provider_sees_a_value_and_the_answer_holds_them_all(
    workspace: Workspace, providers: Providers, chat: list[dict[str, str]]
) -> None:
    providers.grok.reply = failure(503)
    await summarize(workspace)
    seen = on_the_wire(providers)
    assert len(seen) == 3
    for body in seen:
        assert [value for value in secrets(chat) if value.lower() in body.lower()] == []
        assert READABLE in body
    turns = shown(providers)
    items = [
        {"text": turn["text"], "evidence": [{"message_id": turn["message_id"], "quote": turn["text"]}]}
        for turn in turns
    ]
    actions = [{**item, "owner": turn["user_id"], "due": ""} for item, turn in zip(items, turns, strict=True)]
    questions = [{**item, "status": "answered", "answer": item["text"]} for item in items]
    written = {"summary": " ".join(turn["text"] for turn in turns), "keywords": [turns[0]["text"]]}
    said = summary_answer(**written, action_items=actions, decisions=items, questions=questions)
    for provider, reply in ((providers.grok, grok_reply(said)), (providers.gemini, gemini_reply(said))):
        providers.grok.reply, providers.gemini.reply = failure(503), failure(503)
        provider.reply = reply
        made = await summarize(workspace)
        assert made["provenance"]["provider"] != "local"
        assert made["summary"] == " ".join(each["message_content"] for each in chat)
        assert made["keywords"] == [chat[0]["message_content"]]
        for each, action, decision, question in zip(
            chat, made["action_items"], made["decisions"], made["questions"], strict=True
        ):
            text = each["message_content"]
            for item in (action, decision, question):
                assert item["verified"], text
                assert item["text"] == text
                assert item["evidence"] == [{"message_id": each["message_id"], "quote": text}]
            assert (action["owner"], question["answer"]) == (each["user_id"], text)


async def test_insights_come_back_with_ids_and_values(
    workspace: Workspace, providers: Providers, chat: list[dict[str, str]]
) -> None:
    providers.grok.reply = grok_reply(insights_answer())
    ask = {"conversation_id": CONVERSATION, "force": True}
    await workspace.editor.post("/chats/insights", json=ask)
    turns = shown(providers)
    answer: Any = insights_answer(resolution=turns[-1]["text"])
    answer["sentiment"]["by_participant"] = [{"user_id": turns[0]["user_id"], "label": "mixed", "score": 0}]
    answer["sentiment"]["timeline"] = [{"message_id": turn["message_id"], "score": 0} for turn in turns]
    answer["outcome"]["evidence"] = [{"message_id": turns[0]["message_id"], "quote": turns[0]["text"]}]
    providers.grok.reply = grok_reply(answer)
    made = (await workspace.editor.post("/chats/insights", json=ask)).json()
    assert made["resolution"] == chat[-1]["message_content"]
    assert [each["user_id"] for each in made["sentiment"]["by_participant"]] == [CUSTOMER]
    assert [each["message_id"] for each in made["sentiment"]["timeline"]] == [each["message_id"] for each in chat]
    assert made["outcome"]["verified"]


@pytest.mark.usefixtures("chat")
async def test_the_same_conversation_is_shown_in_the_same_words(workspace: Workspace, providers: Providers) -> None:
    for _ in range(2):
        await summarize(workspace)
    first, second = providers.grok.requests
    assert first.body == second.body


async def test_what_a_provider_sees_is_the_workspaces_to_say(
    workspace: Workspace, other_workspace: Workspace, providers: Providers, chat: list[dict[str, str]]
) -> None:
    before = (await workspace.viewer.get("/workspace")).json()
    assert before == {"id": before["id"], "name": "ours", "redact": True}
    for client, status in ((workspace.viewer, 403), (workspace.editor, 403), (workspace.admin, 200)):
        assert (await client.patch("/workspace", json={"redact": False})).status_code == status
    assert (await workspace.viewer.get("/workspace")).json() == {**before, "redact": False}
    assert (await other_workspace.viewer.get("/workspace")).json()["redact"] is True
    providers.grok.reply = grok_reply(summary_answer())
    await summarize(workspace)
    assert [turn["text"] for turn in shown(providers)] == [each["message_content"] for each in chat]
    assert [turn["user_id"] for turn in shown(providers)] == [each["user_id"] for each in chat]
    changed = await workspace.admin.patch("/workspace", json={"redact": True})
    assert changed.json() == before
    await summarize(workspace)
    assert CUSTOMER not in on_the_wire(providers)[-1]


async def test_a_change_that_makes_no_sense_is_refused(workspace: Workspace) -> None:
    wrong: list[Any] = [{}, {"redact": "no"}, {"redact": None}, {"redact": False, "name": "x"}, []]
    for body in wrong:
        assert (await workspace.admin.patch("/workspace", json=body)).status_code == 422, body
    assert (await workspace.viewer.get("/workspace")).json()["redact"] is True
