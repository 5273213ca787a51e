"""Signing in with Google and GitHub, from the first redirect to the cookie, and what must not get that far."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psycopg
import pytest
from fastapi import Request

from app.errors import SignInFailed
from app.routes.problems import problem_page
from app.schemas.enums import Provider, Role
from app.services.sign_in import NOT_BEGUN
from app.settings import Settings
from tests.support.accounts import ANA, BASE_URL, BEN, OWN_PAGE, Accounts, Person, open_accounts, outcome
from tests.support.oauth import LEAK, failure, open_oauth_providers

FINE = (200, None)
FAILED = (400, "sign_in_failed")
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


async def begin(
    accounts: Accounts, browser: httpx.AsyncClient, person: Person = ANA, provider: Provider = Provider.GOOGLE
) -> str:
    """Begins a sign-in, agrees at the provider, and returns the URL that it sends the browser back to."""
    accounts.introduce(person)
    begun = await browser.get(f"/auth/login/{provider}")
    return accounts.providers.approve(begun.headers["Location"])


async def me(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/auth/me")).json()
    return found


def attributes(cookie: str) -> tuple[str, str, dict[str, str]]:
    """Returns a cookie's name, value and attributes."""
    first, *rest = cookie.split("; ")
    name, _, value = first.partition("=")
    return name, value, dict(part.partition("=")[::2] for part in rest)


# The way in


@pytest.mark.parametrize("provider", Provider)
async def test_first_sight_makes_a_user_with_a_workspace(accounts: Accounts, provider: Provider) -> None:
    browser = accounts.browser()
    before = datetime.now(UTC)
    answer = await accounts.come_back(browser, ANA, provider)
    assert (answer.status_code, answer.headers["Location"], answer.content) == (303, "/docs", b"")
    found = await me(browser)
    subject, issuer = {
        Provider.GOOGLE: ("g-1001", accounts.providers.google.url),
        Provider.GITHUB: ("1001", accounts.providers.github.url),
    }[provider]
    user = {"id": "1", "email": ANA.email, "name": ANA.name, "provider": provider}
    assert found["user"] == user
    assert found["workspaces"] == [{**found["workspace"], "name": "user-1", "role": "admin"}]
    assert (found["role"], found["credential"]["kind"], found["credential"]["key_id"]) == ("admin", "session", None)
    [(*known, last_login)] = accounts.rows(
        "SELECT user_id, email, name, auth_provider, issuer, provider_id, last_login FROM users"
    )
    assert known == [1, ANA.email, ANA.name, provider, issuer, subject]
    assert before < last_login <= datetime.now(UTC)
    assert accounts.rows("SELECT count(*) FROM oauth_states") == [(0,)]
    actions = accounts.rows("SELECT action, details FROM audit_log ORDER BY entry_id")
    assert actions == [("workspace.created", {}), ("member.signed_in", {"provider": provider})]


async def test_second_sight_is_the_same_user_whatever_the_address_is_by_now(accounts: Accounts) -> None:
    first = await me(await accounts.sign_in(ANA))
    married = replace(ANA, email="Ana.New@Example.com", name="Ana New")
    again = await me(await accounts.sign_in(married))
    assert again["user"] == {**first["user"], "email": "ana.new@example.com", "name": "Ana New"}
    assert again["workspaces"] == first["workspaces"]
    assert again["credential"] == first["credential"]


async def test_the_same_address_elsewhere_is_another_user(accounts: Accounts) -> None:
    google = await me(await accounts.sign_in(ANA))
    stranger = await me(await accounts.sign_in(replace(ANA, number=1)))
    github = await me(await accounts.sign_in(ANA, Provider.GITHUB))
    async with open_oauth_providers(BASE_URL) as others:
        app = await accounts.instance(**others.settings)
        browser = accounts.browser(app)
        others.google.sign_in_as(f"g-{ANA.number}", ANA.email)
        begun = await browser.get("/auth/login/google")
        assert (await browser.get(others.approve(begun.headers["Location"]))).status_code == 303
        other_issuer = await me(browser)
    found = (google, stranger, github, other_issuer)
    assert {each["user"]["email"] for each in found} == {ANA.email}
    assert len({each["user"]["id"] for each in found}) == len({each["workspace"]["id"] for each in found}) == 4


