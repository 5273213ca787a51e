"""API keys, refresh tokens and cookies become access tokens; sessions end when and where they should."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app.db import Database
from app.main import create_app
from app.schemas.enums import Role
from app.security.encryption import derive, key_id
from app.security.tokens import SessionToken, TokenSigner
from app.services.auth import AuthService
from app.settings import Settings
from tests.conftest import SECRET_KEY
from tests.support.accounts import ANA, BEN, OWN_PAGE, SECRET, Accounts, open_accounts, outcome
from tests.support.api import message

NEW_SECRET_KEY = "0123456789abcdef" * 4
REFUSED = (401, "unauthenticated")
FINE = (200, None)


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


def parts(access_token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a JWT's header and claims, as anybody can read them."""
    header, claims, _ = access_token.split(".")
    found = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, claims)]
    return found[0], found[1]


async def me(accounts: Accounts, credential: str) -> tuple[int, str | None]:
    """Returns how an instance answers that has not seen the credential before."""
    return outcome(await accounts.client(credential, await accounts.instance()).get("/auth/me"))


async def refresh(accounts: Accounts, refresh_token: str, **headers: str) -> httpx.Response:
    return await accounts.client().post("/auth/token", json={"refresh_token": refresh_token}, headers=headers)


# Getting one


async def test_a_key_becomes_tokens_wherever_it_is_sent(accounts: Accounts) -> None:
    key = await accounts.key()
    ways: list[tuple[httpx.AsyncClient, dict[str, Any]]] = [
        (accounts.client(), {"json": {"api_key": key}}),
        (accounts.client("wrong"), {"json": {"api_key": key}}),
        (accounts.client(), {"headers": {"Authorization": f"Bearer {key}"}}),
        (accounts.client(), {"headers": {"Authorization": f"bEARER {key}"}}),
        (accounts.client(), {"headers": {"X-API-Key": key}, "json": {}}),
    ]
    for client, request in ways:
        answer = await client.post("/auth/token", **request)
        assert outcome(answer) == FINE, request
        assert answer.headers["Cache-Control"] == "no-store"
        tokens = answer.json()
        ends = datetime.fromisoformat(tokens.pop("refresh_expires_at"))
        assert timedelta(days=13, hours=23) < ends - datetime.now(UTC) <= timedelta(days=14)
        assert tokens.pop("refresh_token").startswith("cr_")
        assert await me(accounts, tokens.pop("access_token")) == FINE
        assert tokens == {"token_type": "Bearer", "expires_in": 900}


async def test_a_cookie_becomes_a_token_of_the_same_session(accounts: Accounts) -> None:
    browser = await accounts.sign_in(ANA)
    sessions = accounts.rows("SELECT session_id, expires_at FROM sessions")
    ways: list[dict[str, Any]] = [
        {},
        {"json": {}},
        {"headers": {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}},
    ]
    for request in ways:
        tokens = (await browser.post("/auth/token", **request)).json()
        assert await me(accounts, tokens.pop("access_token")) == FINE
        assert datetime.fromisoformat(tokens.pop("refresh_expires_at")) == sessions[0][1]
        assert tokens == {"token_type": "Bearer", "expires_in": 900, "refresh_token": None}
    assert accounts.rows("SELECT session_id, expires_at FROM sessions") == sessions


async def test_a_cookie_needs_the_proof_that_the_page_is_ours(accounts: Accounts) -> None:
    browser = await accounts.sign_in(ANA)
    proofs: list[tuple[dict[str, str], bool]] = [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "https://chat.example.com"}, True),
        ({}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://chat.example.com"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://chat.example.com"}, False),
        ({"Origin": "https://chat.example.com:8443"}, False),
        ({"Origin": "https://chat.example.com.evil.example"}, False),
        ({"Origin": "https://CHAT.example.com"}, False),
        ({"Referer": "https://chat.example.com/docs"}, False),
    ]
    for headers, good in proofs:
        client = accounts.client()
        client.cookies = browser.cookies
        answer = await client.post("/auth/token", headers=headers)
        assert outcome(answer) == (FINE if good else (403, "cross_site")), headers
        assert outcome(await client.get("/auth/me", headers=headers)) == FINE


