"""Requests with an `Idempotency-Key`: carried out once, answered as often as they are sent."""

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from starlette.requests import ClientDisconnect

from app import db
from app.errors import Unavailable
from app.repositories import idempotency as repository
from app.services import idempotency
from app.settings import Settings
from tests.support.accounts import ANA, Accounts, open_accounts, outcome
from tests.support.api import message
from tests.support.process import Serving, serving
from tests.support.providers import Providers, grok_reply, open_providers, summary_answer

Call = tuple[str, dict[str, Any], int]

CSV, NDJSON = "text/csv", "application/x-ndjson"
TEXT = "The canary parcel has not arrived."
NAMELESS = {name: value for name, value in message(message_content=TEXT).items() if name != "message_id"}
OTHERS = [{**NAMELESS, "conversation_id": f"c{number % 3}"} for number in range(7)]
CSV_BYTES = (
    "conversation_id,user_id,user_type,message_content\n"
    + "".join(f"c{number % 3},ana,customer,{TEXT}\n" for number in range(7))
).encode()
NDJSON_BYTES = b"".join(json.dumps(row).encode() + b"\n" for row in OTHERS)
ABOUT_C9: dict[str, Any] = {"json": {"conversation_id": "c9"}}
WEBHOOK: dict[str, Any] = {"url": "https://hooks.example.com/chats", "events": ["summary.created"]}


class Pieces:
    """A body that comes in pieces, as often as it is sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 1_000):
            yield self._data[start : start + 1_000]


def streamed(data: bytes | AsyncIterator[bytes], media: str = NDJSON) -> dict[str, Any]:
    return {"content": Pieces(data) if isinstance(data, bytes) else data, "headers": {"Content-Type": media}}


STORED: dict[str, Call] = {
    "one message": ("/chats", {"json": NAMELESS}, 201),
    "an array": ("/chats", {"json": OTHERS}, 201),
    "a CSV": ("/chats", streamed(CSV_BYTES, CSV), 200),
    "an NDJSON": ("/chats", streamed(NDJSON_BYTES), 200),
}
"""Messages without ids; none is for the conversation that is there."""

DONE: dict[str, Call] = {
    **STORED,
    "summarizeConversation": ("/chats/summarize", ABOUT_C9, 200),
    "analyzeConversation": ("/chats/insights", ABOUT_C9, 200),
    "giveFeedback": ("/chats/c8/summary/feedback", {"json": {"rating": "up", "comment": "Short."}}, 201),
    "createJob": ("/jobs/summarize", {"json": {"conversation_ids": ["c9"]}}, 202),
    "createToken": ("/auth/token", {}, 200),
    "createToken from a body": ("/auth/token", {"json": {"api_key": "{key}"}}, 200),
    "createToken from a refresh token": ("/auth/token", {"json": {"refresh_token": "{refresh_token}"}}, 200),
    "createKey": ("/auth/keys", {"json": {"name": "till", "role": "viewer"}}, 201),
    "rotateKey": ("/auth/keys/{key_id}/rotate", {}, 201),
    "inviteMember": ("/workspace/members", {"json": {"email": "ben@example.com", "role": "viewer"}}, 201),
    "createWebhook": ("/webhooks", {"json": WEBHOOK}, 201),
    "replayDelivery": ("/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", {}, 202),
}
TAKING = {"storeMessages", *(name for name in DONE if name.isidentifier())}

REFUSED: dict[str, Call] = {
    "no such conversation": ("/chats/summarize", {"json": {"conversation_id": "c404"}}, 404),
    "no such key": ("/auth/keys/17/rotate", {}, 404),
    "a conflict": ("/chats", {"json": message("c9", message_content="Something else.")}, 409),
    "a member already": ("/workspace/members", {"json": {"email": ANA.email, "role": "viewer"}}, 409),
    "a wrong header row": ("/chats", streamed(b"who,what\n" + b"x,y\n" * 100_000, CSV), 422),
}


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer())
        yield opened


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings, models: Providers) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings.model_copy(update=models.settings)) as opened:
        yield opened


@pytest.fixture
async def admin(accounts: Accounts) -> httpx.AsyncClient:
    """An admin's client, whose workspace has a conversation and a member."""
    ana = await accounts.sign_in(ANA)
    made = await ana.post("/auth/keys", json={"name": "admin", "role": "admin"})
    opened = accounts.client(made.json()["key"])
    assert (await opened.post("/chats", json=message("c9"))).status_code == 201
    return opened


