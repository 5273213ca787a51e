"""The audit log: one entry for each act, in the act's own transaction, without a word about a person."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from app.schemas.enums import Provider, Role
from app.settings import Settings
from tests.support.accounts import ANA, BEN, CEM, Accounts, Person, every_page, open_accounts, outcome
from tests.support.api import message

FINE = (200, None)
INVALID = (422, "invalid")
CONVERSATION = "canary-conversation/ö"
TEXT = "The canary parcel of Ana Person."
NAME = "canary key name"
NEW = Person(6_001, "canary.new@example.com", "Canary New")
INVITED = Person(6_002, "canary.invited@example.com", "Canary Invited")


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


@dataclass(frozen=True)
class State:
    """A workspace in which something of everything is there to be acted upon."""

    accounts: Accounts
    ana: httpx.AsyncClient
    ana_id: str
    ben_id: str
    pending_id: str
    keys: list[dict[str, Any]]
    tokens: dict[str, Any]
    used_refresh_token: str

    @property
    def of_key(self) -> httpx.AsyncClient:
        return self.accounts.client(self.tokens["access_token"])


async def state_of(accounts: Accounts) -> State:
    ana = await accounts.sign_in(ANA)
    ana_id = (await ana.get("/auth/me")).json()["credential"]["actor"].removeprefix("member:")
    _, ben_id = await accounts.join(ana, BEN, Role.EDITOR)
    pending = [
        (await ana.post("/workspace/members", json={"email": email, "role": "viewer"})).json()["id"]
        for email in (CEM.email, INVITED.email)
    ]
    keys = [(await ana.post("/auth/keys", json={"name": NAME, "role": "editor"})).json() for _ in range(3)]
    tokens = await accounts.tokens(keys[2]["key"])
    reused = await accounts.tokens(keys[2]["key"])
    await accounts.client().post("/auth/token", json={"refresh_token": reused["refresh_token"]})
    for id in (CONVERSATION, "other"):
        stored = await ana.post("/chats", json=message(id, message_content=TEXT, user_id="canary-user"))
        assert stored.status_code == 201
    return State(accounts, ana, ana_id, ben_id, pending[0], keys, tokens, reused["refresh_token"])


class Act(NamedTuple):
    """Something that is done; each entry is its action, actor, target and details."""

    run: Callable[[State], Awaitable[httpx.Response]]
    status: int
    entries: Callable[[State], list[tuple[str, str, str | None, dict[str, Any]]]]


def by_ana(action: str, target: str | None, **details: Any) -> Callable[[State], list[Any]]:
    """Returns what an act of Ana's leaves; ``target`` may name what is in the state."""
    return lambda state: [(action, f"member:{state.ana_id}", target and target.format(state=state), details)]


def by_key(action: str, **details: Any) -> Callable[[State], list[Any]]:
    return lambda state: [(action, f"key:{state.keys[2]['id']}", "session:*", details)]


