"""Questions: what was asked, and the answer where there is one."""

from app.llm.local import acts, patterns
from app.llm.local.items import core, distinct, statement
from app.llm.local.text import QUOTE_CHARS, Chat, Sentence, clip
from app.schemas.drafts import DraftQuestion
from app.schemas.enums import QuestionStatus, UserType

_QUESTIONS = 50
_WORDS = 3
# So far after a question an answer is looked for, in messages.
_REACH = 8


def questions(chat: Chat) -> list[DraftQuestion]:
    """List the questions of both sides with their answers; pleasantries and offers of help are none."""
    found: list[tuple[Sentence, DraftQuestion]] = []
    for number, sentence in enumerate(chat.sentences):
        if not _is_question(sentence):
            continue
        answer = _answer(chat, number)
        item = DraftQuestion(
            text=statement(chat, sentence),
            evidence=[chat.quote(sentence)],
            status=QuestionStatus.ANSWERED if answer else QuestionStatus.UNANSWERED,
            answer=clip(answer.text, QUOTE_CHARS) if answer else "",
        )
        found.append((sentence, item))
    return distinct(found, _QUESTIONS)


def _is_question(sentence: Sentence) -> bool:
    text = sentence.text.rstrip("\"'”\u2019) ")
    if len(sentence.words) < _WORDS or patterns.CLOSING_QUESTION.search(text) or acts.HELP_QUESTION.search(text):
        return False
    # A request in the form of a question is one only when it asks to be told something.
    return text.endswith(("?", "\uff1f", "؟")) or bool(acts.UNMARKED_QUESTION.search(text))


def _answer(chat: Chat, number: int) -> Sentence | None:
    """Find what the other side says to a question: first on the matter itself, else in their next message."""
    question = chat.sentences[number]
    matter = set(question.terms)
    reply: Sentence | None = None
    passed_over = False
    for sentence in chat.sentences[number + 1 :]:
        if sentence.turn > question.turn + _REACH:
            break
        if sentence.side is question.side:
            # Once there is a reply, the asker's next message closes the matter.
            if reply is not None:
                break
            continue
        if not _states(chat, sentence):
            # After a reply that asked back, only what is on the matter answers the question.
            passed_over = passed_over or sentence.text.endswith("?")
        elif matter & set(sentence.terms):
            return sentence
        elif not passed_over or sentence.turn == question.turn + 1:
            if reply is None and acts.YES_NO.search(sentence.text):
                return sentence
            reply = reply or sentence
    return reply


def _states(chat: Chat, sentence: Sentence) -> bool:
    """Tell whether a sentence could be an answer: no question back, no putting off, no mere politeness."""
    text = sentence.text
    if text.endswith("?") or not sentence.words or acts.PUT_OFF.search(text):
        return False
    if acts.YES_NO.search(text) or sentence.side is UserType.CUSTOMER:
        return True
    return len(core(chat, sentence).split()) > 1 and bool(sentence.terms) and not patterns.PLEASANTRY.search(text)