async def send(
    client: httpx.AsyncClient, call: Call, key: str | bytes | None = "k1", names: dict[str, str] | None = None
) -> httpx.Response:
    """Sends a request; ``names`` fill in what the call leaves open."""
    path, more, _ = call
    headers = {**more.get("headers", {}), **({} if key is None else {"Idempotency-Key": key})}
    body = more.get("json")
    if isinstance(body, dict) and names:
        body = {name: value.format(**names) if isinstance(value, str) else value for name, value in body.items()}
    content = {"content": more.get("content")} if body is None else {"json": body}
    return await client.post(path.format(**names or {}), headers=headers, **content)


async def names_of(client: httpx.AsyncClient) -> dict[str, str]:
    """Returns what the calls' templates name, and makes the summary that two of them are about."""
    webhook = (await client.post("/webhooks", json=WEBHOOK)).json()
    await client.post("/chats", json=message("c8"))
    await client.post("/chats/summarize", json={"conversation_id": "c8"})
    key = client.headers["Authorization"].removeprefix("Bearer ")
    made = (await client.post("/auth/keys", json={"name": "old", "role": "viewer"})).json()
    token = (await client.post("/auth/token")).json()
    [delivery] = (await client.get(f"/webhooks/{webhook['id']}/deliveries")).json()["data"]
    ids = {"key_id": made["id"], "webhook_id": webhook["id"], "delivery_id": delivery["id"]}
    return {"key": key, "refresh_token": token["refresh_token"], **ids}


def state(accounts: Accounts) -> dict[str, int]:
    """Returns how many rows there are of what requests do."""
    tables = ["conversations", "messages", "summaries", "insights", "feedback", "sessions", "api_keys"]
    tables += ["memberships", "webhooks", "webhook_deliveries"]
    return {table: accounts.rows(f"SELECT count(*) FROM {table}")[0][0] for table in [*tables, "audit_log"]}


def lapse(accounts: Accounts) -> None:
    """Lets a minute pass for whoever crashed."""
    accounts.change("UPDATE idempotency_keys SET leased_until = now() - interval '1 second' WHERE answer IS NULL")


def crash_before_the_note(accounts: Accounts, patch: pytest.MonkeyPatch) -> None:
    async def finish(*_: object) -> None:
        raise Unavailable("gone")

    patch.setattr(accounts.services.idempotency, "finish", finish)


async def ids(client: httpx.AsyncClient, *conversations: str) -> list[str]:
    """Returns the ids of every message of the conversations."""
    pages = [(await client.get(f"/chats/{name}")).json() for name in conversations]
    return [each["message_id"] for page in pages for each in page.get("messages", [])]


async def test_every_operation_that_takes_a_key_is_tried(accounts: Accounts) -> None:
    document = accounts.app.openapi()["paths"]
    operations = [(method, each) for path in document.values() for method, each in path.items()]
    taking = {
        each["operationId"]
        for method, each in operations
        if method == "post" and any(p["name"] == "Idempotency-Key" for p in each.get("parameters", []))
    }
    assert taking == TAKING
    assert {each["operationId"] for method, each in operations if method == "post"} - taking == {"endSession"}


@pytest.mark.parametrize("call", [*DONE.values(), *REFUSED.values()], ids=[*DONE, *REFUSED])
async def test_the_first_answer_is_given_again_and_nothing_is_done_twice(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers, call: Call
) -> None:
    names = await names_of(admin)
    first = await send(admin, call, names=names)
    assert first.status_code == call[2], first.text
    assert "Idempotency-Replayed" not in first.headers
    done, asked = state(accounts), len(models.requests)
    other_instance = accounts.client(names["key"], app=await accounts.instance())
    for client in (admin, other_instance, admin):
        again = await send(client, call, names=names)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert {name for name in first.headers if "ratelimit" not in name} == {
            name for name in again.headers if "ratelimit" not in name
        } - {"idempotency-replayed"}
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert (state(accounts), len(models.requests)) == (done, asked)


