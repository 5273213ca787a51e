"""The service as a process of its own, for what only the end of a process shows, and the real command line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.settings import ROOT, Settings

SERVE = [sys.executable, "-m", "app", "serve"]


@dataclass(frozen=True)
class Serving:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(settings: Settings, **environment: str) -> Iterator[Serving]:
    """Runs the service on the database of the settings, with a configuration of its own otherwise."""
    secrets = {name: getattr(settings, name) for name in ("database_url", "master_key", "secret_key")}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = {name.upper(): value.get_secret_value() for name, value in secrets.items()}
    environment = {**os.environ, **own, "PORT": str(port), **environment}
    with subprocess.Popen(SERVE, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            printed = []
            for line in process.stderr:
                printed.append(line)
                if b"Uvicorn running" in line:
                    break
            else:
                raise AssertionError(b"".join(printed).decode())
            yield Serving(process, f"http://127.0.0.1:{port}")
        finally:
            process.kill()
