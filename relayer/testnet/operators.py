"""Four operators of a testnet: a folder each with configuration and encrypted keys, a process each, and a reader of their records.

Nothing is shared but chains, broker and price file. What the harness knows of an operator it reads from the operator's own store, beside
the running process, as any reading command does.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messages.digests import get_address
from messages.documents import compute_digest
from messages.errors import Rejected
from messages.outbox import Fact
from relayer.commands.proofs import prove_fact, replay_store, verify_file
from relayer.commands.view import Loaded, ReadOnlyStore, View, load
from relayer.demo.site import Site
from relayer.keys import Journal, Secret, create_key_file
from relayer.rules.vault_state import VaultState
from relayer.rules.views import MarginView, compute_margin_view
from relayer.testnet.processes import LOOPBACK, Group, Process, get_free_port
from relayer.testnet.world import LiveWorld
from relayer.toml_writer import encode_parameters, encode_toml

TIMING = {
    "poll_s": 1.0,
    "settle_s": 1.0,
    "submit_s": 1.0,
    "republish_s": 5,
    "takeover_s": 8,
    "bump_s": 20,
    "backoff_max_s": 4.0,
    "observe_s": 3,
    "observe_idle_s": 10,
}
"""Blocks come each second and finality within half a minute: a look each second is what a quarter of an hour is elsewhere."""
STATE_MEMORY_S = 0.8
PRICES = "prices.jsonl"


@dataclass(frozen=True)
class Operator:
    """One operator's folder; ``address`` 20 bytes."""

    name: str
    folder: Path
    address: bytes
    metrics_port: int

    @property
    def config(self) -> Path:
        """Its relayer.toml."""
        return self.folder / "relayer.toml"


def make_broker_passwords(world: LiveWorld) -> dict[str, str]:
    """User name (address in hex) and password of each operator at the broker."""
    return {get_address(key).hex(): secrets.token_urlsafe(24) for key in world.operator_keys}


def write_operators(
    folder: Path,
    world: LiveWorld,
    tables: Sequence[Mapping[str, Mapping[str, Any]]],
    broker_port: int,
    broker_passwords: Mapping[str, str],
) -> list[Operator]:
    """Write every operator's folder: parameters, configuration, encrypted throw-away keys, password files, a fresh journal.

    ``tables``: for each operator, of each chain by name, from `Devnet.make_table`.
    """
    parameters = encode_parameters(world.get_parameters())
    operators = []
    for i, key in enumerate(world.operator_keys):
        home = folder / f"op{i}"
        home.mkdir(parents=True)
        operator = Operator(f"op{i}", home, get_address(key), get_free_port())
        (home / "parameters.toml").write_text(parameters)
        _write_secret(home / "broker.password", broker_passwords[operator.address.hex()])
        _write_key(home / "operator", key)
        for site in world.sites.values():
            _write_key(home / f"gas-{site.name}", world.get_gas_key(site, i))
        operator.config.write_text(_make_config(operator, world, tables[i], broker_port))
        Journal.create_first(home / "journal.db", int(time.time()))
        operators.append(operator)
    return operators


def _make_config(
    operator: Operator, world: LiveWorld, tables: Mapping[str, Mapping[str, Any]], broker_port: int
) -> str:
    chains = {
        site.chain: {
            **tables[site.name],
            "submit_key": f"file:gas-{site.name}.json",
            "submit_password": f"file:gas-{site.name}.password",
            "timeout_s": 10.0,
        }
        for site in world.sites.values()
    }
    table = {
        "name": operator.name,
        "store": "store.db",
        "journal": "journal.db",
        "parameters": "parameters.toml",
        # version 1: before it there is no committee that could have signed
        "genesis_parameters": "0x" + compute_digest(world.get_parameters()).hex(),
        "operator": {
            "key": "file:operator.json",
            "password": "file:operator.password",
            "allow_throwaway_key": True,
        },
        "gossip": {"kind": "mqtt", "host": LOOPBACK, "port": broker_port, "password_file": "broker.password"},
        "feeds": [{"kind": "file", "path": f"../{PRICES}"}],
        "timing": TIMING,
        "metrics": {"port": operator.metrics_port},
        "log": {"level": "info", "json_lines": True},
        "chains": chains,
    }
    return encode_toml(table, comment="One operator of a local testnet.")


