"""Summaries."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from app.db import Database
from app.errors import NotFound
from app.llm.gateway import Gateway
from app.llm.streaming import Listener
from app.llm.tasks import SUMMARY
from app.schemas.analyses import Summary, SummaryBody
from app.schemas.drafts import SummaryDraft, Turn
from app.schemas.enums import Outcome, Role, Sentiment
from app.schemas.rows import AnalysisRow
from app.schemas.viewer import Viewer
from app.services.analyses import AnalysisService
from app.services.auth import confirm
from app.services.drafts import changes, checked_summary, draft_of
from app.services.usage import UsageService
from app.services.workspaces import WorkspaceService
from app.services.writing import Reader, Writings


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
