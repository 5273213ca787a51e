"""Everybody at the door of the live sockets, which the OpenAPI document does not know."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from app.schemas.enums import Role
from app.security.tokens import ACCESS_LIFETIME, TokenSigner
from app.settings import Settings, secret_keys
from tests.house.principals import FOREIGN_PAGE, OWN_PAGE, House, Principal, everybody, parsed, session, strangers
from tests.support.live import Document, bearer, following, refused
from tests.support.server import running_server

LISTED = "https://listed.example"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"cors_origins": (LISTED,)})


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running_server(settings) as running:
        yield running


def headers_of(principal: Principal, own: str) -> dict[str, str]:
    """Returns what a browser or a program sends with a handshake; of a page it is the origin."""
    headers = {name: value for name, value in principal.headers.items() if name != "Sec-Fetch-Site"}
    return {"Origin": own, **headers} if principal.proves_origin else headers


def refusal(principal: Principal) -> tuple[int, str] | None:
    """Returns how somebody must be refused; None if not."""
    if FOREIGN_PAGE.items() <= principal.headers.items() or (principal.by_cookie and not principal.proves_origin):
        return 403, "cross_site"
    return (401, "unauthenticated") if principal.role is None else None


async def test_everybody_follows_or_is_refused_as_they_should_be(house: House, url: str, settings: Settings) -> None:
    wrong = []
    met = set()
    for principal in await everybody(house):
        headers, expected = headers_of(principal, settings.base_url), refusal(principal)
        met.add(expected)
        if expected is None:
            async with following(url, headers, "order-1042") as opened:
                if (await opened.next())["type"] != "snapshot":
                    wrong.append(principal.name)
        else:
            status, document = await refused(url, headers, "order-1042")
            if (status, document["code"]) != expected:
                wrong.append(f"{principal.name}: {status} {document['code']}")
    assert wrong == []
    assert met == {None, (401, "unauthenticated"), (403, "cross_site")}


async def test_what_is_anothers_is_answered_as_what_is_not_there(house: House, url: str, settings: Settings) -> None:
    for principal in await strangers(house):
        headers = headers_of(principal, settings.base_url)
        answers = [await refused(url, headers, id) for id in ("order-1042", "order-9999")]
        assert answers[0] == answers[1], principal.name
        assert answers[0][0] == 404
    status, document = await refused(url, house.admin, "." * 256)
    assert (status, document["code"]) == (422, "invalid")


async def test_a_page_shows_a_token_as_a_subprotocol(house: House, url: str, settings: Settings) -> None:
    token = (await house.exchange(house.admin)).access
    key = house.admin["Authorization"].removeprefix("Bearer ")
    for origin in (settings.base_url, LISTED):
        async with following(url, {"Origin": origin}, "order-1042", ["bearer", token]) as opened:
            assert opened.socket.subprotocol == "bearer"
            assert (await opened.next())["type"] == "snapshot"
    for offered in (["bearer"], [token, "bearer"], ["bearer", key], ["bearer", token[:-4]], ["x", token]):
        status, document = await refused(url, {"Origin": LISTED}, "order-1042", offered)
        assert (status, document["code"]) == (401, "unauthenticated"), offered
    for origin in ("https://evil.example", "null", f"{LISTED}.evil.example"):
        for headers in ({}, house.admin):
            status, document = await refused(url, {"Origin": origin, **headers}, "order-1042", ["bearer", token])
            assert (status, document["code"]) == (403, "cross_site")


async def test_a_listed_page_may_not_use_the_cookie(house: House, url: str) -> None:
    shown, _ = await house.member("somebody", Role.ADMIN)
    assert (await refused(url, {**shown, **OWN_PAGE, "Origin": LISTED}, "order-1042"))[1]["code"] == "cross_site"


async def test_a_token_ends_by_itself_and_its_socket_with_it(
    house: House, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.live.WATCH_S", 0.05)
    key = house.admin["Authorization"].removeprefix("Bearer ")
    shown = session((await house.exchange(house.admin)).access), f"key:{parsed(key)}", "jti"
    almost_over = datetime.now(UTC) - ACCESS_LIFETIME + timedelta(seconds=2)
    token = TokenSigner(secret_keys(settings)).access(*shown, almost_over)
    async with following(url, bearer(token), "order-1042") as opened:
        assert (await opened.next())["type"] == "snapshot"
        assert await opened.closed() == 1008


async def test_ended_sessions_and_removed_members_lose_their_sockets(
    house: House, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.live.WATCH_S", 0.05)
    for end in ("sign out", "removal", "expiry"):
        shown, id = await house.member(end.replace(" ", "-"), Role.ADMIN)
        page = {**shown, **OWN_PAGE}
        async with following(url, {**shown, "Origin": settings.base_url}, "order-1042") as opened:
            await opened.next()
            if end == "sign out":
                await house.act("POST", "/auth/logout", page)
            elif end == "removal":
                await house.act("DELETE", f"/workspace/members/{id}")
            else:
                house.database.execute("UPDATE sessions SET expires_at = now() - interval '1 minute'")
            assert await opened.closed() == 1008
        house.database.execute("UPDATE sessions SET expires_at = now() + interval '1 day'")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (b"/ws/chats", 404, "not_found"),
        (b"/ws/chats/a/b", 404, "not_found"),
        (b"/chats/order-1042", 404, "not_found"),
        (b"/ws/chats/%ff", 422, "invalid"),
        (b"/ws/chats/order-1042?token=x", 400, "credential_in_url"),
        (b"/ws/chats/\xff", 400, None),
    ],
)
async def test_a_handshake_for_nothing_is_answered_like_a_request(
    house: House, url: str, target: bytes, status: int, code: str | None
) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(head % target + key + f"Authorization: {house.admin['Authorization']}\r\n\r\n".encode())
    answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    if code:
        document: Document = json.loads(body)
        assert document["code"] == code
        assert f"x-request-id: {document['request_id']}".encode() in answer.lower()
        assert b"application/problem+json" in answer
