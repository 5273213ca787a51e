"""Finding what tells who somebody is, in texts of any kind.

A text is looked at in a plain form: lower case, every digit, dash and space the ordinary one, without accents and
the characters that nobody sees. Each pattern either consumes what it has read or reads a bounded number of characters,
so that the time is linear in the text (possessive quantifiers, as of Python 3.11).
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

LONGEST = 256
"""A value that is longer is found in pieces of so many characters."""
FEWEST_DIGITS = 7
"""How many digits make a number that may be somebody's: of a phone, an account, an order."""
IBAN_LENGTH = 13
"""No IBAN is as short."""
CARD_DIGITS = range(12, 20)
PHONE_DIGITS = range(FEWEST_DIGITS, 16)
PART_DIGITS = 3
"""How many digits each part of a number has at least that is written like a list."""
BROKEN_DIGITS = 10
"""How many digits make one number of two lines."""


class Span(NamedTuple):
    """Where a value stands, and what it is."""

    start: int
    end: int
    kind: str


# Dates, times, amounts and versions stay readable, unless they run on into another number.
_ALONE = r"(?<![0-9])(?<![0-9][-./])(?<!\+[0-9] )(?<!\+[0-9]{2} )(?<!\+[0-9]{3} )"
_END = r"(?![0-9]|[-./][0-9])"
_YEAR, _MONTH, _DAY = r"(?:19|20)[0-9]{2}", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12][0-9]|3[01])"
_AMOUNT = r"(?:[0-9]{1,3}(?:[,.'][0-9]{3}){1,3}|[0-9]{1,9})(?:[.,][0-9]{1,2})?"
_SPACED_AMOUNT = _AMOUNT.replace("[,.']", "[,.' ]")
_READABLE = re.compile(
    rf"{_ALONE}{_YEAR}([-./]){_MONTH}\1{_DAY}{_END}"
    rf"|{_ALONE}{_DAY}([-./]){_DAY}\2(?:{_YEAR}|[0-9]{{2}}){_END}"
    rf"|{_ALONE}{_YEAR} ?[-/] ?{_YEAR}{_END}"
    r"|(?<![0-9:])[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?![0-9:])"
    rf"|[$€£¥₹] ?{_AMOUNT}(?![0-9]|[-./ ]?[0-9]{{2}})"
    rf"|{_ALONE}(?<![0-9] ){_SPACED_AMOUNT} ?"
    r"(?:[$€£¥₹](?! ?[0-9])|(?:usd|eur|gbp|chf|dollars?|euros?|pounds?)(?![a-z]))"
    r"|(?<![a-z])(?:v|ver\.?|version|release|build|firmware) ?(?![0-9]{3,5}\.[0-9]{3,5}\.[0-9])"
    r"[0-9]{1,5}(?:\.[0-9]{1,5}){1,4}(?!\.?[0-9])"
    r"|(?<![0-9.])[0-9]{1,4}(?:\.[0-9]{1,5}){0,2}\.0(?:\.[0-9]{1,6}){1,2}(?![0-9.])"
)
_VERSION_BEFORE = re.compile(r"(?:(?<![a-z])v|ver\.?|version|release|build|firmware)[ :]?\Z")

_AT = re.compile(r" ?(?:@|%40|[(\[]at[)\]]) ?")
_LOCAL_BACKWARDS = re.compile(r"[\w.!#$%'*+^`{|}~-]{1,64}+")
_DOT = r"(?:\.| ?[(\[]dot[)\]] ?)"
_DOMAIN = re.compile(rf"[\w-]{{1,63}}+(?:{_DOT}[\w-]{{1,63}}+){{0,16}}+|\[[0-9a-f:.]{{2,45}}\]")
_TOP_LEVEL = re.compile(rf"{_DOT}[^\W0-9_][\w-]*\Z")

