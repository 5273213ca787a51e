"""Topics: found by a worker as conversations come, and forgotten as they go."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from app.errors import Unavailable
from app.factory import Services, build
from app.llm import topics as processes
from app.repositories import topics as topic_rows
from app.repositories.topics import TopicRepository
from app.services import topic_rounds
from app.services import topics as service
from app.settings import ROOT, Settings
from app.worker import CHORES
from tests.support.api import Workspace, message
from tests.support.providers import Providers, Reply, Request, failure, grok_reply, open_providers
from tests.support.topics import KeptReaders

[KEEP_UP] = [chore.run for chore in CHORES if chore.name == "topics"]
MATTERS = {
    "parcel": "My parcel is lost, the courier wrote a wrong delivery address on the parcel.",
    "printer": "The printer shows a paper jam, I changed the printer cartridge and the driver.",
    "flight": "Please rebook my flight to Lisbon, the airport cancelled the flight and my luggage is there.",
    "invoice": "The invoice has the wrong tax, send the invoice with the correct billing period.",
}
TRANSLATED = {"garden": "The hedge needs a gardener, the lawn and the hedge are dry and the sprinkler drips."}


def chats(matter: str, count: int, prefix: str = "") -> list[dict[str, str]]:
    """Returns conversations about a matter, each with a customer of its own; one day has at most 28."""
    text = {**MATTERS, **TRANSLATED}[matter]
    return [
        message(
            f"{prefix}{matter}-{number}",
            user_id=f"customer-{prefix}{matter}-{number}",
            message_content=f"{text} {'Thanks!' * (number % 3)}",
            timestamp=f"2026-10-{number % 28 + 1:02}T10:00:00Z",
        )
        for number in range(count)
    ]


async def store(workspace: Workspace, messages: list[dict[str, str]]) -> None:
    answer = await workspace.editor.post("/chats", json=messages)
    assert answer.status_code == 201, answer.text


async def keep_up(services: Services) -> None:
    """Does what a worker does, at once."""
    services.topics._rests_until = 0.0
    await KEEP_UP(services, asyncio.Event())


async def topics(workspace: Workspace, **params: str) -> dict[str, Any]:
    answer = await workspace.viewer.get("/analytics/topics", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["assigned"] == sum(each["conversations"] for each in found["data"]) <= found["conversations"]
    assert sum(each["share"] for each in found["data"]) == pytest.approx(1 if found["data"] else 0, abs=0.01)
    return found


def matters(found: dict[str, Any]) -> dict[str, int]:
    """Returns how many conversations there are by matter, which each topic's examples tell."""
    counts: Counter[str] = Counter()
    for each in found["data"]:
        [matter] = {example["conversation_id"].rpartition("-")[0].rpartition("/")[2] for example in each["examples"]}
        counts[matter] += each["conversations"]
    return counts


def ids(found: dict[str, Any]) -> dict[str, str]:
    """Returns the id of each topic by its first example's matter."""
    return {each["examples"][0]["conversation_id"].rpartition("-")[0]: each["topic_id"] for each in found["data"]}


@pytest.fixture(scope="module")
def kept_readers() -> Iterator[KeptReaders]:
    with ExitStack() as stack:
        yield KeptReaders(stack)


