"""Placeholders: what is hidden, what stays readable, and that everything comes back letter by letter."""

import random
import re
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.llm.privacy import KINDS, Pseudonyms
from app.schemas.drafts import DraftItem, Quote, Turn


def turn(text: str, message_id: str = "m-00001", user_id: str = "ana") -> Turn:
    return Turn.model_validate(
        {
            "message_id": message_id,
            "user_id": user_id,
            "user_type": "customer",
            "timestamp": datetime(2026, 11, 1, tzinfo=UTC),
            "text": text,
        }
    )


def hidden(text: str, **ids: str) -> str:
    names = Pseudonyms([turn(text, **ids)], "order-1042")
    [shown] = names.hidden
    assert names.reveal_text(shown.text) == text
    return shown.text


HIDDEN = {
    "mail ana.b+x@example.co.uk, or 'bob@x.com'.": "mail [EMAIL_1], or '[EMAIL_2]'.",
    "<mailto:ana@example.com>": "<mailto:[EMAIL_1]>",
    "Ana <ana@münchen.example>": "[USER_1_2] <[EMAIL_1]>",
    "bob @ example.com": "[EMAIL_1]",
    "bob [at] example (dot) com": "[EMAIL_1]",
    "bob%40example.com": "[EMAIL_1]",
    "me@x.com/you@y.org": "[EMAIL_1]/[EMAIL_2]",
    "a@x.comb@y.com": "[EMAIL_1]",
    '"john doe"@x.com': "[EMAIL_1]",
    'he said "@x.com"': 'he said "@x.com"',
    "b\u200bob@exa\u00admple.com": "[EMAIL_1]",
    "ｂｏｂ＠example．com": "[EMAIL_1]",
    "+44 20 7946 0958": "[PHONE_1]",
    "call (555) 123-4567!": "call [PHONE_1]!",
    "555-0123": "[PHONE_1]",
    "06.12.20.24.15": "[PHONE_1]",
    "+49 (0) 30 1234567": "[PHONE_1]",
    "030/1234567": "[PHONE_1]",
    "12/34/5678": "[PHONE_1]",
    "22.11.2026-5551234": "[PHONE_1]",
    "$5 612 345 678, 611 223 344 $5": "$[PHONE_1], [PHONE_2] $5",
    "5551234567": "[NUMBER_1]",
    "٠١٢٣٤٥٦٧٨٩": "[NUMBER_1]",
    "５５５－１２３４": "[PHONE_1]",
    "5\u200b5\u200b5\u200b1\u200b2\u200b3\u200b4": "[NUMBER_1]",
    "4111 1111 1111 1111": "[CARD_1]",
    "4111\u20111111\u00a01111–1111": "[CARD_1]",
    "4111. 1111. 1111. 1111": "[CARD_1]",
    "4111\n1111\n1111\n1111": "[CARD_1]",
    "3782 822463 10005": "[CARD_1]",
    "4111 1111 1111 1112": "[NUMBER_1]",  # mistyped, and hidden all the same
    "4111  -  1111  -  1111  -  1111": "[CARD_1]",
    "version 555.123.4567, build 5551.2345.67": "version [PHONE_1], build [PHONE_1_2]",
    "release 1.5551234567": "release [PHONE_1]",
    "+1, 555, 123, 4567 or (555), 123, 4568": "[PHONE_1] or [PHONE_2]",
    "06 12\n34 56 78": "[PHONE_1]",
    "555\r\n123\r\n4567": "[PHONE_1]",
    "555, 123, 4567 or 555, 123, 4568": "[PHONE_1] or [PHONE_2]",
    "DE89 3704 0044 0532 0130 00 and please": "[IBAN_1] and please",
    "IBAN:gb29nwbk60161331926819.": "IBAN:[IBAN_1].",
    "MT84 MALT 0110 0001 2345 MTLC AST0 01S": "[IBAN_1]",
    "from 203.0.113.7:8080": "from [IP_1]:8080",
    "[2001:db8::1]:443, fe80::1%eth0": "[[IP_1]]:443, [IP_2]",
    "::ffff:203.0.113.7": "[IP_1]",
    "2001:DB8:0:0:0:0:0:1.": "[IP_1].",
    "00:1A:2B:3C:4D:5E": "[ID_1]",
    "001A.2B3C.4D5E, 001a.2b3c.4d5e.": "[ID_1], [ID_1_2].",
    "cafe::babe, abcd::ef/64": "[IP_1], [IP_2]/64",
    "192.168.001.001, 192.168.1.1/24": "[IP_1], [IP_2]",
    "v10.1.2.3, release 192.168.1.10, version 1.2.3.4": "v[IP_1], release [IP_2], version 1.2.3.4",
    "order 1042, Ticket 4567, order 456.": "order [ID_1], Ticket [ID_2], order [ID_3].",
    "my order is AB12, booking ref XKCDQZ": "my order is [ID_1], booking ref [ID_2]",
    "PNR: QWERTY, reference code xk3dqz": "PNR: [ID_1], reference code [ID_2]",
    "customer order 1042 was late": "customer order [ID_1] was late",
    "BOOKING NUMBER: XKCDQZ": "BOOKING NUMBER: [ID_1]",
    "order #1042 and ticket no. 5567": "order #[ID_1] and ticket no. [ID_2]",
    "account 998877, Order AB12X3": "account [ID_1], Order [ID_2]",
    "INV-20931 by 1Z999AA10123456784": "[ID_1] by [ID_2]",
    "550e8400-e29b-41d4-a716-446655440000": "[ID_1]",
    "/orders/12345678?e=a@b.de": "/orders/[NUMBER_1]?e=[EMAIL_1]",
    "Ana, ana: m-00001 (order-1042)": "[USER_1_2], [USER_1]: [MESSAGE_1] ([CONVERSATION_1])",
    "anaさん": "[USER_1]さん",
    "+44 20 7946 0958 is +442079460958": "[PHONE_1] is [PHONE_1_2]",  # one number in two forms
}


