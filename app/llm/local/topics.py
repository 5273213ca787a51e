"""Topics: what many conversations are about, by TF-IDF and non-negative matrix factorisation.

Run as a program, it reads commands as JSON lines and answers each with one: the libraries it needs for fitting take a
hundred megabytes and a second to load, and its work would hold up whatever else a process does.
"""

import math
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import orjson

from app.llm.local.keywords import people, terms
from app.llm.local.text import Chat, stem, words
from app.schemas.drafts import Turn
from app.schemas.enums import UserType
from app.schemas.topics import Assigned, Topic, TopicModel

FEWEST = 5
"""In how many conversations, of as many customers, a term has to be before it may describe a topic."""
OFTENEST = 0.6
"""In which part of the conversations a term may be at the most: what is in more says nothing about any."""
VOCABULARY = 3_000
TOPICS = range(4, 21)
"""How many topics there may be; in between, the root of half the conversations."""
NAMED = 0.2
"""In which part of its conversations a word has to be somebody's name to be nobody's term."""
KEYWORDS = 8
"""How many terms show what a topic is."""
WEIGHTLESS = 0.02
"""Which part of a topic's greatest weight is left out as noise."""
NEAR = 0.12
"""The least cosine between a conversation and its topic."""
SAME = 0.4
"""The least cosine between a topic and an earlier one that it goes on as."""
EPOCH = datetime.fromtimestamp(0, UTC)
NICENESS = 10
"""By how much other processes go first."""

# A sentence does not end behind them, nor is what follows the matter.
_TITLED = re.compile(r"\b(?:[Dd]r|[Mm]r|[Mm]rs|[Mm]s|[Mm]iss|[Dd]octor|[Pp]rof|[Pp]rofessor)\.?\s+([A-Z]\w+)")


class Document(NamedTuple):
    """A conversation: its customers, how often each term is in it, the terms as written, and the stems of names."""

    customers: frozenset[str]
    terms: Counter[str]
    forms: dict[str, str]
    names: frozenset[str]


def read(turns: Sequence[Turn]) -> Document:
    """Takes what a conversation is about out of it: no names, no ids, nothing with a digit."""
    chat = Chat.read(turns)
    named = {name.lower() for name in chat.handles} | set(people(chat))
    named |= {match[1].lower() for turn in turns for match in _TITLED.finditer(turn.text)}
    ignored = named | {word for turn in turns for word in words(turn.user_id.replace("_", " "))}
    counts: Counter[str] = Counter()
    forms: dict[str, str] = {}
    for sentence in chat.sentences:
        for term, form in terms(sentence, ignored):
            if not any(map(str.isdigit, form)):
                counts[term] += 1
                forms.setdefault(term, form)
    customers = frozenset(turn.user_id for turn in turns if turn.user_type is UserType.CUSTOMER)
    return Document(customers, counts, forms, frozenset(map(stem, named)))


class Fitted(NamedTuple):
    """A model, and its topics as they are shown."""

    model: TopicModel
    topics: list[Topic]


def fit(documents: Sequence[Document], before: Fitted | None = None) -> Fitted:
    """Finds the topics of conversations; one that is an earlier one's keeps its number and label."""
    apart = len({document.customers for document in documents}) > len(documents) // 2
    idf = _idf(documents, apart=apart)
    forms = _forms(documents, idf)
    components = _components(documents, idf) if idf else []
    known = _matched(components, before.model.weights) if before else {}
    labels = {topic.topic_id: topic.label for topic in before.topics} if before else {}
    next_id = before.model.next_id if before else 1
    weights: dict[int, dict[str, float]] = {}
    topics = []
    for place, component in enumerate(components):
        topic_id = known.get(place, next_id)
        next_id = max(next_id, topic_id + 1)
        weights[topic_id] = component
        topics.append(Topic(topic_id=topic_id, label=labels.get(topic_id, ""), keywords=_keywords(component, forms)))
    return Fitted(TopicModel(idf=idf, weights=weights, next_id=next_id, apart=apart), topics)


def assign(model: TopicModel, document: Document) -> Assigned:
    """Returns the topic that a conversation is nearest to, if it is near any, by the cosine."""
    vector = _vector(document, model.idf)
    best = Assigned(None, 0.0)
    for topic_id, weights in model.weights.items():
        near = sum(weight * weights.get(term, 0.0) for term, weight in vector.items())
        if near > max(best.weight, NEAR):
            best = Assigned(topic_id, min(round(near, 4), 1.0))
    return best


def _idf(documents: Sequence[Document], *, apart: bool) -> dict[str, float]:
    """Returns the inverse document frequency of each term that may describe a topic."""
    holders: defaultdict[str, set[object]] = defaultdict(set)
    named: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for place, document in enumerate(documents):
        named.update(document.names)
        held.update(document.terms.keys())
        for term in document.terms:
            if len(holders[term]) < FEWEST:
                holders[term].add(document.customers if apart else place)
    total = len(documents)

    def fits(term: str, part: float) -> bool:
        somebody = any(named[each] >= NAMED * (named[each] + held[each]) for each in term.split() if named[each])
        return len(holders[term]) >= FEWEST and held[term] <= part * total and not somebody

    found = [term for term in held if fits(term, OFTENEST)] or [term for term in held if fits(term, 1.0)]
    # The commonest, and of those that are as common the first in the alphabet: the same conversations, the same terms.
    found = sorted(found, key=lambda term: (-held[term], term))[:VOCABULARY]
    return {term: math.log((1 + total) / (1 + held[term])) + 1 for term in sorted(found)}


