"""Real light-client objects in the dialects of several relayers: per folder all must verify, in the order of their slots.

A folder is one history. Files are told apart by content (keys of the object, or the content key of the portal network), the fork of an
object by its slot. Where a folder has no bootstrap, its first update is the anchor: its branches are checked, and the next committee it
proves must have signed the second update. The network is the one among the built-in whose signatures verify.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chains.evm import light_client as lc
from chains.evm.beacon_json import (
    decode_json,
    encode_bootstrap_json,
    encode_update_json,
    parse_bootstrap_json,
    parse_update_json,
)
from chains.evm.forks import NETWORKS, ForkSchedule, get_fork_of_digest
from chains.evm.ssz import compute_header_root, decode_light_client
from chains.evm.types import Bootstrap, Trusted, Update
from messages.errors import Rejected, RelayerError
from tests.conformance.case import Case
from tests.conformance.evm_vectors import read_yaml, unhex

PORTAL_KINDS = {0x10: "bootstrap", 0x11: "update", 0x12: "finality_update", 0x13: "optimistic_update"}


@dataclass(frozen=True)
class Item:
    """One object of a folder: what it is, and where it came from."""

    name: str
    value: Bootstrap | Update
    checkpoint: bytes | None = None


def discover(root: Path) -> Iterator[Case]:
    folders = sorted({path.parent for path in root.rglob("*") if path.suffix in {".json", ".yaml", ".yml"}})
    for folder in folders:
        try:
            names = [item.name for item in read_folder(folder, "mainnet")]
        except (RelayerError, KeyError, TypeError, AttributeError) as error:
            yield Case("eth_real_lc", str(folder.relative_to(root)), lambda error=error: fail(error))
            continue
        for name in names:
            case = f"{folder.relative_to(root)}/{name}"
            yield Case("eth_real_lc", case, lambda folder=folder, name=name: run(folder, name))


def fail(error: Exception) -> None:
    raise AssertionError(f"the folder is not readable: {error}") from error


def run(folder: Path, name: str) -> None:
    failures = {}
    for network in NETWORKS:
        verdicts = judge_folder(folder, network)
        if verdicts.get(name, "not there") == "":
            return
        failures[network] = verdicts.get(name, "not there")
    raise AssertionError(f"no network verifies it: {failures}")


@lru_cache(maxsize=64)
def read_folder(folder: Path, network: str) -> tuple[Item, ...]:
    """Return the objects of a folder, bootstrap first, then by signature slot; unreadable ones are an error."""
    schedule = NETWORKS[network]
    items: list[Item] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            items += read_json(path, schedule)
        elif path.suffix in {".yaml", ".yml"}:
            items += read_portal(path, schedule)
    return tuple(sorted(items, key=get_order))


def get_order(item: Item) -> tuple[int, int]:
    if isinstance(item.value, Bootstrap):
        return 0, item.value.header.beacon.slot
    return 1, item.value.signature_slot


def read_json(path: Path, schedule: ForkSchedule) -> list[Item]:
    data = decode_json(path.read_bytes())
    if isinstance(data, dict) and isinstance(data.get("data"), list):
        data = data["data"]
    return [
        parse(entry, f"{path.name}[{i}]", schedule)
        for i, entry in enumerate(data if isinstance(data, list) else [data])
    ]


def parse(entry: dict[str, Any], name: str, schedule: ForkSchedule) -> Item:
    body = entry.get("data", entry)
    if "current_sync_committee" in body:
        return Item(name, parse_bootstrap_json(entry, schedule))
    return Item(name, parse_update_json(entry, schedule))


def read_portal(path: Path, schedule: ForkSchedule) -> list[Item]:
    documents = read_yaml(path)
    items = []
    for i, document in enumerate(documents if isinstance(documents, list) else [documents]):
        key, content = unhex(document["content_key"]), unhex(document["content_value"])
        kind = PORTAL_KINDS[key[0]]
        blobs = split_list(content) if kind == "update" else [content]
        for j, blob in enumerate(blobs):
            try:
                fork = get_fork_of_digest(schedule, blob[:4])
            except Rejected:  # another network's
                fork = next(get_fork_of_digest(s, blob[:4]) for s in NETWORKS.values() if is_digest_of(s, blob[:4]))
            value = decode_light_client(kind, blob[4:], fork, schedule.preset)
            items.append(Item(f"{path.name}[{i}][{j}]", value, key[1:33] if kind == "bootstrap" else None))
    return items


def is_digest_of(schedule: ForkSchedule, digest: bytes) -> bool:
    try:
        get_fork_of_digest(schedule, digest)
    except Rejected:
        return False
    return True


def split_list(data: bytes) -> list[bytes]:
    """Return the elements of an SSZ list of byte lists."""
    count = int.from_bytes(data[:4], "little") // 4
    offsets = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(count)] + [len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(offsets)]


@lru_cache(maxsize=64)
def judge_folder(folder: Path, network: str) -> dict[str, str]:
    """Return the failure of every object of a folder under a network, "" where it verified."""
    schedule = NETWORKS[network]
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    verdicts: dict[str, str] = {}
    trusted: Trusted | None = None
    for item in read_folder(folder, network):
        try:
            trusted = judge(item, trusted, config)
            verify_encoding(item.value, schedule)
            verdicts[item.name] = ""
        except (RelayerError, AssertionError) as error:
            verdicts[item.name] = f"{type(error).__name__}: {error} [{getattr(error, 'reason', '')}]"
    return verdicts


def judge(item: Item, trusted: Trusted | None, config: lc.LightClientConfig) -> Trusted:
    schedule = config.schedule
    value = item.value
    if isinstance(value, Bootstrap):
        root = item.checkpoint or compute_header_root(value.header.beacon)
        return lc.verify_bootstrap(value, root, config, schedule.get_time(value.header.beacon.slot))
    if trusted is None:
        return anchor_at(value, schedule)
    return lc.verify_update(trusted, value, schedule.get_time(value.signature_slot), config)


def anchor_at(update: Update, schedule: ForkSchedule) -> Trusted:
    """Return the trusted state after an update that is believed unsigned: its branches must hold."""
    assert lc.is_valid_header(update.attested, schedule), "execution of the attested header"
    assert lc.is_valid_finality(update, schedule), "finality branch"
    assert lc.is_valid_next_committee(update, schedule), "committee branch"
    assert update.finalized is not None
    assert update.next_committee is not None
    assert lc.has_participation(update.aggregate.bits, lc.TWO_THIRDS)
    unknown = update.next_committee  # nothing of the anchor's own period is verified afterwards
    return Trusted(update.finalized, update.attested, unknown, update.next_committee)


def verify_encoding(value: Bootstrap | Update, schedule: ForkSchedule) -> None:
    """Our own JSON of the object reads back as the same object."""
    if isinstance(value, Bootstrap):
        assert parse_bootstrap_json(json.loads(json.dumps(encode_bootstrap_json(value, schedule))), schedule) == value
    else:
        assert parse_update_json(json.loads(json.dumps(encode_update_json(value, schedule))), schedule) == value
