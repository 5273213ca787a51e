"""Summaries as server-sent events (WHATWG HTML, section 9.2), told while they are written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any
from urllib.request import parse_http_list

import orjson
import structlog
from fastapi import Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.errors import Internal, Problem, Unauthenticated
from app.factory import Services
from app.routes.idempotency import Answer
from app.routes.problems import problem_document
from app.schemas.examples import SUMMARY
from app.schemas.live import SummaryDelta, SummaryRestarted
from app.schemas.viewer import Viewer
from app.services.writing import Reader

PING_S = 15.0
"""How long a stream is silent at the most: proxies give up later."""
SLOW_S = 10.0
"""How long a client may leave the network's buffers full."""
EVENTS, JSON = "text/event-stream", "application/json"

_EXAMPLE = b"".join(
    format_sse_event(event=event, data_str=orjson.dumps(data).decode())
    for event, data in (
        ("summary.delta", {"text": "The customer says: my parcel has not"}),
        ("summary.restarted", {"reason": "unavailable"}),
        ("summary.delta", {"text": SUMMARY["summary"]}),
        ("summary.updated", SUMMARY),
    )
)
DOCUMENTED: dict[str, Any] = {
    EVENTS: {
        "schema": {
            "type": "string",
            "description": (
                "`summary.delta` with `{text}`: what was added to the text while a model writes. `summary.restarted` "
                "with `{reason}`: the text so far is void, another begins. At the end either `summary.updated` with "
                "the summary, which alone is final, or `error` with a problem document."
            ),
        },
        "example": _EXAMPLE.decode(),
    }
}

REPLAYED = ("idempotency-replayed",)

_begun: set[asyncio.Task[Answer]] = set()
"""What is carried out, also for clients that are gone."""
_log = structlog.get_logger(__name__)


def wants_events(accept: str) -> bool:
    """Says whether a request asks for events, and not rather for JSON (RFC 9110, section 12.5.1)."""
    weights: dict[str, float] = {}
    for each in parse_http_list(accept.lower()):
        media, *parameters = (part.strip() for part in each.split(";"))
        quality = next((value for name, _, value in (p.partition("=") for p in parameters) if name.strip() == "q"), "1")
        try:
            weights[media] = min(max(float(quality), 0.0), 1.0)
        except ValueError:
            weights[media] = 0.0
    json = next((weights[media] for media in (JSON, "application/*", "*/*") if media in weights), 0.0)
    return weights.get(EVENTS, 0.0) >= max(json, 0.001)


class _Refused(Exception):
    """The request was answered, and not with a summary."""

    def __init__(self, response: Response) -> None:
        self.response = response


async def stream(
    request: Request,
    app: Services,
    viewer: Viewer,
    conversation_id: str,
    act: Callable[[], Coroutine[Any, Any, Answer]],
) -> Response:
    """Returns what comes of asking for a summary: events, unless it fails before the first one.

    It is carried out whether or not the client stays to see it.
    """
    woken = asyncio.Event()
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(app.summaries.watch(viewer, conversation_id, woken.set))
        acting = asyncio.create_task(act())
        _begun.add(acting)
        acting.add_done_callback(_end)
        watching = asyncio.create_task(app.live.watch(viewer, *request.state.shown))
        stack.callback(watching.cancel)
        for task in (acting, watching):
            task.add_done_callback(lambda _: woken.set())
        events = _Events(reader, acting, watching, woken)
        try:
            while not (first := await events.next()):
                pass
        except _Refused as refusal:
            return refusal.response
        return _EventStream(request.state.request_id, first, events, stack.pop_all())


def _end(acting: asyncio.Task[Answer]) -> None:
    _begun.discard(acting)
    if not acting.cancelled():
        acting.exception()  # told if anybody is there


class _Events:
    """What is told of a summary that is being made; ``final`` is the request's answer when all has been told."""

    def __init__(
        self, reader: Reader, acting: asyncio.Task[Answer], watching: asyncio.Task[None], woken: asyncio.Event
    ) -> None:
        self._reader = reader
        self._acting = acting
        self._watching = watching
        self._woken = woken
        self.final: Response | None = None

    async def next(self) -> bytes:
        """Waits and returns what is new, which may be nothing; raises what the request failed with."""
        try:
            async with asyncio.timeout(PING_S):
                await self._woken.wait()
        except TimeoutError:
            return KEEPALIVE_COMMENT
        self._woken.clear()
        if self._watching.done():
            self._watching.result()
            raise Unauthenticated("The credential has ended.")
        if not self._acting.done():
            return b"".join(map(_event, self._reader.news()))
        response = self._acting.result().response
        if response.status_code != HTTPStatus.OK:
            raise _Refused(response)
        self.final = response
        summary = bytes(response.body)
        last = [_event(each) for each in self._reader.finish(orjson.loads(summary)["summary"])]
        return b"".join([*last, format_sse_event(event="summary.updated", data_str=summary.decode())])


class _EventStream(EventSourceResponse):
    """The events as a response; a client that does not read them for long is left."""

    def __init__(self, request_id: str, first: bytes, events: _Events, open_until_sent: AsyncExitStack) -> None:
        headers = {"X-Accel-Buffering": "no"}
        if events.final:
            headers |= {name: events.final.headers[name] for name in REPLAYED if name in events.final.headers}
        super().__init__(self._all(first), headers=headers)
        self._request_id = request_id
        self._events = events
        self._open = open_until_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""

        async def send_soon(message: Message) -> None:
            try:
                async with asyncio.timeout(SLOW_S):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        async with self._open:
            await super().__call__(scope, receive, send_soon)

    async def _all(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        try:
            while not self._events.final:
                if events := await self._events.next():
                    yield events
        except _Refused as refusal:
            yield format_sse_event(event="error", data_str=bytes(refusal.response.body).decode())
        except Problem as problem:
            yield self._error(problem)
        except Exception as error:  # noqa: BLE001 — nothing of a defect may reach the client or, as text, the log
            _log.error("defect", error=type(error).__name__)
            yield self._error(Internal("Something went wrong on our side; the request id names it in the log."))

    def _error(self, problem: Problem) -> bytes:
        document = problem_document(problem, self._request_id)
        return format_sse_event(event="error", data_str=orjson.dumps(document).decode())


def _event(event: SummaryDelta | SummaryRestarted) -> bytes:
    return format_sse_event(event=event.type, data_str=event.model_dump_json(exclude={"type"}))
