"""A webhook's target: real HTTP on a loopback port, which answers as a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """Returns an HTTP answer."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        """Returns the document if the signature is right; raises ``WebhookVerificationError``."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What was received, and what is answered: the replies in turn, then 204."""

    url: str
    requests: list[Received] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    now: int = 0
    at_once: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def until(self, count: int, timeout_s: float = 20) -> list[Received]:
        """Returns the requests as soon as there are so many."""
        async with asyncio.timeout(timeout_s):
            while len(self.requests) < count:
                self.came.clear()
                await self.came.wait()
        return self.requests

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers a connection, until the target is closed."""
        task = asyncio.current_task()
        assert task
        self.serving.add(task)
        try:
            with suppress(asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self.serving.discard(task)
            if task.cancelling():
                writer.transport.abort()
            writer.close()

    async def close(self) -> None:
        """Ends every connection."""
        for task in self.serving:
            task.cancel()
        if self.serving:
            await asyncio.wait(self.serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.now += 1
            self.at_once = max(self.at_once, self.now)
            reply = self.replies.pop(0) if self.replies else answer(204)
            self.requests.append(Received(head[0].split(" ")[1], headers, body))
            self.came.set()
            try:
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(writer)
            finally:
                self.now -= 1


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """Yields a target that listens."""
    receiver = Receiver("")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}/hooks?token=canary-of-the-target-4711"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
