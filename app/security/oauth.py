"""Signing in with Google or GitHub: authorization codes with PKCE (RFC 6749, RFC 7636), through Authlib.

State, the browser's part and keeping the verifier are the caller's.
"""

import asyncio
import functools
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import httpx2
import structlog
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError

from app.errors import Problem, ProviderUnavailable, SignInFailed, SignInRefused
from app.security.id_token import FOREIGN_KEY, SigningKey, signing_keys, verify_id_token

T = TypeVar("T")

DEADLINE_S = 4.0
ANSWER_BYTES = 2**20
KEEP_S = 3_600.0
REFETCH_S = 60.0
"""How old keys must be before an ID token that none of them signed makes them be fetched anew."""

_LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.\d+){3}|::1")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

OUR_MISTAKES = ("incorrect_client_credentials", "invalid_client", "redirect_uri_mismatch", "unauthorized_client")
"""What a provider calls a wrong configuration of ours; worth a word in the log."""

_log = structlog.get_logger(__name__)


class Identity(NamedTuple):
    """Who a provider says somebody is; ``email`` is verified, and as the provider wrote it."""

    provider: str
    issuer: str
    subject: str
    email: str
    name: str | None


class UnusableAnswer(Exception):
    """A provider's answer that cannot be; it never leaves this module."""


