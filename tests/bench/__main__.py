"""``scripts/bench --help``."""

import os
import platform
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.errors import ConfigurationError
from tests.bench.load import Failed, check_tools
from tests.bench.report import Findings, as_json, grids
from tests.bench.run import Run

out = Console()
if not out.is_terminal:
    out.width = 160
err = Console(stderr=True)


cli = typer.Typer(pretty_exceptions_enable=False)


@cli.command()
def main(
    messages: Annotated[list[int] | None, typer.Option(min=1_000, help="How many are stored before.")] = None,
    csv: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Stored instead.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Operations that begin like this.")] = None,
    connections: Annotated[
        list[int] | None, typer.Option(min=1, max=1_000, help="That send at a time, without it 1, 8 and 32.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, max=60, help="Of each measurement.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; their medians are shown.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes of each server.")] = 1,
    pgbouncer: Annotated[
        bool, typer.Option("--pgbouncer", help="In transaction mode, before PostgreSQL, unless that is your own.")
    ] = False,
    folder: Annotated[Path | None, typer.Option("--out", file_okay=False, help="For bench.md and bench.json.")] = None,
    database_url: Annotated[str | None, typer.Option(help="A superuser's, of your own PostgreSQL.")] = None,
) -> None:
    """Measure the service beside a bare server on the same tables, and beside PostgreSQL's COPY."""
    about: dict[str, object] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "command": {"seconds": seconds, "rounds": rounds, "workers": workers, "pgbouncer": pgbouncer},
    }
    found = Findings(about, [], [], [], [])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if pgbouncer and database_url:
        raise typer.BadParameter("--pgbouncer is for the PostgreSQL that the benchmark starts.")  # it changes a role
    check_tools()
    try:
        with Progress(*columns, console=err) as progress:
            for size in [0] if csv else sorted(set(messages or [10_000, 100_000])):
                with tempfile.TemporaryDirectory(prefix="bench-") as place, ExitStack() as running:
                    run = Run(found, progress, Path(place), connections or [1, 8, 32], rounds, tuple(only or [""]))
                    run.prepare(size, csv)
                    for name in only or []:
                        if not any(each.name.startswith(name) for each in run.operations):
                            raise typer.BadParameter(f"No operation begins like {name!r}.", param_hint="--only")
                    run.start(running, database_url, workers, seconds, pgbouncer=pgbouncer)
                    run.load()
                    run.measure()
    finally:
        show(found, folder)
        for failure in found.failures:
            err.print(failure, style="red", markup=False)
    if found.failures:
        raise typer.Exit(1)


def show(found: Findings, folder: Path | None) -> None:
    """Prints what was measured so far, and writes it into a folder."""
    tables = grids(found)
    for table in tables:
        out.print(table.rich())
    if folder and tables:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.md").write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
        (folder / "bench.json").write_bytes(orjson.dumps(as_json(found), option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    try:
        cli()
    except (Failed, ConfigurationError) as error:
        err.print(str(error), style="red", markup=False)
        raise SystemExit(1) from None
