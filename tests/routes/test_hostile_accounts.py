"""Accounts under hostile input: no 500, nothing echoed, nothing stored, and what is no id of ours is absent."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from app.routes.deps import SESSION_COOKIE
from app.settings import Settings
from tests.routes.test_hostile import BODIES, HEADERS, MEDIA, QUERIES, SECRET, TIMES, VALUES, assert_problem
from tests.support.accounts import ANA, Accounts, open_accounts, outcome

Operation = tuple[str, str, dict[str, Any]]

JSON = {"Content-Type": "application/json"}
PAGE = {"Accept": "text/html"}
OPERATIONS: dict[str, Operation] = {
    "createToken": ("POST", "/auth/token", {"api_key": "ck_x"}),
    "createToken, refreshed": ("POST", "/auth/token", {"refresh_token": "cr_x"}),
    "createKey": ("POST", "/auth/keys", {"name": "x", "role": "viewer", "expires_at": "2126-01-01T00:00:00Z"}),
    "rotateKey": ("POST", "/auth/keys/17/rotate", {"overlap_seconds": 1}),
    "inviteMember": ("POST", "/workspace/members", {"email": "x@example.com", "role": "viewer"}),
    "changeMember": ("PATCH", "/workspace/members/17", {"role": "viewer"}),
    "changeWorkspace": ("PATCH", "/workspace", {"redact": True}),
}
LISTS = ("/auth/keys", "/workspace/members", "/audit")


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


@pytest.fixture
async def ana(accounts: Accounts) -> httpx.AsyncClient:
    """The browser of an admin."""
    return await accounts.sign_in(ANA)


@pytest.fixture
async def admin(accounts: Accounts, ana: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client with a key of hers."""
    return accounts.client((await ana.post("/auth/keys", json={"name": "a", "role": "admin"})).json()["key"])


def stored(accounts: Accounts) -> list[tuple[Any, ...]]:
    """Returns what hostile input could have made or changed."""
    tables = ("sessions", "oauth_states", "idempotency_keys", "users", "workspaces")
    return [
        *accounts.rows("SELECT member_id, role, invited_email FROM memberships ORDER BY 1"),
        *accounts.rows("SELECT key_id, name, role, expires_at FROM api_keys ORDER BY 1"),
        *(accounts.rows(f"SELECT count(*) FROM {table}")[0] for table in tables),
    ]


def without_id(answer: httpx.Response) -> tuple[int, dict[str, Any], set[str]]:
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    return answer.status_code, body, set(answer.headers)


