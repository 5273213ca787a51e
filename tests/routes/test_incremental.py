"""Summaries that are brought up to date from the one before and from what came since."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.llm.tasks import SUMMARY
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.providers import Providers, Reply, Request, failure, grok_reply, open_providers, summary_answer


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer())
        yield opened


@pytest.fixture
def settings(settings: Settings, models: Providers) -> Settings:
    return settings.model_copy(update=models.settings)


@pytest.fixture
async def first(workspace: Workspace) -> dict[str, Any]:
    """The summary of a conversation of twenty messages."""
    await add(workspace, *range(20))
    return await summarize(workspace)


async def add(workspace: Workspace, *numbers: int, day: int = 2) -> None:
    sent = [
        message(
            message_id=f"m{number}",
            message_content=f"Parcel number {number} is late.",
            timestamp=f"2026-11-{day:02}T10:{number:02}:00Z",
        )
        for number in numbers
    ]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201


async def summarize(workspace: Workspace, **more: Any) -> dict[str, Any]:
    answer = await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1", **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asked(models: Providers) -> tuple[str, Any]:
    """Returns prompt and transcript of the latest call."""
    request = models.grok.requests[-1]
    return request.body["messages"][0]["content"], transcript(request)


def transcript(request: Request) -> Any:
    return json.loads(request.body["messages"][1]["content"])


def item(text: str, message_id: str, **more: str) -> dict[str, Any]:
    number = message_id.removeprefix("m")
    return {"text": text, "evidence": [{"message_id": message_id, "quote": f"Parcel number {number} is late."}], **more}


async def test_only_what_is_new_and_the_summary_before_are_read(
    workspace: Workspace, models: Providers, first: dict[str, Any]
) -> None:
    assert first["changes"] is None
    for number in (20, 21):
        await add(workspace, number)
        found = await summarize(workspace)
        prompt, shown = asked(models)
        assert prompt == SUMMARY.update
        assert set(shown) == {"before", "messages"}
        assert shown["before"]["summary"] == first["summary"]
        assert [each["text"] for each in shown["messages"]] == [f"Parcel number {number} is late."]
        assert found["coverage"] == {"messages_read": number + 1, "messages_total": number + 1, "complete": True}
        assert found["changes"] == {"opened": [], "closed": [], "changed": []}
        assert found["provenance"]["prompt_version"] == first["provenance"]["prompt_version"]
    assert len(models.requests) == 3


@pytest.mark.usefixtures("first")
async def test_a_message_that_arrives_late_among_the_old_ones_is_new(workspace: Workspace, models: Providers) -> None:
    await add(workspace, 30, day=1)
    assert (await summarize(workspace))["coverage"]["complete"]
    assert [each["text"] for each in asked(models)[1]["messages"]] == ["Parcel number 30 is late."]


async def test_it_says_what_was_opened_closed_and_changed(workspace: Workspace, models: Providers) -> None:
    await add(workspace, *range(20))
    unanswered, answered = {"status": "unanswered", "answer": ""}, {"status": "answered", "answer": "Friday."}
    todo = {"owner": "bob", "due": ""}
    models.grok.reply = grok_reply(
        summary_answer(
            action_items=[
                item("Send.", "m1", **todo),
                item("Call back.", "m2", **todo),
                item("Wait.", "m3", **todo),
            ],
            decisions=[item("Refund.", "m4")],
            questions=[item("When?", "m5", **unanswered), item("Why?", "m6", **unanswered)],
        )
    )
    await summarize(workspace)
    await add(workspace, 20)
    models.grok.reply = grok_reply(
        summary_answer(
            action_items=[item("Wait.", "m3", **todo), item("Send two.", "m1", **todo), item("New.", "m20", **todo)],
            decisions=[item("No refund.", "m20")],
            questions=[item("Which day?", "m5", **answered), item("Why?", "m6", **unanswered)],
        )
    )
    changes = (await summarize(workspace))["changes"]
    told = {name: [(each["kind"], each["text"]) for each in listed] for name, listed in changes.items()}
    assert told == {
        "opened": [("action_item", "New."), ("decision", "No refund.")],
        "closed": [("action_item", "Call back."), ("question", "Which day?")],
        "changed": [("action_item", "Send two.")],
    }
    stored = (await workspace.viewer.get("/chats/c1/summary")).json()
    assert stored["changes"] == changes
    assert all(each["verified"] for each in stored["action_items"]), "old messages are evidence as well"


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("why", ["asked for", "much is new", "begun anew"])
async def test_otherwise_the_whole_conversation_is_read(workspace: Workspace, models: Providers, why: str) -> None:
    if why == "begun anew":
        assert (await workspace.admin.delete("/chats/c1")).status_code == 200
        await add(workspace, *range(20))
    await add(workspace, *(range(20, 41) if why == "much is new" else [20]))
    found = await summarize(workspace, force=why == "asked for")
    prompt, shown = asked(models)
    assert prompt == SUMMARY.prompt
    assert len(shown) == found["coverage"]["messages_read"] == (41 if why == "much is new" else 21)
    assert found["changes"] is None


async def test_what_values_make_longer_than_a_model_may_write_is_kept_and_brought_up_to_date(
    workspace: Workspace, models: Providers
) -> None:
    text = "word " * 390 + "mail anna.maria.longname@example-company.com or anna.second.longname@example-company.com"
    sent = [message(message_id="m99", message_content=text, timestamp="2026-11-01T10:00:00Z")]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    await add(workspace, *range(5))

    def respond(request: Request) -> Reply:
        [hidden] = [each for each in transcript(request) if each["text"].startswith("word")]
        assert len(hidden["text"]) < 2_000 < len(text)
        quote = {"message_id": hidden["message_id"], "quote": hidden["text"]}
        email = hidden["text"].split()[-1]
        return grok_reply(
            summary_answer(
                summary=f"{email} " * 1_000,
                decisions=[{"text": hidden["text"], "evidence": [quote]}],
                keywords=[f"{email} " * 5],
            )
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models.grok, "respond", respond)
        found = await summarize(workspace)
    [decision] = found["decisions"]
    assert (decision["text"], decision["verified"], decision["evidence"][0]["quote"]) == (text, True, text)
    assert found["summary"].count("anna.second.longname@example-company.com") == 1_000
    await add(workspace, 20)
    assert (await summarize(workspace))["provenance"]["model"].startswith("xai/")
    prompt, shown = asked(models)
    assert (prompt, len(shown["before"]["decisions"])) == (SUMMARY.update, 1)
    assert "longname" not in json.dumps(shown)


@pytest.mark.usefixtures("first")
async def test_when_no_model_answers_the_built_in_engine_reads_everything(
    workspace: Workspace, models: Providers
) -> None:
    await add(workspace, 20)
    models.grok.reply = failure(500)
    found = await summarize(workspace)
    assert (found["provenance"]["provider"], found["changes"]) == ("local", None)
    assert found["coverage"] == {"messages_read": 21, "messages_total": 21, "complete": True}


@pytest.mark.usefixtures("first")
async def test_its_cost_grows_with_what_is_new(workspace: Workspace, models: Providers) -> None:
    whole = len(models.grok.requests[0].body["messages"][1]["content"])
    for number in range(20, 30):
        await add(workspace, number)
        await summarize(workspace)
        assert len(models.grok.requests[-1].body["messages"][1]["content"]) < whole / 2
