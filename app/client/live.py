"""A conversation as it goes on: a socket to the API, read in a thread of its own."""

import bisect
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app.client.errors import ApiError
from app.client.http import segment
from app.schemas.analyses import Summary
from app.schemas.chats import Message
from app.schemas.live import (
    ConversationDeleted,
    Failed,
    NewMessage,
    Snapshot,
    SummaryDelta,
    SummaryRestarted,
    SummaryUpdated,
)

LEASE_S = 15.0
"""How long a follower goes on without being looked at: a closed page does not say good-bye."""
KEPT = 500
"""How many of the newest messages are kept."""
TICK_S = 1.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
TOO_MANY, DOWN = 429, 500

State = Literal["connecting", "live", "deleted", "refused"]
_Event = Snapshot | NewMessage | SummaryDelta | SummaryRestarted | SummaryUpdated | ConversationDeleted | Failed
_event: TypeAdapter[_Event] = TypeAdapter(_Event)


@dataclass(frozen=True)
class View:
    """A conversation as it is known; ``written`` is the text of the summary that is being written."""

    state: State = "connecting"
    messages: tuple[Message, ...] = ()
    message_count: int = 0
    summary: Summary | None = None
    written: str = ""
    error: ApiError | None = None


class Follower:
    """Follows a conversation until it is closed, or nobody has looked at it for a while.

    When the connection ends (the service restarts, or says that the client was too slow) it connects again, and the
    snapshot that comes first brings it up to date.
    """

    def __init__(self, url: str, conversation_id: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self.conversation_id = conversation_id
        self._url = f"ws{url.removeprefix('http')}/ws/chats/{segment(conversation_id)}"
        self._headers = headers
        self._looked_at = time.monotonic()
        self._view = View()
        self._closed = threading.Event()
        self._known = threading.Event()
        self._socket: ClientConnection | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def look(self) -> View:
        """Returns what is known, and lets the follower go on."""
        self._looked_at = time.monotonic()
        return self._view

    def wait(self, seconds: float) -> View:
        """Returns what is known as soon as something is, or when the time is over."""
        self._known.wait(seconds)
        return self.look()

    @property
    def running(self) -> bool:
        """Says whether it still follows."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends it."""
        self._closed.set()

    def summarize(self) -> bool:
        """Asks for a new summary, which is told as it is written; says whether that could be sent."""
        socket = self._socket
        try:
            if socket is None:
                return False
            socket.send(orjson.dumps({"type": "summarize", "force": True}).decode())
        except (ConnectionClosed, OSError):
            return False
        self._change(error=None)
        return True

    def _run(self) -> None:
        pause = SHORTEST_PAUSE_S
        while not self._over():
            try:
                pause = self._follow(pause)
            except ApiError as error:  # there is no credential any more
                self._change(state="refused", error=error)
                return
            except InvalidStatus as refusal:
                answer = refusal.response
                said = ApiError.read(answer.status_code, answer.headers, bytes(answer.body or b""))
                if said.status < DOWN and said.status != TOO_MANY:
                    self._change(state="refused", error=said)
                    return
                pause = max(pause, float(said.retry_after_s or 0))
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            if self._view.state == "deleted":
                return
            self._change(state="connecting")
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _follow(self, pause: float) -> float:
        headers = dict(self._headers())
        with connect(self._url, additional_headers=headers, max_size=None, proxy=None, open_timeout=10) as socket:
            self._socket = socket
            try:
                while not self._over():
                    try:
                        text = socket.recv(timeout=TICK_S)
                    except TimeoutError:
                        continue
                    pause = SHORTEST_PAUSE_S
                    self._apply(text)
            finally:
                self._socket = None
        return pause

    def _over(self) -> bool:
        return self._closed.is_set() or time.monotonic() - self._looked_at > LEASE_S

    def _change(self, **what: Any) -> None:
        self._view = replace(self._view, **what)
        if self._view.state != "connecting":
            self._known.set()

    def _apply(self, text: str | bytes) -> None:
        try:
            event = _event.validate_json(text, extra="allow")
        except ValidationError:
            return  # a kind of event that is not known here
        view = self._view
        match event:
            case Snapshot():
                self._change(
                    state="live",
                    messages=tuple(event.messages),
                    message_count=event.conversation["message_count"],
                    summary=event.summary,
                    written="",
                    error=None,
                )
            case NewMessage():
                place = bisect.bisect_right(view.messages, event.message["timestamp"], key=lambda m: m["timestamp"])
                messages = (*view.messages[:place], event.message, *view.messages[place:])
                self._change(messages=messages[-KEPT:], message_count=view.message_count + 1)
            case SummaryDelta():
                self._change(written=view.written + event.text)
            case SummaryRestarted():
                self._change(written="")
            case SummaryUpdated():
                self._change(summary=event.summary, written="", error=None)
            case ConversationDeleted():
                self._change(state="deleted")
            case Failed():
                problem = event.problem
                self._change(
                    error=ApiError(
                        problem.status,
                        problem.code,
                        problem.detail,
                        request_id=problem.request_id,
                        retry_after_s=event.retry_after,
                    )
                )