async def test_every_operation_that_takes_a_body_is_tried(accounts: Accounts) -> None:
    taking = {
        operation["operationId"]
        for operations in accounts.app.openapi()["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation and "accounts" in operation["tags"]
    }
    assert {name.partition(",")[0] for name in OPERATIONS} == taking


async def test_a_bad_value_in_any_field_is_refused(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    before = stored(accounts)
    for name, (method, path, body) in OPERATIONS.items():
        for field in body:
            for kind, value in VALUES.items():
                if (field, kind) == ("overlap_seconds", "integer"):
                    continue  # that is what it should be
                if (field, kind) == ("redact", "true"):
                    continue
                rest = json.dumps({**body, field: "?"}).replace('"?"', value)
                answer = await admin.request(method, path, content=rest.encode(), headers=JSON)
                # An empty credential is readable, and wrong.
                assert_problem(answer, 400, 413, 422, *([401] if kind == "empty" and "createToken" in name else []))
                if answer.status_code == 422:
                    assert {error["pointer"] for error in answer.json()["errors"]} == {f"/{field}"}, (name, kind)
    assert stored(accounts) == before


async def test_a_bad_body_is_refused_by_every_operation_that_takes_one(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    before = stored(accounts)
    optional = ("createToken", "rotateKey")
    for name, (method, path, _) in OPERATIONS.items():
        for kind, content in BODIES.items():
            if kind == "empty" and name.startswith(optional):
                continue
            answer = await admin.request(method, path, content=content, headers={**JSON, "Idempotency-Key": "k"})
            # Names of fields are told, values are not.
            shown = answer.text.replace(SECRET, "") if content.startswith(b'{"') else answer.text
            assert_problem(httpx.Response(answer.status_code, headers=answer.headers, text=shown), 400, 413, 422)
        for media in MEDIA:
            answer = await admin.request(method, path, content=b"{}", headers={"Content-Type": media})
            assert_problem(answer, 415)
        for encoding in ("gzip", "br", "identity, gzip"):
            answer = await admin.request(method, path, content=b"{}", headers={**JSON, "Content-Encoding": encoding})
            assert_problem(answer, 415)
        long = {**JSON, "Content-Length": str(accounts.services.max_body_bytes + 1)}
        assert_problem(await admin.request(method, path, content=b"{}", headers=long), 413)
    assert stored(accounts) == before


NO_IDS = [
    *(
        "0",
        "-1",
        "+1",
        "%2B1",
        "01",
        "1.0",
        "1e3",
        "0x1",
        "1_0",
        "%201",
        "1%20",
        "1%0A",
        "1%0D%0AX:1",
        "٣",
        "%D9%A3",
        "１",
    ),
    *("9223372036854775807", "9223372036854775808", "18446744073709551617", "9" * 400, "9" * 50_000, "1" + "0" * 19),
    *(
        "%00",
        "1%00",
        "%2F",
        "1%2F2",
        "..%2F1",
        "%2e%2e",
        "%252e",
        "%5C",
        "%ff",
        "%ed%a0%80",
        "%c0%af",
        "%",
        "%zz",
        "1%",
    ),
    *(
        "😀",
        "%F0%9F%98%80",
        "null",
        "None",
        "NaN",
        "-0",
        "Infinity",
        "true",
        "[]",
        "{}",
        "1,2",
        "1;2",
        "*",
        "_",
        "me",
        "~",
    ),
    *(
        "'%20OR%201=1--",
        "%27%3B%20DROP%20TABLE%20api_keys",
        "%3Cscript%3E" + SECRET,
        "$1",
        "{key_id}",
        "ck_x",
        "a" * 5_000,
    ),
]


async def test_what_is_no_id_is_absent_exactly_like_one_that_never_was(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    stranger = accounts.client(await accounts.key(workspace="theirs"))
    theirs = (await stranger.post("/auth/keys", json={"name": "k", "role": "viewer"})).json()["id"]
    their_member = (await stranger.post("/workspace/members", json={"email": "x@example.com", "role": "viewer"})).json()
    made = (await admin.post("/auth/keys", json={"name": "k", "role": "viewer"})).json()["id"]
    member = (await admin.get("/workspace/members")).json()["data"][0]["id"]
    aliases = {
        own: [
            f"0{own}",
            f"+{own}",
            f"{own}.0",
            f"{own}%00",
            f"%20{own}",
            f"{own}e0",
            f"%{ord(own[0]):x}{own[1:]}",
            own + "/",
        ]
        for own in (made, member)
    }
    before = stored(accounts)
    for method, path, body, own in (
        ("DELETE", "/auth/keys/{}", None, made),
        ("POST", "/auth/keys/{}/rotate", None, made),
        ("PATCH", "/workspace/members/{}", {"role": "viewer"}, member),
        ("DELETE", "/workspace/members/{}", None, member),
    ):
        absent = without_id(await admin.request(method, path.format("2893478923478923"), json=body))
        assert absent[0] == 404
        for each in (*NO_IDS, *aliases[own], theirs, their_member["id"]):
            answer = await admin.request(method, path.format(each), json=body)
            if each.endswith("/"):
                assert_problem(answer, 404, 405)
            else:
                assert without_id(answer) == absent, (method, path, each[:50])
            assert SECRET not in answer.text
    assert stored(accounts) == before


async def test_a_bad_query_is_refused_and_never_a_defect(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    before = stored(accounts)
    for query in QUERIES:
        for path in LISTS:
            assert_problem(await admin.get(f"{path}?{query}"), 400, 422)
        for method, path, body in OPERATIONS.values():
            answer = await admin.request(method, f"{path}?{query}", json={**body, "unknown": 1})
            assert_problem(answer, 400, 422)
        answer = await admin.get(f"/auth/callback/google?{query}", headers=PAGE)
        assert answer.status_code in (400, 422)
        assert SECRET not in answer.text
        answer = await admin.get(f"/auth/me?{query}")
        assert answer.status_code in (200, 400)
        assert SECRET not in answer.text
    for name in ("from", "to"):
        for at in TIMES:
            assert_problem(await admin.get("/audit", params={name: at}), 422)
    for name in ("action", "actor", "target", "conversation_id"):
        for text in ("\0", "x\0", "", "x" * 256):
            assert_problem(await admin.get("/audit", params={name: text}), 422)
        for text in ("'; DROP TABLE audit_log; --", "😀" * 15, "%", "_", "\\", "‮x", "{{7*7}}", "null"):
            answer = await admin.get("/audit", params={name: text})
            assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert stored(accounts) == before


async def test_a_cursor_of_another_list_or_workspace_is_refused(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    cursors = []
    for client in (admin, accounts.client(await accounts.key(workspace="theirs"))):
        for number in range(2):
            await client.post("/auth/keys", json={"name": "k", "role": "viewer"})
            await client.post("/workspace/members", json={"email": f"x{number}@example.com", "role": "viewer"})
        cursors.append([(await client.get(path, params={"limit": 1})).json()["next_cursor"] for path in LISTS])
    own, theirs = cursors
    for place, path in enumerate(LISTS):
        assert (await admin.get(path, params={"cursor": own[place]})).status_code == 200
        spoilt = own[place][:-2] + ("AA" if own[place][-2:] != "AA" else "BB")
        others = [
            *own[:place],
            *own[place + 1 :],
            *theirs,
            spoilt,
            own[place] * 2,
            own[place][:-1],
            "😀",
        ]
        for cursor in others:
            assert_problem(await admin.get(path, params={"cursor": cursor}), 422)
    assert_problem(await admin.get("/audit", params={"cursor": own[2], "action": "key.created"}), 422)


async def test_a_weird_header_does_no_harm(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    for headers in HEADERS:
        for path in ("/auth/me", "/auth/login/google", "/auth/callback/google", *LISTS):
            answer = await admin.get(path, headers=headers)
            assert answer.status_code in (200, 303, 400, 413), answer.text
            assert SECRET not in str(answer.headers) + answer.text
            assert "evil" not in answer.headers.get("Location", "")
    for host in ("evil.com", "chat.example.com.evil.com", "chat.example.com@evil.com", "evil.com:443"):
        forwarded = {"Host": host, "X-Forwarded-Host": host, "X-Forwarded-Proto": "http", "Forwarded": f"host={host}"}
        answer = await admin.get("/auth/login/google", headers=forwarded)
        assert answer.status_code == 303
        assert "evil" not in answer.headers["Location"]


def credentials(key: str, jwt: str) -> list[tuple[list[tuple[str, bytes]], int | None]]:
    """Returns headers with the status that they get; None if it is one of two, but none else."""

    def bearer(text: str | bytes) -> tuple[str, bytes]:
        return "Authorization", text if isinstance(text, bytes) else text.encode()

    def api_key(text: str | bytes) -> tuple[str, bytes]:
        return "X-API-Key", text if isinstance(text, bytes) else text.encode()

    return [
        ([bearer(f"Bearer {key}")], 200),
        ([bearer(f"bearer {key}")], 200),
        ([bearer(f"BEARER {jwt}")], 200),
        ([api_key(key)], 200),
        ([api_key(key), bearer("")], 200),
        ([api_key(""), bearer(f"Bearer {key}")], 200),
        ([api_key(key), bearer("Bearer ")], 200),
        *(
            ([bearer(text)], 401)
            for text in ("", " ", "Bearer", "Bearer ", "Bearer  ", key, f"Basic {key}", f"Token {key}")
        ),
        *(([bearer(text)], 401) for text in (f"Bearer {key} x", f"Bearer {key},", f"Bearer,{key}", f"Bearer:{key}")),
        *(
            ([bearer(text)], 401)
            for text in (f"Bearer {key.upper()}", f"Bearer {key}=", f"Bearer {key[:-1]}", f"Bearer={key}")
        ),
        *(
            ([bearer(text)], 401)
            for text in (f"Bearer\t{key}", f"Bearer \0{key}", f"Bearer {key}\0", f'Bearer "{key}"')
        ),
        *(([bearer(text)], 401) for text in (b"Bearer \xff\xfe", b"\xff", "Bearer 😀", "Bearer " + "x" * 60_000)),
        *(
            ([bearer(text)], 401)
            for text in ("Bearer ck_" + "é" * 64, "Bearer " + "." * 5_000, "Bearer a.b.c", "Bearer null")
        ),
        *(
            ([bearer(text)], 401)
            for text in (f"Digest username={SECRET}", "Bearer cs_x", "Bearer cr_x", "Negotiate YII=")
        ),
        *(
            ([api_key(text)], 401)
            for text in ("", " ", jwt, f"Bearer {key}", f" {key}", f"{key} ", b"\xff", "\0", "x" * 60_000)
        ),
        ([bearer("Bearer x"), api_key(key)], 401),
        ([bearer(f"Bearer {key}"), bearer("Bearer x")], None),
        ([bearer("Bearer x"), bearer(f"Bearer {key}")], None),
        ([api_key("x"), api_key(key)], None),
        ([bearer(f"Bearer {key}")] * 50, 200),
    ]


async def test_a_credential_is_read_exactly_or_refused(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    key = admin.headers["Authorization"].removeprefix("Bearer ")
    jwt = (await admin.post("/auth/token")).json()["access_token"]
    anonymous = accounts.client()
    for headers, status in credentials(key, jwt):
        answer = await anonymous.get("/auth/me", headers=[(name.encode(), value) for name, value in headers])
        assert answer.status_code in ((200, 401) if status is None else (status,)), (headers, answer.text)
        if answer.status_code == 401:
            assert_problem(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert key not in answer.text


async def test_garbage_among_cookies_does_no_harm(accounts: Accounts, ana: httpx.AsyncClient) -> None:
    good = f"{SESSION_COOKIE}={ana.cookies[SESSION_COOKIE]}".encode()
    name = SESSION_COOKIE.encode()
    garbage = [
        *(b"", b";", b"=", b"a", b"=a", b"a=", b"a=b=c", b";;;", b"; " * 5_000, b"\0", b"a=\0", b"\xff=\xfe", b"\x80"),
        *(
            "schlüssel=🔑".encode(),
            b"a=" + b"x" * 60_000,
            b"a" * 60_000,
            b"a=1; " * 10_000,
            b'a="',
            b'a="\\',
            b'"',
            b"$Path=/",
        ),
        *(b'a="\\377\\000"', b'a="' + b"\\" * 60_000 + b'"', b'a="' + b'\\"' * 30_000 + b'"', b"a=\r\n b"),
        *(b"\\" * 60_000, b'a="' + b"\\1" * 30_000 + b'"', b"__Secure-session=x", b"__host-session=x", b"session=x"),
        name.lower() + b"=x",
    ]
    for each in garbage:
        began = time.monotonic()
        for cookies in (each + b"; " + good, good + b"; " + each):
            answer = await accounts.client().get("/auth/me", headers={b"Cookie": cookies})
            assert answer.status_code == 200, each[:50]
        answer = await accounts.browser().post("/auth/keys", json={}, headers={b"Cookie": each})
        assert_problem(answer, 401)
        assert time.monotonic() - began < 5, each[:50]
    wrong = [
        b"",
        b"x",
        b"cs_",
        b"cs_" + b"A" * 64,
        b"cs_" + b"x" * 60_000,
        b"\xff",
        b"\0",
        b'""',
        b"%00",
        b"null",
        b"cr_x",
    ]
    for value in wrong:
        answer = await accounts.client().get("/auth/me", headers={b"Cookie": name + b"=" + value})
        assert_problem(answer, 401)
        assert "set-cookie" not in answer.headers
        for cookies in (good + b"; " + name + b"=" + value, name + b"=" + value + b"; " + good):
            twice = await accounts.client().get("/auth/me", headers={b"Cookie": cookies})
            assert twice.status_code in (200, 401)
        for secret in (b"__Host-sign-in=" + value, b"__Host-sign-in=a; __Host-sign-in=" + value):
            answer = await accounts.client().get("/auth/callback/google?state=x&code=y", headers={b"Cookie": secret})
            assert outcome(answer) == (400, "sign_in_failed")
            begun = await accounts.client().get("/auth/login/google", headers={b"Cookie": secret})
            assert begun.status_code == 303
            assert f"__Host-sign-in={value.decode('latin-1')};" not in begun.headers["Set-Cookie"] or not value


REFLECTED = [
    *(
        f"<script>{SECRET}</script>",
        f'"><img src=x onerror={SECRET}>',
        f"'-{SECRET}-'",
        f"javascript:{SECRET}",
        SECRET * 300,
    ),
    *(
        f"</title><svg onload={SECRET}>",
        f"{{{{{SECRET}}}}}",
        f"{{detail}}{SECRET}",
        f"\r\nSet-Cookie: {SECRET}=1",
        f"‮{SECRET}",
    ),
    *(
        f"http://evil.com/{SECRET}",
        f"access_denied {SECRET}",
        f"&lt;{SECRET}",
        f"😀{SECRET}",
        SECRET * 400,
        f"{SECRET}\0",
    ),
]


async def test_a_callback_reflects_nothing(accounts: Accounts) -> None:
    before = stored(accounts)
    for text in REFLECTED:
        for names in (
            ["state"],
            ["code"],
            ["error"],
            ["error_description"],
            ["state", "code"],
            ["state", "error"],
            ["x"],
        ):
            query = "&".join(f"{name}={quote(text)}" for name in names)
            for provider in ("google", "github", quote(text, safe="")):
                for headers in (PAGE, {}):
                    answer = await accounts.browser().get(f"/auth/callback/{provider}?{query}", headers=headers)
                    assert answer.status_code in (400, 404, 422)
                    assert SECRET not in answer.text + str(answer.headers)
                    assert "set-cookie" not in answer.headers
                    policy = answer.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'")
                    assert "script-src" not in policy
    assert stored(accounts) == before


async def test_a_login_goes_nowhere_else_and_reflects_nothing(accounts: Accounts) -> None:
    before = stored(accounts)
    places = [
        *(
            "//evil.com",
            "///evil.com",
            "/\\evil.com",
            "\\\\evil.com",
            "https://evil.com",
            "evil.com",
            "javascript:1",
            "",
            "x",
        ),
        *(
            "/\t/evil.com",
            "/\n/evil.com",
            "\t//evil.com",
            " //evil.com",
            "/ /evil.com",
            "/\0",
            "/é",
            "/x\ud83dé"[:2] + "é",
        ),
        *(
            f"https:{SECRET}",
            f"//{SECRET}",
            "/" + SECRET * 200,
            "data:text/html,x",
            "http:/evil.com",
            "/‮x",
            "/\x7f",
            "?x",
        ),
    ]
    for place in places:
        answer = await accounts.browser().get("/auth/login/google", params={"next": place}, headers=PAGE)
        assert answer.status_code == 422, place
        assert SECRET not in answer.text + str(answer.headers)
    assert stored(accounts) == before
    for number in NO_IDS:
        answer = await accounts.browser().get(f"/auth/login/google?workspace_id={quote(number, safe='%')}")
        assert answer.status_code in (303, 400)
        assert len(answer.headers.get("Location", "")) < 2_000


NAMES = [
    "😀" * 255,
    "‮evil‬",
    "a\u0301" * 127,
    "<script>",
    "'; DROP TABLE api_keys; --",
    "\u2028",
    "{0}",
    "%s",
    " ",
    "null",
]
EMAILS = [
    *(
        "x",
        "@",
        "x@",
        "@x",
        "a@b@c",
        "a b@c.de",
        "a@b c",
        "a\n@b.de",
        "a\0@b.de",
        "a@b\x7f",
        "x" * 250 + "@b.de",
        "a@\x85b",
        "",
    ),
    *("a\u2028@b.de", "a@b\u3000c", "\ta@b.de", "a@b.de ", " a@b.de"),
]


async def test_names_numbers_and_times_are_exact_or_refused(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    for name in NAMES:
        made = await admin.post("/auth/keys", json={"name": name, "role": "viewer"})
        assert (made.status_code, made.json()["name"]) == (201, name)
    before = stored(accounts)
    for name in ("", "x" * 256, "😀" * 256, "a\nb", "\t", "\x00", "\x7f", "\x9f"):
        assert_problem(await admin.post("/auth/keys", json={"name": name, "role": "viewer"}), 422)
    for role in ("owner", "ADMIN", "", "admin ", "operator", "viewer\0"):
        for path, body in (("/auth/keys", {"name": "x"}), ("/workspace/members", {"email": "x@example.com"})):
            assert_problem(await admin.post(path, json={**body, "role": role}), 422)
    for at in (*TIMES, "2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        body = {"name": "x", "role": "viewer", "expires_at": at}
        assert_problem(await admin.post("/auth/keys", json=body), 422)
    for email in EMAILS:
        assert_problem(await admin.post("/workspace/members", json={"email": email, "role": "viewer"}), 422)
    for seconds in ("-1", "2592001", "9" * 30, "1.5", "1e400", "-0.1", '"x"', "[]", '"١"'):
        content = f'{{"overlap_seconds": {seconds}}}'.encode()
        assert_problem(await admin.post("/auth/keys/17/rotate", content=content, headers=JSON), 400, 422)
    assert stored(accounts) == before


async def test_a_key_may_last_until_the_end_of_time_and_be_rotated(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    for end in ("9999-12-31T23:59:59.999999Z", "9000-01-01T00:00:00Z"):
        made = await admin.post("/auth/keys", json={"name": "x", "role": "viewer", "expires_at": end})
        assert made.status_code == 201
        rotated = await admin.post(f"/auth/keys/{made.json()['id']}/rotate")
        assert rotated.status_code == 201, rotated.text
        assert rotated.json()["expires_at"][:19] == end[:19]