_IP4 = re.compile(
    r"(?<![0-9])(?<![0-9]\.)([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?!\.?[0-9])(?:/[0-9]{1,2}(?![0-9]))?"
)
_IP6 = re.compile(r"(?<![0-9a-z])[0-9a-f:][0-9a-f:.]{1,44}+(?:%[0-9a-z]{1,16})?")
_WORDY_IP6 = re.compile(r"(?=.*[a-f]{4})[a-f].*::.*[a-f]|.*[a-f]:[a-f].*")
_MAC = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}"
    r"|(?<![0-9a-z]\.)(?=[a-f.]{0,13}[0-9])[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}(?!\.[0-9a-z]))(?![0-9a-z])"
)
_IBAN = re.compile(r"(?<![0-9a-z])(?=([a-z]{2}[0-9]{2}(?:[ ._-]?[0-9a-z]){11,30}+))")
_CARD = re.compile(
    r"(?<![0-9])[0-9]{4}(?:(?:[^0-9a-z]{0,3}[0-9]{4}){3}|[^0-9a-z]{1,3}[0-9]{6}[^0-9a-z]{1,3}[0-9]{5})(?![0-9])"
)
_NUMBER = re.compile(r"(?<![0-9a-z])\+?\(?[0-9](?:[0-9]|[ ]{0,2}[-/()_]{1,3}[ ]{0,2}[0-9]|\.[0-9]|[ ]{1,3}[0-9])*+")
_BETWEEN = re.compile(r"\)?(?:[ ]{0,2}(?:[,;:*|~·•、]|\r?\n)[ ]{0,2}|[ ]\.[ ]?)")

_TOKEN = re.compile(r"(?<![0-9a-z])[0-9a-z]++(?:[-_]++[0-9a-z]++)*+")
_QUANTITY = re.compile(
    r"[0-9]+(?:k|m|g|kg|km|cm|mm|ml|kb|mb|gb|tb|mah|ms|s|rpm|px|hz|khz|mhz|w|wh|kwh|v|x|pcs|st|nd|rd|th)"
)
_PLAIN_NAME = re.compile(r"[a-z]+[0-9]{4}|(?:[a-z0-9]+[-_])?(?:19|20)[0-9]{2}(?:[-_][a-z0-9]{1,2})?")
_MARK = r"(?:numbers?|ids?(?![a-z])|no(?![a-z])\.?|nr(?![a-z])\.?|#|№|n°|ref(?:erence)?(?![a-z])|code(?![a-z]))"
_NAMED = re.compile(
    r"(?<![0-9a-z])(?:order|ticket|account|acct|case|invoice|booking|reservation|reference|ref|confirmation|tracking"
    r"|customer|client|member|policy|serial|shipment|parcel|package|transaction|contract|claim|request|incident"
    r"|passport|licen[cs]e|pnr)s?(?![a-z])"
    rf"(?P<mark>(?:[ ]?(?:{_MARK}|is(?![a-z])|was(?![a-z])|[:=])){{0,4}}+)[ ]?"
    r"(?=(?P<id>[0-9a-z](?:[-_/.]?[0-9a-z]){2,60}+))"
)
# "order 100 units", "contract 500 more people"
_COUNTED = re.compile(r" ?(?:%|(?:[a-z]{3,}s|of|more|other|extra|new|people|kg|g|ml|pcs|x)(?![a-z]))")
_MARKED = re.compile(
    r"(?:[#№]|(?<![0-9a-z])(?:(?:no|nr)\.|n°|id(?=[ :#=])))[ :#=]{0,2}(?P<id>[0-9a-z](?:[-_/.]?[0-9a-z]){2,60}+)"
)
_NO_DIGIT = re.compile("[^0-9]+")
_HAS_MARK = re.compile(_MARK)


class _Table(dict[int, str]):
    """The plain form of each character, worked out when it is first met; ``str.translate`` asks."""

    def __missing__(self, code: int) -> str:
        found = self[code] = _plain_character(chr(code))
        return found


def _plain_character(character: str) -> str:
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me"):
        return ""
    if category == "Pd" or character == "−":  # noqa: RUF001 — the minus sign is the point
        return "-"
    if category == "Zs" or character == "\t":
        return " "
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) > 1:
        return character
    return "".join(each for each in unicodedata.normalize("NFD", plain.lower()) if unicodedata.category(each) != "Mn")


