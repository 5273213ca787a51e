"""Conversations to measure with: generated ones, the same for the same seed, or those of a CSV file."""

import csv
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import orjson
from sumy.utils import get_stop_words

from app.demo import SAMPLES
from app.services.records import FIELDS

MESSAGES_EACH = 20
AGENT = "agent-1"
START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=600)
LONGEST = timedelta(minutes=15)


class Message(NamedTuple):
    """A message, with the fields of the API."""

    conversation_id: str
    message_id: str
    user_id: str
    user_type: str
    timestamp: datetime
    message_content: str


class Words(NamedTuple):
    """What is searched for."""

    rare: tuple[str, ...] = ("zqaxor", "zqbxor", "zqcxor", "zqdxor", "zqexor", "zqfxor", "zqgxor", "zqhxor", "zqixor")
    """Each in ten messages, spread over all the time, however many messages there are."""
    common: str = "warranty"
    """In a fifth of the messages."""
    pair: str = "battery replacement"
    """Each in a twentieth of the messages, so both in one of 400."""
    phrase: str = '"cracked hinge"'
    """In twelve messages; in twelve others the words stand the other way round, and one is in a hundredth."""


@cache
def _texts() -> list[str]:
    messages = (message for sample in SAMPLES for message in read(sample))
    return [message.message_content for message in messages if len(message.message_content) > 20]


def generate(messages: int, prefix: str = "c-", seed: int = 5) -> Iterator[Message]:
    """Yields conversations of 20 messages, oldest first, each of a customer and the one agent."""
    rng, texts, words = random.Random(seed), _texts(), Words()
    conversations = max(1, messages // MESSAGES_EACH)
    rare = {
        int((turn + (place + 0.5) / len(words.rare)) * messages / 10): word
        for place, word in enumerate(words.rare)
        for turn in range(10)
    }
    hinges = {int((turn + 0.3) * messages / 24): turn % 2 for turn in range(24)}
    gap = min(LONGEST, SPAN / conversations) / (MESSAGES_EACH + 1)
    for place in range(messages):
        number, turn = divmod(place, MESSAGES_EACH)
        customer = turn % 2 == 0
        text = [rng.choice(texts)]
        if rng.random() < 0.5:
            text.append(rng.choice(texts))
        if rng.random() < 0.3:
            text.append(f"The order is {rng.randrange(messages):07}.")
        for chance, said in (
            (0.2, "Is that under warranty?"),
            (0.05, "It is about the battery."),
            (0.05, "I would like a replacement."),
            (0.01, "It arrived cracked."),
        ):
            if rng.random() < chance:
                text.append(said)
        if place in rare:
            text.append(f"The code is {rare[place]}.")
        if place in hinges:
            text.append("The hinge is cracked." if hinges[place] else "It has a cracked hinge.")
        yield Message(
            f"{prefix}{number:07}",
            f"m-{turn}",
            f"customer-{number * 7 % (conversations // 3 + 1)}" if customer else AGENT,
            "customer" if customer else "support_agent",
            START + SPAN * number / conversations + gap * turn + timedelta(microseconds=1 + rng.randrange(1_000)),
            " ".join(text),
        )


def read(file: Path, messages: int | None = None, prefix: str = "") -> Iterator[Message]:
    """Yields the messages of a CSV file with the fields of the API, the times and ids that it lacks made up."""
    with file.open(newline="") as stream:
        for place, row in enumerate(csv.DictReader(stream)):
            if place == messages:
                return
            said = row.get("timestamp")
            yield Message(
                prefix + row["conversation_id"],
                row.get("message_id") or f"m-{place}",
                row["user_id"],
                row["user_type"],
                datetime.fromisoformat(said).astimezone(UTC) if said else START + timedelta(seconds=place),
                row["message_content"],
            )


def choose_words(messages: Iterable[Message]) -> Words:
    """Returns words of somebody's own data: those as frequent as the generated ones, or '' for none."""
    counts, sample, text = Counter[str](), set[str](), ""
    stop_words = get_stop_words("english")
    for message in messages:
        counts[""] += 1
        said = message.message_content.lower()
        counts.update(found := {word for word in re.findall(r"\b[a-z]{4,}\b", said) if word not in stop_words})
        if len(found) > max(len(sample), 5):
            sample, text = found, said
    total = counts.pop("")
    by_distance = sorted(counts, key=lambda word: (abs(counts[word] - total / 5), word))
    rare = sorted(counts, key=lambda word: (abs(counts[word] - 10), word))[:10]
    pair = sorted(sample, key=lambda word: counts[word])[:2]
    phrase = next((two for two in re.findall(r"\b[a-z]{4,} [a-z]{4,}\b", text) if set(two.split()) <= sample), "")
    return Words(tuple(rare), by_distance[0] if counts else "", " ".join(pair), phrase and f'"{phrase}"')


@dataclass
class Conversation:
    """What the tables of conversations and participants say."""

    count: int
    first: datetime
    last: datetime
    senders: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class Data:
    """Messages as files, in each form in which they are loaded, and what is known of them."""

    folder: Path
    messages: int = 0
    conversations: dict[str, Conversation] = field(default_factory=dict)

    @cached_property
    def sender(self) -> str:
        """Who took part in most conversations."""
        senders = Counter(sender for each in self.conversations.values() for sender in each.senders)
        return senders.most_common(1)[0][0]


def write(messages: Iterable[Message], folder: Path, workspace_id: int) -> Data:
    """Writes ``messages.ndjson``, ``messages.csv`` and a file for COPY of each table."""
    folder.mkdir()
    data = Data(folder)
    names = ("messages.ndjson", "messages.csv", "messages.copy")
    ndjson, rows, copy = ((folder / name).open("w", encoding="utf-8", newline="") for name in names)
    with ndjson, rows, copy:
        table = csv.writer(rows)
        table.writerow(FIELDS)
        for message in messages:
            values = message._asdict()
            ndjson.write(orjson.dumps(values, option=orjson.OPT_UTC_Z).decode() + "\n")
            text = {**values, "timestamp": message.timestamp.isoformat()}
            table.writerow(text[name] for name in FIELDS)
            copy.write(_copied(workspace_id, *text.values(), data.messages))
            _count(data, message)
    with (folder / "conversations.copy").open("w", encoding="utf-8", newline="") as copy:
        for name, each in data.conversations.items():
            copy.write(_copied(workspace_id, name, each.count, each.first, each.last))
    with (folder / "participants.copy").open("w", encoding="utf-8", newline="") as copy:
        for name, each in data.conversations.items():
            for sender, (kind, count) in each.senders.items():
                copy.write(_copied(workspace_id, name, sender, kind, count, each.last))
    return data


def _count(data: Data, message: Message) -> None:
    data.messages += 1
    found = data.conversations.get(message.conversation_id)
    if found is None:
        found = Conversation(0, message.timestamp, message.timestamp)
        data.conversations[message.conversation_id] = found
    found.count += 1
    found.first, found.last = min(found.first, message.timestamp), max(found.last, message.timestamp)
    found.senders[message.user_id] = (message.user_type, found.senders.get(message.user_id, ("", 0))[1] + 1)


def _copied(*values: object) -> str:
    escaped = (str(value).replace("\\", "\\\\").replace("\t", "\\t") for value in values)
    return "\t".join(escaped).replace("\r", "\\r").replace("\n", "\\n") + "\n"
