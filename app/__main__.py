"""The command line: ``python -m app --help``."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from app.errors import ConfigurationError, Problem
from app.logs import configure_logs
from app.schemas.accounts import KeyIn, PageQuery
from app.schemas.chats import PAGE_SIZE
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.server import check_address, run_server
from app.services.records import FIELDS, CsvRows
from app.settings import Settings, generate_secrets, load_settings

# What opens the services takes a second to import: a command does so itself, after what it can refuse at once.
if TYPE_CHECKING:
    from app.factory import Services

T = TypeVar("T")

WORKSPACE = "demo"
"""Where the sample conversations go."""

cli = typer.Typer(help="Chat Summarization and Insights API.", no_args_is_help=True, pretty_exceptions_enable=False)
workspaces = typer.Typer(help="Make and list workspaces.", no_args_is_help=True)
keys = typer.Typer(help="Make, list and revoke API keys; rotate the master key.", no_args_is_help=True)
cli.add_typer(workspaces, name="workspaces")
cli.add_typer(keys, name="keys")

out = Console()
err = Console(stderr=True)


def _name(text: str) -> str:
    if not 1 <= len(text) <= 255 or not text.isprintable():
        raise typer.BadParameter("1 to 255 printable characters")
    return text


WorkspaceName = Annotated[str, typer.Option("--workspace", "-w", help="Name of the workspace.", callback=_name)]


@cli.command()
def serve() -> None:
    """Serve the API and its docs on HOST and PORT."""
    settings = load_settings()
    check_address(settings)
    run_server(settings)


@cli.command()
def work() -> None:
    """Carry on the jobs that the API accepts; any number of workers may."""
    from app import worker

    settings = load_settings()
    configure_logs(settings.log_level)

    async def until_stopped(services: "Services") -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await worker.work(services, stopping)

    _run(until_stopped)


@cli.command()
def ui() -> None:
    """Serve the interface for people on HOST and UI_PORT; it asks the API at API_URL."""
    settings = load_settings()
    check_address(settings, "ui_port")
    api_url = settings.api_url or settings.base_url
    where = [settings.host, str(settings.ui_port), api_url, settings.ui_base_url]
    # In place of this process: it needs nothing of the service's, and gets the signals itself.
    os.execv(sys.executable, [sys.executable, "-m", "app.ui", *where])  # noqa: S606 — no shell, our own words


@cli.command()
def migrate() -> None:
    """Bring the database to the newest schema, as `alembic upgrade head` does."""
    from alembic import command
    from alembic.config import Config

    command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")


@cli.command()
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
            asyncio.run(_with_services(settings, url, lambda services: prepare(services, WORKSPACE, settings, out)))
            out.print(f"Docs: [link]{settings.base_url}/docs[/link]   Stop: Ctrl-C")
            out.print(f"Interface: [link]{settings.ui_base_url}[/link]")
            with beside("work"), beside("ui"):
                run_server(settings)


@cli.command()
def seed(
    files: Annotated[list[Path] | None, typer.Argument(exists=True, dir_okay=False, help="CSV files.")] = None,
    workspace: WorkspaceName = WORKSPACE,
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=NAME", help="The file's name of a message's field.")
    ] = None,
) -> None:
    """Load CSV files, or the sample data; what is stored already is counted as duplicates.

    Columns that are no field of a message are left out.
    """
    names = [pair.partition("=") for pair in column or []]
    if wrong := [field for field, _, name in names if field not in FIELDS or not name]:
        raise ConfigurationError(f"--column {wrong[0]}: write FIELD=NAME with one of {', '.join(FIELDS)}.")
    columns = {name: field for field, _, name in names}
    from app.demo import SAMPLES, import_csv

    async def load(services: "Services") -> int:
        row, _ = await services.workspaces.get_or_create(workspace)
        viewer = Viewer(row.workspace_id, Role.EDITOR)
        rejected = 0
        for file in files or SAMPLES:
            report = await import_csv(services, viewer, file, CsvRows(columns, ignore_unknown=True), out)
            for error in report.errors:
                err.print(f"  {file.name}:{error.line}: {error.code}: {error.detail}", markup=False)
            rejected += report.rejected
        return rejected

    if _run(load):
        raise typer.Exit(1)


@cli.command()
def evaluate(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="Dialogues with references, JSON lines.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="What to compare, such as xai/grok-4.3; by default the configured models and the engine."),
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="A folder of prompts instead of the own ones."),
    ] = None,
    feedback: Annotated[
        str | None, typer.Option(metavar="WORKSPACE", help="Also the conversations with feedback of a workspace.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How much feedback, the newest first.")] = 200,
    yes: Annotated[bool, typer.Option("--yes", help="Spend what providers cost without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare models and prompts on dialogues with reference summaries, and on feedback, beside baselines."""
    if file is None and feedback is None:
        raise ConfigurationError("Name a FILE of dialogues, or a workspace whose --feedback counts.")
    from app.evaluate import Comparison, agree, bars, candidates

    settings = load_settings()
    found = Comparison(candidates(settings, model or [], prompts or []))

    def run(action: "Callable[[Services | None], Awaitable[None]]") -> None:
        if feedback:
            _run(action)
        else:
            asyncio.run(_awaited(action(None)))

    with err.status("Reading ..."):
        run(lambda services: found.prepare(file, services, feedback, limit))
    agree(found, err, yes=yes)
    with bars(err) as progress:
        try:
            found.measure_here(progress)
            run(lambda services: found.measure(services, feedback, settings.llm_deadline_s, progress))
        except KeyboardInterrupt:
            found.interrupted = True
    if as_json:
        sys.stdout.write(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        out.print(found.shown())
    if found.interrupted:
        raise typer.Exit(128 + signal.SIGINT)


@workspaces.command("create")
def create_workspace(name: Annotated[str, typer.Argument(callback=_name)]) -> None:
    """Make a workspace."""
    row, created = _run(lambda services: services.workspaces.get_or_create(name))
    out.print(f"Workspace {row.name}: {'made' if created else 'exists already'}.", markup=False)


@workspaces.command("list")
def list_workspaces() -> None:
    """List the workspaces."""
    table = Table("name", "id", "master key", "made at")
    for row in _run(lambda services: services.workspaces.all()):
        table.add_row(escape(row.name), str(row.workspace_id), row.master_key_id, f"{row.created_at:%Y-%m-%d %H:%M}")
    out.print(table)


@keys.command("create")
def create_key(
    workspace: WorkspaceName,
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="What the key is for.", callback=_name)] = "-",
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36_500)] = None,
) -> None:
    """Make an API key and print it, and nothing else; it is never shown again. A new workspace is made if needed."""

    async def create(services: "Services") -> str:
        row, created = await services.workspaces.get_or_create(workspace)
        if created:
            err.print(f"Workspace {row.name} made.", markup=False)
        expires_at = datetime.now(UTC) + timedelta(days=expires_in_days) if expires_in_days else None
        wanted = KeyIn(name=name, role=role, expires_at=expires_at)
        return (await services.keys.create(Viewer(row.workspace_id, Role.ADMIN), wanted)).key

    sys.stdout.write(_run(create) + "\n")


