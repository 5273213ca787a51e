"""The service as a process of its own, for what only the end of a process shows, and the real command line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from app.settings import ROOT, Settings

SERVE = [sys.executable, "-m", "app", "serve"]
WORK = [sys.executable, "-m", "app", "work"]


@dataclass(frozen=True)
class Serving:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """Returns the variables of a process on the database of the settings."""
    secrets = {name: getattr(settings, name) for name in ("database_url", "master_key", "secret_key")}
    own = {name.upper(): value.get_secret_value() for name, value in secrets.items()}
    return {**os.environ, **own, **more}


@contextmanager
def serving(settings: Settings, **more: str) -> Iterator[Serving]:
    """Runs the service on the database of the settings, with a configuration of its own otherwise."""
    with socket.create_server(("127.0.0.1", int(more.pop("PORT", 0)))) as probe:
        port = probe.getsockname()[1]
    # With several processes, it is the first one to be ready that says so.
    ready = b"Application startup complete" if "WEB_CONCURRENCY" in more else b"Uvicorn running"
    with _running(SERVE, settings, ready, PORT=str(port), **more) as process:
        yield Serving(process, f"http://127.0.0.1:{port}")


@contextmanager
def working(settings: Settings, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a worker on the database and the providers of the settings."""
    names = ("xai_api_key", "xai_api_base")
    values = ((name, getattr(settings, name)) for name in names)
    models = {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values
        if value
    }
    models["WEBHOOK_ALLOWED_NETWORKS"] = ",".join(settings.webhook_allowed_networks)
    with _running(WORK, settings, b"worker_ready", **models, **more) as process:
        yield process


@contextmanager
def _running(command: list[str], settings: Settings, ready: bytes, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, cwd=ROOT, env=environment(settings, **more), stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            printed = []
            for line in process.stderr:
                printed.append(line)
                if ready in line:
                    break
            else:
                raise AssertionError(b"".join(printed).decode())
            yield process
        finally:
            process.kill()
