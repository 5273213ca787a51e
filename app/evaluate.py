"""Comparing models and prompts at the command line: what it will cost, how far it is, and the table."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Column, Table

from app.errors import ConfigurationError
from app.factory import Services, configured_models, hop
from app.llm.dialogues import Dialogue, read
from app.llm.evaluation import Case, Engine, Rouge, Row, Scorer, measure, measure_baselines, measure_engine
from app.llm.gateway import Free
from app.llm.hops import Ledger
from app.llm.local.engine import LOCAL_MODEL
from app.llm.tasks import PROMPTS, SUMMARY, summary_task
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.services.evaluation import Candidate, Ratings, compare, estimate
from app.settings import Settings

_HEADINGS = ("R-1", "R-2", "R-L", "Evid.", "Schema", "Failed", "Sent.", "Outc.", "USD", "p50", "p95", "Words")


@dataclass
class Comparison:
    """What is compared on what, and what was measured so far; estimates are US dollars, None without a price."""

    candidates: list[Candidate]
    dialogues: list[Dialogue] = field(default_factory=list)
    ratings: list[Ratings] | None = None
    estimates: dict[Candidate, float | None] = field(default_factory=dict)
    baselines: dict[str, Rouge] = field(default_factory=dict)
    engine: Engine | None = None
    cases: dict[Candidate, list[Case]] = field(default_factory=dict)
    interrupted: bool = False

    async def prepare(self, file: Path | None, services: Services | None, workspace: str | None, limit: int) -> None:
        """Reads the dialogues of a file, and those of a workspace's newest feedback, and estimates the costs.

        Raises:
            ConfigurationError: if there are none, or the file cannot be read.
            NotFound: if there is no such workspace.
        """
        if file:
            try:
                self.dialogues += read(file)
            except ValueError as error:
                raise ConfigurationError(str(error)) from None
        if services and workspace:
            said, self.ratings = await services.evaluation.said(await _operator(services, workspace), limit)
            self.dialogues += said
        if not self.dialogues:
            raise ConfigurationError(f"Nobody has said anything about a summary of {workspace} yet.")
        self.estimates = {each: await estimate(each, self.dialogues) for each in self.candidates}

    def measure_here(self, progress: Progress) -> None:
        """Measures the baselines, and the built-in engine if it is among those compared."""
        size = len(self.dialogues)
        self.baselines = measure_baselines(Scorer(), self.dialogues, _bar(progress, "Baselines", size))
        if any(each.hop is None for each in self.candidates):
            self.engine = measure_engine(self.dialogues, _bar(progress, "Built-in engine", size))

    async def measure(
        self, services: Services | None, workspace: str | None, deadline_s: float, progress: Progress
    ) -> None:
        """Asks every model about every dialogue; with a workspace its budgets hold, and every call is a row."""
        ledger: Callable[[], Ledger] = Free
        if services and workspace:
            caller = (await _operator(services, workspace)).caller
            ledger = partial(services.usage.ledger, caller, SUMMARY.name)
        bar = _bar(progress, "Models", len(self.dialogues) * len(self.candidates))

        def done(candidate: Candidate, case: Case) -> None:
            self.cases.setdefault(candidate, []).append(case)
            bar()

        await compare(self.candidates, self.dialogues, ledger, deadline_s=deadline_s, done=done)

    def rows(self) -> list[Row]:
        """Returns the rows of those that were asked."""
        scorer = Scorer()
        return [
            measure(
                scorer,
                each.model,
                each.task.folder.name if each.hop else None,
                each.task.version if each.hop else None,
                self.cases[each],
                priced=self.estimates[each] is not None,
            )
            for each in self.candidates
            if each in self.cases
        ]

    def as_json(self) -> dict[str, Any]:
        """Shapes it for ``--json``: the built-in engine's own measures at the top, then everything."""
        rows = self.rows()
        local = next((row for row in rows if row.model == LOCAL_MODEL), None)
        top: dict[str, Any] = {}
        if local and self.engine:
            top = {
                **{name: getattr(local, name) or 0.0 for name in ("rouge1", "rouge2", "rougeL")},
                "sentiment_accuracy": local.sentiment_accuracy,
                "outcome_accuracy": local.outcome_accuracy,
                "summary_words": local.summary_words,
                **asdict(self.engine),
            }
        return {
            **top,
            "dialogues": len(self.dialogues),
            "with_references": sum(bool(dialogue.references) for dialogue in self.dialogues),
            "baselines": {name: asdict(rouge) for name, rouge in self.baselines.items()},
            "rows": [asdict(row) for row in rows],
            "ratings": None if self.ratings is None else [asdict(each) for each in self.ratings],
            "estimated_usd": {_title(each): usd for each, usd in self.estimates.items()},
            "interrupted": self.interrupted,
        }

    def shown(self) -> RenderableType:
        """Draws it: one table, what needs more words below, and the ratings."""
        rows = self.rows()
        answered = sum(bool(dialogue.references) for dialogue in self.dialogues)
        table = Table(
            Column("Model, prompts", overflow="fold"),
            *(Column(heading, justify="right") for heading in _HEADINGS),
            title=f"{len(self.dialogues)} dialogues, {answered} with reference summaries",
            caption="Interrupted: what was measured until then." if self.interrupted else None,
            box=box.SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
        )
        for row in rows:
            name = escape(row.model)
            if row.prompts:
                name += f"\n[dim]{escape(row.prompts)}\n{row.prompt_version}[/]"
            table.add_row(name, *_figures(row))
        for baseline, rouge in self.baselines.items():
            table.add_row(baseline, *(f"{100 * value:.1f}" for value in asdict(rouge).values()))
        parts: list[RenderableType] = [table, "\n".join(self._notes(rows))]
        if self.ratings is not None:
            parts.append(_ratings(self.ratings))
        return Group(*parts)

    def _notes(self, rows: Sequence[Row]) -> list[str]:
        notes = [
            "R: ROUGE F1. Evid.: items whose quotes were found. Schema: calls whose answer did not validate.",
            "Failed: dialogues without a valid answer. Sent., Outc.: labels right. All of these in %.",
            "USD: cost of a dialogue. p50, p95: milliseconds. Words: of a summary.",
        ]
        for row in rows:
            if row.failure_reasons:
                told = ", ".join(f"{reason} {count}" for reason, count in row.failure_reasons.items())
                notes.append(f"{escape(row.model)}{f' ({escape(row.prompts)})' if row.prompts else ''}: {told}")
        if self.engine:
            rates = {
                "summaries with an invented number or name": self.engine.invented,
                "quotes found word for word": self.engine.evidence_found,
                "top five keywords found in a human summary": self.engine.keywords_in_reference,
            }
            told = "; ".join(f"{name} {100 * rate:.1f} %" for name, rate in rates.items() if rate is not None)
            notes.append(f"Built-in engine: {told}")
        return notes


