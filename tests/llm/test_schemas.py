"""What models are asked, in the form that both providers take, and what is accepted as an answer."""

import asyncio
import json
from typing import Any

import pytest

from app.llm.parse import ANSWER_CHARACTERS, InvalidAnswer, parse_answer, response_format
from app.llm.provider import litellm
from app.llm.tasks import INSIGHTS, SUMMARY, Task
from app.settings import Settings
from tests.support.providers import insights_answer, summary_answer

TASKS = pytest.mark.parametrize("task", [SUMMARY, INSIGHTS], ids=lambda task: task.name)


def objects(node: Any) -> list[dict[str, Any]]:
    """Returns every schema in a schema."""
    inner = [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
    return [node, *(found for each in inner for found in objects(each))]


@TASKS
def test_the_schema_is_flat_and_closed_and_requires_everything(task: Task[Any]) -> None:
    sent = response_format(task)
    assert (sent["type"], sent["json_schema"]["strict"]) == ("json_schema", True)
    for node in objects(sent["json_schema"]["schema"]):
        assert set(node) <= {"type", "properties", "required", "additionalProperties", "items", "enum"}
        assert isinstance(node["type"], str)
        if node["type"] == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])


@TASKS
def test_the_prompt_names_every_field_and_calls_the_conversation_data(task: Task[Any]) -> None:
    for name in response_format(task)["json_schema"]["schema"]["properties"]:
        assert f"`{name}`" in task.prompt
    assert "never an" in task.prompt
    assert task.version.startswith(f"{task.name}-")


@TASKS
def test_what_every_call_pays_for_is_short(task: Task[Any]) -> None:
    assert max(map(len, (task.part, task.merge, task.update))) < 4_000
    assert len(json.dumps(response_format(task))) < 4_000


def test_another_prompt_is_another_version() -> None:
    assert Task("summary", "Be brief.", SUMMARY.answer).version != SUMMARY.version


def test_valid_answers_are_taken_as_they_are() -> None:
    assert parse_answer(SUMMARY, json.dumps(summary_answer())).model_dump() == summary_answer()
    assert parse_answer(INSIGHTS, json.dumps(insights_answer())).model_dump() == insights_answer()


FEELING: Any = insights_answer()["sentiment"]
EFFORT: Any = insights_answer()["customer_effort"]
RISK: Any = insights_answer()["escalation_risk"]
QUOTE = {"message_id": "m", "quote": "q"}


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        (SUMMARY, None, "empty_answer"),
        (SUMMARY, "\n ", "empty_answer"),
        (SUMMARY, ["parts"], "empty_answer"),
        (SUMMARY, " " + "x" * ANSWER_CHARACTERS, "answer_too_long"),
        (SUMMARY, "Here you are: {}", "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer())[:-1], "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(summary="")), "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(summary=None)), "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(outcome="YES")), "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(keywords=["x" * 101])), "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(decisions=[{"text": "t", "evidence": [QUOTE] * 21}])), "invalid_answer"),
        (SUMMARY, json.dumps(summary_answer(action_items=[{"text": "t", "evidence": []}])), "invalid_answer"),
        (INSIGHTS, json.dumps(summary_answer()), "invalid_answer"),
        (INSIGHTS, json.dumps(insights_answer(sentiment={**FEELING, "score": 1.01})), "invalid_answer"),
        (INSIGHTS, json.dumps(insights_answer(sentiment={**FEELING, "score": float("nan")})), "invalid_answer"),
        (INSIGHTS, json.dumps(insights_answer(keywords=[{"text": "x", "score": -0.1}])), "invalid_answer"),
        *(
            (INSIGHTS, json.dumps(insights_answer(**more)), "invalid_answer")
            for more in (
                {"customer_effort": {**EFFORT, "label": "none"}},
                {"customer_effort": {**EFFORT, "score": 1.01}},
                {"customer_effort": {**EFFORT, "reason": "x" * 2_001}},
                {"customer_effort": {**EFFORT, "evidence": [QUOTE] * 21}},
                {"escalation_risk": {**RISK, "label": "certain"}},
                {"escalation_risk": {**RISK, "score": -0.01}},
                {"escalation_risk": {**RISK, "reasons": [{"text": "t", "evidence": [QUOTE]}] * 21}},
                {"escalation_risk": {**RISK, "reasons": [{"text": "", "evidence": []}]}},
                {"escalation_risk": {**RISK, "reasons": ["angry"]}},
                {"topics": ["x" * 101]},
                {"topics": [""]},
                {"topics": ["x"] * 21},
                {"topics": None},
            )
        ),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_with_a_stable_reason(
    task: Task[Any], text: object, reason: str
) -> None:
    with pytest.raises(InvalidAnswer) as refused:
        parse_answer(task, text)
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", ["xai_model", "gemini_model"])
def test_the_default_models_have_a_price_and_take_a_schema(name: str) -> None:
    library = asyncio.run(litellm())
    model = Settings.model_fields[name].default
    known = library.model_cost[model]
    assert known["supports_response_schema"] is True
    assert min(known["input_cost_per_token"], known["output_cost_per_token"]) > 0
