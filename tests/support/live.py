"""Clients of the live sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

Document = dict[str, Any]
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Live:
    """An open socket; everything it waits for has to come soon."""

    socket: ClientConnection

    async def next(self) -> Document:
        """Returns the next event."""
        async with asyncio.timeout(PATIENCE_S):
            event: Document = json.loads(await self.socket.recv())
        return event

    async def until(self, kind: str) -> list[Document]:
        """Returns the next events, the last of them being of a kind."""
        found = [await self.next()]
        while found[-1]["type"] != kind:
            found.append(await self.next())
        return found

    async def messages(self, count: int) -> list[str]:
        """Returns the ids of the next messages, which must come without any other event."""
        return [(await self.next())["message"]["message_id"] for _ in range(count)]

    async def send(self, type: str, **fields: object) -> None:
        """Sends a command."""
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def refusal(self) -> str:
        """Returns the code of the next event, which must be an error."""
        event = await self.next()
        assert event["type"] == "error", event
        return str(event["problem"]["code"])

    async def closed(self) -> int:
        """Returns the code that the server closes the socket with."""
        with suppress(ConnectionClosed):
            while True:
                await self.next()
        assert self.socket.close_code is not None
        return self.socket.close_code


def bearer(key: str) -> dict[str, str]:
    """Returns the header for a key or a token."""
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def following(
    url: str, headers: dict[str, str], conversation_id: str = "c1", subprotocols: list[str] | None = None, **more: Any
) -> AsyncIterator[Live]:
    """Yields a socket that follows a conversation."""
    target = f"{url.replace('http', 'ws', 1)}/ws/chats/{quote(conversation_id, safe='')}"
    offered = [Subprotocol(each) for each in subprotocols] if subprotocols else None
    more = {"max_size": None, "proxy": None, **more}
    async with connect(target, additional_headers=headers, subprotocols=offered, **more) as socket:
        yield Live(socket)


async def refused(
    url: str, headers: dict[str, str], conversation_id: str = "c1", subprotocols: list[str] | None = None
) -> tuple[int, Document]:
    """Returns status and document of a handshake that is refused."""
    try:
        async with following(url, headers, conversation_id, subprotocols) as live:
            raise AssertionError(f"not refused: {await live.next()}")
    except InvalidStatus as refusal:
        document: Document = json.loads(refusal.response.body or b"")
        document.pop("request_id")
        return refusal.response.status_code, document
