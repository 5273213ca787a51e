"""CPU time and memory of processes and all they started."""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import psutil


def _time_us(process: psutil.Process, *, reaped: bool) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        ended = times.children_user + times.children_system if reaped else 0.0
        return float(times.user + times.system + ended) * 1e6
    return 0.0


def tree(pid: int) -> list[psutil.Process]:
    """Returns a process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def tree_us(pid: int) -> float:
    """Returns the CPU time in microseconds, user and system, of a process, its children and those that ended."""
    first, *others = tree(pid)
    return _time_us(first, reaped=True) + sum(_time_us(each, reaped=False) for each in others)


class Memory(NamedTuple):
    """The largest process of a server, in bytes; ``pss`` shares out what several processes have in common."""

    rss: int
    pss: int | None


def largest(processes: Iterable[psutil.Process]) -> Memory:
    """Returns the memory of the largest of the processes."""

    def memory(process: psutil.Process) -> Memory:
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            return Memory(info.rss, getattr(info, "pss", None))
        return Memory(0, None)

    return max(map(memory, processes), key=lambda each: each.rss)


def rss(pid: int) -> int:
    """Returns the resident bytes of the largest process of a tree."""
    sizes = [0]
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return max(sizes)
