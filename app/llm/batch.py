"""Several short conversations in one prompt, and one answer for each of them, or none."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.llm.hops import Hops, NoAnswer, Run
from app.llm.privacy import Pseudonyms
from app.llm.tasks import Task
from app.schemas.drafts import TURNS, NumberedSummary, SummariesDraft, SummaryDraft, Turn


class Chat(NamedTuple):
    """A conversation to be read with others."""

    conversation_id: str
    turns: Sequence[Turn]


async def read_together(
    hops: Hops, task: Task[SummariesDraft], chats: Sequence[Chat], run: Run, *, redact: bool
) -> list[SummaryDraft | None]:
    """Returns what a model says of each conversation; None where it does not say one thing, and of that one alone.

    Raises:
        NoAnswer: if none answered, or the conversations are too long together.
    """
    names: list[Pseudonyms] = []
    if redact:
        counts: Counter[str] = Counter()
        names = await asyncio.to_thread(
            lambda: [Pseudonyms(each.turns, each.conversation_id, counts) for each in chats]
        )
    turns: list[Sequence[Turn]] = [each.hidden for each in names] or [each.turns for each in chats]
    shown = json.dumps(
        [
            {"conversation": number, "messages": TURNS.dump_python(list(each), mode="json")}
            for number, each in enumerate(turns)
        ],
        ensure_ascii=False,
    )
    if not hops or len(shown) > hops.room:
        raise NoAnswer
    said = (await hops.ask(task, task.prompt, shown, run)).summaries
    drafts: list[SummaryDraft | None] = []
    for number in range(len(chats)):
        own = [each for each in said if each.conversation == number]
        if len(own) != 1 or _strays(own[0], number, turns, names):
            drafts.append(None)
        else:
            drafts.append(names[number].reveal(own[0]) if names else own[0])
    return drafts


def shares(whole: int, weights: Sequence[int]) -> Iterator[int]:
    """Yields the parts of a whole by weight; they add up to it exactly."""
    total, so_far, given = sum(weights), 0, 0
    for weight in weights:
        so_far += weight
        part = whole * so_far // total - given
        given += part
        yield part


def _strays(draft: NumberedSummary, number: int, turns: Sequence[Sequence[Turn]], names: Sequence[Pseudonyms]) -> bool:
    """Says whether an answer names a message, or holds a placeholder, that is another conversation's."""
    items = [*draft.action_items, *draft.decisions, *draft.questions]
    cited = {quote.message_id for item in items for quote in item.evidence}
    cited -= {turn.message_id for turn in turns[number]}
    others = [place for place in range(len(turns)) if place != number]
    if any(turn.message_id in cited for place in others for turn in turns[place]):
        return True
    # As text, not as JSON: there a character of a word may be written as a number.
    texts = " ".join(_texts(draft.model_dump()))
    return bool(names) and any(names[place].stand_in(texts) for place in others)


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for each in node.values():
            yield from _texts(each)
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each)
