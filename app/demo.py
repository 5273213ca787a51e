"""The first minutes: sample conversations stored, one of them found, summarised and analysed; what else is run."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import anyio
import structlog
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.errors import Unauthenticated
from app.factory import Services
from app.schemas.accounts import KeyIn
from app.schemas.analyses import AnalysisRequest, Insights, Item, Question, Summary
from app.schemas.chats import ConversationPage, Imported
from app.schemas.enums import Role
from app.schemas.search import ConversationQuery, MessageQuery
from app.schemas.viewer import Viewer
from app.services.auth import Door
from app.services.records import CsvRows
from app.settings import Settings, write_secret

SAMPLES = [
    Path(__file__).parent.parent / "data" / name
    for name in ("star_sample.csv", "pc_support_sample.csv", "abcd_sample.csv")
]
CONVERSATION = "abcd-3592"
SEARCH = '"wrong size" or refund'
PAUSE_S = 1.0
"""How long what ended stays so at the most; one that cannot start is started as often."""

_log = structlog.get_logger(__name__)


@contextmanager
def beside(command: str) -> Iterator[None]:
    """Runs a command, again whenever it ends; a process of its own: a job that ends a worker leaves the API alone."""
    stopping = Event()

    def keep() -> None:
        while not stopping.is_set():
            # In a session of its own, where Ctrl-C does not end it before the server.
            own = [sys.executable, "-m", "app", command]
            with subprocess.Popen(own, start_new_session=True) as process:  # noqa: S603 — no shell, our own words
                while not stopping.wait(PAUSE_S) and process.poll() is None:
                    pass
                process.terminate()
            if not stopping.is_set():
                _log.warning("process_ended", command=command, code=process.returncode)

    keeper = Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join()


async def prepare(services: Services, name: str, settings: Settings, console: Console) -> None:
    """Stores the samples in a workspace and makes an admin key, unless it did; then shows what a developer gets."""
    key_file = settings.data_dir / "admin_key"
    if await _works(services, key_file):
        console.print(f"Sample data and admin key are there ([cyan]{escape(str(key_file))}[/]).")
        return
    workspace, _ = await services.workspaces.get_or_create(name)
    for file in SAMPLES:
        await import_csv(services, Viewer(workspace.workspace_id, Role.EDITOR), file, CsvRows(), console)
    operator = Viewer(workspace.workspace_id, Role.ADMIN)
    key = (await services.keys.create(operator, KeyIn(name="demo", role=Role.ADMIN))).key
    viewer = await services.auth.viewer(Door.BEARER, key)
    with console.status("Reading a conversation: the first time loads the language-model library ..."):
        summary = await services.summaries.make(viewer, AnalysisRequest(conversation_id=CONVERSATION))
        insights = await services.insights.make(viewer, AnalysisRequest(conversation_id=CONVERSATION))
    page, _ = await services.chats.page(viewer, CONVERSATION, MessageQuery())
    assert page
    found = await services.search.page(viewer, ConversationQuery(q=SEARCH))
    matches = [(item, match) for item in found["data"] for match in item.get("matches") or []]
    hits = [f"{item['conversation_id']}: {match['snippet']}" for item, match in matches]
    console.print(_conversation(page), _panel(f"Found by {SEARCH}", *hits), _summary(summary), _insights(insights))
    write_secret(key_file, key, replace=True)
    console.print(f"An admin API key is in [cyan]{escape(str(key_file))}[/].")


async def import_csv(services: Services, viewer: Viewer, file: Path, reader: CsvRows, console: Console) -> Imported:
    """Stores a CSV file through the same import as the API and says what came of it."""
    time = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), time)
    with Progress(*columns, console=console) as progress:
        size = (await anyio.Path(file).stat()).st_size
        task = progress.add_task(f"Storing {escape(file.name)}", total=size)
        report = await services.imports.run(viewer, reader, _blocks(file), lambda read: progress.advance(task, read))
    console.print(f"  {report.stored:,} stored, {report.duplicates:,} duplicates, {report.rejected:,} rejected")
    return report


async def _blocks(file: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(file, "rb") as stream:
        while block := await stream.read(2**20):
            yield block


async def _works(services: Services, key_file: Path) -> bool:
    try:
        await services.auth.viewer(Door.BEARER, (await anyio.Path(key_file).read_text()).strip())
    except (FileNotFoundError, Unauthenticated):
        return False
    return True


def _conversation(page: ConversationPage) -> Panel:
    table = Table.grid(padding=(0, 1))
    for message in page["messages"]:
        table.add_row(f"[bold]{message['user_type'].replace('support_', '')}[/]", escape(message["message_content"]))
    return _panel(f"Conversation {page['conversation_id']}", table)


def _summary(summary: Summary) -> Panel:
    lines = [
        escape(summary.summary),
        f"[bold]sentiment[/] {summary.sentiment}   [bold]outcome[/] {summary.outcome}",
        f"[bold]keywords[/] {escape(', '.join(summary.keywords))}",
    ]
    lists: tuple[tuple[str, list[Item]], ...] = (
        ("action items", [*summary.action_items]),
        ("decisions", summary.decisions),
        ("questions", [*summary.questions]),
    )
    for name, items in lists:
        lines += [f"[bold]{name}[/]", *(f"  - {_line(item)}" for item in items)] if items else []
    return _panel(f"Summary by {summary.provenance.model} in {summary.provenance.latency_ms} ms", *lines)


def _line(item: Item) -> str:
    return escape(item.text) + (f" [dim]({item.status})[/]" if isinstance(item, Question) else "")


def _insights(insights: Insights) -> Panel:
    outcome, feeling = insights.outcome, insights.sentiment
    lines = [
        f"[bold]sentiment[/] {feeling.label} ({feeling.score:+.2f}), confidence {feeling.confidence:.0%}",
        f"[bold]outcome[/] {outcome.label}, confidence {outcome.confidence:.0%}: {escape(outcome.reason)}",
        f"[bold]resolution[/] {escape(insights.resolution)}",
    ]
    if effort := insights.customer_effort:
        lines.append(f"[bold]customer effort[/] {effort.label} ({effort.score:.2f}): {escape(effort.reason)}")
    if risk := insights.escalation_risk:
        reasons = " ".join(reason.text for reason in risk.reasons)
        lines.append(f"[bold]escalation risk[/] {risk.label} ({risk.score:.2f}) {escape(reasons)}")
    if insights.topics:
        lines.append(f"[bold]topics[/] {escape(', '.join(insights.topics))}")
    return _panel("Insights", *lines)


def _panel(title: str, *content: RenderableType) -> Panel:
    return Panel(Group(*content), title=escape(title), title_align="left")
