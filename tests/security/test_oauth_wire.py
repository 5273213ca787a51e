"""Google and GitHub down, slow, garbled or intercepted: a sign-in always ends in time, in our own words."""

import asyncio
import gzip
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from app.errors import ProviderUnavailable
from app.security import oauth
from app.security.oauth import GitHub, Google, SignInProvider
from tests.security.attempts import Attempt, Make, github, google, problem_of, sign_in
from tests.support.oauth import (
    LEAK,
    OAuthProviders,
    Reply,
    StandIn,
    failure,
    open_oauth_providers,
    rsa_key,
)

SHORT_S = 0.3
GARBAGE = [
    b"",
    b"<html>" + LEAK.encode(),
    b"{",
    b"[1]",
    b'"text"',
    b"null",
    b"\xff\xfe{}",
    b'{"a":' * 5_000,
    b"9" * 9_000,
]

ENDPOINTS = [
    *((google, endpoint) for endpoint in ("discovery", "keys", "token")),
    *((github, endpoint) for endpoint in ("token", "user", "emails")),
]


def side_of(providers: OAuthProviders, provider: SignInProvider) -> StandIn:
    return providers.google if provider.name == "google" else providers.github


BAD_REPLIES: dict[str, Reply] = {
    **{f"body {number}": Reply(body) for number, body in enumerate(GARBAGE)},
    **{f"status {status}": failure(status) for status in (201, 204, 400, 401, 403, 404, 429, 500, 502, 503, 599)},
    "page": Reply(f"<html>{LEAK}</html>".encode(), content_type="text/html"),
    "form": Reply(b"access_token=x&token_type=bearer", content_type="application/x-www-form-urlencoded"),
    "redirect": Reply(b'{"access_token": "x"}', 302, headers=(("Location", "http://127.0.0.1:9/"),)),
    "redirect, kept": Reply(b'{"access_token": "x"}', 307, headers=(("Location", "/google/token"),)),
    "redirect, bad": Reply(b"{}", 302, headers=(("Location", "http://[/"),)),
    "compressed": Reply(b"\x1f\x8b", headers=(("Content-Encoding", "gzip"),)),
    "twice compressed": Reply(b"{}", headers=(("Content-Encoding", "br, zstd"),)),
    "too long": Reply(b"[" + b"1," * 2**20),
    "cut": Reply(b'{"a": 1}', manner="cut"),
    "reset": Reply(manner="reset"),
    "flood": Reply(manner="flood"),
    "other length": Reply(b"{}", headers=(("Content-Length", "1"),)),
}


@pytest.mark.parametrize(("make", "endpoint"), ENDPOINTS)
@pytest.mark.parametrize("kind", BAD_REPLIES)
async def test_a_bad_reply_is_a_problem_of_the_providers(
    providers: OAuthProviders, make: Make, endpoint: str, kind: str
) -> None:
    provider = make(providers)
    side = side_of(providers, provider)
    side.replies[endpoint] = BAD_REPLIES[kind]
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    assert side.asked(endpoint) == 1
    # What the kernel's buffers take on both sides comes on top.
    assert side.bytes_sent < oauth.ANSWER_BYTES + 16 * 2**20
    side.replies.clear()
    assert await sign_in(providers, provider)


@pytest.mark.parametrize(
    ("make", "endpoint", "status"),
    [
        *((*end, status) for end in ENDPOINTS for status in (201, 203, 206, 302, 500)),
        *((*end, status) for end in ENDPOINTS if end[1] != "token" for status in (400, 404)),
    ],
)
async def test_a_right_body_needs_the_right_status(
    providers: OAuthProviders, make: Make, endpoint: str, status: int
) -> None:
    provider = make(providers)
    side = side_of(providers, provider)
    side.statuses[endpoint] = status
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    assert side.requests[-1].path in [path for path, name in side.endpoints.items() if name == endpoint]


