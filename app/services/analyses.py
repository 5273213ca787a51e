"""Summaries and insights: asked of a model once, kept sealed, and said to be stale when the conversation goes on."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from app.db import Database
from app.errors import NotFound, Problem
from app.llm.gateway import Gateway
from app.llm.tasks import INSIGHTS, SUMMARY, Task
from app.schemas.analyses import (
    AnalysisRequest,
    Coverage,
    Insights,
    InsightsBody,
    Provenance,
    Summary,
    SummaryBody,
)
from app.schemas.drafts import Draft, InsightsDraft, SummaryDraft, Turn
from app.schemas.enums import Outcome, Role, Sentiment
from app.schemas.rows import AnalysisRow, Labels
from app.schemas.viewer import Viewer
from app.security.blind_index import keyword_hash
from app.security.encryption import MESSAGE
from app.services.auth import confirm
from app.services.drafts import checked_insights, checked_summary
from app.services.workspaces import WorkspaceService

HEAD_BYTES = 2**19
TAIL_BYTES = 3 * 2**19
"""How much of a conversation's ends is read at the most; what lies between them is told in the coverage."""

D = TypeVar("D", bound=Draft)
B = TypeVar("B", SummaryBody, InsightsBody)
R = TypeVar("R", Summary, Insights)

_json: TypeAdapter[Any] = TypeAdapter(Any)


