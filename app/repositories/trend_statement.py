"""The statement that counts conversations by when they began, as SQL; parameters are named: ``%(workspace)s``.

What was counted and what changed since are read by one statement, so that together they are exact. What is not counted
in the way it is asked for is read conversation by conversation.
"""

from functools import cache

from app.repositories.criteria import SHORT
from app.schemas.enums import Interval, Metric

SCANNED = 100_000
"""How many conversations are read one by one."""

_SENTIMENTS = ("positive", "neutral", "negative", "mixed")
_OUTCOMES = ("yes", "no", "maybe", "curious")
LABELS = {Metric.SENTIMENT: _SENTIMENTS, Metric.OUTCOME: _OUTCOMES}

_COLUMNS = "c.first_message_at, c.sentiment, c.outcome, c.keyword_hashes"

# What is not counted yet, and what is counted and not so any more. One look-up for each: there are few, unless much
# came just now, and then the planner would read all conversations from then on.
_CHANGED = f"""
    SELECT {_COLUMNS}, 1 AS n FROM trend_changes AS t CROSS JOIN LATERAL (
        SELECT * FROM conversations AS c
        WHERE c.workspace_id = %(workspace)s AND c.conversation_id = t.conversation_id LIMIT 1
    ) AS c WHERE t.workspace_id = %(workspace)s
    UNION ALL
    SELECT {_COLUMNS}, -1 FROM trend_changes AS c
    WHERE c.workspace_id = %(workspace)s AND c.first_message_at IS NOT NULL
"""  # noqa: S608 — only constants

# When a conversation ended tells when it began but for a day; those that took longer have an index of their own.
_OF_USER = """
    SELECT {columns}, 1 AS n FROM participants AS p
    JOIN conversations AS c ON c.workspace_id = %(workspace)s AND c.conversation_id = p.conversation_id
    WHERE p.workspace_id = %(workspace)s AND p.user_id = %(user)s
    AND p.last_message_at >= %(since)s::text::timestamptz
    AND p.last_message_at < %(until)s::text::timestamptz + {short}
"""
_IN_TIME = """
    SELECT {columns}, 1 AS n FROM conversations AS c
    WHERE c.workspace_id = %(workspace)s AND c.last_message_at >= %(since)s::text::timestamptz
    AND c.last_message_at < %(until)s::text::timestamptz + {short} AND {labels}
"""
_LONG = """
    SELECT {columns}, 1 FROM conversations AS c
    WHERE c.workspace_id = %(workspace)s AND c.last_message_at >= %(until)s::text::timestamptz + {short}
    AND c.last_message_at - c.first_message_at > {short} AND c.first_message_at < %(until)s::text::timestamptz
    AND {member}
"""
_MEMBER = """
    EXISTS (SELECT FROM participants AS p WHERE p.workspace_id = %(workspace)s
    AND p.conversation_id = c.conversation_id AND p.user_id = %(user)s OFFSET 0)
"""
_WITH_KEYWORD = """
    SELECT {columns}, 1 AS n FROM conversations AS c
    WHERE c.workspace_id = %(workspace)s AND c.keyword_hashes @> ARRAY[%(keyword)s::text]
    AND c.first_message_at >= %(since)s::text::timestamptz AND c.first_message_at < %(until)s::text::timestamptz
"""

