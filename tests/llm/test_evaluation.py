"""Measuring the built-in engine on dialogues with references."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.llm.evaluation import as_json, evaluate, table

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


def test_json_holds_the_measures_and_the_rest(tmp_path: Path) -> None:
    result = json.loads(json.dumps(as_json(evaluate(write(tmp_path, DIALOGUE, "", PLAIN)))))
    assert all(0 < result[measure] <= 1 for measure in ("rouge1", "rouge2", "rougeL"))
    assert all(set(baseline) == {"rouge1", "rouge2", "rougeL"} for baseline in result["baselines"].values())
    assert set(result["baselines"]) == {
        "lead-3", "longest-3", "first customer + last agent", "sumy TextRank", "sumy LexRank", "sumy LSA",
    }  # fmt: skip
    assert (result["dialogues"], result["with_references"]) == (2, 1)
    assert (result["invented"], result["evidence_found"]) == (0, 1)
    assert (result["sentiment_accuracy"], result["outcome_accuracy"]) == (1, 1)
    assert result["keywords_in_reference"] > 0
    assert result["summary_words"] > 5
    assert result["seconds_per_dialogue"] > 0


def test_the_engine_beats_baselines_that_differ(tmp_path: Path) -> None:
    evaluation = evaluate(write(tmp_path, DIALOGUE))
    assert len(set(evaluation.baselines.values())) >= 4
    assert all(evaluation.engine.rouge1 > baseline.rouge1 for baseline in evaluation.baselines.values())


def test_rates_are_absent_where_nothing_is_labelled(tmp_path: Path) -> None:
    evaluation = evaluate(write(tmp_path, PLAIN))
    assert evaluation.sentiment_accuracy is None
    assert evaluation.outcome_accuracy is None
    assert evaluation.keywords_in_reference is None
    assert evaluation.engine.rouge1 == 0


def test_a_wrong_label_counts_as_wrong(tmp_path: Path) -> None:
    wrong = DIALOGUE | {"labels": {"outcome": "no"}}
    assert evaluate(write(tmp_path, wrong, DIALOGUE)).outcome_accuracy == 0.5


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    evaluate(write(tmp_path, PLAIN, PLAIN), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_the_table_shows_the_engine_beside_the_baselines(tmp_path: Path) -> None:
    console = Console(width=120, file=io.StringIO())
    with console.capture() as capture:
        console.print(table(evaluate(write(tmp_path, DIALOGUE))))
    shown = capture.get()
    assert all(name in shown for name in ("built-in engine", "lead-3", "sumy LexRank", "ROUGE-2", "outcome right"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "line 2: not valid JSON"),
        ("[]", "line 2: expected a JSON object"),
        ('{"messages": "none"}', "line 2: 'messages' must be a list"),
        ('{"messages": [{"role": "customer"}]}', "line 2: message 1 must be an object with a string 'text'"),
        ('{"messages": [{"role": "king", "text": "x"}]}', "line 2: message 1 has the role 'king'"),
        ('{"messages": [], "references": [1]}', "line 2: 'references' must be a list of strings"),
        ('{"messages": [], "labels": {"outcome": "perhaps"}}', "line 2: 'perhaps' is not a valid Outcome"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate(write(tmp_path, PLAIN, line))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl"
    file.write_bytes(b'{"messages": []}\n\xff\xfe"')
    with pytest.raises(ValueError, match="line 2"):
        evaluate(file)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no dialogues"):
        evaluate(write(tmp_path, ""))
