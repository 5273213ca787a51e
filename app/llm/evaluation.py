"""Measure the built-in engine on dialogues that have human summaries, beside the usual extractive baselines."""

import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from app.llm.local.engine import analyze, summarize
from app.llm.local.text import split, stem, words
from app.schemas.drafts import DraftItem, InsightsDraft, SummaryDraft, Turn
from app.schemas.enums import Outcome, Sentiment, UserType

_ROLES = {
    **dict.fromkeys(("customer", "user", "client"), UserType.CUSTOMER),
    **dict.fromkeys(("support_agent", "agent", "system", "assistant"), UserType.SUPPORT_AGENT),
}
_LABELS: Mapping[str, type[Sentiment] | type[Outcome]] = {"sentiment": Sentiment, "outcome": Outcome}
_METRICS = ("rouge1", "rouge2", "rougeL")
_SENTENCES = 3
_KEYWORDS = 5
# The graph baselines compare every sentence with every other.
_BASELINE_SENTENCES = 300
_CLOCK_START = datetime(2000, 1, 1, tzinfo=UTC)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE F-measures between 0 and 1 (Lin 2004), with stemming, averaged over references, then over dialogues."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the measure's own name


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured; rates lie between 0 and 1 and are absent where nothing could be compared."""

    dialogues: int
    with_references: int
    engine: Rouge
    baselines: dict[str, Rouge]
    keywords_in_reference: float | None
    invented: float
    evidence_found: float | None
    sentiment_accuracy: float | None
    outcome_accuracy: float | None
    summary_words: float
    seconds_per_dialogue: float


@dataclass(frozen=True, slots=True)
class _Dialogue:
    turns: list[Turn]
    references: list[str]
    labels: dict[str, str]


_Result = tuple[_Dialogue, SummaryDraft, InsightsDraft]


def evaluate(path: Path, progress: Callable[[int, int], None] | None = None) -> Evaluation:
    """Run the engine and the baselines over a JSON Lines file of dialogues and measure them.

    A line is ``{id, messages: [{speaker, role, text}], references: [...], labels: {sentiment, outcome}}``; only the
    messages are required. A line that cannot be read raises ``ValueError`` with its number.
    """
    dialogues = list(_read(path))
    if not dialogues:
        raise ValueError(f"{path.name} holds no dialogues")
    score = _rouge_scorer()
    summarizers = _baselines()
    scores: dict[str, list[Rouge]] = {name: [] for name in ("engine", *summarizers)}
    seconds: list[float] = []
    results: list[_Result] = []
    for done, dialogue in enumerate(dialogues, start=1):
        started = time.perf_counter()
        draft, insights = summarize(dialogue.turns), analyze(dialogue.turns)
        seconds.append(time.perf_counter() - started)
        results.append((dialogue, draft, insights))
        if dialogue.references:
            scores["engine"].append(score(draft.summary, dialogue.references))
            for name, baseline in summarizers.items():
                scores[name].append(score(" ".join(baseline(dialogue.turns)), dialogue.references))
        if progress is not None:
            progress(done, len(dialogues))
    means = {name: _mean_rouge(values) for name, values in scores.items()}
    return Evaluation(
        dialogues=len(dialogues),
        with_references=len(scores["engine"]),
        engine=means.pop("engine"),
        baselines=means,
        keywords_in_reference=_rate(hit for dialogue, draft, _ in results for hit in _keyword_hits(dialogue, draft)),
        invented=_rate(_invents(dialogue, draft) for dialogue, draft, _ in results) or 0.0,
        evidence_found=_rate(hit for result in results for hit in _evidence_hits(*result)),
        sentiment_accuracy=_rate(_label_hits(results, "sentiment")),
        outcome_accuracy=_rate(_label_hits(results, "outcome")),
        summary_words=statistics.fmean(len(draft.summary.split()) for _, draft, _ in results),
        seconds_per_dialogue=statistics.fmean(seconds),
    )


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Shape an evaluation for ``--json``: the engine's three measures at the top, the baselines by name, the rest."""
    rest = asdict(evaluation)
    return {**rest.pop("engine"), "baselines": rest.pop("baselines"), **rest}


def table(evaluation: Evaluation) -> Table:
    """Draw an evaluation: a row each for the engine and the baselines, the other measures below."""
    result = Table(title=f"ROUGE F1 in %, {evaluation.with_references} dialogues", caption=_caption(evaluation))
    for heading in ("Summariser", "ROUGE-1", "ROUGE-2", "ROUGE-L"):
        result.add_column(heading, justify="left" if heading == "Summariser" else "right")
    for name, rouge in {"built-in engine": evaluation.engine, **evaluation.baselines}.items():
        result.add_row(name, *(f"{100 * getattr(rouge, metric):.1f}" for metric in _METRICS))
    return result