# Subqueries, so that a time is read from its text once, not for each row.
_RANGE = """
    first_message_at >= (SELECT %(since)s::text::timestamptz)
    AND first_message_at < (SELECT %(until)s::text::timestamptz)
"""
_CONDITIONS = {
    "sentiment": "sentiment = %(sentiment)s::text",
    "outcome": "outcome = %(outcome)s::text",
    "keyword": "keyword_hashes @> ARRAY[%(keyword)s::text]",
}
# Earlier releases stored what differs in case alone twice.
_DISTINCT = "ARRAY(SELECT DISTINCT unnest(keyword_hashes)) AS keyword_hashes"
_COUNTED = """
    SELECT {columns} FROM trend_counts WHERE workspace_id = %(workspace)s AND keyword = {keyword}
    AND span = '{span}' AND starts_at >= %({since})s::text::timestamptz AND starts_at < %({until})s::text::timestamptz
"""
_STATEMENT = """
    WITH looked_at AS MATERIALIZED (
        SELECT date_trunc('{interval}', first_message_at, 'UTC') AS starts_at, sentiment, outcome, {keywords}, n,
            ({conditions}) IS TRUE AS fits
        FROM ({found}) AS f
    ), rows AS NOT MATERIALIZED (SELECT * FROM looked_at WHERE fits) {top}
    SELECT 'read' AS kind, NULL::timestamptz[] AS starts, NULL::text AS name, ARRAY[count(*)]::bigint[] AS counts
    FROM looked_at
    UNION ALL
    SELECT 'interval', ARRAY[date_trunc('{interval}', starts_at, 'UTC')], NULL, ARRAY[{sums}]::bigint[]
    FROM ({counted}) AS c GROUP BY 2
    {courses}
"""
# What is not compared has no more of the months' lists than the first one left out, and of what these lack, no more
# than the last of each together.
_LISTS = """, months AS MATERIALIZED (
        SELECT starts_at FROM trend_counts
        WHERE workspace_id = %(workspace)s AND keyword = '' AND span = 'month'
        AND starts_at >= date_trunc('month', %(since)s::text::timestamptz, 'UTC')
        AND starts_at < %(until)s::text::timestamptz
    ), lists AS MATERIALIZED (
        SELECT m.starts_at, k.* FROM months AS m CROSS JOIN LATERAL (
            SELECT keyword, {number} AS n FROM trend_counts
            WHERE workspace_id = %(workspace)s AND span = 'month' AND keyword <> '' AND starts_at = m.starts_at
            AND {number} > 0 ORDER BY {number} DESC LIMIT %(depth)s::bigint
        ) AS k
        UNION ALL (
            SELECT NULL, k.keyword, sum(n)::integer FROM rows CROSS JOIN LATERAL unnest(keyword_hashes) AS k (keyword)
            WHERE n > 0 GROUP BY k.keyword ORDER BY sum(n) DESC LIMIT %(depth)s::bigint
        )
    ), listed AS MATERIALIZED (
        SELECT keyword, sum(n) AS n FROM lists GROUP BY keyword ORDER BY sum(n) DESC LIMIT %(compared)s::bigint + 1
    ), candidates AS MATERIALIZED (SELECT keyword FROM listed ORDER BY n DESC LIMIT %(compared)s::bigint)"""
_TOP = """, top AS MATERIALIZED (
        SELECT keyword, sum(n)::bigint AS n FROM (
            SELECT k.keyword, n FROM rows CROSS JOIN LATERAL unnest(keyword_hashes) AS k (keyword)
            {counted}
        ) AS c
        GROUP BY keyword HAVING sum(n) >= %(min_count)s::bigint
        ORDER BY sum(n) DESC, keyword LIMIT %(shown)s::bigint
    )"""
_TOTALS = """
    WHERE k.keyword IN (SELECT keyword FROM candidates)
    UNION ALL SELECT l.keyword, t.n FROM candidates AS l CROSS JOIN LATERAL ({arms}) AS t (n)
"""
_COURSES = """
    UNION ALL SELECT 'total', NULL, keyword, ARRAY[n] FROM top
    UNION ALL
    SELECT 'keyword', array_agg(starts_at), keyword, array_agg(n) FROM (
        SELECT keyword, date_trunc('{interval}', starts_at, 'UTC') AS starts_at, sum(n)::bigint AS n FROM (
            SELECT top.keyword, starts_at, rows.n FROM rows CROSS JOIN LATERAL unnest(keyword_hashes) AS k (keyword)
            JOIN top ON top.keyword = k.keyword
            {counted}
        ) AS c GROUP BY 1, 2 HAVING sum(n) >= %(min_count)s::bigint
    ) AS c GROUP BY keyword
"""
_COURSE = """
    UNION ALL SELECT top.keyword, k.* FROM top CROSS JOIN LATERAL ({arm}) AS k
"""
_BEYOND = """
    UNION ALL SELECT 'beyond', NULL, NULL, ARRAY[
        (SELECT coalesce(sum(fewest), 0) FROM (
            SELECT min(n) AS fewest FROM lists GROUP BY starts_at HAVING count(*) = %(depth)s::bigint
        ) AS l) + coalesce((SELECT min(n) FROM listed HAVING count(*) > %(compared)s::bigint), 0),
        (SELECT count(*) FROM months)
    ]::bigint[]
"""


