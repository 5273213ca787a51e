"""Google and GitHub on loopback: as strict as they are with what they are sent, and as bad as a test asks for.

Google is an OpenID provider below ``/google``; GitHub's pages are below ``/github``, its API below ``/github/api``.
A test plays the browser: it hands the URL that the service redirects to over to ``approve`` or ``deny``, and opens the
URL that comes back.
"""

import asyncio
import base64
import functools
import hashlib
import json
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey
from pydantic import SecretStr

BASE_URL = "http://localhost:8000"
LEAK = "oauth-provider-text-canary"
"""What a failing stand-in says; it must not get anywhere."""

CODE_S = 60.0


@dataclass(frozen=True)
class Reply:
    """What a stand-in answers with; ``manner`` is how it sends it.

    whole, cut (half the body), reset, hang (not a byte), drip (a byte at a time), headers (without end), flood (a body
    without end).
    """

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    manner: str = "whole"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Request:
    """What a stand-in received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]


@dataclass(frozen=True)
class Grant:
    """What somebody approved; the code for it can be used once."""

    redirect_uri: str
    challenge: str
    nonce: str
    scope: str
    person: Any
    until: float


def json_reply(value: object, status: int = 200) -> Reply:
    """Returns a reply that holds JSON."""
    return Reply(json.dumps(value).encode(), status)


def failure(status: int = 503, *, manner: str = "whole") -> Reply:
    """Returns an error whose text must not get anywhere."""
    return replace(json_reply({"message": LEAK, "error_description": LEAK}, status), manner=manner)


@functools.cache
def rsa_key(kid: str, bits: int = 2_048) -> RSAKey:
    """Returns a private key, the same one for the same arguments."""
    return RSAKey.generate_key(bits, {"kid": kid, "use": "sig", "alg": "RS256"})


def sign(payload: object, key: RSAKey, header: object = None) -> str:
    """Returns a JWS by RS256, whatever header and payload are; bytes stand as they are, the rest as JSON."""
    header = {"alg": "RS256", "kid": key.kid, "typ": "JWT"} if header is None else header
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(base64url, parts))
    assert key.private_key
    return f"{signed}.{base64url(key.private_key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


Claims = dict[str, Any]
Forge = Callable[[Claims], Any]


def by(key_id: str = "k1", /, **changes: object) -> Forge:
    """Returns a forge of tokens that have other claims; ``None`` stands for null, ``...`` for none at all."""

    def forge(claims: Claims) -> str:
        changed = {**claims, **changes}
        return sign({name: value for name, value in changed.items() if value is not ...}, rsa_key(key_id))

    return forge


def base64url(raw: bytes) -> str:
    """Returns base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class StandIn:
    """One provider: its client, who signs in, what it was sent, and how it misbehaves.

    By endpoint (discovery, keys, token, user, emails), ``replies`` replace its own, and ``statuses`` their status only.
    ``answer`` alters what the token endpoint says when all is well.
    """

    url: str = ""
    redirect_uri: str = ""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], Any] = lambda answer: answer
    requests: list[Request] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_sent: int = 0

    @property
    def person(self) -> Any:
        """Who signs in."""
        raise NotImplementedError

    @property
    def authorization_url(self) -> str:
        """The page that asks the person."""
        raise NotImplementedError

    def fail(self, reply: Reply) -> None:
        """Makes every endpoint answer alike."""
        self.replies = dict.fromkeys(self.endpoints.values(), reply)

    def asked(self, endpoint: str) -> int:
        """Returns how often an endpoint was asked."""
        return sum(self.endpoints.get(request.path) == endpoint for request in self.requests)

    def approve(self, query: dict[str, str]) -> str:
        """Returns the callback's query after the person agreed."""
        code = secrets.token_urlsafe(24)
        self.grants[code] = Grant(
            query["redirect_uri"],
            query["code_challenge"],
            query.get("nonce", ""),
            query["scope"],
            self.person,
            time.monotonic() + CODE_S,
        )
        return urlencode({"code": code, "state": query["state"]})

    def redeem(self, form: dict[str, str]) -> Grant | None:
        """Returns what a code stands for, once, to the client it was made for (RFC 6749, 4.1.3; RFC 7636, 4.6)."""
        grant = self.grants.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        if grant is None or not re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier):
            return None
        challenge = base64url(hashlib.sha256(verifier.encode()).digest())
        good = (grant.redirect_uri, grant.challenge) == (form.get("redirect_uri"), challenge)
        return grant if good and time.monotonic() < grant.until else None

    def knows(self, form: dict[str, str]) -> bool:
        """Tells whether a token request bears the client's credentials."""
        return (form.get("client_id"), form.get("client_secret")) == (self.client_id, self.client_secret)

    def reply(self, endpoint: str, request: Request) -> Reply:
        """Returns the endpoint's own reply."""
        raise NotImplementedError


