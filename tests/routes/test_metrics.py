"""What the service counts, and that nobody else chooses a label."""

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator

import httpx
import psutil
import psycopg
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.db import POOL_TIMEOUT_S
from app.metrics import METHODS
from app.schemas.enums import Role
from app.settings import ROOT, Settings
from tests.support.accounts import Accounts, open_accounts
from tests.support.api import Workspace, message
from tests.support.live import bearer, following
from tests.support.metrics import Metrics, scrape, since
from tests.support.process import WORK, environment, serving, working
from tests.support.providers import Providers, failure, gemini_reply, grok_reply, open_providers, summary_answer
from tests.support.receiver import answer, open_receiver
from tests.support.webhooks import hook, pass_time

REQUESTS = "http_request_duration_seconds_count"
MODEL = "xai/grok-4.3"


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer(), cached_tokens=768)
        opened.gemini.reply = gemini_reply(summary_answer())
        yield opened


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings, models: Providers) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings.model_copy(update=models.settings)) as opened:
        yield opened


async def test_requests_are_counted_by_route_and_status(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    before = await scrape(anonymous)
    for _ in range(3):
        assert (await workspace.editor.post("/chats", json=message("secret-id"))).status_code == 201
    assert (await workspace.viewer.get("/chats/secret-id")).status_code == 200
    assert (await workspace.viewer.get("/chats/other")).status_code == 404
    assert (await workspace.viewer.head("/chats/secret-id")).status_code == 200
    assert (await anonymous.get("/chats")).status_code == 401
    found = since(before, await scrape(anonymous))
    assert found.of(REQUESTS, method="POST", route="/chats", status="201") == 3
    one = {"route": "/chats/{conversation_id}", "status": "200"}
    assert [found.of(REQUESTS, method=method, **one) for method in ("GET", "HEAD")] == [1, 1]
    assert found.of(REQUESTS, **{**one, "status": "404"}) == 1
    assert found.of(REQUESTS, route="/chats", status="401") == 1
    assert found.of("http_request_duration_seconds_sum", route="/chats") > 0
    assert [found.of("http_problems_total", code=code) for code in ("not_found", "unauthenticated")] == [1, 1]


async def test_no_client_makes_a_label(app: FastAPI, workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    await anonymous.get("/nothing")
    before = await scrape(anonymous)
    for number in range(20):
        for path in (f"/nothing-{number}", f"/chats/{number}/nothing", f"/users/u{number}/chats", f"/%00{number}"):
            await anonymous.get(path)
            await workspace.viewer.request(f"BREW{number}", path)
        await workspace.viewer.get("/chats", params={"user_id": f"u{number}", f"x{number}": "1"})
        await workspace.viewer.get(
            "/chats", headers={"X-Request-Id": f"r{number}", "Origin": f"https://o{number}.test"}
        )
    now = await scrape(anonymous)
    # FastAPI's own routes are for its pages.
    routes = {route.path for route in app.routes if hasattr(route, "path")} | {
        route.path for each in app.routes for route in getattr(each, "routes", ())
    }
    counted = since(before, now)
    assert counted.labels("route") <= {*(str(path) for path in app.openapi()["paths"]), *routes, "none"}
    assert counted.labels("method") <= {*METHODS, "other"}
    assert counted.of(REQUESTS, method="other") == 80
    new = {place for place in now if place not in before}
    assert len({has for name, has in new if name == REQUESTS}) < 12
    assert not [value for _, has in now for _, value in has if re.search(r"u1\b|BREW|nothing-|r1\b|o1\.", value)]


async def test_messages_are_counted_by_what_became_of_them(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    before = await scrape(anonymous)
    batch = [message("c1", f"m{number}") for number in range(3)]
    assert (await workspace.editor.post("/chats", json=batch)).status_code == 201
    assert (await workspace.editor.post("/chats", json=[*batch, message("c1", "m3")])).status_code == 201
    other = message("c1", "m1", message_content="other")
    assert (await workspace.editor.post("/chats", json=other)).status_code == 409
    rows = "conversation_id,message_id,user_id,user_type,message_content\n" + "".join(
        f"c2,{number},ana,{kind},hello\n" for number, kind in enumerate(["customer", "customer", "robot"])
    )
    sent = await workspace.editor.post("/chats", content=rows, headers={"Content-Type": "text/csv"})
    assert (sent.json()["stored"], sent.json()["rejected"]) == (2, 1)
    found = since(before, await scrape(anonymous))
    kinds = ("stored", "duplicate", "rejected")
    assert [found.of("messages_total", result=result) for result in kinds] == [3 + 1 + 2, 3, 1 + 1]


async def test_calls_of_models_are_counted_with_what_they_took(accounts: Accounts, models: Providers) -> None:
    admin = accounts.client(await accounts.key())
    before = await scrape(admin)
    await admin.post("/chats", json=[message(f"c{number}") for number in range(3)])

    async def summarize(conversation_id: str) -> str:
        answer = await admin.post("/chats/summarize", json={"conversation_id": conversation_id})
        return str(answer.json()["provenance"]["model"])

    assert [await summarize("c0"), await summarize("c0")] == [MODEL, MODEL]
    models.grok.reply = failure(401)
    assert await summarize("c1") == "gemini/gemini-2.5-flash"
    budget = {"day_usd": 0.0001}
    assert (await admin.put("/analytics/budgets/workspace", json=budget)).status_code == 204
    assert await summarize("c2") == "local/extractive"
    found = since(before, await scrape(admin))
    outcomes = [
        found.of("llm_call_duration_seconds_count", model=MODEL, outcome=o) for o in ("answered", "unauthorized")
    ]
    assert outcomes == [1, 1]
    assert [found.of("llm_tokens_total", model=MODEL, kind=k) for k in ("prompt", "completion", "cached")] == [
        *(1_000, 100, 768),
    ]
    assert found.of("llm_cost_usd_total", model=MODEL) == pytest.approx(232 * 1.25e-6 + 768 * 0.2e-6 + 100 * 2.5e-6)
    assert found.of("llm_fallbacks_total", model=MODEL, reason="unauthorized") == 1
    assert found.of("llm_fallbacks_total", reason="over_budget") == 2
    sources = [found.of("analyses_total", kind="summary", source=s) for s in ("stored", "model", "engine")]
    assert sources == [1, 2, 1]
    assert found.of("llm_calls_near_budget_total") == 2, "each is more than is left"
    # A call reserves about five cents, and of this one and that before less than a tenth is left.
    models.grok.reply = grok_reply(summary_answer())
    left = (await admin.get("/analytics/usage")).json()["cost_usd"]
    for limit in (left + 10, left + 0.05):
        await admin.put("/analytics/budgets/workspace", json={"day_usd": limit})
        await admin.post("/chats/summarize", json={"conversation_id": "c2", "force": True})
    assert since(before, await scrape(admin)).of("llm_calls_near_budget_total") == 3


async def test_waits_for_a_connection_and_what_fails_are_counted(
    accounts: Accounts, models: Providers, postgresql: psycopg.Connection
) -> None:
    app = await accounts.instance(database_pool_size=2, database_timeout_s=POOL_TIMEOUT_S + 1.5)
    client = accounts.client(await accounts.key(), app)
    assert (await client.get("/chats/c1")).status_code == 404
    before = await scrape(client)
    assert [before.of(f"database_pool_{each}", server="primary") for each in ("size", "in_use")] == [2, 0]
    postgresql.execute("BEGIN; LOCK TABLE conversations")
    asking = [asyncio.create_task(client.get("/chats/c1")) for _ in range(3)]
    during = Metrics()
    while since(before, during).of("database_errors_total", reason="pool_exhausted") < 1:
        during = await scrape(client)
    assert during.of("database_pool_in_use", server="primary") == 2
    assert (before.of("http_requests_in_flight"), during.of("http_requests_in_flight") >= 3) == (1, True)
    assert during.of("dependency_health", dependency="database") == 1, "it answers; requests have all connections"
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [503] * 3
    postgresql.execute("ROLLBACK")
    found = since(before, await scrape(client))
    assert found.of("database_errors_total", reason="timeout") == 2
    assert found.of("database_pool_wait_seconds_count") >= 1
    assert found.of("database_pool_wait_seconds_sum") >= POOL_TIMEOUT_S
    assert found.of("database_units_total", kind="read") >= 2
    assert (await client.post("/chats", json=[message("c1", "1"), message("c1", "2")])).status_code == 201
    assert since(before, await scrape(client)).of("database_units_total", kind="transaction") >= 1


async def test_requests_over_a_limit_are_counted_by_the_limit(accounts: Accounts) -> None:
    app = await accounts.instance(rate_limit_read="2/day")
    client = accounts.client(await accounts.key(), app)
    before = await scrape(client)
    assert [(await client.get("/chats")).status_code for _ in range(4)] == [200, 200, 429, 429]
    found = since(before, await scrape(client))
    assert found.of("rate_limited_requests_total", limit="read") == 2
    assert found.of("http_problems_total", code="rate_limited") == 2


async def test_the_queue_is_told_as_it_is(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    await workspace.editor.post("/chats", json=message())
    assert (await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c1"]})).status_code == 202
    found = await scrape(anonymous)
    assert [found.of("queue_jobs", state=state) for state in ("waiting", "running")] == [1, 0]
    assert 0 < found.of("queue_oldest_job_seconds") < 60
    assert [found.of("dependency_health", dependency=each) for each in ("database", "schema", "queue")] == [1, 1, 1]
    assert found.of("process_resident_memory_bytes") > 2**20


async def test_deliveries_are_counted_and_what_waits_is_told_of_targets_that_are_well(
    accounts: Accounts, postgresql: psycopg.Connection
) -> None:
    app = await accounts.instance(webhook_allowed_networks=("127.0.0.1/32",))
    services, admin = app.state.services, accounts.client(await accounts.key(), app)
    kinds = ("delivered", "failed", "given_up")
    async with open_receiver() as target:
        ours = Workspace(keys={}, admin=admin, editor=admin, viewer=admin)
        made = await hook(ours, target, "conversation.deleted")
        for name in ("c1", "c2"):
            await admin.post("/chats", json=message(name))
            await admin.delete(f"/chats/{name}")
        before = await scrape(admin)
        assert 0 < before.of("webhook_oldest_delivery_seconds") < 60
        target.replies = [answer(204), *[answer(500)] * 10]
        for _ in range(11):
            await services.deliveries.deliver(made.workspace_id, int(made.id))
            pass_time(postgresql)
    found = since(before, await scrape(admin))
    assert [found.of("webhook_deliveries_total", result=kind) for kind in kinds] == [1, 9, 1]


async def test_open_sockets_are_counted(url: str, workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    async with httpx.AsyncClient(base_url=url) as client:
        before = await scrape(client)
        async with following(url, bearer(workspace.keys[Role.VIEWER])):
            assert since(before, await scrape(client)).of("live_sockets") == 1
        while since(before, await scrape(client)).of("live_sockets"):
            pass  # the server hears of it a little later


async def test_with_a_token_only_who_has_it_reads_metrics(accounts: Accounts) -> None:
    token = "a-token-for-metrics-4711"
    app = await accounts.instance(metrics_token=SecretStr(token), rate_limit_address="3/day")
    client = accounts.client(None, app)
    for header in (None, "Bearer other", token, f"bearer {token}"):
        answer = await client.get("/metrics", headers={"Authorization": header} if header else {})
        assert answer.status_code in (401, 429), header
        assert token not in answer.text
    right = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert right.status_code == 200


async def test_several_processes_are_told_together_and_the_dead_are_forgotten(
    settings: Settings, workspace: Workspace
) -> None:
    key = {"X-API-Key": workspace.keys[Role.VIEWER]}
    with serving(settings, WEB_CONCURRENCY="2", DATABASE_POOL_SIZE="3", XAI_API_KEY="x") as running:
        transport = httpx.AsyncHTTPTransport(retries=10)
        async with httpx.AsyncClient(base_url=running.url, transport=transport) as client:
            serve = [
                each for each in psutil.Process(running.process.pid).children() if "spawn_main" in str(each.cmdline())
            ]
            found = Metrics()
            while found.of("database_pool_size") < 6:  # both have started
                found = await scrape(client)
            for _ in range(40):
                # Each on a connection of its own, which any process takes.
                async with httpx.AsyncClient(base_url=running.url, headers=key) as other:
                    assert (await other.get("/chats")).status_code == 200
            for _ in range(5):
                found = await scrape(client)
                assert found.of(REQUESTS, route="/chats", status="200") == 40
            assert found.of("process_resident_memory_bytes") > serve[0].memory_info().rss
            assert ("llm_breaker_open", frozenset({("model", MODEL)})) in found, "once for all processes"
            serve[0].kill()
        psutil.wait_procs([serve[0]], timeout=30)
        async with httpx.AsyncClient(base_url=running.url, transport=httpx.AsyncHTTPTransport(retries=10)) as client:
            sizes = {found.of("database_pool_size")}
            while 3 not in sizes or found.of("database_pool_size") != 6:
                found = await scrape(client)
                sizes.add(found.of("database_pool_size"))
            assert found.of(REQUESTS, route="/chats", status="200") == 40, "what a dead process counted stays counted"


async def test_a_worker_tells_its_own_where_it_is_told_to(settings: Settings, models: Providers) -> None:
    settings = settings.model_copy(update=models.settings)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with working(settings, WORKER_METRICS_PORT=port) as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while not (found := await scrape(client)).of("worker_ready_timestamp_seconds"):
                pass
        assert psutil.Process(process.pid).create_time() - 1 < found.of("worker_ready_timestamp_seconds") <= time.time()
        assert found.of("database_pool_size") == settings.database_pool_size
        assert ("llm_breaker_open", frozenset({("model", MODEL)})) in found
        assert found.of("process_resident_memory_bytes") > 2**20
        second = await asyncio.to_thread(
            subprocess.run,
            WORK,
            cwd=ROOT,
            env=environment(settings, WORKER_METRICS_PORT=port),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (second.returncode, "WORKER_METRICS_PORT" in second.stderr) == (1, True)
        process.terminate()
        assert process.wait(timeout=30) == 0
