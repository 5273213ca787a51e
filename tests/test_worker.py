"""The worker: jobs that end whatever ends under them, and each result once."""

import asyncio
import gc
import json
import os
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from pydantic import SecretStr

from app import worker
from app.embedded import embedded_server
from app.factory import Services, build
from app.main import create_app
from app.repositories.queue import FEW, NAMES, queue_on
from app.repositories.runs import LOST
from app.services.jobs import ITEMS_AT_ONCE, TRIES, Replaced, Run
from app.settings import Settings
from app.worker import JOBS_AT_ONCE
from tests.conftest import migrate, url_of
from tests.support.api import Workspace, message, open_workspace
from tests.support.jobs import entries, items, queued, run_all
from tests.support.process import working
from tests.support.providers import Providers, Reply, Request, StandIn, grok_reply, open_providers, summary_answer

GOOD = grok_reply(summary_answer())
COST = 0.0015
"""What one of these answers costs, in US dollars."""
PATIENCE_S = 30.0
POISON = "This conversation is poison to whoever reads it."


class Choosy(StandIn):
    """A provider that answers well, and never when it reads the poison."""

    poisoned = asyncio.Event()

    def respond(self, request: Request) -> Reply:
        if POISON in json.dumps(request.body):
            self.poisoned.set()
            return Reply(b"", manner="hang")
        return GOOD


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = GOOD
        yield opened


@pytest.fixture
def settings(settings: Settings, providers: Providers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(worker, "RETRY", timedelta(seconds=0.05))
    return settings.model_copy(update=providers.settings)


async def create(workspace: Workspace, count: int = 3) -> str:
    """Makes a job of new conversations and returns its path."""
    names = [f"c{n}" for n in range(count)]
    sent = await workspace.editor.post("/chats", json=[message(name) for name in names])
    assert sent.status_code == 201
    answer = await workspace.editor.post("/jobs/summarize", json={"conversation_ids": names})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["Location"])


async def over(workspace: Workspace, path: str) -> dict[str, Any]:
    """Returns the job when it is over."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found: dict[str, Any] = (await workspace.viewer.get(path)).json()
            if found["status"] not in ("queued", "running"):
                return found
            await asyncio.sleep(0.02)


async def until(holds: Callable[[], bool]) -> None:
    """Waits until something holds that nobody reports."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — it holds in another process, or in the database
            await asyncio.sleep(0.02)


async def let_heartbeats_stop(database: psycopg.Connection) -> None:
    """Lets the time pass after which a worker that is not heard of counts as dead."""

    def stop() -> None:
        past = "- interval '1 hour'"
        database.rollback()
        database.execute(f"UPDATE pgqueuer.pgqueuer SET heartbeat = heartbeat {past} WHERE status = 'picked'".encode())
        database.execute(f"UPDATE analysis_claims SET leased_until = leased_until {past}".encode())
        database.commit()

    await asyncio.to_thread(stop)  # what this waits for may be locked by a worker in this process


@asynccontextmanager
async def at_work(services: Services) -> AsyncIterator[asyncio.Task[None]]:
    """Runs a worker in this process and stops it at the end."""
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.work(services, stopping))
    try:
        yield task
        assert not task.done()
    finally:
        stopping.set()
        await task


@asynccontextmanager
async def doomed(settings: Settings) -> AsyncIterator[Services]:
    """Yields services that end as those of a process that dies: with everything that is going on."""
    before = asyncio.all_tasks()
    async with build(settings, settings.database_url.get_secret_value()) as services:  # type: ignore[union-attr]
        yield services
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            dying = asyncio.all_tasks() - before
            for task in dying:
                task.cancel()
            await asyncio.wait(dying)
            del task, dying
            gc.collect()  # what the provider's library was about to await


