"""The application behind uvicorn, in one process or several: SIGTERM ends it gracefully, SIGINT at once."""

import _thread
import asyncio
import ctypes
import math
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryDirectory
from types import FrameType

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from app.errors import ConfigurationError
from app.protocols import PROTOCOLS, BoundedProtocol
from app.schemas.health import STOPPING
from app.settings import Settings

KEEP_ALIVE_S = 5
"""How long a connection may stay without a request; a proxy should keep its own for less."""
LAST_S = 2.0
"""How long those who have connected before nobody listens any more may take to say what they want."""
TICK_S = 0.1
START_S = 30
"""How long one of several processes may take to be ready, or not be heard of, before it is given up."""
SO_ATTACH_FILTER = 26
NO_SYN = [(0x30, 0, 0, 13), (0x45, 0, 1, 2), (6, 0, 0, 0), (6, 0, 0, 2**32 - 1)]
"""A filter of packets (classic BPF) that drops those with which a connection begins: TCP's flags are its byte 13."""
PR_SET_PDEATHSIG = 1
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus-client looks at when it is imported, which is too early in this process."""

_log = structlog.get_logger(__name__)


def check_address(settings: Settings, port_setting: str = "port") -> None:
    """Raises ``ConfigurationError`` if a server could not listen, before a minute is spent on getting there."""
    port = getattr(settings, port_setting)
    try:
        family, kind, _, _, address = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{settings.host}, port {port}"
        advice = f"Set HOST or {port_setting.upper()} to others."
        raise ConfigurationError(f"Cannot listen on {where}: {error.strerror}. {advice}") from None


@contextmanager
def worker_metrics(settings: Settings) -> Iterator[None]:
    """Tells a worker's metrics on its port, if it has one, until the block ends.

    Raises:
        ConfigurationError: if it cannot listen there.
    """
    if settings.worker_metrics_port is None:
        yield
        return
    from prometheus_client import ProcessCollector, start_http_server

    from app.metrics import registry

    try:
        server, thread = start_http_server(settings.worker_metrics_port, settings.host, registry)
    except OSError as error:
        where = f"{settings.host}, port {settings.worker_metrics_port}"
        raise ConfigurationError(f"Cannot listen on {where}: {error.strerror}. Set WORKER_METRICS_PORT.") from None
    ProcessCollector(registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
        await self._go_on(self.config.delay_s - TICK_S)
        if not sockets:  # else others listen on them, too
            for each in (each for server in self.servers for each in server.sockets):
                _deafen(each.fileno())
        await self._go_on(TICK_S)
        await self._stop_listening(sockets)
        await self._go_on(LAST_S, self._expects_a_request)

    async def _go_on(self, seconds: float, needed: Callable[[], bool] = lambda: True) -> None:
        """Serves for a while, unless another signal comes."""
        loop = asyncio.get_running_loop()
        until, ticks = loop.time() + seconds, 0
        while loop.time() < until and len(self._captured_signals) < 2 and needed():
            await asyncio.sleep(TICK_S)
            ticks += 1
            await self.on_tick(ticks)

    def _expects_a_request(self) -> bool:
        connections = self.server_state.connections
        return any(isinstance(each, BoundedProtocol) and each.cycle is None for each in connections)

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

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves; on Linux it stops when what has started it is killed, and does not keep the port from the next."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        super().target(sockets)

    def start(self) -> None:
        """Starts it."""
        super().start()
        self.child_conn.close()  # or its end would be noticed only when it has not been heard of for long

    @property
    def server(self) -> uvicorn.Server:
        """The server, made in the process itself."""
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server


class _Supervisor(multiprocess.Multiprocess):
    """Keeps processes running, and replaces one after another at SIGHUP; a second signal to end is theirs, too."""

    config: Config

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.received: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        # Elsewhere: it takes a lock that may be held by what was interrupted here.
        _thread.start_new_thread(self.should_exit.set, ())

    def restart_all(self) -> None:
        """Replaces them, each once its successor is ready, unless all are to end meanwhile."""
        for place, old in enumerate(tuple(self.processes)):
            new = _Process(self.config, self.sockets)
            new.start()
            ready = new.wait_until_ready(START_S, self.should_exit)
            if self.should_exit.is_set():
                self.processes.append(new)
                return
            if not ready:
                new.kill()
                new.join()
                _log.error("replacement_not_ready", pid=new.pid)
                return
            self.processes[place] = new
            old.terminate()
            while old.process.is_alive():
                if self.should_exit.is_set():
                    self.processes.append(old)
                    return
                old.process.join(TICK_S)

    def terminate_all(self) -> None:
        """Stops them; when none of them will listen any more, nobody can connect."""
        super().terminate_all()
        self._wait(self.config.delay_s - TICK_S)
        for each in self.sockets:
            _deafen(each.fileno())
            each.close()
        self._wait(math.inf)

    def _wait(self, seconds: float) -> None:
        """Waits for their end; tells a second signal until then, since a process sees two that come together as one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (alive := [each for each in self.processes if each.process.is_alive()]):
            for each in alive:
                if each.pid and len(self.received) > 1:
                    os.kill(each.pid, self.received[-1])
            time.sleep(TICK_S / 2)


def _deafen(listener: int) -> None:
    """Lets nobody begin to connect, where that can be done (on Linux): who tries hears nothing, and soon tries again.

    Without it, who connects between the last look and the closing of a socket is cut off.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in NO_SYN))
        with suppress(OSError), socket.socket(fileno=os.dup(listener)) as own:
            pointer = ctypes.addressof(program)
            own.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN), pointer))


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
            with TemporaryDirectory(prefix="chat-metrics-") as folder:
                os.environ[METRICS_FOLDER] = folder  # where the processes add up what they count
                supervisor = _Supervisor(config, [config.bind_socket()])
                supervisor.run()
            if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes):
                sys.exit(STARTUP_FAILURE)
            return
        server = DrainingServer(config)
        server.run()
        if not server.started:
            sys.exit(STARTUP_FAILURE)
