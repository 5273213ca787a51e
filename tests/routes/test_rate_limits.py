"""Limits as a client meets them: for each caller and class of operations, and for addresses without a credential."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from app.db import Database
from app.factory import Services
from app.main import create_app
from app.schemas.enums import Role
from app.services import auth
from app.services.rate_limits import RateClass, RateLimits
from app.settings import Settings
from tests.support.accounts import open_instance, outcome
from tests.support.api import Workspace, client, create_key, message

Call = tuple[str, str, dict[str, Any]]

DAY = 86_400
LIMITS = {
    RateClass.READ: "4/day",
    RateClass.WRITE: "5/day",
    RateClass.SEARCH: "3/day",
    RateClass.LLM: "2/day",
    RateClass.ADDRESS: "3/day",
}
ABOUT_C1: dict[str, Any] = {"json": {"conversation_id": "c1"}}
CALLS: dict[RateClass, list[Call]] = {
    RateClass.READ: [
        ("GET", "/chats", {}),
        ("GET", "/chats/c1", {}),
        ("GET", "/users/ana/chats", {}),
        ("GET", "/chats/c1/summary", {}),
        ("GET", "/chats/c1/insights", {}),
        ("GET", "/auth/me", {}),
        ("GET", "/auth/keys", {}),
        ("GET", "/workspace", {}),
        ("GET", "/jobs/17", {}),
        ("GET", "/workspace/members", {}),
        ("GET", "/audit", {}),
        ("GET", "/analytics/usage", {}),
        ("GET", "/analytics/trends", {}),
        ("GET", "/analytics/topics", {}),
        ("GET", "/webhooks", {}),
        ("GET", "/webhooks/17/deliveries", {}),
        ("HEAD", "/chats/c1", {}),
    ],
    RateClass.WRITE: [
        ("POST", "/chats", {"json": message("c2")}),
        ("POST", "/chats", {"content": b"", "headers": {"Content-Type": "application/x-ndjson"}}),
        ("DELETE", "/chats/c1", {}),
        ("DELETE", "/chats", {"params": {"q": "parcel", "max_delete_count": 5}}),
        ("POST", "/auth/token", {}),
        ("POST", "/auth/logout", {}),
        ("POST", "/auth/keys", {"json": {"name": "x", "role": "viewer"}}),
        ("POST", "/auth/keys/17/rotate", {}),
        ("DELETE", "/auth/keys/17", {}),
        ("POST", "/workspace/members", {"json": {"email": "ben@example.com", "role": "viewer"}}),
        ("PUT", "/analytics/budgets/x", {"json": {}}),
        ("PATCH", "/workspace/members/17", {"json": {"role": "viewer"}}),
        ("DELETE", "/workspace/members/17", {}),
        ("DELETE", "/jobs/17", {}),
        ("PATCH", "/workspace", {"json": {"redact": True}}),
        ("POST", "/chats/c1/summary/feedback", {"json": {"rating": "up"}}),
        ("POST", "/webhooks", {"json": {"url": "https://hooks.example.com", "events": ["job.finished"]}}),
        ("PATCH", "/webhooks/17", {"json": {"enabled": False}}),
        ("DELETE", "/webhooks/17", {}),
        ("POST", "/webhooks/17/deliveries/x/replay", {}),
    ],
    RateClass.SEARCH: [
        ("GET", "/chats", {"params": {"q": "parcel"}}),
        ("GET", "/users/ana/chats", {"params": {"q": "parcel"}}),
    ],
    RateClass.LLM: [
        ("POST", "/chats/summarize", ABOUT_C1),
        ("POST", "/chats/insights", ABOUT_C1),
        ("POST", "/jobs/summarize", {"json": {"conversation_ids": ["c1"]}}),
    ],
}


class Clock:
    """A clock that stands still, a hundred seconds into a day, until it is moved."""

    now = 20_000.0 * DAY + 100

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Who is known stays so, however slow the machine.
    monkeypatch.setattr(auth, "VIEWER_CACHE_S", 600.0)
    return settings


@pytest.fixture
async def services(services: Services, clock: Clock) -> AsyncIterator[Services]:
    limits = RateLimits(LIMITS, clock=clock)
    yield replace(services, rate_limits=limits, trusted_proxies=("10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1/32"))
    await limits.close()


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The database's units of work, one entry each."""
    found: list[str] = []
    for name in ("read", "write"):

        def counted(db: Database, name: str = name, original: Any = getattr(Database, name)) -> Any:  # noqa: B008
            found.append(name)
            return original(db)

        monkeypatch.setattr(Database, name, counted)
    return found


