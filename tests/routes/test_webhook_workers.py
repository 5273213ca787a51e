"""Workers deliver at once, one of them each event, whatever becomes of a worker or of another target."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from app import db, metrics
from app.factory import Services, build
from app.schemas.webhook_rows import EndpointRow
from app.services import deliveries
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.process import working
from tests.support.receiver import Receiver, answer, open_receiver
from tests.support.webhooks import hook, pass_time, send_all, summarize


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allowed_networks": ("127.0.0.1/32",)})


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


@asynccontextmanager
async def delivering(services: Services) -> AsyncIterator[None]:
    """Sends what is due in this process, as a worker does."""
    stopping = asyncio.Event()
    running = asyncio.create_task(services.deliveries.run(stopping))
    yield
    stopping.set()
    await running


async def hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_an_event_is_delivered_within_two_seconds(
    services: Services, workspace: Workspace, target: Receiver
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=[message(f"c{n}") for n in range(3)])
    async with delivering(services):
        for n in range(3):
            began = time.monotonic()
            await workspace.admin.delete(f"/chats/c{n}")
            await target.until(n + 1)
            assert time.monotonic() - began < 2
    assert {each["state"] for each in await made.log()} == {"delivered"}


async def test_an_event_whose_worker_was_killed_comes_again(
    settings: Settings, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    target.replies = [hang]
    with working(settings) as worker:
        [first] = await target.until(1)
        worker.kill()
        worker.wait()
    [log] = await made.log()
    assert (log["state"], log["attempts"]) == ("sending", 1)
    with working(settings):
        assert (await made.replay(log["id"])).json()["state"] == "sending"  # it may be on its way still
        pass_time(postgresql)
        _, second = await target.until(2)
        while (log := (await made.log())[0])["state"] == "sending":
            pass
    assert (log["state"], log["attempts"]) == ("delivered", 2)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert second.verified(made.secret)


async def test_two_workers_send_nothing_twice_at_the_same_time(
    services: Services, settings: Settings, workspace: Workspace, target: Receiver
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=[message(f"c{n}") for n in range(200)])
    four = asyncio.Barrier(4)

    async def together(writer: asyncio.StreamWriter) -> None:
        await four.wait()
        writer.write(answer(204))

    target.replies = [together] * 200
    assert settings.database_url
    async with build(settings, settings.database_url.get_secret_value()) as others:
        await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 200})
        await asyncio.gather(*(send_all(each, made) for each in (services, others) for _ in range(4)))
    ids = [request.headers["webhook-id"] for request in target.requests]
    assert len(ids) == len(set(ids)) == 200
    assert target.at_once >= 4
    assert {each["state"] for each in await made.log(100)} == {"delivered"}


async def test_what_a_replaced_worker_finds_out_does_not_count(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    go_on = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(500))

    target.replies = [late]
    slow = asyncio.create_task(send_all(services, made))
    await target.until(1)
    pass_time(postgresql)  # its lease has ended
    await send_all(services, made)
    go_on.set()
    await slow
    [log] = await made.log()
    assert (log["state"], log["attempts"], log["status_code"]) == ("delivered", 2, 204)
    assert (await made.shown())["failing_since"] is None


@pytest.mark.parametrize("status", [410, 500])
async def test_what_an_old_url_answers_late_does_not_count_for_the_new_one(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection, status: int
) -> None:
    async with open_receiver() as moved:
        made = await hook(workspace, target, "summary.created", "question.unanswered")
        await summarize(workspace)
        go_on = asyncio.Event()

        async def late(writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            writer.write(answer(status))

        target.replies = [late]
        sending = asyncio.create_task(services.deliveries.deliver(made.workspace_id, int(made.id)))
        await target.until(1)
        changed = await workspace.admin.patch(f"/webhooks/{made.id}", json={"url": moved.url})
        assert changed.status_code == 200
        go_on.set()
        assert await sending
        shown = await made.shown()
        assert (shown["enabled"], shown["disabled_reason"], shown["failing_since"]) == (True, None, None)
        pass_time(postgresql)
        await send_all(services, made)
        assert {each["state"] for each in await made.log()} == {"delivered"}
        assert (len(target.requests), len(moved.requests)) == (1, 2)
        assert {request.headers["webhook-id"] for request in target.requests} < {
            request.headers["webhook-id"] for request in moved.requests
        }


async def test_what_was_received_is_not_sent_again_because_the_database_failed_for_a_moment(
    services: Services,
    settings: Settings,
    workspace: Workspace,
    target: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    monkeypatch.setattr(db, "POOL_TIMEOUT_S", 0.01)
    async with AsyncExitStack() as held:

        async def last(writer: asyncio.StreamWriter) -> None:
            for _ in range(settings.database_pool_size):
                await held.enter_async_context(services.jobs._db.read())
            writer.write(answer(204))

        target.replies = [last]
        before = _exhausted()
        sending = asyncio.create_task(services.deliveries.deliver(made.workspace_id, int(made.id)))
        while await asyncio.to_thread(_exhausted) == before:
            pass
    assert await sending
    [log] = await made.log()
    assert (log["state"], log["attempts"], log["status_code"]) == ("delivered", 1, 204)
    assert (len(target.requests), (await made.shown())["failing_since"]) == (1, None)


async def test_a_defect_is_a_failure_that_is_tried_again(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    [sealed] = postgresql.execute("SELECT url FROM webhooks").fetchall()
    postgresql.execute("UPDATE webhooks SET url = url || 'x'")
    postgresql.commit()
    with capture_logs() as logs:
        assert await services.deliveries.deliver(made.workspace_id, int(made.id))
    [log] = await made.log()
    assert (log["state"], log["attempts"], log["error"], log["status_code"]) == ("pending", 1, "internal", None)
    assert [each for each in logs if each["log_level"] == "error"] == [
        {"event": "defect", "where": "delivery_failed", "error": "InvalidTag", "log_level": "error"}
    ]
    wait = postgresql.execute("SELECT due_at - clock_timestamp() FROM webhook_deliveries").fetchone()
    assert wait
    assert wait[0].total_seconds() <= 6
    postgresql.execute("UPDATE webhooks SET url = %s", sealed)
    pass_time(postgresql)
    await send_all(services, made)
    assert [each["state"] for each in await made.log()] == ["delivered"]


async def test_a_target_that_hangs_holds_up_nobody_else(
    services: Services, workspace: Workspace, other_workspace: Workspace, target: Receiver
) -> None:
    async with open_receiver() as hanging:
        hanging.replies = [hang] * 100
        await hook(workspace, hanging, "conversation.deleted")
        for each in (workspace, other_workspace):
            await hook(each, target, "conversation.deleted")
            await each.editor.post("/chats", json=[message(f"c{n}") for n in range(30)])
            await each.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 30})
        stopping = asyncio.Event()
        running = asyncio.create_task(services.deliveries.run(stopping))
        began = time.monotonic()
        await target.until(60)
        assert time.monotonic() - began < 5
        assert len(hanging.requests) == hanging.at_once == deliveries.LANES_EACH
        await hanging.close()
        stopping.set()
        await running


async def test_names_whose_servers_are_silent_hold_up_nobody_else(
    services: Services,
    workspace: Workspace,
    other_workspace: Workspace,
    target: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, all_asked, go_on = set[str](), threading.Event(), threading.Event()
    getaddrinfo = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **named: Any) -> Any:
        if host.endswith(".silent.example"):
            asked.add(host)
            if len(asked) == len(silent):
                all_asked.set()
            go_on.wait()
        return getaddrinfo("127.0.0.1" if host.endswith(".example") else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    silent = [replace(target, url=target.url.replace("127.0.0.1", f"h{n}.silent.example")) for n in range(20)]
    for one in silent:
        await hook(workspace, one, "conversation.deleted")
    healthy = replace(target, url=target.url.replace("127.0.0.1", "hooks.example"))
    made = await hook(other_workspace, healthy, "conversation.deleted")
    for each in (workspace, other_workspace):
        await each.editor.post("/chats", json=message())
    await workspace.admin.delete("/chats/c1")
    try:
        async with delivering(services):
            assert await asyncio.to_thread(all_asked.wait, 20)
            await other_workspace.admin.delete("/chats/c1")
            await target.until(1)
            go_on.set()
            await target.until(21)
    finally:
        go_on.set()
    [log] = await made.log()
    assert (log["state"], log["attempts"]) == ("delivered", 1)


async def test_a_workspace_whose_targets_hang_leaves_lanes_to_others(
    services: Services, workspace: Workspace, other_workspace: Workspace, target: Receiver
) -> None:
    async with open_receiver() as hanging:
        hanging.replies = [hang] * 1_000
        for _ in range(20):
            await hook(workspace, hanging, "conversation.deleted")
        await hook(other_workspace, target, "conversation.deleted")
        for each in (workspace, other_workspace):
            await each.editor.post("/chats", json=[message(f"c{n}") for n in range(10)])
        await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 10})
        async with delivering(services):
            await hanging.until(deliveries.LANES // 4)
            await other_workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 10})
            await target.until(10)
            assert len(hanging.requests) == hanging.at_once == deliveries.LANES // 4
            await hanging.close()


def test_lanes_are_dealt_in_turn_and_one_is_always_left() -> None:
    def due(workspaces: int) -> list[EndpointRow]:
        return [EndpointRow(w, n, deliveries.LANES_EACH, False) for w in range(workspaces) for n in range(20)]

    for workspaces in (1, 2, 10, 50):
        busy = Counter(deliveries._dealt(due(workspaces), Counter(), deliveries.LANES))
        held = [sum(busy[w, n] for n in range(20)) for w in range(workspaces)]
        assert max(held) - min(held) <= 1
        assert max(busy.values()) - min(busy[w, n] for w in range(workspaces) for n in range(20)) <= 2
        room = deliveries.LANES - busy.total()
        assert deliveries._dealt([EndpointRow(99, 1, 5, False)], busy, room)[:1] == [(99, 1)]
        assert workspaces > 1 or held == [deliveries.LANES // 4]
    assert deliveries._dealt(due(1), Counter({(7, 1): 100}), 0) == []
    assert deliveries._dealt([EndpointRow(1, 1, 5, True)], Counter(), 100) == [(1, 1)]


async def test_a_target_that_is_failing_is_tried_by_one_at_a_time(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    made = await hook(workspace, target, "conversation.deleted")
    await workspace.editor.post("/chats", json=[message(f"c{n}") for n in range(30)])
    await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 30})
    target.replies = [answer(500)] * 30
    await services.deliveries.deliver(made.workspace_id, int(made.id))
    target.at_once = 0
    async with delivering(services):
        await target.until(30)
    assert target.at_once == 1


async def test_a_worker_that_stops_finishes_what_it_sends(
    services: Services, workspace: Workspace, target: Receiver
) -> None:
    made = await hook(workspace, target, "summary.created")
    await summarize(workspace)
    go_on = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(204))

    target.replies = [late]
    stopping = asyncio.Event()
    running = asyncio.create_task(services.deliveries.run(stopping))
    await target.until(1)
    stopping.set()
    go_on.set()
    await running
    assert [each["state"] for each in await made.log()] == ["delivered"]


async def test_a_deletion_that_waits_for_a_summary_forgets_what_was_to_be_told_of_it(
    services: Services, workspace: Workspace, target: Receiver, postgresql: psycopg.Connection
) -> None:
    """The summary's transaction is held up just before it commits, and the deletion has begun by then."""
    made = await hook(workspace, target, "summary.created")
    await workspace.editor.post("/chats", json=message())
    [row] = postgresql.execute("SELECT workspace_id FROM conversations FOR UPDATE").fetchall()
    deletion = asyncio.create_task(workspace.admin.delete("/chats/c1"))
    while not await asyncio.to_thread(_waits, postgresql):
        pass
    postgresql.execute(
        "INSERT INTO webhook_deliveries (workspace_id, webhook_id, event, conversation_id)"
        " VALUES (%s, %s, 'summary.created', 'c1')",
        [row[0], int(made.id)],
    )
    postgresql.commit()
    assert (await deletion).status_code == 200
    assert await made.log() == []


def _exhausted() -> float:
    return metrics.registry.get_sample_value("database_errors_total", {"reason": "pool_exhausted"}) or 0.0


def _waits(database: psycopg.Connection) -> bool:
    found = database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()").fetchone()
    return bool(found and found[0])
