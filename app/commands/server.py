"""Commands that run the service."""

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from app.commands.common import WORKSPACE, err, out, run, with_services
from app.server import check_address, run_server, worker_metrics
from app.settings import ROOT, Settings, generate_secrets, load_settings

if TYPE_CHECKING:
    from app.factory import Services


def serve() -> None:
    """Serve the API and its docs on HOST and PORT."""
    settings = load_settings()
    check_address(settings)
    run_server(settings)


def work() -> None:
    """Carry on the jobs that the API accepts; any number of workers may."""
    from app import worker
    from app.factory import observed

    settings = load_settings()

    async def until_stopped(services: "Services") -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await worker.work(services, stopping)

    with observed(settings), worker_metrics(settings):
        run(until_stopped)


def ui() -> None:
    """Serve the interface for people on HOST and UI_PORT; it asks the API at API_URL."""
    settings = load_settings()
    check_address(settings, "ui_port")
    api_url = settings.api_url or settings.base_url
    where = [settings.host, str(settings.ui_port), api_url, settings.ui_base_url]
    # In place of this process, so that it gets the signals itself; it needs none of the service's settings and secrets.
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    environment["FORWARDED_ALLOW_IPS"] = ",".join(settings.trusted_proxies)  # which is what uvicorn goes by
    command = [sys.executable, "-m", "app.ui", *where]
    os.execve(sys.executable, command, environment)  # noqa: S606 — no shell, our own words


def migrate() -> None:
    """Bring the database to the newest schema, as `alembic upgrade head` does."""
    from alembic import command
    from alembic.config import Config

    command.upgrade(Config(ROOT / "alembic.ini"), "head")


def demo() -> None:
    """Migrate, store the sample conversations, show one summarised, then serve all: what ./scripts/run does."""
    settings = load_settings()
    check_address(settings)
    check_address(settings, "ui_port")
    from app.demo import beside, prepare
    from app.factory import database_url

    with err.status("Starting PostgreSQL ...") as status:
        generate_secrets(settings)
        with database_url(settings) as url:
            status.update("Migrating ...")
            migrate()
            status.stop()
            asyncio.run(with_services(settings, url, lambda services: prepare(services, WORKSPACE, settings, out)))
            out.print(f"Docs: [link]{settings.base_url}/docs[/link]   Stop: Ctrl-C")
            out.print(f"Interface: [link]{settings.ui_base_url}[/link]")
            with beside("work"), beside("ui"):
                run_server(settings)
