"""Feedback on summaries: kept with the version it speaks of, sealed, and gone with the conversation."""

from typing import Any

import httpx
import psycopg
import pytest

from app.factory import Services
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from tests.support.api import Workspace, message
from tests.support.canaries import CANARIES, Kind

PATH = "/chats/c1/summary/feedback"
COMMENT = "The zanzibar quokka was promised a refund."
CORRECTIONS = {"summary": "A quokka of Zanzibar got a refund.", "outcome": "yes", "keywords": ["quokka refund"]}
GIVEN = {"rating": "down", "comment": COMMENT, "corrections": CORRECTIONS}


@pytest.fixture
async def summary(workspace: Workspace) -> dict[str, Any]:
    assert (await workspace.editor.post("/chats", json=message())).status_code == 201
    return await summarize(workspace)


async def summarize(workspace: Workspace) -> dict[str, Any]:
    made = await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1", "force": True})
    assert made.status_code == 200
    found: dict[str, Any] = made.json()
    return found


def rows(postgresql: psycopg.Connection) -> int:
    found = postgresql.execute("SELECT count(*) FROM feedback").fetchone()
    postgresql.rollback()
    assert found
    count: int = found[0]
    return count


async def give(client: httpx.AsyncClient, **given: object) -> dict[str, Any]:
    answer = await client.post(PATH, json=given)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_viewer_is_told_what_is_kept_and_of_which_version(
    workspace: Workspace, summary: dict[str, Any]
) -> None:
    kept = await give(workspace.viewer, **GIVEN)
    assert kept.pop("created_at") <= kept.pop("updated_at")
    made = summary["provenance"]
    assert kept == {
        **GIVEN,
        "corrections": {"sentiment": None, **CORRECTIONS},
        "conversation_id": "c1",
        "summary_version": {
            "prompt_version": made["prompt_version"],
            "input_sha256": made["input_sha256"],
            "model": made["model"],
            "updated_at": summary["updated_at"],
        },
    }


@pytest.mark.usefixtures("summary")
async def test_there_is_one_for_each_caller_and_version(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    first = await give(workspace.viewer, **GIVEN)
    second = await give(workspace.viewer, rating="up")
    assert (second["rating"], second["comment"], second["corrections"]) == ("up", None, None)
    assert (second["created_at"], rows(postgresql)) == (first["created_at"], 1)
    assert second["updated_at"] > first["updated_at"]
    await give(workspace.editor, rating="up")
    assert rows(postgresql) == 2
    anew = await summarize(workspace)
    assert (await give(workspace.viewer, rating="up"))["summary_version"]["updated_at"] == anew["updated_at"]
    assert rows(postgresql) == 3


async def test_what_was_said_of_an_earlier_version_still_says_so(
    workspace: Workspace, other_workspace: Workspace, services: Services, summary: dict[str, Any]
) -> None:
    await give(workspace.viewer, **GIVEN)
    anew = await summarize(workspace)
    await give(workspace.editor, rating="up")
    ours = Viewer((await services.workspaces.named("ours")).workspace_id, Role.ADMIN)
    newest, earlier = await services.feedback.newest(ours, 10)
    assert newest.model_dump(mode="json")["summary_version"]["updated_at"] == anew["updated_at"]
    assert earlier.model_dump(mode="json")["summary_version"]["updated_at"] == summary["updated_at"]
    assert (earlier.rating, earlier.comment, newest.corrections) == ("down", COMMENT, None)
    assert await services.feedback.newest(ours, 1) == [newest]
    theirs = Viewer((await services.workspaces.named("theirs")).workspace_id, Role.ADMIN)
    assert await services.feedback.newest(theirs, 10) == []
    assert (await other_workspace.admin.get("/chats/c1/summary")).status_code == 404


@pytest.mark.usefixtures("summary")
async def test_what_people_write_is_not_stored_in_plain(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    for text in (COMMENT, CORRECTIONS["summary"]):
        CANARIES.learn(Kind.TEXT, str(text))  # looked for in every table and log after the test
    await workspace.viewer.post(PATH, json=GIVEN, headers={"Idempotency-Key": "feedback-idempotency-key"})
    [(row,)] = postgresql.execute("SELECT to_jsonb(f)::text FROM feedback AS f").fetchall()
    for hidden in ("quokka", "extractive", "summary-"):
        assert hidden not in row
        assert hidden.encode().hex() not in row
    refused = await workspace.viewer.post(PATH, json={**GIVEN, "rating": COMMENT})
    assert refused.status_code == 422
    assert COMMENT not in refused.text


@pytest.mark.usefixtures("summary")
async def test_sent_again_it_is_kept_once_and_forgotten_with_the_conversation(
    workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    headers = {"Idempotency-Key": "feedback-idempotency-key"}
    first = await workspace.viewer.post(PATH, json=GIVEN, headers=headers)
    again = await workspace.viewer.post(PATH, json=GIVEN, headers=headers)
    assert (again.status_code, again.text) == (201, first.text)
    assert again.headers["idempotency-replayed"] == "true"
    await give(workspace.editor, rating="up")
    deleted = (await workspace.admin.delete("/chats/c1")).json()["deleted"]
    assert (deleted["feedback"], rows(postgresql)) == (2, 0)
    assert (await workspace.viewer.post(PATH, json=GIVEN, headers=headers)).status_code == 404


async def test_without_a_summary_there_is_nothing_to_speak_of(
    workspace: Workspace, other_workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    await workspace.editor.post("/chats", json=message())
    none = await workspace.viewer.post(PATH, json=GIVEN)
    await summarize(workspace)
    absent = await workspace.viewer.post("/chats/absent/summary/feedback", json=GIVEN)
    foreign = await other_workspace.admin.post(PATH, json=GIVEN)
    for answer in (none, absent, foreign):
        assert (answer.status_code, answer.json()["detail"]) == (404, none.json()["detail"])
    assert rows(postgresql) == 0


WRONG: list[Any] = [
    {},
    {"rating": "sideways"},
    {"rating": None},
    {"rating": "up", "comment": ""},
    {"rating": "up", "comment": "x" * 10_001},
    {"rating": "up", "comment": "a\0"},
    {"rating": "up", "corrections": {"model": "x"}},
    {"rating": "up", "corrections": {"outcome": "perhaps"}},
    {"rating": "up", "corrections": {"keywords": ["x"] * 51}},
    {"rating": "up", "stars": 5},
    ["up"],
]


@pytest.mark.usefixtures("summary")
async def test_feedback_that_makes_no_sense_is_refused(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    for body in WRONG:
        assert (await workspace.viewer.post(PATH, json=body)).status_code == 422, body
    assert rows(postgresql) == 0
