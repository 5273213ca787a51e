"""Jobs over HTTP: what is accepted, how far it is told to be, and what ends it."""

from typing import Any

import httpx
import psycopg
import pytest

from app.factory import Services
from app.services import jobs
from tests.support.api import Workspace, message
from tests.support.jobs import entries, run_all


@pytest.fixture
async def chats(workspace: Workspace) -> list[str]:
    """Returns the ids of three conversations."""
    names = ["c0", "c1", "c2"]
    sent = [message(name, f"m{n}", user_id=f"ana-{name}") for name in names for n in range(2)]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    return names


async def create(workspace: Workspace, **body: Any) -> dict[str, Any]:
    answer = await workspace.editor.post("/jobs/summarize", json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/jobs/{found['id']}"
    return found


async def read(workspace: Workspace, job: dict[str, Any]) -> dict[str, Any]:
    answer = await workspace.viewer.get(f"/jobs/{job['id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_job_is_accepted_carried_on_and_over(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=[*chats, "c0"])
    fresh = {"status": "queued", "total": 3, "done": 0, "failed": 0, "errors": [], "cost_usd": 0.0}
    assert job == {"id": job["id"], **fresh} == await read(workspace, job)
    assert entries(postgresql) == 1
    await run_all(services, postgresql)
    assert await read(workspace, job) == {**job, "status": "completed", "done": 3}
    for name in chats:
        assert (await workspace.viewer.get(f"/chats/{name}/summary")).status_code == 200


async def test_what_does_not_exist_fails_alone(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=["gone", *chats])
    errors = [{"conversation_id": "gone", "code": "not_found"}]
    assert (job["total"], job["failed"], job["errors"]) == (4, 1, errors)
    await run_all(services, postgresql)
    assert await read(workspace, job) == {**job, "status": "completed", "done": 3}


async def test_the_list_of_errors_is_bounded(workspace: Workspace, chats: list[str]) -> None:
    job = await create(workspace, conversation_ids=[*(f"x{n}" for n in range(150)), *chats])
    assert (job["total"], job["failed"], len(job["errors"])) == (153, 150, 100)


async def test_ids_of_nothing_are_not_found(
    workspace: Workspace, other_workspace: Workspace, chats: list[str], postgresql: psycopg.Connection
) -> None:
    for client, names in ((workspace.editor, ["gone"]), (other_workspace.editor, chats)):
        answer = await client.post("/jobs/summarize", json={"conversation_ids": names})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert postgresql.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert entries(postgresql) == 0


async def test_another_workspaces_job_does_not_exist(
    workspace: Workspace, other_workspace: Workspace, chats: list[str]
) -> None:
    job = await create(workspace, conversation_ids=chats)
    for method in ("GET", "DELETE"):
        for name in (job["id"], "123", "none", "0"):
            answer = await other_workspace.admin.request(method, f"/jobs/{name}")
            assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such job.")
    assert (await read(workspace, job))["status"] == "queued"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, 3),
        ({"user_id": "ana-c1"}, 1),
        ({"q": "parcel"}, 3),
        ({"q": "zeppelin"}, 0),
        ({"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}, 3),
        ({"from": "2026-11-02T00:00:00Z"}, 0),
        ({"sentiment": "negative"}, 0),
        ({"outcome": "yes"}, 0),
        ({"keyword": "zeppelin"}, 0),
    ],
)
async def test_a_filter_selects_as_in_the_search(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection, wanted: Any, found: int
) -> None:
    job = await create(workspace, filter=wanted)
    listed = await workspace.viewer.get("/chats", params=wanted)
    assert job["total"] == found == len(listed.json()["data"])
    assert job["status"] == ("queued" if found else "completed")
    await run_all(services, postgresql)
    assert (await read(workspace, job))["done"] == found


async def test_a_filter_that_is_too_wide_is_refused(
    workspace: Workspace, chats: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOB_SIZE", 2)
    answer = await workspace.editor.post("/jobs/summarize", json={"filter": {}})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "too_many_conversations")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"conversation_ids": []},
        {"conversation_ids": None},
        {"conversation_ids": ["c0"], "filter": {}},
        {"conversation_ids": ["c0"], "filter": None},
        {"conversation_ids": [""]},
        {"conversation_ids": ["c0"], "dry_run": "yes"},
        {"conversation_ids": ["c0"], "batch": 1},
        {"filter": {"limit": 1}},
        {"filter": {"sentiment": "angry"}},
        {"filter": []},
        {"conversation_ids": ["c"] * 10_001},
    ],
)
async def test_what_selects_nothing_sensible_is_refused(workspace: Workspace, body: Any) -> None:
    answer = await workspace.editor.post("/jobs/summarize", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_dry_run_makes_nothing(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    async def estimate(**more: Any) -> dict[str, Any]:
        answer = await workspace.editor.post("/jobs/summarize", json={"filter": {}, "dry_run": True, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    first = await estimate()
    assert {name: first[name] for name in ("conversations", "to_read", "cost_usd", "model")} == {
        "conversations": 3,
        "to_read": 3,
        "cost_usd": 0.0,
        "model": "local/extractive",
    }
    assert postgresql.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    long = message("c0", "m9", message_content="word " * 2_000)
    await workspace.editor.post("/chats", json=long)
    assert 2_400 < (await estimate())["tokens"] - first["tokens"] < 2_600
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c0"})
    assert [(await estimate(force=force))["to_read"] for force in (False, True)] == [2, 3]


async def test_a_dry_run_tells_the_first_models_price(
    workspace: Workspace, services: Services, chats: list[str]
) -> None:
    async def price(model: str) -> float | None:
        services.jobs._model = model
        answer = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": chats, "dry_run": True})
        found: float | None = answer.json()["cost_usd"]
        return found

    cost = await price("xai/grok-4.3")
    assert cost
    assert 0.001 < cost < 0.1
    assert await price("xai/unheard-of") is None


async def test_without_a_provider_nothing_is_read_together(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    body = {"conversation_ids": chats, "batch": True}
    answer = await workspace.editor.post("/jobs/summarize", json={**body, "dry_run": True})
    assert (answer.json()["calls"], answer.json()["cost_usd"]) == (3, 0.0)
    job = await create(workspace, **body)
    await run_all(services, postgresql)
    assert (await read(workspace, job))["done"] == 3


async def test_a_cancelled_job_does_nothing_more(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=chats)
    assert (await workspace.viewer.delete(f"/jobs/{job['id']}")).status_code == 403
    for _ in range(2):
        answer = await workspace.editor.delete(f"/jobs/{job['id']}")
        assert (answer.status_code, answer.json()) == (200, {**job, "status": "cancelled"})
    await run_all(services, postgresql)
    assert await read(workspace, job) == {**job, "status": "cancelled"}
    assert (await workspace.viewer.get("/chats/c0/summary")).status_code == 404


async def test_a_job_that_is_over_is_not_cancelled(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=chats)
    await run_all(services, postgresql)
    assert (await workspace.editor.delete(f"/jobs/{job['id']}")).json()["status"] == "completed"


async def test_a_job_sent_again_is_made_once(
    workspace: Workspace, chats: list[str], postgresql: psycopg.Connection
) -> None:
    headers = {"Idempotency-Key": "a-job-canary-4711"}

    async def send(**body: Any) -> httpx.Response:
        return await workspace.editor.post("/jobs/summarize", json=body, headers=headers)

    first, again = await send(conversation_ids=chats), await send(conversation_ids=chats)
    assert first.status_code == again.status_code == 202
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert entries(postgresql) == 1
    assert (await send(conversation_ids=chats[:1])).json()["code"] == "idempotency_key_reused"


async def test_a_single_summary_can_be_a_job(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    async def send(name: str, prefer: str) -> httpx.Response:
        headers = {"Prefer": prefer}
        return await workspace.editor.post("/chats/summarize", json={"conversation_id": name}, headers=headers)

    assert (await send("c1", "wait=10")).status_code == 200
    assert (await send("gone", "respond-async")).status_code == 404
    answer = await send("c0", "wait=10, Respond-Async")
    job = answer.json()
    assert (answer.status_code, answer.headers["Location"], job["total"]) == (202, f"/jobs/{job['id']}", 1)
    await run_all(services, postgresql)
    assert (await read(workspace, job))["status"] == "completed"


async def test_force_is_for_each_conversation_of_the_job(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    async def made_at() -> str:
        found: str = (await workspace.viewer.get("/chats/c0/summary")).json()["updated_at"]
        return found

    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c0"})
    first = await made_at()
    for force in (False, True):
        await create(workspace, conversation_ids=["c0"], force=force)
        await run_all(services, postgresql)
        assert (await made_at() > first) == force


async def test_a_conversation_deleted_meanwhile_stays_deleted(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=chats)
    await workspace.admin.delete("/chats/c1")
    await run_all(services, postgresql)
    assert await read(workspace, job) == {**job, "status": "completed", "done": 2, "failed": 1}
    assert (await workspace.viewer.get("/chats/c1")).status_code == 404
    assert postgresql.execute("SELECT count(*) FROM summaries WHERE conversation_id = 'c1'").fetchone() == (0,)


async def test_an_id_that_came_after_its_job_goes_with_its_conversation(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    jobs = [await create(workspace, conversation_ids=["x1", "late", "x0", *chats]) for _ in range(2)]
    await workspace.editor.post("/chats", json=message("late"))
    assert (await workspace.admin.delete("/chats/late")).status_code == 200
    for job in jobs:
        found = await read(workspace, job)
        assert (found["failed"], [each["conversation_id"] for each in found["errors"]]) == (3, ["x1", "x0"])
    assert "late" not in str(postgresql.execute("SELECT jobs::text FROM jobs").fetchall())


async def test_a_job_of_nothing_but_failures_has_failed(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=["c1"])
    await workspace.admin.delete("/chats/c1")
    await run_all(services, postgresql)
    assert await read(workspace, job) == {**job, "status": "failed", "failed": 1}


async def test_who_asked_is_kept_and_may_be_gone_by_then(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=chats)
    me = (await workspace.editor.get("/auth/me")).json()["credential"]
    asked = postgresql.execute("SELECT requested_by FROM jobs").fetchone()
    assert asked == (me["actor"],)
    assert (await workspace.admin.delete(f"/auth/keys/{me['key_id']}")).is_success
    refused = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": chats})
    assert refused.status_code == 401
    await run_all(services, postgresql)
    assert (await read(workspace, job))["done"] == 3


async def test_a_job_counts_among_the_requests_to_models(workspace: Workspace, chats: list[str]) -> None:
    answer = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": chats})
    assert answer.headers["RateLimit-Policy"].startswith('"llm"')


async def test_old_jobs_go_when_new_ones_come(
    workspace: Workspace, services: Services, chats: list[str], postgresql: psycopg.Connection
) -> None:
    job = await create(workspace, conversation_ids=chats)
    await run_all(services, postgresql)
    postgresql.execute("UPDATE jobs SET finished_at = now() - interval '31 days'")
    postgresql.commit()
    assert (await workspace.viewer.get(f"/jobs/{job['id']}")).status_code == 404
    await create(workspace, conversation_ids=chats)
    assert postgresql.execute("SELECT count(*) FROM job_items").fetchone() == (3,)
