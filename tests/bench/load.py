"""Load from outside: wrk for requests, curl for streams. Compiled, so that the client costs little."""

import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

SCRIPT = Path(__file__).with_name("load.lua")
NEEDED = {"wrk": "the package wrk of Debian, Ubuntu or Homebrew", "curl": "the package curl"}
LONGEST_S = 120
"""How long a measurement may take."""


class Failed(Exception):
    """Something that makes figures worthless; the text says what."""


@dataclass(frozen=True)
class Result:
    """What the client saw; ``client_us`` is its own CPU time."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_us: float


def check_tools() -> None:
    """Raises ``Failed`` if a program is missing."""
    for name, source in NEEDED.items():
        if shutil.which(name) is None:
            raise Failed(f"{name} is missing, which makes the load: install {source}.")


def wrk(url: str, key: str, method: str, lines: Sequence[str], folder: Path, connections: int, count: int) -> Result:
    """Sends the lines in turn, ``count`` requests altogether; every answer must be a 2xx."""
    file = folder / "requests"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{LONGEST_S}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), "-H", f"Authorization: Bearer {key}", url]
    command += ["--", str(file), method, str(count)]
    before = _children_us()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line == "finished\n":
                process.send_signal(signal.SIGINT)
    client_us = _children_us() - before
    text = "".join(said)
    _, _, failure = text.partition("\nfailure ")
    result = next((orjson.loads(line[7:]) for line in said if line.startswith("result ")), None)
    if failure or result is None or result.pop("failed") or result["requests"] != count:
        raise Failed(f"{method} {lines[0][:200]}: {failure or text}")
    return Result(**result, client_us=client_us)


def curl(url: str, key: str, media: str, file: Path, watch: Callable[[], None]) -> tuple[float, dict[str, object]]:
    """Streams a file to ``POST /chats``; returns the seconds and the answer. ``watch`` is called now and then."""
    command = ["curl", "-sS", "-X", "POST", "-T", str(file), "-H", f"Content-Type: {media}", "-H", "Expect:"]
    command += ["-H", f"Authorization: Bearer {key}", f"{url}/chats"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while True:
            try:
                out, err = process.communicate(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                watch()
    seconds = time.perf_counter() - began
    try:
        answer: dict[str, object] = orjson.loads(out)
    except ValueError:
        raise Failed(f"curl {file.name}: {err.decode()}{out.decode()}") from None
    if answer.get("errors") != [] or answer.get("duplicates"):
        raise Failed(f"curl {file.name}: {out[:2_000].decode()}")
    return seconds, answer


def _children_us() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6
