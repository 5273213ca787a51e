"""The built-in engine: what it writes is the chat's own, bounded, and the same every time."""

import csv
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.llm.gateway import LOCAL_S_PER_CHARACTER
from app.llm.local.engine import analyze, summarize
from app.llm.local.summary import EMPTY
from app.llm.local.trim import trim
from app.schemas.drafts import InsightsDraft, SummaryDraft, Turn
from app.schemas.enums import Level, Outcome, QuestionStatus, Sentiment, UserType

DATA = Path(__file__).parents[2] / "data"
START = datetime(2024, 5, 1, 9, tzinfo=UTC)
FRAME = {"The"}
Drafts = list[tuple[list[Turn], SummaryDraft, InsightsDraft]]
SIDES = {"c": UserType.CUSTOMER, "a": UserType.SUPPORT_AGENT}


def chat(*lines: str) -> list[Turn]:
    """Make turns of lines such as ``"c: hello"``."""
    return [
        Turn(
            message_id=f"m{number}",
            user_id="cora" if line[0] == "c" else "adam",
            user_type=SIDES[line[0]],
            timestamp=START + timedelta(minutes=number),
            text=line[3:],
        )
        for number, line in enumerate(lines)
    ]


def samples() -> list[list[Turn]]:
    conversations: dict[str, list[Turn]] = {}
    for name in ("star_sample.csv", "pc_support_sample.csv", "abcd_sample.csv"):
        with (DATA / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                turn = Turn(
                    message_id=row["message_id"],
                    user_id=row["user_id"],
                    user_type=UserType(row["user_type"]),
                    timestamp=datetime.fromisoformat(row["timestamp"]),
                    text=row["message_content"],
                )
                conversations.setdefault(row["conversation_id"], []).append(turn)
    return list(conversations.values())


SAMPLES = samples()
BROKEN_KETTLE = chat(
    "c: Hi there, my new kettle from order 48213 is leaking and I want a refund.",
    "a: I am sorry to hear that. Could you tell me when you bought it?",
    "c: I bought it on Monday.",
    "a: Thank you. I have refunded 39 dollars to your card, and our team will collect the kettle within 3 days.",
    "c: Perfect, thank you so much!",
    "a: You are welcome. Is there anything else I can help you with?",
)
TWO_ISSUES = chat(
    "c: Hello",
    "a: Hello, how can I help?",
    "c: I need to change the delivery address of my sofa to Baker Street.",
    "a: What is your order number, please?",
    "c: It is 7731.",
    "a: Thanks, one moment please.",
    "a: The delivery address of the sofa is now changed to Baker Street.",
    "c: Great.",
    "c: I also want to cancel my magazine subscription, I never read the issues.",
    "a: Which magazine is that?",
    "c: The garden one.",
    "a: Your subscription to the garden magazine has been cancelled and no further payment will be taken.",
    "c: Lovely, thanks for your help",
    "a: Have a nice day!",
)
DEGENERATE = {
    "no messages": [],
    "empty text": chat("c: ", "a: "),
    "blank text": chat("c:   \n\t ", "a:  "),
    "only customer": chat("c: My parcel never arrived.", "c: Hello? Is anybody there?"),
    "only agent": chat("a: Your parcel has been shipped today."),
    "one word": chat("c: refund"),
    "emoji": chat("c: 😡😡😡", "a: 🙏"),
    "punctuation": chat("c: ???", "a: ..."),
    "not English": chat("c: Mein Paket ist nicht angekommen, wo bleibt es?", "a: Es wird morgen zugestellt."),
    "no spaces": chat("c: 我想退款。", "a: 好的\uff01"),
    "long word": chat("c: " + "x" * (1 << 20)),
    "many sentences": chat("c: " + "A. " * 100_000),
    "signs": chat("c: " + "@" * 50_000, "a: " + "<" * 50_000),
    "control characters": chat("c: a\x00b \u202e\ufeff \x1b[31m"),
}
EVERYTHING = [*SAMPLES, BROKEN_KETTLE, TWO_ISSUES, *DEGENERATE.values()]


def facts(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text) if word[0].isupper() or any(char.isdigit() for char in word)}