async def test_what_asks_wrongly_for_a_token_gets_none(accounts: Accounts) -> None:
    key = await accounts.key()
    tokens = await accounts.tokens(key)
    invalid = (422, "invalid")
    refused: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({}, REFUSED),
        ({"json": {}}, REFUSED),
        ({"json": {"api_key": None}}, REFUSED),
        ({"json": {"api_key": ""}}, REFUSED),
        ({"json": {"api_key": key[:-1]}}, REFUSED),
        ({"json": {"api_key": tokens["access_token"]}}, REFUSED),
        ({"json": {"api_key": tokens["refresh_token"]}}, REFUSED),
        ({"json": {"refresh_token": key}}, REFUSED),
        ({"json": {"refresh_token": tokens["access_token"]}}, REFUSED),
        ({"json": {"refresh_token": ""}}, REFUSED),
        ({"headers": {"Authorization": f"Bearer {tokens['refresh_token']}"}}, REFUSED),
        ({"headers": {"Authorization": f"Bearer {tokens['access_token']}"}}, REFUSED),
        ({"headers": {"X-API-Key": tokens["access_token"]}}, REFUSED),
        ({"headers": {"Authorization": f"Basic {key}"}}, REFUSED),
        ({"headers": {"Cookie": f"__Host-session={key}", **OWN_PAGE}}, REFUSED),
        ({"headers": {"Cookie": f"__Host-session={tokens['refresh_token']}", **OWN_PAGE}}, REFUSED),
        ({"json": {"api_key": key, "refresh_token": tokens["refresh_token"]}}, invalid),
        ({"json": {"api_key": key, "refresh_token": None}}, invalid),
        ({"json": {"api_key": key, "scope": "admin"}}, invalid),
        ({"json": {"api_key": 1}}, invalid),
        ({"json": {"api_key": [key]}}, invalid),
        ({"json": {"refresh_token": {"$gt": ""}}}, invalid),
        ({"json": {"refresh_token": True}}, invalid),
        ({"json": {"api_key": "x" * 1_025}}, invalid),
        ({"json": {"api_key": "a\0b"}}, invalid),
        ({"json": {"api_key": key, "grant_type": "password"}}, invalid),
        ({"json": {"api_key": key, "grant_type": 5}}, invalid),
        ({"json": [key]}, invalid),
        ({"json": key}, invalid),
        ({"content": b'{"api_key": ', "headers": {"Content-Type": "application/json"}}, (400, "malformed")),
        ({"data": {"api_key": key, "grant_type": "api_key"}}, (415, "unsupported_media_type")),
        ({"params": {"api_key": key}}, (400, "credential_in_url")),
        ({"params": {"refresh_token": tokens["refresh_token"]}}, (400, "credential_in_url")),
        ({"params": {"next": f"/docs?a={tokens['access_token']}"}}, (400, "credential_in_url")),
        ({"params": {"next": tokens["access_token"]}}, (400, "credential_in_url")),
    ]
    for request, expected in refused:
        answer = await accounts.client().post("/auth/token", **request)
        assert outcome(answer) == expected, request
        assert ("WWW-Authenticate" in answer.headers) == (expected == REFUSED)
        assert not [each for each in (key, tokens["access_token"], tokens["refresh_token"]) if each in answer.text]
    assert outcome(await refresh(accounts, tokens["refresh_token"])) == FINE, "none of these used it up"


async def test_the_access_token_says_this_and_nothing_else(accounts: Accounts) -> None:
    browser = await accounts.sign_in(ANA)
    key = await accounts.key()
    seen = set()
    for client in (browser, accounts.client(key)):
        who = (await client.get("/auth/me")).json()
        began = time.time()
        tokens = (await client.post("/auth/token")).json()
        header, claims = parts(tokens["access_token"])
        assert header == {"alg": "HS256", "kid": key_id(derive(SECRET, "access tokens")), "typ": "at+jwt"}
        assert set(claims) == {"aud", "exp", "iat", "iss", "jti", "sid", "sub", "ws"}
        assert (claims["iss"], claims["aud"]) == ("chat-insights", "chat-insights-api")
        assert type(claims["iat"]) is int
        assert int(began) <= claims["iat"] <= time.time()
        assert claims["exp"] - claims["iat"] == tokens["expires_in"] == 900
        assert (claims["sub"], claims["ws"]) == (who["credential"]["actor"], who["workspace"]["id"])
        sessions = accounts.rows("SELECT session_id FROM sessions WHERE workspace_id = %s", int(claims["ws"]))
        assert (int(claims["sid"]),) in sessions
        for personal in (ANA.email, ANA.name, "ours", "g-1001", SECRET_KEY, key):
            assert personal not in json.dumps([header, claims])
        seen.add(claims["jti"])
    assert len(seen) == 2
    assert all(len(jti) == 32 for jti in seen)


