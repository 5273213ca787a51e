"""Topics: phrases of the chat that hold the words which most messages hold."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from app.llm.local import patterns
from app.llm.local.keywords import is_matter, people
from app.llm.local.text import Chat, Sentence, stem, word_spans
from app.schemas.enums import UserType

_WORDS = 4
_CHARS = 60
_BINDS = re.compile(r"[ -]")
_VOCABULARY = 20_000


def topics(chat: Chat, limit: int = 5) -> list[str]:
    """List what it is about as short phrases, as they are written there, in lower case; no two share a word."""
    ignored = {name.lower() for name in chat.handles} | set(people(chat))
    holders: dict[str, set[int]] = defaultdict(set)
    forms: dict[tuple[str, ...], Counter[str]] = {}
    asked = next((n for n, turn in enumerate(chat.turns) if turn.user_type is UserType.CUSTOMER), -1)
    opening: set[str] = set()
    for sentence in chat.sentences:
        if patterns.IDENTIFICATION.search(sentence.text):
            continue
        for run in _runs(sentence, ignored):
            key = tuple(map(stem, run))
            if key not in forms and len(forms) >= _VOCABULARY:
                continue
            forms.setdefault(key, Counter())[" ".join(run)] += 1
            for term in key:
                holders[term].add(sentence.turn)
            if sentence.turn == asked:
                opening.update(key)
    # What the customer opens with is what they came for. A phrase is worth its words, but a long one less than two.
    weight = {term: len(turns) + (term in opening) for term, turns in holders.items()}
    worth = {key: sum(weight[term] for term in set(key)) / len(key) ** 0.5 for key in forms}
    chosen: list[str] = []
    used: set[str] = set()
    for key in sorted(forms, key=lambda key: -worth[key]):
        if len(chosen) == limit or (chosen and worth[key] < 2):
            break
        if used.isdisjoint(key):
            used.update(key)
            chosen.append(forms[key].most_common(1)[0][0])
    return chosen


def _runs(sentence: Sentence, ignored: set[str]) -> Iterator[tuple[str, ...]]:
    """Yields the words of matter that stand side by side, at most so many."""
    run: list[str] = []
    end = -1
    for word, start, stop in word_spans(sentence.text):
        beside = bool(run) and _BINDS.fullmatch(sentence.text, end, start) is not None
        matter = is_matter(word, ignored)
        if run and not (matter and beside and len(run) < _WORDS):
            yield tuple(run)
            run = []
        if matter and len(word) + sum(map(len, run)) <= _CHARS:
            run.append(word)
        end = stop
    if run:
        yield tuple(run)
