"""What a bench gives: named figures with a target, and the machine they were taken on."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number. ``target``: the bound in words and its number; ``is_met`` None where there is none."""

    name: str
    value: float
    unit: str
    target: str = ""
    is_met: bool | None = None


def measure_median(run: Callable[[], object], seconds: float, least: int = 5) -> float:
    """Median seconds of one call, over as many calls as fit into ``seconds`` (at least ``least``), after one warm-up."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    times.sort()
    return times[len(times) // 2]


def measure_pair(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """(median of one, median of the other, median of one/other pair by pair): the two take turns, so drift cancels."""
    one(), other()  # type: ignore[unused-ignore]
    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        a = time.perf_counter()
        one()
        b = time.perf_counter()
        other()
        pairs.append((b - a, time.perf_counter() - b))
    middle = len(pairs) // 2
    return (
        sorted(p[0] for p in pairs)[middle],
        sorted(p[1] for p in pairs)[middle],
        sorted(p[0] / p[1] for p in pairs)[middle],
    )


def describe_machine() -> str:
    """Processor, cores, memory, Python and date in one line."""
    cpu = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    memory = Path("/proc/meminfo")
    size = f", {int(memory.read_text().split()[1]) // 2**20} GiB" if memory.exists() else ""
    return f"{cpu}{size}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


def get_peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    # ru_maxrss of a child begins at its parent's size; the kernel's high-water mark of the address space does not.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