async def test_the_cookies_are_exactly_these(accounts: Accounts) -> None:
    browser = accounts.browser()
    begun = await browser.get("/auth/login/google")
    [sign_in_cookie] = begun.headers.get_list("Set-Cookie")
    name, value, how = attributes(sign_in_cookie)
    common = {"HttpOnly": "", "Secure": "", "SameSite": "lax", "Path": "/"}
    assert (name, how) == ("__Host-sign-in", {**common, "Max-Age": "600"})
    assert re.fullmatch(r"[\w-]{43}", value)
    accounts.introduce(ANA)
    answer = await browser.get(accounts.providers.approve(begun.headers["Location"]))
    [session] = [attributes(each) for each in answer.headers.get_list("Set-Cookie")]
    assert (session[0], session[2]) == ("__Host-session", {**common, "Max-Age": str(14 * 86_400)})
    assert re.fullmatch(r"cs_[a-z2-7]{64}", session[1])
    for each in (begun, answer):
        assert each.headers["Cache-Control"] == "no-store"
        assert "Domain" not in str(each.headers.get_list("Set-Cookie"))
    kept = accounts.rows("SELECT row_to_json(sessions)::text FROM sessions")
    assert session[1] not in str(kept)


async def test_a_person_who_comes_twice_at_once_for_the_first_time_is_one_user(accounts: Accounts) -> None:
    for n in range(5):
        person = Person(4_000 + n, f"new{n}@example.com")
        browsers = [accounts.browser() for _ in range(3)]
        urls = [await begin(accounts, browser, person) for browser in browsers]
        pairs = zip(browsers, urls, strict=True)
        answers = await asyncio.gather(*(browser.get(url) for browser, url in pairs))
        assert [each.status_code for each in answers] == [303] * 3
        found = [await me(browser) for browser in browsers]
        assert len({each["user"]["id"] for each in found}) == len({each["workspace"]["id"] for each in found}) == 1
        assert {len(each["workspaces"]) for each in found} == {1}


# What belongs together


async def test_a_sign_in_is_finished_once(accounts: Accounts) -> None:
    for _ in range(5):
        browser = accounts.browser()
        url = await begin(accounts, browser)
        others = [accounts.browser(of=browser) for _ in range(2)]
        answers = await asyncio.gather(*(each.get(url) for each in (browser, *others)))
        assert sorted(outcome(each) for each in answers) == [(303, None), FAILED, FAILED]
        assert outcome(await browser.get(url)) == FAILED
    assert accounts.rows("SELECT count(*) FROM sessions") == [(5,)]


async def test_a_sign_in_belongs_to_the_browser_that_began_it(accounts: Accounts) -> None:
    attacker, victim = accounts.browser(), accounts.browser()
    await begin(accounts, victim, BEN)
    for thief in (victim, accounts.browser(), accounts.client(headers={"Cookie": "__Host-sign-in=" + "A" * 43})):
        url = await begin(accounts, attacker)
        answer = await thief.get(url)
        assert outcome(answer) == FAILED
        assert answer.json()["detail"].startswith(NOT_BEGUN)
        assert "__Host-session" not in thief.cookies
        assert outcome(await attacker.get(url)) == FAILED, "and it is over now"
    assert accounts.rows("SELECT count(*) FROM users") == [(0,)]


async def test_a_sign_in_belongs_to_its_provider(accounts: Accounts) -> None:
    for began, ended in ((Provider.GOOGLE, Provider.GITHUB), (Provider.GITHUB, Provider.GOOGLE)):
        browser = accounts.browser()
        url = await begin(accounts, browser, ANA, began)
        assert outcome(await browser.get(url.replace(f"/{began}?", f"/{ended}?"))) == FAILED
    assert accounts.providers.google.asked("token") == accounts.providers.github.asked("token") == 0