def quotes(draft: SummaryDraft, insights: InsightsDraft) -> Iterable[tuple[str, str]]:
    for evidence in (
        insights.outcome.evidence,
        insights.customer_effort.evidence,
        *(reason.evidence for reason in insights.escalation_risk.reasons),
        *(item.evidence for item in draft.action_items),
        *(item.evidence for item in draft.decisions),
        *(item.evidence for item in draft.questions),
    ):
        for quote in evidence:
            yield quote.message_id, quote.quote


@pytest.mark.parametrize("name", DEGENERATE)
def test_any_text_gives_bounded_drafts(name: str) -> None:
    turns = DEGENERATE[name]
    draft, insights = summarize(turns), analyze(turns)
    assert SummaryDraft.model_validate_json(draft.model_dump_json()) == draft
    assert InsightsDraft.model_validate_json(insights.model_dump_json()) == insights
    assert len(draft.summary) < 1_500


@pytest.mark.parametrize(
    "text",
    [
        "not ",
        "called a b c d ",
        "switching to ",
        "i said waiting for ",
        "been a' b' c' d' ",
        "the first parcel of ",
        "1 - ",
    ],
)
def test_no_text_takes_longer_than_what_is_kept_of_the_deadline(text: str) -> None:
    turns = chat(*[f"{side}: {(text * 20_000)[:20_000]}" for side in "caca"])
    began = time.process_time()
    analyze(turns)
    assert time.process_time() - began < 4 * 20_000 * LOCAL_S_PER_CHARACTER


def test_without_words_it_says_so() -> None:
    assert summarize([]).summary == EMPTY
    assert summarize(chat("c: ???")).summary == EMPTY
    assert analyze([]).outcome.label is Outcome.MAYBE
    assert analyze([]).outcome.evidence == []


@pytest.fixture(scope="module")
def drafts() -> Drafts:
    return [(turns, summarize(turns), analyze(turns)) for turns in EVERYTHING]


def test_quotes_are_word_for_word(drafts: Drafts) -> None:
    for turns, draft, insights in drafts:
        texts = {turn.message_id: turn.text for turn in turns}
        for message_id, quote in quotes(draft, insights):
            assert quote
            assert quote in texts[message_id]


def test_answers_are_word_for_word(drafts: Drafts) -> None:
    for turns, draft, _ in drafts:
        for question in draft.questions:
            assert any(question.answer in turn.text for turn in turns)


def test_no_number_and_no_name_is_invented(drafts: Drafts) -> None:
    for turns, draft, _ in drafts:
        if draft.summary != EMPTY:
            assert facts(draft.summary) <= {fact for turn in turns for fact in facts(turn.text)} | FRAME


def test_the_same_chat_gives_the_same_drafts() -> None:
    for turns in EVERYTHING[::9]:
        assert summarize(turns) == summarize(list(turns))
        assert analyze(turns) == analyze(list(turns))


def test_summary_names_each_side_once_in_a_short_chat() -> None:
    summary = summarize(BROKEN_KETTLE).summary
    assert re.fullmatch(r"The customer .+?: .*kettle.* The agent .+?: .*refunded 39 dollars.*", summary)


def test_one_sided_chats_speak_of_that_side_only() -> None:
    assert "The agent" not in summarize(DEGENERATE["only customer"]).summary
    assert "The customer" not in summarize(DEGENERATE["only agent"]).summary


def test_two_issues_give_two_sentences_of_each_side() -> None:
    summary = summarize(TWO_ISSUES).summary
    customer, agent = summary.split("The agent", 1)
    assert "delivery address" in customer
    assert "subscription" in customer
    assert "changed to Baker Street" in agent
    assert "has been cancelled" in agent


