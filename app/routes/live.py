"""Live sockets: a conversation as it goes on."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Message

from app.errors import (
    CrossSite,
    FieldError,
    Forbidden,
    Internal,
    Invalid,
    Malformed,
    NotFound,
    Problem,
    StillRunning,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from app.factory import Services
from app.metrics import live_sockets
from app.routes.bodies import misfit
from app.routes.deps import SESSION_COOKIE, ConversationId, address, authenticate, spend
from app.routes.problems import problem_document
from app.schemas.analyses import AnalysisRequest
from app.schemas.chats import MessageIn
from app.schemas.enums import Role
from app.schemas.live import Command, ConversationDeleted, Failed
from app.schemas.problems import ProblemDocument
from app.schemas.viewer import Viewer
from app.security.api_keys import PREFIX
from app.security.permissions import require
from app.services.auth import Door
from app.services.live import Feed
from app.services.rate_limits import RateClass
from app.services.structure import check_json

OPERATION = "followConversation"
SUBPROTOCOL = "bearer"
"""What a page offers before its access token: `new WebSocket(url, ["bearer", token])`; it is what is agreed on."""
SLOW_S = 10.0
"""How long a client may leave the network's buffers full."""
ENDING_S = 1.0
"""How long the making of a summary may go on after it was told."""
NORMAL, POLICY_VIOLATION, TRY_AGAIN_LATER = 1000, 1008, 1013
"""Why a socket is closed (RFC 6455, section 7.4.1, and IANA's registry)."""

M = TypeVar("M", bound=BaseModel)

router = APIRouter()
_command = TypeAdapter(Command)
_log = structlog.get_logger(__name__)


@router.websocket("/ws/chats/{conversation_id}")
async def follow_conversation(websocket: WebSocket, conversation_id: ConversationId) -> None:
    """Tells a conversation as it is and as it goes on, and takes messages for it; a refusal is an HTTP answer."""
    app: Services = websocket.app.state.services
    door, credential = await _credential(websocket, app)
    viewer = await authenticate(websocket, app, door, credential)
    await spend(websocket, app, RateClass.READ, viewer.caller)
    socket = _Socket(websocket, app, viewer, (door, credential), conversation_id)
    async with app.live.open(viewer, conversation_id, socket.refresh) as feed:
        first = await feed.snapshot()
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
        with live_sockets.track_inprogress():
            code = await socket.run(feed, first)
        if code is not None:
            await websocket.close(code)


async def _credential(websocket: WebSocket, app: Services) -> tuple[Door, str]:
    headers, offered = websocket.headers, websocket.scope["subprotocols"]
    origin = headers.get("origin")
    if origin is not None and origin not in (app.base_url, *app.cors_origins):
        raise CrossSite("This page's origin is not among CORS_ORIGINS.")
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential:
        return Door.BEARER, credential
    if key := headers.get("x-api-key"):
        return Door.API_KEY, key
    if SUBPROTOCOL in offered[:-1] and not (token := offered[offered.index(SUBPROTOCOL) + 1]).startswith(PREFIX):
        return Door.BEARER, token
    if cookie := websocket.cookies.get(SESSION_COOKIE):
        if origin != app.base_url:
            raise CrossSite("With the session cookie this works from this service's own pages only.")
        return Door.COOKIE, cookie
    await spend(websocket, app, RateClass.ADDRESS, address(websocket))
    raise Unauthenticated("Send `Authorization: Bearer <API key or token>`, or the subprotocols `bearer` and a token.")