async def test_the_access_token_works_for_every_class_of_operations(accounts: Accounts) -> None:
    client = accounts.client((await accounts.tokens())["access_token"])
    operations: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/chats", {"json": message()}, 201),
        ("GET", "/chats/c1", {}, 200),
        ("GET", "/chats", {"params": {"q": "parcel"}}, 200),
        ("POST", "/chats/summarize", {"json": {"conversation_id": "c1"}}, 200),
        ("POST", "/auth/keys", {"json": {"name": "made by token", "role": "viewer"}}, 201),
        ("GET", "/audit", {}, 200),
        ("DELETE", "/chats/c1", {}, 200),
        ("GET", "/auth/me", {}, 200),
    ]
    for method, path, more, status in operations:
        assert (await client.request(method, path, **more)).status_code == status, path
    credential = (await client.get("/auth/me")).json()["credential"]
    assert (credential["kind"], f"key:{credential['key_id']}") == ("session", credential["actor"])


async def test_the_access_token_has_the_role_of_its_key_and_not_more(accounts: Accounts) -> None:
    for role, status in ((Role.VIEWER, 403), (Role.EDITOR, 201)):
        tokens = await accounts.tokens(await accounts.key(role))
        client = accounts.client(tokens["access_token"])
        assert (await client.get("/auth/me")).json()["role"] == role
        assert (await client.post("/chats", json=message(f"of-{role}"))).status_code == status
        assert outcome(await client.get("/auth/keys")) == (403, "forbidden")


async def test_an_access_token_ends_after_fifteen_minutes(accounts: Accounts) -> None:
    header, claims = parts((await accounts.tokens())["access_token"])
    session, signer = SessionToken(int(claims["ws"]), int(claims["sid"])), TokenSigner([SECRET])

    def issued(ago: timedelta) -> str:
        return signer.access(session, claims["sub"], claims["jti"], datetime.now(UTC) - ago)

    assert parts(issued(timedelta())) == (header, {**claims, **parts(issued(timedelta()))[1]})
    assert await me(accounts, issued(timedelta(minutes=14))) == FINE
    assert await me(accounts, issued(timedelta(minutes=15))) == REFUSED
    nearly = accounts.client(issued(timedelta(minutes=14, seconds=57)))
    assert outcome(await nearly.get("/auth/me")) == FINE
    async with asyncio.timeout(10):
        while (answer := await nearly.get("/auth/me")).status_code == 200:
            pass  # believed from memory, but not beyond its end
    assert outcome(answer) == REFUSED


# Refreshing


async def test_a_refresh_token_is_replaced_each_time_and_the_session_ends_when_it_did(accounts: Accounts) -> None:
    tokens = [await accounts.tokens()]
    for _ in range(3):
        tokens.append((await refresh(accounts, tokens[-1]["refresh_token"])).json())
    assert len({each["refresh_token"] for each in tokens}) == 4
    assert len({each["access_token"] for each in tokens}) == 4
    assert len({each["refresh_expires_at"] for each in tokens}) == 1
    assert len({parts(each["access_token"])[1]["sid"] for each in tokens}) == 1
    for each in tokens:
        assert await me(accounts, each["access_token"]) == FINE


async def test_a_refresh_token_that_comes_again_ends_everything_of_its_session(accounts: Accounts) -> None:
    key = await accounts.key()
    first, unrelated = await accounts.tokens(key), await accounts.tokens(key)
    second = (await refresh(accounts, first["refresh_token"])).json()
    third = (await refresh(accounts, second["refresh_token"])).json()
    answer = await refresh(accounts, first["refresh_token"])
    assert outcome(answer) == REFUSED
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    for each in (first, second, third):
        assert await me(accounts, each["access_token"]) == REFUSED
        assert outcome(await refresh(accounts, each["refresh_token"])) == REFUSED
    assert await me(accounts, unrelated["access_token"]) == await me(accounts, key) == FINE
    claims = parts(first["access_token"])[1]
    ended = accounts.rows("SELECT actor, target, details FROM audit_log WHERE action = 'session.ended'")
    assert ended == [(claims["sub"], f"session:{claims['sid']}", {"reason": "token_reused"})]