@keys.command("list")
def list_keys(workspace: WorkspaceName) -> None:
    """List a workspace's API keys, without the keys themselves."""

    async def find(services: "Services") -> Table:
        table = Table(Column("id", no_wrap=True, min_width=19), "name", "role", "made at", "expires at", "last used at")
        row = await services.workspaces.named(workspace)
        viewer, query = Viewer(row.workspace_id, Role.ADMIN), PageQuery(limit=PAGE_SIZE)
        while True:
            page = await services.keys.page(viewer, query)
            for key in page.data:
                times = (key.created_at, key.expires_at, key.last_used_at)
                shown = (f"{time:%Y-%m-%d %H:%M}" if time else "" for time in times)
                table.add_row(key.id, escape(key.name), key.role, *shown)
            if page.next_cursor is None:
                return table
            query = PageQuery(limit=PAGE_SIZE, cursor=page.next_cursor)

    out.print(_run(find))


@keys.command("revoke")
def revoke_key(workspace: WorkspaceName, key_id: Annotated[int, typer.Argument(min=1, max=2**63 - 1)]) -> None:
    """Delete an API key; every instance refuses it within 5 seconds."""

    async def revoke(services: "Services") -> None:
        row = await services.workspaces.named(workspace)
        await services.keys.delete(Viewer(row.workspace_id, Role.ADMIN), key_id)

    _run(revoke)
    out.print(f"Key {key_id} revoked.")


@keys.command("rotate-master")
def rotate_master() -> None:
    """Put every workspace's data key under MASTER_KEY; those in PREVIOUS_MASTER_KEYS are not needed afterwards."""
    with err.status("Wrapping ...") as status:
        changed = _run(
            lambda services: services.workspaces.rewrap(lambda done, total: status.update(f"{done} of {total} ..."))
        )
    out.print(f"{changed} data keys wrapped anew.")


async def _awaited(action: Awaitable[T]) -> T:
    return await action


async def _with_services(settings: Settings, url: str, action: "Callable[[Services], Awaitable[T]]") -> T:
    from app.factory import build

    async with build(settings, url) as services:
        return await action(services)


def _run(action: "Callable[[Services], Awaitable[T]]") -> T:
    """Does something with the services of the configured database."""
    from app.factory import database_url

    settings = load_settings()
    with database_url(settings) as url:
        return asyncio.run(_with_services(settings, url, action))


def main() -> None:
    """Runs a command; what goes wrong foreseeably is one message, not a traceback."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    # Without this the end of the process, or of its terminal, would leave the embedded PostgreSQL behind.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    configure_logs("warning")
    gc.set_threshold(10_000)  # imports leave little garbage: to look for it took a seventh of the start
    try:
        cli()
    except (ConfigurationError, Problem) as error:
        err.print(str(error), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