def told(answer: httpx.Response) -> tuple[str, int, int, int]:
    """Returns class, limit, what is left and for how long, as the headers say."""
    policy, state = answer.headers["RateLimit-Policy"], answer.headers["RateLimit"]
    (name, quota, window), (same_name, rest, until) = policy.split(";"), state.split(";")
    assert name == same_name
    assert window == f"w={DAY}"
    return name.strip('"'), int(quota.removeprefix("q=")), int(rest.removeprefix("r=")), int(until.removeprefix("t="))


def assert_limited(answer: httpx.Response, kind: RateClass, seconds: int = DAY - 100) -> None:
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == str(seconds)
    assert told(answer) == (kind, int(LIMITS[kind].partition("/")[0]), 0, seconds)
    if answer.request.method != "HEAD":
        assert outcome(answer) == (429, "rate_limited")


def from_address(app: FastAPI, host: str | None, key: str | None = None) -> httpx.AsyncClient:
    """Returns a client that connects from an address; None is a socket that has none."""
    transport = httpx.ASGITransport(app, client=(host, 1234) if host else None)  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


async def test_every_operation_with_a_credential_has_a_class(app: FastAPI) -> None:
    tried = {(method.lower(), path) for calls in CALLS.values() for method, path, _ in calls}
    examples = {
        "{conversation_id}": "c1",
        "{user_id}": "ana",
        "{key_id}": "17",
        "{member_id}": "17",
        "{scope}": "x",
        "{job_id}": "17",
        "{webhook_id}": "17",
        "{delivery_id}": "x",
    }
    documented = {
        (method, path)
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    assert {(method, path) for method, path in tried if method != "head"} == {
        (method, re.sub(r"{\w+}", lambda name: examples[name[0]], path)) for method, path in documented
    }


@pytest.mark.parametrize("kind", CALLS)
async def test_a_caller_is_told_of_the_limit_and_held_to_it(
    app: FastAPI, services: Services, workspace: Workspace, kind: RateClass, units: list[str], clock: Clock
) -> None:
    await workspace.editor.post("/chats", json=message())
    row, _ = await services.workspaces.get_or_create("ours")
    limit = int(LIMITS[kind].partition("/")[0])
    for method, path, more in CALLS[kind]:
        async with client(app, await create_key(services, row.workspace_id, Role.ADMIN)) as caller:
            for used in range(1, limit + 1):
                answer = await caller.request(method, path, **more)
                assert answer.status_code < 429, answer.text
                assert told(answer) == (kind, limit, limit - used, DAY - 100)
                assert "Retry-After" not in answer.headers
            units.clear()
            assert_limited(await caller.request(method, path, **more), kind)
            assert units == [], "a refused request acts"
            others = [(other, call) for other in CALLS if other is not kind for call in CALLS[other][:1]]
            for other, (m, p, arguments) in others:
                answer = await caller.request(m, p, **arguments)
                assert answer.status_code < 429
                assert told(answer)[0] == other
            clock.now += DAY
            assert told(await caller.request(method, path, **more))[2] == limit - 1


async def test_what_is_refused_counts_and_does_not_act(workspace: Workspace, units: list[str]) -> None:
    for _ in range(5):
        assert (await workspace.viewer.post("/chats", json=message())).status_code == 403
    units.clear()
    assert_limited(await workspace.viewer.post("/chats", json=message()), RateClass.WRITE)
    assert units == []
    entries = (await workspace.admin.get("/audit", params={"action": "access.denied"})).json()["data"]
    assert len(entries) == 5


async def test_a_key_and_its_tokens_share_a_budget_and_other_callers_have_their_own(
    app: FastAPI, services: Services, workspace: Workspace, other_workspace: Workspace
) -> None:
    tokens = (await workspace.admin.post("/auth/token")).json()
    async with (
        client(app, tokens["access_token"]) as token,
        client(app) as same,
    ):
        same.headers["X-API-Key"] = workspace.keys[Role.ADMIN]
        left = [told(await each.get("/auth/me"))[2] for each in (token, workspace.admin, same, token)]
        assert left == [3, 2, 1, 0]
        for each in (token, workspace.admin, same):
            assert_limited(await each.get("/auth/me"), RateClass.READ)
    for other in (workspace.viewer, workspace.editor, other_workspace.admin):
        assert told(await other.get("/auth/me"))[2] == 3


async def test_replays_and_refreshes_count(app: FastAPI, workspace: Workspace) -> None:
    headers = {"Idempotency-Key": "k1"}
    answers = [await workspace.editor.post("/chats", json=message(), headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    tokens = (await workspace.admin.post("/auth/token")).json()
    async with client(app) as caller:
        for used in range(2, 6):  # of the key's budget, as the exchange was
            answer = await caller.post("/auth/token", json={"refresh_token": tokens["refresh_token"]})
            assert told(answer)[:3] == (RateClass.WRITE, 5, 5 - used)
            tokens = answer.json()
        refreshed: dict[str, Any] = {"json": {"refresh_token": tokens["refresh_token"]}}
        assert_limited(await caller.post("/auth/token", **refreshed), RateClass.WRITE)
        assert_limited(await workspace.admin.post("/chats", json=message("c2")), RateClass.WRITE)


KEY = "ck_" + "a" * 64
JWT = "e30" * 10 + "." + "e30" * 10 + "." + "a" * 43
WRONG: dict[str, Call] = {
    "nothing": ("GET", "/chats", {}),
    "nothing, to write": ("POST", "/chats", {"json": message()}),
    "a malformed key": ("GET", "/chats", {"headers": {"Authorization": "Bearer ck_x"}}),
    "a key": ("GET", "/chats", {"headers": {"X-API-Key": KEY}}),
    "a token": ("GET", "/auth/me", {"headers": {"Authorization": f"Bearer {JWT}"}}),
    "a cookie": ("GET", "/auth/me", {"headers": {"Cookie": "__Host-session=cs_x"}}),
    "another scheme": ("GET", "/auth/me", {"headers": {"Authorization": "Basic YTpi"}}),
    "an exchange of nothing": ("POST", "/auth/token", {}),
    "an exchange of a key": ("POST", "/auth/token", {"json": {"api_key": KEY}}),
    "a refresh": ("POST", "/auth/token", {"json": {"refresh_token": "cr_x"}}),
}
PAGES: dict[str, Call] = {
    "a login": ("GET", "/auth/login/google", {}),
    "a callback": ("GET", "/auth/callback/google?state=x&code=y", {}),
    "a callback for a person": ("GET", "/auth/callback/google", {"headers": {"Accept": "text/html"}}),
}


@pytest.mark.parametrize("call", [*WRONG.values(), *PAGES.values()], ids=[*WRONG, *PAGES])
async def test_an_address_without_a_credential_is_soon_not_listened_to(
    app: FastAPI, services: Services, workspace: Workspace, units: list[str], call: Call
) -> None:
    method, path, more = call
    good = workspace.keys[Role.VIEWER]
    async with from_address(app, "198.51.100.1") as anonymous, from_address(app, "198.51.100.1", good) as known:
        assert (await known.get("/auth/me")).status_code == 200
        for used in range(1, 4):
            answer = await anonymous.request(method, path, **more)
            assert answer.status_code == (401 if call in WRONG.values() else 404)
            assert told(answer) == (RateClass.ADDRESS, 3, 3 - used, DAY - 100)
        units.clear()
        for other_method, other_path, rest in [call, *WRONG.values(), *PAGES.values()]:
            answer = await anonymous.request(other_method, other_path, **rest)
            assert (answer.status_code, told(answer)[0]) == (429, RateClass.ADDRESS)
            if answer.headers["Content-Type"] != "text/html; charset=utf-8":
                assert_limited(answer, RateClass.ADDRESS)
        assert units == [], "a refused request asks the database"
        # Who is known is not held responsible for the neighbours.
        assert (await known.get("/auth/me")).status_code == 200
        async with from_address(app, "198.51.100.2") as elsewhere:
            assert (await elsewhere.request(method, path, **more)).status_code in (401, 404)
        for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/none"):
            for _ in range(5):
                assert (await anonymous.get(path)).status_code in (200, 404)


async def test_a_good_credential_does_not_use_up_its_address(app: FastAPI, workspace: Workspace) -> None:
    for role in Role:
        async with from_address(app, "198.51.100.1", workspace.keys[role]) as caller:
            tokens = (await caller.post("/auth/token")).json()
            async with from_address(app, "198.51.100.1", tokens["access_token"]) as other:
                assert (await other.get("/auth/me")).status_code == 200
    async with from_address(app, "198.51.100.1") as anonymous:
        assert told(await anonymous.get("/chats"))[2] == 2


async def test_neighbours_who_show_wrong_credentials_end_nobodys_session(app: FastAPI, workspace: Workspace) -> None:
    good = workspace.keys[Role.EDITOR]
    async with from_address(app, "198.51.100.1") as anonymous, from_address(app, "198.51.100.1", good) as known:
        tokens = (await known.post("/auth/token")).json()
        for _ in range(5):
            last = await anonymous.get("/chats", headers={"X-API-Key": KEY})
        assert_limited(last, RateClass.ADDRESS)
        tokens = (await anonymous.post("/auth/token", json={"refresh_token": tokens["refresh_token"]})).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await anonymous.get("/auth/me", headers=headers)).status_code == 200
        assert (await anonymous.post("/auth/token", json={"api_key": good})).status_code == 200


async def test_what_was_valid_once_is_counted_like_what_never_was(
    app: FastAPI, workspace: Workspace, units: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "VIEWER_CACHE_S", 0.0)  # the seconds for which a key is believed are over
    made = (await workspace.admin.post("/auth/keys", json={"name": "x", "role": "admin"})).json()
    async with from_address(app, "198.51.100.1", made["key"]) as of_key:
        tokens = (await of_key.post("/auth/token")).json()
        assert (await workspace.admin.delete(f"/auth/keys/{made['id']}")).status_code == 204
        for credential in (made["key"], tokens["access_token"]):
            headers = {"Authorization": f"Bearer {credential}"}
            answers = [await of_key.get("/auth/me", headers=headers) for _ in range(5)]
            assert answers[0].status_code == (401 if credential == made["key"] else 429)
            assert_limited(answers[-1], RateClass.ADDRESS)
        refreshing = {"refresh_token": tokens["refresh_token"]}
        assert_limited(await of_key.post("/auth/token", json=refreshing), RateClass.ADDRESS)
        units.clear()
        for credential in (made["key"], tokens["access_token"]):
            await of_key.get("/auth/me", headers={"Authorization": f"Bearer {credential}"})
        assert units == [], "a refused request asks the database"


async def test_however_many_ask_whether_the_service_is_ready_the_database_is_asked_once(
    app: FastAPI, workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with from_address(app, "198.51.100.1") as anonymous:
        postgresql.execute("LOCK TABLE alembic_version")
        asking = [asyncio.create_task(anonymous.get("/readyz")) for _ in range(50)]
        while (await asyncio.to_thread(postgresql.execute, waiting)).fetchone() == (0,):
            pass
        assert (await workspace.viewer.get("/chats")).status_code == 200
        assert postgresql.execute(waiting).fetchone() == (1,)
        postgresql.commit()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}


ADDRESSES: list[tuple[str | None, list[str], str]] = [
    (None, [], "unknown"),
    (None, ["198.51.100.1"], "unknown"),
    ("203.0.113.9", [], "203.0.113.9"),
    ("::ffff:203.0.113.9", [], "203.0.113.9"),
    ("2001:db8:2:3:4:5:6:7", [], "2001:db8:2:3::"),
    ("fe80::1%eth0", [], "fe80::"),
    # Whoever is no proxy of ours says nothing about addresses.
    ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
    ("203.0.113.9", ["10.0.0.1"], "203.0.113.9"),
    ("11.0.0.1", ["198.51.100.1"], "11.0.0.1"),
    ("2001:db8:2::1", ["198.51.100.1"], "2001:db8:2::"),
    # One hop, and several.
    ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
    ("192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
    ("2001:db8:1::9", ["198.51.100.1"], "198.51.100.1"),
    ("10.0.0.1", ["198.51.100.1, 10.0.0.2,10.0.0.3"], "198.51.100.1"),
    ("10.0.0.1", ["198.51.100.1", "2001:db8:1::3"], "198.51.100.1"),
    ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
    # What the client itself wrote stands on the left.
    ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
    ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
    ("10.0.0.1", ["10.0.0.9, 198.51.100.1"], "198.51.100.1"),
    ("10.0.0.1", ["garbage,,\xff, 198.51.100.1"], "198.51.100.1"),
    ("10.0.0.1", ["6.6.6.6, " * 3_000 + "198.51.100.1"], "198.51.100.1"),
    # Ports and other spellings.
    ("10.0.0.1", ["198.51.100.1:55555"], "198.51.100.1"),
    ("10.0.0.1", ["[2001:db8:2:3:4::1]:443"], "2001:db8:2:3::"),
    ("10.0.0.1", ["[2001:db8:2:3:4::1]"], "2001:db8:2:3::"),
    ("10.0.0.1", ["2001:DB8:2:3:4:0:0:1"], "2001:db8:2:3::"),
    ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
    # A proxy that says nothing, or nothing sensible.
    ("10.0.0.1", [], "10.0.0.1"),
    ("10.0.0.1", [""], "10.0.0.1"),
    ("10.0.0.1", ["198.51.100.1, "], "10.0.0.1"),
    ("10.0.0.1", ["unknown"], "unknown"),
    ("10.0.0.1", ["198.51.100.1, _hidden"], "unknown"),
    ("10.0.0.1", ["198.51.100.1:"], "unknown"),
    ("10.0.0.1", ["198.51.100.1:1:2"], "unknown"),
    ("10.0.0.1", ["198.51.100.1:" + "9" * 5_000], "unknown"),
    ("10.0.0.1", ["[::1"], "unknown"),
    ("10.0.0.1", ["198.051.100.001"], "unknown"),
    ("10.0.0.1", ["\xff\xfe"], "unknown"),
    ("10.0.0.1", ["'; DROP TABLE messages"], "unknown"),
]


async def test_only_trusted_proxies_say_where_a_request_is_from(
    app: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    hit = services.rate_limits.hit

    async def noted(kind: RateClass, who: str) -> Any:
        assert kind is RateClass.ADDRESS
        counted.append(who)
        return await hit(kind, who)

    monkeypatch.setattr(services.rate_limits, "hit", noted)
    for peer, forwarded, expected in ADDRESSES:
        counted.clear()
        headers = [(b"X-Forwarded-For", each.encode("latin-1")) for each in forwarded]
        headers += [(b"X-Real-IP", b"6.6.6.6"), (b"Forwarded", b"for=6.6.6.6"), (b"X-Forwarded-Host", b"6.6.6.6")]
        async with from_address(app, peer) as anonymous:
            answer = await anonymous.get("/chats", headers=headers)
        assert answer.status_code in (401, 429)
        assert counted == [expected], (peer, forwarded)


async def test_without_trusted_proxies_no_forwarded_address_is_believed(services: Services) -> None:
    app = create_app(lambda: nullcontext(replace(services, trusted_proxies=())))
    async with app.router.lifespan_context(app):
        for peer in ("10.0.0.1", "127.0.0.1", "::1"):
            for number in range(4):
                async with from_address(app, peer) as anonymous:
                    answer = await anonymous.get("/chats", headers={"X-Forwarded-For": f"198.51.100.{number}"})
                assert answer.status_code == (401 if number < 3 else 429)


async def test_an_ipv6_network_is_one_address(app: FastAPI) -> None:
    async with AsyncExitStack() as stack:
        answers = []
        for host in (
            "2001:db8:2:3::1",
            "2001:db8:2:3:ffff::9",
            "2001:db8:2:3::2",
            "2001:db8:2:3::3",
            "2001:db8:2:4::1",
        ):
            opened = await stack.enter_async_context(from_address(app, host))
            answers.append((await opened.get("/chats")).status_code)
    assert answers == [401, 401, 401, 429, 401]


async def test_the_limits_are_those_of_the_settings(settings: Settings) -> None:
    changes = {"rate_limit_read": "7 per 2 day", "rate_limit_llm": "9/hour"}
    async with open_instance(settings.model_copy(update=changes)) as app:
        row, _ = await app.state.services.workspaces.get_or_create("ours")
        async with client(app, await create_key(app.state.services, row.workspace_id, Role.VIEWER)) as caller:
            answer = await caller.get("/auth/me")
    assert answer.headers["RateLimit-Policy"] == '"read";q=7;w=172800'
    others = {"write": "60000/minute", "search": "6000/minute", "address": "600/minute"}
    assert answer.json()["limits"] == {"read": "7 per 2 day", "llm": "9/hour", **others}
