"""Summaries."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple

from app.db import Database
from app.errors import NotFound, Problem
from app.llm.batch import Chat
from app.llm.gateway import Gateway
from app.llm.streaming import Listener
from app.llm.tasks import SUMMARIES, SUMMARY
from app.schemas.analyses import Summary, SummaryBody
from app.schemas.drafts import SummaryDraft, Turn
from app.schemas.enums import Outcome, QuestionStatus, Role, Sentiment, WebhookEvent
from app.schemas.rows import AnalysisRow
from app.schemas.viewer import Viewer
from app.services.analyses import AnalysisService
from app.services.auth import confirm
from app.services.drafts import changes, checked_summary, draft_of
from app.services.usage import UsageService
from app.services.workspaces import WorkspaceService
from app.services.writing import Reader, Writings


class MadeTogether(NamedTuple):
    """The conversations whose summary is up to date now, with what each cost, and what was paid for none of them.

    In US dollars.
    """

    costs: dict[str, float]
    lost_usd: float


class SummaryService(AnalysisService[SummaryDraft, SummaryBody, Summary]):
    """Summaries of the viewer's conversations."""

    kind, task, result = "summary", SUMMARY, Summary

    def __init__(self, db: Database, workspaces: WorkspaceService, usage: UsageService, gateway: Gateway) -> None:
        super().__init__(db, workspaces, usage, gateway)
        self.writings = Writings()

    @asynccontextmanager
    async def watch(self, viewer: Viewer, conversation_id: str, wake: Callable[[], None]) -> AsyncIterator[Reader]:
        """Yields a reader of the conversation's summary while it is written in this process.

        Raises:
            NotFound: if the conversation does not exist.
            Unauthenticated, Forbidden: if the viewer, believed for some seconds, may not ask for it any more.
        """
        async with self._db.read() as unit:
            await confirm(unit, viewer, Role.EDITOR)
            if await unit.chats.conversation(viewer.workspace_id, conversation_id) is None:
                raise NotFound("There is no such conversation.")
        with self.writings.watch((viewer.workspace_id, conversation_id), wake) as reader:
            yield reader

    def _writing(self, workspace_id: int, conversation_id: str) -> AbstractContextManager[Listener | None]:
        return self.writings.writing((workspace_id, conversation_id))

    async def make_together(self, viewer: Viewer, conversation_ids: Sequence[str], *, force: bool) -> MadeTogether:
        """Makes summaries of several short conversations with one prompt.

        Left out, and to be made one by one, is what somebody else is reading just now, what is gone, what only needs to
        be brought up to date, and what the model did not give a usable answer of its own.
        """
        costs: dict[str, float] = {}
        async with AsyncExitStack() as claims:
            found = []
            for conversation_id in conversation_ids:
                with suppress(NotFound):
                    claim_id = await claims.enter_async_context(
                        self._claims.tried(self.kind, viewer.workspace_id, conversation_id)
                    )
                    if claim_id is None:
                        continue
                    stored = await self._stored(viewer.workspace_id, conversation_id)
                    if stored and not stored.stale and not force:
                        costs[conversation_id] = 0.0
                        continue
                    reading = await self._read(viewer.workspace_id, conversation_id, anew=force)
                    if reading.update is None:
                        found.append((conversation_id, claim_id, reading))
            if len(found) < 2:
                return MadeTogether(costs, 0.0)
            answers, lost_usd = await self._gateway.answer_together(
                SUMMARIES,
                [Chat(conversation_id, reading.turns) for conversation_id, _, reading in found],
                self._usage.ledger(viewer.caller, self.task.name),
                redact=any(reading.redact for _, _, reading in found),
            )
            for (conversation_id, claim_id, reading), answer in zip(found, answers, strict=True):
                if answer is None:
                    continue
                kept = False
                with suppress(Problem):
                    kept = await self._keep(reading, answer, claim_id)
                if kept:
                    costs[conversation_id] = answer.provenance.cost_usd
                else:
                    lost_usd += answer.provenance.cost_usd
        return MadeTogether(costs, lost_usd)

    def _check(self, draft: SummaryDraft, turns: Sequence[Turn], before: SummaryBody | None) -> SummaryBody:
        body = checked_summary(draft, turns)
        return body.model_copy(update={"changes": changes(before, body)}) if before else body

    def _earlier(self, row: AnalysisRow, unseal: Any) -> tuple[SummaryBody, SummaryDraft] | None:
        parts = self._unsealed(row, unseal)
        # What other prompts brought may not be what these ask for.
        if parts["provenance"]["prompt_version"] != self.task.version:
            return None
        body = self._body(parts, row.sentiment, row.outcome)
        return body, draft_of(body)

    def _parts(self, body: SummaryBody) -> dict[str, Any]:
        return body.model_dump(mode="json", exclude={"sentiment", "outcome"})

    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> SummaryBody:
        kept = {name: part for name, part in parts.items() if name != "provenance"}
        return SummaryBody(**kept, sentiment=sentiment, outcome=outcome)

    def _labels(self, body: SummaryBody) -> tuple[Sentiment, Outcome, list[str]]:
        return body.sentiment, body.outcome, body.keywords

    def _events(self, body: SummaryBody) -> dict[WebhookEvent, dict[str, object]]:
        events: dict[WebhookEvent, dict[str, object]] = {WebhookEvent.SUMMARY_CREATED: {}}
        if unanswered := sum(question.status is QuestionStatus.UNANSWERED for question in body.questions):
            events[WebhookEvent.QUESTION_UNANSWERED] = {"questions": unanswered}
        return events
