"""The usual extractive baselines, to measure summaries beside."""

from collections.abc import Callable, Sequence
from typing import Any

from app.llm.local.text import split, words
from app.schemas.drafts import Turn
from app.schemas.enums import UserType

_SENTENCES = 3
# The graph baselines compare every sentence with every other.
_BASELINE_SENTENCES = 300


def baselines() -> dict[str, Callable[[Sequence[Turn]], list[str]]]:
    """Returns the baselines by name; each one picks the sentences of its summary."""
    return {
        "lead-3": lambda turns: _sentences(turns)[:_SENTENCES],
        "longest-3": _longest,
        "first customer + last agent": _first_and_last,
        **_sumy_baselines(),
    }


def _sentences(turns: Sequence[Turn]) -> list[str]:
    return [text for turn in turns for text in split(turn.text)]


def _longest(turns: Sequence[Turn]) -> list[str]:
    sentences = _sentences(turns)
    longest = sorted(range(len(sentences)), key=lambda number: -len(sentences[number].split()))[:_SENTENCES]
    return [sentences[number] for number in sorted(longest)]


def _first_and_last(turns: Sequence[Turn]) -> list[str]:
    by_side = {side: [turn.text for turn in turns if turn.user_type is side] for side in UserType}
    return by_side[UserType.CUSTOMER][:1] + by_side[UserType.SUPPORT_AGENT][-1:]


class _SumyTokenizer:
    """Stands in for sumy's own tokenizer, which needs NLTK's downloaded data."""

    def to_words(self, sentence: str) -> tuple[str, ...]:
        return tuple(words(sentence))


def _sumy_baselines() -> dict[str, Callable[[Sequence[Turn]], list[str]]]:
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.nlp.stemmers import Stemmer
    from sumy.summarizers.lex_rank import LexRankSummarizer
    from sumy.summarizers.lsa import LsaSummarizer
    from sumy.summarizers.text_rank import TextRankSummarizer
    from sumy.utils import get_stop_words

    tokenizer = _SumyTokenizer()

    def baseline(kind: Callable[[Any], Any]) -> Callable[[Sequence[Turn]], list[str]]:
        summarizer = kind(Stemmer("english"))
        summarizer.stop_words = get_stop_words("english")

        def run(turns: Sequence[Turn]) -> list[str]:
            sentences = [text for text in _sentences(turns)[:_BASELINE_SENTENCES] if words(text)]
            if len(sentences) <= _SENTENCES:
                return sentences
            document = ObjectDocumentModel([Paragraph([Sentence(text, tokenizer) for text in sentences])])
            return [str(sentence) for sentence in summarizer(document, _SENTENCES)]

        return run

    kinds = {"TextRank": TextRankSummarizer, "LexRank": LexRankSummarizer, "LSA": LsaSummarizer}
    return {f"sumy {name}": baseline(kind) for name, kind in kinds.items()}
