"""The four operators of the demo: a folder each with keys, configuration, store and journal; services on one bus and one clock."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, TextIO

from chains.registry import build_chain
from messages.documents import MarketSnapshot, OpenPackets, Parameters, compute_digest
from messages.errors import Rejected
from relayer.commands.proofs import prove_fact, replay_store, verify_file
from relayer.commands.view import Loaded, ReadOnlyStore, View, load
from relayer.config import Config, OperatorTable, SubmitKey, get_key_path, load_config, read_password
from relayer.demo.market import SimulatedFeed
from relayer.demo.site import Site
from relayer.demo.world import OPERATOR_COUNT, World
from relayer.gossip import MemoryBus
from relayer.keys import Journal, Secret, create_key_file, load_key_file
from relayer.log import make_logger
from relayer.planner import RulesPlanner
from relayer.rules.ledger import Ledger
from relayer.rules.plan import PlanNote, PlanResult
from relayer.rules.statements import SignedState
from relayer.service import Service
from relayer.toml_writer import encode_parameters, encode_toml

TIMING = {
    "poll_s": 120,
    "settle_s": 120,
    "look_again_s": 240,
    "submit_s": 120,
    "republish_s": 120,
    "takeover_s": 240,
    "bump_s": 480,
    "observe_s": 120,
    "observe_idle_s": 120,
}
"""A look every two minutes is enough where finality takes a quarter of an hour, and keeps hours of virtual time cheap."""
LOG_FILE = "node.log"
"""In an operator's folder: what its node would call a human for. With --verbose nodes talk on stderr instead."""
LIES = 3
"""How often a lie is said: the broker may lose one."""

PASSWORD = b"demo"
ASK_S = 45


class ListeningPlanner(RulesPlanner):
    """The real planner, with an ear: keeps every note that any plan of the run gave, the first of each kind and subject."""

    def __init__(self, notes: dict[tuple[str, bytes, bytes], PlanNote]) -> None:
        super().__init__()
        self._notes = notes

    def compute_plan(
        self, ledger: Ledger, market: MarketSnapshot, parameters: Parameters, k: int, open_packets: OpenPackets
    ) -> PlanResult:
        """As the real one."""
        result = super().compute_plan(ledger, market, parameters, k, open_packets)
        for note in result.notes:
            self._notes.setdefault((note.code, note.vault_id, note.subject), note)
        return result


