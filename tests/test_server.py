"""What a client may do to the server before its request is whole: long headers, slow ones, bodies that stop."""

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
import uvicorn

from app import protocols
from app.protocols import HEADER_BYTES
from app.schemas.enums import Role
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.process import serving
from tests.support.server import running_server

JSON_POST = b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SOON = 0.4
LATE = 3600.0


@pytest.fixture
def url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose patience a test lowers."""
    monkeypatch.setattr(protocols, "HEADER_S", LATE)
    monkeypatch.setattr(protocols, "BODY_S", LATE)
    with running_server(settings) as running:
        yield running


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20) as opened:
        yield opened


def post(workspace: Workspace, media: str, body: bytes, more: str = "") -> bytes:
    """Returns an editor's request to store messages."""
    key = workspace.keys[Role.EDITOR]
    head = f"POST /chats HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: {media}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def rest(opened: socket.socket) -> bytes:
    """Returns what comes until the server closes the connection."""
    parts = []
    try:
        while part := opened.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answer(opened: socket.socket) -> bytes:
    """Returns an answer that has a body of known length, and leaves what follows."""
    got = b""

    def take(size: int) -> bytes:
        part = opened.recv(size)
        assert part, f"cut off after {got!r}"
        return part

    while not got.endswith(b"\r\n\r\n"):
        got += take(1)
    end = len(got) + int(got.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(got) < end:
        got += take(end - len(got))
    return got


def test_headers_without_end_are_refused_and_long_bodies_are_not(url: str) -> None:
    with connection(url) as opened:
        opened.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with pytest.raises(OSError):  # the server closes the connection
            opened.sendall(b"x" * HEADER_BYTES * 1_000)
    with connection(url) as opened:
        for _ in range(2):
            body = b"x" * HEADER_BYTES * 20
            head = f"POST /chats HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nContent-Type: text/csv\r\n\r\n"
            opened.sendall(head.encode() + body)
            assert answer(opened).startswith(b"HTTP/1.1 401")


CHUNKED = JSON_POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(("begin", "go_on"), [(b"0\r\n", b"X-Trailer: x\r\n"), (b"1;", b"x" * 15)])
def test_what_follows_a_body_is_bounded_too(url: str, begin: bytes, go_on: bytes) -> None:
    with connection(url) as opened:
        opened.sendall(CHUNKED + begin)
        with pytest.raises(OSError):
            opened.sendall(go_on * HEADER_BYTES * 100)


def test_trailers_are_no_headers(url: str) -> None:
    with connection(url) as opened:
        opened.sendall(CHUNKED + b"0\r\nX-API-Key: x\r\nContent-Type: text/csv\r\nX-Request-Id: forged\r\n\r\n" + GET)
        first = answer(opened)
        assert first.startswith(b"HTTP/1.1 401")
        assert b"forged" not in first
        assert answer(opened).startswith(b"HTTP/1.1 200")


HALF = {
    "nothing at all": b"",
    "half a line": b"GET /liv",
    "half the headers": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ",
    "no end of the headers": b"GET /livez HTTP/1.1\r\nHost: x\r\n",
}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_headers_that_do_not_end_are_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch, half: bytes, before: bytes
) -> None:
    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    with connection(url) as opened:
        if before:
            opened.sendall(before)
            assert answer(opened).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        opened.sendall(half)
        said = rest(opened)
        assert said.startswith(b"HTTP/1.1 400") if half else said == b""
        assert b"The request took too long to come." in said or not half
        assert time.monotonic() - began < 10


def test_headers_that_drip_have_no_more_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    began = time.monotonic()
    with connection(url) as opened:
        opened.settimeout(0.02)
        opened.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        said = b""
        while not said:
            try:
                said = opened.recv(4_096)
            except TimeoutError:
                opened.sendall(b"x")
        assert said.startswith(b"HTTP/1.1 400")
        assert SOON / 2 < time.monotonic() - began < 10  # the event loop reads its clock once a round


BODIES = {
    "no body": b"Content-Length: 10\r\n\r\n",
    "half a body": b"Content-Length: 10\r\n\r\n{",
    "no end of the chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "no end of the trailers": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: x",
    "it was asked for": b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("half", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_a_body_that_stops_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch, half: bytes, before: bytes
) -> None:
    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    monkeypatch.setattr(protocols, "BODY_S", SOON)
    with connection(url) as opened:
        if before:
            opened.sendall(before)
            assert answer(opened).startswith(b"HTTP/1.1 200")
        opened.sendall(JSON_POST + half)
        said = rest(opened).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 400")
        assert said.count(b"HTTP/1.1") == 1


def test_a_body_that_goes_on_has_all_the_time_it_needs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "BODY_S", 2.0)
    body = b'{"api_key": 1}'
    with connection(url) as opened:
        opened.sendall(JSON_POST + f"Content-Length: {len(body)}\r\n\r\n".encode())
        for place in range(len(body)):  # longer in all than the server is patient
            opened.sendall(body[place : place + 1])
            if place < len(body) - 1:
                assert not select.select([opened], [], [], 0.2)[0]
        assert answer(opened).startswith(b"HTTP/1.1 422")