@pytest.mark.parametrize(("text", "shown"), HIDDEN.items())
def test_what_tells_who_somebody_is_is_hidden(text: str, shown: str) -> None:
    assert hidden(text) == shown


READABLE = [
    "On 2026-11-22 at 10:30, 22.11.2026, 11/22/26, 2024-2025.",
    "2026-11-22T10:00:00.123456+02:00",
    "It was 1999. 2020 was better. 10:30:15",
    "$1,234,567.89, 1 500 000 EUR, €12.50, 99 dollars and 1,234,567 people",
    "12 boxes, 3 items, order 2 pizzas, order 100 units, sizes 36 38, 5 x 10 x 20 cm, 50%",
    "1, 2, 3, 4, 5, 6, 7; sizes 36, 38, 40, 42, 44",
    "1\n2\n3\n4\n5\n6\n7",
    "12.50, 100.00, 3.99; 1-15, 10-20, 100-200; 1920*1080",
    "10:30, 11:45, 12:00, 9:00-17:30; 10:30\n11:45",
    "12/24/2025, 12/26/2025; 12/24, 12/31, 1/15; 2026-11-22 - 2026-11-30",
    "2026-11-22T10:00:00Z, 2026-11-22T10:05:00Z",
    "In 2020, 300 people; 2019, 2020, 2021; rooms 101, 102, 103",
    "2019\n2020\n2021",
    "12,345,678 people paid $1,234,567, $2,345,678",
    "order two pizzas, order now, in order to, ticket price, account manager, order NOW, order id ASAP",
    "ORDER NUMBER WRONG, order 1500 units, case 10th, package 500 g, license agreement, booking ref unknown",
    "std::foo, std::face, face::define, List::Each, ::babe, cafe:: there",
    "version 2023.10.12345, build 126.0.6478.127, firmware 1.2.3",
    "v2.10.3, version 1.2.3.4, Chrome 126.0.6478.127, Windows 10.0.19045.3803, 3.14",
    "RTX4090, iPhone15, Summer2024, COVID-19, 5000mAh, 100000km, 1080p, H264, MP3",
    "std::vector, a::b, 2@15 each, look @ 5.30pm, @bob, C++",
    "banana, ana_x, mana",
    "The customer asked the support agent.",
    "日本語のテキスト、123。",
]


@pytest.mark.parametrize("text", READABLE)
def test_what_tells_nobody_stays_readable(text: str) -> None:
    assert hidden(text) == text


