"""Signing in with Google and GitHub: what they are sent, and whom they may vouch for."""

import asyncio
import hashlib
import logging
import secrets
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.errors import ProviderUnavailable, SignInFailed, SignInRefused
from app.security.oauth import Google
from tests.security.attempts import Attempt, Make, github, google, problem_of, sign_in
from tests.support.oauth import (
    LEAK,
    OAuthProviders,
    base64url,
    by,
    json_reply,
)


async def test_google_is_sent_everything_that_makes_a_sign_in_safe(providers: OAuthProviders) -> None:
    attempt = Attempt(google(providers))
    query = parse_qs(urlsplit(await attempt.url()).query)
    challenge = base64url(hashlib.sha256(attempt.verifier.encode()).digest())
    assert query == {
        "response_type": ["code"],
        "client_id": [providers.google.client_id],
        "redirect_uri": [attempt.redirect_uri],
        "scope": ["openid email profile"],
        "state": [attempt.state],
        "nonce": [attempt.nonce],
        "code_challenge": [challenge],
        "code_challenge_method": ["S256"],
    }
    code = await attempt.code(providers)
    assert await attempt.identity(code) == ("google", providers.google.url, "g-1001", "ana@example.com", "Ana Person")
    discovery, token, keys = providers.google.requests
    assert [discovery.path, keys.path] == ["/google/.well-known/openid-configuration", "/google/keys"]
    assert token.form == {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": attempt.redirect_uri,
        "code_verifier": attempt.verifier,
        "client_id": providers.google.client_id,
        "client_secret": providers.google.client_secret,
    }
    for request in providers.requests:
        assert request.headers["accept-encoding"] == "identity"
        assert not {"authorization", "cookie"} & set(request.headers)


async def test_github_is_sent_everything_that_makes_a_sign_in_safe(providers: OAuthProviders) -> None:
    attempt = Attempt(github(providers))
    query = parse_qs(urlsplit(await attempt.url()).query)
    assert query["scope"] == ["read:user user:email"]
    assert query["code_challenge"] == [base64url(hashlib.sha256(attempt.verifier.encode()).digest())]
    assert query["code_challenge_method"] == ["S256"]
    code = await attempt.code(providers)
    assert await attempt.identity(code) == (
        "github",
        providers.github.url,
        "583231",
        "octocat@github.com",
        "The Octocat",
    )
    token, user, emails = providers.github.requests
    assert token.form["code_verifier"] == attempt.verifier
    assert token.headers["accept"] == "application/json"
    assert [user.path, emails.path] == ["/github/api/user", "/github/api/user/emails"]
    assert {request.headers["authorization"] for request in (user, emails)} == {
        f"Bearer {next(iter(providers.github.tokens))}"
    }


async def test_discovery_and_keys_are_fetched_once_even_by_many_at_once(providers: OAuthProviders) -> None:
    provider = google(providers)
    assert len(await asyncio.gather(*(sign_in(providers, provider) for _ in range(20)))) == 20
    assert [providers.google.asked(each) for each in ("discovery", "keys", "token")] == [1, 1, 20]


@pytest.mark.parametrize("make", [google, github])
async def test_people_who_sign_in_at_once_stay_apart(providers: OAuthProviders, make: Make) -> None:
    provider = make(providers)
    attempts = {}
    for number in range(1, 21):
        providers.google.sign_in_as(str(number), f"{number}@example.com")
        providers.github.sign_in_as(number, f"{number}@example.com")
        attempt = Attempt(provider)
        attempts[await attempt.code(providers)] = attempt
    found = await asyncio.gather(*(attempt.identity(code) for code, attempt in attempts.items()))
    assert [(each.subject, each.email) for each in found] == [(str(n), f"{n}@example.com") for n in range(1, 21)]


