"""Measuring summaries of dialogues against what people wrote about the same dialogues."""

import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.llm.baselines import baselines
from app.llm.dialogues import Dialogue
from app.llm.local.engine import analyze, summarize
from app.llm.local.text import stem, words
from app.schemas.analyses import SummaryBody
from app.schemas.drafts import DraftItem, InsightsDraft, SummaryDraft

_METRICS = ("rouge1", "rouge2", "rougeL")
_KEYWORDS = 5
_P95 = 0.95
_INVALID = {"invalid_answer", "empty_answer", "cut_answer", "answer_too_long"}
"""Outcomes of calls whose answer did not validate."""
_WORD = re.compile(r"\w+")

Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE F-measures between 0 and 1 (Lin 2004), with stemming, averaged over references, then over dialogues."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the measure's own name


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a provider: what became of it, and its cost as it was booked, in US dollars."""

    outcome: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Case:
    """What came of asking a model about one dialogue: ``body`` is its checked answer, ``failure`` why there is none."""

    dialogue: Dialogue
    body: SummaryBody | None
    failure: str | None
    calls: list[Call]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """A model with a set of prompts, over all dialogues.

    Rates lie between 0 and 1, and are None where nothing could be compared. What summaries say is measured on the
    dialogues that were answered. ``evidence_rate`` is the share of action items, decisions and questions whose quotes
    were found again; ``schema_failure_rate`` the share of calls whose answer did not validate; latencies are whole
    answers, repairs included (the p95 by nearest rank); the costs are None for a model without a list price.
    """

    model: str
    prompts: str | None
    prompt_version: str | None
    dialogues: int
    failures: int
    failure_reasons: dict[str, int]
    with_references: int
    rouge1: float | None
    rouge2: float | None
    rougeL: float | None  # noqa: N815 - the measure's own name
    evidence_items: int
    evidence_rate: float | None
    calls: int
    schema_failures: int
    schema_failure_rate: float | None
    sentiment_accuracy: float | None
    outcome_accuracy: float | None
    keywords_found: float | None
    cost_usd: float | None
    cost_usd_per_dialogue: float | None
    latency_ms_median: float | None
    latency_ms_p95: float | None
    summary_words: float | None


@dataclass(frozen=True, slots=True)
class Engine:
    """What is measured of the built-in engine alone; rates as in ``Row``."""

    keywords_in_reference: float | None
    invented: float
    evidence_found: float | None
    seconds_per_dialogue: float


class Scorer:
    """Scores summaries by ROUGE."""

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(list(_METRICS), use_stemmer=True)

    def mean(self, pairs: Iterable[tuple[str, Sequence[str]]]) -> Rouge | None:
        """Returns the mean over summaries that have references; None if none has."""
        scores = [self._score(summary, references) for summary, references in pairs if references]
        if not scores:
            return None
        return Rouge(*(statistics.fmean(getattr(score, metric) for score in scores) for metric in _METRICS))

    def _score(self, summary: str, references: Sequence[str]) -> Rouge:
        values = [self._scorer.score(reference, summary) for reference in references]
        return Rouge(*(statistics.fmean(value[metric].fmeasure for value in values) for metric in _METRICS))


def measure(
    scorer: Scorer, model: str, prompts: str | None, prompt_version: str | None, cases: Sequence[Case], *, priced: bool
) -> Row:
    """Returns the row of a model with a set of prompts."""
    answered = [(case.dialogue, case.body) for case in cases if case.body]
    rouge = scorer.mean((body.summary, dialogue.references) for dialogue, body in answered)
    items = [item for _, body in answered for item in (*body.action_items, *body.decisions, *body.questions)]
    calls = [call for case in cases for call in case.calls]
    invalid = sum(call.outcome in _INVALID for call in calls)
    cost = math.fsum(call.cost_usd for call in calls) if priced else None
    latencies = sorted(case.latency_ms for case in cases if case.body)
    return Row(
        model=model,
        prompts=prompts,
        prompt_version=prompt_version,
        dialogues=len(cases),
        failures=sum(case.body is None for case in cases),
        failure_reasons=dict(Counter(case.failure for case in cases if case.failure)),
        with_references=sum(bool(dialogue.references) for dialogue, _ in answered),
        rouge1=rouge.rouge1 if rouge else None,
        rouge2=rouge.rouge2 if rouge else None,
        rougeL=rouge.rougeL if rouge else None,
        evidence_items=len(items),
        evidence_rate=_rate(item.verified for item in items),
        calls=len(calls),
        schema_failures=invalid,
        schema_failure_rate=invalid / len(calls) if calls else None,
        sentiment_accuracy=_rate(_label_hits(answered, "sentiment")),
        outcome_accuracy=_rate(_label_hits(answered, "outcome")),
        keywords_found=_rate(hit for dialogue, body in answered for hit in _named(dialogue.keywords, body.keywords)),
        cost_usd=cost,
        cost_usd_per_dialogue=cost / len(cases) if cost is not None and cases else None,
        latency_ms_median=statistics.median(latencies) if latencies else None,
        latency_ms_p95=latencies[math.ceil(_P95 * len(latencies)) - 1] if latencies else None,
        summary_words=statistics.fmean(len(body.summary.split()) for _, body in answered) if answered else None,
    )


def measure_baselines(scorer: Scorer, dialogues: Sequence[Dialogue], done: Progress) -> dict[str, Rouge]:
    """Returns what the baselines reach on the dialogues with references; ``done`` is called after each dialogue."""
    summarizers = baselines()
    found: dict[str, list[tuple[str, Sequence[str]]]] = {name: [] for name in summarizers}
    for dialogue in dialogues:
        for name, summarizer in summarizers.items() if dialogue.references else ():
            found[name].append((" ".join(summarizer(dialogue.turns)), dialogue.references))
        done()
    means = {name: scorer.mean(pairs) for name, pairs in found.items()}
    return {name: mean for name, mean in means.items() if mean}


def measure_engine(dialogues: Sequence[Dialogue], done: Progress) -> Engine:
    """Returns what only the built-in engine is measured by: it must invent nothing."""
    seconds: list[float] = []
    results: list[tuple[Dialogue, SummaryDraft, InsightsDraft]] = []
    for dialogue in dialogues:
        started = time.perf_counter()
        results.append((dialogue, summarize(dialogue.turns), analyze(dialogue.turns)))
        seconds.append(time.perf_counter() - started)
        done()
    return Engine(
        keywords_in_reference=_rate(hit for dialogue, draft, _ in results for hit in _keyword_hits(dialogue, draft)),
        invented=_rate(_invents(dialogue, draft) for dialogue, draft, _ in results) or 0.0,
        evidence_found=_rate(hit for result in results for hit in _evidence_hits(*result)),
        seconds_per_dialogue=statistics.fmean(seconds),
    )


def _keyword_hits(dialogue: Dialogue, draft: SummaryDraft) -> Iterator[bool]:
    if dialogue.references:
        human = {_plain_stem(word) for reference in dialogue.references for word in words(reference)}
        for keyword in draft.keywords[:_KEYWORDS]:
            yield all(_plain_stem(word) in human for word in keyword.split())


def _plain_stem(word: str) -> str:
    return stem(word.replace("'", ""))


def _named(wanted: Iterable[str], named: Iterable[str]) -> Iterator[bool]:
    """Yields for each keyword that people named whether the model did, in some form of the same words."""
    found = {_stems(keyword) for keyword in named}
    return (_stems(keyword) in found for keyword in wanted)


def _stems(keyword: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in keyword.casefold().split())


def _label_hits(answered: Iterable[tuple[Dialogue, SummaryBody]], name: str) -> Iterator[bool]:
    for dialogue, body in answered:
        if name in dialogue.labels:
            yield dialogue.labels[name] == getattr(body, name)


def _invents(dialogue: Dialogue, draft: SummaryDraft) -> bool:
    said = {fact for turn in dialogue.turns for fact in _facts(turn.text)}
    # The frame brings in one capitalised word of its own.
    return bool(dialogue.turns) and not set(_facts(draft.summary)) <= said | {"The"}


def _facts(text: str) -> Iterator[str]:
    """Yield the numbers and the capitalised words: what an extractive summary must not bring in."""
    return (word for word in _WORD.findall(text) if word[0].isupper() or any(char.isdigit() for char in word))


def _evidence_hits(dialogue: Dialogue, draft: SummaryDraft, insights: InsightsDraft) -> Iterator[bool]:
    texts = {turn.message_id: turn.text for turn in dialogue.turns}
    items: list[DraftItem] = [
        *draft.action_items,
        *draft.decisions,
        *draft.questions,
        *insights.escalation_risk.reasons,
    ]
    for quotes in (insights.outcome.evidence, insights.customer_effort.evidence, *(item.evidence for item in items)):
        yield from (quote.quote in texts.get(quote.message_id, "") for quote in quotes)


def _rate(hits: Iterable[bool]) -> float | None:
    values = list(hits)
    return sum(values) / len(values) if values else None