def test_small_ids_are_hidden_in_the_fields_only() -> None:
    names = Pseudonyms([turn("2 of 10 customers, a to z", "2", "customer"), turn("a", "10", "a")], "z")
    assert [(each.message_id, each.user_id) for each in names.hidden] == [
        ("[MESSAGE_1]", "[USER_1]"),
        ("[MESSAGE_2]", "[USER_2]"),
    ]
    assert names.hidden[0].text == "2 of 10 customers, a to z"


def test_ids_that_differ_in_case_are_two() -> None:
    names = Pseudonyms([turn("x", "m-00001", "Ana"), turn("Ana and ana and ANA", "m-00002", "ana")])
    assert [each.user_id for each in names.hidden] == ["[USER_1]", "[USER_2]"]
    assert names.hidden[1].text == "[USER_1] and [USER_2] and [USER_1_2]"


def test_a_value_is_called_the_same_through_the_conversation_and_as_it_grows() -> None:
    texts = ["a@x.com or b@x.com", "b@x.com, c@x.com", "a@x.com"]
    turns = [turn(text, f"m-{place:05}") for place, text in enumerate(texts)]
    names = Pseudonyms(turns)
    assert [each.text for each in names.hidden] == ["[EMAIL_1] or [EMAIL_2]", "[EMAIL_2], [EMAIL_3]", "[EMAIL_1]"]
    assert Pseudonyms(turns[:2]).hidden == names.hidden[:2]
    assert names.hide("A summary that names c@x.com and d@x.com") == "A summary that names [EMAIL_3] and [EMAIL_4]"


def test_what_a_chat_holds_of_placeholders_is_not_taken_for_ours() -> None:
    text = "[EMAIL_1] email_1 [TEXT_1] VALID_2 [USER_1]a@x.com[EMAIL_1_2]"
    shown = hidden(text, message_id="[MESSAGE_2]", user_id="[EMAIL_1]")
    assert "[USER_1] " in shown
    assert shown.endswith("[EMAIL_1][TEXT_5]")
    names = Pseudonyms([turn("x", "[MESSAGE_2]"), turn("y", "[MESSAGE_1]")])
    assert [names.reveal_text(each.message_id) for each in names.hidden] == ["[MESSAGE_2]", "[MESSAGE_1]"]


def test_an_answer_gets_the_values_in_all_of_its_texts() -> None:
    names = Pseudonyms([turn("Write to bob@x.com or +1 555 010 4477.")])
    quote = Quote(message_id="[MESSAGE_1]", quote="Write to [EMAIL_1]")
    said = DraftItem(text="email_1, [PHONE_1], [EMAIL_9], [NOTE_1], PHONE_1.", evidence=[quote, quote])
    found = names.reveal(said)
    assert found.text == "bob@x.com, +1 555 010 4477, [EMAIL_9], [NOTE_1], +1 555 010 4477."
    assert found.evidence == [Quote(message_id="m-00001", quote="Write to bob@x.com")] * 2
    assert said.evidence == [quote, quote]


pieces = st.one_of(
    st.text(max_size=8),
    st.sampled_from([*HIDDEN, *READABLE, *(f"[{kind}_1]" for kind in KINDS), "EMAIL_1_2", "m-00001", "ana", "\u200b"]),
    st.text("0123456789 .-/()+:@_[]aA٣", max_size=20),
)


