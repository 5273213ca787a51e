"""The search over keyed hashes finds exactly what PostgreSQL's own search over the plain text finds."""

import random
from typing import Any

import psycopg

from tests.support.api import Workspace, message

WORDS = [
    *("parcel", "parcels", "arrived", "arriving", "the", "not", "a", "or", "refund", "refunded", "Running", "runs"),
    *(
        "well-known",
        "state-of-the-art",
        "e-mail",
        "ana@example.com",
        "x.y@mail-host.co.uk",
        "https://shop.example/a-b/c?d=e",
    ),
    *(
        "example.com",
        "www.shop.example",
        "/usr/local/bin",
        "12.5",
        "-7",
        "1e5",
        "v2.0.1",
        "2026-11-22",
        "don't",
        "O'Neil",
    ),
    *(
        "größe",
        "Straße",
        "naïve",
        "日本語",
        "東京",
        "привет",
        "مرحبا",
        "😀",
        "C:\\temp\\x",
        "a\\b",
        "it''s",
        "<b>bold</b>",
        "&amp;",
    ),
    *(
        "AT&T",
        "rock'n'roll",
        "x_y",
        "foo/bar",
        "semi;colon",
        "50%",
        "#tag",
        "@name",
        "!",
        "|",
        ":*",
        "<->",
        "(",
        ")",
        '"',
    ),
]
SYNTAX = ['"', "-", " or ", " ", " -", '" ', "'", "\\", ":*", "<->", "&", "|", "!", "(", ")", "<2>", ":A", "''", "\\'"]


def random_text(chance: random.Random) -> str:
    return "".join(
        chance.choice(WORDS) + chance.choice([" ", " ", ", ", ". ", "\n"]) for _ in range(chance.randrange(1, 14))
    )


def random_query(chance: random.Random) -> str:
    def phrase() -> str:
        words = " ".join(chance.choices(WORDS, k=chance.randrange(1, 4)))
        return chance.choice([words, f'"{words}"', f"-{words}", f'-"{words}"', f"{words} or"])

    kind = chance.randrange(3)
    if kind == 0:
        return " ".join(phrase() for _ in range(chance.randrange(1, 4)))
    if kind == 1:
        return "".join(chance.choice([*WORDS, *SYNTAX, *SYNTAX]) for _ in range(chance.randrange(1, 9)))
    return chance.choice(WORDS)


async def store(workspace: Workspace, postgresql: psycopg.Connection, texts: list[str]) -> None:
    """Stores each text as a conversation, and in a plain table."""
    sent = [message(f"{n}", message_content=text) for n, text in enumerate(texts)]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    postgresql.execute("CREATE TEMP TABLE plain (id text, words tsvector)")
    with postgresql.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO plain VALUES (%s, to_tsvector('pg_catalog.english', %s))",
            [(f"{n}", text) for n, text in enumerate(texts)],
        )


def plain(postgresql: psycopg.Connection, q: str) -> set[str]:
    rows = postgresql.execute("SELECT id FROM plain WHERE words @@ websearch_to_tsquery('pg_catalog.english', %s)", [q])
    return {row[0] for row in rows}


async def found(workspace: Workspace, q: str) -> set[str]:
    answer = await workspace.viewer.get("/chats", params={"q": q, "limit": 100})
    assert answer.status_code == 200, (q, answer.text)
    data: list[dict[str, Any]] = answer.json()["data"]
    assert all([match["message_id"] for match in each["matches"]] == ["m1"] for each in data), q
    return {each["conversation_id"] for each in data}


async def test_random_searches_find_what_the_plain_search_finds(
    workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    chance = random.Random(5)
    texts = [random_text(chance) for _ in range(90)]
    await store(workspace, postgresql, texts)
    hits = 0
    for _ in range(400):
        # Pieces of the texts themselves make phrases that hit.
        text = chance.choice(texts).split()
        start = chance.randrange(len(text))
        piece = " ".join(text[start : start + chance.randrange(1, 4)]).replace('"', "")
        q = chance.choice([random_query(chance), f'"{piece}"', f'"{piece}" -{chance.choice(WORDS)}'])[:512]
        if len(q.split()) > 32 or not q:
            continue
        expected = plain(postgresql, q)
        assert await found(workspace, q) == expected, q
        hits += bool(expected)
    assert hits > 150


MEANINGS = [
    ("refund", {"0", "1"}),
    ("REFUNDING", {"0", "1"}),
    ("refund parcel", {"0"}),
    ("refund or invoice", {"0", "1", "2"}),
    ("refund -parcel", {"1"}),
    ("-refund", {"2", "3"}),
    ('"refund for my parcel"', {"0"}),
    ('"parcel refund"', set()),
    ('-"refund parcel"', {"0", "1", "2", "3"}),
    ("the", set()),
    ("the and of", set()),
    ('"the"', set()),
    ("the refund", {"0", "1"}),
    (" ", set()),
    ('"""""', set()),
    ("' OR 1=1 --", set()),
    ("ana@example.com", {"3"}),
    ("known", {"3"}),
    ("well-known", {"3"}),
    ("shop.example", {"3"}),
    ("zürich", {"2"}),
]


async def test_a_search_means_what_web_searches_mean(workspace: Workspace) -> None:
    texts = [
        "I want a refund for my parcel.",
        "The refunds never came.",
        "The invoice from Zürich is wrong.",
        "Write to ana@example.com, a well-known address, see http://shop.example/help",
    ]
    await workspace.editor.post("/chats", json=[message(f"{n}", message_content=text) for n, text in enumerate(texts)])
    for q, expected in MEANINGS:
        assert await found(workspace, q) == expected, q


ODD = [
    *("-a" * 256, "a-" * 256, '"' * 512, "'" * 512, "\\" * 512, "x" * 512, "𐐀" * 512, "日" * 512, "-" * 32),
    *(
        "a b " * 16,
        "-a " * 32,
        '"a ' * 32,
        "or " * 32,
        "a.b/" * 128,
        "a@b." * 128,
        "<->" * 170,
        ":*" * 256,
        "!" * 512,
    ),
    *(
        "((((((((",
        "a & | b",
        "foo:*",
        "foo:ABCD",
        "a <-> b",
        "a <1000> b",
        "\\'",
        "x'y",
        "\u200b",
        "\ufffe",
        "\x01",
    ),
]


async def test_the_longest_and_oddest_searches_are_answered(
    workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    await store(workspace, postgresql, ["a b", "foo bar", "x'y", "nothing", *ODD])
    for q in ODD:
        assert await found(workspace, q) == plain(postgresql, q), q


NEGATIONS = ["-" * 33, "-" * 512, "a -" + "-" * 40 + "b", "-(" * 40, "--" * 16 + " <&|!-"]


async def test_more_negations_than_postgresql_can_parse_are_refused(workspace: Workspace) -> None:
    for q in NEGATIONS:
        answer = await workspace.viewer.get("/chats", params={"q": q})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "q")
