"""Summaries."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.llm.tasks import SUMMARY
from app.schemas.analyses import Summary, SummaryBody
from app.schemas.drafts import SummaryDraft, Turn
from app.schemas.enums import Outcome, Sentiment
from app.schemas.rows import AnalysisRow
from app.services.analyses import AnalysisService
from app.services.drafts import changes, checked_summary, draft_of


class SummaryService(AnalysisService[SummaryDraft, SummaryBody, Summary]):
    """Summaries of the viewer's conversations."""

    kind, task, result = "summary", SUMMARY, Summary

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