async def test_of_two_refreshes_at_once_one_wins_or_the_session_ends(accounts: Accounts) -> None:
    elsewhere = await accounts.instance()
    for _ in range(8):
        tokens = await accounts.tokens()
        sid = int(parts(tokens["access_token"])[1]["sid"])
        body = {"refresh_token": tokens["refresh_token"]}
        clients = [accounts.client(), accounts.client(app=elsewhere), accounts.client()]
        answers = await asyncio.gather(*(each.post("/auth/token", json=body) for each in clients))
        won = [answer.json() for answer in answers if answer.status_code == 200]
        assert [outcome(each) for each in answers if each.status_code != 200] == [REFUSED] * (3 - len(won))
        assert len(won) == 1
        # The others came with a token that was used: the winner's end with it.
        assert accounts.rows("SELECT 1 FROM sessions WHERE session_id = %s", sid) == []
        assert await me(accounts, won[0]["access_token"]) == REFUSED
        assert outcome(await refresh(accounts, won[0]["refresh_token"])) == REFUSED
        ended = accounts.rows("SELECT details FROM audit_log WHERE target = %s ORDER BY entry_id", f"session:{sid}")
        assert [details.get("reason") for (details,) in ended] == [None, "token_reused"]


async def test_a_refresh_whose_answer_was_lost_can_be_sent_again_with_an_idempotency_key(accounts: Accounts) -> None:
    tokens = await accounts.tokens()
    again = {"Idempotency-Key": "refresh-1"}
    first, second = [await refresh(accounts, tokens["refresh_token"], **again) for _ in range(2)]
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert await me(accounts, first.json()["access_token"]) == FINE
    assert outcome(await refresh(accounts, tokens["refresh_token"])) == REFUSED
    assert await me(accounts, first.json()["access_token"]) == REFUSED


async def test_a_session_ends_however_often_it_is_refreshed(accounts: Accounts) -> None:
    tokens = (await refresh(accounts, (await accounts.tokens())["refresh_token"])).json()
    browser = await accounts.sign_in(ANA)
    assert outcome(await browser.get("/auth/me")) == FINE
    accounts.change("UPDATE sessions SET expires_at = now()")
    assert await me(accounts, tokens["access_token"]) == REFUSED
    assert outcome(await refresh(accounts, tokens["refresh_token"])) == REFUSED
    assert outcome(await accounts.browser(await accounts.instance(), of=browser).get("/auth/me")) == REFUSED
    await accounts.tokens()
    of_the_others = "SELECT 1 FROM sessions AS s JOIN workspaces USING (workspace_id) WHERE name = 'ours'"
    assert len(accounts.rows(of_the_others)) == 1, "those that are over are cleared away"


async def delete_key(admin: httpx.AsyncClient, id: str, _: Accounts) -> None:
    assert (await admin.delete(f"/auth/keys/{id}")).status_code == 204


async def rotate_key(admin: httpx.AsyncClient, id: str, _: Accounts) -> None:
    assert (await admin.post(f"/auth/keys/{id}/rotate", json={"overlap_seconds": 0})).status_code == 201


async def let_key_expire(_: httpx.AsyncClient, id: str, accounts: Accounts) -> None:
    accounts.change("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", int(id))


async def remove_maker(admin: httpx.AsyncClient, id: str, accounts: Accounts) -> None:
    [(member_id,)] = accounts.rows("SELECT member_id FROM api_keys WHERE key_id = %s", int(id))
    assert (await admin.delete(f"/workspace/members/{member_id}")).status_code == 204


@pytest.mark.parametrize("end", [delete_key, rotate_key, let_key_expire, remove_maker])
async def test_a_session_goes_with_its_key(
    accounts: Accounts, end: Callable[[httpx.AsyncClient, str, Accounts], Awaitable[None]]
) -> None:
    ana = await accounts.sign_in(ANA)
    ben, _ = await accounts.join(ana, BEN, Role.ADMIN)
    made = (await ben.post("/auth/keys", json={"name": "for tokens", "role": "editor"})).json()
    tokens = await accounts.tokens(made["key"])
    believed = accounts.client(made["key"])
    assert outcome(await believed.get("/auth/me")) == FINE
    await end(ana, made["id"], accounts)
    for credential in (made["key"], tokens["access_token"]):
        assert await me(accounts, credential) == REFUSED
    for _ in range(2):
        assert outcome(await refresh(accounts, tokens["refresh_token"])) == REFUSED
    assert outcome(await believed.post("/auth/token")) == REFUSED, "believed a moment ago, it begins nothing now"