class AnalysisService(ABC, Generic[D, B, R]):
    """What summaries and insights share; a subclass says what is asked, what is checked and what is kept."""

    kind: str
    task: Task[D]
    result: type[R]

    def __init__(self, db: Database, workspaces: WorkspaceService, gateway: Gateway) -> None:
        self._db = db
        self._workspaces = workspaces
        self._gateway = gateway
        self._running: dict[tuple[int, str], asyncio.Task[None]] = {}

    @abstractmethod
    def _check(self, draft: D, turns: Sequence[Turn]) -> B:
        """Returns what is kept of a draft."""

    @abstractmethod
    def _parts(self, body: B) -> dict[str, Any]:
        """Returns what is sealed, by column."""

    @abstractmethod
    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> B:
        """Returns what was kept."""

    @abstractmethod
    def _labels(self, body: B) -> tuple[Sentiment, Outcome, list[str]]:
        """Returns sentiment, outcome and keywords."""

    async def get(self, viewer: Viewer, conversation_id: str) -> R:
        """Returns what is stored; raises ``NotFound`` if nothing was made."""
        found = await self._stored(viewer.workspace_id, conversation_id)
        if found is None:
            raise NotFound(f"There is no such conversation, or no {self.kind} was made of it.")
        return found

    async def make(self, viewer: Viewer, request: AnalysisRequest) -> R:
        """Returns what is stored if nothing changed since, otherwise what a model says now.

        Everybody who asks at the same time waits for one call; it does not end when one of them leaves.

        Raises:
            NotFound: if the conversation does not exist, or was deleted meanwhile.
            Unauthenticated, Forbidden: if the viewer may not ask any more.
        """
        if not request.force:
            found = await self._stored(viewer.workspace_id, request.conversation_id)
            if found and not found.stale:
                return found
        await self._make_together(viewer.workspace_id, request.conversation_id)
        async with self._db.read() as unit:
            await confirm(unit, viewer, Role.EDITOR)
        return await self.get(viewer, request.conversation_id)

    async def _make_together(self, workspace_id: int, conversation_id: str) -> None:
        key = workspace_id, conversation_id
        if earlier := self._running.get(key):
            # What it makes is good enough, unless it had begun before a message that this request is to see.
            with suppress(Problem):
                await asyncio.shield(earlier)
                found = await self._stored(workspace_id, conversation_id)
                if found and not found.stale:
                    return
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._make(workspace_id, conversation_id))
            running.add_done_callback(lambda _: self._running.pop(key, None))
        await asyncio.shield(running)

    async def _make(self, workspace_id: int, conversation_id: str) -> None:
        keys = await self._workspaces.keys(workspace_id)
        cipher = keys.conversation(conversation_id)
        redact = await self._workspaces.redacts(workspace_id)
        async with self._db.read() as unit:
            # The count first: a message that comes in between makes the result stale, never silently incomplete.
            found = await unit.chats.conversation(workspace_id, conversation_id)
            if found is None:
                raise NotFound("There is no such conversation.")
            sealed = await unit.chats.both_ends(workspace_id, conversation_id, HEAD_BYTES, TAIL_BYTES)
        if not sealed:
            raise NotFound("The conversation was deleted meanwhile.")
        turns = [
            Turn.model_construct(
                message_id=message.message_id,
                user_id=message.user_id,
                user_type=message.user_type,
                timestamp=message.timestamp,
                text=cipher.open(MESSAGE, message.message_id, message.content),
            )
            for message in sealed
        ]
        answer = await self._gateway.answer(self.task, turns, redact=redact, conversation_id=conversation_id)
        body = await asyncio.to_thread(self._check, answer.draft, turns)
        sentiment, outcome, keywords = self._labels(body)
        total = found.conversation.message_count
        parts = {**self._parts(body), "provenance": answer.provenance.model_dump(mode="json")}
        async with self._db.write() as unit:
            kept = await unit.analyses.put(
                self.kind,
                workspace_id,
                conversation_id,
                made_at=found.created_at,
                parts={
                    name: cipher.seal(self.kind, name, _json.dump_json(part).decode()) for name, part in parts.items()
                },
                messages_read=min(answer.messages_read, total),
                messages_total=total,
                labels=Labels(sentiment, outcome, [keyword_hash(keys.search_key, word) for word in keywords]),
            )
        if not kept:
            raise NotFound("The conversation was deleted meanwhile.")

    async def _stored(self, workspace_id: int, conversation_id: str) -> R | None:
        async with self._db.read() as unit:
            row = await unit.analyses.get(self.kind, workspace_id, conversation_id)
        if row is None:
            return None
        keys = await self._workspaces.keys(workspace_id)
        return self._opened(conversation_id, row, keys.conversation(conversation_id).open)

    def _opened(self, conversation_id: str, row: AnalysisRow, unseal: Any) -> R:
        parts = {name: _json.validate_json(unseal(self.kind, name, blob)) for name, blob in row.parts.items()}
        body = self._body(parts, row.sentiment, row.outcome)
        return self.result(
            **dict(body),
            conversation_id=conversation_id,
            coverage=Coverage(
                messages_read=row.messages_read,
                messages_total=row.messages_total,
                complete=row.messages_read == row.messages_total,
            ),
            provenance=Provenance.model_validate(parts["provenance"]),
            stale=row.stale,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class SummaryService(AnalysisService[SummaryDraft, SummaryBody, Summary]):
    """Summaries of the viewer's conversations."""

    kind, task, result = "summary", SUMMARY, Summary

    def _check(self, draft: SummaryDraft, turns: Sequence[Turn]) -> SummaryBody:
        return checked_summary(draft, turns)

    def _parts(self, body: SummaryBody) -> dict[str, Any]:
        return body.model_dump(mode="json", exclude={"sentiment", "outcome"})

    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> SummaryBody:
        kept = {name: part for name, part in parts.items() if name != "provenance"}
        return SummaryBody(**kept, sentiment=sentiment, outcome=outcome)

    def _labels(self, body: SummaryBody) -> tuple[Sentiment, Outcome, list[str]]:
        return body.sentiment, body.outcome, body.keywords


class InsightsService(AnalysisService[InsightsDraft, InsightsBody, Insights]):
    """Insights into the viewer's conversations."""

    kind, task, result = "insights", INSIGHTS, Insights

    def _check(self, draft: InsightsDraft, turns: Sequence[Turn]) -> InsightsBody:
        return checked_insights(draft, turns)

    def _parts(self, body: InsightsBody) -> dict[str, Any]:
        return {"details": body.model_dump(mode="json")}

    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> InsightsBody:
        return InsightsBody.model_validate(parts["details"])

    def _labels(self, body: InsightsBody) -> tuple[Sentiment, Outcome, list[str]]:
        return body.sentiment.label, body.outcome.label, [keyword.text for keyword in body.keywords]