def test_nobody_is_cut_off_while_the_service_is_slow(
    url: str, monkeypatch: pytest.MonkeyPatch, postgresql: psycopg.Connection, workspace: Workspace
) -> None:
    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    monkeypatch.setattr(protocols, "BODY_S", SOON)
    one = json.dumps(message()).encode()
    rows = [message("c2", f"m{number}") for number in range(2_000)]
    # What the service waits to store, what it reads meanwhile, and then more blank lines than the network holds.
    many = b"".join(json.dumps(row).encode() + b"\n" for row in rows) + (b" " * 2**16 + b"\n") * 400
    postgresql.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
    with connection(url) as first, connection(url) as second, ThreadPoolExecutor() as threads:
        first.sendall(post(workspace, "application/json", one))
        sending = threads.submit(second.sendall, post(workspace, "application/x-ndjson", many))
        assert not select.select([first, second], [], [], 4 * SOON)[0]
        assert not sending.done()
        postgresql.rollback()
        assert answer(first).startswith(b"HTTP/1.1 201")
        assert b'"stored":2000' in answer(second)


def test_requests_sent_ahead_are_answered_in_their_order(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    with connection(url) as opened:
        opened.sendall(GET + b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"GET /li")
        said = rest(opened)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_an_answer_that_came_early_is_the_only_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "BODY_S", SOON)
    with connection(url) as opened:
        opened.sendall(b"POST /chats HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 10\r\n\r\nx")
        said = rest(opened)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"401"]


def test_an_offer_of_another_protocol_is_passed_over(url: str) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    with connection(url) as opened:
        opened.sendall(GET.replace(b"\r\n\r\n", b"\r\n" + offer + b"\r\n"))
        assert answer(opened).startswith(b"HTTP/1.1 200")
    with connection(url) as opened:
        opened.sendall(JSON_POST + offer + b"Content-Length: 2\r\n\r\n{}")
        assert answer(opened).startswith(b"HTTP/1.1 401")


class Echo(asyncio.Protocol):
    """Stands in for WebSocket: agrees, and says what it hears."""

    def __init__(self, **_: object) -> None:
        self._said = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._said or data)
        self._said = b""


def test_a_connection_that_became_another_protocol_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(protocols, "HEADER_S", SOON)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(nothing, http=protocols.BoundedProtocol, ws=Echo, lifespan="off", log_config=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    try:
        with connection(f"http://127.0.0.1:{listener.getsockname()[1]}") as opened:
            opened.sendall(upgrade)
            assert opened.recv(4_096).startswith(b"HTTP/1.1 101")
            assert not select.select([opened], [], [], 3 * SOON)[0]
            opened.sendall(b"still there")
            assert opened.recv(4_096) == b"still there"
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


@pytest.mark.parametrize("end", ["stops", "is cut"])
def test_a_stream_that_ends_early_frees_its_idempotency_key(
    url: str, monkeypatch: pytest.MonkeyPatch, workspace: Workspace, end: str
) -> None:
    monkeypatch.setattr(protocols, "BODY_S", SOON)
    nameless = {name: value for name, value in message().items() if name != "message_id"}
    body = (json.dumps(nameless).encode() + b"\n") * 2_500
    whole = post(workspace, "application/x-ndjson", body, "Idempotency-Key: k1\r\n")
    with connection(url) as opened:
        opened.sendall(whole[:-1_000])
        with httpx.Client(base_url=url, headers={"X-API-Key": workspace.keys[Role.VIEWER]}) as client:
            while client.get("/chats/c1").is_error:
                pass  # until some of it is stored
        if end == "stops":
            assert rest(opened).startswith(b"HTTP/1.1 400")
    said = b"HTTP/1.1 409"
    while said.startswith(b"HTTP/1.1 409"):  # the server learns of the end a little later
        with connection(url) as opened:
            opened.sendall(whole)
            said = answer(opened)
    told = json.loads(said.partition(b"\r\n\r\n")[2])
    assert told["stored"] + told["duplicates"] == 2_500
    assert told["duplicates"] >= 1_000
    with httpx.Client(base_url=url, headers={"X-API-Key": workspace.keys[Role.VIEWER]}) as client:
        assert client.get("/chats/c1").json()["message_count"] == 2_500


def test_the_real_server_believes_no_proxy_and_does_not_say_what_it_is(settings: Settings) -> None:
    with serving(settings, RATE_LIMIT_ADDRESS="2/day") as running, httpx.Client(base_url=running.url) as client:
        answers = [client.get("/chats", headers={"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(3)]
        assert [each.status_code for each in answers] == [401, 401, 429]
        assert all("server" not in each.headers for each in answers)


def test_the_real_server_believes_the_proxies_it_is_told_of(settings: Settings) -> None:
    more = {"RATE_LIMIT_ADDRESS": "2/day", "TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1"}
    with serving(settings, **more) as running, httpx.Client(base_url=running.url) as client:
        answers = [client.get("/chats", headers={"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(3)]
        assert [each.status_code for each in answers] == [401, 401, 401]


def test_several_processes_serve_within_the_same_bounds(settings: Settings) -> None:
    with serving(settings, WEB_CONCURRENCY="2", SHUTDOWN_DELAY_S="0") as running:
        transport = httpx.HTTPTransport(retries=10)  # it listens soon after
        with httpx.Client(base_url=running.url, transport=transport, timeout=60) as client:
            assert client.get("/readyz").json()["status"] == "ok"
        with socket.create_connection(("127.0.0.1", cast("int", urlsplit(running.url).port))) as opened:
            opened.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
            with pytest.raises(OSError):  # the server closes the connection
                opened.sendall(b"x" * HEADER_BYTES * 1_000)
        serve = [each for each in psutil.Process(running.process.pid).children() if "spawn_main" in str(each.cmdline())]
        assert len(serve) == 2
        running.process.terminate()
        assert psutil.wait_procs([psutil.Process(running.process.pid), *serve], timeout=60)[1] == []
