"""From a model's draft to what is kept: evidence checked, and whatever names nobody and nothing left out."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from app.llm.evidence import check_quotes
from app.schemas.analyses import (
    ActionItem,
    Evidence,
    InsightsBody,
    Item,
    Keyword,
    OutcomeInsight,
    Question,
    SenderSentiment,
    SentimentAt,
    SentimentInsight,
    SummaryBody,
)
from app.schemas.drafts import DraftItem, InsightsDraft, SummaryDraft, Turn


class _Stated(TypedDict):
    text: str
    evidence: list[Evidence]
    verified: bool


def checked_summary(draft: SummaryDraft, turns: Sequence[Turn]) -> SummaryBody:
    """Returns a summary whose items say whether their quotes stand in the conversation."""
    texts = {turn.message_id: turn.text for turn in turns}
    return SummaryBody(
        summary=draft.summary,
        action_items=[
            ActionItem(**_stated(item, texts), owner=item.owner or None, due=item.due or None)
            for item in draft.action_items
        ],
        decisions=[Item(**_stated(item, texts)) for item in draft.decisions],
        questions=[
            Question(**_stated(item, texts), status=item.status, answer=item.answer or None) for item in draft.questions
        ],
        sentiment=draft.sentiment,
        outcome=draft.outcome,
        keywords=draft.keywords,
    )


def checked_insights(draft: InsightsDraft, turns: Sequence[Turn]) -> InsightsBody:
    """Returns insights about senders and messages that exist."""
    by_id = {turn.message_id: turn for turn in turns}
    senders = {turn.user_id: turn.user_type for turn in turns}
    evidence, verified = check_quotes(draft.outcome.evidence, {name: turn.text for name, turn in by_id.items()})
    feeling = draft.sentiment
    return InsightsBody(
        sentiment=SentimentInsight(
            label=feeling.label,
            score=feeling.score,
            confidence=feeling.confidence,
            by_participant=[
                SenderSentiment(user_id=s.user_id, user_type=senders[s.user_id], label=s.label, score=s.score)
                for s in feeling.by_participant
                if s.user_id in senders
            ],
            timeline=[
                SentimentAt(message_id=p.message_id, timestamp=by_id[p.message_id].timestamp, score=p.score)
                for p in feeling.timeline
                if p.message_id in by_id
            ],
        ),
        outcome=OutcomeInsight(
            label=draft.outcome.label,
            confidence=draft.outcome.confidence,
            reason=draft.outcome.reason,
            evidence=evidence,
            verified=verified,
        ),
        keywords=[Keyword(text=keyword.text, score=keyword.score) for keyword in draft.keywords],
        resolution=draft.resolution,
    )


def _stated(item: DraftItem, texts: Mapping[str, str]) -> _Stated:
    evidence, verified = check_quotes(item.evidence, texts)
    return {"text": item.text, "evidence": evidence, "verified": verified}
