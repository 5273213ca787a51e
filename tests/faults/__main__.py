"""``scripts/faults --help``."""

import asyncio
import gc
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.errors import ConfigurationError
from tests.bench.load import Failed
from tests.bench.report import Grid
from tests.faults.node import Node, node
from tests.faults.run import ACTS, Finding, full_disk, kill_worker, migrations, opened, rolling, tried

COLUMNS = ("requests", "acknowledged", "stored", "doubled", "lost", "answers", "longest s", "back s", "livez ms")
OTHERS = ("kill worker", "full disk", "two migrations", "rolling restart")

out = Console()
if not out.is_terminal:
    out.width = 200
err = Console(stderr=True)

cli = typer.Typer(pretty_exceptions_enable=False)


@cli.command()
def main(
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Faults that begin like this.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="How long a fault lasts.")] = 4,
    file: Annotated[Path | None, typer.Option("--out", dir_okay=False, help="For the table as Markdown.")] = None,
) -> None:
    """Cause faults under load; exit with 1 if a message is lost or doubled, or another promise is broken.

    It starts everything itself, in a temporary folder. The full disk takes the right to mount one, and rolling restarts
    take nginx and PgBouncer; what cannot be run is told.
    """
    names = [name for name in (*ACTS, *OTHERS) if name.startswith(tuple(only or [""]))]
    if not names:
        raise typer.BadParameter(f"There are {', '.join((*ACTS, *OTHERS))}.", param_hint="--only")
    gc.freeze()
    began = time.monotonic()
    findings: list[Finding] = []
    try:
        asyncio.run(_run(names, seconds, findings))
    finally:
        table = grid(findings)
        out.print(table.rich())
        if file:
            file.write_text(table.markdown(), encoding="utf-8")
        for finding in findings:
            for promise in finding.broken:
                err.print(f"{finding.fault}: {promise}.", style="red", markup=False)
        err.print(f"{time.monotonic() - began:.0f} s")
    if any(finding.broken for finding in findings):
        raise typer.Exit(1)


async def _run(names: list[str], seconds: float, findings: list[Finding]) -> None:
    async def note(name: str, acting: Awaitable[Finding]) -> None:
        err.print(f"{name} ...")
        try:
            findings.append(await acting)
        except Exception as error:  # noqa: BLE001 — the other faults are worth knowing all the same
            findings.append(Finding(name, broken=[f"this could not be measured: {error!r}"]))

    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        root = Path(place)
        root.chmod(0o755)  # noqa: ASYNC240
        if under := [name for name in names if name in ACTS]:
            with _node(root / "acts") as running:
                async with opened(root / "acts", running, seconds) as scene:
                    for name in under:
                        await note(name, tried(scene, name, ACTS[name]))
        others: dict[str, Callable[[Path, Node], Awaitable[Finding]]] = {
            "kill worker": kill_worker,
            "two migrations": lambda _, running: migrations(running),
            "rolling restart": lambda folder, running: rolling(folder, running, seconds),
        }
        for name in (name for name in names if name in OTHERS):
            folder = root / name.replace(" ", "-")
            if name == "full disk":
                folder.mkdir()
                await note(name, full_disk(folder, seconds))
                continue
            with _node(folder) as running:
                await note(name, others[name](folder, running))


@contextmanager
def _node(folder: Path) -> Iterator[Node]:
    folder.mkdir()
    with node(folder / "pg") as running:
        yield running


def grid(findings: list[Finding]) -> Grid:
    """Returns the findings as a table."""
    cells = [
        (finding.fault, *(finding.figures.get(name, "") for name in COLUMNS), verdict(finding)) for finding in findings
    ]
    return Grid("Faults", ("fault", *COLUMNS, "promises"), list(cells))


def verdict(finding: Finding) -> str:
    """Returns in a word or more whether the promises held."""
    if finding.not_run:
        return f"not run: {finding.not_run}"
    return f"broken: {', '.join(finding.broken)}" if finding.broken else "held"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    try:
        cli()
    except (Failed, ConfigurationError) as error:
        err.print(str(error), style="red", markup=False)
        raise SystemExit(1) from None
