"""Topics found in a process of their own, and named by a model."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from app.errors import Problem
from app.llm.hops import Hop, Hops, Ledger, NoAnswer, Run
from app.llm.tasks import PROMPTS, Task
from app.schemas.topics import Assigned, Topic, TopicLabelsDraft, TopicModel

ROOT = Path(__file__).parent.parent.parent
ANSWER_BYTES = 2**26
ANSWER_S = 120.0
"""How long one answer of the process may take."""
LABEL_CHARACTERS = 60

LABELS = Task("topics", (PROMPTS / "topics.md").read_text(encoding="utf-8"), TopicLabelsDraft)

# Words, and what stands between them in a name: nothing that is markup anywhere, nor an address.
_LABEL = re.compile(r"[^\W_][\w ,&'\u2019()/+-]*")


Said = tuple[str, str, str]
"""Who says something, as whom (customer or agent), and what."""


class ReaderLost(Exception):
    """The process that reads conversations has ended, does not answer, or failed; its text is an exception's name."""


class TopicReader:
    """The process: it is told of conversations, and then what to do with them."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def use(self, model: TopicModel | None, topics: Sequence[Topic] = ()) -> None:
        """Says which model conversations are assigned by, and which one is made anew; what it was told is forgotten."""
        used = model and {"model": model.model_dump(), "topics": [topic.model_dump() for topic in topics]}
        await self._ask({"use": used})

    async def read(self, conversations: Sequence[Sequence[Said]]) -> None:
        """Tells of conversations."""
        await self._ask({"read": conversations})

    async def fit(self) -> tuple[TopicModel, list[Topic], list[Assigned]]:
        """Returns a model of the conversations that were told of, and the topic of each."""
        answer = await self._ask({"fit": True})
        topics = [Topic.model_validate(topic) for topic in answer["topics"]]
        return TopicModel.model_validate(answer["model"]), topics, [Assigned(*each) for each in answer["assigned"]]

    async def assign(self) -> list[Assigned]:
        """Returns the topic of each conversation that was told of."""
        return [Assigned(*each) for each in (await self._ask({"assign": True}))["assigned"]]

    async def _ask(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        try:
            async with asyncio.timeout(ANSWER_S):
                self._process.stdin.write(orjson.dumps(command, option=orjson.OPT_NON_STR_KEYS) + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
            answer = orjson.loads(line)
        except (OSError, ValueError) as error:  # it is gone, is late, or said half of it
            raise ReaderLost from error
        if "error" in answer:
            raise ReaderLost(answer["error"])
        return answer


@asynccontextmanager
async def topic_reader() -> AsyncIterator[TopicReader]:
    """Yields a new process, which ends with the block, or when this one does."""
    # What it needs of the environment: no keys, and one processor.
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.llm.local.topics"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # an exception's text may hold anything
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        limit=ANSWER_BYTES,
        start_new_session=True,  # Ctrl-C is the worker's to answer
    )
    try:
        yield TopicReader(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class TopicLabels:
    """Names for topics from the providers, who are shown keywords and nothing else."""

    def __init__(self, hops: Sequence[Hop], deadline_s: float) -> None:
        self._hops = Hops(hops)
        self._deadline_s = deadline_s

    def __bool__(self) -> bool:
        return bool(self._hops)

    async def of(self, topics: Sequence[Topic], ledger: Ledger) -> dict[int, str] | None:
        """Returns names of those topics that a model has one for that can be shown; None if no model answers."""
        shown = json.dumps(
            [{"topic": topic.topic_id, "keywords": topic.keywords} for topic in topics], ensure_ascii=False
        )
        run = Run(asyncio.get_running_loop().time() + self._deadline_s, ledger)
        try:
            said = (await self._hops.ask(LABELS, LABELS.prompt, shown, run)).labels
        except (NoAnswer, Problem):
            return None
        wanted = {topic.topic_id for topic in topics}
        found = {each.topic: " ".join(each.label.split()) for each in said if each.topic in wanted}
        return {
            number: label
            for number, label in found.items()
            if len(label) <= LABEL_CHARACTERS and _LABEL.fullmatch(label) and not label.isdigit()
        }
