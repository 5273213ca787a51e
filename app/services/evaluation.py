"""Comparing models and prompts: the same dialogues, the same checks, and what people say of the summaries."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from app.errors import Internal, NotFound, Problem
from app.llm.breaker import Breaker
from app.llm.dialogues import Dialogue
from app.llm.evaluation import Call, Case
from app.llm.gateway import Free, Gateway
from app.llm.hops import Hop, Ledger, Usage
from app.llm.prices import cost_usd
from app.llm.tasks import Task
from app.schemas.drafts import TURNS, SummaryDraft, Turn
from app.schemas.enums import Rating
from app.schemas.feedback import Feedback
from app.schemas.search import MessageQuery
from app.schemas.viewer import Viewer
from app.services.chats import ChatService
from app.services.drafts import checked_summary
from app.services.feedback import FeedbackService
from app.services.jobs import ANSWER_TOKENS, CHARACTERS_PER_TOKEN
from app.services.workspaces import WorkspaceService

AT_ONCE = 4
"""How many dialogues providers read at the same time."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Candidate:
    """What is compared: a model, the built-in engine if there is no ``hop``, with a set of prompts."""

    model: str
    hop: Hop | None
    task: Task[SummaryDraft]


@dataclass(frozen=True, slots=True)
class Ratings:
    """How often the summaries of a version were rated up and down."""

    prompt_version: str
    model: str
    up: int
    down: int


class EvaluationService:
    """What people said of the summaries of the viewer's workspace, to measure others by."""

    def __init__(self, chats: ChatService, feedback: FeedbackService, workspaces: WorkspaceService) -> None:
        self._chats = chats
        self._feedback = feedback
        self._workspaces = workspaces

    async def said(self, viewer: Viewer, limit: int) -> tuple[list[Dialogue], list[Ratings]]:
        """Returns the conversations of the newest feedback, opened in memory only, and the ratings by version.

        A corrected summary is a reference, corrected labels and keywords are those to find; of two the newer counts.
        """
        found = await self._feedback.newest(viewer, limit)
        redact = await self._workspaces.redacts(viewer.workspace_id)
        by_conversation: dict[str, list[Feedback]] = {}
        for each in found:
            by_conversation.setdefault(each.conversation_id, []).append(each)
        dialogues = []
        for conversation_id, given in by_conversation.items():
            try:
                turns = await self._turns(viewer, conversation_id, max(one.summary_version.updated_at for one in given))
            except NotFound:
                continue
            dialogues.append(_dialogue(conversation_id, turns, given, redact=redact))
        return dialogues, _ratings(found)

    async def _turns(self, viewer: Viewer, conversation_id: str, until: datetime) -> list[Turn]:
        """Returns the messages that the summary spoken of can have read."""
        turns: list[Turn] = []
        query = MessageQuery()
        while True:
            page, _ = await self._chats.page(viewer, conversation_id, query)
            assert page
            turns += [
                Turn(
                    message_id=message["message_id"],
                    user_id=message["user_id"],
                    user_type=message["user_type"],
                    timestamp=message["timestamp"],
                    text=message["message_content"],
                )
                for message in page["messages"]
            ]
            if page["next_cursor"] is None:
                return [turn for turn in turns if turn.timestamp <= until] or turns
            query = MessageQuery(cursor=page["next_cursor"])


async def estimate(candidate: Candidate, dialogues: Sequence[Dialogue]) -> float | None:
    """Returns what a candidate will cost, in US dollars; None if its price is not known."""
    shown = sum(len(TURNS.dump_json(dialogue.turns)) for dialogue in dialogues) // len(dialogues)
    tokens = (len(candidate.task.prompt) + shown) // CHARACTERS_PER_TOKEN
    # Of one call: a longer prompt can have a higher price.
    each = await cost_usd(candidate.model, tokens, ANSWER_TOKENS)
    return None if each is None else each * len(dialogues)


async def compare(
    candidates: Sequence[Candidate],
    dialogues: Sequence[Dialogue],
    ledger: Callable[[], Ledger] = Free,
    *,
    deadline_s: float,
    done: Callable[[Candidate, Case], None],
) -> None:
    """Asks every candidate about every dialogue; ``done`` is told each case as it is known.

    Nothing that fails ends the rest.
    """
    for candidate in candidates:
        if candidate.hop is None:
            # One after the other: its time is the processor's.
            for dialogue in dialogues:
                done(candidate, await _case(candidate, dialogue, Free(), deadline_s))
    at_once = asyncio.Semaphore(AT_ONCE)

    async def ask(candidate: Candidate, dialogue: Dialogue) -> None:
        async with at_once:
            done(candidate, await _case(candidate, dialogue, ledger(), deadline_s))

    # Dialogue by dialogue: what was measured before an interruption can be compared.
    async with asyncio.TaskGroup() as group:
        for dialogue in dialogues:
            for candidate in candidates:
                if candidate.hop:
                    group.create_task(ask(candidate, dialogue))


async def _case(candidate: Candidate, dialogue: Dialogue, ledger: Ledger, deadline_s: float) -> Case:
    # A breaker of its own: a model that falters for a moment does not lose the dialogues that come next.
    hops = [replace(candidate.hop, breaker=Breaker())] if candidate.hop else []
    gateway = Gateway(hops, deadline_s=deadline_s)
    counted = _Counted(ledger)
    body = failure = None
    started = time.perf_counter()
    try:
        answer = await gateway.answer(
            candidate.task,
            dialogue.turns,
            counted,
            redact=dialogue.redact,
            conversation_id=dialogue.conversation_id,
        )
        if answer.provenance.model == candidate.model:
            body = await asyncio.to_thread(checked_summary, answer.draft, dialogue.turns)
        else:
            failure = answer.provenance.fallbacks[-1].reason if answer.provenance.fallbacks else "no_answer"
    except Problem as error:
        failure = error.code
    except Exception as error:  # noqa: BLE001 — never its text: it may hold the dialogue
        _log.error("case_failed", model=candidate.model, error=type(error).__name__)
        failure = Internal.code
    latency_ms = (time.perf_counter() - started) * 1000
    return Case(dialogue, body, failure, counted.calls, latency_ms)


class _Counted:
    """A ledger that also remembers the calls."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.calls: list[Call] = []

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        return await self._ledger.reserve(model, cost_usd)

    async def settle(self, call_id: int, outcome: str, usage: Usage) -> None:
        self.calls.append(Call(outcome, usage.cost_usd))
        await self._ledger.settle(call_id, outcome, usage)


def _dialogue(conversation_id: str, turns: list[Turn], given: Sequence[Feedback], *, redact: bool) -> Dialogue:
    """Returns a conversation with what was said of it, newest first."""
    corrections = [each.corrections for each in given if each.corrections]
    # The newest is put in last.
    said = {name: value for each in reversed(corrections) for name, value in each.model_dump(exclude_none=True).items()}
    return Dialogue(
        turns=turns,
        references=list(dict.fromkeys(each.summary for each in corrections if each.summary)),
        labels={name: str(said[name]) for name in ("sentiment", "outcome") if name in said},
        keywords=said.get("keywords", []),
        conversation_id=conversation_id,
        redact=redact,
    )


def _ratings(found: Sequence[Feedback]) -> list[Ratings]:
    counts = Counter((each.summary_version.prompt_version, each.summary_version.model, each.rating) for each in found)
    versions = sorted({(version, model) for version, model, _ in counts})
    return [
        Ratings(version, model, counts[version, model, Rating.UP], counts[version, model, Rating.DOWN])
        for version, model in versions
    ]