def test_long_sentences_are_cut_between_words() -> None:
    long = "My order " + "of several wonderful things " * 200
    summary = summarize(chat(f"c: {long}")).summary
    assert len(summary) < 350
    assert set(re.findall(r"\w+", summary)) <= set(re.findall(r"\w+", long)) | {"The", "customer", "says"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Hi there, my phone is dead.", "my phone is dead."),
        ("Hey Sam, that does not sound good!", "that does not sound good!"),
        ("Please try again at https://example.org/help", "try again"),
        ("No refund was given.", "No refund was given."),
        ("Well water is brown.", "Well water is brown."),
        ("-5 degrees in the freezer", "-5 degrees in the freezer"),
        ("It was rated 4 of 5", "It was rated 4 of 5"),
        ("Hello!", ""),
    ],
)
def test_trimming_keeps_the_meaning(text: str, kept: str) -> None:
    assert trim(text) == kept


def test_keywords_are_what_the_messages_are_about() -> None:
    turns = chat(
        "c: @shopcare Hi, the gift card 5551234 does not work, see https://example.org/x",
        "a: Sorry! Which gift card is it, and what does the error say?",
        "c: The gift card from Tuesday, the error says expired.",
    )
    keywords = summarize(turns).keywords
    assert keywords[0] == "gift card"
    assert "error" in keywords
    assert len(keywords) <= 8
    assert not {"shopcare", "5551234", "https", "hi", "sorry", "gift"} & set(keywords)
    scored = analyze(turns).keywords
    assert [keyword.text for keyword in scored] == keywords
    assert scored[0].score == 1
    assert [keyword.score for keyword in scored] == sorted((keyword.score for keyword in scored), reverse=True)


@pytest.mark.parametrize(
    ("lines", "label"),
    [
        (["c: This is terrible service, I am still waiting for my refund!"], Sentiment.NEGATIVE),
        (["c: The app won't load and nobody replies."], Sentiment.NEGATIVE),
        (["c: Please help, I need the invoice for March."], Sentiment.NEUTRAL),
        (["c: That worked, you are brilliant, thank you so much!"], Sentiment.POSITIVE),
        (["c: The quality is awful, I hate it.", "c: But your support is wonderful, I love it."], Sentiment.MIXED),
        (["a: This is terrible, I am so sorry!", "c: Here is the form."], Sentiment.NEUTRAL),
    ],
)
def test_sentiment_is_the_customers(lines: list[str], label: Sentiment) -> None:
    turns = chat(*lines)
    assert analyze(turns).sentiment.label is label
    assert summarize(turns).sentiment is label


def test_a_long_message_is_felt_to_its_end() -> None:
    calm = "The form has a box for the date and a box for the name. " * 40
    assert analyze(chat(f"c: {calm}This is awful, terrible and unacceptable.")).sentiment.score < -0.3


def test_later_messages_weigh_more() -> None:
    bad, good = "c: This is terrible.", "c: This is wonderful."
    better, worse = analyze(chat(bad, good)).sentiment, analyze(chat(good, bad)).sentiment
    assert better.score > worse.score


def test_sentiment_by_sender_and_over_time_is_bounded() -> None:
    turns = [
        Turn(message_id=f"m{n}", user_id=f"u{n}", user_type=UserType.CUSTOMER, timestamp=START, text="It is broken.")
        for n in range(500)
    ]
    sentiment = analyze(turns).sentiment
    assert len(sentiment.by_participant) == 200
    assert len(sentiment.timeline) == 200
    assert sentiment.timeline[0].message_id == "m0"
    assert sentiment.timeline[-1].message_id == "m499"
    by_participant = analyze(BROKEN_KETTLE).sentiment.by_participant
    assert [participant.user_id for participant in by_participant] == ["cora", "adam"]


