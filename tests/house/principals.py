"""Everybody who may knock: each kind of credential, good and bad, and what it is good for."""

import base64
import json
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import psycopg
from fastapi import FastAPI

from app.factory import Services
from app.models import Base
from app.routes.deps import SESSION_COOKIE
from app.schemas.enums import Provider, Role, WebhookEvent
from app.security.api_keys import PREFIX, new_api_key, parse_api_key, random_id
from app.security.oauth import Identity
from app.security.tokens import ACCESS_LIFETIME, SessionToken, TokenSigner
from app.settings import Settings, secret_keys
from tests.support.api import create_key, message

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
FOREIGN_PAGE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}


class StandIn:
    """A sign-in provider that knows everybody: the code is the name."""

    name = "github"

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        return f"https://github.test/authorize?state={state}"

    async def identity(self, *, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        name = code.removeprefix("code-of-").removesuffix("-4711-canary")
        return Identity(self.name, "https://github.test", name, f"{name}@example.com", name.title())


class Principal(NamedTuple):
    """Who asks: with which headers, and which role they prove; None is nobody."""

    name: str
    headers: dict[str, str]
    role: Role | None = None

    @property
    def by_cookie(self) -> bool:
        return set(self.headers) & {"Cookie", "Authorization", "X-API-Key"} == {"Cookie"}

    @property
    def proves_origin(self) -> bool:
        return OWN_PAGE.items() <= self.headers.items()

    @property
    def by_token(self) -> bool:
        """Whether it is a session's token; with a cookie, the session is a browser's."""
        return self.headers.get("Authorization", "").startswith("Bearer ey")


class Tokens(NamedTuple):
    """What a credential was exchanged for; a browser's session gets no refresh token."""

    access: str
    refresh: str


@dataclass
class House:
    """A workspace, and everything that an operation can be about: path ids by their names."""

    app: FastAPI
    services: Services
    settings: Settings
    database: psycopg.Connection
    client: httpx.AsyncClient
    workspace_id: int
    admin: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, url: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        """Sends one request; no cookie stays behind."""
        answer = await self.client.request(method, url, headers=headers, **more)
        self.client.cookies.clear()
        return answer

    async def act(self, method: str, url: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """Sends a request that works, by the admin unless told otherwise, and returns the document."""
        answer = await self.ask(method, url, headers or self.admin, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def key(self, role: Role) -> str:
        return await create_key(self.services, self.workspace_id, role)

    async def exchange(self, headers: dict[str, str]) -> Tokens:
        document = await self.act("POST", "/auth/token", headers)
        return Tokens(document["access_token"], document["refresh_token"])

    async def begin(self, **params: str) -> tuple[str, dict[str, str]]:
        """Begins a sign-in; returns its state, and the browser's cookie as headers."""
        begun = await self.ask("GET", "/auth/login/github", {"Sec-Fetch-Site": "none"}, params=params)
        assert begun.status_code == 303, begun.text
        [state] = parse_qs(urlsplit(begun.headers["Location"]).query)["state"]
        return state, {"Cookie": begun.headers["Set-Cookie"].partition(";")[0]}

    async def come_back(self, name: str, **params: str) -> httpx.Response:
        """Begins a sign-in and returns what somebody is answered at its end."""
        state, browser = await self.begin(**params)
        params = {"code": f"code-of-{name}-4711-canary", "state": state}
        return await self.ask("GET", "/auth/callback/github", browser, params=params)

    async def sign_in(self, name: str) -> dict[str, str]:
        """Signs somebody in; returns the cookie as headers."""
        answer = await self.come_back(name)
        assert answer.status_code == 303, answer.text
        cookies = dict(each.partition(";")[0].split("=", 1) for each in answer.headers.get_list("Set-Cookie"))
        return cookie(cookies[SESSION_COOKIE])

    async def member(self, name: str, role: Role) -> tuple[dict[str, str], str]:
        """Invites somebody and signs them in; returns the cookie as headers, and the member's id."""
        invited = await self.act("POST", "/workspace/members", json={"email": f"{name}@example.com", "role": role})
        return await self.sign_in(name), invited["id"]

    async def furnish(self) -> None:
        """Puts everything in its place that an operation can be about."""
        for name in ("conversation_id", "user_id", "key_id", "member_id", "job_id", "webhook_id"):
            await self.replace(name)
        self.ids["provider"] = Provider.GITHUB

    async def replace(self, name: str) -> None:
        """Puts what an operation has taken away in its place again."""
        if name == "conversation_id":
            self.ids[name] = "order-1042"
            sent = message("order-1042", "m-0", message_content="Hi, my parcel has not arrived. Can I get a refund?")
            await self.act("POST", "/chats", json=sent)
            for kind in ("summarize", "insights"):
                await self.act("POST", f"/chats/{kind}", json={"conversation_id": "order-1042"})
            await self.note_delivery()
        elif name == "user_id":
            self.ids[name] = "ana"
        elif name == "key_id":
            self.ids[name] = str(parsed(await self.key(Role.VIEWER)))
            self.ids["scope"] = f"key:{self.ids[name]}"
        elif name == "job_id":
            selected = {"conversation_ids": [self.ids["conversation_id"]]}
            self.ids[name] = (await self.act("POST", "/jobs/summarize", json=selected))["id"]
        elif name == "webhook_id":
            hook = {"url": "https://hooks.example.com/house", "events": list(WebhookEvent)}
            self.ids[name] = (await self.act("POST", "/webhooks", json=hook))["id"]
            await self.act("POST", "/chats/insights", json={"conversation_id": "order-1042", "force": True})
            await self.note_delivery()
        else:
            spare = {"email": f"spare-{random_id()}@example.com", "role": Role.VIEWER}
            self.ids[name] = (await self.act("POST", "/workspace/members", json=spare))["id"]

    async def note_delivery(self) -> None:
        """Takes the newest delivery to the webhook for the one that operations are about."""
        if webhook_id := self.ids.get("webhook_id"):
            self.ids["delivery_id"] = (await self.act("GET", f"/webhooks/{webhook_id}/deliveries"))["data"][0]["id"]

    def numbers(self) -> list[str]:
        """Returns what nobody outside may be told."""
        names = ("job_id", "key_id", "member_id", "webhook_id", "delivery_id")
        return [str(self.workspace_id), *(self.ids[name] for name in names)]

    def expire(self, table: str, column: str, number: int) -> None:
        done = self.database.execute(
            f"UPDATE {table} SET expires_at = now() - interval '1 minute' WHERE {column} = %s".encode(), [number]
        )
        assert done.rowcount == 1


@asynccontextmanager
async def open_house(
    app: FastAPI, services: Services, settings: Settings, database: psycopg.Connection, name: str = "ours"
) -> AsyncIterator[House]:
    """Yields a workspace with its furniture."""
    database.autocommit = True
    row, _ = await services.workspaces.get_or_create(name)
    admin = bearer(await create_key(services, row.workspace_id, Role.ADMIN))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
        house = House(app, services, settings, database, client, row.workspace_id, admin)
        await house.furnish()
        yield house


async def everybody(house: House) -> list[Principal]:
    """Returns everybody whom the house knows or does not know, each with a session of their own."""
    return [
        *await _good_keys(house),
        *await _bad_keys(house),
        *await _good_tokens(house),
        *await _bad_tokens(house),
        *await _members(house),
        *await _misplaced(house),
    ]


async def strangers(house: House) -> list[Principal]:
    """Returns admins of other workspaces."""
    row, _ = await house.services.workspaces.get_or_create("theirs")
    keys = [await create_key(house.services, row.workspace_id, Role.ADMIN) for _ in range(3)]
    tokens = await house.exchange(bearer(keys[2]))
    return [
        Principal("another workspace's admin key", bearer(keys[0]), Role.ADMIN),
        Principal("another workspace's admin key as X-API-Key", api_key(keys[1]), Role.ADMIN),
        Principal("token of another workspace's admin", bearer(tokens.access), Role.ADMIN),
        Principal("cookie of another workspace's admin", {**await house.sign_in("stranger"), **OWN_PAGE}, Role.ADMIN),
    ]


async def _good_keys(house: House) -> list[Principal]:
    found = []
    for role in Role:
        found += [
            Principal(f"{role} key", bearer(await house.key(role)), role),
            Principal(f"{role} key as X-API-Key", api_key(await house.key(role)), role),
        ]
    owner, _ = await house.member("owner", Role.ADMIN)
    narrow = await house.act("POST", "/auth/keys", {**owner, **OWN_PAGE}, json={"name": "x", "role": Role.VIEWER})
    found.append(Principal("viewer key of an admin", bearer(narrow["key"]), Role.VIEWER))
    demoted, demoted_id = await house.member("demoted", Role.ADMIN)
    wide = await house.act("POST", "/auth/keys", {**demoted, **OWN_PAGE}, json={"name": "x", "role": Role.ADMIN})
    wide_token = await house.exchange(bearer(wide["key"]))
    await house.act("PATCH", f"/workspace/members/{demoted_id}", json={"role": Role.VIEWER})
    return [
        *found,
        Principal("admin key of an admin who was made viewer", bearer(wide["key"]), Role.VIEWER),
        Principal("token of an admin key of an admin who was made viewer", bearer(wide_token.access), Role.VIEWER),
        Principal("cookie of an admin who was made viewer", {**demoted, **OWN_PAGE}, Role.VIEWER),
    ]


async def _bad_keys(house: House) -> list[Principal]:
    expired, revoked, genuine = [await house.key(Role.ADMIN) for _ in range(3)]
    house.expire("api_keys", "key_id", parsed(expired))
    await house.act("DELETE", f"/auth/keys/{parsed(revoked)}")
    leaver, leaver_id = await house.member("leaver", Role.ADMIN)
    left = await house.act("POST", "/auth/keys", {**leaver, **OWN_PAGE}, json={"name": "x", "role": Role.ADMIN})
    await house.act("DELETE", f"/workspace/members/{leaver_id}")
    unknown = new_api_key(house.workspace_id).text
    return [
        Principal("nobody", {}),
        Principal("malformed key", bearer(PREFIX + "a" * 64)),
        Principal("malformed key as X-API-Key", api_key("no key")),
        Principal("key of an unknown id", bearer(unknown)),
        Principal("key of an unknown id as X-API-Key", api_key(unknown)),
        Principal("key of an unknown workspace", bearer(new_api_key(random_id()).text)),
        Principal("known key with another secret", bearer(with_another_secret(genuine))),
        Principal("expired key", bearer(expired)),
        Principal("revoked key", bearer(revoked)),
        Principal("key of a removed member", bearer(left["key"])),
        Principal("cookie of a removed member", {**leaver, **OWN_PAGE}),
        Principal("cookie of a removed member without proof", leaver),
        Principal("good key by Basic", {"Authorization": f"Basic {genuine}"}),
        Principal("good key as cookie", {**cookie(genuine), **OWN_PAGE}),
    ]


async def _good_tokens(house: House) -> list[Principal]:
    return [
        Principal(f"token of {role} key", bearer((await house.exchange(bearer(await house.key(role)))).access), role)
        for role in Role
    ]


async def _bad_tokens(house: House) -> list[Principal]:
    old, ended, over, keyless, keyless_too = [await house.key(Role.ADMIN) for _ in range(5)]
    live, gone, late = [await house.exchange(bearer(key)) for key in (old, ended, over)]
    of_deleted, of_expired = [await house.exchange(bearer(key)) for key in (keyless, keyless_too)]
    await house.act("POST", "/auth/logout", bearer(gone.access))
    await house.act("DELETE", f"/auth/keys/{parsed(keyless)}")
    house.expire("api_keys", "key_id", parsed(keyless_too))
    house.expire("sessions", "session_id", session(late.access).session_id)
    claims = session(live.access), f"key:{parsed(old)}", "jti"
    yesterday, now = datetime.now(UTC) - ACCESS_LIFETIME - timedelta(minutes=1), datetime.now(UTC)
    own, foreign = TokenSigner(secret_keys(house.settings)), TokenSigner([bytes(32)])
    unknown = SessionToken(house.workspace_id, random_id()), "key:1", "jti"
    return [
        Principal("expired token", bearer(own.access(*claims, yesterday))),
        Principal("token of another signer", bearer(foreign.access(*claims, now))),
        Principal("token of an unknown session", bearer(own.access(*unknown, now))),
        Principal("token of an ended session", bearer(gone.access)),
        Principal("token of a session that is over", bearer(late.access)),
        Principal("token of a deleted key", bearer(of_deleted.access)),
        Principal("token of an expired key", bearer(of_expired.access)),
        Principal("good token as X-API-Key", api_key(live.access)),
        Principal("good token as cookie", {**cookie(live.access), **OWN_PAGE}),
        Principal("refresh token", bearer(live.refresh)),
        Principal("refresh token as X-API-Key", api_key(live.refresh)),
        Principal("refresh token as cookie", {**cookie(live.refresh), **OWN_PAGE}),
    ]


async def _members(house: House) -> list[Principal]:
    found = []
    for role in Role:
        for name, page in (("", OWN_PAGE), (" without proof", {}), (" from another site", FOREIGN_PAGE)):
            shown, _ = await house.member(f"{role}{name}".replace(" ", "-"), role)
            found.append(Principal(f"{role}'s cookie{name}", {**shown, **page}, role))
        shown, _ = await house.member(f"{role}-with-token", role)
        tokens = await house.exchange({**shown, **OWN_PAGE})
        found.append(Principal(f"{role}'s token", bearer(tokens.access), role))
    return found


async def _misplaced(house: House) -> list[Principal]:
    shown, _ = await house.member("misplaced", Role.ADMIN)
    value = shown["Cookie"].partition("=")[2]
    changed = value[:-1] + ("b" if value[-1] == "a" else "a")
    ended, _ = await house.member("ended", Role.ADMIN)
    await house.act("POST", "/auth/logout", {**ended, **OWN_PAGE})
    return [
        Principal("cookie as Bearer", bearer(value)),
        Principal("cookie as X-API-Key", api_key(value)),
        Principal("good cookie beside a bad key", {**shown, **OWN_PAGE, **api_key("no key")}),
        Principal("cookie with a changed letter", {**cookie(changed), **OWN_PAGE}),
        Principal("cookie of an ended session", {**ended, **OWN_PAGE}),
    ]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def api_key(credential: str) -> dict[str, str]:
    return {"X-API-Key": credential}


def cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"{SESSION_COOKIE}={value}"}


def parsed(key: str) -> int:
    """Returns the id of an API key."""
    found = parse_api_key(key)
    assert found
    return found.key_id


def session(access_token: str) -> SessionToken:
    claims = jwt.decode(access_token, options={"verify_signature": False})
    return SessionToken(int(claims["ws"]), int(claims["sid"]))


def with_another_secret(key: str) -> str:
    """Returns a key of the same id with a right checksum."""
    other = new_api_key(1).text
    raw, fresh = (bytearray(base64.b32decode(each.removeprefix(PREFIX).upper())) for each in (key, other))
    raw[16:36] = fresh[16:36]
    return checked(bytes(raw[:36]))


def checked(body: bytes) -> str:
    """Returns the key of a body, with its checksum."""
    return PREFIX + base64.b32encode(body + zlib.crc32(body).to_bytes(4, "big")).decode().lower()


def state(database: psycopg.Connection, workspace_id: int | None = None) -> dict[str, str]:
    """Returns a digest of each table, or of a workspace's part, beside the audit log and when a key was used."""
    row = "(to_jsonb(t) - 'last_used_at')::text"
    parts = [
        f"SELECT '{name}', count(*) || ' ' || coalesce(md5(string_agg({row}, '' ORDER BY {row})), '') FROM {name} AS t"
        + (f" WHERE workspace_id = {workspace_id}" if workspace_id else "")
        for name, table in Base.metadata.tables.items()
        if name != "audit_log" and ("workspace_id" in table.columns or workspace_id is None)
    ]
    return dict(database.execute(" UNION ALL ".join(parts).encode()).fetchall())


def renamed(text: str, named: dict[str, str]) -> str:
    """Returns a text about things of other names."""
    if not named:
        return text
    return re.sub("|".join(rf"\b{re.escape(name)}\b" for name in named), lambda found: named[found[0]], text)


def seen(answer: httpx.Response, named: dict[str, str] | None = None) -> tuple[int, str]:
    """Returns what an answer tells, with other names for what it is about."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("ratelimit", "x-request-id")}
    told = json.dumps([answer.text.replace(answer.headers["X-Request-Id"], ""), headers])
    return answer.status_code, renamed(told, named or {})
