"""Reading a whole conversation: by Grok, by Gemini, or by the built-in engine, and always within a deadline."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from app.errors import Unavailable
from app.llm.batch import Chat, read_together, shares
from app.llm.chunking import earlier, split
from app.llm.hops import Hop, Hops, Ledger, NoAnswer, Run, Usage
from app.llm.local.engine import LOCAL_MODEL, answer
from app.llm.local.text import MESSAGE_CHARS
from app.llm.privacy import Pseudonyms
from app.llm.streaming import FIELD, Edited, Listener
from app.llm.tasks import Task
from app.metrics import analyses
from app.schemas.analyses import Provenance
from app.schemas.drafts import TURNS, Draft, SummariesDraft, SummaryDraft, Turn

D = TypeVar("D", bound=Draft)
T = TypeVar("T")

AT_ONCE = 4
"""How many parts of a conversation are read at the same time."""
LOCAL_S = 60.0
LOCAL_S_PER_CHARACTER = 1e-5
"""What the built-in engine takes at the most: so much of the deadline is kept for it."""
CHARACTERS_PER_MESSAGE = 10
"""A message takes the built-in engine as long as so many characters more."""

NANO = 10**9
"""Money is counted in billionths of a US dollar, as it is stored."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer(Generic[D]):
    """A valid answer, who gave it, and on how many messages it rests; ``updated`` if made from an earlier one."""

    draft: D
    provenance: Provenance
    messages_read: int
    updated: bool = False


@dataclass(frozen=True, slots=True)
class Update(Generic[D]):
    """What was answered before, and the messages that came since."""

    before: D
    new: Sequence[Turn]


class Together(NamedTuple):
    """Answers for several conversations, and what was paid, in US dollars, if there is none."""

    answers: list[Answer[SummaryDraft] | None]
    lost_usd: float = 0.0


class Free:
    """The ledger of who pays nothing: evaluation at the command line."""

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        """Returns any number."""
        return 0

    async def settle(self, call_id: int, outcome: str, usage: Usage) -> None:
        """Writes nothing down."""


class Gateway:
    """The models in the order they are asked; the last one is always the built-in engine."""

    def __init__(self, hops: Sequence[Hop], *, deadline_s: float = 60.0) -> None:
        self._hops = Hops(hops)
        self._first = hops[0].model if hops else LOCAL_MODEL
        self.deadline_s = deadline_s

    async def answer(
        self,
        task: Task[D],
        turns: Sequence[Turn],
        ledger: Ledger | None = None,
        update: Update[D] | None = None,
        *,
        redact: bool = True,
        conversation_id: str = "",
        listener: Listener | None = None,
        ends_at: float | None = None,
    ) -> Answer[D]:
        """Returns an answer for a whole conversation; what failed before it stands in its provenance.

        With an update a model reads only that, if it is not too long; the built-in engine always reads everything. With
        ``redact`` providers see placeholders, and what they say of them is put right.

        A conversation that is longer than what a model reads at once is read in parts, and the answers are merged. A
        listener is told the text of the answer while it is written, and in the end all of it; of the parts nothing.

        The deadline begins now, unless ``ends_at`` says when it ends, in seconds of the loop's clock.
        """
        started = time.perf_counter()
        if ends_at is None:
            ends_at = asyncio.get_running_loop().time() + self.deadline_s
        run = Run(ends_at - _engine_s(turns), ledger or Free())
        read = len(turns)
        updated = False
        try:
            names = await self._built(run, lambda: _names(turns, conversation_id)) if redact and self._hops else None
            shown = await self._built(run, lambda: _shown(update, turns, names)) if update else ""
            updated = bool(update and self._hops and len(shown) <= self._hops.room)
            revealing = Edited(listener, names.reveal_start) if listener and names else listener
            if updated:
                draft = await self._hops.ask(task, task.update, shown, run, revealing)
            else:
                draft = await self._by_providers(task, names.hidden if names else turns, run, revealing)
            draft = await asyncio.to_thread(names.reveal, draft) if names else draft
        except NoAnswer:
            draft, updated = await _by_engine(task, turns), False
            run.model = LOCAL_MODEL
            read = sum(len(turn.text) <= MESSAGE_CHARS for turn in turns)
        analyses.labels(task.name, "engine" if run.model == LOCAL_MODEL else "model").inc()
        if listener:
            listener.wrote(getattr(draft, FIELD))
        return Answer(draft, _provenance(task, run, started), read, updated)

    async def answer_together(
        self, task: Task[SummariesDraft], chats: Sequence[Chat], ledger: Ledger, *, redact: bool = True
    ) -> Together:
        """Returns an answer for each of several short conversations from one prompt, or None for those to ask singly.

        What it took is shared by the answers that can be used, by their conversations' characters.
        """
        started = time.perf_counter()
        run = Run(asyncio.get_running_loop().time() + self.deadline_s, ledger)
        try:
            drafts = await read_together(self._hops, task, chats, run, redact=redact)
        except NoAnswer:
            drafts = [None] * len(chats)
        if not any(drafts):
            return Together([None] * len(chats), run.cost_usd)
        whole = _provenance(task, run, started)
        # One more each, for what has no characters has its answer too.
        weights = [
            sum(len(turn.text) for turn in chat.turns) + 1 if draft else 0
            for chat, draft in zip(chats, drafts, strict=True)
        ]
        parts = zip(
            shares(run.prompt_tokens, weights),
            shares(run.completion_tokens, weights),
            shares(round(run.cost_usd * NANO), weights),
            strict=True,
        )
        answers: list[Answer[SummaryDraft] | None] = []
        for chat, draft, (prompt_tokens, completion_tokens, nano_usd) in zip(chats, drafts, parts, strict=True):
            part = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "cost_usd": nano_usd / NANO,
            }
            answers.append(Answer(draft, whole.model_copy(update=part), len(chat.turns)) if draft else None)
        analyses.labels("summary", "model").inc(len(answers) - answers.count(None))
        return Together(answers)

    async def _by_providers(self, task: Task[D], turns: Sequence[Turn], run: Run, listener: Listener | None) -> D:
        if not self._hops:
            run.digest.update((await asyncio.to_thread(_dump, turns)).encode())
            raise NoAnswer
        shown = await self._built(run, lambda: _parts(turns, self._hops.room))
        if len(shown) == 1:
            return await self._hops.ask(task, task.prompt, shown[0], run, listener)
        drafts = await self._ask_all(task, task.part, shown, run)
        while len(drafts) > 1:
            texts = [draft.model_dump_json() for draft in drafts]
            groups = ["[" + ",".join(group) + "]" for group in _groups(texts, self._hops.room)]
            last = listener if len(groups) == 1 else None
            drafts = await self._ask_all(task, task.merge, groups, run, last)
        return drafts[0]

    async def _built(self, run: Run, build: Callable[[], T]) -> T:
        """Returns what is built from a conversation of any length, in a thread; raises ``NoAnswer`` if it is late."""
        try:
            async with asyncio.timeout_at(run.ends_at):
                return await asyncio.to_thread(build)
        except TimeoutError:
            run.fell(self._first, "timeout")
            raise NoAnswer from None

    async def _ask_all(
        self, task: Task[D], prompt: str, shown: Sequence[str], run: Run, listener: Listener | None = None
    ) -> list[D]:
        # Not a task group: the first failure is enough, and ends the rest.
        at_once = asyncio.Semaphore(AT_ONCE)

        async def ask(each: str) -> D:
            async with at_once:
                return await self._hops.ask(task, prompt, each, run, listener)

        asking = [asyncio.create_task(ask(each)) for each in shown]
        try:
            return list(await asyncio.gather(*asking))
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