@pytest.mark.parametrize(
    ("lines", "label"),
    [
        (["c: Please book a room.", "a: Your room is booked.", "c: Great, thanks!"], Outcome.YES),
        (["c: My wifi is down.", "a: Please restart the router.", "c: It works now!"], Outcome.YES),
        (["c: I want a refund.", "a: Sorry, but we cannot refund that.", "c: Oh well, thanks anyway."], Outcome.NO),
        (["c: My wifi is down.", "a: Please restart the router.", "c: It is still not working."], Outcome.NO),
        (["c: My wifi is down.", "a: Our team will look into it within 2 days."], Outcome.MAYBE),
        (["c: My parcel is lost.", "a: Your parcel is shipped.", "c: And where is the second one?"], Outcome.MAYBE),
        (["c: What time do you open?", "a: The shop opens at nine.", "c: Thanks!"], Outcome.CURIOUS),
    ],
)
def test_outcome(lines: list[str], label: Outcome) -> None:
    turns = chat(*lines)
    outcome = analyze(turns).outcome
    assert outcome.label is label
    assert summarize(turns).outcome is label
    assert outcome.reason


@pytest.mark.parametrize(
    ("lines", "label", "reason"),
    [
        (["c: Please book a room.", "a: It is booked.", "c: Thanks!"], Level.LOW, "Nothing shows"),
        (["c: My name is already on the list."], Level.LOW, "Nothing shows"),
        (["c: I emailed you twice about this invoice."], Level.MEDIUM, "had asked before"),
        (["c: Nobody ever replies to me."], Level.MEDIUM, "had asked before"),
        (["c: Ive been waiting for over 3 hours.", "a: I will transfer you to billing."], Level.MEDIUM, "waited long"),
        (["c: I was passed from one to another.", "c: As I said, it is lost."], Level.MEDIUM, "passed on"),
        (["c: It still doesn't work.", "c: That did not help.", "c: Same error."], Level.MEDIUM, "did not help"),
        (
            ["c: This is the third time.", "c: I've been on hold for 2 hours.", "a: Try again."] + ["c: No luck."] * 2,
            Level.HIGH,
            "had asked before. The customer waited long. What the customer tried did not help.",
        ),
    ],
)
def test_customer_effort(lines: list[str], label: Level, reason: str) -> None:
    effort = analyze(chat(*lines)).customer_effort
    assert effort.label is label
    assert reason in effort.reason
    assert bool(effort.evidence) == (label is not Level.LOW)


def test_many_steps_are_an_effort_however_politely_asked_for() -> None:
    step = ["a: Please restart the router and press the button.", "c: I pressed the button and the light is green."]
    assert analyze(chat("c: My wifi is down.", *step)).customer_effort.label is Level.LOW
    effort = analyze(chat("c: My wifi is down.", *step * 8)).customer_effort
    assert effort.label is Level.MEDIUM
    assert effort.reason == "The agent asked the customer to do several things."
    assert "many messages" in analyze(chat("c: My wifi is down.", *step * 12)).customer_effort.reason


@pytest.mark.parametrize(
    ("lines", "label", "reasons"),
    [
        (["c: What time do you open?", "a: At nine."], Level.LOW, []),
        (["c: I want to speak to a supervisor."], Level.HIGH, ["asks for somebody above"]),
        (["c: My lawyer will be in touch."], Level.HIGH, ["legal steps"]),
        (["c: Then I'll cancel my subscription."], Level.MEDIUM, ["wants to leave"]),
        (["c: I will never shop with you again."], Level.MEDIUM, ["wants to leave"]),
        (["c: Expect a one-star review."], Level.MEDIUM, ["making it public"]),
        (["c: I have asked three times now."], Level.MEDIUM, ["had asked before"]),
        (["c: This is ridiculous."], Level.MEDIUM, ["angry"]),
        (["c: My card is lost.", "a: I have escalated this to our fraud team."], Level.MEDIUM, ["escalating it"]),
        (["c: This is a joke, I am switching to another provider."], Level.HIGH, ["wants to leave", "angry"]),
        (["c: I don't want to cancel my subscription."], Level.LOW, []),
        (["c: Please cancel my booking and cancel the taxi."], Level.LOW, []),
        (["c: The Device Manager and the task manager are open."], Level.LOW, []),
        (["a: My lawyer is my manager, this is ridiculous."], Level.LOW, []),
    ],
)
def test_escalation_risk(lines: list[str], label: Level, reasons: list[str]) -> None:
    risk = analyze(chat(*lines)).escalation_risk
    assert risk.label is label
    assert len(risk.reasons) == len(reasons)
    for wanted, reason in zip(reasons, risk.reasons, strict=True):
        assert wanted in reason.text
        assert reason.evidence


