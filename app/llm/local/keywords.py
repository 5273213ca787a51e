"""Keywords: the words and phrases that most messages hold."""

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator

from app.llm.local.text import Chat, Sentence, is_content, stem
from app.llm.local.words import SUPPORT_STOP_WORDS
from app.schemas.drafts import ScoredKeyword
from app.schemas.enums import UserType

_NAME = re.compile(
    r"(?i:\b(?:name(?:['\u2019]s| is)|i['\u2019]m|i am|this is|hi|hey|hello|dear|thanks|thank you),?\s)"
    r"([A-Z][a-z]+(?:\s[A-Z][a-z]+)?)(?=\s*(?:[,.!?;]|$|and\b|here\b))"
)
_ASKED_NAME = re.compile(r"\bname\b[^.!]*\?", re.IGNORECASE)
_SERIAL = re.compile(r"(?=.{7}).*\d")
_NAME_WORDS = 3
_MAX_WORD = 40
_VOCABULARY = 20_000


def keywords(chat: Chat, limit: int = 8) -> list[ScoredKeyword]:
    """Rank words and two-word phrases by the number of messages that hold them, as their commonest written form."""
    holders: dict[str, set[int]] = defaultdict(set)
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    opening: set[str] = set()
    first_customer = next((n for n, turn in enumerate(chat.turns) if turn.user_type is UserType.CUSTOMER), -1)
    ignored = {name.lower() for name in chat.handles} | set(people(chat))
    for sentence in chat.sentences:
        for key, form in terms(sentence, ignored):
            if key not in holders and len(holders) >= _VOCABULARY:
                continue
            holders[key].add(sentence.turn)
            forms[key][form] += 1
            if sentence.turn == first_customer:
                opening.add(key)
    # What the customer opens with is what they came for: it counts as one message more.
    weight = {key: len(turns) + (key in opening) for key, turns in holders.items()}
    for key in [key for key in weight if " " in key]:
        # A phrase said once is chance; a phrase said again speaks for its words.
        if len(holders[key]) < 2:
            del weight[key]
            continue
        for part in key.split():
            if part in weight and len(holders[part]) <= len(holders[key]):
                del weight[part]
    best = sorted(weight, key=lambda key: -weight[key])[:limit]
    top = weight[best[0]] if best else 1
    return [ScoredKeyword(text=forms[key].most_common(1)[0][0], score=round(weight[key] / top, 3)) for key in best]


def people(chat: Chat) -> Iterator[str]:
    """Yield the names that the people call themselves and each other: who they are is not what it is about."""
    asked = False
    for sentence in chat.sentences:
        if asked and sentence.side is UserType.CUSTOMER:
            asked = False
            if len(sentence.words) <= _NAME_WORDS:
                yield from sentence.words
        if sentence.side is UserType.SUPPORT_AGENT and _ASKED_NAME.search(sentence.text):
            asked = True
        for match in _NAME.finditer(sentence.text):
            yield from match.group(1).lower().split()
        # An agent's closing signature stands alone.
        if sentence.side is UserType.SUPPORT_AGENT and not sentence.first and len(sentence.words) == 1:
            yield sentence.words[0]


def is_matter(word: str, ignored: Container[str]) -> bool:
    """Tell whether a word says what a conversation is about: no stop word, no serial number, nobody's name."""
    known = word in SUPPORT_STOP_WORDS or word in ignored
    return is_content(word) and not known and len(word) <= _MAX_WORD and not _SERIAL.search(word)


def terms(sentence: Sentence, ignored: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield the words and two-word phrases of a sentence that carry content, each as its stems and as written."""
    before: tuple[str, str] | None = None
    for word in sentence.words:
        if not is_matter(word, ignored):
            before = None
            continue
        key = stem(word)
        yield key, word
        if before is not None and before[0] != key:
            yield f"{before[0]} {key}", f"{before[1]} {word}"
        before = key, word
