"""The words of the Ethereum family: what a light client is told, what it believes, and what proves an outbox head.

Frozen values without behaviour. What is absent is ``None`` (objects) or ``()`` (branches), never a zero object, so that "empty but
branch kept" and "default but no branch" are different values and the verifier can tell them apart. The objects of all forks from
Altair to Fulu share these shapes; which fields and branch depths a fork demands is data in `forks.py` and `ssz.py`.

Source: consensus-specs, light-client/sync-protocol of Altair, Capella, Deneb, Electra, Fulu.
"""

from __future__ import annotations

from dataclasses import dataclass

ZERO32 = bytes(32)


@dataclass(frozen=True)
class BeaconHeader:
    """A beacon block header; roots are 32 bytes, ``slot`` and ``proposer_index`` are u64."""

    slot: int
    proposer_index: int
    parent_root: bytes
    state_root: bytes
    body_root: bytes


@dataclass(frozen=True)
class ExecutionHeader:
    """The execution payload header inside a beacon block, Bellatrix to Fulu.

    Hashes and roots are 32 bytes, ``fee_recipient`` 20, ``logs_bloom`` 256, ``extra_data`` at most 32; ``base_fee_per_gas`` is u256, other
    integers u64, ``timestamp`` in unix seconds. Fields a fork does not know yet keep their defaults.
    """

    parent_hash: bytes
    fee_recipient: bytes
    state_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    prev_randao: bytes
    block_number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes
    base_fee_per_gas: int
    block_hash: bytes
    transactions_root: bytes
    withdrawals_root: bytes = ZERO32
    blob_gas_used: int = 0
    excess_blob_gas: int = 0


@dataclass(frozen=True)
class LightClientHeader:
    """A beacon header with, from Capella on, the execution header of its block and the branch that ties them (4 x 32 bytes)."""

    beacon: BeaconHeader
    execution: ExecutionHeader | None = None
    execution_branch: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class SyncCommittee:
    """The members that sign for one period: 48-byte compressed keys in order (512 on mainnet), and their sum."""

    pubkeys: tuple[bytes, ...]
    aggregate_pubkey: bytes


@dataclass(frozen=True)
class SyncAggregate:
    """Who signed (one bit a member, least significant bit of the first byte first) and the 96-byte aggregate signature."""

    bits: bytes
    signature: bytes


@dataclass(frozen=True)
class Bootstrap:
    """What a light client starts from: a header and the committee of its period, under a checkpoint root known beforehand."""

    header: LightClientHeader
    current_committee: SyncCommittee
    current_committee_branch: tuple[bytes, ...]


@dataclass(frozen=True)
class Update:
    """One signed statement of a sync committee; full, finality and optimistic updates are this one type.

    Without finality ``finalized`` is None and ``finality_branch`` (); without a next committee likewise. ``finalized`` None with a
    branch states the zero root of genesis. ``signature_slot`` is the slot of the block that carries the aggregate.
    """

    attested: LightClientHeader
    aggregate: SyncAggregate
    signature_slot: int
    finalized: LightClientHeader | None = None
    finality_branch: tuple[bytes, ...] = ()
    next_committee: SyncCommittee | None = None
    next_committee_branch: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Trusted:
    """What the light client believes. Replaced, never mutated.

    Settlement reads ``finalized`` only. ``optimistic`` is information for people (and for the consensus vectors).
    """

    finalized: LightClientHeader
    optimistic: LightClientHeader
    current_committee: SyncCommittee
    next_committee: SyncCommittee | None = None


@dataclass(frozen=True)
class Proof:
    """What `eth_getProof` says of one storage slot of one account: trie nodes (RLP), root first. Values come from the walk.

    ``address`` is 20 bytes, ``slot`` the storage slot number (u256).
    """

    address: bytes
    slot: int
    account_nodes: tuple[bytes, ...]
    storage_nodes: tuple[bytes, ...]


@dataclass(frozen=True)
class Account:
    """An account of the state trie as its leaf says: balance in wei, 32-byte storage root and code hash."""

    nonce: int
    balance_wei: int
    storage_root: bytes
    code_hash: bytes


@dataclass(frozen=True)
class Equivocation:
    """Two statements of one committee that exclude each other: a proof of fault anyone who knows the committee can check.

    ``kind`` is "attested" (two heads at one signature slot), "finalized" (two finalized headers at one slot) or "committee" (two next
    committees for one period). Both updates are signed by more than the floor.
    """

    kind: str
    first: Update
    second: Update
