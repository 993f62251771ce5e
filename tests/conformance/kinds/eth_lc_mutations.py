"""A real update with patches: the consensus rules must give exactly the stated verdict, and the product accepts nothing they refuse."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chains.evm import light_client as lc
from chains.evm.beacon_json import parse_bootstrap_json, parse_update_json
from chains.evm.forks import FAR_FUTURE_EPOCH, MAINNET_PRESET, NETWORKS, Fork, ForkSchedule
from chains.evm.ssz import compute_header_root
from messages.errors import Conflict, Rejected
from tests.conformance.case import Case
from tests.conformance.evm_vectors import PRESETS, SpecStore, unhex


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*.json")):
        data = json.loads(path.read_text())
        for case in data["cases"]:
            name = f"{path.relative_to(root)}: {case['name']}"
            yield Case("eth_lc_mutations", name, lambda data=data, case=case: run(data, case))


def build(data: dict[str, Any]) -> ForkSchedule:
    known = NETWORKS.get(data.get("network", ""))
    return ForkSchedule(
        name=data.get("network", "vectors"),
        genesis_time=known.genesis_time if known else 0,
        genesis_validators_root=unhex(data["genesis_validators_root"]),
        seconds_per_slot=known.seconds_per_slot if known else 12,
        preset=known.preset if known else PRESETS.get(data.get("preset", ""), MAINNET_PRESET),
        forks=tuple(
            (fork, int(epoch), unhex(version))
            for fork, epoch, version in zip(Fork, data["fork_epochs"], data["fork_versions"], strict=False)
        ),
        blob_schedule=known.blob_schedule if known else (),
        unknown_from_epoch=FAR_FUTURE_EPOCH,
    )


def run(data: dict[str, Any], case: dict[str, Any]) -> None:
    schedule = build(data)
    bootstrap = parse_bootstrap_json(data["bootstrap"], schedule)
    assert compute_header_root(bootstrap.header.beacon) == unhex(data["trusted_block_root"])
    anchor = lc.verify_anchor(bootstrap, schedule)
    patched = copy.deepcopy(data["base_update"])
    for path, value in case["patch"]:
        target = patched
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    store = SpecStore(anchor, schedule)
    try:
        store.process(parse_update_json(patched, schedule), case["current_slot"])
        verdict = "accept"
    except (Rejected, Conflict) as error:
        verdict = f"reject ({error.reason})"
    assert verdict.split()[0] == case["expect"], f"got {verdict}, expected {case['expect']}"
    after = case.get("store_after")
    if after:
        got = {
            "finalized_slot": store.trusted.finalized.beacon.slot,
            "optimistic_slot": store.trusted.optimistic.beacon.slot,
            "next_sync_committee_known": store.trusted.next_committee is not None,
        }
        assert got == after, f"got {got}, expected {after}"
    if case["expect"] == "reject":
        verify_product_rejects(anchor, patched, schedule, case["current_slot"])


def verify_product_rejects(anchor: Any, patched: dict[str, Any], schedule: ForkSchedule, current_slot: int) -> None:
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    try:
        lc.verify_update(anchor, parse_update_json(patched, schedule), schedule.get_time(current_slot), config)
    except (Rejected, Conflict):
        return
    raise AssertionError("the product accepted what the consensus rules refuse")