def candidates(settings: Settings, models: Sequence[str], folders: Sequence[Path]) -> list[Candidate]:
    """Returns each model with each folder of prompts; by default the configured models and the built-in engine.

    Raises:
        ConfigurationError: if a model cannot be asked, or a folder holds no prompt.
    """
    names = {file.name for file in PROMPTS.glob("*.md")}
    for folder in folders:
        if not any((folder / name).is_file() for name in names):
            raise ConfigurationError(f"{folder} holds no prompt: none of {', '.join(sorted(names))}.")
    try:
        tasks = {task.version: task for task in map(summary_task, map(Path.resolve, folders))} or {"": SUMMARY}
    except UnicodeDecodeError:
        raise ConfigurationError("A prompt is not UTF-8.") from None
    found: list[Candidate] = []
    for model in dict.fromkeys(models or [*configured_models(settings), LOCAL_MODEL]):
        if model == LOCAL_MODEL:
            found.append(Candidate(model, None, SUMMARY))
            continue
        if "/" not in model:
            raise ConfigurationError(f"{model}: write a model as provider/name, such as {LOCAL_MODEL}.")
        way = hop(settings, model)
        found += [Candidate(model, way, task) for task in tasks.values()]
    if folders and all(each.hop is None for each in found):
        raise ConfigurationError("The built-in engine reads no prompts: name a --model that does.")
    return found


def agree(comparison: Comparison, console: Console, *, yes: bool) -> None:
    """Says what asking the providers will cost, and asks whether to, unless ``yes``; the built-in engine is free.

    Raises:
        ConfigurationError: if nobody is there to be asked.
        typer.Abort: if the answer is no.
    """
    asked = [each for each in comparison.candidates if each.hop]
    if not asked:
        return
    for each in asked:
        usd = comparison.estimates[each]
        price = "a price that is not known" if usd is None else f"about {usd:.4f} USD"
        console.print(
            f"{_title(each)}: {len(comparison.dialogues)} dialogues for {price}", markup=False, soft_wrap=True
        )
    total = sum(comparison.estimates[each] or 0.0 for each in asked)
    console.print(f"About {total:.4f} USD altogether.")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("This costs money: say --yes if it may.")
    typer.confirm("Ask them?", abort=True, err=True)


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Yields progress bars, unseen where nobody looks; failures are not logged meanwhile, for the table counts them."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    logging.disable(logging.WARNING)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            yield progress
    finally:
        logging.disable(logging.NOTSET)


def _bar(progress: Progress, title: str, total: int) -> Callable[[], None]:
    task = progress.add_task(title, total=total)
    return lambda: progress.advance(task)


async def _operator(services: Services, workspace: str) -> Viewer:
    return Viewer((await services.workspaces.named(workspace)).workspace_id, Role.ADMIN)


def _title(candidate: Candidate) -> str:
    return (
        f"{candidate.model} ({candidate.task.folder.name}, {candidate.task.version})" if candidate.hop else LOCAL_MODEL
    )


def _figures(row: Row) -> list[str]:
    rates = (
        *(row.rouge1, row.rouge2, row.rougeL, row.evidence_rate, row.schema_failure_rate),
        *(row.failures / row.dialogues, row.sentiment_accuracy, row.outcome_accuracy),
    )
    return [
        *("-" if rate is None else f"{100 * rate:.1f}" for rate in rates),
        "-" if row.cost_usd_per_dialogue is None else f"{row.cost_usd_per_dialogue:.4f}",
        *("-" if each is None else f"{each:.0f}" for each in (row.latency_ms_median, row.latency_ms_p95)),
        "-" if row.summary_words is None else f"{row.summary_words:.1f}",
    ]


def _ratings(ratings: Sequence[Ratings]) -> Table:
    table = Table(
        *("Prompts", "Model"),
        *(Column(heading, justify="right") for heading in ("Up", "Down")),
        title="How people rated the summaries of a version",
        box=box.SIMPLE_HEAD,
    )
    for each in ratings:
        table.add_row(escape(each.prompt_version), escape(each.model), str(each.up), str(each.down))
    return table