class _Socket:
    """An open socket, and what goes on at the same time on it."""

    def __init__(
        self, websocket: WebSocket, app: Services, viewer: Viewer, shown: tuple[Door, str], conversation_id: str
    ) -> None:
        self._websocket = websocket
        self._app = app
        self._viewer = viewer
        self._shown = shown
        self._id = conversation_id
        self._feed: Feed
        self._summarising: asyncio.Task[None] | None = None

    async def run(self, feed: Feed, first: BaseModel) -> int | None:
        """Returns the code to close with, or None if the client is gone."""
        self._feed = feed
        parts: list[Coroutine[Any, Any, int | None]] = [self._tell(first), self._listen(), self._watch()]
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        except TimeoutError:
            return TRY_AGAIN_LATER
        finally:
            ending = [*tasks, *([self._summarising] if self._summarising else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    def refresh(self) -> None:
        """Begins to make the summary, if the caller may, because there are new messages."""
        if self._summarising and not self._summarising.done():
            self._feed.wait_for_quiet()
        else:
            self._begin(self._refresh())

    async def _tell(self, first: BaseModel) -> int:
        await self._send(first)
        while True:
            for event in await self._feed.news():
                await (self._fail(event) if isinstance(event, Problem) else self._send(event))
                if isinstance(event, ConversationDeleted):
                    return NORMAL

    async def _listen(self) -> int | None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            try:
                await self._act(message)
            except Unauthenticated:
                return POLICY_VIOLATION
            except Problem as problem:
                await self._fail(problem)

    async def _watch(self) -> int:
        await self._app.live.watch(self._viewer, *self._shown, self._feed)
        return POLICY_VIOLATION

    async def _act(self, message: Message) -> None:
        viewer = await self._app.auth.viewer(*self._shown)
        await spend(self._websocket, self._app, RateClass.WRITE, viewer.caller)
        command = await _read(message.get("text"))
        try:
            require(viewer, Role.EDITOR)
        except Forbidden:
            await self._app.audit.denied(viewer, OPERATION, Role.EDITOR)
            raise
        if command.type == "message":
            await self._app.chats.store(viewer, [self._about(MessageIn, command)], single=True)
            return
        request = self._about(AnalysisRequest, command)
        if self._summarising:
            await asyncio.wait({self._summarising}, timeout=ENDING_S)
            if not self._summarising.done():
                raise StillRunning("The summary is being made. It will be told.")
        await spend(self._websocket, self._app, RateClass.LLM, viewer.caller)
        self._begin(self._feed.summarize(viewer, request))

    def _about(self, model: type[M], command: Command) -> M:
        fields = command.model_extra or {}
        if "conversation_id" in fields:
            detail = "The conversation is the socket's."
            raise Invalid(detail, (FieldError("/conversation_id", "unknown_field", detail),))
        try:
            return model.model_validate({**fields, "conversation_id": self._id})
        except ValidationError as error:
            raise misfit(error, "message") from None

    def _begin(self, summarising: Coroutine[Any, Any, None]) -> None:
        self._summarising = asyncio.create_task(self._in_background(summarising))

    async def _refresh(self) -> None:
        viewer = await self._app.auth.viewer(*self._shown)
        if viewer.role is not Role.VIEWER:
            await spend(self._websocket, self._app, RateClass.LLM, viewer.caller)
            await self._feed.summarize(viewer, AnalysisRequest(conversation_id=self._id))

    async def _in_background(self, acting: Coroutine[Any, Any, None]) -> None:
        problem: Problem | None = None
        try:
            await acting
        except (NotFound, Unauthenticated):
            pass  # the socket is about to be closed
        except Problem as error:
            problem = error
        except Exception as error:  # noqa: BLE001 — nothing of a defect may reach the client or, as text, the log
            _log.error("defect", error=type(error).__name__)
            problem = Internal("Something went wrong on our side; the request id names it in the log.")
        if problem:
            with suppress(TimeoutError, WebSocketDisconnect):  # what tells events notices that as well
                await self._fail(problem)

    async def _fail(self, problem: Problem) -> None:
        document = problem_document(problem, self._websocket.state.request_id)
        seconds = problem.retry_after_seconds if isinstance(problem, TooManyRequests | Unavailable) else None
        await self._send(Failed(problem=ProblemDocument(**document), retry_after=seconds))

    async def _send(self, event: BaseModel) -> None:
        """Sends an event; raises ``TimeoutError`` if the client does not read."""
        async with asyncio.timeout(SLOW_S):
            await self._websocket.send_text(event.model_dump_json())


async def _read(text: str | None) -> Command:
    if text is None:
        raise Malformed("Send JSON as text.")
    body = text.encode()
    await asyncio.to_thread(check_json, body, messages=1)
    try:
        return _command.validate_json(body)
    except ValidationError as error:
        raise misfit(error, "message") from None