@dataclass
class GoogleStandIn(StandIn):
    """Google; ``id_token`` makes the token of the right claims, ``key`` signs, ``published`` is the key set."""

    claims: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: rsa_key("k1"))
    published: list[Any] = field(default_factory=list)
    id_token: Forge | None = None

    def __post_init__(self) -> None:
        self.sign_in_as("g-1001", "ana@example.com", name="Ana Person")
        self.published = [self.key.as_dict(private=False)]
        self.endpoints = {
            "/google/.well-known/openid-configuration": "discovery",
            "/google/keys": "keys",
            "/google/token": "token",
        }

    def sign_in_as(self, subject: str, email: str, *, verified: bool = True, name: str | None = None) -> None:
        """Changes who signs in."""
        self.claims = {"sub": subject, "email": email, "email_verified": verified}
        if name is not None:
            self.claims["name"] = name

    def rotate(self, kid: str) -> None:
        """Replaces the signing key, and the key set by one that has only the new key."""
        self.key = rsa_key(kid)
        self.published = [self.key.as_dict(private=False)]

    @property
    def person(self) -> Any:
        return dict(self.claims)

    @property
    def authorization_url(self) -> str:
        return f"{self.url}/authorize"

    def reply(self, endpoint: str, request: Request) -> Reply:
        if endpoint == "discovery":
            document = {
                "issuer": self.url,
                "authorization_endpoint": self.authorization_url,
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
            }
            return json_reply({**document, **self.discovery})
        if endpoint == "keys":
            return json_reply({"keys": self.published})
        if not self.knows(request.form):
            return json_reply({"error": "invalid_client", "error_description": LEAK}, 401)
        if request.form.get("grant_type") != "authorization_code":
            return json_reply({"error": "unsupported_grant_type", "error_description": LEAK}, 400)
        grant = self.redeem(request.form)
        if grant is None:
            return json_reply({"error": "invalid_grant", "error_description": LEAK}, 400)
        now = int(time.time())
        right = {
            "iss": self.url,
            "aud": self.client_id,
            "azp": self.client_id,
            "iat": now,
            "exp": now + 3_600,
            "nonce": grant.nonce,
            **grant.person,
        }
        answer = {
            "access_token": f"ya29.{secrets.token_urlsafe(24)}",
            "expires_in": 3_599,
            "scope": grant.scope,
            "token_type": "Bearer",
            "id_token": self.id_token(right) if self.id_token else sign(right, self.key),
        }
        return json_reply(self.answer(answer))


@dataclass
class GitHubStandIn(StandIn):
    """GitHub: ``user`` and ``emails`` are what its API says of the person."""

    user: Any = None
    emails: Any = None
    tokens: dict[str, Grant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sign_in_as(583_231, "octocat@github.com", name="The Octocat")
        self.endpoints = {
            "/github/login/oauth/access_token": "token",
            "/github/api/user": "user",
            "/github/api/user/emails": "emails",
        }

    def sign_in_as(self, number: int, email: str, *, verified: bool = True, name: str | None = None) -> None:
        """Changes who signs in."""
        self.user = {"id": number, "login": f"user-{number}", "name": name, "email": None}
        self.emails = [
            {"email": "old@example.com", "primary": False, "verified": True, "visibility": None},
            {"email": email, "primary": True, "verified": verified, "visibility": "private"},
        ]

    @property
    def person(self) -> Any:
        return {"user": self.user, "emails": self.emails}

    @property
    def authorization_url(self) -> str:
        return f"{self.url}/login/oauth/authorize"

    def reply(self, endpoint: str, request: Request) -> Reply:
        if endpoint != "token":
            return self._api(endpoint, request)
        if not self.knows(request.form):
            answer: Any = {"error": "incorrect_client_credentials", "error_description": LEAK}
        elif (grant := self.redeem(request.form)) is None:
            answer = {"error": "bad_verification_code", "error_description": LEAK, "error_uri": "https://x/"}
        else:
            token = f"gho_{secrets.token_urlsafe(24)}"
            self.tokens[token] = grant
            scope = ",".join(grant.scope.split())
            answer = self.answer({"access_token": token, "scope": scope, "token_type": "bearer"})
        # GitHub's errors have status 200, and nobody gets JSON who does not ask for it.
        if request.headers.get("accept") == "application/json":
            return json_reply(answer)
        return Reply(urlencode(answer).encode(), content_type="application/x-www-form-urlencoded")

    def _api(self, endpoint: str, request: Request) -> Reply:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if "user-agent" not in request.headers:
            return json_reply({"message": LEAK}, 403)
        if kind != "Bearer" or token not in self.tokens:
            return json_reply({"message": "Bad credentials", "status": "401"}, 401)
        grant = self.tokens[token]
        if endpoint == "emails" and "user:email" not in grant.scope.split():
            return json_reply({"message": "Not Found", "status": "404"}, 404)
        return json_reply(grant.person[endpoint])


@dataclass
class OAuthProviders:
    """Both stand-ins and their address."""

    google: GoogleStandIn
    github: GitHubStandIn
    url: str = ""

    @property
    def settings(self) -> dict[str, object]:
        """What points the application at them."""
        return {
            "google_issuer": self.google.url,
            "google_client_id": self.google.client_id,
            "google_client_secret": SecretStr(self.google.client_secret),
            "github_url": self.github.url,
            "github_api_url": f"{self.github.url}/api",
            "github_client_id": self.github.client_id,
            "github_client_secret": SecretStr(self.github.client_secret),
        }

    @property
    def requests(self) -> list[Request]:
        """What both were sent."""
        return [*self.google.requests, *self.github.requests]

    def approve(self, authorization_url: str) -> str:
        """Returns the URL that the provider sends the browser to after the person agreed."""
        side, query = self._read(authorization_url)
        return f"{query['redirect_uri']}?{side.approve(query)}"

    def deny(self, authorization_url: str) -> str:
        """Returns the URL that the provider sends the browser to after the person declined (RFC 6749, 4.1.2.1)."""
        _, query = self._read(authorization_url)
        return f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': query['state']})}"

    def _read(self, authorization_url: str) -> tuple[StandIn, dict[str, str]]:
        """Returns whose URL it is and its query; a real provider shows an error page where this fails."""
        page, _, rest = authorization_url.partition("?")
        [side] = [each for each in (self.google, self.github) if each.authorization_url == page]
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=True)
        query = dict(pairs)
        assert len(pairs) == len(query), "a parameter twice"
        fixed = {
            "response_type": "code",
            "client_id": side.client_id,
            "redirect_uri": side.redirect_uri,
            "scope": side.scope,
            "code_challenge_method": "S256",
        }
        random = {"state", "code_challenge"} | ({"nonce"} if side is self.google else set())
        assert set(query) == set(fixed) | random, "a parameter too many, or missing"
        assert {name: query[name] for name in fixed} == fixed
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", query["code_challenge"])
        assert all(len(query[name]) >= 22 for name in random), "guessable"
        assert len({query[name] for name in random}) == len(random), "one value for two purposes"
        return side, query


