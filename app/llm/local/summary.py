"""Extractive summary by role: what the customer came for, what the agent did about it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.llm.local.patterns import (
    ADVICE,
    CLOSING_QUESTION,
    COMPLAINT,
    IDENTIFICATION,
    INTRODUCTION,
    PLEASANTRY,
    REMEDY,
    REQUEST,
    WISH,
)
from app.llm.local.text import Chat, Sentence, clip
from app.llm.local.trim import trim
from app.schemas.enums import UserType

EMPTY = "The conversation holds no text to summarise."

# Up to this many messages a conversation is taken to have one issue, beyond it two.
_SHORT_CHAT = 12
_CANDIDATES = 400
_SENTENCE_CHARS = 280
_WIDE_WORDS = {UserType.CUSTOMER: 24, UserType.SUPPORT_AGENT: 18}
_ENDS = (".", "!", "?", "…", "。", "\uff01", "\uff1f", "؟", "।")

# How much a feature counts beside the centroid similarity, which lies between 0 and 1.
_FIRST_MESSAGE = 1.5
_FIRST_MESSAGE_DECAY = 0.3
_LATE_MESSAGE = 0.9
_WISH = 0.3
_REMEDY = 0.15
_PLEASANTRY = 0.5
_IDENTIFICATION = 0.3
_CLOSING_QUESTION = 2.0
_REDUNDANCY = 1.0
_NEARNESS = 0.6


@dataclass(frozen=True, slots=True)
class _Candidate:
    sentence: Sentence
    text: str
    length: int
    weight: float


@dataclass(frozen=True, slots=True)
class _Centroid:
    """The TF-IDF centroid of all sentences (Radev et al. 2004)."""

    idf: dict[str, float]
    weight: dict[str, float]
    norm: float

    @classmethod
    def of(cls, chat: Chat) -> "_Centroid":
        frequency = Counter(term for sentence in chat.sentences for term in sentence.terms)
        idf = {term: math.log(1 + len(chat.sentences) / n) for term, n in frequency.items()}
        weight = {term: frequency[term] * value for term, value in idf.items()}
        return cls(idf, weight, math.sqrt(math.fsum(value * value for value in weight.values())) or 1.0)

    def cosine(self, terms: Sequence[str]) -> float:
        length = math.sqrt(math.fsum(self.idf[term] ** 2 for term in terms)) or 1.0
        return math.fsum(self.weight[term] * self.idf[term] for term in terms) / (self.norm * length)


def summary(chat: Chat) -> str:
    """Write the summary: one sentence of each side, two in a long conversation, word for word in a fixed frame."""
    count = 1 if len(chat.turns) <= _SHORT_CHAT else 2
    centroid = _Centroid.of(chat)
    parts = []
    for side in UserType:
        pool = _candidates(chat, side, centroid)
        if chosen := _widen(_select(pool, count), pool, _WIDE_WORDS[side]):
            parts.append(_frame(side, chosen))
    return " ".join(parts) or EMPTY


def _candidates(chat: Chat, side: UserType, centroid: _Centroid) -> list[_Candidate]:
    handles = chat.handles
    by_agent = side is UserType.SUPPORT_AGENT
    trimmed: list[tuple[Sentence, str]] = []
    places: dict[int, int] = {}
    for sentence in chat.sentences:
        # An agent's message that opens with the company's handle is a mislabelled customer's.
        if sentence.side is not side or (
            by_agent and handles and sentence.text.split(None, 1)[0].rstrip(",:") in handles
        ):
            continue
        text = trim(sentence.text, handles if sentence.first else frozenset(), signed=by_agent)
        if not text or not any(char.isalnum() for char in text):
            continue
        trimmed.append((sentence, text))
        if _has_substance(text):
            places.setdefault(sentence.turn, len(places))
    found = []
    for sentence, text in trimmed:
        weight = centroid.cosine(sentence.terms) + _style(text)
        place = places.get(sentence.turn)
        if by_agent:
            late = 0.0 if place is None else (place + 1) / len(places)
            weight += _LATE_MESSAGE * late + _REMEDY * bool(REMEDY.search(text))
            weight -= _IDENTIFICATION * bool(IDENTIFICATION.search(text))
        else:
            early = 0.0 if place is None else _FIRST_MESSAGE_DECAY**place
            weight += _FIRST_MESSAGE * early + _WISH * bool(WISH.search(text))
        found.append(_Candidate(sentence, text, len(text.split()), weight))
    return found


def _has_substance(text: str) -> bool:
    return len(text.split()) > 2 and not PLEASANTRY.search(text) and not INTRODUCTION.search(text)


def _style(text: str) -> float:
    length = len(text.split())
    weight = 0.0
    if length < 6:
        weight -= 1 - length / 6
    elif length < 12:
        weight -= 0.3 * (12 - length) / 6
    if PLEASANTRY.search(text):
        weight -= _PLEASANTRY
    if CLOSING_QUESTION.search(text):
        weight -= _CLOSING_QUESTION
    return weight


def _select(pool: Sequence[_Candidate], count: int) -> list[_Candidate]:
    """Choose by maximal marginal relevance (Carbonell & Goldstein 1998), nearness counting as redundancy too."""
    rest = sorted(pool, key=lambda candidate: -candidate.weight)[:_CANDIDATES]
    span = 1 + max((candidate.sentence.turn for candidate in pool), default=0) / 2
    chosen: list[_Candidate] = []

    def relevance(candidate: _Candidate) -> float:
        return candidate.weight - max((_redundancy(candidate, other, span) for other in chosen), default=0.0)

    while rest and len(chosen) < count:
        best = max(rest, key=relevance)
        # A second sentence that only repeats or greets is worse than none.
        if chosen and relevance(best) < -_REDUNDANCY:
            break
        chosen.append(best)
        rest.remove(best)
    return chosen


def _redundancy(one: _Candidate, other: _Candidate, span: float) -> float:
    a, b = one.sentence.terms, set(other.sentence.terms)
    overlap = sum(term in b for term in a) / math.sqrt(len(a) * len(b)) if a and b else 0.0
    nearness = max(0.0, 1 - abs(one.sentence.turn - other.sentence.turn) / span)
    return _REDUNDANCY * overlap + _NEARNESS * nearness


def _widen(chosen: Sequence[_Candidate], pool: Sequence[_Candidate], words: int) -> list[_Candidate]:
    """Take the neighbours within the same message along while both stay short."""
    place = {id(candidate): number for number, candidate in enumerate(pool)}
    kept: set[int] = set()
    for candidate in chosen:
        number, length = place[id(candidate)], candidate.length
        kept.add(number)
        for near in (number + 1, number - 1):
            if not 0 <= near < len(pool) or pool[near].sentence.turn != candidate.sentence.turn:
                continue
            other = pool[near]
            if _has_substance(other.text) and length + other.length <= words:
                kept.add(near)
                length += other.length
    return [pool[number] for number in sorted(kept)]


def _frame(side: UserType, chosen: Sequence[_Candidate]) -> str:
    """Say who says it and how; sentences said in the same way, or in the same message, share a frame."""
    groups: list[tuple[str, list[_Candidate]]] = []
    for candidate in chosen:
        manner = _customer_manner(candidate) if side is UserType.CUSTOMER else _agent_manner(candidate)
        if groups and (groups[-1][0] == manner or groups[-1][1][-1].sentence.turn == candidate.sentence.turn):
            groups[-1][1].append(candidate)
        else:
            groups.append((manner, [candidate]))
    return " ".join(f"{manner}: {_join(members)}" for manner, members in groups)


def _customer_manner(candidate: _Candidate) -> str:
    if COMPLAINT.search(candidate.text):
        return "The customer is complaining"
    asks = candidate.sentence.text.endswith("?") or WISH.search(candidate.text)
    return "The customer is asking" if asks else "The customer says"


def _agent_manner(candidate: _Candidate) -> str:
    if REQUEST.search(candidate.sentence.text):
        return "The agent asks the customer"
    return "The agent suggests" if ADVICE.search(candidate.text) else "The agent says"


def _join(chosen: Sequence[_Candidate]) -> str:
    texts = (clip(candidate.text, _SENTENCE_CHARS) for candidate in chosen)
    return " ".join(text if text.rstrip("\"'”\u2019)").endswith(_ENDS) else f"{text}." for text in texts)
