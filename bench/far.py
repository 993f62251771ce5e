"""A node that joins a vault with 100,000 packets under one proven head: time, memory, and the longest time that nobody else got a turn.

The way is five times longer than one collect (`chains.base.MAX_PACKETS_PER_COLLECT`), so it is gone twice and recorded in parts. Chain and
source as in `bench.fold`: packets are made when they are asked for, and that time counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bench import fold
from bench.figures import Figure, get_peak_memory_mb
from bench.run import print_figures
from relayer.clock import VirtualClock
from relayer.keys import Journal
from relayer.service import Service
from tests.builders import START, make_parameters, make_vault
from tests.fakes import ToyChain, ToyHeader

PACKETS = 100_000


class Source(fold.Source):
    """One step from the checkpoint to the newest header, with everything behind it."""

    async def update(self, source: str, trusted: ToyHeader) -> ToyHeader | None:
        return None if trusted.height >= self.finalized else self.get_header(self.finalized)


async def join(service: Service, source: fold.Source) -> tuple[float, float]:
    """(seconds until everything is on record, longest time between two turns of another task in seconds)."""
    longest, last = 0.0, time.perf_counter()

    async def take_turns() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    other = asyncio.create_task(take_turns())
    begin = time.perf_counter()
    await service._get_watch(source.chain.vault_id)()  # noqa: SLF001  the step the service itself runs
    spent = time.perf_counter() - begin
    other.cancel()
    return spent, longest


def run(_seconds: float) -> list[Figure]:
    """Figures of a node that joins late."""
    vault = make_vault(0)
    clock = VirtualClock(START + 20_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Journal.create_first(folder / "journal.db", clock.now())
        source = Source(ToyChain(vault), vault.caps[0].asset)
        for _ in range(PACKETS // fold.PER_HEADER):
            source.finalize()
        service = fold.open_service(folder, source, make_parameters([vault]), clock)
        before = get_peak_memory_mb()
        spent, longest = asyncio.run(join(service, source))
        after = get_peak_memory_mb()
        counts = service.node.store.verify_all()
        sequence = service.node.states.get_newest(source.chain.vault_id).outbox_sequence
        service.close()
        if (sequence, counts["facts"], counts["heads"]) != (PACKETS, PACKETS, 1):
            raise RuntimeError(f"the node knows {counts}")
    return [
        Figure("far: 100,000 packets under one head read and recorded", spent, "s", "< 120", is_met=spent < 120),
        Figure("far: packets per second", PACKETS / spent, "packets/s"),
        Figure("far: peak memory before", before, "MB"),
        Figure("far: peak memory after", after, "MB", "< 300", is_met=after < 300),
        Figure("far: longest time without a turn for others", longest, "s", "< 2", is_met=longest < 2),
    ]


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
