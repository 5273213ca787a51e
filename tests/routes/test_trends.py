"""Trends: what is counted is what is stored, whoever writes, deletes or folds meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from app.factory import Services
from app.repositories import trend_statement, trends
from app.schemas.trends import KEYWORDS
from app.services import trends as service
from app.worker import CHORES
from tests.support.api import Workspace, message

SENTIMENTS, OUTCOMES = ("positive", "neutral", "negative", "mixed"), ("yes", "no", "maybe", "curious")
TEXTS = (
    "My parcel has not arrived yet. Where is the parcel?",
    "The invoice is wrong, I am very angry about this invoice!",
    "Thank you so much, the refund came and I am happy.",
    "Can the battery be replaced? The battery is dead.",
    "My parcel was lost and I want a refund, this is terrible.",
)
"""What the built-in engine labels and names keywords of."""


class Known(NamedTuple):
    """A conversation as the API shows it, and its keywords."""

    conversation_id: str
    began: datetime
    senders: frozenset[str]
    sentiment: str | None
    outcome: str | None
    keywords: frozenset[str]


async def store(workspace: Workspace, *messages: dict[str, str]) -> None:
    for start in range(0, len(messages), 1_000):
        answer = await workspace.editor.post("/chats", json=list(messages[start : start + 1_000]))
        assert answer.status_code == 201, answer.text


async def analyse(workspace: Workspace, conversation_id: str, what: str = "summarize", **more: Any) -> None:
    answer = await workspace.editor.post(f"/chats/{what}", json={"conversation_id": conversation_id, **more})
    assert answer.status_code == 200, answer.text


async def ask(client: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    """Returns a trend; ``since`` and ``until`` are ``from`` and ``to``."""
    names = {"since": "from", "until": "to"}
    answer = await client.get("/analytics/trends", params={names.get(name, name): v for name, v in params.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def fold(services: Services) -> None:
    """Does what a worker does again and again."""
    [chore] = [each for each in CHORES if each.name == "fold_trends"]
    await chore.run(services, asyncio.Event())


async def known(workspace: Workspace) -> list[Known]:
    """Returns everything that is stored, through the API."""
    found: list[Known] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await workspace.viewer.get("/chats", params={"limit": 100, **cursor})).json()
        for each in page["data"]:
            words: list[str] = []
            if each["sentiment"]:
                name = each["conversation_id"]
                summary = await workspace.viewer.get(f"/chats/{name}/summary")
                insights = await workspace.viewer.get(f"/chats/{name}/insights")
                latest = max(
                    (answer.json() for answer in (summary, insights) if answer.status_code == 200),
                    key=lambda analysis: analysis["updated_at"],
                )
                words = [word if isinstance(word, str) else word["text"] for word in latest["keywords"]]
            found.append(
                Known(
                    each["conversation_id"],
                    datetime.fromisoformat(each["first_message_at"]),
                    frozenset(sender["user_id"] for sender in each["participants"]),
                    each["sentiment"],
                    each["outcome"],
                    frozenset(words),
                )
            )
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


@cache
def start_of(interval: str, time: datetime) -> str:
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    start = {
        "hour": time.replace(minute=0, second=0, microsecond=0),
        "day": day,
        "week": day - timedelta(days=time.weekday()),
        "month": day.replace(day=1),
    }[interval]
    return start.strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def count(metric: str, among: Iterable[Known]) -> Counter[str]:
    if metric == "keywords":
        return Counter(word for each in among for word in each.keywords)
    labels = {"sentiment": SENTIMENTS, "outcome": OUTCOMES}.get(metric, ())
    return Counter({label: sum(getattr(each, metric) == label for each in among) for label in labels})


def check(trend: dict[str, Any], everything: list[Known], limit: int = KEYWORDS, **filters: str) -> None:
    """Holds a trend to a count of everything, one by one, with so many keywords."""
    metric, interval, least = trend["metric"], trend["interval"], trend["min_count"]
    chosen = [
        each
        for each in everything
        if trend["from"] <= start_of(interval, each.began) < trend["to"]
        and filters.get("user_id", "") in {*each.senders, ""}
        and filters.get("sentiment", each.sentiment) == each.sentiment
        and filters.get("outcome", each.outcome) == each.outcome
        and filters.get("keyword", "") in {*each.keywords, ""}
    ]
    starts = [each["start"] for each in trend["data"]]
    assert starts == sorted(set(starts))
    assert not chosen or {start_of(interval, each.began) for each in chosen} <= set(starts)
    totals = count(metric, chosen)
    shown = trend["totals"]["counts"]
    if metric == "keywords":
        assert sorted(shown.values(), reverse=True) == [n for _, n in totals.most_common(limit) if n >= least]
    for entry in [trend["totals"], *trend["data"]]:
        among = [each for each in chosen if "start" not in entry or start_of(interval, each.began) == entry["start"]]
        assert entry["conversations"] == len(among)
        assert entry["analysed"] == sum(each.sentiment is not None for each in among)
        wanted = count(metric, among)
        if metric == "keywords":
            assert entry["counts"] == {word: n for word, n in wanted.items() if n >= least and word in shown}
        else:
            assert entry["counts"] == dict(wanted)


def whole(postgresql: psycopg.Connection) -> dict[str, int]:
    """Returns how many rows the tables of trends have."""
    postgresql.rollback()
    tables = ("trend_counts", "trend_changes")
    return {name: postgresql.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()[0] for name in tables}  # type: ignore[index]


def sound(postgresql: psycopg.Connection) -> None:
    """Checks that every count is what is stored, without what changed since: a count of all rows from nothing."""
    postgresql.rollback()
    wrong = postgresql.execute(
        """
        WITH was AS (
            SELECT c.workspace_id, c.conversation_id, c.first_message_at, c.sentiment, c.outcome, c.keyword_hashes
            FROM conversations AS c LEFT JOIN trend_changes AS t USING (workspace_id, conversation_id)
            WHERE t.conversation_id IS NULL
            UNION ALL SELECT * FROM trend_changes WHERE first_message_at IS NOT NULL
        ), wanted AS (
            SELECT workspace_id, keyword, span, date_trunc(span, first_message_at, 'UTC') AS starts_at,
                count(*)::int AS conversations, count(*) FILTER (WHERE sentiment = 'negative')::int AS negative,
                count(*) FILTER (WHERE outcome = 'maybe')::int AS maybe
            FROM was, unnest(array_append(keyword_hashes, '')) AS keyword, unnest('{hour,day,month}'::text[]) AS span
            WHERE keyword = '' OR span <> 'hour' GROUP BY 1, 2, 3, 4
        ), counted AS (
            SELECT workspace_id, keyword, span, starts_at, conversations, negative, maybe FROM trend_counts
        )
        (TABLE wanted EXCEPT TABLE counted) UNION ALL (TABLE counted EXCEPT TABLE wanted)
        """
    ).fetchall()
    assert wrong == []


def at(day: int, hour: int = 10, minute: int = 0) -> str:
    return f"2026-11-{day:02}T{hour:02}:{minute:02}:00.000000Z"


NOVEMBER = {"since": at(1, 0), "until": at(30, 0)}


async def test_each_metric_has_its_counts_and_denominators(workspace: Workspace) -> None:
    sent = [message(f"c{n}", timestamp=at(1 + n % 2), message_content=TEXTS[0]) for n in range(6)]
    await store(workspace, *sent, message("late", timestamp=at(3)))
    for n in range(4):
        await analyse(workspace, f"c{n}")
    range_ = {"since": at(1, 15), "until": at(3, 0)}
    volume = await ask(workspace.viewer, **range_)
    assert volume == {
        "metric": "volume",
        "interval": "day",
        "from": at(1, 0),
        "to": at(3, 0),
        "min_count": 3,
        "complete": True,
        "totals": {"conversations": 6, "analysed": 4, "counts": {}},
        "data": [
            {"start": at(1, 0), "conversations": 3, "analysed": 2, "counts": {}},
            {"start": at(2, 0), "conversations": 3, "analysed": 2, "counts": {}},
        ],
    }
    [label] = {each.sentiment for each in await known(workspace) if each.sentiment}
    sentiment = await ask(workspace.viewer, metric="sentiment", **range_)
    assert sentiment["totals"]["counts"] == {**dict.fromkeys(SENTIMENTS, 0), label: 4}
    keywords = await ask(workspace.viewer, metric="keywords", min_count=2, **range_)
    assert keywords["totals"]["counts"]["parcel"] == 4
    assert [each["counts"]["parcel"] for each in keywords["data"]] == [2, 2]
    fewer = await ask(workspace.viewer, metric="keywords", **range_)
    assert (fewer["totals"]["counts"]["parcel"], [each["counts"] for each in fewer["data"]]) == (4, [{}, {}])
    assert (await ask(workspace.viewer, metric="keywords", min_count=5, **range_))["totals"]["counts"] == {}


async def build_up(workspace: Workspace, rng: random.Random, conversations: int) -> None:
    """Stores, analyses, goes on with, moves and deletes conversations by chance."""
    names = [f"c{n}" for n in range(conversations)]

    def said(name: str, place: int) -> dict[str, str]:
        moment = datetime(2026, 8, 20, tzinfo=UTC) + timedelta(minutes=rng.randrange(60 * 24 * 45))
        text = " ".join(rng.sample(TEXTS, rng.randint(1, 2)))
        sender = rng.choice(("ana", "bea", "cy"))
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return message(name, f"m{place}-{rng.getrandbits(64)}", user_id=sender, timestamp=stamp, message_content=text)

    for place in range(3):
        await store(workspace, *(said(name, place) for name in names if rng.random() < 0.8))
        stored = [each["conversation_id"] for each in (await workspace.viewer.get("/chats?limit=100")).json()["data"]]
        for name in rng.sample(stored, len(stored) // 2):
            await analyse(workspace, name, rng.choice(("summarize", "insights")), force=True)
        for name in rng.sample(stored, 3):
            assert (await workspace.admin.delete(f"/chats/{name}")).status_code == 200


RANGES = (
    {"since": "2026-08-15T00:00:00Z", "until": "2026-10-10T00:00:00Z"},
    {"since": "2026-09-03T07:30:00Z", "until": "2026-09-20T12:00:00Z"},
)
FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"user_id": "ana"},
    {"sentiment": "negative"},
    {"outcome": "maybe"},
    {"keyword": "parcel"},
    {"keyword": "refund", "outcome": "maybe", "user_id": "bea"},
    {"sentiment": "negative", "outcome": "no"},
)


@pytest.mark.parametrize("seed", range(3))
async def test_every_trend_is_what_a_count_one_by_one_gives(
    workspace: Workspace,
    services: Services,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(trends, "DEPTH", 1 + seed)
    monkeypatch.setattr(trends, "COMPARED", 3 + seed)
    monkeypatch.setattr(service, "KEYWORDS", 4)  # so that some are left out
    questions = [
        (metric, interval, filters)
        for metric in ("volume", "sentiment", "outcome", "keywords")
        for interval in ("hour", "day", "week", "month")
        for filters in FILTERS
    ]
    for turn in range(2):
        await build_up(workspace, rng, 25)
        sound(postgresql)
        everything = await known(workspace)
        for folded in (False, True):
            if folded:
                await fold(services)
                assert whole(postgresql)["trend_changes"] == 0
                sound(postgresql)
            # All seeds together ask everything, of what has changed and of what is counted.
            for metric, interval, filters in questions[2 * seed + turn :: 6]:
                range_ = rng.choice(RANGES)
                asked = {"metric": metric, "interval": interval, "min_count": rng.choice((2, 3)), **range_}
                found = await ask(workspace.viewer, **asked, **filters)
                assert found["complete"]
                check(found, everything, 4, **filters)


async def test_a_conversation_that_went_on_for_days_counts_when_it_began(workspace: Workspace) -> None:
    await store(workspace, message("c1", "m1", timestamp=at(2)), message("c1", "m2", timestamp=at(9)))
    for filters in ({}, {"user_id": "ana"}):
        trend = await ask(workspace.viewer, since=at(2, 0), until=at(3, 0), **filters)
        assert trend["totals"]["conversations"] == 1
        assert (await ask(workspace.viewer, since=at(9, 0), until=at(10, 0), **filters))["totals"]["conversations"] == 0


async def test_an_earlier_message_moves_the_beginning(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    await store(workspace, message("c1", "m1", timestamp=at(9)))
    await fold(services)
    await store(workspace, message("c1", "m2", timestamp=at(10)))
    assert whole(postgresql)["trend_changes"] == 0, "a later message changes no count"
    for _ in range(2):
        await store(workspace, message("c1", "m3", timestamp=at(2)))
        days = [each["start"] for each in (await ask(workspace.viewer, **NOVEMBER))["data"] if each["conversations"]]
        assert days == [at(2, 0)]
        await fold(services)
    sound(postgresql)


async def test_after_a_deletion_no_row_speaks_of_what_is_gone(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    await store(workspace, message("c1", message_content=TEXTS[0]), message("c2", message_content=TEXTS[1]))
    for folded, changed in ((False, False), (True, False), (True, True)):
        await analyse(workspace, "c1", force=True)
        if folded:
            await fold(services)
        if changed:  # other keywords than those that are counted
            await store(workspace, message("c1", f"m2-{folded}", message_content=TEXTS[3]))
            await analyse(workspace, "c1", force=True)
        assert (await workspace.admin.delete("/chats/c1")).status_code == 200
        postgresql.rollback()
        left = postgresql.execute("SELECT DISTINCT keyword FROM trend_counts").fetchall()
        assert left in ([], [("",)]), "no hash of a keyword that no conversation has"
        noted = postgresql.execute("SELECT conversation_id FROM trend_changes WHERE conversation_id = 'c1'").fetchall()
        assert noted == []
        sound(postgresql)
        assert (await ask(workspace.viewer, **NOVEMBER))["totals"] == {"conversations": 1, "analysed": 0, "counts": {}}
        await store(workspace, message("c1", message_content=TEXTS[0]))
    deleted = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 10})
    assert deleted.json()["deleted"]["conversations"] == 2
    assert whole(postgresql) == {"trend_counts": 0, "trend_changes": 0}


async def test_of_many_that_are_deleted_the_counts_are_corrected_soon_and_are_exact_before(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = trends.FORGOTTEN_AT_ONCE + 1
    monkeypatch.setattr(services.trends, "fold_soon", lambda _: None)
    await store(workspace, *(message(f"c{n}", message_content=TEXTS[0]) for n in range(count)))
    await store(workspace, message("left", user_id="bea", message_content=TEXTS[1]))
    for n in range(3):
        await analyse(workspace, f"c{n}")
    await fold(services)
    await analyse(workspace, "c2", "insights", force=True)
    await store(workspace, message("new"))  # not counted yet
    deleted = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": count + 1})
    assert deleted.json()["deleted"]["conversations"] == count + 1
    everything = await known(workspace)
    assert [each.conversation_id for each in everything] == ["left"]
    noted = postgresql.execute("SELECT conversation_id FROM trend_changes").fetchall()
    assert len(noted) == count
    assert not any(name.startswith("c") and len(name) < 10 for (name,) in noted), "a note names no conversation"
    sound(postgresql)
    for metric in ("sentiment", "keywords"):
        check(await ask(workspace.viewer, metric=metric, **NOVEMBER), everything)
    await store(workspace, message("c1", message_content=TEXTS[0]))
    monkeypatch.undo()
    services.trends.fold_soon(postgresql.execute("SELECT workspace_id FROM trend_changes").fetchall()[0][0])
    await asyncio.gather(*services.trends._folding.values())
    sound(postgresql)
    assert whole(postgresql)["trend_changes"] == 0
    assert postgresql.execute("SELECT DISTINCT keyword FROM trend_counts").fetchall() == [("",)]
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 2


async def test_a_keyword_that_was_stored_twice_counts_once(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    await store(workspace, *(message(f"c{n}", message_content=TEXTS[0]) for n in range(2)))
    for n in range(2):
        await analyse(workspace, f"c{n}")
    doubled = "UPDATE conversations SET keyword_hashes = keyword_hashes || keyword_hashes"
    postgresql.execute(doubled)
    postgresql.commit()
    everything = await known(workspace)
    asked = {"metric": "keywords", "min_count": 2, **NOVEMBER}
    for _ in range(2):
        for filters in ({}, {"user_id": "ana"}, {"keyword": "parcel"}):
            check(await ask(workspace.viewer, **asked, **filters), everything, KEYWORDS, **filters)
        await fold(services)
    assert (await workspace.admin.delete("/chats/c1")).status_code == 200
    check(await ask(workspace.viewer, **asked), await known(workspace))
    assert (await workspace.admin.delete("/chats/c0")).status_code == 200
    assert whole(postgresql) == {"trend_counts": 0, "trend_changes": 0}


async def test_where_not_all_keywords_are_compared_the_answer_says_so(
    workspace: Workspace, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [message(f"c{n}", timestamp=f"2026-{n % 3 + 4:02}-07T10:00:00Z") for n in range(10)]
    await store(workspace, *({**each, "message_content": TEXTS[n % 5]} for n, each in enumerate(sent)))
    for n in range(10):
        await analyse(workspace, f"c{n}")
    await fold(services)
    everything = await known(workspace)
    months = {"interval": "month", "since": "2026-04-01T00:00:00Z", "until": "2026-07-01T00:00:00Z"}
    labels = {"sentiment": everything[0].sentiment or "", "outcome": everything[0].outcome or ""}
    for name, value in {**labels, "": ""}.items():
        filters = {name: value} if name else {}
        asked = {"metric": "keywords", "min_count": 2, **months, **filters}
        complete = await ask(workspace.viewer, **asked)
        assert complete["complete"]
        check(complete, everything, KEYWORDS, **filters)
        with monkeypatch.context() as few:
            for limit in ("DEPTH", "COMPARED", "DEEPEST"):
                few.setattr(trends, limit, 1)
            some = await ask(workspace.viewer, **asked)
        assert not some["complete"]
        counts = some["totals"]["counts"]
        assert counts.items() < complete["totals"]["counts"].items()


async def test_counts_are_exact_while_others_write_delete_and_fold(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    writing = True

    async def write(number: int) -> None:
        rng = random.Random(number)
        for turn in range(12):
            names = [f"w{number}-{turn}-{n}" for n in range(4)]
            await store(
                workspace,
                *(
                    message(name, timestamp=at(rng.randint(5, 25)), message_content=TEXTS[n])
                    for n, name in enumerate(names)
                ),
            )
            await store(workspace, *(message(name, "m2", timestamp=at(rng.randint(1, 28))) for name in names))
            await analyse(workspace, names[0])
            assert (await workspace.admin.delete(f"/chats/{names[1]}")).status_code == 200
            await analyse(workspace, names[0], "insights")

    async def folding() -> None:
        while writing:
            await fold(services)

    async def reading() -> int:
        most = 0
        while writing:
            trend = await ask(workspace.viewer, metric="sentiment", **NOVEMBER)
            for entry in [trend["totals"], *trend["data"]]:
                assert 0 <= entry["analysed"] <= entry["conversations"]
                assert sum(entry["counts"].values()) == entry["analysed"]
            most = max(most, trend["totals"]["conversations"])
        return most

    async def shared() -> None:
        # All of them change the same conversation.
        await asyncio.gather(*(store(workspace, message("shared", f"s{n}", timestamp=at(28 - n))) for n in range(20)))

    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(folding()), tasks.create_task(folding())]
        read = tasks.create_task(reading())
        await asyncio.gather(*(write(number) for number in range(4)), shared())
        writing = False
    assert all(task.done() for task in others)
    assert read.result() <= 4 * 12 * 4 + 1
    sound(postgresql)
    everything = await known(workspace)
    assert len(everything) == 4 * 12 * 3 + 1
    for metric in ("volume", "outcome", "keywords"):
        check(await ask(workspace.viewer, metric=metric, **NOVEMBER), everything)
    await fold(services)
    sound(postgresql)
    check(await ask(workspace.viewer, metric="keywords", **NOVEMBER), everything)


async def test_what_a_transaction_undoes_is_not_counted(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    await store(workspace, message("c1", "m1"))
    refused = await workspace.editor.post(
        "/chats", json=[message("c2", "m1"), message("c1", "m1", message_content="Something else.")]
    )
    assert refused.status_code == 409
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 1
    sound(postgresql)


async def test_another_workspace_sees_and_changes_nothing(
    workspace: Workspace, other_workspace: Workspace, services: Services
) -> None:
    await store(workspace, *(message(f"c{n}", message_content=TEXTS[0]) for n in range(3)))
    for n in range(3):
        await analyse(workspace, f"c{n}")
    for _ in range(2):
        for filters in ({}, {"user_id": "ana"}, {"keyword": "parcel"}):
            theirs = await ask(other_workspace.viewer, metric="keywords", **NOVEMBER, **filters)
            assert theirs["totals"] == {"conversations": 0, "analysed": 0, "counts": {}}
        await store(other_workspace, message("c1", timestamp=at(7)))
        assert (await other_workspace.admin.delete("/chats/c1")).status_code == 200
        assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 3
        await fold(services)


async def test_without_a_range_it_is_the_last_thirty_intervals_or_the_newest(workspace: Workspace) -> None:
    now = datetime.now(UTC)
    empty = await ask(workspace.viewer)
    assert (len(empty["data"]), empty["data"][-1]["start"]) == (30, start_of("day", now))
    await store(workspace, message("old", timestamp="2020-05-12T19:57:00Z"))
    old = await ask(workspace.viewer, interval="month")
    assert (len(old["data"]), old["data"][-1]) == (
        30,
        {"start": "2020-05-01T00:00:00.000000Z", "conversations": 1, "analysed": 0, "counts": {}},
    )
    await store(workspace, message("new", timestamp=now.strftime("%Y-%m-%dT%H:%M:%SZ")))
    assert (await ask(workspace.viewer, interval="hour"))["data"][-1]["start"] == start_of("hour", now)
    before = await ask(workspace.viewer, until="2020-05-20T00:00:00Z", interval="week")
    assert (len(before["data"]), before["to"]) == (30, "2020-05-25T00:00:00.000000Z")


@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
async def test_the_ends_of_time_are_counted(workspace: Workspace, interval: str) -> None:
    first, last = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
    await store(workspace, message("first", timestamp=first), message("last", timestamp=last))
    early = await ask(workspace.viewer, interval=interval, until="0001-01-02T00:00:00Z")
    assert (early["from"], early["totals"]["conversations"]) == (first, 1)
    late = await ask(workspace.viewer, interval=interval, since="9999-12-01T00:00:00Z", until=last)
    assert (late["to"], late["totals"]["conversations"]) == (last, 1)
    assert (await ask(workspace.viewer, interval=interval, until=last))["data"][-1]["conversations"] == 1
    words = await ask(workspace.viewer, interval=interval, metric="keywords", since="9999-12-01T00:00:00Z", until=last)
    assert words["totals"]["conversations"] == 1


async def test_an_empty_range_has_no_intervals(workspace: Workspace) -> None:
    await store(workspace, message())
    for range_ in ({"since": at(3, 0), "until": at(3, 0)}, {"since": at(9), "until": at(2)}):
        found = await ask(workspace.viewer, metric="keywords", **range_)
        assert (found["data"], found["totals"]) == ([], {"conversations": 0, "analysed": 0, "counts": {}})


HOSTILE: list[tuple[dict[str, str], str]] = [
    ({"metric": "price"}, "invalid"),
    ({"interval": "minute"}, "invalid"),
    ({"interval": "day'; DROP TABLE messages; --"}, "invalid"),
    ({"from": "yesterday"}, "invalid"),
    ({"from": "2026-11-01T00:00:00"}, "invalid"),
    ({"to": "10000-01-01T00:00:00Z"}, "invalid"),
    ({"min_count": "1"}, "invalid"),
    ({"min_count": "-3"}, "invalid"),
    ({"min_count": "1" * 40}, "invalid"),
    ({"user_id": ""}, "invalid"),
    ({"user_id": "a\0b"}, "invalid"),
    ({"keyword": "x" * 101}, "invalid"),
    ({"sentiment": "angry"}, "invalid"),
    ({"outcome": ""}, "invalid"),
    ({"q": "parcel"}, "invalid"),
    ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59.999999Z", "interval": "month"}, "too_many_intervals"),
    ({"from": "2026-01-01T00:00:00Z", "to": "2026-04-01T00:00:00Z", "interval": "hour"}, "too_many_intervals"),
]


@pytest.mark.parametrize(("params", "code"), HOSTILE)
async def test_what_makes_no_sense_is_refused(workspace: Workspace, params: dict[str, str], code: str) -> None:
    answer = await workspace.viewer.get("/analytics/trends", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_too_many_conversations_to_read_one_by_one_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(workspace, *(message(f"c{n}", message_content=TEXTS[0]) for n in range(4)))
    trend_statement.statement.cache_clear()
    monkeypatch.setattr(trend_statement, "SCANNED", 3)
    monkeypatch.setattr(service, "SCANNED", 3)
    params = {"user_id": "ana", "from": at(1, 0), "to": at(2, 0)}
    answer = await workspace.viewer.get("/analytics/trends", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_conversations")
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 4
    # Of those with a keyword, the ones of the range count.
    for n in range(4):
        await analyse(workspace, f"c{n}")
    await store(workspace, message("late", timestamp=at(20), message_content=TEXTS[0]))
    await analyse(workspace, "late")
    [keyword, *_] = frozenset.intersection(*(each.keywords for each in await known(workspace)))
    hours = {"interval": "hour", "keyword": keyword}
    answer = await workspace.viewer.get("/analytics/trends", params={"from": at(1, 0), "to": at(2, 0), **hours})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_conversations")
    short = await ask(workspace.viewer, since=at(20, 0), until=at(21, 0), **hours)
    assert short["totals"]["conversations"] == 1
    trend_statement.statement.cache_clear()


async def test_whoever_reads_much_that_changed_has_it_folded(
    workspace: Workspace, postgresql: psycopg.Connection, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FOLD_FROM", 5)
    monkeypatch.setattr(trends, "FOLDED", 4)
    await store(workspace, *(message(f"c{n}") for n in range(10)))
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 10
    await asyncio.gather(*services.trends._folding.values())
    assert whole(postgresql)["trend_changes"] == 0
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"]["conversations"] == 10
    sound(postgresql)


async def test_folding_takes_turns_and_ends_while_others_write(
    workspace: Workspace,
    other_workspace: Workspace,
    services: Services,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trends, "FOLDED", 3)
    real, turns = trends.TrendRepository.fold, 0

    async def fold_and_write(repository: trends.TrendRepository, workspace_id: int) -> bool:
        nonlocal turns
        turns += 1
        await store(workspace, message(f"more-{turns}"))
        return await real(repository, workspace_id)

    monkeypatch.setattr(trends.TrendRepository, "fold", fold_and_write)
    await store(workspace, *(message(f"c{n}") for n in range(8)))
    await store(other_workspace, *(message(f"c{n}") for n in range(4)))
    await fold(services)
    assert turns <= 10
    left = postgresql.execute("SELECT workspace_id, count(*) FROM trend_changes GROUP BY 1").fetchall()
    assert len(left) <= 1
    sound(postgresql)


async def test_what_is_being_changed_is_left_to_the_next_fold(
    workspace: Workspace, postgresql: psycopg.Connection, services: Services
) -> None:
    await store(workspace, message("c1"), message("c2"))
    postgresql.execute("UPDATE conversations SET sentiment = 'mixed', outcome = 'no' WHERE conversation_id = 'c1'")
    await fold(services)  # waits for nobody
    postgresql.commit()
    assert whole(postgresql)["trend_changes"] == 1
    sound(postgresql)
    assert (await ask(workspace.viewer, **NOVEMBER))["totals"] == {"conversations": 2, "analysed": 1, "counts": {}}
