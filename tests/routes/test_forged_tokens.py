"""Every forged token ends in the same 401, which tells nothing; one that was not signed here costs no query."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from app.db import Database
from app.main import create_app
from app.security.encryption import derive, key_id
from app.security.tokens import SessionToken, TokenSigner
from app.services.auth import KEY_REFUSED, SESSION_OVER, AuthService
from app.settings import Settings
from tests.support.accounts import ANA, OWN_PAGE, SECRET, Accounts, jws, open_accounts, outcome
from tests.support.oauth import base64url

KEY = derive(SECRET, "access tokens")
HEADER = {"alg": "HS256", "kid": key_id(KEY), "typ": "at+jwt"}
WORDS = {
    KEY_REFUSED,
    SESSION_OVER,
    "The access token is not valid, or no longer.",
    "The credential is not an API key of this service.",
    "Send a credential: `Authorization: Bearer <API key or token>` or `X-API-Key: <key>`.",
    "The refresh token is not one of this service.",
}
REFUSED = (401, "unauthenticated")
FINE = (200, None)

Forged = dict[str, str | bytes]


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


@dataclass(frozen=True)
class Real:
    """A token that works, taken apart, and the other credentials of its session."""

    text: str
    claims: dict[str, Any]
    refresh_token: str
    cookie: str
    key: str
    foreign: dict[str, Any]

    def signed(self, header: dict[str, Any] | None = None, /, **claims: Any) -> str:
        """Returns a token with the right signature; a claim that is None is left out."""
        found = {name: value for name, value in {**self.claims, **claims}.items() if value is not None}
        return jws(HEADER if header is None else header, found, KEY)

    @property
    def parts(self) -> list[str]:
        return self.text.split(".")


async def real_token(accounts: Accounts) -> Real:
    ana = await accounts.sign_in(ANA)
    made = (await ana.post("/auth/keys", json={"name": "real", "role": "admin"})).json()
    tokens = await accounts.tokens(made["key"])
    key = await accounts.key()
    return Real(
        tokens["access_token"],
        claims_of(tokens["access_token"]),
        tokens["refresh_token"],
        ana.cookies["__Host-session"],
        key,
        claims_of((await accounts.tokens(key))["access_token"]),
    )


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


def flipped(text: str, place: int, bit: int = 1) -> str:
    """Returns base64url text that stands for bytes with one bit changed."""
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[place] ^= bit
    return base64url(bytes(raw))


def by_others(real: Real) -> Forged:
    """Tokens that another key, or none, signed."""
    rsa_key, ec_key = rsa.generate_private_key(65_537, 2_048), ec.generate_private_key(ec.SECP256R1())
    keys: dict[str, Any] = {
        "RS256": rsa_key,
        "PS256": rsa_key,
        "ES256": ec_key,
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    unsigned = {
        f"alg {alg}": jws({**HEADER, "alg": alg}, real.claims, KEY).rpartition(".")[0] + "."
        for alg in ("none", "None", "NONE", "nOnE")
    }
    own_keys = {
        f"{alg} by an own key": jwt.encode(real.claims, key, alg, {"kid": HEADER["kid"], "typ": "at+jwt"})
        for alg, key in keys.items()
    }
    purposes = ("api keys", "cursors", "rate limits", "refresh tokens", "session cookies", "sign-in", "access token")
    other_purposes = {f"key for {purpose}": jws(HEADER, real.claims, derive(SECRET, purpose)) for purpose in purposes}
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = derive(bytes.fromhex("0123456789abcdef" * 4), "access tokens")
    return {
        **unsigned,
        **own_keys,
        **other_purposes,
        "alg none with a signature": jws({**HEADER, "alg": "none"}, real.claims, KEY),
        "HS256 by a public key": jws(HEADER, real.claims, public),
        "HS256 by an empty key": jws(HEADER, real.claims, b""),
        "HS256 by NUL bytes": jws(HEADER, real.claims, bytes(32)),
        "HS256 by the word secret": jws(HEADER, real.claims, b"secret"),
        "HS256 by the key's id": jws(HEADER, real.claims, HEADER["kid"].encode()),
        "HS256 by the secret itself": jws(HEADER, real.claims, SECRET),
        "HS256 by the secret in hexadecimal": jws(HEADER, real.claims, SECRET.hex().encode()),
        "of another secret": jws({**HEADER, "kid": key_id(other)}, real.claims, other),
        "of another secret under our kid": jws(HEADER, real.claims, other),
        "HS384 digest under HS256": jws(HEADER, real.claims, KEY, digest="sha384"),
    }


def misshapen(real: Real) -> Forged:
    """Texts that are no compact JWS, or a changed one."""
    header, payload, signature = real.parts
    outer = base64url(json.dumps({**HEADER, "cty": "JWT"}).encode())
    nested = f"{outer}.{base64url(real.text.encode())}"
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(last) + 1]
    jwe = ".".join(map(base64url, (b'{"alg":"dir","enc":"A256GCM"}', b"", b"n" * 12, b"c" * 64, b"t" * 16)))
    as_json = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    other_subject = base64url(json.dumps({**real.claims, "sub": real.foreign["sub"]}).encode())
    return {
        "nothing": "",
        "one dot": ".",
        "two dots": "..",
        "three dots": "...",
        "spaces": "   ",
        "null": "null",
        "undefined": "undefined",
        "header alone": header,
        "two parts": f"{header}.{payload}",
        "signature stripped": f"{header}.{payload}.",
        "header stripped": f".{payload}.{signature}",
        "payload stripped": f"{header}..{signature}",
        "four parts": f"{real.text}.{signature}",
        "five parts": jwe,
        "nested": f"{nested}.{base64url(hmac.digest(KEY, nested.encode(), 'sha256'))}",
        "JSON serialisation": json.dumps(as_json),
        "parts in another order": f"{payload}.{header}.{signature}",
        "signature of nothing": f"{header}.{payload}.{base64url(hmac.digest(KEY, b'', 'sha256'))}",
        "signature of another token": f"{header}.{payload}.{jws(HEADER, real.foreign, KEY).rpartition('.')[2]}",
        "signature truncated": real.text[:-1],
        "signature halved": f"{header}.{payload}.{base64url(base64.urlsafe_b64decode(signature + '=')[:16])}",
        "signature extended": real.text + "A",
        "signature twice": f"{header}.{payload}.{signature}{signature}",
        "signature in hexadecimal": f"{header}.{payload}.{base64.urlsafe_b64decode(signature + '=').hex()}",
        "signature spelt otherwise": real.text[:-1] + twin,
        "signature with padding": real.text + "=",
        "signature with a line break": real.text[:-2] + "\n" + real.text[-2:],
        "payload with padding": f"{header}.{payload}=.{signature}",
        "standard base64": real.text.replace("-", "+").replace("_", "/") + "==",
        "upper case": real.text.upper(),
        "subject changed": f"{header}.{other_subject}.{signature}",
        "alg changed": f"{base64url(json.dumps({**HEADER, 'alg': 'HS512'}).encode())}.{payload}.{signature}",
        "percent-encoded": quote(real.text, safe="").replace(".", "%2E"),
        "in quotes": f'"{real.text}"',
        "twice": f"{real.text} {real.text}",
        "twice with a comma": f"{real.text}, {real.text}",
        "scheme twice": f"Bearer {real.text}",
        "one megabyte": "A" * 2**20,
        "one megabyte of payload": f"{header}.{payload}{'A' * 2**20}.{signature}",
        "one megabyte of dots": "." * 2**20,
        "not ASCII": f"{header}.é{payload}.{signature}".encode(),
        "not UTF-8": real.text.encode()[:-1] + b"\xff",
        "fullwidth letters": real.text.replace("e", "ｅ").encode(),
        "NUL inside": f"{header}.{payload}\0.{signature}".encode(),
        "NUL at the end": real.text.encode() + b"\0",
        **{f"signature byte {n}": f"{header}.{payload}.{flipped(signature, n, 1 << n % 8)}" for n in range(32)},
        **{f"payload byte {place}": f"{header}.{flipped(payload, place)}.{signature}" for place in range(0, 190, 10)},
        **{f"header byte {place}": f"{flipped(header, place)}.{payload}.{signature}" for place in range(0, 55, 10)},
    }


def mislabelled(real: Real) -> Forged:
    """Tokens whose signature is right, under a header that is not ours."""
    sha384, sha512 = ({**HEADER, "alg": alg} for alg in ("HS384", "HS512"))
    jwk = {"kty": "oct", "k": base64url(KEY)}
    more: dict[str, Any] = {
        "jwk": jwk,
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "b64": False,
        "zip": "DEF",
        "cty": "JWT",
        "exp": real.claims["exp"],
        "unknown": "x",
    }
    kids: dict[str, Any] = {
        "unknown": "0" * 16,
        "path": "../../../../dev/null",
        "SQL": "' UNION SELECT 'secret' --",
        "number": 1,
        "null": None,
        "list": [HEADER["kid"]],
        "object": {"kid": HEADER["kid"]},
        "empty": "",
        "upper case": HEADER["kid"].upper(),
        "long": "a" * 140,
        "huge": "a" * 100_000,
    }
    types = ("JWT", "jwt", "AT+JWT", "application/at+jwt", "rt+jwt", "", None, 1, ["at+jwt"])
    return {
        "HS384 with the same key": jws(sha384, real.claims, KEY, digest="sha384"),
        "HS512 with the same key": jws(sha512, real.claims, KEY, digest="sha512"),
        "HS512 named, HS256 used": jws(sha512, real.claims, KEY),
        "alg in lower case": real.signed({**HEADER, "alg": "hs256"}),
        "alg as a list": real.signed({**HEADER, "alg": ["HS256"]}),
        **{f"no {name}": real.signed({k: v for k, v in HEADER.items() if k != name}) for name in HEADER},
        **{f"kid {name}": real.signed({**HEADER, "kid": kid}) for name, kid in kids.items()},
        **{f"typ {typ!r}": real.signed({**HEADER, "typ": typ}) for typ in types},
        **{f"header {name}": real.signed({**HEADER, name: value}) for name, value in more.items()},
        "b64 that is critical": real.signed({**HEADER, "b64": False, "crit": ["b64"]}),
        **{
            f"header {name}": jws(raw, real.claims, KEY)
            for name, raw in {
                "a list": b'["alg","kid","typ"]',
                "a text": b'"alg kid typ HS256 at+jwt"',
                "null": b"null                ",
                "not JSON": b"{alg: HS256, typ: JWT}",
                "not UTF-8": b'{"alg":"HS256","typ":"\xff\xfe"}',
                "in another order": json.dumps(dict(reversed(HEADER.items())), separators=(",", ":")).encode(),
                "with spaces": json.dumps(HEADER).encode(),
                "with a BOM": b"\xef\xbb\xbf" + json.dumps(HEADER, separators=(",", ":")).encode(),
                "in UTF-16": json.dumps(HEADER, separators=(",", ":")).encode("utf-16"),
                "with alg twice": b'{"alg":"none",' + json.dumps(HEADER, separators=(",", ":")).encode()[1:],
            }.items()
        },
    }


def misclaimed(real: Real) -> Forged:
    """Tokens whose signature and header are right, with claims that are not given out."""
    now, right = int(time.time()), real.claims
    plain = json.dumps(right, separators=(",", ":"))
    wrong: dict[str, list[Any]] = {
        "exp": [str(now + 900), now + 900.5, float(now + 900), True, 10**30, -1, 0, [now], {}, "", "NaN", now - 1],
        "iat": [str(now), now + 0.5, True, now + 60, 10**30, [now], "", "now"],
        "aud": [["chat-insights-api"], ["chat-insights-api", "other"], "other", "", 1, {}, True, "chat-insights"],
        "iss": ["other", ["chat-insights"], "", 1, "https://chat-insights", "chat-insights/", True],
        "jti": [1, [], {}, True],
        "sub": [1, [], {}, "", "operator", real.foreign["sub"], right["sub"] + "0", right["sub"].upper(), "\ud800"],
        "sid": [
            *(0, int(right["sid"]), "0", "-1", "-" + right["sid"], str(2**63), str(2**64 + int(right["sid"]))),
            *("9" * 19, "9" * 400, "", " " + right["sid"], right["sid"] + " ", "+" + right["sid"], "0" + right["sid"]),
            *(right["sid"] + ".0", "1e3", "0x10", "1_0", [right["sid"]], {}, True, str(int(right["sid"]) ^ 1)),
            "".join(chr(0x0660 + int(digit)) for digit in right["sid"]),
            "".join(chr(0xFF10 + int(digit)) for digit in right["sid"]),
            *(right["sid"] + "\n", right["sid"] + "\0", "1 OR 1=1", real.foreign["sid"], right["jti"]),
        ],
        "ws": [
            *(0, int(right["ws"]), "0", "-1", str(2**63), str(2**64 + int(right["ws"])), "9" * 400, "", [right["ws"]]),
            *({}, True, " " + right["ws"], str(int(right["ws"]) ^ 1), real.foreign["ws"], "*", "%"),
            "".join(chr(0x0660 + int(digit)) for digit in right["ws"]),
        ],
    }
    payloads: dict[str, bytes] = {
        "with spaces": json.dumps(right).encode(),
        "with a line break": plain.encode() + b"\n",
        "with a BOM": b"\xef\xbb\xbf" + plain.encode(),
        "in UTF-16": plain.encode("utf-16"),
        "in UTF-8 that is wrong": plain.encode()[:-1] + b',"x":"\xff"}',
        "with exp twice": f'{{"exp":{now - 1},{plain[1:]}'.encode(),
        "with sid twice": f'{{"sid":"1",{plain[1:]}'.encode(),
        "with exp NaN": plain.replace(f'"exp":{right["exp"]}', '"exp":NaN').encode(),
        "with exp Infinity": plain.replace(f'"exp":{right["exp"]}', '"exp":Infinity').encode(),
        "with exp 1e400": plain.replace(f'"exp":{right["exp"]}', '"exp":1e400').encode(),
        "with exp of 700 digits": plain.replace(f'"exp":{right["exp"]}', f'"exp":{"9" * 300}').encode(),
        "with iat NaN": plain.replace(f'"iat":{right["iat"]}', '"iat":NaN').encode(),
        "with iat Infinity": plain.replace(f'"iat":{right["iat"]}', '"iat":-Infinity').encode(),
        "with escapes": plain.replace("chat-insights-api", "\\u0063hat-insights-api").encode(),
        "a list": b'["exp","iat","sid"]',
        "a text": json.dumps(plain).encode(),
        "a number": b"1" * 30,
        "null": b"null                ",
        "empty": b"{}                  ",
        "not JSON": plain.encode()[:-1],
        "two objects": plain.encode() + plain.encode(),
        "deep": b'{"a":' * 100 + b"1" + b"}" * 100,
    }
    return {
        **{f"no {name}": real.signed(**{name: None}) for name in right},
        **{f"{name} null": jws(HEADER, {**right, name: None}, KEY) for name in right},
        **{f"{name} {value!r:.60}": real.signed(**{name: value}) for name, values in wrong.items() for value in values},
        **{f"payload {name}": jws(HEADER, raw, KEY) for name, raw in payloads.items()},
        "over for a second": real.signed(iat=now - 901, exp=now - 1),
        "over this moment": real.signed(iat=now - 900, exp=now),
        "over before it began": real.signed(iat=now, exp=now),
        "for sixteen minutes": real.signed(iat=now, exp=now + 901),
        "for a century": real.signed(iat=now, exp=now + 3_155_760_000),
        "begun in 1970": real.signed(iat=0),
        "begun before 1970": real.signed(iat=-(10**18)),
        "not before a minute from now": real.signed(nbf=now + 60),
        "not before a word": real.signed(nbf="now"),
        "not before infinity": jws(HEADER, plain[:-1].encode() + b',"nbf":1e400}', KEY),
        "our session in their workspace": real.signed(ws=real.foreign["ws"], sub=real.foreign["sub"]),
        "their session in our workspace": real.signed(sid=real.foreign["sid"], sub=real.foreign["sub"]),
        "their session under our name": real.signed(ws=real.foreign["ws"], sid=real.foreign["sid"]),
        "a payload that is too long": real.signed(padding="x" * 800),
    }


def of_other_kinds(real: Real) -> Forged:
    """Credentials of this service that are no access tokens."""
    signer = TokenSigner([SECRET])
    session = SessionToken(int(real.claims["ws"]), int(real.claims["sid"]), 1)
    return {
        "refresh token": real.refresh_token,
        "cookie": real.cookie,
        "cookie of the token's session": signer.cookie(session),
        "refresh token as a payload": jws(HEADER, {"refresh_token": real.refresh_token}, KEY),
        "API key of another secret": "ck_" + "a" * 64,
        "API key with a prefix": f"x{real.key}",
        "ID token": jws({"alg": "HS256", "typ": "JWT", "kid": HEADER["kid"]}, {**real.claims, "nonce": "x"}, KEY),
    }


@asynccontextmanager
async def without_database(accounts: Accounts) -> AsyncIterator[FastAPI]:
    """Yields the application with a database that cannot be asked who somebody is."""
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    auth = AuthService(database, TokenSigner([SECRET]), [derive(SECRET, "api keys")])
    app = create_app(lambda: nullcontext(replace(accounts.services, auth=auth)))
    async with app.router.lifespan_context(app):
        yield app
    await database.close()


def assert_refused(kind: str, token: str | bytes, answer: httpx.Response) -> None:
    assert outcome(answer) == REFUSED, kind
    assert answer.headers["WWW-Authenticate"] == "Bearer", kind
    assert answer.headers["Cache-Control"] == "no-store", kind
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}, kind
    assert body["detail"] in WORDS, kind
    shown = token if isinstance(token, str) else token.decode("latin-1")
    assert len(shown) < 10 or shown not in answer.text, kind


def header(name: str, start: str, token: str | bytes) -> dict[bytes, bytes]:
    return {name.encode(): start.encode() + (token if isinstance(token, bytes) else token.encode())}


def bearer(token: str | bytes) -> dict[bytes, bytes]:
    return header("Authorization", "Bearer ", token)


async def test_what_is_forged_is_built_right(accounts: Accounts) -> None:
    real = await real_token(accounts)
    now = int(time.time())
    good: dict[str, str] = {
        "the token itself": real.text,
        "the same, by hand": real.signed(),
        "another jti": real.signed(jti="x"),
        "one second long": real.signed(iat=now, exp=now + 2),
        # What RFC 7519 (section 4) lets a newer version of the service add.
        "an extra claim": real.signed(scope="x"),
        "an extra claim that is an object": real.signed(cnf={"jkt": "x"}),
        "nbf in the past": real.signed(nbf=now - 60),
    }
    for kind, token in good.items():
        assert outcome(await accounts.client(token).get("/auth/me")) == FINE, kind
    assert real.signed() == real.text


@pytest.mark.parametrize("forge", [by_others, misshapen, mislabelled, misclaimed, of_other_kinds])
async def test_a_forged_token_is_refused_at_every_door(accounts: Accounts, forge: Any) -> None:
    real = await real_token(accounts)
    client = accounts.client()
    for kind, token in forge(real).items():
        assert_refused(kind, token, await client.get("/auth/me", headers=bearer(token)))
        assert_refused(kind, token, await client.get("/auth/me", headers=header("X-API-Key", "", token)))
        assert_refused(kind, token, await client.delete("/chats/c1", headers=bearer(token)))
        if isinstance(token, str) and len(token) <= 1_024 and "\0" not in token:
            for name in ("api_key", "refresh_token"):
                if token != getattr(real, name, None):
                    answer = await client.post("/auth/token", json={name: token.encode(errors="replace").decode()})
                    assert_refused(kind, token, answer)
        if "cookie" not in kind:
            cookie = header("Cookie", "__Host-session=", token)
            assert_refused(kind, token, await client.get("/auth/me", headers=cookie))
    assert outcome(await accounts.client(real.text).get("/auth/me")) == FINE
    assert outcome(await client.post("/auth/token", json={"refresh_token": real.refresh_token})) == FINE
    denied = accounts.rows("SELECT action FROM audit_log WHERE action IN ('session.ended', 'access.denied')")
    assert denied == [], "whoever forges ends nobody's session and writes nothing"


@pytest.mark.parametrize("forge", [by_others, misshapen, mislabelled])
async def test_a_token_that_was_not_made_here_costs_no_query(accounts: Accounts, forge: Any) -> None:
    real = await real_token(accounts)
    async with without_database(accounts) as app:
        client = accounts.client(app=app)
        assert outcome(await client.get("/chats", headers=bearer(real.text))) == (503, "unavailable")
        for kind, token in forge(real).items():
            assert_refused(kind, token, await client.get("/chats", headers=bearer(token)))


def opaque_forgeries(real: str, other: str, sibling: str) -> dict[str, str]:
    """Returns changed refresh tokens or cookies; ``other`` is of another session, ``sibling`` of the other kind."""
    prefix = real[:3]
    body, alphabet = real.removeprefix(prefix), "abcdefghijklmnopqrstuvwxyz234567"
    raw = base64.b32decode(body.upper())
    generation = int.from_bytes(raw[16:20])

    def text(changed: bytes) -> str:
        return prefix + base64.b32encode(changed).decode().lower()

    def signed(key: bytes, changed: bytes) -> str:
        return text(changed[:20] + hmac.digest(key, changed[:20], hashlib.sha256)[:20])

    assert text(raw) == real
    purpose = {"cr_": "session cookies", "cs_": "refresh tokens"}[prefix]
    return {
        **{f"byte {n}": text((int.from_bytes(raw) ^ 1 << 8 * n + n % 8).to_bytes(40)) for n in range(40)},
        **{
            f"character {n}": f"{prefix}{body[:n]}{alphabet[(alphabet.index(body[n]) + 16) % 32]}{body[n + 1 :]}"
            for n in range(64)
        },
        **{f"generation ^ {n}": text(raw[:16] + (generation ^ n).to_bytes(4) + raw[20:]) for n in (1, 2, 2**31)},
        "MAC of the other session": text(raw[:20] + base64.b32decode(other.removeprefix(prefix).upper())[20:]),
        "session of the other": text(base64.b32decode(other.removeprefix(prefix).upper())[:20] + raw[20:]),
        "no MAC": text(raw[:20] + bytes(20)),
        "for another purpose": signed(derive(SECRET, purpose), raw),
        "by the secret itself": signed(SECRET, raw),
        "by an empty key": signed(b"", raw),
        "by another secret": signed(derive(bytes(32), purpose), raw),
        "MAC by SHA-512": text(raw[:20] + hmac.digest(KEY, raw[:20], hashlib.sha512)[:20]),
        "other kind": sibling,
        "other kind under this prefix": prefix + sibling[3:],
        "other kind's prefix": sibling[:3] + body,
        "API key's prefix": "ck_" + body,
        "no prefix": body,
        "prefix twice": prefix + real,
        "upper case": real.upper(),
        "upper case behind the prefix": prefix + body.upper(),
        "truncated": real[:-1],
        "truncated by a byte's worth": real[:-8],
        "extended": real + "a",
        "with padding": real + "=",
        "padded within": real[:-8] + "=" * 8,
        "in hexadecimal": prefix + raw.hex(),
        "letters that look alike": prefix + body.replace("i", "1").replace("o", "0")[:63] + "1",
        "empty": "",
        "prefix alone": prefix,
        "zeros": prefix + "a" * 64,
        "twice": f"{real}{real}",
        "long": prefix + "a" * 1_000,
    }


async def test_a_forged_refresh_token_or_cookie_is_refused_without_a_query(accounts: Accounts) -> None:
    real, other = await real_token(accounts), await accounts.tokens()
    ben = await accounts.sign_in(replace(ANA, number=7, email="seven@example.com"))
    async with without_database(accounts) as app:
        for client in (accounts.client(app=app), accounts.client()):
            forged = opaque_forgeries(real.refresh_token, other["refresh_token"], real.cookie)
            for kind, token in {**forged, "not ASCII": "cr_" + "ı" * 64, "fullwidth": "cr_" + "ａ" * 64}.items():
                assert_refused(kind, token, await client.post("/auth/token", json={"refresh_token": token}))
            for kind, token in opaque_forgeries(real.cookie, ben.cookies["__Host-session"], real.refresh_token).items():
                headers = {"Cookie": f"__Host-session={token}", **OWN_PAGE}
                assert_refused(kind, token, await client.get("/auth/me", headers=headers))
    assert outcome(await accounts.client().post("/auth/token", json={"refresh_token": real.refresh_token})) == FINE
    assert outcome(await accounts.client(headers={"Cookie": f"__Host-session={real.cookie}"}).get("/auth/me")) == FINE


async def test_tokens_with_a_right_mac_of_what_cannot_be_are_refused(accounts: Accounts) -> None:
    real = await real_token(accounts)
    signer = TokenSigner([SECRET])
    workspace_id, session_id = int(real.claims["ws"]), int(real.claims["sid"])
    sessions = [
        (0, 0, 0),
        (workspace_id, 0, 1),
        (0, session_id, 1),
        (workspace_id, session_id ^ 1, 1),
        (int(real.foreign["ws"]), session_id, 1),
        (-1, -1, -1),
        (2**63 - 1, 2**63 - 1, 2**31 - 1),
    ]
    for session in sessions:
        token = SessionToken(*session)
        headers = {"Cookie": f"__Host-session={signer.cookie(token)}", **OWN_PAGE}
        assert_refused(str(session), "-" * 9, await accounts.client().get("/auth/me", headers=headers))
        answer = await accounts.client().post("/auth/token", json={"refresh_token": signer.refresh(token)})
        assert_refused(str(session), "-" * 9, answer)
    assert outcome(await accounts.client(real.text).get("/auth/me")) == FINE