class SignInProvider(Protocol):
    """Somebody who knows who people are.

    Every method ends within the deadline, and raises ``ProviderUnavailable`` when the provider is down, slow or says
    what cannot be.
    """

    name: str

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Returns where the browser goes to sign in; ``verifier`` is PKCE's."""

    async def identity(self, *, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        """Returns who signed in.

        Raises:
            SignInFailed: if the provider does not take the code.
            SignInRefused: if it vouches for no e-mail address.
        """


class _Kept(Generic[T]):
    """What was fetched last; one caller fetches, the others wait."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._kept: tuple[float, T] | None = None

    async def get(self, max_age_s: float, fetch: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] >= max_age_s:
                self._kept = time.monotonic(), await fetch()
            return self._kept[1]


class _Endpoints(NamedTuple):
    authorization: str
    token: str
    keys: str


class _Provider:
    name: str
    title: str
    scope: str

    def __init__(self, client_id: str, client_secret: str, deadline_s: float) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._deadline_s = deadline_s

    @asynccontextmanager
    async def _client(self, redirect_uri: str) -> AsyncIterator[Any]:
        """Yields a client for one call; whatever goes wrong while it is open leaves as a problem of ours."""
        try:
            # Authlib's client holds one person's token and cookies, so it is never shared.
            async with (
                asyncio.timeout(self._deadline_s),
                AsyncOAuth2Client(
                    self._client_id,
                    self._client_secret,
                    token_endpoint_auth_method="client_secret_post",  # noqa: S106 — a method's name
                    code_challenge_method="S256",
                    scope=self.scope,
                    redirect_uri=redirect_uri,
                    leeway=0,
                    verify=_tls(),
                    trust_env=False,
                    follow_redirects=False,
                    timeout=self._deadline_s,
                    headers={"accept-encoding": "identity"},
                    event_hooks={"response": [_read]},
                ) as client,
            ):
                yield client
        except Problem:
            raise
        except Exception as error:  # noqa: BLE001 — a provider may fail in any way
            raise self._problem(error) from None

    def _problem(self, error: Exception) -> Problem:
        reason = error.error if isinstance(error, OAuthError) else None
        if reason in ("invalid_grant", "bad_verification_code"):
            return SignInFailed(f"{self.title} does not take this sign-in: it is too old, or over. Start again.")
        if reason == "unverified_user_email":
            return self._refusal()
        # Never the error's text: it is the provider's, and may hold a token.
        known = reason if reason in OUR_MISTAKES else None
        _log.warning("sign_in_provider_failed", provider=self.name, error=type(error).__name__, reason=known)
        return ProviderUnavailable(f"{self.title} does not answer as it should. Try again in a minute.")

    def _refusal(self) -> SignInRefused:
        return SignInRefused(
            f"{self.title} vouches for no e-mail address of yours. Have it verified there, and sign in again."
        )

    def _identity(self, issuer: str, subject: str, email: object, name: object) -> Identity:
        if not (isinstance(email, str) and len(email) <= 254 and email.isprintable() and _EMAIL.fullmatch(email)):
            raise self._refusal()
        shown = _NO_TEXT.sub("", name).strip()[:255] if isinstance(name, str) else ""
        return Identity(self.name, issuer, subject, email, shown or None)


class Google(_Provider):
    """Google, or any other OpenID provider, by its issuer (OpenID Connect Core and Discovery 1.0)."""

    name, title, scope = "google", "Google", "openid email profile"

    def __init__(self, issuer: str, client_id: str, client_secret: str, *, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(client_id, client_secret, deadline_s)
        self._issuer = issuer
        self._endpoints = _Kept[_Endpoints]()
        self._keys = _Kept[list[SigningKey]]()

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Returns where the browser goes to sign in."""
        async with self._client(redirect_uri) as client:
            endpoints = await self._endpoints.get(KEEP_S, functools.partial(self._discover, client))
            return _url(client, endpoints.authorization, state, verifier, nonce=nonce)

    async def identity(self, *, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        """Returns who signed in."""
        async with self._client(redirect_uri) as client:
            endpoints = await self._endpoints.get(KEEP_S, functools.partial(self._discover, client))
            token = await client.fetch_token(endpoints.token, code=code, code_verifier=verifier)
            claims = await self._claims(client, endpoints.keys, token["id_token"], nonce)
            subject = claims["sub"]
            if not (1 <= len(subject) <= 255 and subject.isprintable()):
                raise UnusableAnswer("sub")
            # Google has sent text here; 1 would equal True.
            if claims.get("email_verified") is not True and claims.get("email_verified") != "true":
                raise self._refusal()
            return self._identity(self._issuer, subject, claims.get("email"), claims.get("name"))

    async def _discover(self, client: Any) -> _Endpoints:
        document = await _get(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration", dict)
        endpoints = _Endpoints(document["authorization_endpoint"], document["token_endpoint"], document["jwks_uri"])
        issuer = httpx2.URL(self._issuer)
        schemes = ("http", "https") if issuer.scheme == "http" and _LOOPBACK.fullmatch(issuer.host) else ("https",)
        if document["issuer"] != self._issuer or any(
            httpx2.URL(url).scheme not in schemes or not httpx2.URL(url).host for url in (self._issuer, *endpoints)
        ):
            raise UnusableAnswer("issuer or endpoint")
        return endpoints

    async def _claims(self, client: Any, keys_url: str, token: str, nonce: str) -> dict[str, Any]:
        async def fetch() -> list[SigningKey]:
            return signing_keys(await _get(client, keys_url, dict))

        verify = functools.partial(verify_id_token, token, issuer=self._issuer, client_id=self._client_id, nonce=nonce)
        try:
            return verify(await self._keys.get(KEEP_S, fetch))
        except FOREIGN_KEY:
            return verify(await self._keys.get(REFETCH_S, fetch))


class GitHub(_Provider):
    """GitHub, which speaks OAuth 2 and no OpenID Connect: who somebody is comes from its API."""

    name, title, scope = "github", "GitHub", "read:user user:email"

    def __init__(
        self, url: str, api_url: str, client_id: str, client_secret: str, *, deadline_s: float = DEADLINE_S
    ) -> None:
        super().__init__(client_id, client_secret, deadline_s)
        self._url = url.rstrip("/")
        self._api_url = api_url.rstrip("/")

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Returns where the browser goes to sign in; GitHub has no use for ``nonce``."""
        async with self._client(redirect_uri) as client:
            return _url(client, f"{self._url}/login/oauth/authorize", state, verifier)

    async def identity(self, *, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        """Returns who signed in."""
        async with self._client(redirect_uri) as client:
            await client.fetch_token(f"{self._url}/login/oauth/access_token", code=code, code_verifier=verifier)
            user = await _get(client, f"{self._api_url}/user", dict, with_token=True)
            emails = await _get(client, f"{self._api_url}/user/emails?per_page=100", list, with_token=True)
            number = user.get("id")
            # True is an int to Python.
            if type(number) is not int or not 0 < number < 2**63:
                raise UnusableAnswer("id")
            email = next(
                (each["email"] for each in emails if each["primary"] is True and each["verified"] is True), None
            )
            return self._identity(self._url, str(number), email, user.get("name"))


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def _url(client: Any, endpoint: str, state: str, verifier: str, **more: str) -> str:
    url: str = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, **more)[0]
    return url


async def _get(client: Any, url: str, kind: type[T], *, with_token: bool = False) -> T:
    response = await client.request("GET", url, withhold_token=not with_token)
    document = response.raise_for_status().json()
    if not isinstance(document, kind):
        raise UnusableAnswer("JSON type")
    return document


async def _read(response: httpx2.Response) -> None:
    """Reads a body that is neither endless nor compressed, of an answer that is no redirect and no crash."""
    if response.status_code != HTTPStatus.OK and not response.is_client_error:
        raise UnusableAnswer("status")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnusableAnswer("compressed")
    stream, body = response.stream, bytearray()
    assert isinstance(stream, httpx2.AsyncByteStream)
    async for chunk in stream:
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise UnusableAnswer("too long")
    await stream.aclose()
    response.stream = httpx2.ByteStream(bytes(body))
