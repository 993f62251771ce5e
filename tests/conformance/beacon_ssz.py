"""SSZ types of the beacon state and block body, Altair to Fulu, for the tests of generalised indices only.

The product never reads these objects. They are built from the same small types as the product's, with the two that it does not need:
lists and bit lists. Source: consensus-specs beacon-chain of each fork, presets mainnet and minimal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from chains.evm import ssz
from chains.evm.forks import Fork
from chains.evm.ssz import (
    BEACON_HEADER,
    BYTES4,
    BYTES20,
    BYTES32,
    BYTES48,
    BYTES96,
    UINT64,
    ByteList,
    Bytes,
    Container,
    Uint,
    Vector,
)

BOOLEAN = Uint(1)
UINT8 = Uint(1)


class SszList(ssz.SszType):
    """At most ``limit`` elements."""

    size = None

    def __init__(self, element: ssz.SszType, limit: int) -> None:
        self.element = element
        self.limit = limit

    def encode(self, value: Sequence[Any]) -> bytes:
        parts = [self.element.encode(item) for item in value]
        if self.element.size is not None:
            return b"".join(parts)
        offset = 4 * len(parts)
        head = []
        for part in parts:
            head.append(offset.to_bytes(4, "little"))
            offset += len(part)
        return b"".join(head + parts)

    def decode(self, data: bytes) -> list[Any]:
        step = self.element.size
        if step is not None:
            assert len(data) % step == 0
            parts = [data[i : i + step] for i in range(0, len(data), step)]
        else:
            count = int.from_bytes(data[:4], "little") // 4
            ends = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(count)] + [len(data)]
            parts = [data[begin:end] for begin, end in itertools.pairwise(ends)]
        assert len(parts) <= self.limit
        return [self.element.decode(part) for part in parts]

    def root(self, value: Sequence[Any]) -> bytes:
        if isinstance(self.element, Uint):
            chunks = ssz.pack(b"".join(map(self.element.encode, value)))
            limit = (self.limit * self.element.size + 31) // 32
        else:
            chunks, limit = [self.element.root(item) for item in value], self.limit
        return ssz.mix_in_length(ssz.merkleize(chunks, limit), len(value))

    def default(self) -> list[Any]:
        return []


class BitList(ssz.SszType):
    """At most ``limit`` bits, as their serialisation with the closing bit."""

    size = None

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        assert data
        assert data[-1]
        assert int.from_bytes(data, "little").bit_length() - 1 <= self.limit
        return data

    def root(self, value: bytes) -> bytes:
        number = int.from_bytes(value, "little")
        length = number.bit_length() - 1
        bits = (number ^ 1 << length).to_bytes((length + 7) // 8, "little")
        return ssz.mix_in_length(ssz.merkleize(ssz.pack(bits), (self.limit + 255) // 256), length)

    def default(self) -> bytes:
        return b"\1"


def record(*fields: tuple[str, ssz.SszType]) -> Container:
    return Container(SimpleNamespace, fields)


CHECKPOINT = record(("epoch", UINT64), ("root", BYTES32))
ETH1_DATA = record(("deposit_root", BYTES32), ("deposit_count", UINT64), ("block_hash", BYTES32))
VALIDATOR = record(
    ("pubkey", BYTES48),
    ("withdrawal_credentials", BYTES32),
    ("effective_balance", UINT64),
    ("slashed", BOOLEAN),
    ("activation_eligibility_epoch", UINT64),
    ("activation_epoch", UINT64),
    ("exit_epoch", UINT64),
    ("withdrawable_epoch", UINT64),
)
DEPOSIT_DATA = (("pubkey", BYTES48), ("withdrawal_credentials", BYTES32), ("amount", UINT64), ("signature", BYTES96))
ATTESTATION_DATA = record(
    ("slot", UINT64), ("index", UINT64), ("beacon_block_root", BYTES32), ("source", CHECKPOINT), ("target", CHECKPOINT)
)
SIGNED_HEADER = record(("message", BEACON_HEADER), ("signature", BYTES96))


@lru_cache(maxsize=16)
def get_state_type(fork: Fork, minimal: bool) -> Container:
    roots = Vector(BYTES32, 64 if minimal else 8192)
    committee = ssz.get_committee_type(32 if minimal else 512)
    limit = 2**40
    fields: list[tuple[str, ssz.SszType]] = [
        ("genesis_time", UINT64),
        ("genesis_validators_root", BYTES32),
        ("slot", UINT64),
        ("fork", record(("previous_version", BYTES4), ("current_version", BYTES4), ("epoch", UINT64))),
        ("latest_block_header", BEACON_HEADER),
        ("block_roots", roots),
        ("state_roots", roots),
        ("historical_roots", SszList(BYTES32, 2**24)),
        ("eth1_data", ETH1_DATA),
        ("eth1_data_votes", SszList(ETH1_DATA, 32 if minimal else 2048)),
        ("eth1_deposit_index", UINT64),
        ("validators", SszList(VALIDATOR, limit)),
        ("balances", SszList(UINT64, limit)),
        ("randao_mixes", Vector(BYTES32, 64 if minimal else 65536)),
        ("slashings", Vector(UINT64, 64 if minimal else 8192)),
        ("previous_epoch_participation", SszList(UINT8, limit)),
        ("current_epoch_participation", SszList(UINT8, limit)),
        ("justification_bits", Bytes(1)),
        ("previous_justified_checkpoint", CHECKPOINT),
        ("current_justified_checkpoint", CHECKPOINT),
        ("finalized_checkpoint", CHECKPOINT),
        ("inactivity_scores", SszList(UINT64, limit)),
        ("current_sync_committee", committee),
        ("next_sync_committee", committee),
    ]
    if fork >= Fork.BELLATRIX:
        fields.append(("latest_execution_payload_header", ssz.get_execution_type(fork)))
    if fork >= Fork.CAPELLA:
        summary = record(("block_summary_root", BYTES32), ("state_summary_root", BYTES32))
        fields += [
            ("next_withdrawal_index", UINT64),
            ("next_withdrawal_validator_index", UINT64),
            ("historical_summaries", SszList(summary, 2**24)),
        ]
    if fork >= Fork.ELECTRA:
        partial = record(("validator_index", UINT64), ("amount", UINT64), ("withdrawable_epoch", UINT64))
        consolidation = record(("source_index", UINT64), ("target_index", UINT64))
        fields += [
            ("deposit_requests_start_index", UINT64),
            ("deposit_balance_to_consume", UINT64),
            ("exit_balance_to_consume", UINT64),
            ("earliest_exit_epoch", UINT64),
            ("consolidation_balance_to_consume", UINT64),
            ("earliest_consolidation_epoch", UINT64),
            ("pending_deposits", SszList(record(*DEPOSIT_DATA, ("slot", UINT64)), 2**27)),
            ("pending_partial_withdrawals", SszList(partial, 64 if minimal else 2**27)),
            ("pending_consolidations", SszList(consolidation, 64 if minimal else 2**18)),
        ]
    if fork >= Fork.FULU:
        fields.append(("proposer_lookahead", Vector(UINT64, 16 if minimal else 64)))
    return record(*fields)


def get_payload_type(fork: Fork, minimal: bool) -> Container:
    fields: list[tuple[str, ssz.SszType]] = [
        ("transactions", SszList(ByteList(2**30), 2**20)) if name == "transactions_root" else (name, kind)
        for name, kind in ssz.get_execution_type(fork).fields
    ]
    withdrawal = record(("index", UINT64), ("validator_index", UINT64), ("address", BYTES20), ("amount", UINT64))
    kind = SszList(withdrawal, 4 if minimal else 16)
    return record(*[("withdrawals", kind) if name == "withdrawals_root" else (name, field) for name, field in fields])


@lru_cache(maxsize=16)
def get_body_type(fork: Fork, minimal: bool) -> Container:
    electra = fork >= Fork.ELECTRA
    committees = 4 if minimal else 64
    attesters = 2048 * (committees if electra else 1)
    indexed = record(
        ("attesting_indices", SszList(UINT64, attesters)), ("data", ATTESTATION_DATA), ("signature", BYTES96)
    )
    attestation: list[tuple[str, ssz.SszType]] = [
        ("aggregation_bits", BitList(attesters)),
        ("data", ATTESTATION_DATA),
        ("signature", BYTES96),
    ]
    if electra:
        attestation.append(("committee_bits", Bytes((committees + 7) // 8)))
    exit_message = record(("epoch", UINT64), ("validator_index", UINT64))
    fields: list[tuple[str, ssz.SszType]] = [
        ("randao_reveal", BYTES96),
        ("eth1_data", ETH1_DATA),
        ("graffiti", BYTES32),
        (
            "proposer_slashings",
            SszList(record(("signed_header_1", SIGNED_HEADER), ("signed_header_2", SIGNED_HEADER)), 16),
        ),
        (
            "attester_slashings",
            SszList(record(("attestation_1", indexed), ("attestation_2", indexed)), 1 if electra else 2),
        ),
        ("attestations", SszList(record(*attestation), 8 if electra else 128)),
        ("deposits", SszList(record(("proof", Vector(BYTES32, 33)), ("data", record(*DEPOSIT_DATA))), 16)),
        ("voluntary_exits", SszList(record(("message", exit_message), ("signature", BYTES96)), 16)),
        ("sync_aggregate", ssz.get_aggregate_type(32 if minimal else 512)),
    ]
    if fork >= Fork.BELLATRIX:
        fields.append(("execution_payload", get_payload_type(fork, minimal)))
    if fork >= Fork.CAPELLA:
        change = record(("validator_index", UINT64), ("from_bls_pubkey", BYTES48), ("to_execution_address", BYTES20))
        fields.append(("bls_to_execution_changes", SszList(record(("message", change), ("signature", BYTES96)), 16)))
    if fork >= Fork.DENEB:
        fields.append(("blob_kzg_commitments", SszList(BYTES48, 4096)))
    if electra:
        deposit = record(*DEPOSIT_DATA, ("index", UINT64))
        withdrawal = record(("source_address", BYTES20), ("validator_pubkey", BYTES48), ("amount", UINT64))
        consolidation = record(("source_address", BYTES20), ("source_pubkey", BYTES48), ("target_pubkey", BYTES48))
        requests = record(
            ("deposits", SszList(deposit, 8192)),
            ("withdrawals", SszList(withdrawal, 16)),
            ("consolidations", SszList(consolidation, 2)),
        )
        fields.append(("execution_requests", requests))
    return record(*fields)