async def test_neither_proxies_nor_netrc_nor_the_last_cookies_are_used(
    providers: OAuthProviders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cookie = (("Set-Cookie", "a=b; Path=/"),)
    providers.google.replies["keys"] = replace(json_reply({"keys": providers.google.published}), headers=cookie)
    providers.github.replies["emails"] = replace(json_reply(providers.github.emails), headers=cookie)
    for provider in (google(providers), github(providers)):
        await sign_in(providers, provider)
        await sign_in(providers, provider)
    assert not any("cookie" in request.headers for request in providers.requests)
    assert not any("authorization" in request.headers for request in providers.google.requests)


async def test_nothing_secret_is_in_a_repr_or_a_log(
    providers: OAuthProviders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for side, provider in ((providers.google, google(providers)), (providers.github, github(providers))):
        attempt = Attempt(provider)
        code = await attempt.code(providers)
        await attempt.identity(code)
        for secret in (side.client_secret, code, attempt.verifier, *providers.github.tokens):
            assert secret not in f"{provider!r} {provider}"
            assert secret not in caplog.text


# Codes


@pytest.mark.parametrize("make", [google, github])
async def test_a_code_works_once_and_only_with_its_verifier_and_redirect(providers: OAuthProviders, make: Make) -> None:
    attempt = Attempt(make(providers))
    code = await attempt.code(providers)
    await attempt.identity(code)
    with pytest.raises(SignInFailed):
        await attempt.identity(code)
    with pytest.raises(SignInFailed):
        await attempt.identity("made up")
    for change in ({"verifier": secrets.token_urlsafe(32)}, {"redirect_uri": "https://evil.example/"}):
        attempt = Attempt(make(providers))
        code = await attempt.code(providers)
        vars(attempt).update(change)
        with pytest.raises(SignInFailed):
            await attempt.identity(code)


async def test_a_code_of_another_sign_in_fails_by_its_nonce(providers: OAuthProviders) -> None:
    attempt = Attempt(google(providers))
    code = await attempt.code(providers)
    attempt.nonce = secrets.token_urlsafe(32)
    with pytest.raises(ProviderUnavailable):
        await attempt.identity(code)


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ("invalid_grant", 400, SignInFailed),
        ("bad_verification_code", 200, SignInFailed),
        ("unverified_user_email", 200, SignInRefused),
        ("invalid_client", 401, ProviderUnavailable),
        ("invalid_request", 400, ProviderUnavailable),
        ("incorrect_client_credentials", 200, ProviderUnavailable),
        ("redirect_uri_mismatch", 200, ProviderUnavailable),
        ("slow_down", 429, ProviderUnavailable),
        ("invalid_grant", 503, ProviderUnavailable),
        ("", 400, ProviderUnavailable),
        (None, 200, ProviderUnavailable),
        (["invalid_grant"], 400, ProviderUnavailable),
        ({"invalid_grant": 1}, 400, ProviderUnavailable),
    ],
)
@pytest.mark.parametrize("make", [google, github])
async def test_what_the_token_endpoint_may_refuse(
    providers: OAuthProviders,
    make: Make,
    error: object,
    status: int,
    expected: type,
) -> None:
    provider = make(providers)
    for side in (providers.google, providers.github):
        side.replies["token"] = json_reply({"error": error, "error_description": LEAK, "error_uri": LEAK}, status)
    assert type(await problem_of(providers, provider)) is expected


@pytest.mark.parametrize("make", [google, github])
async def test_a_wrong_client_secret_is_no_fault_of_the_person(providers: OAuthProviders, make: Make) -> None:
    provider = make(providers)
    providers.google.client_secret = providers.github.client_secret = "another"
    assert type(await problem_of(providers, provider)) is ProviderUnavailable


# People


@pytest.mark.parametrize("verified", [False, None, 1, "True", "yes", [True], {}, ...])
async def test_an_unverified_address_is_refused(providers: OAuthProviders, verified: object) -> None:
    providers.google.id_token = by(email_verified=verified)
    assert type(await problem_of(providers, google(providers))) is SignInRefused
    providers.github.emails = [{"email": "a@example.com", "primary": True, "verified": verified}]
    expected = ProviderUnavailable if verified is ... else SignInRefused
    if verified is ...:
        del providers.github.emails[0]["verified"]
    assert type(await problem_of(providers, github(providers))) is expected


LONGEST = "a" * 242 + "@example.com"


@pytest.mark.parametrize(
    "email",
    [
        None,
        1,
        True,
        [],
        "",
        "@",
        "a@",
        "@b",
        "a",
        "a@b@c",
        "a b@c",
        "a@b\n",
        "a\0@b",
        "\ud800@b",
        "a@b\u202e",
        LONGEST + "m",
    ],
)
async def test_an_address_that_is_none_is_refused(providers: OAuthProviders, email: object) -> None:
    providers.google.id_token = by(email=email)
    assert type(await problem_of(providers, google(providers))) is SignInRefused
    providers.github.emails[1]["email"] = email
    assert type(await problem_of(providers, github(providers))) is SignInRefused


