"""Ethereum to Cosmos fixtures of a devnet (Fulu, minimal preset): client updates by sync committee, then packet proofs by storage.

A fixture is a list of steps; the first holds the client and consensus state, the others messages. All must be accepted, and each proof
refused when one node of it is changed. The on-chain client keeps only hashes of committees, so an update brings its signers along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from chains.evm import light_client as lc
from chains.evm import proofs
from chains.evm.beacon_json import parse_committee_json, parse_update_json
from chains.evm.forks import Fork, ForkSchedule, Preset
from chains.evm.ssz import BYTES48, Vector
from chains.evm.types import BeaconHeader, LightClientHeader, Proof, SyncCommittee, Trusted, Update
from messages import packet as ibc
from messages.errors import Rejected
from tests.conformance.case import Case
from tests.conformance.evm_vectors import unhex

ZERO32 = bytes(32)


@dataclass(frozen=True)
class Consensus:
    """What the client stores of a slot: execution state root and time, hashes of the committees."""

    state_root: bytes
    timestamp: int
    current: str
    following: str | None


def discover_e2e(folder: Path) -> Iterator[Case]:
    """Yield a case per fixture below ``folder``: a JSON object whose first step holds client_state and consensus_state."""
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        steps = data.get("steps") if isinstance(data, dict) else None
        if steps and "client_state" in steps[0].get("data", {}):
            yield Case("ibc_v2", f"{path.relative_to(folder)}: end to end", lambda steps=steps: run(steps))


def build_schedule(state: dict[str, Any]) -> ForkSchedule:
    parameters = state["fork_parameters"]
    forks = [(Fork.PHASE0, 0, unhex(parameters["genesis_fork_version"]))]
    for fork in list(Fork)[1:]:
        entry = parameters.get(fork.name.lower())
        if entry is not None:
            forks.append((fork, entry["epoch"], unhex(entry["version"])))
    return ForkSchedule(
        name="eureka",
        genesis_time=state["genesis_time"],
        genesis_validators_root=unhex(state["genesis_validators_root"]),
        seconds_per_slot=state["seconds_per_slot"],
        preset=Preset(
            state["slots_per_epoch"], state["epochs_per_sync_committee_period"], state["sync_committee_size"]
        ),
        forks=tuple(forks),
    )


def run(steps: list[dict[str, Any]]) -> None:
    initial = steps[0]["data"]
    client, state = initial["client_state"], initial["consensus_state"]
    schedule = build_schedule(client)
    following = state["next_sync_committee"]
    consensus = {
        state["slot"]: Consensus(
            unhex(state["state_root"]),
            state["timestamp"],
            state["current_sync_committee"]["pubkeys_hash"],
            following and following["pubkeys_hash"],
        )
    }
    proven = 0
    for step in steps[1:]:
        for message in step["data"]["messages"]:
            if "header" in message:
                apply_header(message["header"], consensus, schedule)
            else:
                verify_packet(message, consensus, client)
                proven += 1
    assert len(consensus) > 1
    assert proven


def compute_pubkeys_hash(committee: SyncCommittee) -> str:
    return "0x" + Vector(BYTES48, len(committee.pubkeys)).root(committee.pubkeys).hex()


def apply_header(header: dict[str, Any], consensus: dict[int, Consensus], schedule: ForkSchedule) -> None:
    """Verify one client update over the consensus state it builds on, and store the one it brings."""
    slot = header["trusted_slot"]
    known = consensus[slot]
    ((which, entry),) = header["active_sync_committee"].items()
    signers = parse_committee_json(entry, schedule.preset.committee_size)
    assert signers is not None
    assert compute_pubkeys_hash(signers) == (known.current if which == "Current" else known.following)
    # the on-chain client knows only the slot of its header; the rules need no more of it
    trusted_header = LightClientHeader(BeaconHeader(slot, 0, ZERO32, ZERO32, ZERO32))
    trusted = Trusted(trusted_header, trusted_header, signers, signers if which == "Next" else None)
    update = parse_update_json(header["consensus_update"], schedule)
    lc.verify_statement(trusted, update, update.signature_slot, schedule, lc.TWO_THIRDS)
    assert update.finalized is not None
    assert update.finalized.execution is not None
    verify_forgery_is_refused(trusted, update, schedule)
    rotates = schedule.get_period(update.finalized.beacon.slot) > schedule.get_period(slot)
    brought = compute_pubkeys_hash(update.next_committee) if update.next_committee else None
    execution = update.finalized.execution
    consensus[update.finalized.beacon.slot] = Consensus(
        state_root=execution.state_root,
        timestamp=execution.timestamp,
        current=(known.following or "") if rotates else known.current,
        following=brought if rotates else known.following or brought,
    )


def verify_forgery_is_refused(trusted: Trusted, update: Update, schedule: ForkSchedule) -> None:
    bits = bytes((update.aggregate.bits[0] ^ 1,)) + update.aggregate.bits[1:]
    forged = replace(update, aggregate=replace(update.aggregate, bits=bits))
    try:
        lc.verify_statement(trusted, forged, update.signature_slot, schedule, lc.TWO_THIRDS)
    except Rejected as error:
        assert error.reason == "bad_signature"  # noqa: PT017  one of two outcomes
        return
    raise AssertionError("one participant more or less was accepted")


def verify_packet(message: dict[str, Any], consensus: dict[int, Consensus], client: dict[str, Any]) -> None:
    """Prove a commitment that is there, or a receipt that is not, at the beacon slot of the proof."""
    packet = read_packet(message["packet"])
    state = consensus[message["proof_height"]["revision_height"]]
    if "proof_commitment" in message:
        answer = message["proof_commitment"]
        path = ibc.get_packet_commitment_path(packet.source_client, packet.sequence)
        expected = ibc.compute_commitment(packet)
    else:
        answer = message["proof_unreceived"]
        path = ibc.get_packet_receipt_path(packet.destination_client, packet.sequence)
        expected = ZERO32
        assert state.timestamp >= packet.timeout_timestamp
    key = ibc.compute_evm_storage_slot(path, unhex(client["ibc_commitment_slot"]))
    slot = int.from_bytes(key, "big") if isinstance(key, bytes) else key
    proof = Proof(
        address=unhex(client["ibc_contract_address"]),
        slot=slot,
        account_nodes=tuple(unhex(node) for node in answer["account_proof"]["proof"]),
        storage_nodes=tuple(unhex(node) for node in answer["storage_proof"]["proof"]),
    )
    assert proofs.verify_storage_value(state.state_root, proof) == expected
    assert int(answer["storage_proof"]["value"], 16) == int.from_bytes(expected, "big")
    for field in ("account_nodes", "storage_nodes"):
        nodes: tuple[bytes, ...] = getattr(proof, field)
        for i, node in enumerate(nodes):
            other = node[:-1] + bytes((node[-1] ^ 1,))
            broken = replace(proof, **{field: (*nodes[:i], other, *nodes[i + 1 :])})
            try:
                proofs.verify_storage_value(state.state_root, broken)
            except Rejected:
                continue
            raise AssertionError("a changed node was accepted")
    wrong_root = sha256(state.state_root).digest()
    try:
        proofs.verify_storage_value(wrong_root, proof)
    except Rejected:
        return
    raise AssertionError("another state root was accepted")


def read_packet(entry: dict[str, Any]) -> ibc.Packet:
    return ibc.Packet(
        sequence=entry["sequence"],
        source_client=entry["source_client"],
        destination_client=entry["destination_client"],
        timeout_timestamp=entry["timeout_timestamp"],
        payloads=tuple(
            ibc.Payload(p["source_port"], p["destination_port"], p["version"], p["encoding"], unhex(p["value_hex"]))
            for p in entry["payloads"]
        ),
    )