@given(st.lists(pieces, max_size=8).map("".join), st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
@example("5551234EMAIL_1", "0", "0")
@example("²EMAIL_1", "EMAIL_1", "[USER_1]")
def test_every_text_comes_back_letter_by_letter(text: str, user_id: str, message_id: str) -> None:
    names = Pseudonyms([turn(text, message_id, user_id)], text[:9])
    [shown] = names.hidden
    assert (names.reveal_text(shown.text), names.reveal(shown)) == (text, turn(text, message_id, user_id))


around = st.text(" ,.;!?\n\"'()<>äß日", max_size=3)
values = st.one_of(
    st.emails(domains=st.just("example.com")).filter(lambda address: not set("?=&/") & set(address)),
    st.ip_addresses().map(str).filter(lambda address: len(address) > 6),
    st.integers(10**7, 10**30).map(str),
)


@given(values, around, around)
@example("::ffff:ffff:fffa", "", "")
def test_a_value_is_found_between_any_marks(value: str, before: str, after: str) -> None:
    assert value not in hidden(f"{before} {value} {after}")


separators = st.sampled_from(
    ["", " ", "  ", "-", ".", "/", " - ", ") ", " (", "\t", "\u00a0", "–", "\u200b", "_", "/ "]
)


@given(st.lists(st.tuples(st.integers(3_000, 999_999), separators), min_size=3, max_size=5), st.sampled_from(["", "+"]))
def test_a_number_is_found_whatever_separates_its_parts(parts: list[tuple[int, str]], sign: str) -> None:
    written = sign + "".join(f"{number}{separator}" for number, separator in parts)
    assert not any(map(str.isdigit, re.sub(r"\[[A-Z]+_[0-9_]+\]", "", hidden(f"Call {written} now"))))


@pytest.mark.parametrize("parts", [("555", "123", "4567"), ("0171", "555", "12345"), ("+1", "555", "123", "4567")])
@pytest.mark.parametrize(
    "separator",
    [*"-./_()~·•|*:;,、\t\n", " . ", ", ", " • ", "---", "  -  ", "\r\n"],
)
def test_a_phone_number_is_found_with_any_separator(parts: tuple[str, ...], separator: str) -> None:
    assert hidden(f"Call {separator.join(parts)} now") == "Call [PHONE_1] now"


FORMS = [
    phonenumbers.PhoneNumberFormat.E164,
    phonenumbers.PhoneNumberFormat.INTERNATIONAL,
    phonenumbers.PhoneNumberFormat.NATIONAL,
]


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_the_phone_numbers_of_every_country_are_hidden(region: str) -> None:
    """Takes the examples of Google's library, of landlines and mobiles, in each form with enough digits."""
    for kind in (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE):
        number = phonenumbers.example_number_for_type(region, kind)
        for form in FORMS:
            if number is None:
                continue
            written = phonenumbers.format_number(number, form)
            if sum(map(str.isdigit, written)) >= (6 if written.startswith("+") else 7):
                assert hidden(f"Call {written}, please") in ("Call [PHONE_1], please", "Call [NUMBER_1], please")


SIZE = 2**18
HOSTILE: dict[str, Callable[[int], str]] = {
    "digits": lambda n: "1" * n,
    "letters": lambda n: "a" * n,
    "at signs": lambda n: "@" * n,
    "addresses": lambda n: "a@" * (n // 2),
    "labels": lambda n: "a@" + "b." * (n // 2),
    "local parts": lambda n: ("a" * 63 + "@") * (n // 64),
    "quoted": lambda n: '"@a.b' * (n // 5),
    "colons": lambda n: ":" * n,
    "groups": lambda n: "f:" * (n // 2),
    "dotted": lambda n: "1." * (n // 2),
    "spaced": lambda n: "1 " * (n // 2),
    "almost IBANs": lambda n: "aa00 " * (n // 5),
    "longer ones": lambda n: "aa00 a a a a a a a a a a " * (n // 25),
    "orders": lambda n: "order no no no no " * (n // 18),
    "brackets": lambda n: "[(+" * (n // 3),
    "placeholders": lambda n: "EMAIL_1" * (n // 7),
    "tokens": lambda n: "1111a-" * (n // 6),
    "hyphens": lambda n: "a" + "-_" * (n // 2),
    "amounts": lambda n: "1,111" * (n // 5),
    "lists": lambda n: "555, 1234, " * (n // 11),
    "lines": lambda n: "123\n" * (n // 4),
    "listed amounts": lambda n: "12 , " * (n // 5),
    "named": lambda n: "order ref AB12CD " * (n // 17),
    "one long name": lambda n: "order " + "a." * (n // 2),
    "hexadecimal": lambda n: "001a.2b3c." * (n // 10),
    "joined names": lambda n: "cafe::" * (n // 6),
    "syllables": lambda n: "김철수" * (n // 6),
    "versions": lambda n: "v1.1" * (n // 4),
    "own ids": lambda n: "m-00001 " * (n // 8),
    "nothing to see": lambda n: "1\u200b" * (n // 4),
    "marks": lambda n: "1\u0301" * (n // 3),
    "any character": lambda n: "".join(map(chr, random.Random(1).choices(range(0xA0, 0xD7FF), k=n // 3))),
    "any mark": lambda n: "".join(random.Random(1).choices("a1@.:-_ #[]()+/$,", k=n)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_time_is_linear_in_the_text(text: Callable[[int], str]) -> None:
    def seconds(size: int) -> float:
        started = time.process_time()
        hidden(text(size))
        return time.process_time() - started

    small, large = seconds(SIZE // 16), seconds(SIZE)
    assert large < 16 * 3 * small + 0.5, (small, large)  # were it quadratic, 256 times as long


def test_a_thousand_ids_of_one_beginning_take_no_longer() -> None:
    turns = [turn("m m-1 " * 50, f"m-{place}{'x' * (place % 50)}", f"u-{place}") for place in range(1_000)]
    started = time.process_time()
    names = Pseudonyms(turns)
    assert time.process_time() - started < 10
    assert [names.reveal_text(each.text) for each in names.hidden[:2]] == [turns[0].text] * 2


@pytest.mark.parametrize("ids", [[f"m {'x' * n}" for n in range(1, 250)], ["m " * n + "x" for n in range(1, 120)]])
def test_ids_of_one_beginning_take_no_longer_in_a_long_text(ids: list[str]) -> None:
    started = time.process_time()
    names = Pseudonyms([turn("m " * 2**18, ids[0]), *(turn("x", each) for each in ids[1:])])
    assert (
        time.process_time() - started < 10
    )  # the text was read once for each length, which took a quarter of a minute
    assert names.hidden[0].text == "m " * 2**18


OWN = {
    ("jose\u0301, José, JOSE", "josé"): "[USER_1_2], [USER_1_3], [USER_1_4]",
    ("josé", "jose\u0301"): "[USER_1_2]",
    ("日本太郎です。私は日本太郎さん", "日本太郎"): "[USER_1]です。私は[USER_1]さん",
    ("サーバのガルバさん", "ガルバ"): "サーバの[USER_1]さん",
    ("สวัสดีสมชายครับ", "สมชาย"): "สวัสดี[USER_1]ครับ",
    ("김철수님, \u1100\u1175\u11b7철수", "김철수"): "[USER_1]님, [USER_1_2]",
    ("김철숙", "김철수"): "김철숙",
    ("иванов Иванова йод", "Иванов"): "[USER_1_2] Иванова йод",
    ("a_user_b, user-bb, user-b", "user-b"): "a_user_b, user-bb, [USER_1]",
}


@pytest.mark.parametrize(("case", "shown"), OWN.items())
def test_an_own_id_is_found_in_each_spelling_and_script(case: tuple[str, str], shown: str) -> None:
    assert hidden(case[0], user_id=case[1]) == shown


@given(st.text(st.sampled_from("ab -_é\u0301日太김"), max_size=9).map("ids".__add__), around, around)
def test_an_own_id_is_found_in_nfc_and_nfd(user_id: str, before: str, after: str) -> None:
    for form in ("NFC", "NFD"):
        shown = hidden(f"{before} {unicodedata.normalize(form, user_id)} {after}", user_id=user_id)
        assert "[USER_1" in shown


@given(st.text(st.sampled_from("[]_ 0123456789USERMAILPHONEuser.😀"), max_size=60), st.data())
@example("[EMAIL_1] USER_1_2 xEMAIL_1EMAIL_1_ [EMAIL_12] email_1", None)
@example("CONVERSATION_123456789_1234567890", None)
def test_the_start_of_a_text_shows_nothing_that_the_whole_does_not(text: str, data: st.DataObject | None) -> None:
    names = Pseudonyms([turn("Write to ana@example.com or +44 20 7946 0958, Ana.")], "order-1042")
    if data:
        name = st.sampled_from(["[EMAIL_1]", "EMAIL_1", "[PHONE_1]", "USER_1", "[user_1_2]", "[CONVERSATION_1]"])
        text = "".join(data.draw(st.lists(st.one_of(st.just(text), name), max_size=6)))
    whole = names.reveal_text(text)
    for place in range(len(text) + 1):
        assert whole.startswith(names.reveal_start(text[:place])), text[:place]
