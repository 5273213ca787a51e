"""What ends takes effect on what is under way, and nobody can keep it from ending."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import psycopg
import pytest

from app.schemas.enums import Role
from app.services import auth
from app.settings import Settings
from tests.support.accounts import ANA, BEN, Accounts, open_accounts, outcome
from tests.support.api import message
from tests.support.providers import Providers, grok_reply, open_providers, summary_answer

FINE = (200, None)
REFUSED = (401, "unauthenticated")
GONE = (204, None)
NDJSON = {"Content-Type": "application/x-ndjson"}
BATCH = 1_000


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


async def endless(begun: asyncio.Event, name: str) -> AsyncIterator[bytes]:
    """Yields rows of one conversation that all such streams write to, until the connection is closed."""
    for chunk in range(1_000):
        rows = (message("busy", f"{name}-{chunk}-{number}") for number in range(BATCH))
        yield b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        if chunk == 2:
            begun.set()


@pytest.mark.parametrize("end", ["the key", "its maker"])
async def test_streams_can_neither_outlive_nor_keep_up_the_end_of_their_key(accounts: Accounts, end: str) -> None:
    ana = await accounts.sign_in(ANA)
    ben, ben_id = await accounts.join(ana, BEN, Role.ADMIN)
    made = (await ben.post("/auth/keys", json={"name": "imports", "role": "editor"})).json()
    elsewhere = accounts.client(made["key"], await accounts.instance())
    begun = [asyncio.Event() for _ in range(6)]
    streams = [
        asyncio.create_task(elsewhere.post("/chats", content=endless(event, str(number)), headers=NDJSON))
        for number, event in enumerate(begun)
    ]
    for event in begun:
        await event.wait()
    path = f"/auth/keys/{made['id']}" if end == "the key" else f"/workspace/members/{ben_id}"
    assert outcome(await ana.delete(path)) == GONE
    for answer in await asyncio.gather(*streams):
        assert outcome(answer) == REFUSED
    [(stored,)] = accounts.rows("SELECT count(*) FROM messages")
    assert stored % BATCH == 0


async def test_admins_who_end_each_others_keys_at_once_meet_no_defect(accounts: Accounts) -> None:
    keys = [await accounts.key() for _ in range(6)]
    clients = [accounts.client(key) for key in keys]
    ids = [(await each.get("/auth/me")).json()["credential"]["key_id"] for each in clients]
    rotated = await asyncio.gather(*(clients[0].post(f"/auth/keys/{ids[0]}/rotate") for _ in range(6)))
    assert {outcome(answer) for answer in rotated} == {(201, None)}
    deleted = await asyncio.gather(
        *(each.delete(f"/auth/keys/{id}") for each, id in zip(clients, ids[1:] + ids[:1], strict=True))
    )
    assert {outcome(answer) for answer in deleted} <= {GONE, REFUSED, (404, "not_found")}
    assert GONE in {outcome(answer) for answer in deleted}


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_statement_that_is_ended_from_outside_is_no_defect(accounts: Accounts, end: str) -> None:
    admin = accounts.client(await accounts.key())
    made = (await admin.post("/auth/keys", json={"name": "x", "role": "editor"})).json()
    waiting = f"SELECT {end}(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with accounts.database.transaction():
        accounts.rows("SELECT FROM api_keys FOR UPDATE")
        deleting = asyncio.create_task(admin.delete(f"/auth/keys/{made['id']}"))
        while not await asyncio.to_thread(accounts.rows, waiting):
            pass
        answer = await deleting
    assert outcome(answer) == (503, "unavailable")
    assert outcome(await admin.delete(f"/auth/keys/{made['id']}")) == GONE


@pytest.mark.parametrize("path", ["/chats", "/auth/keys", "/chats/summarize"])
async def test_a_body_that_takes_longer_than_its_key_lasts_does_nothing(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(auth, "VIEWER_CACHE_S", 0.0)  # the seconds for which a key is believed are over
    operator = accounts.client(await accounts.key())
    made = (await operator.post("/auth/keys", json={"name": "slow", "role": "admin"})).json()
    bodies = {
        "/chats": message("late"),
        "/auth/keys": {"name": "late", "role": "viewer"},
        "/chats/summarize": {"conversation_id": "c1"},
    }
    assert (await operator.post("/chats", json=message())).status_code == 201

    async def slowly() -> AsyncIterator[bytes]:
        yield b" "
        assert outcome(await operator.delete(f"/auth/keys/{made['id']}")) == GONE
        yield json.dumps(bodies[path]).encode()

    answer = await accounts.client(made["key"]).post(
        path, content=slowly(), headers={"Content-Type": "application/json"}
    )
    assert outcome(answer) == REFUSED
    assert accounts.rows("SELECT conversation_id FROM conversations") == [("c1",)]
    assert accounts.rows("SELECT count(*) FROM summaries") == [(0,)]
    assert "late" not in (await operator.get("/auth/keys")).text


async def test_who_loses_their_key_while_a_model_thinks_gets_no_summary_and_others_do(
    postgresql: psycopg.Connection, settings: Settings
) -> None:
    async with open_providers() as models:
        settings = settings.model_copy(update=models.settings)
        async with open_accounts(postgresql, settings) as accounts:
            admin = accounts.client(await accounts.key())
            assert (await admin.post("/chats", json=message())).status_code == 201
            made = [(await admin.post("/auth/keys", json={"name": "x", "role": "editor"})).json() for _ in range(2)]
            first, second = [accounts.client(each["key"]) for each in made]
            await summarised_together(models, admin, made[0]["id"], first, second)


async def summarised_together(
    models: Providers, admin: httpx.AsyncClient, id: str, first: httpx.AsyncClient, second: httpx.AsyncClient
) -> None:
    models.grok.reply = grok_reply(summary_answer())
    models.grok.hold()
    body = {"conversation_id": "c1"}
    began = asyncio.create_task(first.post("/chats/summarize", json=body))
    await models.grok.asked.wait()
    follows = asyncio.create_task(second.post("/chats/summarize", json=body))
    assert outcome(await admin.delete(f"/auth/keys/{id}")) == GONE
    models.grok.gate.set()
    assert outcome(await began) == REFUSED
    assert outcome(await follows) == FINE
    assert len(models.requests) == 1
