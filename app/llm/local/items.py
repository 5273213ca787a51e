"""What somebody is to do, and what was settled."""

import re
from collections.abc import Iterable
from typing import TypeVar

from app.llm.local import acts, patterns
from app.llm.local.text import QUOTE_CHARS, Chat, Sentence, clip
from app.llm.local.trim import trim
from app.schemas.drafts import DraftActionItem, DraftItem
from app.schemas.enums import UserType

Item = TypeVar("Item")

_ITEMS = 20
_OWNER_CHARS = 255
_WORDS = 4
_SOMEBODY_ELSE = re.compile(
    r"\b(?:team|department|manager|supervisor|specialist|technician|colleague|member|driver|they|he|she|someone)\b",
    re.I,
)


def action_items(chat: Chat) -> list[DraftActionItem]:
    """List the promises of both sides, and what the agent asked for at the end without a reply."""
    found: list[tuple[Sentence, DraftActionItem]] = []
    later = _later_replies(chat)
    customer = ""
    for sentence in chat.sentences:
        if sentence.side is UserType.CUSTOMER:
            customer = chat.turns[sentence.turn].user_id
        if len(sentence.words) < _WORDS or sentence.text.endswith("?") or acts.TRANSIENT.search(sentence.text):
            continue
        if _promises(sentence, later[sentence.turn]):
            owner = "" if _SOMEBODY_ELSE.search(sentence.text) else chat.turns[sentence.turn].user_id
        elif sentence.side is UserType.SUPPORT_AGENT and _asks_for_act(sentence, later[sentence.turn]):
            owner = customer
        else:
            continue
        due = acts.DUE.search(sentence.text)
        item = DraftActionItem(
            text=statement(chat, sentence),
            evidence=[chat.quote(sentence)],
            owner=owner if len(owner) <= _OWNER_CHARS else "",
            due=clip(due.group(), _OWNER_CHARS) if due else "",
        )
        found.append((sentence, item))
    return distinct(found, _ITEMS)


def _promises(sentence: Sentence, replies: int) -> bool:
    """Tell whether the sender promises something that is still to be done when the conversation ends."""
    if sentence.side is UserType.SUPPORT_AGENT:
        return bool(acts.PROMISE.search(sentence.text) or acts.OTHERS_PROMISE.search(sentence.text))
    # A customer who writes on has tried by then what they said they would.
    still_open = replies <= 1 or acts.DUE.search(sentence.text) is not None
    return still_open and acts.PROMISE.search(sentence.text) is not None


def _asks_for_act(sentence: Sentence, replies: int) -> bool:
    """Tell whether the agent asks for something that is still to be done when the conversation ends."""
    if not acts.INSTRUCTION.search(sentence.text):
        return False
    # What the customer replied to was done, or answered, in the conversation itself.
    return not replies or acts.DEFERRED.search(sentence.text) is not None


def _later_replies(chat: Chat) -> list[int]:
    """Count, for each turn, the customer's messages of substance after it."""
    substance = {s.turn for s in chat.sentences if s.side is UserType.CUSTOMER and s.terms}
    later = [0] * len(chat.turns)
    for number in range(len(chat.turns) - 2, -1, -1):
        later[number] = later[number + 1] + (number + 1 in substance)
    return later


def decisions(chat: Chat) -> list[DraftItem]:
    """List what was settled: offers that were accepted, things done or refused, choices that the customer made."""
    found: list[tuple[Sentence, DraftItem]] = []
    offer: Sentence | None = None
    for sentence in chat.sentences:
        if offer is not None and sentence.side is not offer.side:
            agreed = acts.AGREEMENT.search(sentence.text) is not None
            if agreed:
                text = f"Agreed: {statement(chat, offer)}"
                found.append((offer, DraftItem(text=text, evidence=[chat.quote(offer), chat.quote(sentence)])))
            offer = None
            if agreed:
                continue
        if acts.OFFER.search(sentence.text) and sentence.side is UserType.SUPPORT_AGENT:
            offer = None if patterns.CLOSING_QUESTION.search(sentence.text) else sentence
        elif _decides(sentence):
            found.append((sentence, DraftItem(text=statement(chat, sentence), evidence=[chat.quote(sentence)])))
    return distinct(found, _ITEMS)


def _decides(sentence: Sentence) -> bool:
    if sentence.text.endswith("?") or len(sentence.words) < 2:
        return False
    text = patterns.CONDITION.split(sentence.text, maxsplit=1)[0]
    pattern = acts.CHOICE if sentence.side is UserType.CUSTOMER else acts.SETTLED
    return bool(pattern.search(text))


def core(chat: Chat, sentence: Sentence) -> str:
    """Take a sentence's own words without greeting and signature; nothing may be left."""
    by_agent = sentence.side is UserType.SUPPORT_AGENT
    return trim(sentence.text, chat.handles if sentence.first else frozenset(), signed=by_agent)


def statement(chat: Chat, sentence: Sentence) -> str:
    """Write a sentence as the text of an item."""
    return clip(core(chat, sentence) or sentence.text, QUOTE_CHARS)


def distinct(found: Iterable[tuple[Sentence, Item]], limit: int) -> list[Item]:
    """Keep one of the items that say the same, and of too many the latest."""
    kept: dict[tuple[str, ...], Item] = {}
    for sentence, item in found:
        kept.setdefault(tuple(sorted(sentence.terms)) or sentence.words, item)
    return list(kept.values())[-limit:]