async def test_a_sign_in_takes_ten_minutes_at_most(accounts: Accounts) -> None:
    for seconds, expected in ((600, FAILED), (590, (303, None))):
        browser = accounts.browser()
        url = await begin(accounts, browser)
        accounts.change("UPDATE oauth_states SET expires_at = expires_at - make_interval(secs => %s)", seconds)
        assert outcome(await browser.get(url)) == expected
    [(_,)] = accounts.rows("SELECT count(*) FROM oauth_states")
    await begin(accounts, accounts.browser())
    accounts.change("UPDATE oauth_states SET expires_at = now() - interval '1 second'")
    await begin(accounts, accounts.browser())
    assert accounts.rows("SELECT count(*) FROM oauth_states") == [(1,)], "those that took too long are cleared away"


async def test_sign_ins_in_several_tabs_all_end_well(accounts: Accounts) -> None:
    browser = accounts.browser()
    urls = [await begin(accounts, browser, ANA, provider) for provider in (*Provider, *Provider)]
    assert [(await browser.get(url)).status_code for url in urls] == [303] * 4


async def test_a_callback_that_says_no_or_nothing_fails(accounts: Accounts) -> None:
    async def answer(change: Any) -> httpx.Response:
        browser = accounts.browser()
        url = httpx.URL(await begin(accounts, browser))
        return await browser.get(str(url).partition("?")[0], params=change(dict(url.params)))

    without = [
        lambda p: {"error": "access_denied", "state": p["state"]},
        lambda p: {**p, "error": "access_denied"},
        lambda p: {**p, "error": "<script>", "error_description": LEAK},
        lambda p: {"state": p["state"]},
        lambda p: {"code": p["code"]},
        lambda p: {},
        lambda p: {**p, "code": ""},
        lambda p: {**p, "code": "x" * 4_096},
        lambda p: {**p, "code": p["code"][::-1]},
        lambda p: {**p, "state": ""},
        lambda p: {**p, "state": p["state"][:-1]},
        lambda p: {**p, "state": p["state"] + "A"},
        lambda p: {**p, "state": p["state"].swapcase()},
        lambda p: {**p, "state": "é\u2028😀" * 50},
    ]
    for n, change in enumerate(without):
        failed = await answer(change)
        assert outcome(failed) == FAILED, n
        assert LEAK not in failed.text
        assert "script" not in failed.text
        assert "Set-Cookie" not in failed.headers
    for change in (lambda p: {**p, "code": "x" * 4_097}, lambda p: {**p, "state": "a\0b"}):
        assert outcome(await answer(change)) == (422, "invalid")
    assert outcome(await answer(lambda p: {**p, "scope": "email", "authuser": "0", "prompt": "none"})) == (303, None)
    assert len(accounts.rows("SELECT 1 FROM users")) == 1


async def test_a_person_who_declines_is_told_so(accounts: Accounts) -> None:
    for provider in Provider:
        browser = accounts.browser()
        begun = await browser.get(f"/auth/login/{provider}")
        denied = await browser.get(accounts.providers.deny(begun.headers["Location"]))
        assert outcome(denied) == FAILED
        assert "called it off" in denied.json()["detail"]


# Where it goes


