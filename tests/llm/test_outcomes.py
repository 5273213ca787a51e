"""The built-in engine's outcomes against what the customers of the sample conversations said themselves."""

import csv
from collections import defaultdict
from datetime import datetime

import pytest

from app.llm.local.engine import analyze
from app.schemas.drafts import Turn
from app.settings import ROOT


@pytest.mark.parametrize(("sample", "at_least"), [("star_sample", 0.8), ("pc_support_sample", 0.8)])
def test_most_outcomes_are_right(sample: str, at_least: float) -> None:
    with (ROOT / "data" / f"{sample}_outcomes.csv").open() as stream:
        said = {row["conversation_id"]: row["outcome"] for row in csv.DictReader(stream) if row["outcome"]}
    turns: defaultdict[str, list[Turn]] = defaultdict(list)
    with (ROOT / "data" / f"{sample}.csv").open() as stream:
        for row in csv.DictReader(stream):
            time = datetime.fromisoformat(row.pop("timestamp"))
            turns[row.pop("conversation_id")].append(Turn(text=row.pop("message_content"), timestamp=time, **row))
    right = sum(
        (analyze(turns[name]).outcome.label in ("yes", "curious")) == (outcome == "resolved")
        for name, outcome in said.items()
    )
    assert right / len(said) >= at_least
