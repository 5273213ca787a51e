"""ID tokens: which ones sign somebody in, and by which keys."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from app.errors import ProviderUnavailable
from app.security import oauth
from tests.security.attempts import google, problem_of, sign_in
from tests.support.oauth import (
    LEAK,
    Claims,
    Forge,
    OAuthProviders,
    base64url,
    by,
    rsa_key,
    sign,
)


def at(claim: str, seconds: float) -> Forge:
    return lambda claims: by(**{claim: time.time() + seconds})(claims)


def headed(**header: object) -> Forge:
    return lambda claims: sign(claims, rsa_key("k1"), {"alg": "RS256", "kid": "k1", **header})


def encode(value: object) -> str:
    return base64url(json.dumps(value).encode())


def with_algorithm(algorithm: str) -> Forge:
    key = RSAKey.import_key(bare("k1", private=True))
    return lambda claims: jwt.encode({"alg": algorithm, "kid": "k1"}, claims, key, algorithms=[algorithm])


def with_secret(secret: bytes) -> Forge:
    def forge(claims: Claims) -> str:
        signed = f"{encode({'alg': 'HS256', 'kid': 'k1'})}.{encode(claims)}"
        return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"

    return forge


def unsigned(algorithm: str) -> Forge:
    return lambda claims: f"{encode({'alg': algorithm, 'kid': 'k1'})}.{encode(claims)}."


def bare(kid: str, *, private: bool = False) -> Any:
    """Returns a key that does not say what it is for."""
    members = rsa_key(kid).as_dict(private=private)
    return {name: value for name, value in members.items() if name not in ("use", "alg")}


def altered(part: int, change: Callable[[str], str]) -> Forge:
    def forge(claims: Claims) -> str:
        parts = sign(claims, rsa_key("k1")).split(".")
        parts[part] = change(parts[part])
        return ".".join(parts)

    return forge


def payload(raw: object) -> Forge:
    return lambda _: sign(raw, rsa_key("k1"))


BAD_TOKENS: dict[str, Forge] = {
    # not a JWS
    "null": lambda _: None,
    "number": lambda _: 1,
    "list": lambda _: ["x"],
    "object": lambda _: {"x": 1},
    "empty": lambda _: "",
    "text": lambda _: LEAK,
    "surrogate": lambda _: "\ud800.\ud800.\ud800",
    "two parts": lambda claims: sign(claims, rsa_key("k1")).rpartition(".")[0],
    "four parts": lambda claims: sign(claims, rsa_key("k1")) + ".x",
    "encrypted": lambda _: ".".join(["e30"] * 5),
    "header no JSON": lambda claims: sign(claims, rsa_key("k1"), b"{"),
    "header a list": lambda claims: sign(claims, rsa_key("k1"), []),
    "payload no JSON": payload(b"{"),
    "payload a list": payload([1]),
    "payload no UTF-8": payload(b'{"iss": "\xff"}'),
    "payload too deep": payload(b'{"a":' * 20_000),
    "too long": by(padding="x" * 2**18),
    # signatures
    "none": unsigned("none"),
    "None": unsigned("None"),
    "RS256 without signature": altered(2, lambda _: ""),
    "signature altered": altered(2, lambda text: ("A" if text[0] != "A" else "B") + text[1:]),
    "signature with padding": altered(2, lambda text: text + "=="),
    "claims altered": altered(
        1, lambda text: encode({**json.loads(base64.urlsafe_b64decode(text + "==")), "sub": "x"})
    ),
    "client secret by HS256": with_secret(b"google-secret-canary-4711"),
    "public key by HS256": lambda claims: with_secret(rsa_key("k1").as_pem())(claims),
    "RS512": lambda claims: with_algorithm("RS512")(claims),
    "PS256": lambda claims: with_algorithm("PS256")(claims),
    "no algorithm": lambda claims: sign(claims, rsa_key("k1"), {"kid": "k1"}),
    "algorithm a list": headed(alg=["RS256"]),
    "algorithm null": headed(alg=None),
    "another's key": lambda claims: sign(claims, rsa_key("stranger"), {"alg": "RS256", "kid": "k1"}),
    "another's key, its own kid": by("stranger"),
    "another's key, enclosed": lambda claims: sign(
        claims, rsa_key("stranger"), {"alg": "RS256", "kid": "k1", "jwk": bare("stranger")}
    ),
    "another's key, by URL": lambda claims: sign(
        claims, rsa_key("stranger"), {"alg": "RS256", "kid": "k1", "jku": "https://evil.example/"}
    ),
    "kid a number": headed(kid=1),
    "kid null": headed(kid=None),
    "kid empty": headed(kid=""),
    "critical and unknown": headed(crit=["x"], x=1),
    "unencoded payload": headed(crit=["b64"], b64=False),
    # claims
    **{f"without {name}": by(**{name: ...}) for name in ("iss", "sub", "aud", "exp", "iat", "nonce")},
    **{f"{name} null": by(**{name: None}) for name in ("iss", "sub", "aud", "exp", "iat", "nonce", "azp")},
    "another issuer": by(iss="https://accounts.google.com"),
    "issuer with a slash": lambda claims: by(iss=claims["iss"] + "/")(claims),
    "issuer in capitals": lambda claims: by(iss=claims["iss"].upper())(claims),
    "issuer in a list": lambda claims: by(iss=[claims["iss"]])(claims),
    "another audience, by us": by(aud="another"),
    "another audience, in a list": by(aud=["another"]),
    "audience beside ours": by(aud=["google-client-4711", "another"]),
    "audience twice": by(aud=["google-client-4711", "google-client-4711"]),
    "audience in a list in a list": by(aud=[["google-client-4711"]]),
    "no audience": by(aud=[]),
    "audience of our beginning": by(aud="google-client"),
    "by another": by(azp="another"),
    "by us in a list": by(azp=["google-client-4711"]),
    "expired 11 s ago": at("exp", -11),
    "expired 60 s ago": at("exp", -60),
    "expired in 1970": by(exp=0),
    "expires as text": by(exp="9999999999"),
    "expires at true": by(exp=True),
    "expires at NaN": by(exp=float("nan")),
    "expires at infinity": by(exp=float("inf")),
    "expires in a list": by(exp=[9_999_999_999]),
    "issued in a minute": at("iat", 60),
    "issued as text": by(iat="1"),
    "not before a minute": at("nbf", 60),
    "another nonce": by(nonce="another"),
    "nonce among others": lambda claims: by(nonce=["x", claims["nonce"]])(claims),
    "nonce empty": by(nonce=""),
    "subject a number": by(sub=1001),
    "subject a list": by(sub=["g-1001"]),
    "subject empty": by(sub=""),
    "subject too long": by(sub="x" * 256),
    "subject with NUL": by(sub="g\0"),
    "subject of two lines": by(sub="g\n1"),
    "subject a surrogate": by(sub="\ud800"),
    "subject reversed": by(sub="g\u202e1"),
}


async def test_what_the_bad_tokens_are_made_of_is_good(providers: OAuthProviders) -> None:
    providers.google.published = [bare("k1")]
    providers.google.id_token = by()
    assert (await sign_in(providers, google(providers))).subject == "g-1001"


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_id_token_signs_nobody_in(providers: OAuthProviders, kind: str) -> None:
    # No hint in the key set: the narrowness is ours.
    providers.google.published = [bare("k1")]
    providers.google.id_token = BAD_TOKENS[kind]
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable
    assert providers.google.asked("token") == 1, "the token was never judged"


async def test_an_id_token_must_come_along(providers: OAuthProviders) -> None:
    providers.google.answer = lambda answer: {name: value for name, value in answer.items() if name != "id_token"}
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable


@pytest.mark.parametrize(
    "forge",
    [
        by(aud=["google-client-4711"]),
        by(azp=...),
        by(email_verified="true"),
        at("exp", -5),
        at("iat", 5),
        at("exp", 0.5),
        headed(typ="JWT"),
        lambda claims: sign(claims, rsa_key("k1"), {"alg": "RS256"}),
    ],
)
async def test_what_a_good_id_token_may_look_like(providers: OAuthProviders, forge: Forge) -> None:
    providers.google.id_token = forge
    assert (await sign_in(providers, google(providers))).email == "ana@example.com"


async def test_a_key_on_a_curve_may_sign(providers: OAuthProviders) -> None:
    key = ECKey.generate_key("P-256", {"kid": "e1"})
    providers.google.published.append(key.as_dict(private=False))
    providers.google.id_token = lambda claims: jwt.encode({"alg": "ES256", "kid": "e1"}, claims, key)
    assert (await sign_in(providers, google(providers))).subject == "g-1001"


# Keys


async def test_new_keys_are_fetched_once_a_minute(providers: OAuthProviders, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = google(providers)
    await sign_in(providers, provider)
    providers.google.rotate("k2")
    for _ in range(3):
        assert type(await problem_of(providers, provider)) is ProviderUnavailable
    assert providers.google.asked("keys") == 1
    monkeypatch.setattr(oauth, "REFETCH_S", 0.0)
    assert (await sign_in(providers, provider)).subject == "g-1001"
    assert (await sign_in(providers, provider)).subject == "g-1001"
    assert providers.google.asked("keys") == 2


async def test_another_key_by_the_same_name_is_found(
    providers: OAuthProviders, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = google(providers)
    providers.google.published = [{**bare("stranger"), "kid": "k1"}]
    assert type(await problem_of(providers, provider)) is ProviderUnavailable
    providers.google.published = [bare("k1")]
    monkeypatch.setattr(oauth, "REFETCH_S", 0.0)
    assert (await sign_in(providers, provider)).subject == "g-1001"


async def test_a_key_that_was_withdrawn_is_forgotten(
    providers: OAuthProviders, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = google(providers)
    await sign_in(providers, provider)
    providers.google.published = [bare("k2")]
    monkeypatch.setattr(oauth, "KEEP_S", 0.0)
    assert type(await problem_of(providers, provider)) is ProviderUnavailable


async def test_keys_that_cannot_be_used_do_not_spoil_the_others(providers: OAuthProviders) -> None:
    junk = ["x", None, {}, {"kty": "RSA", "kid": "k1"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]
    odd = [{"kty": "oct", "k": "AAAA", "kid": "k1"}, {"kty": "AKP", "kid": "k1"}, {"kty": ["RSA"]}]
    providers.google.published = [*junk, bare("k1"), *odd]
    assert (await sign_in(providers, google(providers))).subject == "g-1001"


def _curve() -> Any:
    return ECKey.generate_key("P-256", {"kid": "k1"}).as_dict(private=False)


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize(
    "published",
    [
        list,
        lambda: [_curve()],
        lambda: [{**bare("k1"), "use": "enc"}],
        lambda: [{**bare("k1"), "alg": "RS512"}],
        lambda: [{**bare("k1"), "key_ops": ["sign"]}],
        lambda: [{**bare("k1"), "kid": "k2"}],
        lambda: [bare("k1"), {**bare("stranger"), "kid": "k1"}],
        lambda: [{"kty": "oct", "k": bare("k1")["n"], "kid": "k1"}],
        lambda: "keys",
        lambda: None,
        lambda: {"k1": bare("k1")},
    ],
)
async def test_a_token_needs_a_key_that_is_meant_for_it(
    providers: OAuthProviders, published: Callable[[], Any]
) -> None:
    providers.google.published = published()
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable


@pytest.mark.filterwarnings("ignore:Key size")
async def test_a_short_key_signs_nothing(providers: OAuthProviders) -> None:
    providers.google.key = rsa_key("short", 1_024)
    providers.google.published = [providers.google.key.as_dict(private=False)]
    assert type(await problem_of(providers, google(providers))) is ProviderUnavailable