def _forms(documents: Iterable[Document], wanted: Iterable[str]) -> dict[str, str]:
    """Returns each term as it is most often written."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    kept = set(wanted)
    for document in documents:
        for term, form in document.forms.items():
            if term in kept:
                counts[term][form] += 1
    return {term: min(forms, key=lambda form: (-forms[form], form)) for term, forms in counts.items()}


def _vector(document: Document, idf: dict[str, float]) -> dict[str, float]:
    found = {term: (1 + math.log(count)) * idf[term] for term, count in document.terms.items() if term in idf}
    length = math.sqrt(sum(weight * weight for weight in found.values()))
    return {term: weight / length for term, weight in found.items()}


def _components(documents: Sequence[Document], idf: dict[str, float]) -> list[dict[str, float]]:
    """Returns the topics' terms with their weights, each of length 1."""
    from scipy.sparse import csr_array
    from sklearn.decomposition import NMF

    names = list(idf)
    places = {term: place for place, term in enumerate(names)}
    vectors = [vector for document in documents if (vector := _vector(document, idf))]
    rows = [row for row, vector in enumerate(vectors) for _ in vector]
    columns = [places[term] for vector in vectors for term in vector]
    data = [weight for vector in vectors for weight in vector.values()]
    count = min(max(TOPICS.start, round(math.sqrt(len(vectors) / 2))), TOPICS.stop - 1, len(vectors), len(names))
    matrix = csr_array((data, (rows, columns)), shape=(len(vectors), len(names)))
    model = NMF(count, init="nndsvd", random_state=0, max_iter=400, tol=1e-3)
    model.fit(matrix)
    found = []
    for component in model.components_:
        least = WEIGHTLESS * component.max()
        kept = {names[place]: float(weight) for place, weight in enumerate(component) if weight > least}
        length = math.sqrt(sum(weight * weight for weight in kept.values()))
        if length:
            found.append({term: round(weight / length, 4) for term, weight in kept.items()})
    return found


def _matched(components: Sequence[dict[str, float]], before: dict[int, dict[str, float]]) -> dict[int, int]:
    """Returns which component is which earlier topic: the assignment with the greatest sum of cosines."""
    if not components or not before:
        return {}
    import numpy
    from scipy.optimize import linear_sum_assignment

    numbers = list(before)
    near = numpy.array(
        [
            [sum(weight * before[number].get(term, 0.0) for term, weight in component.items()) for number in numbers]
            for component in components
        ]
    )
    pairs = zip(*linear_sum_assignment(near, maximize=True), strict=True)
    return {int(new): numbers[old] for new, old in pairs if near[new, old] >= SAME}


def _keywords(weights: dict[str, float], forms: dict[str, str]) -> list[str]:
    """Returns a topic's first terms, none of which is a part of another."""
    found: list[str] = []
    for term in sorted(weights, key=lambda each: (-weights[each], each)):
        parts = set(term.split())
        inside = [each for each in found if set(each.split()) < parts]
        if any(parts < set(each.split()) for each in found):
            continue
        if inside:  # the phrase says more, and stands where its first word stood
            found[found.index(inside[0])] = term
            found = [each for each in found if each not in inside[1:]]
        else:
            found.append(term)
        if len(found) >= 2 * KEYWORDS:
            break
    return [forms[term] for term in islice(found, KEYWORDS)]


class Commands:
    """What the program is told to do, one after another, with the conversations that it was told of since."""

    def __init__(self) -> None:
        self._documents: list[Document] = []
        self._fitted: Fitted | None = None

    def obey(self, command: dict[str, Any]) -> Any:
        """Carries out a command, and returns its answer."""
        match command:
            case {"use": used}:
                self._documents.clear()
                self._fitted = used and Fitted(
                    TopicModel.model_validate(used["model"]), [Topic.model_validate(each) for each in used["topics"]]
                )
                return {}
            case {"read": conversations}:
                self._documents += map(_read_or_leave, conversations)
                return {}
            case {"fit": _}:
                self._fitted = fit(self._documents, self._fitted)
                model, topics = self._fitted
                shown = [topic.model_dump() for topic in topics]
                return {"model": model.model_dump(), "topics": shown, "assigned": self._assigned(model)}
            case {"assign": _}:
                assert self._fitted
                return {"assigned": self._assigned(self._fitted.model)}
        raise ValueError

    def _assigned(self, model: TopicModel) -> list[Assigned]:
        found = [assign(model, document) for document in self._documents]
        self._documents.clear()
        return found


def _read_or_leave(conversation: Sequence[Sequence[str]]) -> Document:
    turns = [
        Turn.model_construct(message_id="", user_id=user_id, user_type=UserType(user_type), timestamp=EPOCH, text=text)
        for user_id, user_type, text in conversation
    ]
    try:
        return read(turns)
    except Exception:  # noqa: BLE001 — one that cannot be read does not keep the others from having a topic
        return Document(frozenset(), Counter(), {}, frozenset())


def main(lines: BinaryIO, answers: BinaryIO) -> None:
    """Obeys until there is nobody any more who asks."""
    commands = Commands()
    for line in lines:
        try:
            answer = commands.obey(orjson.loads(line))
        except Exception as error:  # noqa: BLE001 — its text may hold anything
            answer = {"error": type(error).__name__}
        answers.write(orjson.dumps(answer, tuple, orjson.OPT_NON_STR_KEYS) + b"\n")
        answers.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    main(sys.stdin.buffer, sys.stdout.buffer)
