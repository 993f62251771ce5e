"""Kind `ibc_v2`: packet and ack commitments by content, and the Eureka end-to-end fixtures."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from messages import packet as ibc
from tests.conformance.case import Case, SkippedError

KIND = "ibc_v2"
E2E = "tests.conformance.eureka_e2e"


def discover(folder: Path) -> Iterator[Case]:
    """Yield the cases that run in process, then those of the light-client fixtures."""
    yield from discover_in_process(folder)
    if importlib.util.find_spec(E2E) is not None:
        yield from importlib.import_module(E2E).discover_e2e(folder)
    else:
        yield Case(KIND, "end-to-end fixtures", _bind(_skip, "the end-to-end runner is not built yet"))


def discover_in_process(folder: Path) -> Iterator[Case]:
    """Yield a case per packet and ack of every file of that shape."""
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        if not isinstance(data, dict):
            continue
        name = str(path.relative_to(folder))
        for i, entry in enumerate(_entries(data, "packets", {"packet", "commitment"})):
            yield Case(KIND, f"{name}:packets[{i}] {entry.get('name', '')}", _bind(_check_packet, entry))
        for i, entry in enumerate(_entries(data, "acks", {"app_acknowledgements_hex", "commitment"})):
            yield Case(KIND, f"{name}:acks[{i}] {entry.get('name', '')}", _bind(_check_ack, entry))


def _entries(data: dict[str, Any], key: str, fields: set[str]) -> list[dict[str, Any]]:
    entries = data.get(key)
    return [e for e in entries if isinstance(e, dict) and fields <= e.keys()] if isinstance(entries, list) else []


def _bind(check: Callable[[Any], None], entry: object) -> Callable[[], None]:
    return lambda: check(entry)


def _skip(reason: str) -> None:
    raise SkippedError(reason)


def read_packet(entry: dict[str, Any]) -> ibc.Packet:
    """Return the packet of a JSON entry (value as hex)."""
    payloads = tuple(
        ibc.Payload(p["source_port"], p["destination_port"], p["version"], p["encoding"], bytes.fromhex(p["value_hex"]))
        for p in entry["payloads"]
    )
    return ibc.Packet(
        int(entry["sequence"]),
        entry["source_client"],
        entry["destination_client"],
        int(entry["timeout_timestamp"]),
        payloads,
    )


def _check_packet(entry: dict[str, Any]) -> None:
    packet = read_packet(entry["packet"])
    assert ibc.compute_commitment(packet).hex() == entry["commitment"]
    assert ibc.decode_packet_abi(ibc.encode_packet_abi(packet)) == packet
    assert ibc.decode_packet_protobuf(ibc.encode_packet_protobuf(packet)) == packet
    assert ibc.decode_packet_borsh(ibc.encode_packet_borsh(packet)) == packet


def _check_ack(entry: dict[str, Any]) -> None:
    acks = tuple(bytes.fromhex(a) for a in entry["app_acknowledgements_hex"])
    assert ibc.compute_ack_commitment(acks).hex() == entry["commitment"]
    assert ibc.decode_ack_protobuf(ibc.encode_ack_protobuf(acks)) == acks