def is_counted(metric: Metric, interval: Interval, given: frozenset[str]) -> bool:
    """Says whether what is asked for is counted: nothing is by sender, by two labels or keywords, or a keyword by hour.

    What is not is read conversation by conversation.
    """
    dimensions = given | {str(metric)}
    by_keyword = "keyword" in given or metric is Metric.KEYWORDS
    return not (
        "user" in given
        or {"sentiment", "outcome"} <= dimensions
        or {"keyword", "keywords"} <= dimensions
        or (by_keyword and interval is Interval.HOUR)
    )


def _found(metric: Metric, interval: Interval, given: frozenset[str]) -> str:
    """Returns what selects the conversations that are read one by one."""
    if is_counted(metric, interval, given):
        return _CHANGED
    labels = [_CONDITIONS[name] for name in ("sentiment", "outcome") if name in given]
    parts = {"columns": _COLUMNS, "short": SHORT, "labels": " AND ".join(labels) or "true"}
    if "user" in given:
        found = _OF_USER.format(**parts) + " UNION ALL " + _LONG.format(**parts, member=_MEMBER)
    elif "keyword" in given:
        found = _WITH_KEYWORD.format(**parts)
    else:
        found = _IN_TIME.format(**parts) + " UNION ALL " + _LONG.format(**parts, member=parts["labels"])
    return f"{found} LIMIT {SCANNED + 1}"


@cache
def statement(metric: Metric, interval: Interval, label: str | None, given: frozenset[str]) -> str:
    """Returns the statement, whose rows are a kind, when, a keyword's hash, and counts."""
    by_counts = is_counted(metric, interval, given)
    labels = LABELS.get(metric, ())
    conditions = [_RANGE, *(_CONDITIONS[name] for name in sorted(given & _CONDITIONS.keys()))]
    # With a label asked for, its column holds all that is asked for.
    number = label or "conversations"
    analysed = label or " + ".join(_SENTIMENTS)
    dimension = str(metric) if labels else ""
    each = [f"CASE WHEN {dimension} = '{name}' THEN n ELSE 0 END" for name in labels]
    names = ["conversations", "analysed", *labels]

    def counted(columns: str, span: str, keyword: str, since: str = "since", until: str = "until") -> str:
        return _COUNTED.format(columns=columns, span=span, keyword=keyword, since=since, until=until)

    spans = {Interval.HOUR: "hour", Interval.MONTH: "month"}
    span = spans.get(interval, "day")
    rows = ["starts_at", "n AS conversations", "CASE WHEN sentiment IS NULL THEN 0 ELSE n END AS analysed"]
    rows += [f"{value} AS {name}" for value, name in zip(each, labels, strict=True)]
    intervals = [f"SELECT {', '.join(rows)} FROM rows"]  # noqa: S608 — only constants
    if by_counts:
        of = "%(keyword)s::text" if "keyword" in given else "''"
        shown = [name if label in (None, name) else "0" for name in labels]
        intervals.append(counted(", ".join(["starts_at", number, analysed, *shown]), span, of))
    top = courses = ""
    if metric is Metric.KEYWORDS and by_counts:
        arms = [
            counted(number, "month", "l.keyword", "first_month", "last_month"),
            counted(number, "day", "l.keyword", "since", "first_month"),
            counted(number, "day", "l.keyword", "last_month", "until"),
        ]
        course = _COURSE.format(arm=counted(f"starts_at, {number}", span, "top.keyword"))
        top = _LISTS.format(number=number) + _TOP.format(counted=_TOTALS.format(arms=" UNION ALL ".join(arms)))
        courses = _COURSES.format(interval=interval, counted=course) + _BEYOND
    elif metric is Metric.KEYWORDS:
        top, courses = _TOP.format(counted=""), _COURSES.format(interval=interval, counted="")
    return _STATEMENT.format(
        found=_found(metric, interval, given),
        interval=interval,
        keywords=_DISTINCT if metric is Metric.KEYWORDS else "NULL::text[]",
        conditions=" AND ".join(conditions),
        top=top,
        sums=", ".join(f"sum({name})" for name in names),
        counted=" UNION ALL ".join(intervals),
        courses=courses,
    )