async def test_a_worker_carries_on_what_comes(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    async with at_work(services):
        job = await over(workspace, await create(workspace))
        assert (job["status"], job["done"], job["errors"]) == ("completed", 3, [])
        assert job["cost_usd"] == pytest.approx(3 * COST)
    assert entries(postgresql) == 0
    assert postgresql.execute("SELECT count(*) FROM pgqueuer.pgqueuer_log").fetchone() == (0,)


async def test_a_worker_that_is_killed_in_the_middle_is_replaced_and_nothing_counts_twice(
    workspace: Workspace, settings: Settings, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    providers.grok.hold()
    with working(settings) as process:
        await until(lambda: len(providers.grok.requests) == 3)
        process.send_signal(signal.SIGKILL)
    assert {each[:2] for each in items(postgresql).values()} == {("running", 1)}
    await let_heartbeats_stop(postgresql)
    providers.grok.gate.set()
    async with at_work(services):
        job = await over(workspace, path)
    assert (job["status"], job["done"], job["failed"]) == ("completed", 3, 0)
    assert postgresql.execute("SELECT count(*) FROM summaries").fetchone() == (3,)
    assert set(items(postgresql).values()) == {("done", 2, None)}


async def test_a_worker_that_is_to_stop_ends_what_it_has_begun_and_begins_nothing(
    workspace: Workspace, settings: Settings, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace, ITEMS_AT_ONCE + 2)
    providers.grok.hold()
    with working(settings) as process:
        await until(lambda: len(providers.grok.requests) == ITEMS_AT_ONCE)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            while b"worker_stopping" not in await asyncio.to_thread(process.stderr.readline):  # type: ignore[union-attr]
                pass
        providers.grok.gate.set()
        _, errors = await asyncio.to_thread(process.communicate)
    assert (process.returncode, b"Traceback" in errors) == (0, False)
    job = (await workspace.viewer.get(path)).json()
    assert (job["status"], job["done"]) == ("queued", ITEMS_AT_ONCE)
    assert sorted(items(postgresql).values())[-2:] == [("queued", 0, None)] * 2
    async with at_work(services):
        job = await over(workspace, path)
    assert (job["status"], job["done"]) == ("completed", ITEMS_AT_ONCE + 2)
    assert len(providers.grok.requests) == ITEMS_AT_ONCE + 2


async def test_a_worker_survives_the_loss_of_its_connections(
    workspace: Workspace, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    async with at_work(services) as task:
        for _ in range(2):
            providers.grok.hold()
            path = await create(workspace)
            await workspace.editor.post("/chats", json=[message(f"c{n}", f"m-{path}") for n in range(3)])
            await asyncio.wait_for(providers.grok.asked.wait(), PATIENCE_S)
            ended = postgresql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'chat-insights'"
            ).fetchall()
            assert len(ended) >= 2
            providers.grok.gate.set()
            async with asyncio.timeout(PATIENCE_S):
                # The service's connections broke too: each may cost a request, which is answered 503.
                while (job := (await workspace.viewer.get(path)).json())["status"] in ("queued", "running", 503):
                    await let_heartbeats_stop(postgresql)
                    await asyncio.sleep(0.05)
            assert job["done"] == 3
        assert not task.done()


async def test_a_worker_survives_a_crash_of_postgresql(settings: Settings, providers: Providers) -> None:
    with tempfile.TemporaryDirectory(prefix="chat-") as folder, embedded_server(Path(folder) / "pg") as url:
        migrate(conninfo=url)
        own = settings.model_copy(update={"database_url": SecretStr(url)})
        async with build(own, url) as services:
            app = create_app(lambda: nullcontext(services))
            async with (
                app.router.lifespan_context(app),
                open_workspace(app, services, "ours") as workspace,
                at_work(services),
            ):
                providers.grok.hold()
                path = await create(workspace)
                await asyncio.wait_for(providers.grok.asked.wait(), PATIENCE_S)
                with psycopg.connect(url) as victim:
                    os.kill(victim.info.backend_pid, signal.SIGKILL)  # what makes the server begin anew
                    with pytest.raises(psycopg.OperationalError):
                        victim.execute("SELECT 1")
                providers.grok.gate.set()
                async with asyncio.timeout(PATIENCE_S):
                    found: dict[str, Any] = {}
                    while found.get("status") != "completed":
                        with suppress(psycopg.OperationalError), psycopg.connect(url) as database:
                            await let_heartbeats_stop(database)
                        found = (await workspace.viewer.get(path)).json()
                assert (found["done"], found["failed"]) == (3, 0)


async def test_what_ends_its_worker_three_times_is_given_up_and_takes_nobody_along(
    workspace: Workspace, settings: Settings, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    providers.grok = Choosy(GOOD)
    providers.grok.poisoned = asyncio.Event()
    providers.grok.gate.set()
    await workspace.editor.post("/chats", json=message("c1", "m0", message_content=POISON))
    path = await create(workspace, 4)
    [entry] = queued(postgresql)
    for attempt in range(1, TRIES + 1):
        async with doomed(settings) as dying:
            running = asyncio.create_task(dying.jobs.run(*entry, asyncio.Event()))
            await asyncio.wait_for(providers.grok.poisoned.wait(), PATIENCE_S)
            assert not running.done()
        providers.grok.poisoned.clear()
        assert items(postgresql)["c1"] == ("running", attempt, None)
    await run_all(services, postgresql)
    job = (await workspace.viewer.get(path)).json()
    assert (job["status"], job["done"], job["errors"]) == ("completed", 3, [{"conversation_id": "c1", "code": LOST}])
    attempts = {name: each[1] for name, each in items(postgresql).items()}
    assert attempts.pop("c1") == TRIES
    assert max(attempts.values()) <= 2
    asked = [request for request in providers.grok.requests if POISON in json.dumps(request.body)]
    assert len(asked) == TRIES


async def test_what_cannot_be_read_is_given_up_after_three_tries(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    postgresql.execute("UPDATE messages SET content = content || 'x' WHERE conversation_id = 'c1'")
    postgresql.commit()
    await run_all(services, postgresql)
    job = (await workspace.viewer.get(path)).json()
    assert (job["done"], job["errors"]) == (2, [{"conversation_id": "c1", "code": "internal"}])
    assert items(postgresql)["c1"] == ("failed", TRIES, "internal")


async def test_a_run_that_was_believed_dead_counts_nothing(
    workspace: Workspace, settings: Settings, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    [entry] = queued(postgresql)
    providers.grok.hold()
    async with build(settings, url_of(postgresql)) as slow:
        earlier = asyncio.create_task(slow.jobs.run(*entry, asyncio.Event()))
        await until(lambda: len(providers.grok.requests) == 3)
        later = asyncio.create_task(services.jobs.run(*entry, asyncio.Event()))
        await until(lambda: ("running", 2, None) in items(postgresql).values())
        providers.grok.gate.set()
        assert await asyncio.wait_for(later, PATIENCE_S)
        with suppress(Replaced):
            assert await asyncio.wait_for(earlier, PATIENCE_S)
    job = (await workspace.viewer.get(path)).json()
    assert (job["status"], job["done"], job["failed"]) == ("completed", 3, 0)


async def test_a_worker_that_was_replaced_leaves_the_queue_to_the_other(
    workspace: Workspace, settings: Settings, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    [entry] = queued(postgresql)
    providers.grok.hold()
    async with at_work(services):
        await until(lambda: len(providers.grok.requests) == 3)
        async with doomed(settings) as dying:
            running = asyncio.create_task(dying.jobs.run(*entry, asyncio.Event()))
            await until(lambda: ("running", 2, None) in items(postgresql).values())
            assert not running.done()
        providers.grok.gate.set()
        await until(lambda: set(items(postgresql).values()) >= {("running", 2, None)} and entries(postgresql) == 1)
        await let_heartbeats_stop(postgresql)
        assert (await over(workspace, path))["done"] == 3


async def test_what_a_run_claims_while_it_is_replaced_is_not_begun_for_ever(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    [entry] = queued(postgresql)
    db, earlier = services.jobs._db, Run(*entry, 1)
    async with db.write() as unit:
        assert await unit.runs.start(*earlier, TRIES)
    async with db.write() as unit:
        claimed = await unit.runs.claim(*earlier, (0, 0))
        assert claimed
        later = asyncio.create_task(services.jobs.run(*entry, asyncio.Event()))
        await until(lambda: sorted(items(postgresql).values())[:2] == [("done", 1, None)] * 2)
    assert await asyncio.wait_for(later, PATIENCE_S)
    assert items(postgresql)[claimed.conversation_id] == ("done", 2, None)
    assert (await over(workspace, path))["done"] == 3


async def test_a_small_job_does_not_wait_for_the_large_ones_of_others(
    workspace: Workspace, other_workspace: Workspace, services: Services, providers: Providers
) -> None:
    names = [f"c{n}" for n in range(FEW + 1)]
    await other_workspace.editor.post("/chats", json=[message(name) for name in names])
    await workspace.editor.post("/chats", json=message("c0"))
    large = []
    for _ in range(JOBS_AT_ONCE + 1):
        body = {"conversation_ids": names, "force": True}
        large.append((await other_workspace.editor.post("/jobs/summarize", json=body)).headers["Location"])
    async with at_work(services):
        await asyncio.wait_for(providers.grok.asked.wait(), PATIENCE_S)
        body, headers = {"conversation_id": "c0"}, {"Prefer": "respond-async"}
        path = (await workspace.editor.post("/chats/summarize", json=body, headers=headers)).headers["Location"]
        assert (await over(workspace, path))["done"] == 1
        states = [(await other_workspace.viewer.get(each)).json()["status"] for each in large]
        assert states.count("completed") < JOBS_AT_ONCE / 2
        for each in large:
            await other_workspace.editor.delete(each)


async def test_the_names_in_the_queue_are_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNEL", "elsewhere")
    monkeypatch.setenv("PGQUEUER_QUEUE_TABLE", "elsewhere")
    assert type(NAMES)(db_schema=NAMES.db_schema) == NAMES


async def test_a_job_cancelled_in_the_middle_begins_nothing_more(
    workspace: Workspace, services: Services, providers: Providers, postgresql: psycopg.Connection
) -> None:
    providers.grok.hold()
    async with at_work(services):
        path = await create(workspace, ITEMS_AT_ONCE + 3)
        await until(lambda: len(providers.grok.requests) == ITEMS_AT_ONCE)
        assert (await workspace.editor.delete(path)).json()["status"] == "cancelled"
        providers.grok.gate.set()
        await until(lambda: not entries(postgresql))
    job = (await workspace.viewer.get(path)).json()
    assert (job["status"], job["done"], len(providers.grok.requests)) == ("cancelled", ITEMS_AT_ONCE, ITEMS_AT_ONCE)


async def test_what_the_library_set_aside_is_put_back(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    path = await create(workspace)
    postgresql.execute("UPDATE pgqueuer.pgqueuer SET status = 'failed'")
    postgresql.commit()
    async with at_work(services):
        assert (await over(workspace, path))["done"] == 3


async def test_the_queues_tables_are_those_of_the_library(postgresql: psycopg.Connection) -> None:
    connection = await asyncpg.connect(url_of(postgresql))
    assert (await queue_on(connection).plan_upgrade()).statements == ()
    await connection.close()
