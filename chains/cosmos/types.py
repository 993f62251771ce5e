"""The words of the Cosmos family: what a light client is told, what it believes, and what proves an outbox head.

Frozen values without behaviour. Times are integers, nanoseconds since 1970 (`_ns`), because validators sign nanoseconds; the product's
seconds are made at the family's edge. A validator's address is never stored beside its key: it follows from the key, and a redundant
field that can disagree is an incident of its own (F6).

Source: CometBFT specification, "Data structures"; ibc-go light client 07-tendermint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

NANOSECONDS = 1_000_000_000
ZERO_TIME_NS = -62_135_596_800 * NANOSECONDS
"""Year 1: what Go calls the zero time, and what an absent vote carries."""


@dataclass(frozen=True)
class PartSetHeader:
    """How a block was cut for gossip: number of parts (u32) and the root over them (32 bytes or none)."""

    total: int = 0
    hash: bytes = b""


@dataclass(frozen=True)
class BlockId:
    """Names a block: header hash (32 bytes, empty for nil) and part-set header."""

    hash: bytes = b""
    parts: PartSetHeader = PartSetHeader()


@dataclass(frozen=True)
class Header:
    """A block header; hashes are 32 bytes or empty, ``proposer_address`` 20, ``app_hash`` is the state *before* this block."""

    version_block: int
    version_app: int
    chain_id: str
    height: int
    time_ns: int
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer_address: bytes


class Flag(IntEnum):
    """What a validator's slot in a commit says: nothing, a vote for the block, a vote for nil."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


@dataclass(frozen=True)
class CommitSig:
    """One slot of a commit. An absent one has no address, the zero time and no signature; else 20 and 64 bytes."""

    flag: int
    address: bytes = b""
    time_ns: int = ZERO_TIME_NS
    signature: bytes = b""


@dataclass(frozen=True)
class Commit:
    """Precommits of one round over one block, slot i being that of validator i of the height's set."""

    height: int
    round: int
    block_id: BlockId
    signatures: tuple[CommitSig, ...]


class KeyType(IntEnum):
    """Kind of a validator's key; the number is the field of the protobuf oneof."""

    ED25519 = 1
    SECP256K1 = 2


@dataclass(frozen=True)
class PublicKey:
    """A validator's key: ed25519 (32 bytes) or secp256k1 (33 bytes, compressed)."""

    kind: KeyType
    data: bytes


@dataclass(frozen=True)
class Validator:
    """A member of a validator set; ``power`` is a positive i64."""

    key: PublicKey
    power: int


Members = tuple[tuple[KeyType, bytes, int], ...]
"""Kind, key and power of everybody in a set, in order."""


@dataclass(frozen=True)
class ValidatorSet:
    """The validators of one height in the order of the chain (power descending, then address); the order is hashed."""

    validators: tuple[Validator, ...]

    @cached_property
    def members(self) -> Members:
        """The same as plain tuples, which are quickly compared."""
        return tuple([(v.key.kind, v.key.data, v.power) for v in self.validators])

    @cached_property
    def _hash(self) -> int:
        return hash(self.members)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ValidatorSet) and self.members == other.members)

    def __hash__(self) -> int:
        # kept: whole sets are looked up by their content several times a block
        return self._hash

    @cached_property
    def total_power(self) -> int:
        """Sum of all powers."""
        return sum(validator.power for validator in self.validators)


@dataclass(frozen=True)
class LightBlock:
    """A header with the commit over it and the sets that it names by hash. Bootstrap and update of this family.

    ``next_validators`` is None where the source does not say them; when ``next_validators_hash`` equals ``validators_hash`` they are
    ``validators`` again and left out.
    """

    header: Header
    commit: Commit
    validators: ValidatorSet
    next_validators: ValidatorSet | None = None


Bootstrap = LightBlock
Update = LightBlock


@dataclass(frozen=True)
class Trusted:
    """What the light client believes: one header's essence and, where known, the set of the next height. Replaced, never mutated.

    ``app_hash`` is the state after block ``height - 1``.
    """

    chain_id: str
    height: int
    time_ns: int
    header_hash: bytes
    app_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    next_validators: ValidatorSet | None = None


@dataclass(frozen=True)
class ProofOp:
    """One step of what `abci_query` proves: kind of proof, key, and an ICS-23 CommitmentProof as bytes."""

    type: str
    key: bytes
    data: bytes


@dataclass(frozen=True)
class Proof:
    """What `abci_query path="/store/wasm/key" prove=true` says: the IAVL step, then the multistore step."""

    ops: tuple[ProofOp, ...]


@dataclass(frozen=True)
class Misbehaviour:
    """Two signed blocks of one chain that exclude each other: a proof of fault for anyone who trusts a header before both.

    ``kind`` is "fork" (one height, two headers) or "time" (a later height, not a later time). ``first`` is the higher one, or either.
    """

    kind: str
    first: LightBlock
    second: LightBlock
