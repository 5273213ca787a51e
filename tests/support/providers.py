"""Grok and Gemini on loopback, speaking their wire protocols, well or badly."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

XAI_KEY = "xai-canary-key-4711"
GEMINI_KEY = "gemini-canary-key-4711"
LEAK = "provider-text-canary"
"""What a failing stand-in says; it must not get anywhere."""


@dataclass(frozen=True)
class Reply:
    """What a stand-in does with a request; ``manner`` is how it sends the body.

    Who asks for a stream gets the ``events``, if there are any.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    manner: str = "whole"
    location: str = ""
    retry_after: str = ""
    encoding: str = "identity"
    events: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a stand-in received."""

    target: str
    headers: dict[str, str]
    body: Any


def summary_answer(**more: object) -> dict[str, object]:
    """Returns a valid answer to the task of summarising."""
    return {
        "summary": "The customer's parcel is late; the agent sends another.",
        "action_items": [],
        "decisions": [],
        "questions": [],
        "sentiment": "negative",
        "outcome": "maybe",
        "keywords": ["parcel"],
        **more,
    }


def insights_answer(**more: object) -> dict[str, object]:
    """Returns a valid answer to the task of analysing."""
    return {
        "sentiment": {"label": "mixed", "score": -0.5, "confidence": 0.75, "by_participant": [], "timeline": []},
        "outcome": {"label": "curious", "confidence": 0.5, "reason": "They only asked.", "evidence": []},
        "customer_effort": {"label": "low", "score": 0.25, "reason": "One question was enough.", "evidence": []},
        "escalation_risk": {"label": "low", "score": 0.0, "reasons": []},
        "topics": ["late parcel"],
        "keywords": [{"text": "parcel", "score": 1.0}],
        "resolution": "Another parcel is on its way.",
        **more,
    }


def grok_reply(
    content: object,
    *,
    finish: str = "stop",
    prompt_tokens: int = 1_000,
    completion_tokens: int = 100,
    cached_tokens: int = 0,
    pieces: Sequence[str] = (),
) -> Reply:
    """Returns a chat completion of xAI's; ``content`` is sent as JSON unless it is text or None.

    In a stream it comes in ``pieces``, and what it took last of all.
    """
    text = _text(content)
    details = {"prompt_tokens_details": {"cached_tokens": cached_tokens}} if cached_tokens else {}
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        **details,
    }
    head = {"id": "x", "created": 1, "model": "grok-4.3"}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**head, "object": "chat.completion.chunk", "choices": [choice]}

    chunks = [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in pieces or _pieces(text)),
        chunk({}, finish),
        {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage},
    ]
    events = *(_event(json.dumps(each)) for each in chunks), _event("[DONE]")
    return Reply(json.dumps(body).encode(), events=events)


def gemini_reply(content: object, *, finish: str = "STOP", cached_tokens: int = 0, pieces: Sequence[str] = ()) -> Reply:
    """Returns a ``generateContent`` answer of Gemini's; in a stream it comes in ``pieces``."""
    text = _text(content)
    cached = {"cachedContentTokenCount": cached_tokens} if cached_tokens else {}

    def answer(parts: list[dict[str, str]], tokens: int, **more: str) -> dict[str, object]:
        return {
            "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, **more}],
            "usageMetadata": {
                "promptTokenCount": 2_000,
                "candidatesTokenCount": tokens,
                "totalTokenCount": 2_000 + tokens,
                **cached,
            },
            "modelVersion": "gemini-2.5-flash",
        }

    body = answer([{"text": text}] if text else [], 200, finishReason=finish)
    *before, last = pieces or _pieces(text) or [""]
    chunks = [
        *(answer([{"text": piece}], number) for number, piece in enumerate(before)),
        answer([{"text": last}] if last else [], 200, finishReason=finish),
    ]
    return Reply(json.dumps(body).encode(), events=tuple(_event(json.dumps(each), "\r\n") for each in chunks))