def _provenance(task: Task[D], run: Run, started: float) -> Provenance:
    return Provenance(
        model=run.model,
        provider=run.model.partition("/")[0],
        fallbacks=run.fallbacks,
        prompt_version=task.version,
        input_sha256=run.digest.hexdigest(),
        prompt_tokens=run.prompt_tokens,
        completion_tokens=run.completion_tokens,
        cost_usd=run.cost_usd,
        latency_ms=round((time.perf_counter() - started) * 1000),
    )


def _engine_s(turns: Sequence[Turn]) -> float:
    return LOCAL_S_PER_CHARACTER * sum(min(len(turn.text), MESSAGE_CHARS) + CHARACTERS_PER_MESSAGE for turn in turns)


async def _by_engine(task: Task[D], turns: Sequence[Turn]) -> D:
    try:
        async with asyncio.timeout(LOCAL_S):
            return task.answer.model_validate(await asyncio.to_thread(answer, task.name, turns))
    except Exception as error:  # noqa: BLE001 — no message of its may get out: it may hold the conversation
        _log.error("engine_failed", error=type(error).__name__)
        raise Unavailable("No model could answer.") from None


def _dump(turns: Sequence[Turn]) -> str:
    return TURNS.dump_json(list(turns)).decode()


def _names(turns: Sequence[Turn], conversation_id: str) -> Pseudonyms:
    try:
        return Pseudonyms(turns, conversation_id)
    except Exception as error:  # noqa: BLE001 — what cannot be hidden is shown to nobody
        _log.error("not_hidden", error=type(error).__name__)
        raise NoAnswer from None


def _shown(update: Update[D], turns: Sequence[Turn], names: Pseudonyms | None) -> str:
    before, new = update.before.model_dump(mode="json"), list(update.new)
    if names:
        hidden = {turn.message_id: shown for turn, shown in zip(turns, names.hidden, strict=True)}
        before, new = _hidden(before, names), [hidden[turn.message_id] for turn in new]
    return json.dumps({"before": before, "messages": TURNS.dump_python(new, mode="json")}, ensure_ascii=False)


def _hidden(node: Any, names: Pseudonyms) -> Any:
    if isinstance(node, dict):
        return {name: _hidden(part, names) for name, part in node.items()}
    if isinstance(node, list):
        return [_hidden(part, names) for part in node]
    return names.hide(node) if isinstance(node, str) else node


def _parts(turns: Sequence[Turn], room: int) -> list[str]:
    parts = split(turns, room)
    return [_part(parts, number, room) for number in range(len(parts))] if len(parts) > 1 else [_dump(parts[0])]


def _part(parts: Sequence[Sequence[Turn]], number: int, room: int) -> str:
    before = earlier(parts[number - 1], room) if number else []
    shown: dict[str, Any] = {
        "part": number + 1,
        "of": len(parts),
        "earlier": TURNS.dump_python(before, mode="json"),
        "messages": TURNS.dump_python(list(parts[number]), mode="json"),
    }
    return json.dumps(shown, ensure_ascii=False)


def _groups(texts: Sequence[str], room: int) -> Iterator[list[str]]:
    """Yields the texts in groups that fit, of at least two: fewer would never end."""
    group: list[str] = []
    left = room
    for text in texts:
        if len(group) >= 2 and len(text) > left:
            yield group
            group, left = [], room
        group.append(text)
        left -= len(text)
    if group:
        yield group