class Operators:
    """Starts, kills and asks the services; everything they know comes back from their folders."""

    def __init__(self, world: World, bus: MemoryBus, folder: Path, *, verbose: bool) -> None:
        self.world = world
        self.bus = bus
        self.folder = folder
        self.is_verbose = verbose
        self.services: dict[int, Service] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._logs: dict[int, TextIO] = {}
        self.notes: dict[tuple[str, bytes, bytes], PlanNote] = {}

    async def start_all(self) -> None:
        """Write every operator's folder (configuration, throw-away keys, fresh journal) and start it from there."""
        parameters = encode_parameters(self.world.get_parameters())
        tables = {site.name: site.make_table() for site in self.world.sites.values()}
        for i in range(OPERATOR_COUNT):
            home = self.folder / f"op{i}"
            home.mkdir(parents=True)
            (home / "parameters.toml").write_text(parameters)
            (home / "relayer.toml").write_text(self._make_config(i, tables))
            self._write_key(home / "operator", self.world.operator_keys[i])
            for site in self.world.sites.values():
                self._write_key(home / f"gas-{site.name}", self.world.get_gas_key(site, i))
            Journal.create_first(home / "journal.db", self.world.clock.now())
            await self.start(i)

    def _make_config(self, i: int, tables: dict[str, dict[str, Any]]) -> str:
        chains = {
            site.chain: tables[site.name]
            | {"submit_key": f"file:gas-{site.name}.json", "submit_password": f"file:gas-{site.name}.password"}
            for site in self.world.sites.values()
        }
        return encode_toml(
            {
                "name": f"op{i}",
                "store": "store.db",
                "journal": "journal.db",
                "parameters": "parameters.toml",
                "genesis_parameters": "0x" + compute_digest(self.world.get_parameters()).hex(),
                "operator": {
                    "key": "file:operator.json",
                    "password": "file:operator.password",
                    "allow_throwaway_key": True,
                },
                "gossip": {"kind": "memory"},
                "timing": TIMING,
                "log": {"level": "info" if self.is_verbose else "error"},
                "chains": chains,
            },
            comment="One operator of the demo. The chains were simulated inside the demo and ended with it.",
        )

    def _write_key(self, path: Path, key: bytes) -> None:
        create_key_file(path.with_suffix(".json"), Secret(key), Secret(PASSWORD), is_throwaway=True)
        password = path.with_suffix(".password")
        password.touch(mode=0o600)
        password.write_bytes(PASSWORD)

    async def start(self, i: int) -> None:
        """Start an operator from its files."""
        config = load_config(self.folder / f"op{i}" / "relayer.toml")
        sims = {site.chain: site.network for site in self.world.sites.values()}
        chains = [
            build_chain(chain, _load_key(config, config.submit_keys[chain.chain_id]).reveal(), sims)
            for chain in config.chains
        ]
        if not self.is_verbose:
            self._logs[i] = (self.folder / f"op{i}" / LOG_FILE).open("a", buffering=1)
        service = Service.open(
            name=config.name,
            store_path=config.store_path,
            journal_path=config.journal_path,
            operator_key=_load_key(config, config.operator),
            parameters=config.parameters,
            chains=chains,
            clock=self.world.clock,
            gossip=self.bus.connect(config.name),
            feeds=[SimulatedFeed(self.world.reporters, self.world.clock.now())],
            planner=ListeningPlanner(self.notes),
            timing=config.timing,
            log=make_logger(level=config.log.level, stream=self._logs.get(i)),
        )
        self.services[i] = service
        self.tasks[i] = asyncio.create_task(service.run(), name=config.name)

    async def lie(self, i: int) -> list[str]:
        """Let an operator sign another state of each vault whose states nobody can prove than it signed before; names of the chains."""
        lied = []
        for site in self.world.sites.values():
            statement = site.forge_statement(self.world.operator_keys[i])
            if statement is None:
                continue
            for _ in range(LIES):
                await self.services[i].node.publish("observation", SignedState(site.vault_id, statement))
            lied.append(site.name)
        return lied

    async def kill(self, i: int) -> None:
        """End an operator between two instructions, without a word to anybody."""
        task = self.tasks.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.services.pop(i).close()
        self._close_log(i)

    async def stop_all(self) -> None:
        """Ask every service to stop, wait, close the files."""
        for service in self.services.values():
            service.stop()
        waiting = list(self.tasks.values())
        if waiting:
            _, pending = await asyncio.wait(waiting, timeout=ASK_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        for i, service in self.services.items():
            service.close()
            self._close_log(i)

    def _close_log(self, i: int) -> None:
        if (log := self._logs.pop(i, None)) is not None:
            log.close()

    def check(self) -> None:
        """Bring out the error of a service that ended by itself."""
        for task in self.tasks.values():
            if task.done():
                task.result()
                raise RuntimeError(f"{task.get_name()} ended by itself")

    # ------------------------------------------------------------------ what a stranger could do with the files

    def _load(self, i: int) -> Loaded:
        return load(self.folder / f"op{i}" / "relayer.toml")

    def _open_view(self, i: int) -> View:
        loaded = self._load(i)
        return View(loaded.name, ReadOnlyStore(loaded.store_path), loaded.parameters, self.world.clock.now())

    def get_market(self, i: int) -> MarketSnapshot:
        """The market snapshot that operator ``i`` would plan with now."""
        view = self._open_view(i)
        try:
            return view.market
        finally:
            view.store.close()

    def prove_and_verify(self, i: int) -> list[dict[str, Any]]:
        """Export the newest fact of every chain with its proof and verify each file alone."""
        return [self._prove_and_verify(i, site) for site in self.world.sites.values()]

    def _prove_and_verify(self, i: int, site: Site) -> dict[str, Any]:
        anchors = self._load(i).anchors
        view = self._open_view(i)
        try:
            sequence = view.store.get_cursor(site.vault_id).sequence
            subject = f"{site.chain}:{sequence}"
            data = prove_fact(view, anchors, subject)
        finally:
            view.store.close()
        path = self.folder / f"fact-{site.name}.json"
        path.write_bytes(data)
        answer = verify_file(path, anchors, None, None, self.world.clock.now())
        if answer.code != 0:
            raise Rejected("the exported fact does not verify", got=dict(answer.data), reason="demo_proof")
        return {
            "fact": subject,
            "family": site.family,
            "tier": answer.data["fact"]["tier_text"],
            "file": str(path),
            "bytes": len(data),
        }

    def replay(self, i: int) -> dict[str, Any]:
        """Compute everything on record again and compare the digests."""
        view = self._open_view(i)
        try:
            answer = replay_store(view, self._load(i).anchors, None, is_full=False)
        finally:
            view.store.close()
        return {
            "result": "same" if answer.code == 0 else "DIFFERENT",
            "plans": len(answer.data["plans"]),
            "facts": sum(c["facts"] for c in answer.data["chains"]),
            "differences": list(answer.data["differences"])[:5],
        }


def _load_key(config: Config, reference: OperatorTable | SubmitKey) -> Secret:
    """A key by its references; the demo's own are throw-away keys."""
    return load_key_file(
        get_key_path(reference.key, config.path),
        read_password(reference.password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