def _pieces(text: str | None) -> list[str]:
    text = text or ""
    step = max(7, len(text) // 100)
    return [text[place : place + step] for place in range(0, len(text), step)]


def _event(data: str, end: str = "\n") -> bytes:
    return f"data: {data}{end}{end}".encode()


def failure(status: int, *, code: str = "boom", manner: str = "whole") -> Reply:
    """Returns an error whose text must not get anywhere."""
    error = {"message": f"{LEAK} {XAI_KEY}", "code": code, "status": code.upper(), "type": code}
    return Reply(json.dumps({"error": error}).encode(), status, manner=manner)


def _text(content: object) -> str | None:
    return content if content is None or isinstance(content, str) else json.dumps(content)


@dataclass
class StandIn:
    """One provider: what it was sent, what it replies (``replies`` first), and a gate that its replies wait for.

    A stream waits in the middle for the ``middle`` gate.
    """

    reply: Reply
    replies: list[Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    middle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.middle.set()

    def respond(self, request: Request) -> Reply:
        """Returns what is replied to a request."""
        return self.replies.pop(0) if self.replies else self.reply

    def hold(self) -> None:
        """Makes the replies wait until ``gate`` is set again."""
        self.gate.clear()
        self.asked.clear()


@dataclass
class Providers:
    """Both stand-ins and their address."""

    grok: StandIn
    gemini: StandIn
    url: str = ""

    @property
    def settings(self) -> dict[str, object]:
        """What points the application at them."""
        return {
            "xai_api_key": SecretStr(XAI_KEY),
            "xai_api_base": f"{self.url}/xai/v1",
            "gemini_api_key": SecretStr(GEMINI_KEY),
            "gemini_api_base": f"{self.url}/gemini/v1beta",
        }

    @property
    def requests(self) -> list[Request]:
        """What both were sent."""
        return [*self.grok.requests, *self.gemini.requests]


@asynccontextmanager
async def open_providers() -> AsyncIterator[Providers]:
    """Yields stand-ins for Grok and Gemini, both failing until they are told what to reply."""
    providers = Providers(StandIn(failure(503)), StandIn(failure(503)))
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        side = providers.gemini if request.target.startswith("/gemini/") else providers.grok
        side.requests.append(request)
        side.asked.set()
        await side.gate.wait()
        reply = side.respond(request)
        if reply.events and (request.body.get("stream") or ":streamGenerateContent?alt=sse" in request.target):
            await _stream(reply, writer, side.middle)
        else:
            await _send(reply, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def connection() -> None:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
            writer.close()

        task = asyncio.create_task(connection())
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    providers.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield providers
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running)


async def _read(reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split()[1], headers, json.loads(body))


async def _stream(reply: Reply, writer: asyncio.StreamWriter, middle: asyncio.Event) -> None:
    """Sends a reply's events in chunks (RFC 9112, section 7.1)."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
    for number, event in enumerate(reply.events):
        if number == len(reply.events) // 2:
            await writer.drain()
            await middle.wait()
            match reply.manner:
                case "cut":
                    return
                case "end":
                    break
                case "hang":
                    await asyncio.Event().wait()
                case "garbage":
                    event = b"data: {nonsense\n\ndata\n\n\xff\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        if reply.manner == "drip":
            await writer.drain()
            await asyncio.sleep(0.05)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _send(reply: Reply, writer: asyncio.StreamWriter) -> None:
    head = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.content_type}\r\nConnection: close\r\n"
    if reply.encoding != "identity":
        head += f"Content-Encoding: {reply.encoding}\r\n"
    if reply.retry_after:
        head += f"Retry-After: {reply.retry_after}\r\n"
    if reply.location:
        head += f"Location: {reply.location}\r\n"
    head += f"Content-Length: {len(reply.body)}\r\n\r\n"
    match reply.manner:
        case "reset":
            writer.transport.abort()
        case "cut":
            writer.write(head.encode() + reply.body[: len(reply.body) // 2])
        case "hang":
            await asyncio.Event().wait()
        case "drip":
            writer.write(head.encode())
            for byte in reply.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        case _:
            writer.write(head.encode() + reply.body)
            await writer.drain()
