"""A client of event streams."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.live import PATIENCE_S

EVENTS = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Stream:
    """An open stream of events, or the answer to a request that got none."""

    response: httpx.Response
    lines: AsyncIterator[str]

    async def next(self) -> tuple[str, Any]:
        """Returns the next event's name and data; raises ``StopAsyncIteration`` at the end."""
        name = ""
        async for line in self.lines:
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                return name, json.loads(value)
        raise StopAsyncIteration

    async def rest(self) -> list[tuple[str, Any]]:
        """Returns the events up to the end."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except StopAsyncIteration:
            return found

    async def text(self, least: int = 1) -> str:
        """Returns the text of the next deltas, of so many characters at least."""
        text = ""
        while len(text) < least:
            name, data = await self.next()
            assert name == "summary.delta", (name, data)
            text += data["text"]
        return text


def shown(events: list[tuple[str, Any]]) -> str:
    """Returns the text since the last restart."""
    text = ""
    for name, data in events:
        text = "" if name == "summary.restarted" else text + data["text"] if name == "summary.delta" else text
    return text


@asynccontextmanager
async def streaming(
    url: str, key: str, conversation_id: str = "c1", headers: dict[str, str] | None = None, **more: object
) -> AsyncIterator[Stream]:
    """Yields the stream of a summary; what it waits for has to come soon."""
    sent = {"Authorization": f"Bearer {key}", **EVENTS, **(headers or {})}
    async with (
        httpx.AsyncClient(base_url=url, headers=sent, timeout=PATIENCE_S) as client,
        client.stream("POST", "/chats/summarize", json={"conversation_id": conversation_id, **more}) as response,
    ):
        yield Stream(response, response.aiter_lines())