GOOD_NEXT = [
    *("/", "/docs", "/a/b/c", "/docs#tag/chats", "/chats?limit=1&q=a%20b", "/a//b", "/%2F%2Fevil.example", "/x:y@z"),
    *(
        "/.well-known",
        "/docs?next=https://evil.example",
        "/-",
        "/" + "a" * 1_999,
        "/%0d%0aSet-Cookie:%20x=1",
        "/%5cevil",
    ),
]
BAD_NEXT = [
    *(
        "",
        "docs",
        "evil.example",
        "//evil.example",
        "///evil.example",
        "////",
        "//",
        r"/\evil.example",
        r"\\evil.example",
    ),
    *(
        r"/\/evil.example",
        r"\/evil.example",
        "/a\\b",
        "https://evil.example",
        "https:evil.example",
        "https:/evil.example",
    ),
    *("javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "http://chat.example.com/docs", BASE_URL),
    *(
        "/\tevil",
        "/\t/evil.example",
        "\t//evil.example",
        "/\n/evil.example",
        "/\r\n/evil",
        "/a\r\nSet-Cookie: x=1",
        "/a b",
    ),
    *(
        " /docs",
        "/docs ",
        "/docs\n",
        "/\x00",
        "/\x7f",
        "/é",
        "/\u2028",
        "/／evil.example",
        "／／evil.example",
        "/\ud83d\ude00",
    ),
    *(
        "/" + "a" * 2_000,
        "\\",
        "?next=/docs",
        "#",
        "@evil.example",
        "../evil",
        "./evil",
        ":",
        "%2F%2Fevil.example",
        "null",
    ),
]


async def test_afterwards_the_browser_goes_to_a_page_of_this_service_and_nowhere_else(accounts: Accounts) -> None:
    for path in GOOD_NEXT:
        answer = await accounts.come_back(accounts.browser(), ANA, next=path)
        location = answer.headers["Location"]
        assert location == path
        assert urlsplit(str(httpx.URL(BASE_URL).join(location)))[:2] == ("https", "chat.example.com")
        assert "x" not in answer.cookies
    browser = accounts.browser()
    for path in BAD_NEXT:
        begun = await browser.get(
            "/auth/login/google", params={"next": path.encode("utf-8", "surrogatepass").decode("utf-8", "replace")}
        )
        assert outcome(begun) == (422, "invalid"), ascii(path)
        assert begun.json()["errors"][0]["pointer"] == "next"
    for raw in ("%2F%2Fevil.example", "%2F%5Cevil.example", "/%09/evil.example%0a", "%2f%09%2fevil.example"):
        assert outcome(await browser.get(f"/auth/login/google?next={raw}")) == (422, "invalid"), raw
    for raw in ("next=/a&next=//evil.example", "next=/%ff", "next=/%ed%a0%80"):
        assert outcome(await browser.get(f"/auth/login/google?{raw}")) == (400, "malformed"), raw
    assert list(browser.cookies) == []


async def test_the_provider_is_told_the_configured_address_whatever_the_request_says(accounts: Accounts) -> None:
    headers = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "host=evil.example;proto=http",
        "X-Original-URL": "https://evil.example/",
        "Origin": "https://evil.example",
        "Referer": "https://evil.example/",
    }
    proxied = await accounts.instance(trusted_proxies=("127.0.0.1",))
    for app in (accounts.app, proxied):
        for provider in Provider:
            begun = await accounts.client(app=app, headers=headers).get(f"/auth/login/{provider}")
            query = parse_qs(urlsplit(begun.headers["Location"]).query)
            assert query["redirect_uri"] == [f"{BASE_URL}/auth/callback/{provider}"]
            assert "evil" not in str(begun.headers)
    accounts.introduce(ANA)
    browser = accounts.browser()
    begun = await browser.get("/auth/login/google")
    back = httpx.URL(accounts.providers.approve(begun.headers["Location"]))
    answer = await browser.get(back.raw_path.decode(), headers=headers)
    assert outcome(answer) == (303, None)
    [exchange] = [each.form for each in accounts.providers.google.requests if each.path.endswith("/token")]
    assert exchange["redirect_uri"] == f"{BASE_URL}/auth/callback/google"
    assert answer.headers["Location"] == "/docs"


async def test_a_provider_that_is_not_set_up_is_absent(accounts: Accounts) -> None:
    nothing = {f"{provider}_client_{part}": None for provider in Provider for part in ("id", "secret")}
    client = accounts.client(app=await accounts.instance(**nothing))
    for provider in Provider:
        for path in (f"/auth/login/{provider}", f"/auth/callback/{provider}?code=x&state=y"):
            assert outcome(await client.get(path)) == (404, "not_found")
    for name in ("facebook", "Google", "", "google/x", "%67oogle"):
        answer = await accounts.client().get(f"/auth/login/{name}")
        assert answer.status_code in (404, 422), name


