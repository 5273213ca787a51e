"""Raw bytes on the wire, and paths that no client would send."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from app.protocols import PROTOCOLS
from app.schemas.enums import Role
from tests.support.api import Workspace, message


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    """Yields the port of a real server."""
    config = uvicorn.Config(app, **PROTOCOLS, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener := socket.create_server(("127.0.0.1", 0))])
    try:
        yield listener.getsockname()[1]
    finally:
        await server.shutdown(sockets=[listener])


async def talk(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_raw_bytes_on_the_wire_never_cause_a_defect(
    app: FastAPI, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    key = workspace.keys[Role.ADMIN].encode()
    rest = b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer " + key + b"\r\n"
    chunked = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    requests = {
        "raw utf-8 path": b"GET /chats/\xc3\xa9" + rest + b"\r\n",
        "raw bytes in the query": b"GET /chats?q=\xff" + rest + b"\r\n",
        "absolute form": b"GET http://test/chats" + rest + b"\r\n",
        "asterisk": b"OPTIONS *" + rest + b"\r\n",
        "fragment": b"GET /chats/a#b" + rest + b"\r\n",
        "double slash": b"GET //chats" + rest + b"\r\n",
        "head": b"HEAD /chats" + rest + b"\r\n",
        "connect": b"CONNECT test:80" + rest + b"\r\n",
        "websocket": b"GET /chats" + rest.replace(b"close", b"Upgrade") + b"Upgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        "bad chunk": b"POST /chats" + rest + chunked + b"zz\r\n",
        "length and chunks": b"POST /chats" + rest + b"Content-Length: 3\r\n" + chunked + b"0\r\n\r\n",
        "two lengths": b"POST /chats" + rest + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "empty chunked": b"POST /chats" + rest + chunked + b"0\r\n\r\n",
        "old version": b"GET /chats HTTP/1.0\r\n\r\n",
        "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    }
    async with served(app) as port:
        for name, sent in requests.items():
            answer = await talk(port, sent)
            assert answer.startswith(b"HTTP/1.1 "), (name, answer[:300])
            assert not answer.startswith(b"HTTP/1.1 5"), (name, answer[:300])
        assert b" 200 " in await talk(port, b"GET /chats" + rest + b"\r\n")
        assert (await talk(port, requests["head"])).endswith(b"\r\n\r\n")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert (await workspace.viewer.get("/chats")).json()["data"] == []


async def test_a_path_that_is_not_ascii_is_refused_and_stands_for_no_id(app: FastAPI, workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message("\ufffd\ufffd"))
    events: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def collect(event: Any) -> None:
        events.append(event)

    headers = [(b"authorization", b"Bearer " + workspace.keys[Role.ADMIN].encode())]
    path = b"/chats/\xc3\xa9"
    scope = {"type": "http", "method": "DELETE", "raw_path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, collect)
    assert events[0]["status"] == 400
    assert len((await workspace.viewer.get("/chats")).json()["data"]) == 1