class Plain(NamedTuple):
    """A text in its plain form, and where its characters and its end stand in the text; None: in the same places."""

    text: str
    places: Sequence[int] | None

    def original(self, span: Span) -> Span:
        """Returns where a span of the plain form stands in the text, with what nobody sees after it."""
        if self.places is None:
            return span
        start, end, kind = span
        return Span(self.places[start], max(self.places[end], self.places[end - 1] + 1), kind)


def plain(text: str) -> Plain:
    """Returns a text in its plain form."""
    if text.isascii():
        return Plain(text.lower().replace("\t", " "), None)
    table = _Table()
    found = text.translate(table)
    if all(len(each) == 1 for each in table.values()):
        return Plain(found, None)
    return Plain(found, [*(place for place, each in enumerate(text) for _ in table[ord(each)]), len(text)])


def identifiers(looked_at: Plain, source: str) -> Iterator[Span]:
    """Yields where in its plain form a text has what identifies somebody, in no order; spans may overlap."""

    def capital(start: int, end: int) -> bool:
        begin, end, _ = looked_at.original(Span(start, end, ""))
        return source[begin:end].isupper()

    text = looked_at.text
    yield from _emails(text)
    yield from _ibans(text)
    yield from (Span(*m.span(), "CARD") for m in _CARD.finditer(text) if _luhn(_digits(m[0])))
    yield from _addresses(text)
    readable = _READABLE.sub(lambda match: "\0" * len(match[0]), text)
    yield from _numbers(readable)
    yield from _ids(readable, capital)


