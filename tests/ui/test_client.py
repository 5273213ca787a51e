"""The client: what it asks, what it makes of answers, and what it keeps to itself."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.client import ApiError, Client
from app.schemas.enums import Role
from tests.support.api import Workspace, message

Answers = Callable[[str], tuple[int, dict[str, str], bytes]]


@contextmanager
def answering(answers: Answers) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Runs what stands in for something between the client and the API, or for an API of another version."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, body = answers(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(asking: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asking()
    return caught.value


async def test_ids_of_any_kind_are_found_again(url: str, workspace: Workspace) -> None:
    client = Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"})
    for name in ("a/b", "a%2Fb", "?x=1#y", " é ", "../c"):
        client.send(name, "ana", "customer", "Hello")
        assert client.conversation(name)["messages"][0]["message_content"] == "Hello"
    assert len(client.conversations(q="hello", limit=100)["data"]) == 5


async def test_refusals_say_why(url: str, workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    viewer = Client(url, {"Authorization": f"Bearer {workspace.keys[Role.VIEWER]}"})
    found = refused(lambda: viewer.send("c1", "ana", "customer", "Hello"))
    assert (found.status, found.code) == (403, "forbidden")
    assert found.request_id
    assert refused(lambda: viewer.conversation("c2")).status == 404
    assert refused(lambda: viewer.conversations(limit=1_000)).parts == (
        "limit: Input should be less than or equal to 100",
    )
    assert refused(lambda: Client(url, {}).me()).status == 401
    assert str(found) == "403 forbidden"


def test_nobody_there_is_an_error_of_its_own() -> None:
    found = refused(lambda: Client("http://127.0.0.1:1", {}).me())
    assert (found.status, found.code) == (0, "unreachable")


def test_answers_of_others_are_told_by_their_status() -> None:
    def proxy(path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/auth/me":
            return 502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"
        if path == "/workspace":
            return 429, {"Retry-After": "7"}, b'{"code": "too_many_requests", "detail": "Slow down."}'
        if path == "/auth/keys":
            return 400, {}, b'{"errors": ["x", {"pointer": "/a", "detail": "b"}]}'
        if path == "/webhooks":
            return 400, {}, b'{"errors": 1}'
        return 200, {}, b"{}"

    with answering(proxy) as (url, _):
        client = Client(url, {})
        found = refused(client.me)
        assert (found.status, found.code) == (502, "unexpected")
        assert "gateway" not in found.detail
        found = refused(client.workspace)
        assert (found.status, found.code, found.retry_after_s) == (429, "too_many_requests", 7)
        assert refused(client.keys).parts == ("/a: b",)
        assert refused(client.webhooks).parts == ()
        assert refused(client.members).code == "unexpected"


def test_what_a_newer_api_tells_is_kept() -> None:
    body = b'{"id": "1", "name": "ours", "redact": true, "colour": "blue"}'
    with answering(lambda _: (200, {}, body)) as (url, _):
        found = Client(url, {}).workspace()
        assert found.name == "ours"
        assert getattr(found, "colour", None) == "blue"


def test_no_cookie_is_kept_and_nobody_is_followed_elsewhere() -> None:
    body = b'{"id": "1", "name": "ours", "redact": true}'
    with answering(lambda _: (200, {"Set-Cookie": "session=hers; Path=/"}, body)) as (url, asked):
        Client(url, {"Cookie": "mine=1"}).workspace()
        Client(url, {}).workspace()
        assert [each.get("cookie") for each in asked] == ["mine=1", None]
    with answering(lambda _: (307, {"Location": "http://127.0.0.1:1/"}, b"")) as (url, asked):
        assert refused(Client(url, {"Authorization": "Bearer x"}).workspace).status == 307
        assert len(asked) == 1
