"""The application behind a real uvicorn on a loopback port, for what needs bytes on a wire."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from app.factory import Services, build
from app.main import create_app
from app.protocols import PROTOCOLS
from app.settings import Settings


@contextmanager
def running_server(settings: Settings) -> Iterator[str]:
    """Runs the application in a thread and yields its URL."""
    assert settings.database_url
    url = settings.database_url.get_secret_value()
    ready = threading.Event()

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        async with build(settings, url) as services:
            ready.set()
            yield services

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(open_services), **PROTOCOLS, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
