"""The application behind uvicorn, with bounds on what a client sends and on how slowly it sends or reads.

SIGTERM ends it without a failed request, SIGINT at once.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import sys
import time
from asyncio import TimerHandle, Transport
from contextlib import ExitStack, suppress
from typing import Any

import uvicorn
from uvicorn._types import ASGISendEvent
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.supervisors import multiprocess
from websockets.http11 import Request

from app.errors import ConfigurationError
from app.schemas.health import STOPPING
from app.settings import Settings

HEADER_BYTES = 2**16
"""How much may come before the headers are complete; the parser's time grows with the square of a header's length."""
HEADER_S = 10.0
"""How long headers may take, from the connection or the answer before."""
BODY_S = 30.0
"""How long a body that is waited for may bring nothing."""
FRAME_BYTES = 2 * 2**20 + 2**16
"""How long a message on a socket may be: 1 MiB of text, every byte escaped by another, and its ids."""
KEEP_ALIVE_S = 5
"""How long a connection may stay without a request; a proxy should keep its own for less."""
LAST_S = 0.5
"""How long those who have connected before nobody listens any more may take to say what they want."""
TICK_S = 0.1
START_S = 30
"""How long one of several processes may take to be ready, or not be heard of, before it is given up."""
SO_ATTACH_FILTER = 26


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers are bounded in length and in time, and whose bodies go on coming."""

    _unread = 0
    _in_body = False
    _heard_at = 0.0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins to wait for the first headers."""
        super().connection_made(transport)
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


def check_address(settings: Settings) -> None:
    """Raises ``ConfigurationError`` if the server could not listen, before a minute is spent on getting there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{settings.host}, port {settings.port}"
        raise ConfigurationError(f"Cannot listen on {where}: {error.strerror}. Set HOST or PORT to others.") from None


class Config(uvicorn.Config):
    """uvicorn's configuration, and for how many seconds a server that is to stop still takes what comes."""

    delay_s: float = 0.0


class DrainingServer(uvicorn.Server):
    """A server that SIGTERM ends without a failed request.

    It says at once that it is not ready, so that whoever distributes requests leaves it out. Meanwhile it goes on, for
    the configured delay, but ends each connection with its answer; only then does it stop listening.
    """

    config: Config

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops; what is in flight may end."""
        if signal.SIGTERM in self._captured_signals and self.config.delay_s:
            await self._drain(sockets or [])
        await super().shutdown(sockets)

    async def _drain(self, sockets: list[socket.socket]) -> None:
        self.lifespan.state[STOPPING] = True
        for connection in self.server_state.connections:
            if isinstance(connection, BoundedProtocol):
                connection.announce_end()
        await self._go_on(self.config.delay_s)
        await self._stop_listening(sockets)
        await self._go_on(LAST_S)

    async def _go_on(self, seconds: float) -> None:
        """Serves for a while, unless another signal comes."""
        loop = asyncio.get_running_loop()
        until, ticks = loop.time() + seconds, 0
        while loop.time() < until and len(self._captured_signals) < 2:
            await asyncio.sleep(TICK_S)
            ticks += 1
            await self.on_tick(ticks)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Closes the listening sockets; who is connected already and was not seen yet would be cut off with them."""
        waiting: list[socket.socket] = []
        with ExitStack() as stack:
            descriptors = [os.dup(each.fileno()) for server in self.servers for each in server.sockets]
            listeners = [stack.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors]
            for server in self.servers:
                server.close()
            for each in sockets:
                each.close()
            for listener in listeners:
                if not sockets:  # else others may be listening on it
                    _deafen(listener)
                listener.setblocking(False)
                with suppress(OSError):
                    while True:
                        waiting.append(listener.accept()[0])
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


class _Process(multiprocess.Process):
    """One of several that serve."""

    @property
    def server(self) -> uvicorn.Server:
        """The server, made in the process itself."""
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server


class _Supervisor(multiprocess.Multiprocess):
    """Keeps processes running, and replaces one after another at SIGHUP."""

    config: Config

    def terminate_all(self) -> None:
        """Stops them; when none of them will listen any more, nobody can connect."""
        super().terminate_all()
        until = time.monotonic() + self.config.delay_s - TICK_S
        while time.monotonic() < until and any(each.process.is_alive() for each in self.processes):
            time.sleep(TICK_S / 2)
        for each in self.sockets:
            _deafen(each)
            each.close()


def _deafen(listener: socket.socket) -> None:
    """Lets nobody connect any more, where that can be done (on Linux): who tries hears nothing, and soon tries again.

    Without it, who connects between the last look and the closing of a socket is cut off.
    """
    if sys.platform == "linux":
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # a filter of packets: "return 0"
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop)))


def run_server(settings: Settings) -> None:
    """Serves until a signal ends it; requests in flight have ten seconds to finish."""
    config = Config(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        workers=settings.web_concurrency,
        **PROTOCOLS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application knows which proxies are trusted
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=10,
        timeout_worker_healthcheck=START_S,
    )
    config.delay_s = settings.shutdown_delay_s
    with suppress(KeyboardInterrupt):
        if config.workers > 1:
            multiprocess.Process = _Process  # type: ignore[misc]  # of which the library makes them
            _Supervisor(config, [config.bind_socket()]).run()
            return
        server = DrainingServer(config)
        server.run()
        if not server.started:
            sys.exit(STARTUP_FAILURE)
