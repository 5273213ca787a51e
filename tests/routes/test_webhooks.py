"""Webhooks: each event is told, signed and without text, as often as it takes and to nobody else."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from jsonschema import validate
from standardwebhooks import WebhookVerificationError

from app.factory import Services
from app.settings import ROOT, Settings
from tests.support.api import Workspace, message
from tests.support.canaries import CANARIES, Kind
from tests.support.jobs import run_all
from tests.support.receiver import Receiver, answer, open_receiver
from tests.support.webhooks import ALL, Hook, hook, pass_time, send_all, summarize


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allowed_networks": ("127.0.0.1/32",)})


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


async def test_each_event_is_told_signed_and_without_text_as_the_document_says(
    app: FastAPI, services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target)
    await summarize(workspace, "c/1 ü")
    asked = {"conversation_id": "c/1 ü"}
    assert (await workspace.editor.post("/chats/insights", json=asked)).status_code == 200
    job = (await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c/1 ü"]})).json()
    await run_all(services, postgresql)
    await send_all(services, made)
    await workspace.admin.delete("/chats/c%2F1%20%C3%BC")
    await send_all(services, made)
    told = {each["type"]: each["data"] for each in (request.verified(made.secret) for request in target.requests)}
    url = "http://localhost:8000/chats/c%2F1%20%C3%BC"
    assert told == {
        "summary.created": {**asked, "url": f"{url}/summary"},
        "question.unanswered": {**asked, "questions": 1, "url": f"{url}/summary"},
        "insights.created": {**asked, "url": f"{url}/insights"},
        "job.finished": {"job_id": job["id"], "status": "completed", "url": f"http://localhost:8000/jobs/{job['id']}"},
        "conversation.deleted": asked,
    }
    assert len(target.requests) == 5
    for request in target.requests:
        assert request.path == "/hooks?token=canary-of-the-target-4711"
        assert request.headers["content-type"] == "application/json"
        assert b"parcel" not in request.body
        with pytest.raises(WebhookVerificationError):
            request.verified("whsec_" + "AAAA" * 8)
    assert len({request.headers["webhook-id"] for request in target.requests}) == 5
    document = app.openapi()
    assert set(document["webhooks"]) == set(ALL)
    for request in target.requests:
        sent = json.loads(request.body)
        content = document["webhooks"][sent["type"]]["post"]["requestBody"]["content"]["application/json"]
        validate(sent, {**content["schema"], "components": document["components"]})


async def test_a_webhook_is_told_what_it_asked_for_and_others_nothing(
    services: Services, workspace: Workspace, other_workspace: Workspace, target: Receiver
) -> None:
    ours = await hook(workspace, target, "question.unanswered")
    await hook(other_workspace, target)
    await summarize(workspace, "answered", "Thank you, that is all.")
    await summarize(workspace, "open")
    [delivery] = await ours.log()
    assert (delivery["event"], delivery["conversation_id"], delivery["state"]) == (
        "question.unanswered",
        "open",
        "pending",
    )
    await send_all(services, ours)
    [request] = target.requests
    assert request.headers["webhook-id"] == delivery["id"]
    [done] = await ours.log()
    assert (done["state"], done["status_code"], done["attempts"], done["error"]) == ("delivered", 204, 1, None)
    assert done["next_attempt_at"] is None
    assert done["duration_ms"] >= 0


async def test_a_job_tells_its_end_however_it_ends(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "job.finished")
    await workspace.editor.post("/chats", json=message())
    empty = await workspace.editor.post("/jobs/summarize", json={"filter": {"user_id": "nobody"}})
    assert empty.json()["status"] == "completed"
    cancelled = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c1"]})
    for _ in range(2):
        await workspace.editor.delete(f"/jobs/{cancelled.json()['id']}")
    failed = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c1"]})
    await workspace.admin.delete("/chats/c1")
    await run_all(services, postgresql)
    await send_all(services, made)
    told = {each["data"]["job_id"]: each["data"]["status"] for each in map(_document(made), target.requests)}
    ids = [each.json()["id"] for each in (empty, cancelled, failed)]
    assert told == dict(zip(ids, ["completed", "cancelled", "failed"], strict=True))
    assert len(target.requests) == 3


def _document(made: Hook) -> Any:
    return lambda request: request.verified(made.secret)


async def test_a_failure_is_tried_again_with_the_same_id_and_body(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    target.replies = [answer(500), answer(404), answer(302, "Location: http://127.0.0.1:1/")]
    for attempt, (code, error, least_s) in enumerate(
        [(500, "status_500", 5), (404, "status_404", 300), (302, "redirect", 1_800)], 1
    ):
        await send_all(services, made)
        [log] = await made.log()
        assert (log["attempts"], log["status_code"], log["error"], log["state"]) == (attempt, code, error, "pending")
        wait = postgresql.execute("SELECT due_at - clock_timestamp() FROM webhook_deliveries").fetchone()
        assert wait
        assert least_s - 5 < wait[0].total_seconds() < least_s * 1.2
        assert (await made.shown())["failing_since"]
        pass_time(postgresql)
    await send_all(services, made)
    [log] = await made.log()
    assert (log["attempts"], log["status_code"], log["error"], log["state"]) == (4, 204, None, "delivered")
    assert (await made.shown())["failing_since"] is None
    assert len({(request.headers["webhook-id"], request.body) for request in target.requests}) == 1
    assert len(target.requests) == 4


async def test_after_ten_attempts_an_event_is_given_up(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=message("given-up-4711-canary"))
    await workspace.admin.delete("/chats/given-up-4711-canary")
    target.replies = [answer(503)] * 20
    for _ in range(12):
        await send_all(services, made)
        pass_time(postgresql)
    [log] = await made.log()
    assert (log["attempts"], log["state"], len(target.requests)) == (10, "failed", 10)
    assert log["conversation_id"] is None
    CANARIES.learn(Kind.TEXT, "given-up-4711-canary")  # looked for in every table after the test


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        ("3600", 3_500, 3_600),
        ("99999999999", 86_000, 86_400),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 86_000, 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 4, 6),
        ("-1", 4, 6),
        ("soon", 4, 6),
    ],
)
async def test_a_target_that_asks_to_wait_is_left_alone_so_long(
    services: Services,
    workspace: Workspace,
    target: Receiver,
    postgresql: psycopg.Connection,
    header: str,
    least_s: int,
    most_s: int,
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    target.replies = [answer(429, f"Retry-After: {header}")]
    await send_all(services, made)
    wait = postgresql.execute("SELECT due_at - clock_timestamp() FROM webhook_deliveries").fetchone()
    assert wait
    assert least_s < wait[0].total_seconds() <= most_s


async def test_a_target_that_is_gone_is_disabled_and_what_was_on_its_way_given_up(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created", "question.unanswered")
    await summarize(workspace)
    target.replies = [answer(410)]
    await send_all(services, made)
    shown = await made.shown()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
    log = await made.log()
    assert {each["state"] for each in log} == {"failed"}
    assert {each["error"] for each in log} == {"status_410", "disabled"}
    await summarize(workspace, "c2")
    assert len(await made.log()) == 2
    refused = await made.replay(log[0]["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
    back = await workspace.admin.patch(f"/webhooks/{made.id}", json={"enabled": True})
    assert (back.json()["enabled"], back.json()["disabled_reason"], back.json()["secret"]) == (True, None, None)
    for each in log:
        assert (await made.replay(each["id"])).status_code == 202
    await send_all(services, made)
    assert {each["state"] for each in await made.log()} == {"delivered"}
    assert len(target.requests) == 3


async def test_a_target_that_fails_for_five_days_is_disabled(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    target.replies = [answer(500), answer(500)]
    await send_all(services, made)
    postgresql.execute("UPDATE webhooks SET failing_since = failing_since - interval '5 days 1 minute'")
    pass_time(postgresql)
    await send_all(services, made)
    shown = await made.shown()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "failing")
    assert [each["state"] for each in await made.log()] == ["failed"]


async def test_a_deletion_takes_deliveries_along_and_is_forgotten_once_it_was_told(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    name = "forgotten-4711-canary"
    made = await hook(workspace, target)
    await summarize(workspace, name)
    await send_all(services, made)
    await summarize(workspace, "kept")
    assert len(await made.log()) == 4
    await workspace.admin.delete(f"/chats/{name}")
    log = await made.log()
    assert [(each["event"], each["conversation_id"]) for each in log if each["conversation_id"] != "kept"] == [
        ("conversation.deleted", name)
    ]
    assert len(log) == 3
    await send_all(services, made)
    [told] = [each for each in await made.log() if each["event"] == "conversation.deleted"]
    assert (told["state"], told["conversation_id"]) == ("delivered", None)
    refused = await made.replay(told["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
    CANARIES.learn(Kind.TEXT, name)  # looked for in every table after the test


async def test_a_thousand_deletions_are_told_one_by_one(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=[message(f"c{n}") for n in range(1_000)])
    await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 1_000})
    found = postgresql.execute("SELECT count(*), count(DISTINCT conversation_id) FROM webhook_deliveries").fetchone()
    assert found == (1_000, 1_000)
    stopping = asyncio.Event()
    running = asyncio.create_task(services.deliveries.run(stopping))
    await target.until(1_000, timeout_s=60)
    stopping.set()
    await running
    ids = {request.verified(made.secret)["data"]["conversation_id"] for request in target.requests}
    assert len(ids) == len(target.requests) == 1_000


async def test_what_is_undone_is_not_told(workspace: Workspace, target: Receiver) -> None:
    made = await hook(workspace, target)
    assert (await workspace.admin.delete("/chats/nothing")).status_code == 404
    assert (await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["nothing"]})).status_code == 404
    assert await made.log() == []


async def test_a_new_secret_and_the_old_one_sign_together_for_a_day(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    rotated = (await workspace.admin.patch(f"/webhooks/{made.id}", json={"rotate_secret": True})).json()
    assert rotated["secret"] not in (None, made.secret)
    await summarize(workspace)
    await send_all(services, made)
    assert target.requests[0].verified(made.secret) == target.requests[0].verified(rotated["secret"])
    postgresql.execute("UPDATE webhooks SET previous_until = now()")
    postgresql.commit()
    await summarize(workspace, "c2")
    await send_all(services, made)
    assert target.requests[1].verified(rotated["secret"])
    with pytest.raises(WebhookVerificationError):
        target.requests[1].verified(made.secret)


async def test_replay_sends_the_same_again(services: Services, workspace: Workspace, target: Receiver) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    await send_all(services, made)
    [log] = await made.log()
    again = await made.replay(log["id"])
    assert (again.status_code, again.json()["state"], again.json()["attempts"]) == (202, "pending", 0)
    await send_all(services, made)
    first, second = target.requests
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    entries = (await workspace.admin.get("/audit", params={"target": f"webhook:{made.id}"})).json()["data"]
    assert [each["action"] for each in entries] == ["delivery.replayed", "webhook.created"]


async def test_webhooks_are_listed_changed_and_deleted(workspace: Workspace, target: Receiver) -> None:
    made = [await hook(workspace, target, "job.finished") for _ in range(3)]
    page = (await workspace.admin.get("/webhooks", params={"limit": 2})).json()
    rest = (await workspace.admin.get("/webhooks", params={"cursor": page["next_cursor"]})).json()
    assert [each["id"] for each in page["data"] + rest["data"]] == [each.id for each in reversed(made)]
    assert all("secret" not in each for each in page["data"])
    path = f"/webhooks/{made[0].id}"
    changed = await workspace.admin.patch(path, json={"events": ["summary.created"], "enabled": False})
    assert (changed.json()["events"], changed.json()["enabled"]) == (["summary.created"], False)
    refused: list[dict[str, Any]] = [{}, {"enabled": None}, {"events": []}, {"events": ["no.event"]}]
    for wrong in (*refused, {"url": "https://10.0.0.1/"}, {"url": "http://user:pw@127.0.0.1:8080/"}):
        answered = await workspace.admin.patch(path, json=wrong)
        assert (answered.status_code, answered.json()["code"]) == (422, "invalid"), wrong
    assert (await workspace.admin.delete(path)).status_code == 204
    for gone in (workspace.admin.delete(path), workspace.admin.get(f"{path}/deliveries")):
        assert (await gone).status_code == 404
    entries = (await workspace.admin.get("/audit", params={"target": f"webhook:{made[0].id}"})).json()["data"]
    assert [each["action"] for each in entries] == ["webhook.deleted", "webhook.changed", "webhook.created"]
    assert "token" not in str(entries)


async def test_a_workspace_has_twenty_at_the_most(workspace: Workspace, target: Receiver) -> None:
    body = {"url": target.url, "events": ALL}
    answers = await asyncio.gather(*(workspace.admin.post("/webhooks", json=body) for _ in range(25)))
    assert sorted(each.status_code for each in answers) == [201] * 20 + [409] * 5
    assert {each.json()["code"] for each in answers if each.status_code == 409} == {"too_many_webhooks"}


async def test_the_log_comes_in_pages_and_is_kept_for_thirty_days(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    for n in range(3):
        await summarize(workspace, f"c{n}")
    path = f"/webhooks/{made.id}/deliveries"
    page = (await workspace.admin.get(path, params={"limit": 2})).json()
    rest = (await workspace.admin.get(path, params={"cursor": page["next_cursor"]})).json()
    assert [each["conversation_id"] for each in page["data"] + rest["data"]] == ["c2", "c1", "c0"]
    postgresql.execute("UPDATE webhook_deliveries SET created_at = now() - interval '31 days' WHERE state = 'pending'")
    postgresql.commit()
    await summarize(workspace, "c9")
    await services.deliveries.drop_old()
    assert [each["conversation_id"] for each in await made.log()] == ["c9"]


async def test_what_was_written_while_a_webhook_was_disabled_is_given_up(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=message())
    await workspace.admin.delete("/chats/c1")
    postgresql.execute("UPDATE webhooks SET enabled = false")
    postgresql.commit()
    await services.deliveries.drop_old()
    [log] = await made.log()
    assert (log["state"], log["error"], log["conversation_id"]) == ("failed", "disabled", None)


async def test_the_receiver_of_the_readme_tells_events_from_forgeries(
    services: Services, workspace: Workspace, tmp_path: Path
) -> None:
    [code] = re.findall(r"```python\n(# receive\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "receive.py").write_text(code.replace("9000", str(port)))
    made = await hook(workspace, Receiver(f"http://127.0.0.1:{port}/hooks"), "conversation.deleted")
    await workspace.editor.post("/chats", json=message())
    await workspace.admin.delete("/chats/c1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(tmp_path / "receive.py")),
        env={**os.environ, "WEBHOOK_SECRET": made.secret},
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(_until_it_listens, port)
            await send_all(services, made)
            assert process.stdout
            said = await process.stdout.readline()
        async with httpx.AsyncClient() as forger:
            forged = await forger.post(f"http://127.0.0.1:{port}/hooks", content=b"{}", headers={"webhook-id": "1"})
    finally:
        process.kill()
        await process.wait()
    assert said.endswith(b"conversation.deleted {'conversation_id': 'c1'}\n")
    assert forged.status_code == 401


def _until_it_listens(port: int) -> None:
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
