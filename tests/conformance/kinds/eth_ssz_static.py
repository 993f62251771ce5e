"""Official ssz_static cases of what a light client reads: bytes, value and root of each object agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chains.evm import beacon_json as bj
from chains.evm import ssz
from chains.evm.forks import Fork, ForkSchedule, Preset, compute_fork_data_root
from chains.evm.types import SyncAggregate
from messages.errors import Rejected
from tests.conformance.case import Case
from tests.conformance.evm_vectors import PRESETS, read_snappy, read_yaml, unhex

LIGHT_CLIENT = {
    "LightClientBootstrap": "bootstrap",
    "LightClientUpdate": "update",
    "LightClientFinalityUpdate": "finality_update",
    "LightClientOptimisticUpdate": "optimistic_update",
}
FORK_DATA = ssz.Container(SimpleNamespace, (("current_version", ssz.BYTES4), ("genesis_validators_root", ssz.BYTES32)))
SIGNING_DATA = ssz.Container(SimpleNamespace, (("object_root", ssz.BYTES32), ("domain", ssz.BYTES32)))


def discover(root: Path) -> Iterator[Case]:
    for roots in sorted(root.rglob("roots.yaml")):
        folder = roots.parent
        yield Case("eth_ssz_static", str(folder.relative_to(root)), lambda folder=folder: run(folder))


def run(folder: Path) -> None:
    parts = folder.parts
    fork = next(Fork[part.upper()] for part in reversed(parts) if part.upper() in Fork.__members__)
    preset = next(PRESETS[part] for part in reversed(parts) if part in PRESETS)
    name = folder.parts[-3]
    kind, parse = get_type(name, fork, preset)
    data = read_snappy(folder / "serialized.ssz_snappy")
    value = kind.decode(data)
    assert kind.encode(value) == data
    assert kind.root(value) == unhex(read_yaml(folder / "roots.yaml")["root"])
    assert value == parse(read_yaml(folder / "value.yaml")), "the value reads alike from JSON"
    if name == "ForkData":
        assert compute_fork_data_root(value.current_version, value.genesis_validators_root) == kind.root(value)
    if name == "SigningData":
        assert ssz.compute_signing_root(value.object_root, value.domain) == kind.root(value)
    if data:
        with pytest.raises(Rejected):
            kind.decode(data[:-1] if kind.size is not None else data[: kind.fixed_part - 1])


def get_type(name: str, fork: Fork, preset: Preset) -> tuple[Any, Callable[[Any], Any]]:
    """Return the SSZ type of a name and a reader of its YAML value (the same road that beacon JSON takes)."""
    size = preset.committee_size
    schedule = ForkSchedule("static", 0, bytes(32), 12, preset, ((fork, 0, bytes(4)),))
    if name in LIGHT_CLIENT:
        parse = bj.parse_bootstrap_json if name == "LightClientBootstrap" else bj.parse_update_json
        return ssz.get_light_client_type(LIGHT_CLIENT[name], fork, size), lambda obj: parse(obj, schedule)
    others: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
        "BeaconBlockHeader": (lambda: ssz.BEACON_HEADER, bj.parse_beacon_json),
        "ExecutionPayloadHeader": (lambda: ssz.get_execution_type(fork), bj.parse_execution_json),
        "ForkData": (lambda: FORK_DATA, parse_bytes),
        "LightClientHeader": (lambda: ssz.get_header_type(fork), bj.parse_header_json),
        "SigningData": (lambda: SIGNING_DATA, parse_bytes),
        "SyncAggregate": (lambda: ssz.get_aggregate_type(size), parse_aggregate),
        "SyncCommittee": (
            lambda: ssz.get_committee_type(size),
            lambda obj: bj.parse_committee_json(obj, size) or ssz.get_committee_type(size).default(),
        ),
    }
    build, parse_other = others[name]
    return build(), parse_other


def parse_bytes(obj: dict[str, str]) -> SimpleNamespace:
    return SimpleNamespace(**{key: unhex(value) for key, value in obj.items()})


def parse_aggregate(obj: dict[str, str]) -> SyncAggregate:
    return SyncAggregate(unhex(obj["sync_committee_bits"]), unhex(obj["sync_committee_signature"]))