def _write_key(path: Path, key: bytes) -> None:
    password = secrets.token_urlsafe(24)
    create_key_file(path.with_suffix(".json"), Secret(key), Secret(password.encode()), is_throwaway=True)
    _write_secret(path.with_suffix(".password"), password)


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def get_run_command(config: Path) -> list[str]:
    """What an operator types, with this interpreter."""
    return [sys.executable, "-m", "relayer.cli", "run", "-c", str(config)]


def start_operators(group: Group, operators: Sequence[Operator]) -> list[Process]:
    """Start a process for each operator."""
    processes = [group.add(o.name, get_run_command(o.config)) for o in operators]
    for process in processes:
        process.start()
    return processes


def wait_for_heads(operators: Sequence[Operator], processes: Sequence[Process], timeout_s: float) -> None:
    """Wait until each operator has proven every vault once; Unavailable ("ended", "not_ready")."""
    for operator, process in zip(operators, processes, strict=True):
        process.wait_until(Observer(operator).has_heads, "proving every vault once", timeout_s, poll_s=0.5)


class Observer:
    """Reads one operator's records while it runs; remembers folded states for less than a second."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self._states: dict[bytes, VaultState] = {}
        self._read_at = 0.0

    def _load(self) -> Loaded:
        return load(self.operator.config)

    @contextmanager
    def open_view(self) -> Iterator[View]:
        """Its records as of now."""
        loaded = self._load()
        store = ReadOnlyStore(loaded.store_path)
        try:
            yield View(loaded.name, store, loaded.parameters, int(time.time()))
        finally:
            store.close()

    def has_heads(self) -> bool:
        """Whether every vault has a proven head."""
        if not (self.operator.folder / "store.db").is_file():
            return False
        try:
            with self.open_view() as view:
                return view.get_cut() is not None
        except Rejected as error:
            if error.reason in {"too_old", "no_store"}:  # the node is still making its file
                return False
            raise

    def get_state(self, vault_id: bytes) -> VaultState:
        """The newest proven state of a vault."""
        if time.monotonic() - self._read_at > STATE_MEMORY_S:
            with self.open_view() as view:
                self._states = dict(view.newest_states)
            self._read_at = time.monotonic()
        return self._states[vault_id]

    def get_facts(self, vault_id: bytes, after: int) -> list[Fact]:
        """Facts of a vault after a number."""
        with self.open_view() as view:
            return list(view.store.iterate_facts(vault_id, after))

    def get_margin(self, site: Site, account: bytes) -> MarginView | None:
        """Margin of the portfolio that an account belongs to; None if it has none yet."""
        with self.open_view() as view:
            portfolio = view.ledger.portfolio_of.get((site.vault_id, account))
            if portfolio is None:
                return None
            return compute_margin_view(view.ledger, view.market, view.parameters, portfolio)

    def get_holdings(self, series: bytes) -> dict[bytes, list[int]]:
        """Positions in a series by portfolio (or house account), one entry a place."""
        held: dict[bytes, list[int]] = {}
        with self.open_view() as view:
            for vault_id, state in view.ledger.states.items():
                for (account, held_series), quantity in state.positions.items():
                    if held_series == series:
                        portfolio = view.ledger.portfolio_of.get((vault_id, account), account)
                        held.setdefault(portfolio, []).append(quantity)
        return held

    def get_incidents(self) -> dict[str, Any]:
        """Halts, evidence and whom this operator caught at what."""
        with self.open_view() as view:
            return {
                "halts": [f"{h.subject}: {h.reason}" for h in view.store.get_halts()],
                "equivocations": len(view.store.get_evidence()),
                "blames": [
                    {"chain": b.chain, "source": b.source, "reason": b.reason, "count": count}
                    for b, count, _ in view.store.get_blames()
                ],
            }

    def prove_and_verify(self, site: Site, path: Path) -> dict[str, Any]:
        """Export the newest fact of a chain with its proof and verify the file alone."""
        anchors = self._load().anchors
        with self.open_view() as view:
            subject = f"{site.chain}:{view.store.get_cursor(site.vault_id).sequence}"
            path.write_bytes(prove_fact(view, anchors, subject))
        answer = verify_file(path, anchors, None, None, int(time.time()))
        return {"fact": subject, "bytes": path.stat().st_size, "verified": answer.code == 0}

    def replay(self) -> dict[str, Any]:
        """Compute everything on record again and compare the digests."""
        with self.open_view() as view:
            answer = replay_store(view, self._load().anchors, None, is_full=False)
        return {
            "same": answer.code == 0,
            "plans": len(answer.data["plans"]),
            "facts": sum(c["facts"] for c in answer.data["chains"]),
            "differences": list(answer.data["differences"])[:5],
        }
