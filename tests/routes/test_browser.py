"""What keeps other websites out of a browser that is signed in: proof of origin, CORS, headers."""

import base64
import hashlib
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from app.errors import Unavailable
from app.routes.deps import SESSION_COOKIE
from app.settings import Settings
from tests.support.accounts import ANA, BASE_URL, OWN_PAGE, Accounts, open_accounts, outcome
from tests.support.api import message

Headers = dict[str, str]

LISTED = ("https://app.example.com", "http://localhost:3000")
OTHER_ORIGINS = [
    *("null", "", "https://evil.com", "https://app.example.com.evil.com", "https://evil-app.example.com"),
    *("https://sub.app.example.com", "https://example.com", "http://app.example.com", "https://app.example.com:443"),
    *("https://app.example.com:8443", "https://app.example.com/", "https://APP.example.com", "HTTPS://app.example.com"),
    *("https://app.example.com@evil.com", "https://evil.com#https://app.example.com", "app.example.com", "*"),
    *("http://localhost:3001", "http://localhost", "http://localhost:3000.evil.com", "http://127.0.0.1:3000"),
    *("https://app.example.com, https://evil.com", "https://app.example.com\t", "https://app%2eexample.com", BASE_URL),
]
PROOF: list[Headers] = [OWN_PAGE, {"Origin": BASE_URL}, {**OWN_PAGE, "Origin": BASE_URL}]
NO_PROOF: list[Headers] = [
    {},
    *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none", "", "Same-Origin", "same-origin, x")),
    {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
    {"Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "empty"},
    {"Referer": f"{BASE_URL}/docs"},
    {"Host": "chat.example.com"},
    {"X-Requested-With": "XMLHttpRequest", "X-HTTP-Method-Override": "GET"},
    *(
        {"Origin": origin}
        for origin in (
            *("null", "", "https://evil.com", f"{BASE_URL}.evil.com", "http://chat.example.com", f"{BASE_URL}:443"),
            *(
                f"{BASE_URL}:8443",
                f"{BASE_URL}/",
                BASE_URL.upper(),
                "https://example.com",
                "https://x.chat.example.com",
            ),
            *(
                "https://chat.example.com@evil.com",
                "https://evil.com/https://chat.example.com",
                "http://localhost:8000",
            ),
            *("http://localhost:8000.evil.com", "http://test", *LISTED),
        )
    ),
]

WEBHOOK = {"url": "https://hooks.example.com/chats", "events": ["summary.created"]}


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings.model_copy(update={"cors_origins": LISTED})) as opened:
        yield opened


@pytest.fixture
async def ana(accounts: Accounts) -> httpx.AsyncClient:
    """Her browser, as it is when another website makes it send something: cookies, and no proof."""
    browser = await accounts.sign_in(ANA)
    assert (await browser.post("/chats", json=message())).status_code == 201
    del browser.headers["Sec-Fetch-Site"]
    return browser


async def unsafe_requests(browser: httpx.AsyncClient) -> list[tuple[str, str, Any]]:
    key = (await browser.post("/auth/keys", json={"name": "k", "role": "viewer"}, headers=OWN_PAGE)).json()["id"]
    hook = (await browser.post("/webhooks", json=WEBHOOK, headers=OWN_PAGE)).json()["id"]
    [member] = (await browser.get("/workspace/members")).json()["data"]
    return [
        ("POST", "/chats", message("c2")),
        ("DELETE", "/chats/c1", None),
        ("DELETE", "/chats?q=parcel&max_delete_count=9", None),
        ("POST", "/chats/summarize", {"conversation_id": "c1"}),
        ("POST", "/chats/insights", {"conversation_id": "c1"}),
        ("POST", "/chats/c1/summary/feedback", {"rating": "down"}),
        ("POST", "/jobs/summarize", {"conversation_ids": ["c1"]}),
        ("DELETE", "/jobs/2893478923478923", None),
        ("PATCH", "/workspace", {"redact": False}),
        ("POST", "/auth/keys", {"name": "stolen", "role": "admin"}),
        ("POST", f"/auth/keys/{key}/rotate", None),
        ("DELETE", f"/auth/keys/{key}", None),
        ("PUT", f"/analytics/budgets/{key}", {"day_usd": 1}),
        ("POST", "/auth/token", None),
        ("POST", "/workspace/members", {"email": "evil@example.com", "role": "admin"}),
        ("PATCH", f"/workspace/members/{member['id']}", {"role": "viewer"}),
        ("DELETE", f"/workspace/members/{member['id']}", None),
        ("POST", "/webhooks", {**WEBHOOK, "url": "https://evil.example.com"}),
        ("PATCH", f"/webhooks/{hook}", {"rotate_secret": True}),
        ("POST", f"/webhooks/{hook}/deliveries/{uuid.UUID(int=1)}/replay", None),
        ("DELETE", f"/webhooks/{hook}", None),
        ("POST", "/auth/logout", None),
    ]


def everything(accounts: Accounts) -> dict[str, Any]:
    """Returns all that requests change, but for when keys were used."""
    tables = ("conversations", "messages", "summaries", "insights", "sessions", "memberships", "webhooks", "audit_log")
    found: dict[str, Any] = {table: accounts.rows(f"SELECT {table}::text FROM {table} ORDER BY 1") for table in tables}
    return {**found, "keys": accounts.rows("SELECT key_id, role, expires_at FROM api_keys ORDER BY 1")}


async def test_every_unsafe_operation_is_tried(accounts: Accounts, ana: httpx.AsyncClient) -> None:
    tried = {
        (method.lower(), re.sub(r"(?<=deliveries/)[\w-]+|\d{9,}|(?<=chats/)c1", "{}", path.partition("?")[0]))
        for method, path, _ in await unsafe_requests(ana)
    }
    documented = {
        (method, re.sub(r"{\w+}", "{}", path))
        for path, operations in accounts.app.openapi()["paths"].items()
        for method in operations
        if method != "get"
    }
    assert tried == documented


async def test_a_cookie_without_proof_of_our_own_page_changes_nothing(
    accounts: Accounts, ana: httpx.AsyncClient
) -> None:
    requests = await unsafe_requests(ana)
    before = everything(accounts)
    for proof in NO_PROOF:
        for method, path, body in requests:
            answer = await ana.request(method, path, json=body, headers=proof)
            assert outcome(answer) == (403, "cross_site"), (method, path, proof)
            assert "set-cookie" not in answer.headers
    assert everything(accounts) == before
    for proof in NO_PROOF:  # reading needs none: nobody else can read the answer
        assert (await ana.get("/chats/c1", headers=proof)).status_code == 200


@pytest.mark.parametrize("proof", PROOF, ids=str)
async def test_a_cookie_with_proof_of_our_own_page_works(
    accounts: Accounts, ana: httpx.AsyncClient, proof: Headers
) -> None:
    for method, path, body in await unsafe_requests(ana):
        answer = await ana.request(method, path, json=body, headers=proof)
        assert answer.status_code != 403, (method, path)
        assert answer.status_code < 300 or outcome(answer) in ((409, "last_admin"), (404, "not_found"))
    assert (await ana.get("/auth/me")).status_code == 401


async def test_a_form_of_another_website_achieves_nothing(accounts: Accounts, ana: httpx.AsyncClient) -> None:
    before = everything(accounts)
    evil = {"Origin": "https://evil.com", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for media in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "text/csv"):
        for path in ("/chats", "/auth/token", "/auth/logout"):
            answer = await ana.post(path, content=b"", headers={**evil, "Content-Type": media})
            refused = (415, "unsupported_media_type") if path == "/auth/token" else (403, "cross_site")
            assert outcome(answer) == refused
    assert everything(accounts) == before


async def test_a_token_needs_no_proof_even_beside_a_cookie(accounts: Accounts, ana: httpx.AsyncClient) -> None:
    token = (await ana.post("/auth/token", headers=OWN_PAGE)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Origin": "https://evil.com", "Sec-Fetch-Site": "cross-site"}
    assert (await ana.post("/chats", json=message("c3"), headers=headers)).status_code == 201
    # And a cookie does not stand in for a wrong one.
    wrong = {**OWN_PAGE, "Authorization": "Bearer x"}
    assert (await ana.post("/chats", json=message("c4"), headers=wrong)).status_code == 401


async def test_the_session_cookie_is_for_this_host_and_no_script(accounts: Accounts) -> None:
    browser = accounts.browser()
    begun = await browser.get("/auth/login/google")
    accounts.introduce(ANA)
    finished = await browser.get(accounts.providers.approve(begun.headers["Location"]))
    for answer in (begun, finished):
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, attributes = cookie.partition("; ")
            assert name.startswith("__Host-")
            assert {"path=/", "secure", "httponly", "samesite=lax"} <= set(attributes.lower().split("; "))
            assert "domain" not in attributes.lower()
    assert SESSION_COOKIE in finished.headers["set-cookie"]


def cors_headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


Kind = tuple[int, str, str, dict[str, Any]]
KINDS: list[Kind] = [
    (200, "GET", "/chats/c1", {}),
    (200, "HEAD", "/chats/c1", {}),
    (201, "POST", "/chats", {"json": message()}),
    (304, "GET", "/chats/c1", {"headers": {"If-None-Match": "*"}}),
    (400, "GET", "/chats?q=%ff", {}),
    (400, "GET", "/chats?token=x", {}),
    (400, "POST", "/chats", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    (401, "GET", "/chats", {"headers": {"Authorization": "Bearer x"}}),
    (403, "GET", "/audit", {}),
    (404, "GET", "/chats/none", {}),
    (404, "GET", "/none", {}),
    (404, "HEAD", "/none", {}),
    (405, "PUT", "/chats", {}),
    (405, "OPTIONS", "/chats", {}),
    (
        413,
        "POST",
        "/chats",
        {"content": b"", "headers": {"Content-Type": "application/json", "Content-Length": "9" * 9}},
    ),
    (415, "POST", "/chats", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    (422, "GET", "/chats?limit=0", {}),
    (429, "GET", "/chats?q=x", {}),
    (500, "GET", "/chats/c1/summary", {}),
    (503, "GET", "/chats/c1/insights", {}),
    (422, "GET", "/auth/login/google%00", {}),
    (400, "GET", "/auth/callback/google", {}),
    (400, "GET", "/auth/callback/google", {"headers": {"Accept": "text/html"}}),
    (303, "GET", "/auth/login/google", {}),
    (200, "GET", "/livez", {}),
    (200, "GET", "/docs", {}),
    (200, "GET", "/openapi.json", {}),
    (200, "GET", "/static-offline-docs/swagger-ui.css", {}),
    (404, "GET", "/static-offline-docs/none", {}),
    (405, "POST", "/static-offline-docs/swagger-ui.css", {}),
]


@pytest.fixture
async def editor(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """A client that can meet every kind of answer."""

    async def defect(*_: object) -> None:
        raise RuntimeError("canary")

    async def down(*_: object) -> None:
        raise Unavailable("down")

    app = await accounts.instance(rate_limit_search="1/day")
    monkeypatch.setattr(app.state.services.summaries, "get", defect)
    monkeypatch.setattr(app.state.services.insights, "get", down)
    admin = accounts.client(await accounts.key())
    key = (await admin.post("/auth/keys", json={"name": "e", "role": "editor"})).json()["key"]
    opened = accounts.client(key, app)
    await opened.post("/chats", json=message())
    await opened.get("/chats?q=x")
    return opened


async def ask(client: httpx.AsyncClient, kind: Kind, **more: str) -> httpx.Response:
    status, method, path, arguments = kind
    headers = {**arguments.get("headers", {}), **more}
    answer = await client.request(method, path, **{**arguments, "headers": headers})
    assert answer.status_code == status, (kind, answer.text)
    return answer


async def test_a_listed_origin_may_read_every_answer(editor: httpx.AsyncClient) -> None:
    for kind in KINDS:
        for origin in LISTED:
            answer = await ask(editor, kind, Origin=origin)
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"ETag", "Idempotency-Replayed", "Link", "RateLimit", "Retry-After", "X-Request-Id"} <= set(exposed)
            assert answer.headers.get_list("Access-Control-Allow-Origin") == [origin]
            assert answer.headers.get_list("Access-Control-Allow-Credentials") == ["true"]
            assert "Origin" in answer.headers["Vary"]


async def test_another_origin_is_not_told_that_there_is_a_list(accounts: Accounts, editor: httpx.AsyncClient) -> None:
    asked: Headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    for kind in KINDS:
        for origin in OTHER_ORIGINS:
            answer = await ask(editor, kind, Origin=origin)
            assert cors_headers(answer) == {}
        assert cors_headers(await ask(editor, kind)) == {}
    for origin in OTHER_ORIGINS:
        preflight = await editor.options("/chats", headers={**asked, "Origin": origin})
        assert (preflight.status_code, cors_headers(preflight)) == (405, {})
    without = accounts.client(app=await accounts.instance(cors_origins=()))
    for origin in (*LISTED, *OTHER_ORIGINS):
        preflight = await without.options("/chats", headers={**asked, "Origin": origin})
        assert cors_headers(preflight) == cors_headers(await without.get("/livez", headers={"Origin": origin})) == {}


async def test_a_listed_origin_may_send_any_method_and_header(accounts: Accounts) -> None:
    browser = accounts.client()
    wanted = "authorization,content-type,idempotency-key,if-none-match,prefer,x-api-key,x-anything"
    for path in ("/chats", "/chats/a%2Fb", "/auth/token", "/workspace/members/1", "/none"):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
            preflight = await browser.options(path, headers={"Origin": LISTED[0], **asked})
            assert preflight.status_code == 200
            found = cors_headers(preflight)
            assert found["access-control-allow-origin"] == LISTED[0]
            assert found["access-control-allow-credentials"] == "true"
            assert method in found["access-control-allow-methods"].split(", ")
            assert set(found["access-control-allow-headers"].lower().replace(" ", "").split(",")) >= set(
                wanted.split(",")
            )
            assert "ratelimit" not in preflight.headers


async def test_a_listed_origin_with_a_cookie_may_read_and_not_write(accounts: Accounts, ana: httpx.AsyncClient) -> None:
    theirs = {"Origin": LISTED[0], "Sec-Fetch-Site": "same-site"}
    assert (await ana.get("/chats/c1", headers=theirs)).status_code == 200
    assert outcome(await ana.delete("/chats/c1", headers=theirs)) == (403, "cross_site")


FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PREFLIGHT: Kind = (200, "OPTIONS", "/chats", {"headers": {"Access-Control-Request-Method": "GET"}})


async def test_every_answer_tells_browsers_to_be_careful(accounts: Accounts, editor: httpx.AsyncClient) -> None:
    http = await accounts.instance(public_base_url="http://localhost:8000")
    for number, kind in enumerate([*KINDS, PREFLIGHT]):
        answer = await ask(editor, kind, Origin=LISTED[0])
        for name, value in FIXED.items():
            assert answer.headers.get_list(name) == [value], kind
        assert answer.headers.get_list("Strict-Transport-Security") == ["max-age=31536000"]
        [policy] = answer.headers.get_list("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith("frame-ancestors 'none'")
        assert answer.headers.get_list("X-Request-Id")
        cached = "private, no-cache" if "ETag" in answer.headers else "no-store"
        assert answer.headers.get_list("Cache-Control") == [cached], kind
        if number in (0, len(KINDS)):
            plain = await ask(accounts.client(editor.headers["Authorization"][7:], http), kind, Origin=LISTED[0])
            assert "Strict-Transport-Security" not in plain.headers


async def test_the_very_first_answer_is_no_exception(accounts: Accounts) -> None:
    for path in ("/chats?token=x", "/chats?q=%ff", "/none", "/livez"):
        answer = await accounts.client(app=await accounts.instance()).get(path)
        assert {name: answer.headers.get(name) for name in FIXED} == FIXED


async def test_the_docs_page_runs_its_own_scripts_and_no_others(accounts: Accounts) -> None:
    browser = accounts.client()
    page = await browser.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "style-src": "'self' 'unsafe-inline'",
        "script-src": policy["script-src"],
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    assert policy["script-src"].split() == ["'self'", *(f"'sha256-{each}'" for each in hashes)]
    assert len(inline) == 1
    assert not re.findall(r"\son\w+=|javascript:", page.text)
    for url in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        asset = await browser.get(url)
        assert asset.status_code == 200
        # Browsers heed nosniff: the type has to be right.
        assert asset.headers["Content-Type"].partition(";")[0] in ("text/javascript", "text/css", "image/png")