async def test_a_provider_that_is_down_is_worth_another_try(accounts: Accounts) -> None:
    browser = accounts.browser()
    url = await begin(accounts, browser)
    accounts.providers.google.fail(failure())
    answer = await browser.get(url)
    assert outcome(answer) == (503, "provider_unavailable")
    assert "Retry-After" in answer.headers
    assert LEAK not in answer.text
    accounts.providers.google.replies.clear()
    assert (await accounts.come_back(browser, ANA)).status_code == 303


# Which workspace


async def test_the_wanted_workspace_is_the_one_that_is_signed_in_to(accounts: Accounts) -> None:
    own = await me(await accounts.sign_in(ANA))
    ben = await accounts.sign_in(BEN)
    bens = await me(ben)
    await ben.post("/workspace/members", json={"email": ANA.email, "role": "viewer"})
    await accounts.sign_in(ANA, workspace_id=bens["workspace"]["id"])
    oldest = await me(await accounts.sign_in(ANA))
    assert oldest["workspace"]["id"] == own["workspace"]["id"], "whoever invited them since"
    for each, role in ((own, "admin"), (bens, "viewer")):
        found = await me(await accounts.sign_in(ANA, workspace_id=each["workspace"]["id"]))
        assert (found["workspace"]["id"], found["role"]) == (each["workspace"]["id"], role)
        assert sorted(every["role"] for every in found["workspaces"]) == ["admin", "viewer"]


async def test_a_workspace_of_others_is_not_signed_in_to_nor_told_from_an_absent_one(accounts: Accounts) -> None:
    theirs = (await me(await accounts.sign_in(BEN)))["workspace"]["id"]
    answers = set()
    for wanted in (theirs, "1", "0", "-1", "x", "9" * 30, "", "%00", "٣"):
        browser = accounts.browser()
        answer = await accounts.come_back(browser, ANA, workspace_id=wanted)
        assert outcome(answer) == (403, "forbidden"), wanted
        assert browser.cookies.get("__Host-session") is None
        answers.add(answer.json()["detail"])
    assert len(answers) == 1
    assert accounts.rows("SELECT email FROM users") == [(BEN.email,)], "nothing was made"
    assert accounts.rows("SELECT count(*) FROM sessions") == [(1,)]


async def test_a_first_sign_in_by_invitation_can_ask_for_that_workspace(accounts: Accounts) -> None:
    ben = await accounts.sign_in(BEN)
    theirs = (await me(ben))["workspace"]["id"]
    await ben.post("/workspace/members", json={"email": ANA.email, "role": "editor"})
    found = await me(await accounts.sign_in(ANA, workspace_id=theirs))
    assert (found["workspace"]["id"], found["role"], len(found["workspaces"])) == (theirs, "editor", 1)


# What people see


