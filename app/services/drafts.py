"""From a model's draft to what is kept: evidence checked, and whatever names nobody and nothing left out."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from app.llm.evidence import check_quotes, normalize
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
    texts = {turn.message_id: normalize(turn.text) for turn in turns}
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
    """Returns insights about senders and messages that exist, each once and in their order."""
    evidence, verified = check_quotes(draft.outcome.evidence, {turn.message_id: normalize(turn.text) for turn in turns})
    feeling = draft.sentiment
    senders = {turn.user_id: turn.user_type for turn in turns}
    by_sender = {sender.user_id: sender for sender in feeling.by_participant}
    by_message = {point.message_id: point.score for point in feeling.timeline}
    return InsightsBody(
        sentiment=SentimentInsight(
            label=feeling.label,
            score=feeling.score,
            confidence=feeling.confidence,
            by_participant=[
                SenderSentiment(user_id=name, user_type=kind, label=by_sender[name].label, score=by_sender[name].score)
                for name, kind in senders.items()
                if name in by_sender
            ],
            timeline=[
                SentimentAt(message_id=turn.message_id, timestamp=turn.timestamp, score=by_message[turn.message_id])
                for turn in turns
                if turn.message_id in by_message
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