@pytest.fixture(autouse=True)
def kept(kept_readers: KeptReaders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds topics in processes of tests before."""
    monkeypatch.setattr(topic_rounds, "topic_reader", kept_readers.reader)


@pytest.fixture
def anew(kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds topics in new processes, as the service does."""
    monkeypatch.setattr(topic_rounds, "topic_reader", processes.topic_reader)


@pytest.fixture
async def known(workspace: Workspace, services: Services) -> dict[str, Any]:
    """Returns the topics of eighty conversations about four matters."""
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    await keep_up(services)
    return await topics(workspace)


@pytest.mark.usefixtures("anew")
async def test_the_sample_data_has_topics_that_anybody_would_name(workspace: Workspace, services: Services) -> None:
    for name in ("star_sample.csv", "pc_support_sample.csv"):
        content = (ROOT / "data" / name).read_bytes()
        sent = await workspace.editor.post("/chats", content=content, headers={"Content-Type": "text/csv"})
        assert sent.status_code == 200
    before = await topics(workspace)
    assert (before["status"], before["conversations"], before["assigned"], before["data"]) == ("pending", 346, 0, [])
    assert before["updated_at"] is None
    await keep_up(services)
    found = await topics(workspace)
    assert (found["status"], found["conversations"]) == ("ready", 346)
    assert found["assigned"] >= 0.95 * 346
    assert found["updated_at"]
    assert 8 <= len(found["data"]) <= 20
    words = [set(" ".join(each["keywords"]).split()) for each in found["data"]]
    for word in ("apartment", "fraud", "flight", "ride", "hotel", "restaurant", "appointment", "balance", "computer"):
        assert any(word in each for each in words), word
    people = {"alexis", "angela", "ben", "jane", "katarina", "mark", "johnson", "morgan", "alexander", "anderson"}
    assert not people.intersection(*[set().union(*words)])
    assert not any(map(str.isdigit, "".join(set().union(*words))))
    shown = [example for each in found["data"] for example in each["examples"]]
    assert len({example["conversation_id"] for example in shown}) == len(shown) >= 2 * len(found["data"])
    for example in shown[:5]:
        page = (await workspace.viewer.get(f"/chats/{example['conversation_id']}")).json()
        assert any(example["snippet"] in " ".join(each["message_content"].split()) for each in page["messages"])


async def test_counts_are_those_of_the_range(workspace: Workspace, known: dict[str, Any]) -> None:
    assert matters(known) == {"parcel": 20, "printer": 20, "flight": 20, "invoice": 20}
    part = await topics(workspace, **{"from": "2026-10-03T00:00:00Z", "to": "2026-10-05T10:00:00Z"})
    assert (part["from"], part["to"]) == ("2026-10-03T00:00:00.000000Z", "2026-10-05T10:00:00.000000Z")
    assert (part["conversations"], part["assigned"]) == (8, 8)
    assert matters(part) == {"parcel": 2, "printer": 2, "flight": 2, "invoice": 2}
    assert {e["conversation_id"][-2:] for each in part["data"] for e in each["examples"]} == {"-2", "-3"}
    later = await topics(workspace, **{"from": "2027-01-01T00:00:00Z"})
    assert (later["status"], later["conversations"], later["data"]) == ("ready", 0, [])
    wrong = await workspace.viewer.get("/analytics/topics", params={"from": "yesterday"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "from")


async def test_below_fifty_conversations_there_are_none(
    workspace: Workspace, other_workspace: Workspace, services: Services
) -> None:
    for matter, count in (("parcel", 25), ("flight", 24)):
        await store(workspace, chats(matter, count))
    await keep_up(services)
    few = await topics(workspace)
    assert (few["status"], few["conversations"], few["assigned"], few["data"]) == ("too_few", 49, 0, [])
    await store(workspace, chats("printer", 1))
    await keep_up(services)
    assert (await topics(workspace))["status"] == "ready"
    theirs = await topics(other_workspace)
    assert (theirs["status"], theirs["conversations"], theirs["data"]) == ("too_few", 0, [])


async def test_what_comes_is_assigned_and_what_goes_is_gone(
    workspace: Workspace, services: Services, known: dict[str, Any]
) -> None:
    await store(workspace, chats("parcel", 6, prefix="new/"))
    waiting = await topics(workspace)
    assert (waiting["conversations"], waiting["assigned"]) == (86, 80)
    await keep_up(services)
    assert matters(await topics(workspace)) == {"parcel": 26, "printer": 20, "flight": 20, "invoice": 20}
    shown = {
        e["conversation_id"] for each in known["data"] for e in each["examples"] if "flight" in e["conversation_id"]
    }
    for conversation_id in shown:
        assert (await workspace.admin.delete(f"/chats/{conversation_id}")).status_code == 200
    left = await topics(workspace)
    assert matters(left)["flight"] == 20 - len(shown)
    assert not shown.intersection(e["conversation_id"] for each in left["data"] for e in each["examples"])


async def test_a_conversation_that_turns_to_another_matter_changes_its_topic(
    workspace: Workspace, services: Services, known: dict[str, Any], postgresql: psycopg.Connection
) -> None:
    more = [
        message("parcel-1", f"n{number}", user_id="customer-parcel-1", message_content=MATTERS["printer"])
        for number in range(5)
    ]
    await store(workspace, more)
    await keep_up(services)
    assert matters(await topics(workspace)) == {"parcel": 19, "printer": 21, "flight": 20, "invoice": 20}
    await store(workspace, [message("parcel-2", "n0", message_content="Hm.", timestamp="2026-09-01T10:00:00Z")])
    await keep_up(services)
    assert (await topics(workspace, to="2026-10-01T00:00:00Z"))["assigned"] == 1
    assert not postgresql.execute("SELECT 1 FROM conversations WHERE topic_messages <> message_count").fetchall()


async def test_a_conversation_that_goes_on_is_read_when_it_has_doubled_or_rests(
    workspace: Workspace, services: Services, known: dict[str, Any], postgresql: psycopg.Connection
) -> None:
    def read() -> int | None:
        postgresql.rollback()
        row = postgresql.execute("SELECT topic_messages FROM conversations WHERE conversation_id = 'now'").fetchone()
        return row[0] if row else None

    async def say(count: int) -> None:
        said = {**message("now", message_content=MATTERS["flight"])}
        said = {name: value for name, value in said.items() if name not in ("timestamp", "message_id")}
        for _ in range(count):
            assert (await workspace.editor.post("/chats", json=said)).status_code == 201
        await keep_up(services)

    await say(3)
    assert read() is None
    await say(1)
    assert read() == 4
    await say(3)
    assert read() == 4
    postgresql.execute("UPDATE conversations SET last_message_at = last_message_at - interval '2 minutes'")
    postgresql.commit()
    await keep_up(services)
    assert read() == 7


async def test_topics_keep_their_ids_when_they_are_found_anew(
    workspace: Workspace, services: Services, known: dict[str, Any], postgresql: psycopg.Connection
) -> None:
    for matter in [*MATTERS, "garden"]:
        await store(workspace, chats(matter, 28, prefix="more-"))
    await keep_up(services)
    found = await topics(workspace)
    before, after = ids(known), {name.removeprefix("more-"): number for name, number in ids(found).items()}
    assert len(before) == 4
    assert before.items() <= after.items()
    assert "garden" in after
    assert int(after["garden"]) > max(map(int, before.values()))
    assert sum(each["conversations"] for each in found["data"]) == 80 + 5 * 28
    fitted, swept = postgresql.execute("SELECT fitted_total, swept_through FROM topic_models").fetchone() or (0, 0)
    assert (fitted, swept) == (220, None)


async def test_new_matters_are_noticed_before_there_are_twice_as_many(
    workspace: Workspace, services: Services, known: dict[str, Any]
) -> None:
    await store(workspace, chats("garden", 55))
    await keep_up(services)
    assert matters(await topics(workspace))["garden"] == 55


async def test_after_a_deletion_the_words_are_found_anew_and_with_few_left_forgotten(
    workspace: Workspace, services: Services, known: dict[str, Any], postgresql: psycopg.Connection
) -> None:
    def made() -> Any:
        postgresql.rollback()
        return postgresql.execute("SELECT fitted_at, fitted_total FROM topic_models").fetchone()

    def let_pass(time: str) -> None:
        postgresql.execute(f"UPDATE topic_models SET fitted_at = fitted_at - interval '{time}'".encode())
        postgresql.commit()

    await workspace.admin.delete("/chats/parcel-0")
    let_pass("23 hours")
    before = made()
    await keep_up(services)
    assert made() == before
    let_pass("1 hour")
    await keep_up(services)
    assert made()[1] == 79
    for matter in ("parcel", "printer"):
        for number in range(1, 16):
            gone = await workspace.admin.delete(f"/chats/{matter}-{number}")
            assert gone.status_code == 200
    assert (await topics(workspace))["status"] == "too_few"
    await keep_up(services)
    assert made() is None
    assert postgresql.execute("SELECT 1 FROM conversation_topics").fetchall() == []
    await store(workspace, chats("parcel", 16))
    await keep_up(services)
    assert (await topics(workspace))["assigned"] == 65


async def test_a_word_of_few_customers_is_no_keyword_and_nothing_is_readable_at_rest(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    canary = "xylograph"
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    said = [
        message(
            f"talk-{n}", user_id=f"lea-{n % 4}", message_content=f"Lea here, about the {canary} parcel and its {canary}"
        )
        for n in range(20)
    ]
    await store(workspace, said)
    await keep_up(services)
    found = json.dumps(await topics(workspace))
    assert canary not in found.replace(f"the {canary} parcel and its {canary}", "")
    stored = postgresql.execute("SELECT model, topics FROM topic_models").fetchone() or ()
    assert len(stored) == 2
    assert not any(word.encode() in blob for blob in stored for word in (canary, "parcel", "printer"))


async def test_a_text_that_does_not_open_keeps_no_other_from_its_topic(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    postgresql.execute("UPDATE messages SET content = content || 'x' WHERE conversation_id = 'parcel-3'")
    postgresql.commit()
    await keep_up(services)
    found = await topics(workspace)
    assert (found["status"], found["conversations"], found["assigned"]) == ("ready", 80, 79)


def waits_over(postgresql: psycopg.Connection) -> None:
    """Makes it be later than workspaces are left alone for whose topics could not be found."""
    postgresql.execute("UPDATE topic_models SET leased_until = now() - interval '1 second'")
    postgresql.commit()


async def test_one_workspace_holds_up_no_other_and_not_its_own_sweep(
    workspace: Workspace,
    other_workspace: Workspace,
    services: Services,
    known: dict[str, Any],
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "TURNS", 3)
    monkeypatch.setattr(topic_rounds, "BATCHES", 4)
    monkeypatch.setattr(topic_rounds, "STRAYS", 2.0)
    real = processes.TopicReader.assign
    came = 0

    async def writing(reader: processes.TopicReader) -> Any:
        nonlocal came
        came += 1
        await store(workspace, chats("parcel", 1, prefix=f"{came}/"))  # another one before the first is assigned
        if came == 1:
            for matter in MATTERS:
                await store(other_workspace, chats(matter, 20))
        return await real(reader)

    await store(workspace, chats("parcel", 1, prefix="0/"))
    postgresql.execute("UPDATE topic_models SET swept_through = ''")
    postgresql.commit()
    monkeypatch.setattr(processes.TopicReader, "assign", writing)
    await keep_up(services)
    assert came
    assert postgresql.execute("SELECT swept_through FROM topic_models").fetchall() == [(None,)]
    await keep_up(services)
    assert (await topics(other_workspace))["assigned"] == 80


async def test_a_workspace_that_fails_holds_up_no_other_and_is_left_alone_for_a_while(
    workspace: Workspace,
    other_workspace: Workspace,
    services: Services,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: list[int] = []
    real = TopicRepository.sample

    async def sample(repository: TopicRepository, workspace_id: int, half: int) -> list[str]:
        if not failed or workspace_id in failed:
            failed.append(workspace_id)
            raise Unavailable("The database takes too long.")
        return await real(repository, workspace_id, half)

    monkeypatch.setattr(TopicRepository, "sample", sample)
    for each in (workspace, other_workspace):
        for matter in MATTERS:
            await store(each, chats(matter, 20))
    await keep_up(services)
    await keep_up(services)
    assert len(failed) == 1
    assert sorted([(await topics(each))["status"] for each in (workspace, other_workspace)]) == ["pending", "ready"]
    waits_over(postgresql)
    await keep_up(services)
    assert len(failed) == 2


async def test_topics_are_written_behind_their_conversations_locks_as_deletion_does(
    workspace: Workspace,
    services: Services,
    known: dict[str, Any],
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free: list[int] = []

    def look() -> None:
        # The other order would be a deadlock: each waits for what the other has.
        found = postgresql.execute(
            "SELECT 1 FROM conversation_topics AS t JOIN conversations AS c USING (workspace_id, conversation_id)"
            " WHERE t.sampled FOR UPDATE OF c SKIP LOCKED"
        ).fetchall()
        free.append(len(found))
        postgresql.rollback()

    for name in ("forget_sample", "forget"):
        real = getattr(TopicRepository, name)

        async def watched(repository: TopicRepository, *arguments: Any, real: Any = real) -> None:
            with monkeypatch.context() as at_first:
                at_first.setattr(topic_rows, "_FORGET", topic_rows._FORGET[:1])
                await real(repository, *arguments)
                await asyncio.to_thread(look)
            await real(repository, *arguments)

        monkeypatch.setattr(TopicRepository, name, watched)
    for matter in MATTERS:
        await store(workspace, chats(matter, 20, prefix="more/"))
    await keep_up(services)
    for number in range(20):
        for matter in MATTERS:
            for prefix in ("", "more/") if number < 19 else ("",):
                gone = await workspace.admin.delete(f"/chats/{prefix.replace('/', '%2F')}{matter}-{number}")
                assert gone.status_code == 200
    await keep_up(services)
    assert free == [0, 0]


async def test_conversations_deleted_before_they_were_read_do_not_hide_what_comes(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 28))
    with monkeypatch.context() as small:
        small.setattr(topic_rounds, "SAMPLE_HALF", 10)
        small.setattr(topic_rounds, "BATCHES", 1)
        small.setattr(service, "TURNS", 1)
        await keep_up(services)
    new = "SELECT new_total FROM topic_models"
    unread = postgresql.execute(
        "SELECT conversation_id FROM conversations EXCEPT SELECT conversation_id FROM conversation_topics"
    ).fetchall()
    assert postgresql.execute(new).fetchall() == [(-len(unread),)]
    postgresql.commit()
    for (conversation_id,) in unread[:50]:
        assert (await workspace.admin.delete(f"/chats/{conversation_id}")).status_code == 200
    await keep_up(services)
    assert postgresql.execute(new).fetchall() == [(0,)]


@pytest.mark.usefixtures("anew")
async def test_two_workers_do_not_do_it_twice(
    workspace: Workspace, settings: Settings, services: Services, postgresql: psycopg.Connection
) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 28))
    assert settings.database_url
    async with build(settings, settings.database_url.get_secret_value()) as others:
        await asyncio.gather(keep_up(services), keep_up(others))
        await keep_up(others)
    assert matters(await topics(workspace)) == dict.fromkeys(MATTERS, 28)
    [(made, ids_left)] = postgresql.execute(
        "SELECT new_total, (SELECT count(*) FROM conversation_topics) FROM topic_models"
    ).fetchall()
    assert (made, ids_left) == (0, 112)


async def test_who_was_replaced_writes_nothing_and_another_goes_on(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    real = processes.TopicReader.fit

    async def slow(reader: processes.TopicReader) -> Any:
        found = await real(reader)
        monkeypatch.setattr(processes.TopicReader, "fit", real)
        await asyncio.to_thread(expire)
        await keep_up(services)  # as another worker, once the first one is not heard of
        return found

    def expire() -> None:
        postgresql.execute("UPDATE topic_models SET leased_until = now() - interval '1 second'")
        postgresql.commit()

    monkeypatch.setattr(processes.TopicReader, "fit", slow)
    await keep_up(services)
    found = await topics(workspace)
    assert matters(found) == dict.fromkeys(MATTERS, 20)
    assert sorted(each["topic_id"] for each in found["data"]) == ["1", "2", "3", "4"]


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("at", ["read", "fit", "assign"])
async def test_a_process_that_dies_leaves_its_work_to_the_next(
    workspace: Workspace,
    services: Services,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    if at == "assign":
        await keep_up(services)
        await store(workspace, chats("parcel", 5, prefix="new/"))
    real = getattr(processes.TopicReader, at)

    async def killed(reader: processes.TopicReader, *arguments: Any) -> Any:
        monkeypatch.setattr(processes.TopicReader, at, real)
        reader._process.kill()
        return await real(reader, *arguments)

    monkeypatch.setattr(processes.TopicReader, at, killed)
    await keep_up(services)
    waits_over(postgresql)
    await keep_up(services)
    found = await topics(workspace)
    assert found["assigned"] == found["conversations"] == (85 if at == "assign" else 80)


async def test_a_worker_that_is_to_stop_begins_nothing(workspace: Workspace, services: Services) -> None:
    for matter in MATTERS:
        await store(workspace, chats(matter, 20))
    stopping = asyncio.Event()
    stopping.set()
    await KEEP_UP(services, stopping)
    assert (await topics(workspace))["status"] == "pending"


class Namer:
    """What a model says to topics: a name for each, made of their first keyword."""

    def __init__(self, **said: str) -> None:
        self._said = said

    def __call__(self, request: Request) -> Reply:
        shown = json.loads(request.body["messages"][1]["content"])
        labels = [{"topic": each["topic"], "label": self._label(each["keywords"])} for each in shown]
        return grok_reply({"labels": [*labels, {"topic": 999, "label": "Nobody asked"}]})

    def _label(self, keywords: list[str]) -> str:
        first = " ".join(keywords)
        return next((label for word, label in self._said.items() if word in first), f"All about {keywords[0]}")


class TestLabels:
    """Labels by a model."""

    @pytest.fixture
    async def providers(self) -> AsyncIterator[Providers]:
        async with open_providers() as opened:
            yield opened

    @pytest.fixture
    def settings(self, settings: Settings, providers: Providers) -> Settings:
        return settings.model_copy(update=providers.settings)

    async def test_a_model_names_them_once_from_keywords_alone(
        self,
        workspace: Workspace,
        services: Services,
        providers: Providers,
        postgresql: psycopg.Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        said = Namer(parcel="Lost parcels & couriers", printer="<b>Printers</b>", invoice="x" * 61)
        monkeypatch.setattr(providers.grok, "respond", said)
        for matter in MATTERS:
            await store(workspace, chats(matter, 20))
        await keep_up(services)
        found = await topics(workspace)
        labels = {name: each["label"] for each in found["data"] for name in matters({"data": [each]})}
        assert labels["parcel"] == "Lost parcels & couriers"
        assert labels["flight"].startswith("All about ")
        first = {name: each["keywords"][:3] for each in found["data"] for name in matters({"data": [each]})}
        assert labels["printer"] == ", ".join(first["printer"])
        assert labels["invoice"] == ", ".join(first["invoice"])
        [request] = providers.requests
        sent = json.dumps(request.body)
        assert "customer-" not in sent
        assert not any(text in sent for text in MATTERS.values())
        [usage] = (await workspace.viewer.get("/analytics/usage")).json()["data"]
        assert (usage["calls"], usage["answered"]) == (1, 1)
        # What cannot be shown is not asked for again.
        assert postgresql.execute("SELECT label_at FROM topic_models").fetchall() == [(None,)]
        await keep_up(services)
        assert len(providers.requests) == 1

    async def test_two_topics_have_no_label_in_common_and_are_not_asked_for_again(
        self, workspace: Workspace, services: Services, providers: Providers, postgresql: psycopg.Connection
    ) -> None:
        providers.grok.respond = Namer(**dict.fromkeys(MATTERS, "Support"))  # type: ignore[method-assign]
        for matter in MATTERS:
            await store(workspace, chats(matter, 20))
        await keep_up(services)
        labels = [each["label"] for each in (await topics(workspace))["data"]]
        assert labels.count("Support") == 1
        assert postgresql.execute("SELECT label_at FROM topic_models").fetchall() == [(None,)]

    async def test_of_few_customers_nothing_is_sent(
        self, workspace: Workspace, services: Services, providers: Providers
    ) -> None:
        for matter in MATTERS:
            await store(workspace, [{**each, "user_id": "lea"} for each in chats(matter, 20)])
        await keep_up(services)
        found = await topics(workspace)
        assert found["status"] == "ready"
        assert all(each["label"] == ", ".join(each["keywords"][:3]) for each in found["data"])
        assert providers.requests == []

    async def test_a_label_goes_with_the_words_of_what_was_deleted(
        self, workspace: Workspace, services: Services, providers: Providers, postgresql: psycopg.Connection
    ) -> None:
        providers.grok.respond = Namer(xylograph="Xylographs")  # type: ignore[method-assign]
        for matter in MATTERS:
            await store(workspace, chats(matter, 20))
        parcels = [
            {**each, "message_content": "The xylograph in the parcel, my xylograph parcel."}
            for each in chats("parcel", 8, prefix="xylo-")
        ]
        await store(workspace, parcels)
        await keep_up(services)
        assert "Xylographs" in [each["label"] for each in (await topics(workspace))["data"]]
        for number in range(8):
            assert (await workspace.admin.delete(f"/chats/xylo-parcel-{number}")).status_code == 200
        postgresql.execute("UPDATE topic_models SET fitted_at = fitted_at - interval '1 day'")
        postgresql.commit()
        await keep_up(services)
        left = (await topics(workspace))["data"]
        assert left
        assert not any("xylograph" in json.dumps(each).lower() for each in left)

    async def test_without_an_answer_keywords_stand_in_until_there_is_one(
        self, workspace: Workspace, services: Services, providers: Providers, postgresql: psycopg.Connection
    ) -> None:
        providers.grok.reply = providers.gemini.reply = failure(500)
        for matter in MATTERS:
            await store(workspace, chats(matter, 20))
        await keep_up(services)
        asked = len(providers.requests)
        assert asked
        found = await topics(workspace)
        assert all(each["label"] == ", ".join(each["keywords"][:3]) for each in found["data"])
        await keep_up(services)
        assert len(providers.requests) == asked
        postgresql.execute("UPDATE topic_models SET label_at = label_at - interval '1 hour'")
        postgresql.commit()
        providers.grok.respond = Namer()  # type: ignore[method-assign]
        services.topics._labels._hops._hops[0].breaker.answered()
        await keep_up(services)
        assert all(each["label"].startswith("All about ") for each in (await topics(workspace))["data"])

    async def test_a_budget_is_kept(self, workspace: Workspace, services: Services, providers: Providers) -> None:
        assert (await workspace.admin.put("/analytics/budgets/workspace", json={"day_usd": 0})).status_code == 204
        for matter in MATTERS:
            await store(workspace, chats(matter, 20))
        await keep_up(services)
        assert (await topics(workspace))["status"] == "ready"
        assert providers.requests == []
