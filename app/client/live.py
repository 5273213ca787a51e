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
KEPT_CHARS = 20_000
"""How much of each message is kept."""
TICK_S = 1.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
TOLD_S = 2.0
"""From which pause on it is told why there is no connection: what lasts shorter is nobody's concern."""
ABSENT, TOO_MANY, DOWN = 404, 429, 500

State = Literal["connecting", "live", "deleted", "refused"]
_Event = Snapshot | NewMessage | SummaryDelta | SummaryRestarted | SummaryUpdated | ConversationDeleted | Failed
_event: TypeAdapter[_Event] = TypeAdapter(_Event)


@dataclass(frozen=True)
class View:
    """A conversation as it is known, which is nothing before the first snapshot is ``loaded``.

    ``written`` is the text of the summary that is being written, ``error`` what went wrong with it or why the
    conversation is refused, ``trouble`` what has kept the connection from being made for a while.
    """

    state: State = "connecting"
    loaded: bool = False
    messages: tuple[Message, ...] = ()
    message_count: int = 0
    summary: Summary | None = None
    written: str = ""
    error: ApiError | None = None
    trouble: ApiError | None = None


def beginning(message: Message) -> Message:
    """Returns a message of which no more is kept than is shown, and how much more there was."""
    content = message["message_content"]
    more = len(content) - KEPT_CHARS
    return message if more <= 0 else {**message, "message_content": f"{content[:KEPT_CHARS]} ... ({more:,} more)"}


class Follower:
    """Follows a conversation until it is deleted, refused or closed, or nobody has looked at it for a while.

    When the connection ends (the service restarts, or says that the client was too slow) it connects again, and the
    snapshot that comes first brings it up to date. A conversation that is not there yet is asked for now and then.
    """

    def __init__(self, url: str, conversation_id: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self.conversation_id = conversation_id
        self._url = f"ws{url.removeprefix('http')}/ws/chats/{segment(conversation_id)}"
        self._headers = headers
        self._looked_at = time.monotonic()
        self._view = View()
        self._changing = threading.RLock()
        self._settled = False
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

    @property
    def lapsed(self) -> bool:
        """Says whether it follows no more, though the conversation could still be followed."""
        return not self.running and not self._settled

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
                self._follow()
                error = None
            except ApiError as said:  # there is no token for the socket
                error = said
            except InvalidStatus as refusal:
                answer = refusal.response
                error = ApiError.read(answer.status_code, answer.headers, bytes(answer.body or b""))
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                error = ApiError.unreachable(self._url)
            if self._view.state == "deleted":
                self._settled = True
                return
            if self._view.state == "live":
                pause = SHORTEST_PAUSE_S
            if error is None or error.status in (0, TOO_MANY) or error.status >= DOWN:
                pause = max(pause, float(error.retry_after_s or 0) if error else 0)
                self._change(state="connecting", trouble=error if pause >= TOLD_S else None)
            else:
                self._settled = error.status != ABSENT
                self._change(state="refused", error=error)
                if self._settled:
                    return
                pause = LONGEST_PAUSE_S
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _follow(self) -> None:
        headers = dict(self._headers())
        with connect(self._url, additional_headers=headers, max_size=None, proxy=None, open_timeout=10) as socket:
            self._socket = socket
            try:
                while not self._over():
                    try:
                        text = socket.recv(timeout=TICK_S)
                    except TimeoutError:
                        continue
                    self._apply(text)
            finally:
                self._socket = None

    def _over(self) -> bool:
        return self._closed.is_set() or time.monotonic() - self._looked_at > LEASE_S

    def _change(self, **what: Any) -> None:
        with self._changing:
            self._view = replace(self._view, **what)
        if self._view.state != "connecting":
            self._known.set()

    def _apply(self, text: str | bytes) -> None:
        try:
            event = _event.validate_json(text, extra="allow")
        except ValidationError:
            return  # a kind of event that is not known here
        with self._changing:
            self._tell(event, self._view)

    def _tell(self, event: _Event, view: View) -> None:
        match event:
            case Snapshot():
                self._change(
                    state="live",
                    loaded=True,
                    messages=tuple(map(beginning, event.messages)),
                    message_count=event.conversation["message_count"],
                    summary=event.summary,
                    written="",
                    error=None,
                    trouble=None,
                )
            case NewMessage():
                place = bisect.bisect_right(view.messages, event.message["timestamp"], key=lambda m: m["timestamp"])
                messages = (*view.messages[:place], beginning(event.message), *view.messages[place:])
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
