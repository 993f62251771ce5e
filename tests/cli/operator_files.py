"""Folders of operators as `relayer init` and `relayer keys` leave them, with throw-away keys, for tests of the operator's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from chains.evm.forks import build_devnet
from chains.evm.light_client import LightClientConfig
from chains.registry import FAMILIES, ChainConfig, EndpointConfig, make_evm_settings
from messages.canonical import decode_canonical
from messages.documents import compute_digest
from relayer.keys import Journal, Secret, create_key_file
from relayer.toml_writer import encode_parameters, encode_toml
from tests.builders import OPERATOR_KEYS, make_key, make_parameters, make_vault

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = b"a test's password"
DEVNET = build_devnet(genesis_time=1_700_000_000, genesis_validators_root=b"\x07" * 32)
GONE = "http://127.0.0.1:1"
"""Nothing listens there."""


def write_secret(path: Path, data: bytes = PASSWORD) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data + b"\n")


def make_dead_chain(vault) -> ChainConfig:
    """A vault that no endpoint can be asked about."""
    return ChainConfig(
        vault.chain,
        "evm",
        (EndpointConfig("gone", GONE, GONE),),
        vault.account,
        b"\x31" * 32,
        0,
        make_evm_settings(LightClientConfig(DEVNET)),
    )


def write_folder(
    home: Path, i: int = 0, *, parameters=None, chains=None, gas_keys=None, key=None, is_first=True, **changes
) -> Path:
    """relayer.toml of one operator; ``changes`` replace top-level keys or tables (None leaves one out)."""
    home.mkdir(parents=True, exist_ok=True)
    parameters = parameters or make_parameters([make_vault(0)], effective=1_700_000_000)
    chains = chains if chains is not None else [make_dead_chain(v) for v in parameters.vaults]
    (home / "parameters.toml").write_text(encode_parameters(parameters))
    write_secret(home / "password")
    create_key_file(home / "operator.json", Secret(key or OPERATOR_KEYS[i]), Secret(PASSWORD), is_throwaway=True)
    tables = {}
    for n, chain in enumerate(chains):
        gas = (gas_keys or {}).get(chain.chain_id, make_key(f"gas {i} {n}"))
        create_key_file(home / f"gas{n}.json", Secret(gas), Secret(PASSWORD), is_throwaway=True)
        tables[chain.chain_id] = {
            "family": chain.family,
            "vault": "0x" + chain.vault_account.hex(),
            "checkpoint": "0x" + chain.checkpoint.hex(),
            "start_height": chain.start_height,
            "submit_key": f"file:gas{n}.json",
            "submit_password": "file:password",
            "timeout_s": 5.0,
            "endpoints": [
                {"name": e.name} | {door: getattr(e, f"{door}_url") for door in FAMILIES[chain.family].doors}
                for e in chain.endpoints
            ],
            "settings": decode_canonical(chain.settings.encode()),
        } | ({"gas_price": chain.gas_price} if chain.gas_price else {})
    table = {
        "name": f"op{i}",
        "store": "store.db",
        "journal": "journal.db",
        "parameters": "parameters.toml",
        "genesis_parameters": "0x" + compute_digest(parameters).hex(),
        "operator": {"key": "file:operator.json", "password": "file:password", "allow_throwaway_key": True},
        "gossip": {"kind": "mqtt", "host": "127.0.0.1", "port": 1},
        "timing": {"poll_s": 0.2, "settle_s": 0.2, "submit_s": 0.2},
        "log": {"level": "info"},
        "chains": tables,
    } | changes
    path = home / "relayer.toml"
    path.write_text(encode_toml({k: v for k, v in table.items() if v is not None}, comment="Of a test."))
    if is_first:
        Journal.create_first(home / "journal.db", int(time.time()))
    return path


class Program:
    """`relayer ...` as a process of its own."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relayer.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, words: str) -> str:
        """Read stderr up to a line with these words; fails where the process ends before."""
        for line in self.process.stderr:
            self.seen += line
            if words in line:
                return line
        raise AssertionError(f"ended without {words!r}: {self.seen}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, self.seen + err
