"""What a client may send before its request begins."""

import socket
from urllib.parse import urlsplit

import pytest

from app.server import HEADER_BYTES
from app.settings import Settings
from tests.support.server import running_server


def test_headers_without_end_are_refused_and_long_bodies_are_not(settings: Settings) -> None:
    with running_server(settings) as url:
        where = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(where, timeout=10) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
            with pytest.raises(OSError):  # the server closes the connection
                connection.sendall(b"x" * HEADER_BYTES * 1_000)
        with socket.create_connection(where, timeout=10) as connection:
            for _ in range(2):
                body = b"x" * HEADER_BYTES * 20
                head = (
                    f"POST /chats HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nContent-Type: text/csv\r\n\r\n"
                )
                connection.sendall(head.encode() + body)
                answer = b""
                while b'"request_id"' not in answer:
                    answer += connection.recv(4_096)
                assert answer.startswith(b"HTTP/1.1 401")
