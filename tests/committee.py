"""Four nodes of the toy family in one process: what scenario and crash tests drive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from messages.documents import Parameters
from relayer.clock import Clock, VirtualClock
from relayer.gossip import Faults, MemoryBus
from relayer.keys import Journal, Secret
from relayer.log import make_logger
from relayer.service import Service
from tests.builders import OPERATOR_KEYS, START, make_parameters, make_vault
from tests.fakes import ToyChain, ToyPlanner, make_toy_chain


def open_toy_service(
    folder: Path, i: int, parameters: Parameters, chains: Sequence[ToyChain], clock: Clock, gossip, **options
) -> Service:
    """Open node ``i`` from its files, which are made if they are not there; nothing runs."""
    journal = folder / f"journal{i}.db"
    if not journal.exists() and not (folder / f"node{i}.db").exists():
        Journal.create_first(journal, clock.now())
    return Service.open(
        name=f"node{i}",
        store_path=folder / f"node{i}.db",
        journal_path=journal,
        operator_key=Secret(OPERATOR_KEYS[i]),
        parameters=parameters,
        chains=[make_toy_chain(c, f"account{i}", clock) for c in chains],
        clock=clock,
        gossip=gossip,
        log=make_logger(level="error"),
        **options,
    )


class Committee:
    """``count`` vaults, four operators, one virtual clock, one bus. Use as ``async with``."""

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 2,
        faults: Faults | None = None,
        seed: int = 1,
        start: int = START + 60,
        files: bool = False,
        planner=None,
        feeds=(),
        families: tuple[str, ...] = (),
        **parameters,
    ) -> None:
        self.folder = folder
        self.clock = VirtualClock(start)
        self.bus = MemoryBus(faults, seed)
        self.clock.sources.append(self.bus.flush)
        families = families or ("evm",) * count
        vaults = sorted((make_vault(i, family=f) for i, f in enumerate(families)), key=lambda v: v.chain)
        self.parameters = make_parameters(vaults, patience_s=30, **parameters)
        self.chains = [ToyChain(v, folder / f"{v.chain.replace(':', '_')}.log" if files else None) for v in vaults]
        for chain in self.chains:
            chain.sync()
        self.planner = planner or ToyPlanner()
        self.feeds = feeds
        self.services: dict[int, Service] = {}
        self.tasks: dict[int, asyncio.Task] = {}

    def open(self, i: int) -> Service:
        """Open node ``i`` from its files; nothing runs."""
        gossip = self.bus.connect(f"node{i}")
        self.services[i] = open_toy_service(
            self.folder, i, self.parameters, self.chains, self.clock, gossip, planner=self.planner, feeds=self.feeds
        )
        return self.services[i]

    def start(self, i: int) -> None:
        """Open and run node ``i``."""
        service = self.open(i)
        self.tasks[i] = asyncio.create_task(service.run())

    async def stop(self, i: int) -> None:
        """Clean stop."""
        self.services[i].stop()
        await self.tasks.pop(i)
        self.services.pop(i).close()

    async def kill(self, i: int) -> None:
        """Take node ``i`` away between two instructions, as far as one process allows."""
        task = self.tasks.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.services.pop(i).close()

    async def __aenter__(self) -> Self:
        for i in range(4):
            self.start(i)
        return self

    async def __aexit__(self, *_) -> None:
        for i in list(self.tasks):
            await self.kill(i)

    async def run_for(self, seconds: int, *, step: int = 5) -> None:
        """Move time, blocks on every chain as it goes."""
        for _ in range(seconds // step):
            for chain in self.chains:
                chain.mine(self.clock.now())
            await self.clock.advance(step)
            for task in self.tasks.values():
                if task.done():
                    task.result()
