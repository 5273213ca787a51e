"""What it cost the customer, and whether they may take it further: signs that add up, each counted once or little.

Signs are weighed as independent chances: 1 - (1 - a)(1 - b)... The weights are set by judgement, and looked at on
conversations whose customers said how it ended; they are no probabilities.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app.llm.local import acts, endings, strain
from app.llm.local.text import Chat, Sentence
from app.schemas.drafts import DraftEffort, DraftEscalation, DraftItem
from app.schemas.enums import Level, Outcome, UserType

_MEDIUM, _HIGH = 0.3, 0.6
_SHOWN = 3
# Beyond so many messages of their own, each one more costs the customer a little.
_SHORT = 5
_LONGER = 0.03
_LONGEST = 10
_CALMED = 0.5


class _Sign(NamedTuple):
    """``weight`` for each of the first ``most`` messages that show it; threats may be denied."""

    text: str
    weight: float
    most: int
    side: UserType | None
    pattern: re.Pattern[str]


_EFFORT = (
    _Sign("The customer had asked before.", 0.35, 1, UserType.CUSTOMER, strain.CONTACTED_BEFORE),
    _Sign("The customer waited long.", 0.25, 1, UserType.CUSTOMER, strain.WAITED),
    _Sign("The customer was passed on to somebody else.", 0.2, 1, None, strain.PASSED_ON),
    _Sign("The customer had to say or do something again.", 0.15, 2, UserType.CUSTOMER, strain.SAID_AGAIN),
    _Sign("What the customer tried did not help.", 0.15, 4, UserType.CUSTOMER, strain.IN_VAIN),
)
_CHORE = _Sign("The agent asked the customer to do several things.", 0.06, 6, UserType.SUPPORT_AGENT, acts.INSTRUCTION)
_LONG = "The customer had to write many messages."
_NO_EFFORT = "Nothing shows that it took the customer more than asking."

_ESCALATION = (
    _Sign("The customer speaks of legal steps or an authority.", 0.7, 1, UserType.CUSTOMER, strain.LEGAL),
    _Sign("The customer asks for somebody above the agent.", 0.6, 1, UserType.CUSTOMER, strain.ASKS_SUPERIOR),
    _Sign("The customer wants to leave.", 0.5, 1, UserType.CUSTOMER, strain.LEAVES),
    _Sign("The customer speaks of making it public.", 0.5, 1, UserType.CUSTOMER, strain.PUBLIC),
    _Sign("The agent speaks of escalating it.", 0.35, 1, UserType.SUPPORT_AGENT, strain.AGENT_ESCALATES),
    _Sign("The customer had asked before.", 0.35, 1, UserType.CUSTOMER, strain.CONTACTED_BEFORE),
    _Sign("The customer is angry.", 0.3, 2, UserType.CUSTOMER, strain.ANGER),
)  # fmt: skip


class _Found(NamedTuple):
    sign: _Sign
    sentences: list[Sentence]


def effort(chat: Chat) -> DraftEffort:
    """Judge how much work it was for the customer: asked before, waited, passed on, repeated, tried in vain."""
    found = _found(chat, _EFFORT)
    chores = _found(chat, [_CHORE])
    own = len({sentence.turn for sentence in chat.sentences if sentence.side is UserType.CUSTOMER and sentence.terms})
    weights = [*_weights(found), *_weights(chores), *[_LONGER] * min(_LONGEST, max(0, own - _SHORT))]
    score = _together(weights)
    texts = [each.sign.text for each in found]
    if chores and len(chores[0].sentences) > 2:
        texts.append(_CHORE.text)
        found += chores
    if own > _SHORT * 2:
        texts.append(_LONG)
    shown = list(dict.fromkeys(sentence for each in found for sentence in each.sentences[:1]))[:_SHOWN]
    return DraftEffort(
        label=_level(score),
        score=score,
        reason=" ".join(texts[:_SHOWN]) or _NO_EFFORT,
        evidence=[chat.quote(sentence) for sentence in sorted(shown, key=lambda sentence: sentence.turn)],
    )


def escalation(chat: Chat, ending: Outcome) -> DraftEscalation:
    """Judge whether the customer may take it further: each kind of sign is a reason, with the passages that show it."""
    found = _found(chat, _ESCALATION)
    score = _together(_weights(found))
    if found and ending is Outcome.YES and _calmed(chat, max(each.sentences[-1].turn for each in found)):
        score = round(score * _CALMED, 3)
    reasons = [
        DraftItem(text=each.sign.text, evidence=[chat.quote(sentence) for sentence in each.sentences[:_SHOWN]])
        for each in found
    ]
    return DraftEscalation(label=_level(score), score=score, reasons=reasons)


def _found(chat: Chat, signs: Sequence[_Sign]) -> list[_Found]:
    """Returns the signs that are there, each with the first sentence of each message that shows it."""
    shown: list[dict[int, Sentence]] = [{} for _ in signs]
    for sentence in chat.sentences:
        for sign, by_turn in zip(signs, shown, strict=True):
            if sign.side not in (None, sentence.side) or sentence.turn in by_turn:
                continue
            match = sign.pattern.search(sentence.text)
            if match and not strain.NEGATED.search(sentence.text, max(0, match.start() - 40), match.start()):
                by_turn[sentence.turn] = sentence
    return [_Found(sign, list(by_turn.values())) for sign, by_turn in zip(signs, shown, strict=True) if by_turn]


def _weights(found: Iterable[_Found]) -> list[float]:
    return [each.sign.weight for each in found for _ in each.sentences[: each.sign.most]]


def _together(weights: Iterable[float]) -> float:
    return round(1 - math.prod(1 - weight for weight in weights), 3)


def _level(score: float) -> Level:
    return Level.HIGH if score >= _HIGH else Level.MEDIUM if score >= _MEDIUM else Level.LOW


def _calmed(chat: Chat, turn: int) -> bool:
    """Tell whether the customer was content after the last sign."""
    later = [each.text for each in chat.sentences if each.turn > turn and each.side is UserType.CUSTOMER]
    return any(endings.CUSTOMER_GLAD.search(text) or endings.CUSTOMER_THANKS.search(text) for text in later)
