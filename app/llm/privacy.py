"""Placeholders for what tells who somebody is, so that a model elsewhere never sees it.

E-mail and IP addresses, IBANs, numbers of cards, phones, accounts and orders, and the ids of the conversation, its
messages and its senders become ``[EMAIL_1]``, ``[PHONE_1]`` and so on. In a model's answer the values stand again,
letter by letter. Whatever a chat holds that looks like a placeholder is replaced as well: each one that a model reads
is ours.
"""

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from app.llm.identifiers import LONGEST, Span, identifiers, plain
from app.schemas.drafts import Turn
from app.schemas.enums import UserType

D = TypeVar("D", bound=BaseModel)

KINDS = ("USER", "MESSAGE", "CONVERSATION", "TEXT", "IBAN", "EMAIL", "IP", "CARD", "PHONE", "ID", "NUMBER")
"""What placeholders begin with; of two that fit the same passage the earlier one counts."""

_SPACED = {"IBAN", "CARD", "PHONE", "ID", "NUMBER"}
"""Kinds whose values are the same with other spaces and dashes."""
_NAME = rf"(?:{'|'.join(KINDS)})_[0-9]{{1,9}}(?:_[0-9]{{1,9}})?"
_PLACEHOLDER = re.compile(rf"\[{_NAME}\]|{_NAME}", re.ASCII | re.IGNORECASE)
# What the rest of a text might still make one of; words that only look so wait for their end too.
_BEGUN = re.compile(r"\[?[a-z]{0,12}(?:_[0-9]{0,9}){0,2}\Z", re.ASCII | re.IGNORECASE)
_LONGEST_NAME = len("[CONVERSATION_123456789_123456789]")
# Han, kana, Thai, Lao, Burmese and Khmer are written without spaces, and Hangul with endings: each character is a word.
_UNSPACED = (
    "\u0e01-\u0eff\u1000-\u109f\u1160-\u11ff\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SYLLABLE = "[\u1100-\u115f][\u1160-\u11a7]?[\u11a8-\u11ff]?"
_WORD = re.compile(rf"[0-9a-z_]+|{_SYLLABLE}|[{_UNSPACED}]|[^\W0-9a-z_\u1100-\u115f{_UNSPACED}]+|\W")
_ROLES = {word for role in UserType for word in (role.value, *role.value.split("_"))}


class Pseudonyms:
    """The placeholders of one conversation; the same conversation gets the same ones.

    Those of conversations that share ``counts`` are all different, so none of one means anything in another.
    """

    def __init__(self, turns: Sequence[Turn], conversation_id: str = "", counts: Counter[str] | None = None) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._forms: Counter[tuple[str, int]] = Counter()
        ids = [("USER", turn.user_id) for turn in turns] + [("MESSAGE", turn.message_id) for turn in turns]
        own = dict.fromkeys([*ids, ("CONVERSATION", conversation_id)])
        for kind, value in own:
            self._name(kind, value, new=True)
        self._own = _OwnIds(own)
        self.hidden: list[Turn] = [
            turn.model_copy(
                update={
                    "message_id": f"[{self._names['MESSAGE', turn.message_id]}]",
                    "user_id": f"[{self._names['USER', turn.user_id]}]",
                    "text": self.hide(turn.text),
                }
            )
            for turn in turns
        ]
        """The conversation as a model elsewhere may see it."""

    def hide(self, text: str) -> str:
        """Returns a text of the conversation, or one that was written about it, with placeholders."""
        parts, end = [], 0
        for span in _merged(self._found(text)):
            parts.append(text[end : span.start])
            for start in range(span.start, span.end, LONGEST):
                parts.append(f"[{self._name(span.kind, text[start : min(start + LONGEST, span.end)])}]")
            end = span.end
        return "".join([*parts, text[end:]])

    def reveal(self, draft: D) -> D:
        """Returns a draft with the values in all of its texts; a placeholder that nobody made stays."""
        revealed: D = self._revealed(draft)
        return revealed

    def reveal_text(self, text: str) -> str:
        """Returns a text with the values."""
        return _PLACEHOLDER.sub(lambda match: self._values.get(match[0].strip("[]").upper(), match[0]), text)

    def stand_in(self, text: str) -> bool:
        """Says whether a text has a placeholder of this conversation."""
        return any(match[0].strip("[]").upper() in self._values for match in _PLACEHOLDER.finditer(text))

    def reveal_start(self, text: str) -> str:
        """Returns the start of a text with the values, without its end if that may be the start of a placeholder."""
        begun = _BEGUN.search(text, max(0, len(text) - _LONGEST_NAME))
        return self.reveal_text(text[: begun.start()] if begun else text)

    def _revealed(self, part: Any) -> Any:
        if isinstance(part, BaseModel):
            return part.model_copy(update={name: self._revealed(value) for name, value in part})
        if isinstance(part, list):
            return [self._revealed(each) for each in part]
        return self.reveal_text(part) if type(part) is str else part  # an enum's word stays

    def _found(self, text: str) -> Iterator[Span]:
        yield from (Span(*match.span(), "TEXT") for match in _PLACEHOLDER.finditer(text))
        looked_at = plain(text)
        for span in self._own.find(looked_at.text):
            yield looked_at.original(span)
        for span in identifiers(looked_at, text):
            yield looked_at.original(span)

    def _name(self, kind: str, value: str, *, new: bool = False) -> str:
        """Returns a value's placeholder; the forms of one value differ in a second number."""
        known = self._names.get((kind, value))
        if known:
            return known
        same = plain(value).text
        key = kind, "".join(filter(str.isalnum, same)) if kind in _SPACED else same
        if new or key not in self._numbers:
            self._counts[kind] += 1
            number = self._counts[kind]
            self._numbers.setdefault(key, number)
        else:
            number = self._numbers[key]
        self._forms[kind, number] += 1
        form = self._forms[kind, number]
        name = self._names[kind, value] = f"{kind}_{number}" if form == 1 else f"{kind}_{number}_{form}"
        self._values[name] = value
        return name


class _OwnIds:
    """The conversation's own ids, to be found as whole words: the automaton of Aho and Corasick (1975), of words."""

    def __init__(self, ids: Iterable[tuple[str, str]]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]
        self._longest: list[tuple[int, str] | None] = [None]
        for kind, value in ids:
            text = plain(value).text
            if _telling(text):
                state = self._add(text)
                self._longest[state] = self._longest[state] or (len(text), kind)
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for word, following in self._next[state].items():
                fallback = self._fallback[following] = self._step(self._fallback[state], word)
                self._longest[following] = self._longest[following] or self._longest[fallback]
                waiting.append(following)

    def find(self, text: str) -> Iterator[Span]:
        """Yields the longest id that ends with each word of a text in plain form."""
        state = 0
        for word in _WORD.finditer(text):
            state = self._step(state, word[0])
            found = self._longest[state]
            if found:
                yield Span(word.end() - found[0], word.end(), found[1])

    def _add(self, text: str) -> int:
        state = 0
        for word in _WORD.findall(text):
            state = self._next[state].setdefault(word, len(self._next))
            if state == len(self._next):
                self._next.append({})
                self._fallback.append(0)
                self._longest.append(None)
        return state

    def _step(self, state: int, word: str) -> int:
        while state and word not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(word, 0)


def _telling(text: str) -> bool:
    """Says whether an id is more than a role, a small number or a syllable."""
    if text.isdigit():
        return len(text) > 4
    if text in _ROLES or not any(each.isalnum() or each == "_" for each in text):
        return False
    length = len(unicodedata.normalize("NFC", text))  # a syllable of Hangul is one character
    return length > 2 or (length == 2 and any(map(str.isdigit, text)))


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Yields spans in their order; those that overlap are one, of the longest one's kind."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    current: Span | None = None
    length = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end, rank[span.kind])):
        if current is None or span.start >= current.end:
            if current:
                yield current
            current, length = span, span.end - span.start
            continue
        longer = span.end - span.start > length
        length = max(length, span.end - span.start)
        current = Span(current.start, max(current.end, span.end), span.kind if longer else current.kind)
    if current:
        yield current
