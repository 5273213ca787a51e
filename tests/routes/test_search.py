"""Filters, alone and combined, against a plain model; order and pages."""

import itertools
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest

from app.repositories import search
from app.repositories.search import SearchRepository
from app.services.search import SNIPPET_CHARACTERS
from tests.support.api import Workspace, message

TEXTS = [
    "Where is my parcel? It has not arrived yet and I am furious, this is terrible service!",
    "Thank you so much, the refund arrived. Great help, I am very happy!",
    "Could you tell me what the warranty covers?",
    "My invoice shows the wrong amount, please check it. I will wait for your answer tomorrow.",
]
Params = dict[str, str]


async def page(workspace: Workspace, params: dict[str, Any], path: str = "/chats") -> dict[str, Any]:
    answer = await workspace.viewer.get(path, params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def everything(workspace: Workspace, params: dict[str, Any]) -> list[str]:
    """Returns the ids of all pages of a list."""
    found: list[str] = []
    body: dict[str, Any] = {"next_cursor": None, "has_more": True}
    while body["has_more"]:
        cursor = {"cursor": body["next_cursor"]} if found else {}
        body = await page(workspace, {**params, **cursor})
        found += [each["conversation_id"] for each in body["data"]]
    return found


def random_messages(chance: random.Random, conversations: int) -> list[dict[str, str]]:
    return [
        message(
            f"c{c}",
            f"m{n}",
            user_id=chance.choice(["ana", "bo", "cy"]),
            timestamp=f"2026-11-0{chance.randrange(1, 6)}T0{chance.randrange(3)}:00:00.000000Z",
            message_content=chance.choice(TEXTS),
        )
        for c in range(conversations)
        for n in range(chance.randrange(1, 4))
    ]


moment = datetime.fromisoformat


class Model:
    """What the filters ought to find, over messages and labels in memory."""

    def __init__(self, messages: list[dict[str, str]], labels: dict[str, dict[str, Any]]) -> None:
        self.chats: dict[str, list[dict[str, str]]] = {}
        for each in messages:
            self.chats.setdefault(each["conversation_id"], []).append(each)
        self.labels = labels

    def find(self, params: Params) -> list[str]:
        tests: dict[str, Callable[[str, str], bool]] = {
            "user_id": lambda name, value: any(m["user_id"] == value for m in self.chats[name]),
            "from": lambda name, value: self._times(name)[-1] >= moment(value),
            "to": lambda name, value: self._times(name)[0] < moment(value),
            "q": lambda name, value: any(value in m["message_content"] for m in self.chats[name]),
            "sentiment": lambda name, value: self.labels.get(name, {}).get("sentiment") == value,
            "outcome": lambda name, value: self.labels.get(name, {}).get("outcome") == value,
            "keyword": lambda name, value: value in self.labels.get(name, {}).get("keywords", []),
        }
        found = [name for name in self.chats if all(tests[key](name, value) for key, value in params.items())]
        return sorted(found, key=lambda name: (self._times(name)[-1], name), reverse=True)

    def _times(self, name: str) -> list[datetime]:
        return sorted(moment(m["timestamp"]) for m in self.chats[name])


WAYS = [({"q": 2_000, "keyword": 500}, 10_000), *(({"q": -1, "keyword": -1}, walked) for walked in (0, 3, 60, 10_000))]
"""By hits, as it comes with so few; or by a walk that ends at once, soon, in the midst, or never."""


async def test_every_filter_and_every_pair_find_what_a_plain_model_finds(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    messages = random_messages(chance, 24)
    assert (await workspace.editor.post("/chats", json=messages)).status_code == 201
    labels = {}
    for name in [f"c{c}" for c in range(0, 24, 2)]:
        answer = await workspace.editor.post("/chats/summarize", json={"conversation_id": name})
        assert answer.status_code == 200, answer.text
        labels[name] = answer.json()
    model = Model(messages, labels)
    values: dict[str, list[str]] = {
        "user_id": ["ana", "bo", "dee"],
        "from": ["2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z", "2026-11-05T00:00:00+00:00", "2027-01-01T00:00:00Z"],
        "to": ["2026-11-05T00:00:00Z", "2026-11-06T00:00:00Z", "2026-11-02T02:00:00+02:00", "9999-12-31T23:59:59Z"],
        "q": ["refund", "warranty", "arrived", "absent"],
        "sentiment": ["positive", "neutral", "negative", "mixed"],
        "outcome": ["yes", "no", "maybe", "curious"],
        "keyword": [*sorted({k for each in labels.values() for k in each["keywords"]})[:5], "absent"],
    }
    assert len(values["keyword"]) > 1
    for size in (1, 2, 3, 7):
        for names in itertools.combinations(values, size):
            for choice in [{name: chance.choice(values[name]) for name in names} for _ in range(2 if size > 1 else 6)]:
                expected = model.find(choice)
                few, walked = chance.choice(WAYS)
                monkeypatch.setattr(search, "FEW", few)
                monkeypatch.setattr(search, "SELDOM", {"q": -1, "keyword": -1})
                monkeypatch.setattr(search, "WALKED", walked)
                assert await everything(workspace, {**choice, "limit": chance.choice([3, 100])}) == expected, choice
                if user := choice.pop("user_id", None):
                    history = await page(workspace, {**choice, "limit": 100}, f"/users/{user}/chats")
                    assert [each["conversation_id"] for each in history["data"]] == expected
                    assert history["total"] == len(expected)
    for name, found in labels.items():
        shown = (await workspace.viewer.get(f"/chats/{name}")).json()
        assert (shown["sentiment"], shown["outcome"]) == (found["sentiment"], found["outcome"])
        for keyword in found["keywords"][:1]:
            assert name in await everything(workspace, {"keyword": f" {keyword.upper()}  "})


async def test_pages_are_complete_without_repeats_also_at_equal_times(workspace: Workspace) -> None:
    for limit in (1, 2, 7, 30, 100):
        sent = [message(f"c{n:02}", timestamp=f"2026-11-01T00:00:0{n % 3}Z") for n in range(30)]
        await workspace.editor.post("/chats", json=sent)
        expected = sorted(sent, key=lambda each: (each["timestamp"], each["conversation_id"]), reverse=True)
        for params in ({}, {"q": "parcel"}, {"user_id": "ana"}):
            found = await everything(workspace, {"limit": limit, **params})
            assert found == [each["conversation_id"] for each in expected]


async def test_ten_are_listed_when_no_limit_is_given(workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=[message(f"c{n}") for n in range(11)])
    found = await page(workspace, {})
    assert (len(found["data"]), found["has_more"]) == (10, True)
    assert (await page(workspace, {"limit": 11}))["has_more"] is False


async def test_the_range_takes_what_overlaps_it(workspace: Workspace) -> None:
    times = ["2026-11-02T00:00:00.000001Z", "2026-11-04T00:00:00Z"]
    await workspace.editor.post("/chats", json=[message(message_id=time, timestamp=time) for time in times])
    for params, found in (
        ({"from": "2026-11-04T00:00:00Z"}, True),
        ({"from": "2026-11-04T00:00:00.000001Z"}, False),
        ({"to": "2026-11-02T00:00:00.000001Z"}, False),
        ({"to": "2026-11-02T00:00:00.000002Z"}, True),
        ({"from": "2026-11-03T00:00:00Z", "to": "2026-11-03T00:00:01Z"}, True),
    ):
        assert bool((await page(workspace, params))["data"]) == found, params


async def test_matches_are_the_best_messages_with_the_passage(workspace: Workspace) -> None:
    fill = "nothing to see here " * 40
    contents = {
        "a": f"{fill} zebra {fill}",
        "b": "Zebras! Zebra zebra.",
        "c": "No animal.",
        "d": "zebra",
        "e": "zebra zebra",
    }
    sent = [message("c1", name, message_content=text) for name, text in contents.items()]
    await workspace.editor.post("/chats", json=[*sent, message("c2", "x", message_content="zebra")])
    found = {each["conversation_id"]: each["matches"] for each in (await page(workspace, {"q": "zebra"}))["data"]}
    assert found["c2"] == [{"message_id": "x", "snippet": "zebra"}]
    assert [match["message_id"] for match in found["c1"]][:2] == ["b", "e"]
    assert len(found["c1"]) == 3
    only_a = (await page(workspace, {"q": '"here zebra nothing" or "here zebra"'}))["data"][0]["matches"]
    assert len(only_a) == 1
    assert "zebra" in only_a[0]["snippet"]
    assert len(only_a[0]["snippet"]) < 400
    assert (await page(workspace, {}))["data"][0]["matches"] is None


async def test_snippets_are_looked_for_in_a_bounded_amount_of_text(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    async def count(_: SearchRepository, q: str, texts: Sequence[str]) -> list[str]:
        read.append(sum(map(len, texts)))
        return [text[:10] for text in texts]

    monkeypatch.setattr(SearchRepository, "snippets", count)
    text = "zebra " * 6_000
    sent = [message(f"c{c}", f"m{n}", message_content=text) for c in range(30) for n in range(3)]
    await workspace.editor.post("/chats", json=sent)
    found = await page(workspace, {"q": "zebra", "limit": 100})
    assert [len(each["matches"]) for each in found["data"]] == [3] * 30
    assert 1_000_000 < read[0] <= SNIPPET_CHARACTERS


WRONG = [
    ({"q": "x" * 513}, "q"),
    ({"q": "a " * 33}, "q"),
    ({"q": ""}, "q"),
    ({"q": "a\0b"}, "q"),
    ({"user_id": "x" * 256}, "user_id"),
    ({"user_id": "."}, "user_id"),
    ({"keyword": "x" * 101}, "keyword"),
    ({"sentiment": "angry"}, "sentiment"),
    ({"outcome": "Yes"}, "outcome"),
    ({"limit": "101"}, "limit"),
    ({"from": "2026-11-01"}, "from"),
    ({"since": "2026-11-01T00:00:00Z"}, "since"),
    ({"page": "1"}, "page"),
    ({"Q": "x"}, "Q"),
]


async def test_a_wrong_filter_is_refused_by_name(workspace: Workspace) -> None:
    for params, pointer in WRONG:
        answer = await workspace.viewer.get("/chats", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        answer = await workspace.admin.delete("/chats", params={**params, "max_delete_count": 1})
        assert answer.status_code == 422
