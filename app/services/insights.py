"""Insights."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.llm.tasks import INSIGHTS
from app.schemas.analyses import Insights, InsightsBody
from app.schemas.drafts import InsightsDraft, Turn
from app.schemas.enums import Outcome, Sentiment, WebhookEvent
from app.services.analyses import AnalysisService
from app.services.drafts import checked_insights


class InsightsService(AnalysisService[InsightsDraft, InsightsBody, Insights]):
    """Insights into the viewer's conversations."""

    kind, task, result = "insights", INSIGHTS, Insights

    def _check(self, draft: InsightsDraft, turns: Sequence[Turn], before: InsightsBody | None) -> InsightsBody:
        return checked_insights(draft, turns)

    def _parts(self, body: InsightsBody) -> dict[str, Any]:
        return {"details": body.model_dump(mode="json")}

    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> InsightsBody:
        return InsightsBody.model_validate(parts["details"])

    def _labels(self, body: InsightsBody) -> tuple[Sentiment, Outcome, list[str]]:
        return body.sentiment.label, body.outcome.label, [keyword.text for keyword in body.keywords]

    def _events(self, body: InsightsBody) -> dict[WebhookEvent, dict[str, object]]:
        return {WebhookEvent.INSIGHTS_CREATED: {}}
