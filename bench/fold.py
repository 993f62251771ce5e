"""100,000 packets verified and stored by the node's own watch step, memory, and the restart with them.

The chain is the toy family of the tests (one signature per header), so that the figure is the node's and not a simulator's; packets are
made when they are asked for, so that the bench itself holds none of them.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.figures import Figure, get_peak_memory_mb
from bench.run import print_figures
from chains.base import Claim, Head, Span
from messages.bodies import Deposited, make_outbox_packet
from messages.hashing import keccak256
from messages.outbox import compute_next_head
from messages.packet import Packet, compute_commitment
from relayer.clock import VirtualClock
from relayer.gossip import MemoryBus
from relayer.keys import Journal, Secret
from relayer.log import make_logger
from relayer.service import Service
from tests.builders import OPERATOR_KEYS, START, make_parameters, make_vault
from tests.fakes import ToyChain, ToyHeader, ToyPlanner, ToyReader, make_toy_chain, sign_header

PACKETS = 100_000
PER_HEADER = 2_000
ACCOUNTS = 5_000


class Source(ToyReader):
    """Deposits of many accounts, packet by packet a function of its number."""

    def __init__(self, chain: ToyChain, asset: bytes) -> None:
        super().__init__(chain, ("bench",))
        self.asset = asset
        self.finalized = 0
        self.heads = {0: (0, chain.vault_id)}

    def make(self, sequence: int) -> Packet:
        account = bytes(12) + keccak256((sequence % ACCOUNTS).to_bytes(8, "big"))[:20]
        return make_outbox_packet(
            self.chain.vault_id, sequence, START + sequence // 100, Deposited(account, self.asset, 10**6)
        )

    def finalize(self) -> None:
        """One more header, with PER_HEADER packets behind it."""
        at, head = self.heads[self.finalized]
        for sequence in range(at + 1, at + PER_HEADER + 1):
            head = compute_next_head(head, sequence, compute_commitment(self.make(sequence)))
        self.finalized += 1
        self.heads[self.finalized] = (at + PER_HEADER, head)

    def get_header(self, height: int) -> ToyHeader:
        return sign_header(height, START + 60 * height + 10**4, keccak256(self.chain.vault_id + self.heads[height][1]))

    async def bootstrap(self, source: str) -> ToyHeader:
        return self.get_header(0)

    async def update(self, source: str, trusted: ToyHeader) -> ToyHeader | None:
        return None if trusted.height >= self.finalized else self.get_header(trusted.height + 1)

    async def head(self, source: str, trusted: ToyHeader) -> tuple[Head, bytes]:
        sequence, head = self.heads[trusted.height]
        return Head(sequence, head), head

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        return [Claim(self.make(n)) for n in range(span.after_sequence + 1, span.upto_sequence + 1)]


def open_service(folder: Path, source: Source, parameters, clock: VirtualClock) -> Service:
    chain = replace(make_toy_chain(source.chain, "account", clock), reader=source)
    return Service.open(
        name="bench",
        store_path=folder / "store.db",
        journal_path=folder / "journal.db",
        operator_key=Secret(OPERATOR_KEYS[0]),
        parameters=parameters,
        chains=[chain],
        clock=clock,
        gossip=MemoryBus().connect("bench"),
        planner=ToyPlanner(),
        log=make_logger(level="error"),
    )


async def fold_all(service: Service, source: Source) -> tuple[float, float, float]:
    """(seconds of the node, memory after a tenth, memory at the end)."""
    vault_id = source.chain.vault_id
    watch = service._get_watch(vault_id)  # noqa: SLF001  the step the service itself runs
    await watch()
    spent, early = 0.0, 0.0
    for i in range(PACKETS // PER_HEADER):
        source.finalize()
        begin = time.perf_counter()
        await watch()
        spent += time.perf_counter() - begin
        if i == PACKETS // PER_HEADER // 10:
            early = get_peak_memory_mb()
    if service.node.store.get_cursor(vault_id).sequence != PACKETS:
        raise RuntimeError(f"not everything was recorded: {service.node.store.get_blames()}")
    return spent, early, get_peak_memory_mb()


def run(_seconds: float) -> list[Figure]:
    """Figures of fold, store and restart."""
    vault = make_vault(0)
    parameters = make_parameters([vault])
    asset = vault.caps[0].asset
    clock = VirtualClock(START + 20_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Journal.create_first(folder / "journal.db", clock.now())
        source = Source(ToyChain(vault), asset)
        service = open_service(folder, source, parameters, clock)
        spent, early, late = asyncio.run(fold_all(service, source))
        service.close()
        begin = time.perf_counter()
        service = open_service(folder, source, parameters, clock)
        asyncio.run(service.run_once())
        restart = time.perf_counter() - begin
        sequence = service.node.states.get_newest(source.chain.vault_id).outbox_sequence
        service.close()
        if sequence != PACKETS:
            raise RuntimeError("the restarted node knows less")
        size = (folder / "store.db").stat().st_size / 2**20
    return [
        Figure("fold: 100,000 packets verified and stored", spent, "s", "< 60", is_met=spent < 60),
        Figure("fold: packets per second", PACKETS / spent, "packets/s", "> 500", is_met=PACKETS / spent > 500),
        Figure("fold: peak memory after a tenth of them", early, "MB"),
        Figure("fold: peak memory after all of them", late, "MB", "< 300", is_met=late < 300),
        Figure("fold: store on disk", size, "MB"),
        Figure("restart: open files, load state, one working pass", restart, "s", "< 2", is_met=restart < 2),
    ]


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
