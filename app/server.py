"""The application behind uvicorn, with a bound on what a client may send before its request begins."""

import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import ConfigurationError
from app.settings import Settings

HEADER_BYTES = 2**16
"""How much may come before the headers are complete; the parser's time grows with the square of a header's length."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers are bounded."""

    _unread = 0

    def data_received(self, data: bytes) -> None:
        """Takes bytes of the connection, unless its headers have become too long."""
        if self._unread > HEADER_BYTES:
            self.send_400_response("The headers are too long.")
            return
        self._unread += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Lets a body of any length follow."""
        super().on_headers_complete()
        self._unread = -(2**62)

    def on_message_complete(self) -> None:
        """Counts anew for the next request of the connection."""
        super().on_message_complete()
        self._unread = 0


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


def run_server(settings: Settings) -> None:
    """Serves until a signal ends it; requests in flight have ten seconds to finish."""
    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application knows which proxies are trusted
        timeout_graceful_shutdown=10,
    )