GONE = {"conversations": 1, "messages": 1, "participants": 1, "summaries": 0, "insights": 0, "feedback": 0}
ACTS: dict[str, Act] = {
    "make a key": Act(
        lambda s: s.ana.post("/auth/keys", json={"name": NAME, "role": "viewer"}),
        201,
        by_ana("key.created", "key:*", role="viewer", expires=False),
    ),
    "replace a key": Act(
        lambda s: s.ana.post(f"/auth/keys/{s.keys[0]['id']}/rotate", json={"overlap_seconds": 7}),
        201,
        by_ana("key.rotated", "key:{state.keys[0][id]}", replacement="key:*", overlap_seconds=7),
    ),
    "delete a key": Act(
        lambda s: s.ana.delete(f"/auth/keys/{s.keys[1]['id']}"), 204, by_ana("key.deleted", "key:{state.keys[1][id]}")
    ),
    "invite": Act(
        lambda s: s.ana.post("/workspace/members", json={"email": "canary@example.com", "role": "viewer"}),
        201,
        by_ana("member.invited", "member:*", role="viewer"),
    ),
    "invite again": Act(
        lambda s: s.ana.post("/workspace/members", json={"email": CEM.email, "role": "editor"}),
        201,
        by_ana("member.invited", "member:{state.pending_id}", role="editor"),
    ),
    "change a member": Act(
        lambda s: s.ana.patch(f"/workspace/members/{s.ben_id}", json={"role": "viewer"}),
        200,
        by_ana("member.changed", "member:{state.ben_id}", role="viewer", was="editor"),
    ),
    "remove a member": Act(
        lambda s: s.ana.delete(f"/workspace/members/{s.ben_id}"),
        204,
        by_ana("member.removed", "member:{state.ben_id}", was="*"),
    ),
    "take an invitation back": Act(
        lambda s: s.ana.delete(f"/workspace/members/{s.pending_id}"),
        204,
        by_ana("member.removed", "member:{state.pending_id}", was="*"),
    ),
    "show providers everything": Act(
        lambda s: s.ana.patch("/workspace", json={"redact": False}),
        200,
        by_ana("workspace.changed", None, redact=False, was=True),
    ),
    "leave the workspace as it is": Act(lambda s: s.ana.patch("/workspace", json={"redact": False}), 200, lambda _: []),
    "get tokens by key": Act(
        lambda s: s.accounts.client().post("/auth/token", json={"api_key": s.keys[2]["key"]}),
        200,
        by_key("session.created"),
    ),
    "get a token by cookie": Act(lambda s: s.ana.post("/auth/token"), 200, lambda _: []),
    "refresh": Act(
        lambda s: s.accounts.client().post("/auth/token", json={"refresh_token": s.tokens["refresh_token"]}),
        200,
        lambda _: [],
    ),
    "use a refresh token again": Act(
        lambda s: s.accounts.client().post("/auth/token", json={"refresh_token": s.used_refresh_token}),
        401,
        by_key("session.ended", reason="token_reused"),
    ),
    "sign out": Act(lambda s: s.of_key.post("/auth/logout"), 204, by_key("session.ended", reason="signed_out")),
    "sign in for the first time": Act(
        lambda s: s.accounts.come_back(s.accounts.browser(), NEW),
        303,
        lambda _: [
            ("workspace.created", "member:*", None, {}),
            ("member.signed_in", "member:*", "session:*", {"provider": "google"}),
        ],
    ),
    "accept an invitation": Act(
        lambda s: s.accounts.come_back(s.accounts.browser(), INVITED, Provider.GITHUB),
        303,
        lambda _: [
            ("member.joined", "member:*", "member:*", {"role": "viewer"}),
            ("member.signed_in", "member:*", "session:*", {"provider": "github"}),
        ],
    ),
    "delete a conversation": Act(
        lambda s: s.ana.delete(f"/chats/{CONVERSATION.replace('/', '%2F')}"),
        200,
        by_ana("conversation.deleted", "conversation:*", **GONE),
    ),
    "delete by a filter": Act(
        lambda s: s.ana.delete("/chats", params={"q": "canary", "user_id": "canary-user", "max_delete_count": 5}),
        200,
        lambda s: [
            *by_ana("conversations.deleted", None, **{**dict.fromkeys(GONE, "*"), "filters": ["q", "user_id"]})(s),
            *by_ana("conversation.deleted", "conversation:*")(s),
        ],
    ),
}