def _caption(evaluation: Evaluation) -> str:
    rates = {
        "summaries with an invented number or name": evaluation.invented,
        "quotes found word for word": evaluation.evidence_found,
        "top five keywords found in a human summary": evaluation.keywords_in_reference,
        "sentiment right": evaluation.sentiment_accuracy,
        "outcome right": evaluation.outcome_accuracy,
    }
    lines = [f"{name}: {100 * rate:.1f} %" for name, rate in rates.items() if rate is not None]
    lines.append(f"words in a summary: {evaluation.summary_words:.1f}")
    lines.append(f"milliseconds for a dialogue: {1000 * evaluation.seconds_per_dialogue:.1f}")
    return "\n".join(lines)


def _read(path: Path) -> Iterator[_Dialogue]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _dialogue(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not valid JSON: {error.msg} at column {error.colno}") from error
            except (TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {error}") from error


def _dialogue(data: object) -> _Dialogue:
    if not isinstance(data, dict):
        raise TypeError("expected a JSON object")
    if not isinstance(messages := data.get("messages"), list):
        raise TypeError("'messages' must be a list")
    references = data.get("references") or []
    if not isinstance(references, list) or not all(isinstance(reference, str) for reference in references):
        raise TypeError("'references' must be a list of strings")
    if not isinstance(labels := data.get("labels") or {}, dict):
        raise TypeError("'labels' must be an object")
    return _Dialogue(
        turns=[_turn(message, number) for number, message in enumerate(messages, start=1)],
        references=[reference for reference in references if reference.strip()],
        labels={name: str(kind(labels[name])) for name, kind in _LABELS.items() if labels.get(name) is not None},
    )


def _turn(message: object, number: int) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("text"), str):
        raise TypeError(f"message {number} must be an object with a string 'text'")
    role = message.get("role") or message.get("speaker")
    user_type = _ROLES.get(str(role).lower())
    if user_type is None:
        raise ValueError(f"message {number} has the role {role!r}; known are {', '.join(_ROLES)}")
    return Turn(
        message_id=str(number),
        user_id=str(message.get("speaker") or user_type),
        user_type=user_type,
        timestamp=_CLOCK_START + timedelta(seconds=number),
        text=message["text"],
    )


def _rouge_scorer() -> Callable[[str, Sequence[str]], Rouge]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(_METRICS), use_stemmer=True)

    def score(summary: str, references: Sequence[str]) -> Rouge:
        values = [scorer.score(reference, summary) for reference in references]
        return Rouge(*(statistics.fmean(value[metric].fmeasure for value in values) for metric in _METRICS))

    return score


def _mean_rouge(values: Sequence[Rouge]) -> Rouge:
    if not values:
        return Rouge(0.0, 0.0, 0.0)
    return Rouge(*(statistics.fmean(getattr(value, metric) for value in values) for metric in _METRICS))


def _baselines() -> dict[str, Callable[[Sequence[Turn]], list[str]]]:
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


def _keyword_hits(dialogue: _Dialogue, draft: SummaryDraft) -> Iterator[bool]:
    if dialogue.references:
        human = {_plain_stem(word) for reference in dialogue.references for word in words(reference)}
        for keyword in draft.keywords[:_KEYWORDS]:
            yield all(_plain_stem(word) in human for word in keyword.split())


def _plain_stem(word: str) -> str:
    return stem(word.replace("'", ""))


def _label_hits(results: Iterable[_Result], name: str) -> Iterator[bool]:
    for dialogue, draft, _ in results:
        if name in dialogue.labels:
            yield dialogue.labels[name] == getattr(draft, name)


def _invents(dialogue: _Dialogue, draft: SummaryDraft) -> bool:
    said = {fact for turn in dialogue.turns for fact in _facts(turn.text)}
    # The frame brings in one capitalised word of its own.
    return bool(dialogue.turns) and not set(_facts(draft.summary)) <= said | {"The"}


def _facts(text: str) -> Iterator[str]:
    """Yield the numbers and the capitalised words: what an extractive summary must not bring in."""
    return (word for word in _WORD.findall(text) if word[0].isupper() or any(char.isdigit() for char in word))


def _evidence_hits(dialogue: _Dialogue, draft: SummaryDraft, insights: InsightsDraft) -> Iterator[bool]:
    texts = {turn.message_id: turn.text for turn in dialogue.turns}
    items: list[DraftItem] = [*draft.action_items, *draft.decisions, *draft.questions]
    for quotes in (insights.outcome.evidence, *(item.evidence for item in items)):
        yield from (quote.quote in texts.get(quote.message_id, "") for quote in quotes)


def _rate(hits: Iterable[bool]) -> float | None:
    values = list(hits)
    return sum(values) / len(values) if values else None
