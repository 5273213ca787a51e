"""Outcome: did the customer leave with what they came for?"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.llm.local import endings, patterns
from app.llm.local.text import Chat, Sentence
from app.schemas.drafts import DraftOutcome
from app.schemas.enums import Outcome, UserType

# Only the end decides: so many messages are read backwards, each counting less than the one after it.
_READ = 12
_DECAY = 0.75
# Weight that the three outcomes share before anything is read.
_PRIOR = 0.5
_FAINT = 0.15
_OPEN_QUESTION = 1.0
_THANKS_WORDS = 10

# What a message shows and how strongly, the first that fits.
_CUES: dict[UserType, tuple[tuple[Outcome, float, re.Pattern[str]], ...]] = {
    UserType.CUSTOMER: (
        (Outcome.NO, 1.0, endings.CUSTOMER_UPSET),
        (Outcome.YES, 1.2, endings.CUSTOMER_GLAD),
        (Outcome.MAYBE, 0.6, endings.CUSTOMER_PENDING),
        (Outcome.YES, 0.4, endings.CUSTOMER_THANKS),
    ),
    UserType.SUPPORT_AGENT: (
        (Outcome.NO, 1.0, endings.AGENT_REFUSED),
        (Outcome.YES, 1.0, endings.AGENT_DONE),
        (Outcome.MAYBE, 0.6, endings.AGENT_PENDING),
    ),
}
_REASONS = {
    Outcome.YES: "At the end the matter was settled, or the customer was content with the answer.",
    Outcome.NO: "At the end the request was refused, or the problem was still there.",
    Outcome.MAYBE: "At the end the matter was pending: something was promised, tried or left without a reply.",
    Outcome.CURIOUS: "The customer only asked for information and was answered.",
}
_UNKNOWN = "Nothing in the conversation shows how it ended."


@dataclass(frozen=True, slots=True)
class _Sign:
    outcome: Outcome
    weight: float
    sentence: Sentence


def outcome(chat: Chat) -> DraftOutcome:
    """Judge the outcome by what both sides said last, with the sentences that show it."""
    signs = _signs(chat)
    weights = {label: math.fsum(sign.weight for sign in signs if sign.outcome is label) for label in Outcome}
    # Every step on the way was pending once; only the last one is still pending at the end.
    weights[Outcome.MAYBE] = max((sign.weight for sign in signs if sign.outcome is Outcome.MAYBE), default=0.0)
    total = math.fsum(weights.values())
    found = max((Outcome.NO, Outcome.YES, Outcome.MAYBE), key=lambda label: weights[label])
    if weights[found] < _FAINT:
        found = Outcome.MAYBE
    shown = sorted((sign for sign in signs if sign.outcome is found), key=lambda sign: -sign.weight)[:3]
    label = Outcome.CURIOUS if found is not Outcome.NO and _only_asks(chat) else found
    return DraftOutcome(
        label=label,
        confidence=round((weights[found] + _PRIOR / 3) / (total + _PRIOR), 3),
        reason=_REASONS[label] if shown or label is Outcome.CURIOUS else _UNKNOWN,
        evidence=[chat.quote(sign.sentence) for sign in sorted(shown, key=lambda sign: sign.sentence.turn)],
    )


def _signs(chat: Chat) -> list[_Sign]:
    found: list[_Sign] = []
    seen: set[tuple[int, Outcome]] = set()
    places: dict[int, int] = {}
    for sentence in reversed(chat.sentences):
        place = places.setdefault(sentence.turn, len(places))
        if place >= _READ:
            break
        sign = _sign(sentence, place)
        # One message shows one thing once, however often it says so.
        if sign is not None and (sentence.turn, sign.outcome) not in seen:
            seen.add((sentence.turn, sign.outcome))
            found.append(sign)
    return found


def _sign(sentence: Sentence, place: int) -> _Sign | None:
    # "Let me know if it is fixed" says nothing about whether it is.
    text = patterns.CONDITION.split(sentence.text, maxsplit=1)[0]
    asks = sentence.text.endswith("?")
    if place == 0 and sentence.side is UserType.CUSTOMER and (asks or patterns.WISH.search(text)):
        return _Sign(Outcome.MAYBE, _OPEN_QUESTION, sentence)
    for label, strength, pattern in _CUES[sentence.side]:
        if label is Outcome.YES and (asks or (strength < 1 and len(sentence.words) > _THANKS_WORDS)):
            continue
        if pattern.search(sentence.text if label is Outcome.MAYBE else text):
            return _Sign(label, strength * _DECAY**place, sentence)
    return None


def _only_asks(chat: Chat) -> bool:
    """Tell whether the customer asked to know, never to have something done or mended, and the agent told them."""
    own = [sentence.text for sentence in chat.sentences if sentence.side is UserType.CUSTOMER]
    told = any(s.side is UserType.SUPPORT_AGENT and _tells(s) for s in chat.sentences)
    return told and _asks(own) and not any(endings.ACTION_WISH.search(t) or patterns.COMPLAINT.search(t) for t in own)


def _tells(sentence: Sentence) -> bool:
    return not sentence.text.endswith("?") and len(sentence.terms) > 1 and not patterns.PLEASANTRY.search(sentence.text)


def _asks(texts: Sequence[str]) -> bool:
    return any(endings.INFORMATION.search(text) for text in texts)
