"""Official update rankings: a folder of updates_<n>, best first. One case an update: better than every later one, never the reverse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from chains.evm.forks import FAR_FUTURE_EPOCH, Fork, ForkSchedule
from chains.evm.light_client import is_better_update
from chains.evm.ssz import decode_light_client
from chains.evm.types import Update
from tests.conformance.case import Case
from tests.conformance.evm_vectors import PRESETS, read_snappy


def discover(root: Path) -> Iterator[Case]:
    for first in sorted(root.rglob("updates_0.ssz_snappy")):
        folder = first.parent
        for number in range(len(list(folder.glob("updates_*.ssz_snappy")))):
            name = f"{folder.relative_to(root)}/updates_{number}"
            yield Case("eth_update_ranking", name, lambda folder=folder, number=number: run(folder, number))


@lru_cache(maxsize=4)
def read_updates(folder: Path) -> tuple[tuple[Update, ...], ForkSchedule]:
    parts = [part for part in reversed(folder.parts) if part in PRESETS or part.upper() in Fork.__members__]
    preset = next(PRESETS[part] for part in reversed(parts) if part in PRESETS)
    fork = next(Fork[part.upper()] for part in reversed(parts) if part.upper() in Fork.__members__)
    schedule = ForkSchedule(
        "ranking", 0, bytes(32), 12, preset, ((fork, 0, bytes(4)),), unknown_from_epoch=FAR_FUTURE_EPOCH
    )
    count = len(list(folder.glob("updates_*.ssz_snappy")))
    files = [folder / f"updates_{i}.ssz_snappy" for i in range(count)]
    return tuple(decode_light_client("update", read_snappy(file), fork, preset) for file in files), schedule


def run(folder: Path, number: int) -> None:
    updates, schedule = read_updates(folder)
    for other in range(number + 1, len(updates)):
        assert is_better_update(updates[number], updates[other], schedule), f"{number} is better than {other}"
        assert not is_better_update(updates[other], updates[number], schedule), f"{other} is not better than {number}"
