"""What a sentence can do without: greetings and handles before it, links and signatures behind it."""

import re
from collections import Counter
from collections.abc import Iterable

from app.llm.local.words import STOP_WORDS, SUPPORT_STOP_WORDS, word_set

_OPENING = re.compile(
    r"""^(?:
        [@#]\w+ | <\w+> | https?://\S+ | [^\w\s"'(<$£€¿¡]+(?!\d)
      | (?:hi|hey|hello|dear|good\s(?:morning|afternoon|evening|day)|thanks|thank\syou|sorry)
        \s(?-i:[A-Z])\w*(?=\s?[,.!:])
      | (?:hi|hey|hello|hiya|dear|greetings|good\s(?:morning|afternoon|evening|day))
        (?:\s(?:there|team|guys|all|everyone))?\b(?!['\u2019-])
      | (?:thanks|thank\syou)(?:\s(?:so|very)\smuch|\sagain|\sa\slot)?(?=\s?[,.!:-])
      | (?:i['\u2019]?m|i\sam|we['\u2019]?re|we\sare)?\s?(?:so|very|really)?\s?sorry,?\s(?:but|though)\b
      | (?:yes|yeah|yep|no|nope|well|sure|great|perfect|right|cool|awesome|excellent|of\scourse|sounds\sgood|absolutely
          |certainly|sorry|got\sit|i\ssee)(?=\s?[,.!:;])
      | (?:ok|okay|alright|all\sright|oh\sno|oh|ah|hmm+|um+|uh|so|and|but|actually|also|then|please|pls|plz|anyway)
        \b(?!['\u2019-])
    )(?:\s*[,.!:;…-]+)?\s*""",
    re.I | re.X,
)
_CLOSING = re.compile(
    r"""(?:
        \s*(?:\b(?:at|via|here|to|from|on)\s?:?\s*)?(?:<\w+>|https?://\S+)
      | \s+[\^*~/-]\s?[A-Z][A-Za-z]{0,11} | (?<=[.!?>])\s*\(?\d/\d\)?
      | (?:(?<=[.!?…])|(?<=[.!?…]\s))[A-Z]{1,4}
      | [,\s]+(?:please|pls|plz|thanks|thank\syou|thx|ty|cheers)
    )[\s.!]*$""",
    re.X,
)
_INITIALS = re.compile(r"(\w+)[\s.!?]+((?:\d\s)?[A-Z]{2,3})$")
_NOT_INITIALS = word_set("DM PM AM TV PC ID US UK EU OK SMS FAQ USB VPN APP NOW PIN SIM ETA GPS PDF USA NOT ALL")
_BINDS = word_set("a an the your our my his her their this that of in on via by to for with from and or is no")
_STEPS = 8


def trim(text: str, handles: frozenset[str] = frozenset(), signed: bool = False) -> str:
    """Cut away what carries no matter at both ends; what remains is a slice of the text, or nothing.

    ``handles`` are names that messages begin with in place of a greeting; ``signed`` says that initials may stand at
    the end.
    """
    for _ in range(_STEPS):
        first = text.split(None, 1)
        if len(first) == 2 and first[0].rstrip(",:") in handles:
            text = first[1]
            continue
        match = _OPENING.match(text)
        if match is None or not match.end():
            break
        text = text[match.end() :]
    for _ in range(_STEPS):
        match = _CLOSING.search(text, max(0, len(text) - 80))
        if match is None or not match.group():
            break
        text = text[: match.start()].rstrip()
    if signed and (initials := _INITIALS.search(text, max(0, len(text) - 80))):
        letters = initials[2]
        if letters not in _NOT_INITIALS and initials[1].lower() not in _BINDS:
            text = text[: initials.start(2)].rstrip()
    return text.lstrip(" \t\r\n,;:").rstrip(" \t\r\n,;:-\u2013—")


def opening_handles(customer: Iterable[str], agent: Iterable[str]) -> frozenset[str]:
    """Find the names that messages open with again and again, as when they are sent to a company's handle."""
    messages = list(customer)
    known = {_opening_name(text) for text in messages} - {""}
    count = Counter(_opening_name(text) for text in (*messages, *agent))
    # A name in small letters could be any word, so it must be there nearly always.
    often = {name for name in known if count[name] > 1 and count[name] * 2 >= len(messages)}
    return frozenset(n for n in often if n[0].isupper() or (count[n] > 2 and count[n] * 3 >= len(messages) * 2))


def _opening_name(text: str) -> str:
    word, *rest = text[:60].split(None, 1) or [""]
    word = word.rstrip(",:")
    common = len(word) < 4 or word.lower() in STOP_WORDS or word.lower() in SUPPORT_STOP_WORDS
    return word if rest and word.isalnum() and not common else ""
