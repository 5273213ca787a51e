"""The built-in engine's two entries."""

from collections.abc import Sequence

from app.llm.local.burden import effort, escalation
from app.llm.local.items import action_items, decisions
from app.llm.local.keywords import keywords
from app.llm.local.outcome import outcome
from app.llm.local.questions import questions
from app.llm.local.sentiment import sentiment
from app.llm.local.subjects import topics
from app.llm.local.summary import summary
from app.llm.local.text import Chat
from app.schemas.drafts import DraftOutcome, InsightsDraft, SummaryDraft, Turn
from app.schemas.enums import Outcome

LOCAL_MODEL = "local/extractive"


def answer(task: str, turns: Sequence[Turn]) -> SummaryDraft | InsightsDraft:
    """Returns what is asked for: a ``summary`` or ``insights``."""
    return summarize(turns) if task == "summary" else analyze(turns)


def summarize(turns: Sequence[Turn]) -> SummaryDraft:
    """Summarise a conversation by its own words; the same turns always give the same draft."""
    chat = Chat.read(turns)
    return SummaryDraft(
        summary=summary(chat),
        action_items=action_items(chat),
        decisions=decisions(chat),
        questions=questions(chat),
        sentiment=sentiment(chat).label,
        outcome=outcome(chat).label,
        keywords=[keyword.text for keyword in keywords(chat)],
    )


def analyze(turns: Sequence[Turn]) -> InsightsDraft:
    """Judge a conversation: feeling, outcome, effort and risk, what it is about and how it ended."""
    chat = Chat.read(turns)
    ending = outcome(chat)
    return InsightsDraft(
        sentiment=sentiment(chat),
        outcome=ending,
        customer_effort=effort(chat),
        escalation_risk=escalation(chat, ending.label),
        topics=topics(chat),
        keywords=keywords(chat),
        resolution=_resolution(ending),
    )


_ENDINGS = {
    Outcome.YES: "The customer left with what they came for",
    Outcome.NO: "The customer left without what they came for",
    Outcome.MAYBE: "It is still open whether the customer gets what they came for",
    Outcome.CURIOUS: "The customer asked for information and was answered",
}


def _resolution(ending: DraftOutcome) -> str:
    if not ending.evidence:
        return f"{_ENDINGS[ending.label]}."
    return f"{_ENDINGS[ending.label]}: “{ending.evidence[-1].quote}”"
