"""Accounts in tests: people who sign in, instances on one database, tokens made by hand."""

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from fastapi import FastAPI

from app.factory import Services, build
from app.main import create_app
from app.schemas.enums import Provider, Role
from app.settings import Settings
from tests.conftest import SECRET_KEY
from tests.support.api import create_key
from tests.support.oauth import OAuthProviders, base64url, open_oauth_providers

BASE_URL = "https://chat.example.com"
SECRET = bytes.fromhex(SECRET_KEY)
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True)
class Person:
    """Somebody as a provider knows them."""

    number: int
    email: str
    name: str = "Canary Name"


ANA = Person(1001, "ana@example.com")
BEN = Person(1002, "ben@example.com")
CEM = Person(1003, "cem@example.com")


@dataclass
class Accounts:
    """An instance of the service, its database, its providers, and clients of it."""

    settings: Settings
    app: FastAPI
    providers: OAuthProviders
    database: psycopg.Connection
    _stack: AsyncExitStack

    @property
    def services(self) -> Services:
        """The services of the first instance."""
        found: Services = self.app.state.services
        return found

    async def instance(self, **changes: object) -> FastAPI:
        """Returns another instance on the same database: it has no credential in its cache yet."""
        return await self._stack.enter_async_context(open_instance(self.settings.model_copy(update=changes)))

    def client(
        self, key: str | None = None, app: FastAPI | None = None, headers: dict[str, str] | None = None
    ) -> httpx.AsyncClient:
        """Returns a client with an API key, a token or nothing, and cookies as a browser keeps them."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        transport = httpx.ASGITransport(app or self.app)
        opened = httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers)
        self._stack.push_async_callback(opened.aclose)
        return opened

    def browser(self, app: FastAPI | None = None, *, of: httpx.AsyncClient | None = None) -> httpx.AsyncClient:
        """Returns a client that does what this service's own pages do, with the cookies of another one."""
        opened = self.client(app=app, headers=OWN_PAGE)
        opened.cookies = httpx.Cookies(of.cookies if of else None)
        return opened

    async def key(self, role: Role = Role.ADMIN, workspace: str = "ours") -> str:
        """Returns an API key that the operator makes."""
        row, _ = await self.services.workspaces.get_or_create(workspace)
        return await create_key(self.services, row.workspace_id, role)

    async def tokens(self, key: str | None = None) -> dict[str, Any]:
        """Returns what an API key, or a fresh one of an admin, is exchanged for."""
        answer = await self.client().post("/auth/token", json={"api_key": key or await self.key()})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def introduce(self, person: Person) -> None:
        """Makes both providers vouch for a person."""
        self.providers.google.sign_in_as(f"g-{person.number}", person.email, name=person.name)
        self.providers.github.sign_in_as(person.number, person.email, name=person.name)

    async def come_back(
        self, browser: httpx.AsyncClient, person: Person, provider: Provider = Provider.GOOGLE, **params: str
    ) -> httpx.Response:
        """Begins a sign-in, agrees at the provider, and returns what the callback answers."""
        self.introduce(person)
        begun = await browser.get(f"/auth/login/{provider}", params=params)
        assert begun.status_code == 303, begun.text
        return await browser.get(self.providers.approve(begun.headers["Location"]))

    async def sign_in(self, person: Person, provider: Provider = Provider.GOOGLE, **params: str) -> httpx.AsyncClient:
        """Returns the browser of somebody who has signed in."""
        browser = self.browser()
        answer = await self.come_back(browser, person, provider, **params)
        assert answer.status_code == 303, answer.text
        return browser

    async def join(self, admin: httpx.AsyncClient, person: Person, role: Role) -> tuple[httpx.AsyncClient, str]:
        """Invites somebody and signs them in; returns the browser and the member's id."""
        invited = await admin.post("/workspace/members", json={"email": person.email, "role": role})
        assert invited.status_code == 201, invited.text
        return await self.sign_in(person), invited.json()["id"]

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Returns what the database holds."""
        return self.database.execute(query.encode(), parameters).fetchall()

    def change(self, statement: str, *parameters: object) -> None:
        """Changes what the database holds."""
        assert self.database.execute(statement.encode(), parameters).rowcount != 0, statement


@asynccontextmanager
async def open_instance(settings: Settings) -> AsyncIterator[FastAPI]:
    """Yields the application with services of its own."""
    assert settings.database_url
    url = settings.database_url.get_secret_value()
    app = create_app(lambda: build(settings, url))
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def open_accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    """Yields the service with both providers, and limits that no test meets by accident."""
    postgresql.autocommit = True
    async with AsyncExitStack() as stack:
        providers = await stack.enter_async_context(open_oauth_providers(BASE_URL))
        more = {"public_base_url": BASE_URL, "rate_limit_address": "1000000/minute", **providers.settings}
        settings = settings.model_copy(update=more)
        app = await stack.enter_async_context(open_instance(settings))
        yield Accounts(settings, app, providers, postgresql, stack)


def jws(header: object, claims: object, key: bytes, *, digest: str = "sha256") -> str:
    """Returns a token by HMAC, whatever header and claims are; bytes stand as they are, the rest as JSON."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
        for part in (header, claims)
    ]
    signed = ".".join(map(base64url, parts))
    return f"{signed}.{base64url(hmac.digest(key, signed.encode(), digest))}"


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    """Returns an answer's status and, if it is a problem, its code."""
    is_problem = answer.headers.get("Content-Type") == "application/problem+json"
    return answer.status_code, answer.json()["code"] if is_problem else None


async def every_page(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    """Returns a whole list, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await client.get(path, params=params)).json()
        assert page["has_more"] == (page["next_cursor"] is not None)
        found += page["data"]
        if not page["has_more"]:
            return found
        params["cursor"] = page["next_cursor"]