def fits(found: Any, expected: Any) -> bool:
    """Says whether a value is as expected, where ``*`` stands for anything."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(fits(found[name], expected[name]) for name in expected)
    if isinstance(expected, str) and expected.endswith("*"):
        return str(found).startswith(expected[:-1])
    return bool(found == expected)


def entries(accounts: Accounts) -> list[tuple[Any, ...]]:
    return accounts.rows("SELECT action, actor, target, details FROM audit_log ORDER BY created_at, entry_id")


def everything(accounts: Accounts) -> dict[str, Any]:
    """Returns what is stored, but for the times of the latest use."""
    tables = accounts.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'oauth_states'"
    )
    query = "SELECT jsonb_agg(to_jsonb(t) - 'last_used_at' - 'last_login' ORDER BY to_jsonb(t)::text) FROM {} AS t"
    return {table: accounts.rows(query.format(table)) for (table,) in tables}


@contextmanager
def failing_commits(accounts: Accounts) -> Iterator[None]:
    """Makes every transaction fail at its end that has written to the audit log."""
    accounts.database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'serialization_failure'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    yield
    accounts.database.execute("DROP FUNCTION refuse CASCADE")


# What is written


async def test_an_act_and_its_entry_happen_together_or_not_at_all(accounts: Accounts) -> None:
    state = await state_of(accounts)
    for name, act in ACTS.items():
        before = everything(accounts)
        if act.entries(state):
            with failing_commits(accounts):
                assert outcome(await act.run(state)) == (503, "unavailable"), name
            assert everything(accounts) == before, name
        written = entries(accounts)
        assert (await act.run(state)).status_code == act.status, name
        added, expected = entries(accounts)[len(written) :], act.entries(state)
        assert len(added) == len(expected), (name, added)
        for found, wanted in zip(added, expected, strict=True):
            assert all(map(fits, found, wanted)), (name, found, wanted)


async def test_an_act_that_does_not_happen_is_not_written_down(accounts: Accounts) -> None:
    state = await state_of(accounts)
    ana, before = state.ana, everything(accounts)
    refused = [
        await ana.patch(f"/workspace/members/{state.ana_id}", json={"role": "viewer"}),
        await ana.delete(f"/workspace/members/{state.ana_id}"),
        await ana.post("/workspace/members", json={"email": BEN.email, "role": "admin"}),
        await ana.delete("/workspace/members/1"),
        await ana.delete("/auth/keys/1"),
        await ana.post("/auth/keys/1/rotate"),
        await ana.post("/auth/keys", json={"name": "", "role": "viewer"}),
        await ana.delete("/chats/absent"),
        await ana.delete("/chats", params={"q": "canary", "max_delete_count": 1}),
        await accounts.client(state.keys[0]["key"]).post("/auth/logout"),
        await accounts.client().post("/auth/token", json={"refresh_token": "cr_" + "a" * 64}),
        await accounts.client("ck_" + "a" * 64).get("/chats"),
        await accounts.come_back(accounts.browser(), NEW, workspace_id="1"),
    ]
    assert [each.status_code for each in refused] == [409, 409, 409, 404, 404, 404, 422, 404, 422, 409, 401, 401, 403]
    assert everything(accounts) == before


async def test_a_denial_names_the_operation_and_the_roles(accounts: Accounts) -> None:
    state = await state_of(accounts)
    viewer = accounts.client((await state.ana.post("/auth/keys", json={"name": NAME, "role": "viewer"})).json()["key"])
    actor = (await viewer.get("/auth/me")).json()["credential"]["actor"]
    denied: list[tuple[str, str, dict[str, Any], str, str]] = [
        ("POST", "/chats", {"json": message("canary")}, "storeMessages", "editor"),
        ("POST", "/chats/summarize", {"json": {"conversation_id": CONVERSATION}}, "summarizeConversation", "editor"),
        ("DELETE", "/chats/canary", {}, "deleteConversation", "admin"),
        ("GET", "/audit", {"params": {"conversation_id": "canary"}}, "listAudit", "admin"),
        ("GET", "/auth/keys", {}, "listKeys", "admin"),
        ("PATCH", f"/workspace/members/{state.ben_id}", {"json": {"role": "admin"}}, "changeMember", "admin"),
    ]
    for method, path, more, operation, needed in denied:
        written = len(entries(accounts))
        assert outcome(await viewer.request(method, path, **more)) == (403, "forbidden")
        details = {"operation": operation, "reason": "role", "role": "viewer", "needed": needed}
        assert entries(accounts)[written:] == [("access.denied", actor, None, details)]
    anonymous = accounts.client()
    for method, path, more, *_ in denied:
        assert (await anonymous.request(method, path, **more)).status_code == 401
    assert len(entries(accounts)) == written + 1


async def test_no_entry_holds_a_word_about_a_person(accounts: Accounts) -> None:
    state = await state_of(accounts)
    for act in ACTS.values():
        await act.run(state)
    weak = accounts.client(await accounts.key(Role.VIEWER, "canary workspace"))
    await weak.delete(f"/chats/{CONVERSATION.replace('/', '%2F')}", params={"q": "canary"})
    kinds = {action for action, *_ in entries(accounts)}
    assert kinds == {
        *(
            "member.signed_in",
            "session.created",
            "session.ended",
            "key.created",
            "key.rotated",
            "key.deleted",
            "member.invited",
        ),
        *("member.joined", "member.changed", "member.removed", "workspace.created", "workspace.changed"),
        *("access.denied", "conversation.deleted", "conversations.deleted"),
    }
    kept = str(accounts.rows("SELECT to_jsonb(t)::text FROM audit_log AS t")).lower()
    kept = re.sub(r"conversation:[\w+/=]+", "", kept)  # a hash may hold any few letters
    for personal in ("canary", "parcel", "ana", "ben", "example", "@", "ö", "other", "127.0.0.1", "g-1001", "user-1"):
        assert personal not in kept, personal
    for hashed in (CONVERSATION, "other", ANA.email):
        assert hashed.encode().hex() not in kept


async def test_the_application_cannot_change_or_remove_an_entry(accounts: Accounts) -> None:
    state = await state_of(accounts)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/audit", f"/audit/{(await state.ana.get('/audit')).json()['data'][0]['id']}"):
            assert (await state.ana.request(method, path)).status_code in (404, 405)
    accounts.database.execute("SET ROLE chat_insights_app")
    for statement in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            accounts.database.execute(statement.encode())
    accounts.database.execute("RESET ROLE")


# How it is read


async def test_only_admins_read_it_and_only_their_workspace_s(accounts: Accounts) -> None:
    state = await state_of(accounts)
    theirs = accounts.client(await accounts.key(workspace="theirs"))
    assert {each["actor"] for each in (await theirs.get("/audit")).json()["data"]} == {"operator"}
    mine = await every_page(state.ana, "/audit", limit=3)
    assert "operator" not in {each["actor"] for each in mine}
    for each in mine:
        assert set(each) == {"id", "created_at", "actor", "action", "target", "details"}
        for name in ("actor", "target"):
            if each[name]:
                assert (await theirs.get("/audit", params={name: each[name]})).json()["data"] == []
    for role in (Role.VIEWER, Role.EDITOR):
        weak = accounts.client(await accounts.key(role, "theirs"))
        assert outcome(await weak.get("/audit")) == (403, "forbidden")


async def test_every_filter_alone_and_with_others_finds_exactly_what_fits(accounts: Accounts) -> None:
    state = await state_of(accounts)
    for act in ACTS.values():
        await act.run(state)
    every = await every_page(state.ana, "/audit", limit=100)
    times = [each["created_at"] for each in every]
    assert times == sorted(times, reverse=True)
    choices: dict[str, list[str | None]] = {
        "action": [None, "key.created", "session.ended", "nothing.done"],
        "actor": [None, f"member:{state.ana_id}", f"key:{state.keys[2]['id']}", "member:1"],
        "target": [None, f"key:{state.keys[0]['id']}", f"member:{state.ben_id}", every[3]["target"] or "x"],
        "from": [None, times[len(times) // 2]],
        "to": [None, times[len(times) // 3]],
    }
    for values in itertools.product(*choices.values()):
        wanted = {name: value for name, value in zip(choices, values, strict=True) if value}
        expected = [
            each
            for each in every
            if all(each[name] == wanted[name] for name in ("action", "actor", "target") if name in wanted)
            and wanted.get("from", "") <= each["created_at"] < wanted.get("to", "9")
        ]
        assert await every_page(state.ana, "/audit", limit=50, **wanted) == expected, wanted


async def test_a_deleted_conversation_is_found_by_its_id(accounts: Accounts) -> None:
    state = await state_of(accounts)
    for id in (CONVERSATION, "other"):
        assert (await state.ana.delete(f"/chats/{id.replace('/', '%2F')}")).status_code == 200
    [entry] = (await state.ana.get("/audit", params={"conversation_id": CONVERSATION})).json()["data"]
    assert entry["action"] == "conversation.deleted"
    cases: list[tuple[dict[str, str], int]] = [
        ({"conversation_id": CONVERSATION, "action": "conversation.deleted"}, 1),
        ({"conversation_id": CONVERSATION, "target": entry["target"]}, 1),
        ({"target": entry["target"]}, 1),
        ({"conversation_id": CONVERSATION, "action": "key.created"}, 0),
        ({"conversation_id": "other", "target": entry["target"]}, 0),
        ({"conversation_id": CONVERSATION, "target": f"key:{state.keys[0]['id']}"}, 0),
        ({"conversation_id": CONVERSATION.upper()}, 0),
        ({"target": f"conversation:{CONVERSATION}"}, 0),
    ]
    for params, count in cases:
        assert len((await state.ana.get("/audit", params=params)).json()["data"]) == count, params
    other = accounts.client(await accounts.key(workspace="theirs"))
    await other.post("/chats", json=message(CONVERSATION))
    await other.delete(f"/chats/{CONVERSATION.replace('/', '%2F')}")
    [theirs] = (await other.get("/audit", params={"conversation_id": CONVERSATION})).json()["data"]
    assert theirs["target"] != entry["target"], "nobody learns from the log that two workspaces had one conversation"


async def test_pages_have_no_gaps_or_doubles_while_entries_come(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())

    async def act() -> None:
        assert (await admin.post("/auth/keys", json={"name": NAME, "role": "viewer"})).status_code == 201

    for _ in range(7):
        await act()
    accounts.change("UPDATE audit_log SET created_at = date_trunc('day', created_at) WHERE actor <> 'operator'")
    for limit in (1, 2, 3):
        before, found = await every_page(admin, "/audit", limit=100), []
        params: dict[str, Any] = {"limit": limit}
        while True:
            page, *_ = await asyncio.gather(admin.get("/audit", params=params), act())
            found += page.json()["data"]
            if not page.json()["has_more"]:
                break
            params["cursor"] = page.json()["next_cursor"]
        assert found[-len(before) :] == before
        assert len(found) - len(before) in (0, 1), "one may have come before the first page was read"
        assert len({each["id"] for each in found}) == len(found)


async def test_a_cursor_belongs_to_its_question(accounts: Accounts) -> None:
    state = await state_of(accounts)
    question = {"limit": "1", "actor": f"member:{state.ana_id}", "from": "2026-01-01T00:00:00Z"}
    cursor = (await state.ana.get("/audit", params=question)).json()["next_cursor"]
    asked = {**question, "cursor": cursor}
    assert outcome(await state.ana.get("/audit", params=asked)) == FINE
    assert outcome(await state.ana.get("/audit", params={**asked, "limit": "7"})) == FINE
    assert outcome(await state.ana.get("/audit", params={**asked, "from": "2026-01-01T01:00:00+01:00"})) == FINE
    theirs = accounts.client(await accounts.key(workspace="theirs"))
    for changed in (
        {**asked, "actor": "operator"},
        {name: value for name, value in asked.items() if name != "actor"},
        {name: value for name, value in asked.items() if name != "from"},
        {**asked, "from": "2026-01-01T00:00:01Z"},
        {**asked, "to": "2030-01-01T00:00:00Z"},
        {**asked, "action": "key.created"},
        {**asked, "target": "key:1"},
        {**asked, "conversation_id": "c1"},
        {**asked, "cursor": cursor[:-1]},
        {**asked, "cursor": cursor + "A"},
        {**asked, "cursor": "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:]},
    ):
        assert outcome(await state.ana.get("/audit", params=changed)) == INVALID, changed
    assert outcome(await theirs.get("/audit", params=asked)) == INVALID


async def test_a_wrong_question_is_refused(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    for name in ("action", "actor", "target"):
        for value, expected in (("x" * 64, FINE), ("x" * 65, INVALID), ("", INVALID), ("a\0b", INVALID)):
            assert outcome(await admin.get("/audit", params={name: value})) == expected
        for hostile in ("' OR 1=1 --", "%", "_", "\\", "😀", "*"):
            assert (await admin.get("/audit", params={name: hostile})).json()["data"] == []
    wrong = [{"limit": "0"}, {"limit": "101"}, {"from": "yesterday"}, {"to": "2026-01-01"}, {"since": "x"}, {"q": "x"}]
    for params in (*wrong, {"conversation_id": ""}, {"conversation_id": "x" * 256}, {"workspace_id": "1"}):
        assert outcome(await admin.get("/audit", params=params)) == INVALID, params
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    for params, some in (
        ({"from": first, "to": last}, True),
        ({"from": last}, False),
        ({"from": last, "to": first}, False),
    ):
        answer = await admin.get("/audit", params=params)
        assert (outcome(answer), bool(answer.json()["data"])) == (FINE, some)
    [entry] = (await admin.get("/audit", params={"action": "workspace.created"})).json()["data"]
    assert datetime.fromisoformat(entry["created_at"]).tzinfo is not None
    assert entry["created_at"].endswith("Z")
