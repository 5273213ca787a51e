"""Commands that load conversations, and compare what is made of them."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from app.commands.common import WORKSPACE, WorkspaceName, err, out, run
from app.errors import ConfigurationError
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.services.records import FIELDS, CsvRows
from app.settings import load_settings

if TYPE_CHECKING:
    from app.factory import Services


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

    if run(load):
        raise typer.Exit(1)


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

    def with_feedback(action: "Callable[[Services | None], Awaitable[None]]") -> None:
        if feedback:
            run(action)
        else:
            asyncio.run(_awaited(action(None)))

    with err.status("Reading ..."):
        with_feedback(lambda services: found.prepare(file, services, feedback, limit))
    agree(found, err, yes=yes)
    with bars(err) as progress:
        try:
            found.measure_here(progress)
            with_feedback(lambda services: found.measure(services, feedback, settings.llm_deadline_s, progress))
        except KeyboardInterrupt:
            found.interrupted = True
    if as_json:
        sys.stdout.write(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        out.print(found.shown())
    if found.interrupted:
        raise typer.Exit(128 + signal.SIGINT)


async def _awaited(action: Awaitable[None]) -> None:
    await action