def _emails(text: str) -> Iterator[Span]:
    for at in _AT.finditer(text):
        domain = _DOMAIN.match(text, at.end())
        if domain is None:
            continue
        if domain[0][0] != "[" and not _TOP_LEVEL.search(domain[0]) and (" " in at[0] or not domain[0][0].isalpha()):
            continue
        start = at.start()
        local = _LOCAL_BACKWARDS.match(text[max(start - 64, 0) : start][::-1])
        begin = start - len(local[0]) if local else start
        if begin == start and text[start - 1 : start] == '"':
            quote = text.rfind('"', max(start - 66, 0), start - 1)
            begin = start if quote < 0 else quote
        while begin < start - 1 and text[begin] in ".'*`":
            begin += 1
        if begin < start:
            yield Span(begin, domain.end(), "EMAIL")


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        start, stop = match.span(1)
        checks, rest, end = int(f"{int(text[start], 36)}{int(text[start + 1], 36)}{text[start + 2 : start + 4]}"), 0, 0
        # ISO 13616: the remainder of everything by 97 (ISO 7064) is 1, with the first four characters at the end.
        for place in range(start + 4, stop):
            if text[place].isalnum():
                rest = (rest * (10 if text[place] <= "9" else 100) + int(text[place], 36)) % 97
                if place - start > IBAN_LENGTH and not text[place + 1 : place + 2].isalnum():
                    end = place + 1 if (rest * 1_000_000 + checks) % 97 == 1 else end
        if end:
            yield Span(start, end, "IBAN")


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = sum(sum(divmod(2 * int(each), 10)) for each in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _addresses(text: str) -> Iterator[Span]:
    for match in _IP4.finditer(text):
        parts = [int(part) for part in match.groups()]
        version = _VERSION_BEFORE.search(text[max(match.start() - 10, 0) : match.start()])
        if max(parts) < 256 and (not version or parts[0] == 10 or max(parts) > 31):
            yield Span(*match.span(), "IP")
    for match in _IP6.finditer(text):
        if match[0].count(":") < 2:
            continue
        digits = any(map(str.isdigit, match[0]))
        for address in (match[0], match[0].rstrip("."), match[0].rstrip(".:"), match[0].rpartition(".")[0]):
            try:
                ipaddress.IPv6Address(address)
            except ValueError:
                continue
            end = match.start() + len(address)
            # Names of C++ are joined by two colons, too.
            if digits or (_WORDY_IP6.fullmatch(address) and not text[end : end + 1].isalnum()):
                yield Span(match.start(), end, "IP")
            break
    yield from (Span(*match.span(), "ID") for match in _MAC.finditer(text))


def _numbers(text: str) -> Iterator[Span]:
    parts: list[re.Match[str]] = []
    for match in _NUMBER.finditer(text):
        digits = len(_digits(match[0]))
        international = match[0][0] == "+" or match[0][:2] == "00"
        whole = digits >= FEWEST_DIGITS - international
        # Lists of amounts, ranges, dates and addresses have parts with marks within.
        part = not whole and (digits >= PART_DIGITS or international) and not set("-./_") & set(match[0])
        if not part or (parts and not _BETWEEN.fullmatch(text, parts[-1].end(), match.start())):
            yield from _joined(parts, text)
            parts = []
        if part:
            parts.append(match)
        if whole:
            yield _number(match.start() + (match[0][0] == "(" and ")" not in match[0]), match.end(), text)
    yield from _joined(parts, text)


def _joined(parts: Sequence[re.Match[str]], text: str) -> Iterator[Span]:
    """Yields the number that parts are, unless they are rather a list."""
    lengths = [len(_digits(part[0])) for part in parts]
    broken = len(parts) == 2 and "\n" in text[parts[0].end() : parts[1].start()] and sum(lengths) >= BROKEN_DIGITS
    if (len(parts) > 2 or broken) and len(set(lengths)) > 1 and sum(lengths) >= FEWEST_DIGITS:
        yield _number(parts[0].start(), parts[-1].end(), text)


def _number(start: int, end: int, text: str) -> Span:
    written = text[start:end]
    digits = _digits(written)
    international = written[0] == "+" or written[:2] == "00"
    if len(digits) in CARD_DIGITS and not international and _luhn(digits):
        return Span(start, end, "CARD")
    if len(digits) in PHONE_DIGITS and (international or len(digits) < len(written)):
        return Span(start, end, "PHONE")
    return Span(start, end, "NUMBER")


def _ids(text: str, capital: Callable[[int, int], bool]) -> Iterator[Span]:
    yield from (Span(*m.span(), "ID") for m in _TOKEN.finditer(text) if _looks_like_id(m[0]))
    yield from (Span(*m.span("id"), "ID") for m in _NAMED.finditer(text) if _is_named(m, text, capital))
    yield from (Span(*m.span("id"), "ID") for m in _MARKED.finditer(text) if len(_digits(m["id"])) >= 3)


def _is_named(match: re.Match[str], text: str, capital: Callable[[int, int], bool]) -> bool:
    """Says whether what follows a word such as order is rather its number or code than another word or a count."""
    name, (start, end) = match["id"], match.span("id")
    digits = len(_digits(name))
    marked = _HAS_MARK.search(match[0])
    if _QUANTITY.fullmatch(name):
        return False
    if name.isdigit():
        return bool(marked) or digits >= 5 or not _COUNTED.match(text, end)
    if digits >= 3 or len(name) < 4 or not any("a" <= each <= "z" for each in name):
        return digits >= 3
    if digits:
        return bool(marked) or capital(start, end)
    shouted = capital(match.start(), start) and match[0].rstrip()[-1] not in ":#="
    return bool(marked) and len(name) >= 5 and capital(start, end) and not shouted


def _looks_like_id(token: str) -> bool:
    """Says whether letters and digits are rather an id than a name or a quantity."""
    if len(_digits(token)) < 4:
        return False
    if _QUANTITY.fullmatch(token) or _PLAIN_NAME.fullmatch(token) or not any("a" <= each <= "z" for each in token):
        return False
    groups = re.findall(r"[a-z]+|[0-9]+", token)
    return len(_digits(token)) > 4 or len(groups) > 2 or "-" in token or "_" in token


def _digits(text: str) -> str:
    return text if text.isdigit() else _NO_DIGIT.sub("", text)
