"""Ready or not, by dependency."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app.llm.breaker import FAILURES, OPEN_S
from app.repositories.sessions import APP_ROLE
from app.settings import Settings
from tests.support.accounts import Accounts, open_accounts
from tests.support.api import Workspace, message
from tests.support.metrics import scrape
from tests.support.providers import Providers, failure, grok_reply, open_providers, summary_answer
from tests.support.valkey import valkey_server

GROK, GEMINI = "xai/grok-4.3", "gemini/gemini-2.5-flash"
WELL = {"database": "ok", "schema": "ok", "queue": "ok"}


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        yield opened


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings, models: Providers) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings.model_copy(update=models.settings)) as opened:
        yield opened


async def readiness(client: httpx.AsyncClient) -> tuple[int, str, dict[str, str]]:
    answer = await client.get("/readyz")
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    return answer.status_code, answer.json()["status"], answer.json()["checks"]


async def test_models_that_fail_degrade_and_nothing_is_spent_to_find_out(accounts: Accounts, models: Providers) -> None:
    admin = accounts.client(await accounts.key())
    models.gemini.reply = models.grok.reply = failure(401)
    assert await readiness(admin) == (200, "ok", {**WELL, "llm_xai": "ok", "llm_gemini": "ok"})
    assert models.requests == []
    await admin.post("/chats", json=message())
    for _ in range(FAILURES):
        made = await admin.post("/chats/summarize", json={"conversation_id": "c1", "force": True})
        assert made.json()["provenance"]["provider"] == "local"
    asked = len(models.requests)
    found = await readiness(admin)
    assert found == (200, "degraded", {**WELL, "llm_xai": "degraded", "llm_gemini": "degraded"})
    told = await scrape(admin)
    assert [told.of("llm_breaker_open", model=model) for model in (GROK, GEMINI)] == [1, 1]
    assert told.labels("dependency") == set(WELL), "of a model each process knows its own failures only"
    assert len(models.requests) == asked
    models.grok.reply = grok_reply(summary_answer())
    [grok, _] = accounts.services.health._hops
    grok.breaker._clock = lambda: time.monotonic() + OPEN_S  # it may be tried again
    assert (await readiness(admin))[2]["llm_xai"] == "ok", "nobody is kept away, whether or not anybody tries"
    assert (await scrape(admin)).of("llm_breaker_open", model=GROK) == 0
    await admin.post("/chats/summarize", json={"conversation_id": "c1", "force": True})
    assert (await readiness(admin))[2]["llm_xai"] == "ok"


async def test_without_the_storage_of_limits_instances_count_alone(accounts: Accounts) -> None:
    with valkey_server() as server:
        url = SecretStr(f"unix://{server.unix_socket_path}?db=0")
        app = await accounts.instance(rate_limit_storage_url=url, xai_api_key=None, gemini_api_key=None)
        client = accounts.client(None, app)
        assert await readiness(client) == (200, "ok", {**WELL, "rate_limits": "ok"})
        server.terminate()
        assert await readiness(client) == (200, "degraded", {**WELL, "rate_limits": "degraded"})


async def test_jobs_that_no_worker_takes_degrade(
    workspace: Workspace, anonymous: httpx.AsyncClient, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.health.QUEUE_S", -1.0)
    await workspace.editor.post("/chats", json=message())
    await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c1"]})
    assert await readiness(anonymous) == (200, "ok", WELL), "a worker may take it yet"
    postgresql.autocommit = True
    change = "UPDATE pgqueuer.pgqueuer SET updated = now() - interval '1 min', execute_after = now() - interval '1 min'"
    postgresql.execute(change)
    assert await readiness(anonymous) == (200, "degraded", {**WELL, "queue": "degraded"})
    # One that is at work takes them one after another.
    postgresql.execute("INSERT INTO pgqueuer.pgqueuer (priority, status, entrypoint) VALUES (0, 'picked', 'summarize')")
    assert await readiness(anonymous) == (200, "ok", WELL)
    postgresql.execute("UPDATE pgqueuer.pgqueuer SET heartbeat = now() - interval '1 min'")
    assert (await readiness(anonymous))[1] == "degraded"


async def test_events_that_no_worker_sends_degrade(
    workspace: Workspace, anonymous: httpx.AsyncClient, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.health.QUEUE_S", -1.0)
    hook = {"url": "https://hooks.example.com/", "events": ["conversation.deleted"]}
    assert (await workspace.admin.post("/webhooks", json=hook)).status_code == 201
    for name in ("c1", "c2"):
        await workspace.editor.post("/chats", json=message(name))
        await workspace.admin.delete(f"/chats/{name}")
    assert await readiness(anonymous) == (200, "ok", WELL), "a worker may take it yet"
    postgresql.autocommit = True
    postgresql.execute("UPDATE webhook_deliveries SET due_at = now() - interval '1 min'")
    degraded = 200, "degraded", {**WELL, "queue": "degraded"}
    assert await readiness(anonymous) == degraded
    assert (await scrape(anonymous)).of("webhook_oldest_delivery_seconds") > 59
    sent = (
        "UPDATE webhook_deliveries SET state = 'sending', due_at = now() + interval '{}' WHERE conversation_id = 'c1'"
    )
    postgresql.execute(sent.format("20 s"))
    assert await readiness(anonymous) == (200, "ok", WELL), "its target is slow"
    postgresql.execute(sent.format("-1 s"))
    assert await readiness(anonymous) == degraded, "its worker died"
    postgresql.execute("UPDATE webhooks SET failing_since = now()")
    assert await readiness(anonymous) == (200, "ok", WELL), "its target fails, and is tried by one lane"
    assert (await scrape(anonymous)).of("webhook_oldest_delivery_seconds") == 0


async def test_what_may_not_be_read_of_the_queue_degrades(
    anonymous: httpx.AsyncClient, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.health.QUEUE_S", -1.0)
    postgresql.autocommit = True
    for what in ("ALL ON pgqueuer.pgqueuer", "USAGE ON SCHEMA pgqueuer"):
        postgresql.execute(f"REVOKE {what} FROM {APP_ROLE}".encode())
        assert await readiness(anonymous) == (200, "degraded", {**WELL, "queue": "unavailable"})
    assert (await scrape(anonymous)).of("dependency_health", dependency="queue") == 0


async def test_without_the_database_or_its_schema_it_is_not_ready(
    anonymous: httpx.AsyncClient, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    postgresql.execute("UPDATE alembic_version SET version_num = '0001'")
    assert await readiness(anonymous) == (503, "unavailable", {"database": "ok", "schema": "not migrated"})
    postgresql.execute("BEGIN; LOCK TABLE alembic_version")
    looking = asyncio.create_task(readiness(anonymous))
    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while (await asyncio.to_thread(postgresql.execute, terminate)).fetchone() == (0,):
        pass
    assert await looking == (503, "unavailable", {"database": "unavailable"})
    postgresql.execute("ROLLBACK")