@asynccontextmanager
async def open_oauth_providers(
    base_url: str = BASE_URL, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[OAuthProviders]:
    """Yields stand-ins that know the service at ``base_url``."""
    google = GoogleStandIn(
        redirect_uri=f"{base_url}/auth/callback/google",
        client_id="google-client-4711",
        client_secret="google-secret-canary-4711",
        scope="openid email profile",
    )
    github = GitHubStandIn(
        redirect_uri=f"{base_url}/auth/callback/github",
        client_id="github-client-4711",
        client_secret="github-secret-canary-4711",
        scope="read:user user:email",
    )
    providers = OAuthProviders(google, github)
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        side: StandIn = github if request.path.startswith("/github/") else google
        side.requests.append(request)
        side.was_asked.set()
        endpoint = side.endpoints.get(request.path, "")
        if not endpoint:
            reply = json_reply({"message": LEAK}, 404)
        elif request.method != ("POST" if endpoint == "token" else "GET"):
            reply = json_reply({"message": LEAK}, 405)
        else:
            reply = side.replies.get(endpoint) or side.reply(endpoint, request)
            reply = replace(reply, status=side.statuses.get(endpoint, reply.status))
        await _send(reply, writer, side)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def connection() -> None:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
            writer.close()

        task = asyncio.create_task(connection())
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    providers.url = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}"
    google.url, github.url = f"{providers.url}/google", f"{providers.url}/github"
    try:
        yield providers
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running)


async def _read(reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = first.split()
    url = urlsplit(target)
    form: dict[str, list[str]] = {}
    if headers.get("content-type", "").partition(";")[0] == "application/x-www-form-urlencoded":
        form = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True)
    # A parameter that comes twice is none at all (RFC 6749, section 3.2).
    once = {name: values[0] for name, values in form.items() if len(values) == 1}
    return Request(method, url.path, dict(parse_qsl(url.query)), headers, once)


async def _send(reply: Reply, writer: asyncio.StreamWriter, side: StandIn) -> None:
    async def write(chunk: bytes) -> None:
        writer.write(chunk)
        await writer.drain()
        side.bytes_sent += len(chunk)

    lines = [f"HTTP/1.1 {reply.status} X", f"Content-Type: {reply.content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    head = "\r\n".join(lines)
    whole = f"{head}\r\nContent-Length: {len(reply.body)}\r\n\r\n".encode()
    match reply.manner:
        case "reset":
            writer.transport.abort()
        case "cut":
            await write(whole + reply.body[: len(reply.body) // 2])
        case "hang":
            await asyncio.Event().wait()
        case "drip":
            await write(whole)
            for byte in reply.body:
                await write(bytes([byte]))
                await asyncio.sleep(0.05)
        case "headers":
            await write(head.encode())
            while True:
                await write(b"\r\nX-More: 1")
                await asyncio.sleep(0.01)
        case "flood":
            await write(f"{head}\r\n\r\n[".encode())
            while True:
                await write(b"1," * 2**15)
        case _:
            await write(whole + reply.body)
