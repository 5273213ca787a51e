"""Secrets that must come out nowhere: what tests choose, and what the service makes while they run.

``listen`` puts an ear to the places where secrets are made and shown. After each test they are looked for in its
output, the answers that were errors, the database server's log and every table: as they are, in hexadecimal, base64,
and percent-encoded.
"""

import base64
import functools
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psycopg
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from psycopg import sql
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from app import factory
from app.routes.auth import SIGN_IN_COOKIE
from app.routes.deps import SESSION_COOKIE
from app.routes.middleware import FrontDoor
from app.security.api_keys import PREFIX
from app.security.encryption import MESSAGE, ConversationCipher
from app.security.tokens import COOKIE_PREFIX, REFRESH_PREFIX, TokenSigner
from app.services import keys, webhooks
from app.settings import Settings

MASTER_KEY = b"canary-master-key-0123456789abcd".hex()
PREVIOUS_MASTER_KEY = b"canary-previous-master-key-01234".hex()
SECRET_KEY = b"canary-secret-key-0123456789abcd".hex()
PREVIOUS_SECRET_KEY = b"canary-previous-secret-key-01234".hex()
DATABASE_PASSWORD = "canary-database-password"

SHORTEST = 17
"""What is shorter may be found by accident."""
MOST = 20
"""How many canaries of a kind are looked for after a test: the first ones."""


class Kind(StrEnum):
    """What must not be found."""

    MASTER_KEY = "master key"
    SECRET_KEY = "secret key"
    PREVIOUS_SECRET_KEY = "previous secret key"
    API_KEY = "API key"
    ACCESS_TOKEN = "access token"
    REFRESH_TOKEN = "refresh token"
    SESSION_COOKIE = "session cookie"
    SIGN_IN = "state, verifier, nonce or browser secret of a sign-in"
    CLIENT_SECRET = "OAuth client secret"
    PROVIDER_TOKEN = "code or token of a sign-in provider"
    MODEL_KEY = "key of a model provider"
    WATCHING = "credential of who watches"
    PASSWORD = "password in a URL of the configuration"
    TEXT = "message text"
    IDEMPOTENCY_KEY = "idempotency key"
    WEBHOOK = "secret of a webhook, or what its URL holds"


SETTINGS = {
    "master_key": Kind.MASTER_KEY,
    "previous_master_keys": Kind.MASTER_KEY,
    "secret_key": Kind.SECRET_KEY,
    "previous_secret_keys": Kind.PREVIOUS_SECRET_KEY,
    "google_client_secret": Kind.CLIENT_SECRET,
    "github_client_secret": Kind.CLIENT_SECRET,
    "xai_api_key": Kind.MODEL_KEY,
    "gemini_api_key": Kind.MODEL_KEY,
    "metrics_token": Kind.WATCHING,
    "sentry_dsn": Kind.WATCHING,
    "database_url": Kind.PASSWORD,
    "database_replica_url": Kind.PASSWORD,
    "rate_limit_storage_url": Kind.PASSWORD,
}