async def test_a_compressed_body_is_not_unpacked(providers: OAuthProviders) -> None:
    packed = gzip.compress(json.dumps({"keys": providers.google.published}).encode())
    providers.google.replies["keys"] = Reply(packed, headers=(("Content-Encoding", "gzip"),))
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable


@pytest.mark.parametrize(("make", "endpoint"), ENDPOINTS)
@pytest.mark.parametrize("manner", ["hang", "drip", "headers"])
async def test_a_slow_provider_is_left_in_time(
    providers: OAuthProviders, make: Make, endpoint: str, manner: str
) -> None:
    provider = make(providers, deadline_s=SHORT_S)
    side_of(providers, provider).replies[endpoint] = Reply(b"[" + b" " * 1_000, manner=manner)
    started = time.perf_counter()
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    # The URL and the identity have a deadline each.
    assert time.perf_counter() - started < 2 * SHORT_S + 1


async def test_a_hanging_provider_holds_up_nobody_longer_than_one(providers: OAuthProviders) -> None:
    provider = google(providers, deadline_s=SHORT_S)
    providers.google.fail(Reply(manner="hang"))
    started = time.perf_counter()
    found = await asyncio.gather(*(Attempt(provider).url() for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in found} == {ProviderUnavailable}
    assert time.perf_counter() - started < SHORT_S + 1


@pytest.mark.parametrize("make", [Google, GitHub])
async def test_a_provider_that_is_not_there(make: Any) -> None:
    urls = ["http://127.0.0.1:9"] if make is Google else ["http://127.0.0.1:9"] * 2
    with pytest.raises(ProviderUnavailable):
        await make(*urls, "id", "secret").identity(code="c", redirect_uri="r", nonce="n", verifier="v")


async def test_the_default_deadline_is_four_seconds(providers: OAuthProviders) -> None:
    assert oauth.DEADLINE_S == 4
    assert vars(Google("https://x", "id", "secret"))["_deadline_s"] == 4
    assert vars(GitHub("https://x", "https://y", "id", "secret"))["_deadline_s"] == 4


async def test_who_gives_up_is_not_kept(providers: OAuthProviders) -> None:
    provider = google(providers)
    providers.google.fail(Reply(manner="hang"))
    task = asyncio.create_task(Attempt(provider).url())
    await providers.google.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    providers.google.replies.clear()
    assert await sign_in(providers, provider)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key, name = rsa_key("tls").private_key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    assert key
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + rsa_key("tls").as_pem(private=True))
    return file


@pytest.fixture
async def tls_providers(certificate: Path) -> AsyncIterator[OAuthProviders]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with open_oauth_providers(tls=context) as opened:
        yield opened


async def test_a_certificate_must_be_trusted(
    tls_providers: OAuthProviders, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oauth._tls.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for provider in (google(tls_providers), github(tls_providers)):
        assert type(await problem_of(tls_providers, provider)) is ProviderUnavailable
    assert not tls_providers.requests
    oauth._tls.cache_clear()


@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint", "jwks_uri", None])
async def test_an_issuer_behind_tls_has_no_endpoint_without(
    tls_providers: OAuthProviders, certificate: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(oauth, "_tls", lambda: trusting)
    if endpoint is None:
        assert (await sign_in(tls_providers, google(tls_providers))).subject == "g-1001"
        assert (await sign_in(tls_providers, github(tls_providers))).subject == "583231"
        return
    tls_providers.google.discovery = {endpoint: "http://127.0.0.1:9/"}
    assert type(await problem_of(tls_providers, google(tls_providers))) is ProviderUnavailable
    assert not tls_providers.google.asked("token")


async def test_an_issuer_without_tls_is_on_loopback(providers: OAuthProviders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "_LOOPBACK", re.compile("elsewhere"))
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable
    ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    providers.google.discovery = dict.fromkeys(ends, "https://127.0.0.1:9/")
    with pytest.raises(ProviderUnavailable):
        await Attempt(google(providers)).url()
