"""The built-in engine's insights against what the customers of the sample conversations said themselves."""

import csv
from collections import defaultdict
from datetime import datetime

import pytest

from app.llm.local.engine import analyze
from app.schemas.drafts import InsightsDraft, Turn
from app.settings import ROOT

MATTERS = {
    "apartment": ["apartment"],
    "bank": ["bank", "account", "fraud", "transaction", "balance", "card", "charge"],
    "doctor": ["doctor", "dr", "appointment", "test"],
    "hotel": ["hotel", "room"],
    "plane": ["plane", "flight", "ticket"],
    "restaurant": ["restaurant", "table", "dinner", "food"],
    "ride": ["ride", "taxi", "cab", "driver"],
}
"""A word that a topic of such a conversation should hold."""


def insights(sample: str) -> list[tuple[dict[str, str], InsightsDraft]]:
    """Returns what is known of each conversation of a sample, and what the engine says."""
    with (ROOT / "data" / f"{sample}_outcomes.csv").open() as stream:
        known = {row["conversation_id"]: row for row in csv.DictReader(stream)}
    turns: defaultdict[str, list[Turn]] = defaultdict(list)
    with (ROOT / "data" / f"{sample}.csv").open() as stream:
        for row in csv.DictReader(stream):
            time = datetime.fromisoformat(row.pop("timestamp"))
            turns[row.pop("conversation_id")].append(Turn(text=row.pop("message_content"), timestamp=time, **row))
    return [(row, analyze(turns[name])) for name, row in known.items()]


@pytest.mark.parametrize("sample", ["star_sample", "pc_support_sample"])
def test_most_outcomes_are_right_and_what_stayed_unresolved_took_more_effort(sample: str) -> None:
    found = [(row["outcome"], each) for row, each in insights(sample) if row["outcome"]]
    right = sum((each.outcome.label in ("yes", "curious")) == (outcome == "resolved") for outcome, each in found)
    assert right / len(found) >= 0.8
    effort = {
        outcome: [each.customer_effort.score for its, each in found if its == outcome]
        for outcome in ("resolved", "unresolved")
    }
    pairs = [(no, yes) for no in effort["unresolved"] for yes in effort["resolved"]]
    # The chance that of one of each the unresolved one scores higher: the area under the ROC curve.
    assert sum((no > yes) + (no == yes) / 2 for no, yes in pairs) / len(pairs) >= 0.6


def test_topics_name_the_matter() -> None:
    found = [
        (MATTERS[row["tasks"].split("_")[0]], each) for row, each in insights("star_sample") if ";" not in row["tasks"]
    ]
    named = sum(any(word in topic for topic in each.topics for word in words) for words, each in found)
    assert named / len(found) >= 0.9
