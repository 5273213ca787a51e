"""What a Markdown page tells its reader to run, and what it says comes of it."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``shown`` is the output that directly follows it, if any does."""

    page: str
    line: int
    language: str
    text: str
    shown: str | None = None

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> list[Block]:
    """Returns the fenced blocks of a page in order; output that follows a command is part of it."""
    found: list[Block] = []
    end = -1
    for match in _FENCE.finditer(text):
        language, inner = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        before = found[-1] if found and not text[end : match.start()].strip() else None
        if language in ("", "json") and before and before.language in ("sh", "python") and before.shown is None:
            found[-1] = Block(page, before.line, before.language, before.text, inner)
        else:
            found.append(Block(page, line, language, inner))
        end = match.end()
    return found


def spans(text: str) -> list[str]:
    """Returns the pieces of code that stand in sentences."""
    return [re.sub(r"\s+", " ", match) for match in _INLINE.findall(_FENCE.sub("", text))]


def commands(script: str) -> Iterator[str]:
    """Yields the commands of a script, each with its continuation lines, comments left out."""
    pending = ""
    for line in script.splitlines():
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending += f"{line}\n"
        if not line.endswith("\\") and not _incomplete(pending):
            yield pending.strip()
            pending = ""
    if pending:
        yield pending.strip()


def _incomplete(text: str) -> bool:
    read = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    return bool(read.returncode or read.stderr)


def documents(text: str) -> list[Any] | None:
    """Returns the JSON documents that a text consists of, or None; long lines may be broken within a string."""
    text = text.replace("\n", " ").strip()
    found, decoder = [], json.JSONDecoder()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            return None
        found.append(value)
        text = text[end:].strip()
    return found


_VOLATILE_TEXT = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b"), "HASH"),
    (re.compile(r"\bc[a-z]_[a-z0-9]{20,}"), "SECRET"),
    (re.compile(r"\b\d{16,20}\b"), "ID"),
]


def _masked(text: str) -> list[str]:
    for pattern, name in _VOLATILE_TEXT:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def differences(shown: str, printed: str, volatile: frozenset[str]) -> list[str]:
    """Returns how what was printed differs from what a page shows.

    JSON has the same keys and values; of the ``volatile`` keys' values only the kind is compared. Other text has the
    same lines, but for times, ids, hashes and secrets.
    """
    expected, found = documents(shown), documents(printed)
    if expected is not None and found is not None:
        return list(_unlike(expected, found, "", volatile))
    wanted, lines = _masked(shown), _masked(printed)
    return [] if wanted == lines else [f"shown:\n{shown}\nprinted:\n{printed}"]


def _unlike(expected: Any, found: Any, path: str, volatile: frozenset[str]) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        if expected.keys() != found.keys():
            yield f"{path}: keys {sorted(expected)} shown, {sorted(found)} printed"
        for key in expected.keys() & found.keys():
            yield from _unlike(expected[key], found[key], f"{path}.{key}", volatile)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path}: {len(expected)} shown, {len(found)} printed"
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from _unlike(one, other, f"{path}[{number}]", volatile)
    elif path.rpartition(".")[2].partition("[")[0] in volatile:
        if type(expected) is not type(found) or _masked(str(expected))[:1] == ["TIME"] != _masked(str(found))[:1]:
            yield f"{path}: {expected!r} shown, {found!r} printed"
    elif expected != found:
        yield f"{path}: {expected!r} shown, {found!r} printed"
