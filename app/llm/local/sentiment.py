"""How the customer feels: VADER (Hutto & Gilbert 2014) with a service lexicon, later messages weighing more."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from app.llm.local.lexicon import PHRASES, WORDS
from app.llm.local.text import MESSAGE_CHARS, Chat, clip
from app.schemas.drafts import DraftSentiment, ParticipantSentiment, SentimentPoint
from app.schemas.enums import Sentiment, UserType

# VADER's time grows with the square of a text's words, and its sum is made for a sentence or two.
_PIECE_CHARS = 600
_SENDERS = 200
_POINTS = 200
_ALPHA = 15.0
_NEUTRAL = 0.1
_MIXED_SHARE = 0.3
_LAST_WEIGHT = 2.0

_PHRASE = re.compile(
    r"\b(?:"
    + "|".join(re.escape(p).replace("'", "['\u2019]?") for p in sorted(PHRASES, key=lambda p: (-len(p), p)))
    + r")\b",
    re.IGNORECASE,
)
_IF = re.compile(r"\bif\s$", re.IGNORECASE)
_PHRASE_VALENCE = {phrase.replace("'", ""): valence for phrase, valence in PHRASES.items()}


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    analyzer = SentimentIntensityAnalyzer()
    analyzer.lexicon.update(WORDS)
    return analyzer


def score_text(text: str) -> float:
    """Score one message from -1 to 1: the mean of the passages in it that say anything."""
    scores = [score for piece in _pieces(clip(text, MESSAGE_CHARS)) if abs(score := _score_piece(piece)) >= _NEUTRAL]
    return round(math.fsum(scores) / len(scores), 4) if scores else 0.0


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _PIECE_CHARS
        if end < len(text) and (space := text.rfind(" ", start, end)) > start:
            end = space
        yield text[start:end]
        start = end


def _score_piece(text: str) -> float:
    compound = float(_analyzer().polarity_scores(text)["compound"])
    phrases = math.fsum(_phrase_valences(text))
    if not phrases:
        return compound
    # The compound is s / sqrt(s² + alpha): go back to the sum, add the phrases, and normalise again.
    bounded = max(-0.999, min(0.999, compound))
    total = bounded * math.sqrt(_ALPHA / (1 - bounded * bounded)) + phrases
    return round(total / math.sqrt(total * total + _ALPHA), 4)


def _phrase_valences(text: str) -> Iterator[float]:
    for match in _PHRASE.finditer(text):
        valence = _PHRASE_VALENCE[match.group().lower().replace("'", "").replace("\u2019", "")]
        # "See if that helps" is no relief yet.
        if valence < 0 or not _IF.search(text, 0, match.start()):
            yield valence


def sentiment(chat: Chat) -> DraftSentiment:
    """Judge the customer's feeling over the conversation, by sender and over time."""
    scores = [score_text(turn.text) for turn in chat.turns]
    customer = [number for number, turn in enumerate(chat.turns) if turn.user_type is UserType.CUSTOMER]
    label, score, confidence = _overall([scores[number] for number in customer])
    senders: dict[str, list[float]] = {}
    for turn, value in zip(chat.turns, scores, strict=True):
        senders.setdefault(turn.user_id, []).append(value)
    by_participant = []
    for user_id, values in list(senders.items())[:_SENDERS]:
        its_label, its_score, _ = _overall(values)
        by_participant.append(ParticipantSentiment(user_id=user_id, label=its_label, score=its_score))
    timeline = [
        SentimentPoint(message_id=chat.turns[number].message_id, score=scores[number]) for number in _spread(customer)
    ]
    return DraftSentiment(
        label=label, score=score, confidence=confidence, by_participant=by_participant, timeline=timeline
    )


def _overall(scores: Sequence[float]) -> tuple[Sentiment, float, float]:
    """Weigh the messages into a label, a score and the share of the evidence that agrees with the label."""
    count = len(scores)
    weights = [1 + (_LAST_WEIGHT - 1) * n / max(1, count - 1) for n in range(count)]
    positive = math.fsum(w * s for w, s in zip(weights, scores, strict=True) if s > _NEUTRAL)
    negative = -math.fsum(w * s for w, s in zip(weights, scores, strict=True) if s < -_NEUTRAL)
    felt = math.fsum(w for w, s in zip(weights, scores, strict=True) if abs(s) > _NEUTRAL)
    silent = math.fsum(weights) - felt
    # Matter-of-fact messages dilute a feeling, but less than a contrary one does.
    score = (positive - negative) / (felt + 0.3 * silent) if felt else 0.0
    strength = positive + negative
    if strength and min(positive, negative) / strength > _MIXED_SHARE and strength / felt > 0.4:
        label, agree, against = Sentiment.MIXED, 2 * min(positive, negative), abs(positive - negative)
    elif score > _NEUTRAL:
        label, agree, against = Sentiment.POSITIVE, positive, negative
    elif score < -_NEUTRAL:
        label, agree, against = Sentiment.NEGATIVE, negative, positive
    else:
        label, agree, against = Sentiment.NEUTRAL, 0.3 * silent, strength
    # One message for and one against are assumed beforehand, so that little evidence gives little confidence.
    confidence = (agree + 0.5) / (agree + against + 1)
    return label, round(max(-1.0, min(1.0, score)), 4), round(confidence, 3)


def _spread(numbers: Sequence[int]) -> list[int]:
    """Take at most the allowed number of points, evenly, the first and the last among them."""
    if len(numbers) <= _POINTS:
        return list(numbers)
    step = (len(numbers) - 1) / (_POINTS - 1)
    return [numbers[round(n * step)] for n in range(_POINTS)]
