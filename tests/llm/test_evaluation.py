"""Reading dialogues, and measuring the built-in engine and the baselines on them."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.llm.dialogues import read
from app.llm.evaluation import Scorer, measure_baselines, measure_engine
from app.llm.local.engine import summarize

DIALOGUE = {
    "id": "kettle",
    "messages": [
        {"speaker": "Cora", "role": "customer", "text": "Hello! I hope you are well. It is a sunny morning here."},
        {"speaker": "Adam", "role": "support_agent", "text": "Hi Cora, how can I help you today?"},
        {"speaker": "Cora", "role": "user", "text": "My new kettle leaks and I would like a refund for the kettle."},
        {"speaker": "Adam", "role": "system", "text": "I have refunded the kettle to your card. Keep the receipt."},
        {"speaker": "Cora", "role": "customer", "text": "That is great, thank you so much!"},
        {"speaker": "Adam", "role": "agent", "text": "You are welcome. Have a nice day and enjoy the sunshine!"},
    ],
    "references": ["The customer wants a refund for a leaking kettle. The agent refunded the kettle to the card."],
    "labels": {"sentiment": "positive", "outcome": "yes"},
}
PLAIN = {"messages": [{"role": "customer", "text": "Where is my parcel?"}]}


def write(path: Path, *lines: Any) -> Path:
    file = path / "dialogues.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return file


def test_the_engine_invents_nothing_and_quotes_word_for_word(tmp_path: Path) -> None:
    engine = measure_engine(read(write(tmp_path, DIALOGUE, "", PLAIN)), lambda: None)
    assert (engine.invented, engine.evidence_found) == (0, 1)
    assert engine.keywords_in_reference
    assert engine.seconds_per_dialogue > 0


def test_the_engine_beats_baselines_that_differ(tmp_path: Path) -> None:
    dialogues = read(write(tmp_path, DIALOGUE))
    found = measure_baselines(Scorer(), dialogues, lambda: None)
    assert set(found) == {
        "lead-3", "longest-3", "first customer + last agent", "sumy TextRank", "sumy LexRank", "sumy LSA",
    }  # fmt: skip
    assert len(set(found.values())) >= 4
    engine = Scorer().mean([(summarize(dialogues[0].turns).summary, dialogues[0].references)])
    assert engine
    assert all(engine.rouge1 > baseline.rouge1 for baseline in found.values())


def test_without_references_there_is_nothing_to_compare_and_progress_is_told(tmp_path: Path) -> None:
    told: list[None] = []
    dialogues = read(write(tmp_path, PLAIN, PLAIN))
    assert measure_baselines(Scorer(), dialogues, lambda: told.append(None)) == {}
    assert measure_engine(dialogues, lambda: told.append(None)).keywords_in_reference is None
    assert len(told) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "line 2: not valid JSON"),
        ("[]", "line 2: expected a JSON object"),
        ('{"messages": "none"}', "line 2: 'messages' must be a list"),
        ('{"messages": [{"role": "customer"}]}', "line 2: message 1 must be an object with a string 'text'"),
        ('{"messages": [{"role": "king", "text": "x"}]}', "line 2: message 1 has the role 'king'"),
        ('{"messages": [], "references": [1]}', "line 2: 'references' must be a list of strings"),
        ('{"messages": [], "labels": {"keywords": "parcel"}}', "line 2: 'keywords' must be a list of strings"),
        ('{"messages": [], "labels": {"outcome": "perhaps"}}', "line 2: 'perhaps' is not a valid Outcome"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(write(tmp_path, PLAIN, line))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl"
    file.write_bytes(b'{"messages": []}\n\xff\xfe"')
    with pytest.raises(ValueError, match="line 2"):
        read(file)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no dialogues"):
        read(write(tmp_path, ""))
