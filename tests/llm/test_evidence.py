"""What is kept of a model's answer: quotes found again, ids that exist, and how much was read."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.chunking import earlier, split
from app.llm.evidence import check_quotes, normalize
from app.schemas.analyses import Changes, SummaryBody
from app.schemas.drafts import TURNS, InsightsDraft, Quote, SummaryDraft, Turn
from app.schemas.enums import UserType
from app.services.drafts import changes, checked_insights, checked_summary
from tests.support.providers import insights_answer, summary_answer

TEXT = "I’d like a refund — 42 € for\nthe “ﬁne” one,\u00a0please."


def turn(number: int, text: str, user_type: UserType = UserType.CUSTOMER) -> Turn:
    moment = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
    return Turn(message_id=f"m{number}", user_id=f"the-{user_type}", user_type=user_type, timestamp=moment, text=text)


CHAT = [turn(1, TEXT), turn(2, "It is on its way.", UserType.SUPPORT_AGENT), turn(3, "Thanks!")]


def check(*quotes: tuple[str, str]) -> tuple[list[str], bool]:
    asked = [Quote(message_id=name, quote=text) for name, text in quotes]
    evidence, verified = check_quotes(asked, {each.message_id: normalize(each.text) for each in CHAT})
    return [each.message_id for each in evidence], verified


@pytest.mark.parametrize(
    "quote",
    [
        TEXT,
        "I'd like a refund",
        "refund - 42 €",
        "  42 €   for the ",
        'the "fine" one',
        "one,\tplease.",
        "I’d like a refund – 42",
    ],
)
def test_a_quote_is_found_in_whatever_typography(quote: str) -> None:
    assert check(("m1", quote)) == (["m1"], True)


@pytest.mark.parametrize("quote", ["I want a refund", "43 €", "", " \n", "I’d like a refund.", "on its way", "REFUND"])
def test_a_quote_that_does_not_stand_in_its_message_is_not_verified(quote: str) -> None:
    assert check(("m1", quote)) == (["m1"], False)


def test_an_invented_message_id_is_no_evidence_and_spoils_the_statement() -> None:
    assert check(("m1", "refund"), ("invented", "refund")) == (["m1"], False)
    assert check(("invented", "refund")) == ([], False)


def test_a_statement_without_evidence_is_not_verified() -> None:
    assert check() == ([], False)


@given(st.text(min_size=1, max_size=60), st.integers(0, 59), st.integers(1, 60))
def test_every_passage_of_a_message_is_found_in_it(text: str, start: int, length: int) -> None:
    passage = normalize(text)[start : start + length]
    _, verified = check_quotes([Quote(message_id="m", quote=passage)], {"m": normalize(text)})
    assert verified == bool(passage.strip())


def test_a_summary_keeps_what_was_said_and_marks_what_was_not() -> None:
    found = [{"message_id": "m1", "quote": "refund"}]
    elsewhere = [{"message_id": "of-another-conversation", "quote": "refund"}]
    draft = SummaryDraft.model_validate(
        summary_answer(
            action_items=[{"text": "Refund", "evidence": found, "owner": "the-customer", "due": ""}],
            decisions=[{"text": "Refused", "evidence": elsewhere}],
            questions=[{"text": "When?", "evidence": [], "status": "unanswered", "answer": ""}],
        )
    )
    kept = checked_summary(draft, CHAT)
    [action], [decision], [question] = kept.action_items, kept.decisions, kept.questions
    assert (action.verified, action.owner, action.due) == (True, "the-customer", None)
    assert (decision.verified, decision.evidence) == (False, [])
    assert (question.verified, question.status, question.answer) == (False, "unanswered", None)


def test_insights_speak_of_existing_senders_and_messages_once_and_in_order() -> None:
    def feels(name: str) -> dict[str, object]:
        return {"user_id": name, "label": "positive", "score": 0.5}

    points = [("m3", 1.0), ("invented", 0.5), ("m1", -1.0), ("m3", 0.25)]
    sentiment = {
        "label": "mixed",
        "score": 0.0,
        "confidence": 1.0,
        "by_participant": [feels("the-support_agent"), feels("nobody"), feels("the-customer"), feels("the-customer")],
        "timeline": [{"message_id": name, "score": score} for name, score in points],
    }
    evidence = [{"message_id": "invented", "quote": "Thanks!"}]
    outcome = {"label": "yes", "confidence": 1.0, "reason": "Said so.", "evidence": evidence}
    kept = checked_insights(InsightsDraft.model_validate(insights_answer(sentiment=sentiment, outcome=outcome)), CHAT)
    assert [(each.user_id, each.user_type) for each in kept.sentiment.by_participant] == [
        ("the-customer", "customer"),
        ("the-support_agent", "support_agent"),
    ]
    assert [(each.message_id, each.timestamp, each.score) for each in kept.sentiment.timeline] == [
        ("m1", CHAT[0].timestamp, -1.0),
        ("m3", CHAT[2].timestamp, 0.25),
    ]
    assert (kept.outcome.evidence, kept.outcome.verified) == ([], False)


def test_the_largest_answers_are_compared_in_moments() -> None:
    def body(word: str, wanted: str) -> SummaryBody:
        quotes = [{"message_id": "m1", "quote": f"{word} {number} " + "é w" * 60} for number in range(20)]
        asked = {"evidence": quotes, "status": "unanswered", "answer": ""}
        questions = [{**asked, "text": f"{wanted} {number}"} for number in range(200)]
        return checked_summary(SummaryDraft.model_validate(summary_answer(questions=questions)), CHAT)

    began = time.process_time()
    found = changes(body("old", "who"), body("new", "what"))
    assert time.process_time() - began < 3
    assert (len(found.opened), len(found.closed), found.changed) == (200, 200, [])
    assert changes(body("old", "who"), body("new", "who")) == Changes(opened=[], closed=[], changed=[])
    assert len(changes(body("old", "who"), body("old", "what")).changed) == 200


@given(st.lists(st.text(alphabet='a"\n\x01é😀', max_size=2_000), min_size=1, max_size=30), st.integers(400, 6_000))
def test_parts_hold_every_message_whole_in_order_and_fit(texts: list[str], room: int) -> None:
    chat = [turn(number, text) for number, text in enumerate(texts)]
    parts = split(chat, room)
    joined: dict[str, str] = {}
    for each in (each for part in parts for each in part):
        joined[each.message_id] = joined.get(each.message_id, "") + each.text
    assert joined == {each.message_id: each.text for each in chat}
    assert list(joined) == [each.message_id for each in chat]
    for number, part in enumerate(parts):
        size = len(TURNS.dump_json(part).decode())
        assert size <= room + 2 or len(part) == 1
        before = earlier(part, room)
        assert before == part[len(part) - len(before) :]
        if len(parts) > number + 1:
            assert size + len(parts[number + 1][0].model_dump_json()) > room
    assert len(parts) == 1 or len(TURNS.dump_json(chat).decode()) > room


def test_a_message_longer_than_the_room_is_cut_and_nothing_is_lost() -> None:
    [*pieces] = [each for part in split([turn(1, "\x01é" * 5_000)], 1_000) for each in part]
    assert "".join(each.text for each in pieces) == "\x01é" * 5_000
    assert len({each.message_id for each in pieces}) == 1
    assert max(len(each.model_dump_json()) for each in pieces) <= 1_200