def test_who_was_content_in_the_end_is_less_of_a_risk() -> None:
    angry = ["c: I want to speak to a supervisor.", "a: I have refunded 20 dollars to your card."]
    assert analyze(chat(*angry)).escalation_risk.label is Level.HIGH
    calmed = analyze(chat(*angry, "c: Perfect, thank you!")).escalation_risk
    assert (calmed.label, len(calmed.reasons)) == (Level.MEDIUM, 1)


def test_topics_are_phrases_of_the_chat_that_share_no_word() -> None:
    assert {"delivery address", "magazine subscription"} <= set(analyze(TWO_ISSUES).topics)
    assert analyze(BROKEN_KETTLE).topics[0] == "kettle"
    assert analyze(chat("c: Hello?", "a: Hi Cora, my name is Adam.")).topics == []
    for turns in EVERYTHING:
        topics = analyze(turns).topics
        words = [word for topic in topics for word in topic.split()]
        assert len(topics) <= 5
        assert len(words) == len(set(words))
        assert all(len(topic) <= 100 for topic in topics)


def test_a_question_is_answered_by_the_other_side() -> None:
    (question,) = summarize(chat("c: When will my sofa arrive?", "a: It arrives on Friday.")).questions
    assert question.status is QuestionStatus.ANSWERED
    assert question.answer == "It arrives on Friday."
    assert question.evidence[0].message_id == "m0"


def test_putting_off_and_asking_back_is_no_answer() -> None:
    turns = chat("c: When will my sofa arrive?", "a: One moment please.", "a: Is it the blue one?")
    sofa, blue = summarize(turns).questions
    assert (sofa.status, sofa.answer) == (QuestionStatus.UNANSWERED, "")
    assert blue.status is QuestionStatus.UNANSWERED


def test_pleasantries_are_no_questions() -> None:
    turns = chat("a: Hello, how can I help you today?", "c: Can you help me?", "a: Is there anything else?", "c: No")
    assert summarize(turns).questions == []


def test_a_promise_has_its_owner_and_its_due_time() -> None:
    turns = chat("c: My card is blocked.", "a: I will send you a new card by Friday.", "c: ok thanks")
    (item,) = summarize(turns).action_items
    assert (item.owner, item.due) == ("adam", "by Friday")
    assert "send you a new card" in item.text


def test_what_others_will_do_has_no_owner() -> None:
    turns = chat("c: My card is blocked.", "a: Our security team will call you within 24 hours.")
    (item,) = summarize(turns).action_items
    assert (item.owner, item.due) == ("", "within 24 hours")


def test_a_last_request_is_the_customers_task() -> None:
    turns = chat("c: The viewing is on Monday, right?", "a: Yes. Please bring a bank statement to the viewing.")
    (item,) = summarize(turns).action_items
    assert item.owner == "cora"


def test_what_the_customer_replied_to_is_no_task() -> None:
    turns = chat("c: My wifi is down.", "a: Please restart the router now.", "c: I restarted it, the light is green.")
    assert summarize(turns).action_items == []


def test_an_accepted_offer_is_a_decision() -> None:
    turns = chat("c: I need a flight.", "a: It costs 90 euros. Should I reserve it for you?", "c: Yes please!")
    (decision,) = summarize(turns).decisions
    assert decision.text == "Agreed: Should I reserve it for you?"
    assert [quote.message_id for quote in decision.evidence] == ["m1", "m2"]


def test_a_declined_offer_is_none() -> None:
    turns = chat("c: I need a flight.", "a: Should I reserve it for you?", "c: No thanks.")
    assert summarize(turns).decisions == []


def test_items_that_say_the_same_are_listed_once() -> None:
    turns = chat(*["c: Where is my parcel?", "a: I will ask the courier today."] * 5)
    draft = summarize(turns)
    assert len(draft.questions) == 1
    assert len(draft.action_items) == 1
