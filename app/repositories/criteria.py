"""What is asked of conversations, as SQL that finds their keys.

Statements depend only on which conditions there are, and name their parameters: ``%(workspace)s``. What would make the
planner guess by a value is written so that it cannot: a statement's plan is the same for all, and made once.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import NamedTuple

from app.schemas.search import ConversationFilter

STEP = 200
"""Of a long history, every so manieth place is known: at most so many conversations are skipped."""

WALKED = 10_000
"""How far back conversations are looked into for something common, in messages."""

LOOKUP = 8
"""What it costs to look into a conversation, in messages."""

SHORT = "interval '24 hours'"
"""Of longer conversations there is an index of their own: when they ended says little about when they began."""

NEWEST = "ORDER BY k.last_message_at DESC, k.conversation_id DESC"
SOUGHT = ("q", "keyword")
"""What an inverted index finds."""

_LABELS = frozenset({"sentiment", "outcome"})
_QUERY = "keyed_tsquery(%(inner)s, %(outer)s, %(q)s)"
_CONDITIONS = {
    "since": "k.last_message_at >= %(since)s::text::timestamptz",
    "until": "{about}.first_message_at < %(until)s::text::timestamptz",
    "after": "(k.last_message_at, k.conversation_id) < (%(after)s::text::timestamptz, %(after_id)s)",
    "sentiment": "{about}.sentiment = %(sentiment)s",
    "outcome": "{about}.outcome = %(outcome)s",
}
_ROWS = {
    "q": "messages WHERE workspace_id = %(workspace)s AND search_vector @@ {query}",
    "keyword": "conversations WHERE workspace_id = %(workspace)s AND keyword_hashes @> ARRAY[%(keyword)s::text]",
}
_HITS = {
    "q": "SELECT DISTINCT conversation_id FROM " + _ROWS["q"].format(query=f"(SELECT {_QUERY})"),  # noqa: S608 — only constants
    "keyword": "SELECT * FROM " + _ROWS["keyword"],  # noqa: S608 — only constants
}
# One look-up for each hit: the planner takes them for many, and would read all conversations.
_FOUND = {
    "q": """hits CROSS JOIN LATERAL (
        SELECT * FROM conversations AS c
        WHERE c.workspace_id = %(workspace)s AND c.conversation_id = hits.conversation_id LIMIT 1
    )""",
    "keyword": "hits",
}
_HISTORY_IN_FULL = (
    "participants AS k JOIN conversations AS c"
    " ON c.workspace_id = %(workspace)s AND c.conversation_id = k.conversation_id"
)
# IS TRUE keeps the inverted index out, which would be asked about all messages for each conversation; OFFSET keeps the
# planner from reading all messages at once.
_TESTS = {
    "q": "EXISTS (SELECT FROM messages AS m WHERE m.workspace_id = %(workspace)s"
    f" AND m.conversation_id = k.conversation_id AND (m.search_vector @@ (SELECT {_QUERY})) IS TRUE OFFSET 0)",
    "keyword": "(k.keyword_hashes @> ARRAY[%(keyword)s::text]) IS TRUE",
    **{name: f"k.{name} = %({name})s" for name in _LABELS},
    "user": "EXISTS (SELECT FROM participants AS p WHERE p.workspace_id = %(workspace)s"
    " AND p.conversation_id = k.conversation_id AND p.user_id = %(user)s OFFSET 0)",
}


class Criteria(NamedTuple):
    """A filter in the workspace's own terms: its search key's pads and the hash of the keyword."""

    workspace_id: int
    filter: ConversationFilter
    pads: tuple[bytes, bytes]
    keyword_hash: str | None

    def values(self) -> dict[str, object]:
        """Returns the values of the parameters: times as text, since the driver takes some for infinities."""
        wanted = self.filter
        values = {
            "user": wanted.user_id,
            "since": wanted.since and wanted.since.isoformat(),
            "until": wanted.until and wanted.until.isoformat(),
            "sentiment": wanted.sentiment and str(wanted.sentiment),
            "outcome": wanted.outcome and str(wanted.outcome),
            "keyword": self.keyword_hash,
            "q": wanted.q,
        }
        given: dict[str, object] = {name: value for name, value in values.items() if value is not None}
        pads = dict(zip(("inner", "outer"), self.pads, strict=True)) if wanted.q is not None else {}
        return {"workspace": self.workspace_id, **given, **pads}


def position(after: tuple[datetime, str] | None) -> dict[str, object]:
    """Returns the values of a position, which leave out what comes before it, and itself."""
    return {"after": after[0].isoformat(), "after_id": after[1]} if after else {}


def bind(sql: str, named: Mapping[str, object]) -> tuple[str, list[object]]:
    """Returns a statement with numbers for the names of its parameters, and their values."""
    numbers = _Numbers()
    numbered = sql % numbers
    return numbered, [named[name] for name in numbers]


class _Numbers(dict[str, str]):
    def __missing__(self, name: str) -> str:
        self[name] = number = f"${len(self) + 1}"
        return number


def planned_rows(name: str) -> str:
    """Returns the statement that makes the planner guess how many rows the inverted index finds."""
    return "EXPLAIN SELECT FROM " + _ROWS[name].format(query=_QUERY)


@cache
def by_time(given: frozenset[str], limit: int | None = None) -> str:
    """Returns what selects the keys of conversations, ``k``, along the index of time; nothing is sought."""
    return f"SELECT k.last_message_at, k.conversation_id, false AS beyond FROM ({_along_time(given, limit)}) AS k"  # noqa: S608 — only constants


@cache
def by_hits(given: frozenset[str], sought: str) -> str:
    """Returns what selects the keys of conversations, ``k``, from all that an inverted index finds."""
    conditions = [_CONDITIONS[name].format(about="k") for name in sorted(given) if name in _CONDITIONS]
    tests = [_TESTS[name] for name in ("keyword", "user", "q") if name in given and name != sought]
    # The newest first, so that no more are looked into than are shown.
    order = f"{NEWEST} OFFSET 0" if tests else ""
    return f"""
        WITH hits AS MATERIALIZED ({_HITS[sought]})
        SELECT k.last_message_at, k.conversation_id, false AS beyond FROM (
            SELECT k.* FROM {_FOUND[sought]} AS k WHERE {" AND ".join(conditions) or "true"} {order}
        ) AS k WHERE {" AND ".join(tests) or "true"}
    """  # noqa: S608 — only constants


@cache
def by_walk(given: frozenset[str], walked: int) -> str:
    """Returns what selects the keys of conversations, ``k``, by looking into the newest, until ``walked`` messages.

    Where it ends before it has seen all, the rows it has not seen follow, and say so: ``beyond``.
    """
    seen = walked + STEP  # so that what is skipped does not hide that there is more
    cost = f"k.message_count + {LOOKUP}" if "q" in given else "1"
    tests = [_TESTS[name] for name in sorted(given & ({*SOUGHT} | _LABELS if "user" in given else {*SOUGHT}))]
    return f"""
        SELECT k.last_message_at, k.conversation_id, k.beyond FROM (
            SELECT k.*, sum({cost}) OVER ({NEWEST} ROWS UNBOUNDED PRECEDING) > {walked} AS beyond
            FROM ({_along_time(given, seen, looking=True)}) AS k
        ) AS k WHERE CASE WHEN k.beyond THEN true ELSE {" AND ".join(tests)} END
    """  # noqa: S608 — only constants


def _along_time(given: frozenset[str], limit: int | None, *, looking: bool = False) -> str:
    """Returns what selects conversations, in the order of an index if limited; with labels if they are looked into."""
    asked = sorted(given.intersection(_CONDITIONS) - (_LABELS if looking and "user" in given else set()))
    order = f"{NEWEST} LIMIT {limit}" if limit else ""

    def arm(source: str, about: str, *conditions: str) -> str:
        columns = "k.last_message_at, k.conversation_id"
        if looking:
            columns += f", {about}.message_count, {about}.sentiment, {about}.outcome, {about}.keyword_hashes"
        where = ["k.workspace_id = %(workspace)s", *(_CONDITIONS[name].format(about=about) for name in asked)]
        return f"(SELECT {columns} FROM {source} WHERE {' AND '.join([*where, *conditions])} {order})"  # noqa: S608 — only constants

    ended = ["k.last_message_at < %(until)s::text::timestamptz + " + SHORT] if "until" in given else []
    if "user" not in given:
        arms = [arm("conversations AS k", "k", *ended)]
    elif looking or not {"since", "after"}.issuperset(asked):
        arms = [arm(_HISTORY_IN_FULL, "c", "k.user_id = %(user)s", *ended)]
    else:
        arms = [arm("participants AS k", "k", "k.user_id = %(user)s")]
    if ended:
        long = [ended[0].replace("<", ">="), f"k.last_message_at - k.first_message_at > {SHORT}"]
        arms.append(arm("conversations AS k", "k", *long, *([_TESTS["user"]] if "user" in given else [])))
    return " UNION ALL ".join(arms)
