"""Official light_client/sync cases: a folder with meta.yaml, config.yaml, bootstrap and steps is a case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chains.evm import light_client as lc
from chains.evm.forks import Fork, get_fork_of_digest
from chains.evm.ssz import compute_execution_root, compute_header_root, decode_light_client
from chains.evm.types import LightClientHeader
from tests.conformance.case import Case
from tests.conformance.evm_vectors import SpecStore, build_schedule, read_snappy, read_yaml, unhex


def discover(root: Path) -> Iterator[Case]:
    for steps in sorted(root.rglob("steps.yaml")):
        folder = steps.parent
        yield Case("eth_lc_sync", str(folder.relative_to(root)), lambda folder=folder: run(folder))


def run(folder: Path) -> None:
    meta = read_yaml(folder / "meta.yaml")
    schedule = build_schedule(read_yaml(folder / "config.yaml"), unhex(meta["genesis_validators_root"], 32))
    preset = schedule.preset

    def decode(name: str, file: str, digest: str) -> Any:
        fork = get_fork_of_digest(schedule, unhex(digest, 4))
        return decode_light_client(name, read_snappy(folder / f"{file}.ssz_snappy"), fork, preset)

    bootstrap = decode("bootstrap", "bootstrap", meta["bootstrap_fork_digest"])
    assert compute_header_root(bootstrap.header.beacon) == unhex(meta["trusted_block_root"])
    store = SpecStore(lc.verify_anchor(bootstrap, schedule), schedule)
    for number, step in enumerate(read_yaml(folder / "steps.yaml")):
        ((kind, args),) = step.items()
        if kind == "process_update":
            update = decode("update", args["update"], args["update_fork_digest"])
            store.process(update, args["current_slot"])
        elif kind == "force_update":
            store.force(args["current_slot"])
        else:  # our headers have one form for all forks, so a store has nothing to upgrade
            assert kind == "upgrade_store", kind
        for name, expected in args["checks"].items():
            header = {"finalized_header": store.trusted.finalized, "optimistic_header": store.trusted.optimistic}[name]
            verify_check(header, expected, store, f"step {number} {kind}: {name}")


def verify_check(header: LightClientHeader, expected: dict[str, Any], store: SpecStore, where: str) -> None:
    got: dict[str, Any] = {
        "slot": header.beacon.slot,
        "beacon_root": "0x" + compute_header_root(header.beacon).hex(),
    }
    if "execution_root" in expected:
        fork = store.schedule.get_fork_at_slot(header.beacon.slot)
        root = bytes(32)
        if fork >= Fork.CAPELLA:
            assert header.execution is not None, where
            root = compute_execution_root(header.execution, fork)
        got["execution_root"] = "0x" + root.hex()
    assert got == expected, f"{where}: got {got}, expected {expected}"
