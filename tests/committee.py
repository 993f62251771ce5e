"""Four nodes of the toy family in one process: what scenario and crash tests drive."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from relayer.clock import VirtualClock
from relayer.gossip import Faults, MemoryBus
from relayer.keys import Journal, Secret
from relayer.log import make_logger
from relayer.node import Timing
from relayer.service import Service
from tests.builders import OPERATOR_KEYS, START, make_parameters, make_vault
from tests.fakes import ToyChain, ToyPlanner, make_toy_chain


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
        self.services: dict[int, Service] = {}
        self.tasks: dict[int, asyncio.Task] = {}

    def open(self, i: int) -> Service:
        """Open node ``i`` from its files; nothing runs."""
        journal = self.folder / f"journal{i}.db"
        if not journal.exists() and not (self.folder / f"node{i}.db").exists():
            Journal.create_first(journal, self.clock.now())
        service = Service.open(
            name=f"node{i}",
            store_path=self.folder / f"node{i}.db",
            journal_path=journal,
            operator_key=Secret(OPERATOR_KEYS[i]),
            parameters=self.parameters,
            chains=[make_toy_chain(c, f"account{i}", self.clock) for c in self.chains],
            clock=self.clock,
            gossip=self.bus.connect(f"node{i}"),
            planner=self.planner,
            timing=Timing(),
            log=make_logger(level="error"),
        )
        self.services[i] = service
        return service

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
