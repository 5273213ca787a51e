"""What the interface's pages may load, and whose page may use the session's cookie."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.ui.__main__ import options
from app.ui.front_door import FrontDoor
from tests.ui.conftest import UI_URL

COOKIES = b"_streamlit_xsrf=1; __Host-session=secret;__Host-session=other; last=2"


async def heard(door_url: str, scope: dict[str, Any]) -> dict[bytes, bytes]:
    """Returns the headers that get through to the pages."""
    seen: list[dict[bytes, bytes]] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]))

    async def nothing() -> Message:
        raise NotImplementedError

    async def ignore(message: Message) -> None:
        raise NotImplementedError

    await FrontDoor(inside, door_url)(scope, nothing, ignore)
    return seen[0]


@pytest.mark.parametrize(
    "origin",
    [
        b"http://localhost:9999",
        b"http://localhost",
        b"https://localhost:8501",
        b"http://127.0.0.1:8501",
        b"http://localhost:8501.evil.example",
        b"null",
        None,
    ],
)
async def test_only_our_own_page_brings_the_session(origin: bytes | None) -> None:
    headers = [(b"cookie", COOKIES), *([(b"origin", origin)] if origin else [])]
    found = await heard(UI_URL, {"type": "websocket", "headers": headers})
    assert found[b"cookie"] == b"_streamlit_xsrf=1; last=2"
    ours = [(b"cookie", COOKIES), (b"origin", UI_URL.encode())]
    assert (await heard(UI_URL, {"type": "websocket", "headers": ours}))[b"cookie"] == COOKIES


async def test_an_interface_below_a_path_has_the_origin_of_its_host() -> None:
    ours = [(b"cookie", COOKIES), (b"origin", b"https://chat.example.com")]
    found = await heard("https://chat.example.com/ui", {"type": "websocket", "headers": ours})
    assert found[b"cookie"] == COOKIES
    assert options("127.0.0.1", 8501, "https://chat.example.com/ui")["server.baseUrlPath"] == "ui"


@pytest.fixture
def interface() -> Iterator[str]:
    """The interface as it is run, without an API."""
    import subprocess
    import sys

    from app.settings import ROOT

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    command = [sys.executable, "-m", "app.ui", "127.0.0.1", str(port), "http://127.0.0.1:1", url]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            transport = httpx.HTTPTransport(retries=10)
            with httpx.Client(transport=transport) as client:
                client.get(f"{url}/_stcore/health")
            yield url
        finally:
            process.terminate()
            assert process.wait(20) in (0, -15)


def test_every_answer_carries_the_policy(interface: str) -> None:
    with httpx.Client(base_url=interface) as client:
        for path in ("/", "/conversation?id=1", "/_stcore/health", "/none.js"):
            policy = client.get(path).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-eval" not in policy
            assert "img-src 'self' data: blob:;" in policy
            scripts = policy.partition("script-src ")[2].partition(";")[0].split()
            assert scripts[0] == "'self'"
            assert all(each.startswith("'sha256-") for each in scripts[1:])
        assert client.post("/_stcore/agent/interact", json={}).status_code >= 400
        assert client.post("/_stcore/agent/interact", json={}).headers["x-frame-options"] == "DENY"
