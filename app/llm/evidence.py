"""Finding a quote again in the message it is said to come from."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from app.schemas.analyses import Evidence
from app.schemas.drafts import Quote

_TYPOGRAPHY = str.maketrans("‘’‚‛“”„‟‐‑‒–—−", "''''\"\"\"\"------")  # noqa: RUF001 — the look-alikes are the point


def normalize(text: str) -> str:
    """Returns text as quotes are compared: NFKC, one kind of quotation mark, dash and space."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)).strip()


def check_quotes(
    quotes: Iterable[Quote], texts: Mapping[str, str], known: dict[tuple[str, str], bool] | None = None
) -> tuple[list[Evidence], bool]:
    """Returns the quotes that name a message of the conversation, and whether every quote stands where it says.

    ``texts`` maps message ids to message texts, normalized; ``known`` keeps what was found, so that the same quote is
    looked for once. Without any quote nothing is verified.
    """
    quotes, places = list(quotes), {} if known is None else known

    def stands(quote: Quote) -> bool:
        place = quote.message_id, quote.quote
        if place not in places:
            wanted = normalize(quote.quote)
            places[place] = bool(wanted) and wanted in texts[quote.message_id]
        return places[place]

    kept = [quote for quote in quotes if quote.message_id in texts]
    found = all(map(stands, kept))
    evidence = [Evidence(message_id=quote.message_id, quote=quote.quote) for quote in kept]
    return evidence, bool(kept) and found and len(kept) == len(quotes)
