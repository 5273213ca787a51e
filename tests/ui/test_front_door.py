"""What the interface's pages may load, and whose page may use the session's cookie."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from starlette.types import Message, Receive, Scope, Send
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from app.schemas.enums import Role
from app.settings import ROOT
from app.ui import uploads
from app.ui.__main__ import options
from app.ui.front_door import FrontDoor
from tests.support.canaries import MASTER_KEY
from tests.ui.conftest import UI_URL, Visits

COOKIES = b"_streamlit_xsrf=1; __Host-session=secret;__Host-session=other; last=2"


async def heard(door_url: str, scope: dict[str, Any]) -> dict[bytes, bytes] | None:
    """Returns the headers that get through to the pages, or None if the socket is refused."""
    seen: list[dict[bytes, bytes]] = []
    refused: list[Message] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]))

    async def nothing() -> Message:
        raise NotImplementedError

    async def note(message: Message) -> None:
        refused.append(message)

    await FrontDoor(inside, door_url)(scope, nothing, note)
    assert seen or refused == [{"type": "websocket.close", "code": 1008}]
    return seen[0] if seen else None


@pytest.mark.parametrize(
    ("origin", "comes_in"),
    [
        (b"http://localhost:9999", False),
        (b"http://localhost", False),
        (b"https://localhost:8501", False),
        (b"http://127.0.0.1:8501", True),
        (b"http://localhost:8501.evil.example", False),
        (b"null", False),
        (None, True),
    ],
)
async def test_only_our_own_page_brings_the_session(origin: bytes | None, comes_in: bool) -> None:
    headers = [(b"cookie", COOKIES), (b"host", b"127.0.0.1:8501"), *([(b"origin", origin)] if origin else [])]
    found = await heard(UI_URL, {"type": "websocket", "headers": headers})
    assert found == ({**dict(headers), b"cookie": b"_streamlit_xsrf=1; last=2"} if comes_in else None)
    ours = [(b"cookie", COOKIES), (b"origin", UI_URL.encode())]
    assert await heard(UI_URL, {"type": "websocket", "headers": ours}) == dict(ours)


async def test_an_interface_below_a_path_has_the_origin_of_its_host() -> None:
    ours = [(b"cookie", COOKIES), (b"origin", b"https://chat.example.com")]
    assert await heard("https://chat.example.com/ui", {"type": "websocket", "headers": ours}) == dict(ours)
    assert options("127.0.0.1", 8501, "https://chat.example.com/ui")["server.baseUrlPath"] == "ui"


@pytest.fixture
def interface() -> Iterator[str]:
    """The interface as an operator runs it, without an API, and with secrets that are not for it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    given = {"UI_PORT": str(port), "API_URL": "http://127.0.0.1:1", "MASTER_KEY": MASTER_KEY}
    given |= {"DATABASE_URL": "postgresql://u:canary@127.0.0.1/x", "TRUSTED_PROXIES": "10.0.0.0/8"}
    command = [sys.executable, "-m", "app", "ui"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **given}) as process:
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
        assert client.get("/_stcore/metrics").status_code == 404


def test_the_interface_has_no_secret_and_believes_the_proxies_alone(interface: str) -> None:
    [own] = [each for each in psutil.Process().children() if "app.ui" in each.cmdline()]
    assert not {"MASTER_KEY", "DATABASE_URL"} & set(own.environ())
    assert own.environ()["FORWARDED_ALLOW_IPS"] == "10.0.0.0/8"


def test_who_is_not_signed_in_brings_no_file_and_another_website_no_socket(interface: str) -> None:
    place = f"ws{interface.removeprefix('http')}/_stcore/stream"
    with pytest.raises(InvalidStatus, match="403"):
        connect(place, origin=Origin("https://evil.example"), proxy=None)
    with connect(place, origin=Origin(interface), subprotocols=[Subprotocol("streamlit")], proxy=None) as page:
        page.send(bytes([0x5A, 0]))  # run the page
        while not (told := ForwardMsg.FromString(page.recv(20))).HasField("new_session"):
            pass
        with httpx.Client(base_url=interface) as client:
            token = client.get("/_stcore/health").cookies["_streamlit_xsrf"]
            path = f"/_stcore/upload_file/{told.new_session.initialize.session_id}/1"
            file = {"file": ("a.csv", b"x" * 100)}
            assert client.put(path, files=file, headers={"X-Xsrftoken": token}).status_code == 403


class Uploading:
    """Requests that bring files to the front door, and pages behind it that take them when told to."""

    def __init__(self) -> None:
        self.door = FrontDoor(self._take, UI_URL)
        self.taking = asyncio.Event()

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.taking.wait()
        await send({"type": "http.response.start", "status": 204})

    async def put(self, session_id: str, *headers: tuple[bytes, bytes], method: str = "PUT") -> int:
        """Returns the status."""
        statuses: list[int] = []

        async def nothing() -> Message:
            raise NotImplementedError

        async def note(message: Message) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        path = f"/ui/_stcore/upload_file/{session_id}/1"
        await self.door({"type": "http", "method": method, "path": path, "headers": list(headers)}, nothing, note)
        return statuses[0]

    async def begin(self, session_id: str, megabytes: int) -> "asyncio.Task[int]":
        """Begins to bring a file."""
        brought = asyncio.create_task(self.put(session_id, length(megabytes)))
        await asyncio.sleep(0)
        return brought


def length(megabytes: int) -> tuple[bytes, bytes]:
    return b"content-length", str(megabytes * 2**20).encode()


async def test_only_editors_bring_files_and_only_so_many_bytes(visit: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    uploading = Uploading()
    visit(Role.VIEWER).open("imports")
    assert await uploading.put("test session id", length(1)) == 403
    seen = visit(Role.EDITOR).open("imports")
    assert await uploading.put("test session id") == 411
    assert await uploading.put("test session id", length(1), (b"transfer-encoding", b"chunked")) == 411
    assert await uploading.put("test session id", length(1), (b"origin", b"https://evil.example")) == 403
    assert await uploading.put("another", length(1)) == 403
    first, second = [await uploading.begin("test session id", 200) for _ in range(2)]
    assert await uploading.put("test session id", length(200)) == 413
    monkeypatch.setattr(uploads, "KEPT_MB", 401)
    assert await uploading.put("test session id", length(2)) == 503
    uploading.taking.set()
    assert [await first, await second] == [204, 204]
    assert await uploading.put("test session id", length(200)) == 204
    seen.click("Sign out")
    assert await uploading.put("test session id", length(1)) == 403
    assert await uploading.put("test session id", method="DELETE") == 403
