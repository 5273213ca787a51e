"""Sentences and words: every piece of text that leaves this file is a slice of a message."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from app.llm.local.trim import opening_handles
from app.llm.local.words import STOP_WORDS
from app.schemas.drafts import Quote, Turn
from app.schemas.enums import UserType

# A bound that keeps the work linear: what lies beyond it in one message is not read.
MESSAGE_CHARS = 20_000
SENTENCE_CHARS = 1_000
QUOTE_CHARS = 300

_BREAK = re.compile(r"(?<=[.!?…])[\"'”\u2019)\]]*\s+|[\r\n]+|(?<=[。\uff01\uff1f؟।])")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:mr|mrs|ms|dr|st|no|vs|e\.g|i\.e|approx|etc|inc|ltd|a\.m|p\.m|[A-Z])\.$", re.I
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019&.-][^\W_]+)*")
_LINK = re.compile(r"<\w+>|https?://\S+|www\.\S+|[^\s@]{1,64}@[^\s@]{1,255}\.\w+")
_HANDLE = re.compile(r"[@#]\w+")


@dataclass(frozen=True)
class Sentence:
    """A sentence of a message: ``text`` is a slice of the message of turn number ``turn``."""

    turn: int
    side: UserType
    text: str
    first: bool

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in lower case, links and handles left out."""
        return tuple(words(self.text))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """The stems of the words that carry content, each once, in their order."""
        return tuple(dict.fromkeys(stem(word) for word in self.words if is_content(word)))


@dataclass(frozen=True)
class Chat:
    """A conversation, read once: its turns and their sentences in order."""

    turns: Sequence[Turn]
    sentences: tuple[Sentence, ...]

    @classmethod
    def read(cls, turns: Sequence[Turn]) -> "Chat":
        """Split every message into sentences."""
        found: list[Sentence] = []
        for number, turn in enumerate(turns):
            first = True
            for piece in split(turn.text):
                found.append(Sentence(number, turn.user_type, piece, first))
                first = False
        return cls(turns, tuple(found))

    @cached_property
    def handles(self) -> frozenset[str]:
        """The names that messages are addressed to at their beginning."""
        by_customer = [turn.text for turn in self.turns if turn.user_type is UserType.CUSTOMER]
        return opening_handles(by_customer, (t.text for t in self.turns if t.user_type is UserType.SUPPORT_AGENT))

    def quote(self, sentence: Sentence) -> Quote:
        """Cite a sentence as evidence."""
        return Quote(message_id=self.turns[sentence.turn].message_id, quote=clip(sentence.text, QUOTE_CHARS))


def split(text: str) -> Iterator[str]:
    """Yield the sentences of a message as slices of it."""
    text = clip(text, MESSAGE_CHARS)
    start = 0
    for match in _BREAK.finditer(text):
        if (
            match.group().isspace()
            and "\n" not in match.group()
            and _ABBREVIATION.search(text, max(0, match.start() - 12), match.start())
        ):
            continue
        piece = text[start : match.end()].strip()
        start = match.end()
        yield from _chunks(piece)
    yield from _chunks(text[start:].strip())


def _chunks(piece: str) -> Iterator[str]:
    """Cut a run without sentence ends into pieces that patterns can be tried on."""
    while piece:
        head = clip(piece, SENTENCE_CHARS)
        yield head
        piece = piece[len(head) :].strip()


def words(text: str) -> list[str]:
    """List the words of a text in lower case; links, handles and hashtags are not words."""
    return [word for word, _, _ in word_spans(text)]


def word_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the words of a text in lower case, with the place of each; links, handles and hashtags are not words."""
    plain = _HANDLE.sub(_blank, _LINK.sub(_blank, text))
    for match in _WORD.finditer(plain):
        yield match.group().lower().replace("\u2019", "'"), match.start(), match.end()


def _blank(match: re.Match[str]) -> str:
    return "\n" * len(match.group())


def is_content(word: str) -> bool:
    """Tell whether a word says something about the matter: not a stop word, not a bare number or letter."""
    return len(word) > 1 and word not in STOP_WORDS and not word[0].isdigit()


def stem(word: str) -> str:
    """Cut common English endings, so that 'charged' and 'charges' count as one word."""
    word = word.removesuffix("'s")
    if len(word) > 5 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ing", "ed", "es", "s", "e"):
        if len(word) - len(ending) > 2 and word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)]
    return word


def clip(text: str, limit: int) -> str:
    """Cut a text to at most ``limit`` characters, at the end of a word where there is one."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    cut = head.rfind(" ", limit // 2)
    return head[: cut if cut > 0 else limit].rstrip()
