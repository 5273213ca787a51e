"""From a model's draft to what is kept: evidence checked, and whatever names nobody and nothing left out."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from app.llm.evidence import check_quotes, normalize
from app.schemas.analyses import (
    ActionItem,
    Change,
    Changes,
    CustomerEffort,
    EscalationRisk,
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
from app.schemas.drafts import (
    DraftActionItem,
    DraftItem,
    DraftQuestion,
    InsightsDraft,
    Quote,
    SummaryDraft,
    Turn,
)
from app.schemas.enums import QuestionStatus

_Kind = Literal["action_item", "decision", "question"]


class _Stated(TypedDict):
    text: str
    evidence: list[Evidence]
    verified: bool


def checked_summary(draft: SummaryDraft, turns: Sequence[Turn]) -> SummaryBody:
    """Returns a summary whose items say whether their quotes stand there, and whose owners are senders."""
    texts = {turn.message_id: normalize(turn.text) for turn in turns}
    known: dict[tuple[str, str], bool] = {}
    senders = {turn.user_id for turn in turns}
    return SummaryBody(
        summary=draft.summary,
        action_items=[
            ActionItem(
                **_stated(item, texts, known), owner=item.owner if item.owner in senders else None, due=item.due or None
            )
            for item in draft.action_items
        ],
        decisions=[Item(**_stated(item, texts, known)) for item in draft.decisions],
        questions=[
            Question(**_stated(item, texts, known), status=item.status, answer=item.answer or None)
            for item in draft.questions
        ],
        sentiment=draft.sentiment,
        outcome=draft.outcome,
        keywords=draft.keywords,
    )


def checked_insights(draft: InsightsDraft, turns: Sequence[Turn]) -> InsightsBody:
    """Returns insights about senders and messages that exist, each once and in their order."""
    texts = {turn.message_id: normalize(turn.text) for turn in turns}
    known: dict[tuple[str, str], bool] = {}
    evidence, verified = check_quotes(draft.outcome.evidence, texts, known)
    effort, risk = draft.customer_effort, draft.escalation_risk
    shown, shows = check_quotes(effort.evidence, texts, known)
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
        customer_effort=CustomerEffort(
            label=effort.label, score=effort.score, reason=effort.reason, evidence=shown, verified=shows
        ),
        escalation_risk=EscalationRisk(
            label=risk.label,
            score=risk.score,
            reasons=[Item(**_stated(reason, texts, known)) for reason in risk.reasons],
        ),
        topics=list(dict.fromkeys(draft.topics)),
        keywords=[Keyword(text=keyword.text, score=keyword.score) for keyword in draft.keywords],
        resolution=draft.resolution,
    )


def draft_of(body: SummaryBody) -> SummaryDraft:
    """Returns a summary as a model says one, unchecked: with values for placeholders its texts may be longer."""
    return SummaryDraft.model_construct(
        summary=body.summary,
        action_items=[
            DraftActionItem.model_construct(
                text=item.text, evidence=_quotes(item), owner=item.owner or "", due=item.due or ""
            )
            for item in body.action_items
        ],
        decisions=[DraftItem.model_construct(text=item.text, evidence=_quotes(item)) for item in body.decisions],
        questions=[
            DraftQuestion.model_construct(
                text=item.text, evidence=_quotes(item), status=item.status, answer=item.answer or ""
            )
            for item in body.questions
        ],
        sentiment=body.sentiment,
        outcome=body.outcome,
        keywords=body.keywords,
    )


def changes(before: SummaryBody, now: SummaryBody) -> Changes:
    """Returns what became of the items of a summary; the same are those with the same words or a passage in common."""
    found = Changes(opened=[], closed=[], changed=[])
    kinds: list[tuple[_Kind, Sequence[Item], Sequence[Item]]] = [
        ("action_item", before.action_items, now.action_items),
        ("decision", before.decisions, now.decisions),
        ("question", before.questions, now.questions),
    ]
    for kind, old, new in kinds:
        left = [(each, _marks(each)) for each in old]
        for item in new:
            marks = _marks(item)
            place = next((place for place, (_, others) in enumerate(left) if not marks.isdisjoint(others)), None)
            if place is None:
                found.opened.append(Change(kind=kind, text=item.text))
                continue
            was, _ = left.pop(place)
            if _is_open(was) and not _is_open(item):
                found.closed.append(Change(kind=kind, text=item.text))
            elif was.model_dump(exclude={"evidence", "verified"}) != item.model_dump(exclude={"evidence", "verified"}):
                found.changed.append(Change(kind=kind, text=item.text))
        found.closed.extend(Change(kind=kind, text=each.text) for each, _ in left if _is_open(each))
    return found


def _is_open(item: Item) -> bool:
    return isinstance(item, ActionItem) or (isinstance(item, Question) and item.status is QuestionStatus.UNANSWERED)


def _marks(item: Item) -> frozenset[tuple[str, ...]]:
    """Returns what an item is known by: its words, and the passages that support it."""
    words = normalize(item.text).casefold()
    return frozenset([(words,), *((each.message_id, normalize(each.quote)) for each in item.evidence)])


def _quotes(item: Item) -> list[Quote]:
    return [Quote.model_construct(message_id=each.message_id, quote=each.quote) for each in item.evidence]


def _stated(item: DraftItem, texts: Mapping[str, str], known: dict[tuple[str, str], bool]) -> _Stated:
    evidence, verified = check_quotes(item.evidence, texts, known)
    return {"text": item.text, "evidence": evidence, "verified": verified}