@pytest.mark.parametrize("call", [*DONE.values(), *REFUSED.values()], ids=[*DONE, *REFUSED])
async def test_a_key_changes_nothing_about_the_first_answer(
    accounts: Accounts, admin: httpx.AsyncClient, call: Call
) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(each) for name, each in value.items()}
        return [shape(each) for each in value] if isinstance(value, list) else type(value)

    answers, changes = [], []
    for key in (None, "k1"):
        names = await names_of(admin)
        before = state(accounts)
        answers.append(await send(admin, call, key, names))
        changes.append({table: count - before[table] for table, count in state(accounts).items()})
        # And back to the beginning.
        accounts.database.execute("DELETE FROM summaries; DELETE FROM insights; DELETE FROM webhooks")
        accounts.database.execute("DELETE FROM memberships WHERE invited_email IS NOT NULL")
        accounts.database.execute("DELETE FROM conversations WHERE conversation_id <> 'c9'")
    without, with_key = answers
    assert without.status_code == with_key.status_code == call[2]
    assert set(without.headers) == set(with_key.headers)
    assert shape(without.json()) == shape(with_key.json())
    assert changes[0] == changes[1]


async def test_a_refusal_is_kept_even_if_it_would_be_none_by_now(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    call = REFUSED["no such conversation"]
    first = await send(admin, call)
    await admin.post("/chats", json=message("c404"))
    assert (await send(admin, call)).content == first.content
    assert (await send(admin, call, "k2")).status_code == 200


async def test_what_decides_nothing_is_not_kept(
    accounts: Accounts, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = STORED["an array"]
    viewer = accounts.client((await admin.post("/auth/keys", json={"name": "v", "role": "viewer"})).json()["key"])
    for client, code in ((accounts.client(), 401), (accounts.client("x"), 401), (viewer, 403)):
        assert (await send(client, call)).status_code == code
    wrong = {**OTHERS[0], "user_type": "robot"}
    assert (await send(admin, ("/chats", {"json": wrong}, 422))).status_code == 422
    for error in (Unavailable("down"), RuntimeError("defect"), asyncio.CancelledError()):

        async def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(accounts.services.chats, "store", fail)
            failed = await send(admin, call)
        assert failed.status_code == (500 if isinstance(error, RuntimeError) else 503)
        assert "Idempotency-Replayed" not in failed.headers
    acted = await send(admin, call)
    assert (acted.status_code, acted.json()["stored"]) == (201, 7)
    assert "Idempotency-Replayed" not in acted.headers


OTHER: dict[str, Call] = {
    "body": ("/chats", {"json": {**NAMELESS, "message_content": "Other."}}, 201),
    "spelling": ("/chats", {"content": json.dumps(NAMELESS, indent=1), "headers": {"Content-Type": CSV}}, 200),
    "query": ("/chats?x=1", {"json": NAMELESS}, 201),
    "path": ("/chats/summarize", {"json": NAMELESS}, 200),
    "operation": ("/auth/token", {}, 200),
    "media type": ("/chats", streamed(json.dumps(NAMELESS).encode()), 200),
    "array": ("/chats", {"json": [NAMELESS]}, 201),
}


@pytest.mark.parametrize("call", OTHER.values(), ids=OTHER)
async def test_the_same_key_with_another_request_is_refused(
    accounts: Accounts, admin: httpx.AsyncClient, call: Call
) -> None:
    body = json.dumps(NAMELESS).encode()
    await send(admin, ("/chats", {"content": body, "headers": {"Content-Type": "application/json"}}, 201))
    done = state(accounts)
    answer = await send(admin, call)
    if call[0] == "/chats/summarize":  # does not fit this operation's schema, whatever the key
        assert outcome(answer) == (422, "invalid")
        answer = await send(admin, ("/chats/summarize", ABOUT_C9, 200))
    assert outcome(answer) == (422, "idempotency_key_reused")
    assert state(accounts) == done


@asynccontextmanager
async def held_summary(admin: httpx.AsyncClient, models: Providers) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """Yields a request that is running until its model is let go."""
    models.grok.hold()
    running = asyncio.create_task(send(admin, DONE["summarizeConversation"]))
    await models.grok.asked.wait()
    try:
        yield running
    finally:
        models.grok.gate.set()
        await running


async def test_a_request_that_is_running_is_not_begun_again(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = asyncio.Event()
    renew = repository.IdempotencyRepository.renew

    async def noted(*arguments: Any) -> None:
        await renew(*arguments)
        renewed.set()

    monkeypatch.setattr(repository.IdempotencyRepository, "renew", noted)
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=2))
    other = accounts.client(admin.headers["Authorization"][7:], app=await accounts.instance())
    call = DONE["summarizeConversation"]
    async with held_summary(admin, models) as running:
        for _ in range(2):
            lapse(accounts)
            renewed.clear()
            async with asyncio.timeout(20):
                await renewed.wait()
            for client in (admin, other):
                assert outcome(await send(client, call)) == (409, "still_running")
        changed = ("/chats/summarize", {"json": {"conversation_id": "c9", "force": True}}, 200)
        assert outcome(await send(other, changed)) == (422, "idempotency_key_reused")
        models.grok.gate.set()
        first = await running
    assert first.status_code == 200
    assert (await send(other, call)).content == first.content
    assert len(models.requests) == 1
    left = [task for task in asyncio.all_tasks() if "renew" in str(task.get_coro())]
    assert not [task for task in left if not task.cancelling()]


@asynccontextmanager
async def held_stream(admin: httpx.AsyncClient) -> AsyncIterator[tuple["asyncio.Task[httpx.Response]", asyncio.Event]]:
    """Yields a stream that is running, and what lets it go on."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield NDJSON_BYTES[:100]
        begun.set()
        await go_on.wait()
        yield NDJSON_BYTES[100:]

    running = asyncio.create_task(send(admin, ("/chats", streamed(slowly()), 200)))
    await begun.wait()
    try:
        yield running, go_on
    finally:
        go_on.set()
        await running


async def test_a_stream_that_is_running_is_not_begun_again(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    other = accounts.client(admin.headers["Authorization"][7:], app=await accounts.instance())
    async with held_stream(admin) as (running, go_on):
        for call in (STORED["an NDJSON"], ("/chats", streamed(b"{}"), 200)):
            assert outcome(await send(other, call)) == (409, "still_running")
        go_on.set()
        first = await running
    assert first.json()["stored"] == 7
    assert (await send(other, STORED["an NDJSON"])).content == first.content
    assert outcome(await send(other, ("/chats", streamed(b"{}"), 200))) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("name", ["createKey", "one message", "an NDJSON"])
async def test_of_simultaneous_first_requests_one_acts(accounts: Accounts, admin: httpx.AsyncClient, name: str) -> None:
    other = accounts.client(admin.headers["Authorization"][7:], app=await accounts.instance())
    before = state(accounts)
    answers = await asyncio.gather(*(send(client, DONE[name]) for client in [admin, other] * 6))
    acted = [each for each in answers if outcome(each) != (409, "still_running")]
    assert len([each for each in acted if "Idempotency-Replayed" not in each.headers]) == 1
    assert {each.content for each in acted} == {acted[0].content}
    once = state(accounts)
    added = {table: once[table] - count for table, count in before.items()}
    assert (added["api_keys"], added["messages"]) in ((1, 0), (0, 1), (0, 7))


async def test_a_key_is_its_callers_own(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    call = DONE["createKey"]
    first = await send(admin, call)
    colleague = accounts.client((await admin.post("/auth/keys", json={"name": "b", "role": "admin"})).json()["key"])
    stranger = accounts.client(await accounts.key(workspace="theirs"))
    ana = await accounts.sign_in(ANA)
    for client in (colleague, stranger, ana):
        answer = await send(client, call)
        assert answer.status_code == 201
        assert answer.content != first.content
        assert "Idempotency-Replayed" not in answer.headers
    # A token is as good as the key that it was given for.
    token = accounts.client((await admin.post("/auth/token")).json()["access_token"])
    assert (await send(token, call)).content == first.content


KEYS: dict[str, bytes] = {
    "one character": b"1",
    "long": b"k" * 255,
    "spaces inside": b"a b  c",
    "quotes": b'"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    "SQL": b"'; DROP TABLE messages; --",
    "UTF-8": "schlüssel-🔑".encode(),
    "not UTF-8": b"\xff\xfe\x80",
    "percent": b"%00%s{}",
    "controls": b"a\tb\x01",
}


async def test_any_key_of_up_to_255_characters_works(admin: httpx.AsyncClient) -> None:
    seen = set()
    for key in KEYS.values():
        first = await send(admin, DONE["createKey"], key)
        assert first.status_code == 201, key
        seen.add(first.content)
        assert (await send(admin, DONE["createKey"], key)).content == first.content
    assert len(seen) == len(KEYS)


async def test_a_key_that_is_too_long_or_empty_is_refused_and_not_shown(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    before = state(accounts)
    for key in (b"hunter2!" * 32, b"hunter2" * 5_000, b""):
        answer = await send(admin, DONE["createKey"], key)
        assert outcome(answer) == (422, "invalid")
        assert answer.json()["errors"][0]["pointer"] == "Idempotency-Key"
        assert "hunter2" not in answer.text
    assert state(accounts) == before
    assert accounts.rows("SELECT count(*) FROM idempotency_keys") == [(0,)]


async def test_an_answer_is_kept_for_24_hours_and_then_the_key_is_new(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    for name in STORED:
        call, conversation = STORED[name], "c1"
        first = await send(admin, call, name)
        [(left,)] = accounts.rows("SELECT min(expires_at) - now() FROM idempotency_keys")
        assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
        accounts.change("UPDATE idempotency_keys SET expires_at = now() + interval '1 minute'")
        assert (await send(admin, call, name)).headers["Idempotency-Replayed"] == "true"
        accounts.change("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
        before = len(await ids(admin, conversation))
        second = await send(admin, call, name)
        assert "Idempotency-Replayed" not in second.headers
        # The same words on another day are other messages.
        assert second.json()["stored"] == first.json()["stored"]
        assert len(await ids(admin, conversation)) > before
        assert accounts.rows("SELECT count(*) FROM idempotency_keys") == [(1,)]
        accounts.change("DELETE FROM idempotency_keys")


async def test_keys_that_are_over_are_removed_a_few_at_a_time(
    accounts: Accounts, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = accounts.client(await accounts.key(workspace="theirs"))
    for client, count in ((admin, 8), (stranger, 1)):
        for number in range(count):
            await send(client, DONE["createToken"], f"k{number}")
    accounts.change("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    monkeypatch.setattr(repository, "SWEPT", 3)
    left: list[int] = []
    for _ in range(4):
        await send(admin, DONE["createToken"], "new")
        left += accounts.rows("SELECT count(*) FROM idempotency_keys")[0]
    assert left == [1 + 1 + 5, 1 + 1 + 2, 1 + 1, 1 + 1]
    # One that is still there is over all the same.
    monkeypatch.setattr(repository, "SWEPT", 0)
    assert "Idempotency-Replayed" not in (await send(stranger, DONE["createToken"], "k0")).headers
    assert "Idempotency-Replayed" in (await send(stranger, DONE["createToken"], "k0")).headers


@pytest.mark.parametrize("call", STORED.values(), ids=STORED)
async def test_after_a_crash_the_same_messages_get_the_same_ids(
    accounts: Accounts, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    conversations = ("c0", "c1", "c2")
    with monkeypatch.context() as patch:
        crash_before_the_note(accounts, patch)
        first = await send(admin, call)
    assert first.status_code == call[2]
    stored = sorted(await ids(admin, *conversations))
    assert outcome(await send(admin, call)) == (409, "still_running")
    lapse(accounts)
    second = await send(admin, call)
    assert second.status_code == call[2]
    assert "Idempotency-Replayed" not in second.headers
    assert second.json()["stored"] == 0
    assert second.json()["duplicates"] == len(stored)
    assert second.json().get("message_ids") == first.json().get("message_ids")
    assert sorted(await ids(admin, *conversations)) == stored == sorted(set(stored))
    third = await send(admin, call)
    assert (third.content, third.headers["Idempotency-Replayed"]) == (second.content, "true")
    if "message_ids" in second.json():
        assert sorted(second.json()["message_ids"]) == stored


async def test_a_request_left_behind_is_only_taken_up_by_itself(
    accounts: Accounts, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_before_the_note(accounts, patch)
        await send(admin, STORED["one message"])
    lapse(accounts)
    for other in ("an array", "an NDJSON"):
        assert outcome(await send(admin, STORED[other])) == (422, "idempotency_key_reused")
    assert (await send(admin, STORED["one message"])).json()["duplicates"] == 1
    # Of a stream nothing is known before its end: whatever comes is taken.
    with monkeypatch.context() as patch:
        crash_before_the_note(accounts, patch)
        await send(admin, STORED["an NDJSON"], "k2")
    lapse(accounts)
    assert (await send(admin, STORED["an NDJSON"], "k2")).json()["duplicates"] == 7


async def test_whoever_was_thought_dead_changes_nothing_when_it_comes_back(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    other = accounts.client(admin.headers["Authorization"][7:], app=await accounts.instance())
    async with held_stream(admin) as (running, go_on):
        lapse(accounts)
        second = await send(other, STORED["an NDJSON"])
        assert (second.status_code, second.json()["stored"]) == (200, 7)
        go_on.set()
        assert (await running).json()["duplicates"] == 7
    assert (await send(admin, STORED["an NDJSON"])).content == second.content


async def test_an_answer_outlives_a_conversation_but_not_what_was_written_from_it(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    stored = await send(admin, STORED["one message"], "store")
    told = await send(admin, ("/chats/summarize", {"json": {"conversation_id": "c1"}}, 200), "sum")
    read = await send(admin, ("/chats/insights", {"json": {"conversation_id": "c1"}}, 200), "ins")
    await send(admin, DONE["summarizeConversation"], "other")
    assert [told.status_code, read.status_code] == [200, 200]
    assert (await admin.delete("/chats/c1")).status_code == 200
    assert accounts.rows("SELECT conversation_id FROM idempotency_keys ORDER BY 1") == [("c9",), (None,)]
    again = await send(admin, STORED["one message"], "store")
    assert (again.content, again.headers["Idempotency-Replayed"]) == (stored.content, "true")
    assert (await admin.get("/chats/c1")).status_code == 404
    for path, key in (("/chats/summarize", "sum"), ("/chats/insights", "ins")):
        assert outcome(await send(admin, (path, {"json": {"conversation_id": "c1"}}, 200), key)) == (404, "not_found")


async def test_an_answer_that_comes_after_its_conversation_is_gone_is_not_kept(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    async with held_summary(admin, models) as running:
        assert (await admin.delete("/chats/c9")).status_code == 200
        models.grok.gate.set()
        first = await running
    assert accounts.rows("SELECT count(*) FROM idempotency_keys WHERE conversation_id IS NOT NULL") == [(0,)]
    assert outcome(await send(admin, DONE["summarizeConversation"])) == (404, "not_found")
    assert first.status_code in (404, 409, 503)


async def cut_off(data: bytes) -> AsyncIterator[bytes]:
    yield data
    raise ClientDisconnect


@pytest.mark.parametrize("media", [CSV, NDJSON])
async def test_a_stream_that_was_cut_goes_on_at_once_and_doubles_nothing(
    accounts: Accounts, admin: httpx.AsyncClient, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.imports.CHUNK_ROWS", 2)
    whole = CSV_BYTES if media == CSV else NDJSON_BYTES
    for part in (len(whole) // 3, len(whole) * 2 // 3, len(whole) - 1):
        cut = send(admin, ("/chats", streamed(cut_off(whole[:part]), media), 200))
        with pytest.raises(AssertionError):  # nobody is there to take an answer
            await cut
    assert len(await ids(admin, "c0", "c1", "c2")) in (5, 6, 7)
    last = await send(admin, ("/chats", streamed(whole, media), 200))
    told = last.json()
    assert (told["stored"] + told["duplicates"], told["rejected"]) == (7, 0)
    assert len(await ids(admin, "c0", "c1", "c2")) == 7


async def test_replays_of_long_streams_need_no_memory(admin: httpx.AsyncClient) -> None:
    line = json.dumps({"unknown": "x" * 2**16}).encode() + b"\n"
    count = 50 * 2**20 // len(line)

    async def lines(last: bytes = b"") -> AsyncIterator[bytes]:
        for _ in range(count):
            yield line
        yield last

    first = await send(admin, ("/chats", streamed(lines()), 200))
    assert first.json()["rejected"] == count
    tracemalloc.start()
    try:
        again = await send(admin, ("/chats", streamed(lines()), 200))
        other = await send(admin, ("/chats", streamed(lines(b"\n")), 200))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again.content == first.content
    assert outcome(other) == (422, "idempotency_key_reused")
    assert peak < 4 * 2**20


async def test_the_table_shows_neither_keys_nor_answers_nor_what_was_asked(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    names, key = await names_of(admin), "order-4711-canary"
    secrets = [key, TEXT, "canary", names["key"]]
    for number, (name, call) in enumerate(DONE.items()):
        answer = await send(admin, call, f"{key}{number}", names)
        secrets += [name, *(str(v) for k, v in answer.json().items() if k in ("key", "access_token", "summary"))]
        for guess in (f"{key}{number}".encode(), await answer.request.aread(), answer.content):
            secrets += [hashlib.sha256(guess).hexdigest(), hashlib.blake2b(guess).hexdigest()]
    dump = "\n".join(row[0] for row in accounts.rows("SELECT idempotency_keys::text FROM idempotency_keys"))
    assert len(dump.splitlines()) == len(DONE)
    for secret in secrets:
        assert secret not in dump
        assert secret.encode().hex() not in dump


async def test_a_database_that_goes_away_meanwhile_is_no_defect(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers, settings: Settings
) -> None:
    name = accounts.database.info.dbname
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    allow = "UPDATE pg_database SET datallowconn = %s WHERE datname = %s"
    async with held_summary(admin, models) as running:
        accounts.change(allow, False, name)
        accounts.rows(kill, name)
        models.grok.gate.set()
        failed = await running
        assert outcome(failed) == (503, "unavailable")
        assert outcome(await send(admin, DONE["summarizeConversation"])) == (503, "unavailable")
        accounts.change(allow, True, name)
    assert await until_free(admin, DONE["summarizeConversation"]) == 200


async def until_free(client: httpx.AsyncClient, call: Call) -> int:
    """Sends a request until its key is free, which is soon; returns the answer's status."""
    async with asyncio.timeout(idempotency.LEASE.total_seconds() / 2):
        while outcome(answer := await send(client, call)) == (409, "still_running"):
            pass
    return answer.status_code


async def test_a_key_whose_first_use_went_wrong_unseen_is_free_again(
    accounts: Accounts, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, transaction = STORED["an array"], db._transaction

    @asynccontextmanager
    async def cut(driver: object) -> AsyncIterator[None]:
        async with transaction(driver):
            yield
        raise ConnectionResetError  # instead of the word that it is committed

    with monkeypatch.context() as patch:
        patch.setattr(db, "_transaction", cut)
        assert outcome(await send(admin, call)) == (503, "unavailable")
    assert accounts.rows("SELECT count(*) FROM idempotency_keys") == [(1,)]
    assert await until_free(admin, call) == 201


async def test_a_server_that_is_killed_loses_and_doubles_nothing(
    accounts: Accounts, admin: httpx.AsyncClient, settings: Settings
) -> None:
    rows = [{**NAMELESS, "conversation_id": f"c{number % 3}"} for number in range(2_500)]
    whole = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    async def until_something_is_stored(running: Serving) -> AsyncIterator[bytes]:
        yield whole[: len(whole) * 2 // 3]
        while accounts.rows("SELECT count(*) FROM messages")[0][0] < 1_000:
            yield b"\n"
        running.kill()
        yield whole[len(whole) * 2 // 3 :]

    headers = {"Authorization": admin.headers["Authorization"], "Idempotency-Key": "k1", "Content-Type": NDJSON}
    with serving(settings) as running:
        async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=30) as client:
            with pytest.raises(httpx.HTTPError):
                await client.post("/chats", content=until_something_is_stored(running))
    [(stored,)] = accounts.rows("SELECT count(*) FROM messages WHERE conversation_id <> 'c9'")
    assert 1_000 <= stored < 2_500
    call = ("/chats", streamed(whole), 200)
    assert outcome(await send(admin, call)) == (409, "still_running")
    lapse(accounts)
    told = (await send(admin, call)).json()
    assert (told["stored"], told["duplicates"], told["rejected"]) == (2_500 - stored, stored, 0)
    assert accounts.rows("SELECT count(*) FROM messages WHERE conversation_id <> 'c9'") == [(2_500,)]