class Canaries:
    """The secrets of the running test, and what was shown to its clients as errors."""

    def __init__(self) -> None:
        self._needles: dict[bytes, Kind] = {}
        self._counts: Counter[Kind] = Counter()
        self.shown: set[tuple[str, bytes]] = set()

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that are looked for."""
        return set(self._needles.values())

    def begin(self) -> None:
        """Forgets the test before."""
        self._needles.clear()
        self._counts.clear()
        self.shown.clear()
        for kind, hexadecimal in (
            (Kind.MASTER_KEY, MASTER_KEY),
            (Kind.MASTER_KEY, PREVIOUS_MASTER_KEY),
            (Kind.SECRET_KEY, SECRET_KEY),
            (Kind.PREVIOUS_SECRET_KEY, PREVIOUS_SECRET_KEY),
        ):
            self.learn(kind, hexadecimal)
        self.learn(Kind.PASSWORD, DATABASE_PASSWORD)

    def learn(self, kind: Kind, secret: str | bytes | None) -> None:
        """Takes a secret for a canary, and a key in hexadecimal for its bytes as well."""
        raw = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret or b""
        if len(raw) < SHORTEST or raw in self._needles or self._counts[kind] >= MOST:
            return
        self._counts[kind] += 1
        self._needles.update(dict.fromkeys(forms(raw), kind))
        if isinstance(secret, str) and len(secret) == 64:
            with suppress(ValueError):
                self.learn(kind, bytes.fromhex(secret))

    def learn_settings(self, settings: Settings) -> None:
        """Takes every secret of a configuration for a canary."""
        for name, value in settings:
            if isinstance(value, SecretStr):
                kind, text = SETTINGS[name], value.get_secret_value()
                parts = [unquote(urlsplit(text).password or "")] if kind is Kind.PASSWORD else text.split(",")
                for part in parts:
                    self.learn(kind, part)

    def learn_request(self, scope: Scope) -> None:
        """Takes the credentials of a request for canaries."""
        headers = Headers(scope=scope)
        for credential in (headers.get("authorization", "").partition(" ")[2], headers.get("x-api-key")):
            self.learn_credential(credential)
        self.learn(Kind.IDEMPOTENCY_KEY, headers.get("idempotency-key"))
        self.learn_cookies(headers.get("cookie", ""))
        if b"/auth/callback/" in scope["raw_path"]:
            query = parse_qs(scope["query_string"].decode("ascii", "replace"))
            self.learn(Kind.PROVIDER_TOKEN, query.get("code", [""])[0])
            self.learn(Kind.SIGN_IN, query.get("state", [""])[0])

    def learn_credential(self, credential: str | None) -> None:
        """Takes a credential for the canary that it looks like."""
        kinds = {PREFIX: Kind.API_KEY, REFRESH_PREFIX: Kind.REFRESH_TOKEN, COOKIE_PREFIX: Kind.SESSION_COOKIE}
        self.learn(kinds.get((credential or "")[:3], Kind.ACCESS_TOKEN), credential)

    def learn_cookies(self, header: str) -> None:
        """Takes our cookies for canaries."""
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if kind := {SESSION_COOKIE: Kind.SESSION_COOKIE, SIGN_IN_COOKIE: Kind.SIGN_IN}.get(name):
                self.learn(kind, value)

    def found(self, places: Iterable[tuple[str, bytes]]) -> list[str]:
        """Returns what was found, and where."""
        joined: defaultdict[str, list[bytes]] = defaultdict(list)
        for place, raw in places:
            joined[place].append(raw)
        looked = ((place, b"\n".join(parts), each) for place, parts in joined.items() for each in self._needles.items())
        return [
            f"{kind} in {place}: ...{raw[max(raw.find(needle) - 60, 0) :][: 60 + len(needle)]!r}"
            for place, raw, (needle, kind) in looked
            if needle in raw
        ]


CANARIES = Canaries()


def forms(raw: bytes) -> Iterator[bytes]:
    """Yields how a secret may look where it has come out."""
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield quote(raw, safe="").encode()
    for offset in range(3):  # where in the encoded text it begins
        encoded = base64.b64encode(bytes(offset) + raw)[(0, 2, 3)[offset] : (offset + len(raw)) * 8 // 6]
        yield encoded
        yield encoded.replace(b"+", b"-").replace(b"/", b"_")


def tables(connection: psycopg.Connection) -> Iterator[tuple[str, bytes]]:
    """Yields every table as PostgreSQL's own binary dump, in which nothing is in hexadecimal.

    Two in three have no byte, hence never had a row, and are left out.
    """
    written = (
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0"
    )
    for (name,) in connection.execute(written).fetchall():
        statement = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(name))
        with connection.cursor().copy(statement) as copy:
            yield f"table {name}", b"".join(map(bytes, copy))


def listen(patch: pytest.MonkeyPatch) -> None:
    """Puts the ear to every place where a secret is made or shown."""

    def after(owner: object, name: str, learn: Callable[..., None]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def heard(*arguments: Any, **more: Any) -> Any:
            result = original(*arguments, **more)
            learn(result, *arguments, **more)
            return result

        patch.setattr(owner, name, heard)

    def sign_in(secret: str, _: TokenSigner, purpose: str, state: str) -> None:
        CANARIES.learn(Kind.SIGN_IN, secret)
        CANARIES.learn(Kind.SIGN_IN, state)

    def provider_token(token: dict[str, Any], *_: Any) -> None:
        for name in ("access_token", "id_token", "refresh_token"):
            CANARIES.learn(Kind.PROVIDER_TOKEN, str(token.get(name, "")))

    def seal(_: bytes, cipher: ConversationCipher, kind: str, name: str, text: str) -> None:
        if kind == MESSAGE:
            CANARIES.learn(Kind.TEXT, text)

    def process(done: subprocess.CompletedProcess[Any], *_: Any, **__: Any) -> None:
        errors = done.stderr or b""
        CANARIES.shown.add(("a process's errors", errors.encode() if isinstance(errors, str) else errors))

    after(factory, "secret_keys", lambda _, settings: CANARIES.learn_settings(settings))
    after(keys, "new_api_key", lambda key, *_: CANARIES.learn(Kind.API_KEY, key.text))
    after(webhooks, "new_secret", lambda secret: CANARIES.learn(Kind.WEBHOOK, secret))
    after(TokenSigner, "access", lambda token, *_: CANARIES.learn(Kind.ACCESS_TOKEN, token))
    after(TokenSigner, "refresh", lambda token, *_: CANARIES.learn(Kind.REFRESH_TOKEN, token))
    after(TokenSigner, "cookie", lambda cookie, *_: CANARIES.learn(Kind.SESSION_COOKIE, cookie))
    after(TokenSigner, "sign_in_secret", sign_in)
    after(AsyncOAuth2Client, "parse_response_token", provider_token)
    after(ConversationCipher, "seal", seal)
    after(subprocess, "run", process)
    _listen_at_the_door(patch)


def _listen_at_the_door(patch: pytest.MonkeyPatch) -> None:
    original = FrontDoor.__call__

    async def heard(self: FrontDoor, scope: Scope, receive: Receive, send: Send) -> None:
        failed = False

        async def listening(message: Message) -> None:
            nonlocal failed
            if message["type"].endswith("http.response.start"):
                failed = message["status"] >= 400
                for name, value in message["headers"]:
                    if name == b"set-cookie":
                        CANARIES.learn_cookies(value.decode("latin-1"))
                    elif failed:
                        CANARIES.shown.add(("an error's headers", value))
            elif failed:
                CANARIES.shown.add(("an error", message.get("body", b"")))
            await send(message)

        if scope["type"] != "lifespan":
            CANARIES.learn_request(scope)
        await original(self, scope, receive, listening)

    patch.setattr(FrontDoor, "__call__", heard)