async def test_a_browser_is_shown_a_page_and_a_program_a_document(accounts: Accounts) -> None:
    unconfigured = await accounts.instance(google_client_id=None, google_client_secret=None)

    async def failed(headers: dict[str, str]) -> list[httpx.Response]:
        return [
            await accounts.client(headers=headers).get("/auth/callback/google", params={"state": "<b>", "code": "<i>"}),
            await accounts.client(app=unconfigured, headers=headers).get("/auth/login/google"),
            await accounts.come_back(accounts.client(headers={**headers, **OWN_PAGE}), ANA, workspace_id="1"),
        ]

    pages, documents = await failed(HTML), await failed({"Accept": "application/json"})
    for page, document in zip(pages, documents, strict=True):
        body = document.json()
        assert page.status_code == document.status_code == body["status"]
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        assert page.headers["Content-Security-Policy"] == policy
        assert (page.headers["X-Frame-Options"], page.headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
        assert page.headers["Cache-Control"] == "no-store"
        for shown in (body["title"], body["detail"], body["code"], page.headers["X-Request-Id"]):
            assert shown in page.text
        for never in ("<b>", "<i>", "<script", "http://", "https://", " on", "javascript"):
            assert never not in re.sub(r"(?s)<style>.*</style>", "", page.text).replace(body["detail"], "")
        assert int(page.headers["Content-Length"]) == len(page.content)
    for accept in ("*/*", "application/problem+json", "", "text/*"):
        answer = (await failed({"Accept": accept}))[0]
        assert answer.headers["Content-Type"] == "application/problem+json"
    hostile = await accounts.client(headers={**HTML, "X-Request-Id": "<script>"}).get("/auth/callback/google")
    assert "<script>" not in hostile.text


def test_a_page_shows_text_and_never_markup() -> None:
    scope = {"type": "http", "headers": [(b"accept", b"text/html")], "state": {"request_id": "<i>"}}
    page = bytes(problem_page(SignInFailed("<b onclick=\"x\">'&'</b> {title}"), Request(scope)).body).decode()
    assert "&lt;b onclick=&quot;x&quot;&gt;&#x27;&amp;&#x27;&lt;/b&gt; {title}" in page
    assert "&lt;i&gt;" in page


async def test_a_name_is_shown_as_it_is_and_does_no_harm(accounts: Accounts) -> None:
    names = ["<script>alert(1)</script>", "Ana 🌷", "a\u202eb", "'; DROP TABLE users; --", "\x00\x07 bell", "x" * 500]
    for n, name in enumerate(names):
        found = await me(await accounts.sign_in(Person(5_000 + n, f"n{n}@example.com", name)))
        assert found["user"]["name"] == name.replace("\x00", "").replace("\x07", "").strip()[:255]
    for provider, nameless in ((Provider.GOOGLE, ""), (Provider.GITHUB, " \t")):
        found = await me(await accounts.sign_in(Person(5_100, "n@example.com", nameless), provider))
        assert found["user"]["name"] is None


async def test_members_keep_their_session_when_they_sign_in_elsewhere(accounts: Accounts) -> None:
    first, second = await accounts.sign_in(ANA), await accounts.sign_in(ANA)
    assert first.cookies["__Host-session"] != second.cookies["__Host-session"]
    await second.post("/auth/logout")
    assert outcome(await accounts.browser(await accounts.instance(), of=first).get("/auth/me")) == FINE
    [(session,)] = accounts.rows("SELECT expires_at - created_at FROM sessions")
    assert abs(session - timedelta(days=14)) < timedelta(seconds=10)


async def test_a_signed_in_browser_works_by_its_cookie_on_pages_of_this_service(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    cookie = {"Cookie": f"__Host-session={ana.cookies['__Host-session']}"}
    body = {"name": "by cookie", "role": Role.VIEWER}
    for headers, expected in ((OWN_PAGE, (201, None)), ({}, (403, "cross_site")), ({"Origin": BASE_URL}, (201, None))):
        answer = await accounts.client(headers={**cookie, **headers}).post("/auth/keys", json=body)
        assert outcome(answer) == expected
    assert len((await ana.get("/auth/keys")).json()["data"]) == 2
    twice = await accounts.client("wrong", headers=cookie).get("/auth/me")
    assert outcome(twice) == (401, "unauthenticated"), "what is sent on purpose counts"
    for crumb in (quote(cookie["Cookie"], safe="=-_"), cookie["Cookie"].replace("__Host-", "__Secure-")):
        expected_status = 200 if crumb == cookie["Cookie"] else 401
        assert (await accounts.client(headers={"Cookie": crumb}).get("/auth/me")).status_code == expected_status


# The interface


async def test_the_interface_is_where_a_sign_in_may_end(accounts: Accounts) -> None:
    browser = accounts.browser()
    answer = await accounts.come_back(browser, ANA, Provider.GOOGLE, next="/ui")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ui")
    for path in ("/ui", "/ui?next=https://evil.example", "/ui?url=//evil.example"):
        answer = await browser.get(path, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "http://localhost:8501")
    for path in ("/ui/", "/ui//evil.example", "/ui/%2F%2Fevil.example"):
        assert (await browser.get(path)).status_code == 404


async def test_the_providers_that_are_set_up_are_told(accounts: Accounts) -> None:
    answer = await accounts.browser().get("/auth/providers")
    assert answer.status_code == 200
    assert answer.json() == {
        "data": [{"provider": name, "login_url": f"{BASE_URL}/auth/login/{name}"} for name in ("google", "github")]
    }