@pytest.mark.parametrize("email", ["A.Person+x@Example.COM", "ünï@exämple.com", LONGEST])
async def test_an_address_is_left_as_it_is(providers: OAuthProviders, email: str) -> None:
    providers.google.sign_in_as("1", email)
    providers.github.sign_in_as(1, email)
    assert (await sign_in(providers, google(providers))).email == email
    assert (await sign_in(providers, github(providers))).email == email


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("  Ana  ", "Ana"),
        ("Ana\0\r\nPerson\x7f\x85", "AnaPerson"),
        ("\ud83dAna", "Ana"),
        ("👩\u200d👩 Ana", "👩\u200d👩 Ana"),
        ("x" * 300, "x" * 255),
        (" \t", None),
        ("", None),
        (None, None),
        (5, None),
        (["Ana"], None),
    ],
)
async def test_a_name_is_only_shown(providers: OAuthProviders, name: object, shown: str | None) -> None:
    providers.google.id_token = by(name=name)
    providers.github.user["name"] = name
    assert (await sign_in(providers, google(providers))).name == shown
    assert (await sign_in(providers, github(providers))).name == shown


@pytest.mark.parametrize("number", [None, True, 0, -1, 1.0, "1", [1], 2**63, 10**400])
async def test_a_github_id_is_a_positive_integer(providers: OAuthProviders, number: object) -> None:
    providers.github.user["id"] = number
    assert type(await problem_of(providers, github(providers))) is ProviderUnavailable


@pytest.mark.parametrize(
    ("emails", "expected"),
    [
        ([], SignInRefused),
        ([{"email": "a@example.com", "primary": False, "verified": True}], SignInRefused),
        ([{"email": "a@example.com", "primary": 1, "verified": True}], SignInRefused),
        ({}, ProviderUnavailable),
        (None, ProviderUnavailable),
        ("a@example.com", ProviderUnavailable),
        (["a@example.com"], ProviderUnavailable),
        ([{"primary": True, "verified": True}], ProviderUnavailable),
    ],
)
async def test_only_the_primary_verified_address_counts(
    providers: OAuthProviders, emails: object, expected: type
) -> None:
    providers.github.emails = emails
    assert type(await problem_of(providers, github(providers))) is expected


@pytest.mark.parametrize(
    "change", [{"access_token": None}, {"access_token": "a\r\nb"}, {"access_token": "ünï"}, {"token_type": "mac"}]
)
async def test_a_github_token_must_be_one(providers: OAuthProviders, change: dict[str, object]) -> None:
    providers.github.answer = lambda answer: {**answer, **change}
    assert type(await problem_of(providers, github(providers))) is ProviderUnavailable


async def test_a_github_token_may_be_short_lived(providers: OAuthProviders) -> None:
    providers.github.answer = lambda answer: {**answer, "expires_in": 30, "refresh_token": "ghr_x"}
    assert (await sign_in(providers, github(providers))).subject == "583231"


# Discovery


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://accounts.google.com"},
        {"issuer": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "/authorize"},
        {"authorization_endpoint": "https:nowhere"},
        {"authorization_endpoint": "http://x/\r\nSet-Cookie: a=b"},
        {"token_endpoint": "ftp://127.0.0.1/"},
        {"token_endpoint": None},
        {"token_endpoint": 1},
        {"jwks_uri": ["http://127.0.0.1/"]},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
async def test_a_discovery_document_must_be_the_issuers(providers: OAuthProviders, change: dict[str, object]) -> None:
    provider = google(providers)
    providers.google.discovery = change
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    assert not providers.google.asked("token")
    providers.google.discovery = {}
    assert (await sign_in(providers, provider)).subject == "g-1001"


async def test_an_issuer_with_a_slash_is_another(providers: OAuthProviders) -> None:
    side = providers.google
    provider = Google(f"{side.url}/", side.client_id, side.client_secret)
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    side.discovery = {"issuer": f"{side.url}/"}
    side.id_token = by(iss=f"{side.url}/")
    assert (await sign_in(providers, provider)).issuer == f"{side.url}/"
