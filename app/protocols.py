"""HTTP and WebSockets as uvicorn speaks them, with bounds on what a client sends and how slowly it sends or reads."""

from asyncio import AbstractEventLoop, TimerHandle, Transport
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.schemas.health import STOPPING

HEADER_BYTES = 2**16
"""How much may come before the headers are complete; the parser's time grows with the square of a header's length."""
HEADER_S = 10.0
"""How long headers may take, from the connection or the answer before."""
BODY_S = 30.0
"""How long a body that is waited for may bring nothing."""
FRAME_BYTES = 2 * 2**20 + 2**16
"""How long a message on a socket may be: 1 MiB of text, every byte escaped by another, and its ids."""


class _JoiningTransport:
    """A transport that sends two writes as one, if the second comes at once: the body with the headers before it."""

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            self._transport.writelines([self._held, data])
            self._held = b""
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers are bounded in length and in time, and whose bodies go on coming."""

    _unread = 0
    _in_body = False
    _heard_at = 0.0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins to wait for the first headers."""
        super().connection_made(cast("Transport", _JoiningTransport(transport, self.loop)))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing any more."""
        super().connection_lost(exc)
        self._stop()

    def handle_websocket_upgrade(self) -> None:
        """Leaves the connection to another protocol."""
        super().handle_websocket_upgrade()
        self._stop()

    def data_received(self, data: bytes) -> None:
        """Takes bytes of the connection, unless too many have come that are neither whole headers nor a body."""
        if self._unread > HEADER_BYTES:
            self._refuse("The headers are too long.")
            return
        self._unread += len(data)
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; what comes behind a body is none (RFC 9110, section 6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Lets a body of any length follow; the last answer of a server that stops ends the connection."""
        super().on_headers_complete()
        if self.app_state.get(STOPPING):
            self.announce_end()
        self._in_body, self._unread = True, 0
        self._wait()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body."""
        super().on_body(body)
        self._heard_at, self._unread = self.loop.time(), 0

    def on_message_complete(self) -> None:
        """Counts anew for the next request of the connection."""
        super().on_message_complete()
        self._in_body, self._unread = False, 0

    def on_response_complete(self) -> None:
        """Begins to wait for the next headers."""
        super().on_response_complete()
        self._wait()

    def announce_end(self) -> None:
        """Lets the answer say that no other one follows on the connection, if it has not begun."""
        if self.cycle and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _wait(self) -> None:
        self._heard_at = self.loop.time()
        if self._timer is None:
            self._look()

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        """Ends the connection if what it waits for took too long, or looks again when that could be."""
        self._timer = None
        if self.transport.is_closing() or not (self._in_body or self._idle):
            return
        if self._in_body and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._heard_at = self.loop.time()  # the client waits for us
        rest = self._heard_at + (BODY_S if self._in_body else HEADER_S) - self.loop.time()
        if rest > 0:
            self._timer = self.loop.call_later(min(rest, HEADER_S, BODY_S), self._look)
        else:
            self._refuse("The request took too long to come.")

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, reason: str) -> None:
        """Ends the connection, and says why where nobody could take that for the answer to another request."""
        if self._in_body:
            unheard = not (self.cycle.response_started or self.pipeline)
        else:
            unheard = self._idle and self._unread > 0
        if unheard and not self.transport.is_closing():
            self.send_400_response(reason)
        self.transport.close()


class BoundedSocket(WebSocketsSansIOProtocol):
    """A WebSocket that ends even if the client reads nothing."""

    def handle_connect(self, event: Request) -> None:
        """Takes the handshake, unless its path is no URL's."""
        if event.path.isascii():
            super().handle_connect(event)
            return
        self.close_sent = self.handshake_complete = True
        self.conn.send_response(self.conn.reject(400, "The path is not percent-encoded."))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """Sends a message; the last one does not wait for those before it to be read."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # also by a refusal, which the library would log as a defect
            self.loop.call_later(self.close_timeout, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Ends the connection of a client that does not answer any more."""
        super().keepalive_timeout()
        self.transport.abort()


PROTOCOLS: dict[str, Any] = {
    "http": BoundedProtocol,
    "ws": BoundedSocket,
    "ws_max_size": FRAME_BYTES,
    "ws_per_message_deflate": False,  # a secret compressed beside a stranger's text shows by its length
}