async def test_a_member_who_is_gone_begins_nothing_in_the_seconds_until_it_is_known(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, id = await accounts.join(ana, BEN, Role.ADMIN)
    assert outcome(await ben.get("/auth/me")) == FINE
    assert (await ana.delete(f"/workspace/members/{id}")).status_code == 204
    for path, body in (("/auth/token", {}), ("/auth/keys", {"name": "to stay", "role": "admin"})):
        assert outcome(await ben.post(path, json=body)) == REFUSED
    members = [each["id"] for each in (await ana.get("/workspace/members")).json()["data"]]
    assert id not in members
    assert (await ana.get("/auth/keys")).json()["data"] == []


async def test_a_changed_role_acts_through_tokens_that_exist(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, id = await accounts.join(ana, BEN, Role.ADMIN)
    made = (await ben.post("/auth/keys", json={"name": "x", "role": "editor"})).json()
    by_cookie, by_key = (await ben.post("/auth/token")).json(), await accounts.tokens(made["key"])
    assert (await ana.patch(f"/workspace/members/{id}", json={"role": "viewer"})).status_code == 200
    elsewhere = await accounts.instance()
    refreshed = (await refresh(accounts, by_key["refresh_token"])).json()
    for each in (by_cookie, by_key, refreshed):
        assert (await accounts.client(each["access_token"], elsewhere).get("/auth/me")).json()["role"] == "viewer"


# Signing out


async def test_signing_out_ends_one_session(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    other = await accounts.sign_in(ANA)
    token = (await ana.post("/auth/token")).json()["access_token"]
    signed_out = await ana.post("/auth/logout")
    assert (signed_out.status_code, signed_out.content) == (204, b"")
    cookie = signed_out.headers["Set-Cookie"]
    assert cookie.startswith('__Host-session="";')
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax", "Max-Age=0"} <= set(cookie.split("; "))
    assert await me(accounts, token) == REFUSED, "a browser's token is of the browser's session"
    again = await other.post("/auth/token")
    assert outcome(again) == FINE
    assert await me(accounts, again.json()["access_token"]) == FINE
    key = await accounts.key()
    tokens, others = await accounts.tokens(key), await accounts.tokens(key)
    of_token = accounts.client(tokens["access_token"])
    actor = (await of_token.get("/auth/me")).json()["credential"]["actor"]
    assert (await of_token.post("/auth/logout")).status_code == 204
    for _ in range(2):
        assert outcome(await of_token.get("/auth/me")) == outcome(await of_token.post("/auth/logout")) == REFUSED
    assert outcome(await refresh(accounts, tokens["refresh_token"])) == REFUSED
    for credential in (key, others["access_token"]):
        assert await me(accounts, credential) == FINE
    ended = accounts.rows("SELECT actor, details FROM audit_log WHERE action = 'session.ended' ORDER BY entry_id")
    whose = (await other.get("/auth/me")).json()["credential"]["actor"]
    assert ended == [(whose, {"reason": "signed_out"}), (actor, {"reason": "signed_out"})]


async def test_a_cookie_that_signed_out_is_refused_even_if_it_was_kept(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    thief = accounts.browser(of=ana)
    assert outcome(await thief.get("/auth/me")) == FINE
    foreign_page = accounts.client(headers={"Cookie": f"__Host-session={ana.cookies['__Host-session']}"})
    assert outcome(await foreign_page.post("/auth/logout")) == (403, "cross_site")
    assert (await ana.post("/auth/logout")).status_code == 204
    assert "__Host-session" not in ana.cookies
    assert outcome(await thief.get("/auth/me")) == REFUSED
    assert outcome(await thief.post("/auth/token")) == REFUSED


async def test_an_api_key_has_no_session_to_end(accounts: Accounts) -> None:
    for role in Role:
        client = accounts.client(await accounts.key(role))
        assert outcome(await client.post("/auth/logout")) == (409, "no_session")
        assert outcome(await client.get("/auth/me")) == FINE
    assert outcome(await accounts.client().post("/auth/logout")) == REFUSED


# How long a credential is believed


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_revocation_acts_within_five_seconds_of_any_look_at_the_database(accounts: Accounts) -> None:
    assert accounts.settings.database_url
    url, clock = accounts.settings.database_url.get_secret_value(), Clock()
    late = 0.0

    class SlowSigner(TokenSigner):
        def read_access(self, text: str) -> SessionToken:
            clock.now += late  # as long as a busy database takes
            return super().read_access(text)

    database = Database(url)
    auth = AuthService(database, SlowSigner([SECRET]), [derive(SECRET, "api keys")], clock=clock)
    app = create_app(lambda: nullcontext(replace(accounts.services, auth=auth)))
    async with app.router.lifespan_context(app):
        for took, believed_for in ((0.0, 4.0), (3.0, 1.0), (6.0, 0.0)):
            late = took
            tokens = await accounts.tokens()
            client = accounts.client(tokens["access_token"], app)
            assert outcome(await client.get("/auth/me")) == FINE
            late = 0.0
            assert (await accounts.client(tokens["access_token"]).post("/auth/logout")).status_code == 204
            if believed_for:
                clock.now += believed_for - 0.01
                assert outcome(await client.get("/auth/me")) == FINE
                clock.now += 0.01
            assert outcome(await client.get("/auth/me")) == REFUSED
    await database.close()


# Another signing key


async def test_signing_keys_are_replaced_while_everything_goes_on(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    for n in range(3):
        await ana.post("/auth/keys", json={"name": f"k{n}", "role": "viewer"})
    key, unused = await accounts.key(), await accounts.key()
    tokens = await accounts.tokens(key)
    page = (await ana.get("/auth/keys", params={"limit": 1})).json()
    both = await accounts.instance(secret_key=SecretStr(NEW_SECRET_KEY), previous_secret_keys=SecretStr(SECRET_KEY))
    old = accounts.rows("SELECT digest FROM api_keys")
    assert outcome(await accounts.client(tokens["access_token"], both).get("/auth/me")) == FINE
    assert outcome(await accounts.client(key, both).get("/auth/me")) == FINE
    browser = accounts.browser(both, of=ana)
    assert outcome(await browser.get("/auth/me")) == FINE
    next_page = await browser.get("/auth/keys", params={"limit": 1, "cursor": page["next_cursor"]})
    assert outcome(next_page) == FINE
    assert next_page.json()["data"] != page["data"]
    fresh = await accounts.client(app=both).post("/auth/token", json={"refresh_token": tokens["refresh_token"]})
    header, claims = parts(fresh.json()["access_token"])
    assert header["kid"] == key_id(derive(bytes.fromhex(NEW_SECRET_KEY), "access tokens"))
    assert claims["sid"] == parts(tokens["access_token"])[1]["sid"]
    assert header["kid"] != parts(tokens["access_token"])[0]["kid"]
    assert len({*accounts.rows("SELECT digest FROM api_keys")}.difference(old)) == 1, (
        "the key that was used, and no other"
    )
    # Then the old secret is dropped.
    new = await accounts.instance(secret_key=SecretStr(NEW_SECRET_KEY), previous_secret_keys=None)
    for credential in (key, fresh.json()["access_token"]):
        assert outcome(await accounts.client(credential, new).get("/auth/me")) == FINE
    again = await accounts.client(app=new).post("/auth/token", json={"refresh_token": fresh.json()["refresh_token"]})
    assert outcome(again) == FINE
    for credential in (unused, tokens["access_token"]):
        assert outcome(await accounts.client(credential, new).get("/auth/me")) == REFUSED
    assert outcome(await accounts.browser(new, of=ana).get("/auth/me")) == REFUSED


async def test_with_another_signing_key_alone_everything_ends_and_nothing_breaks(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    key = await accounts.key()
    for _ in range(2):
        await ana.post("/auth/keys", json={"name": "x", "role": "viewer"})
    cursor = (await ana.get("/auth/keys", params={"limit": 1})).json()["next_cursor"]
    tokens = await accounts.tokens(key)
    new = await accounts.instance(secret_key=SecretStr(NEW_SECRET_KEY), previous_secret_keys=None)
    client = accounts.client(app=new)
    for credential in (key, tokens["access_token"]):
        for headers in ({"Authorization": f"Bearer {credential}"}, {"X-API-Key": credential}):
            assert outcome(await client.get("/chats", headers=headers)) == REFUSED
    for body in ({"api_key": key}, {"refresh_token": tokens["refresh_token"]}):
        assert outcome(await client.post("/auth/token", json=body)) == REFUSED
    assert outcome(await accounts.browser(new, of=ana).get("/auth/me")) == REFUSED
    anew = await accounts.sign_in(ANA)
    again = accounts.browser(new)
    assert (await accounts.come_back(again, ANA)).status_code == 303
    assert outcome(await again.get("/auth/keys", params={"limit": 1, "cursor": cursor})) == (422, "invalid")
    assert outcome(await again.get("/auth/me")) == outcome(await anew.get("/auth/me")) == FINE
