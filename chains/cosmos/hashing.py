"""What validators hash and sign: the Merkle tree, the header, the validator set, the vote. Pure.

Source: RFC 6962, 2.1 (tree); CometBFT specification, "Encoding" and "Data structures"; `types.CanonicalVote`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from hashlib import sha256

from Crypto.Hash import RIPEMD160

from chains.cosmos.protobuf import (
    encode_block_id,
    encode_bytes,
    encode_fixed64,
    encode_integer,
    encode_message,
    encode_simple_validator,
    encode_timestamp,
    encode_varint,
    encode_version,
)
from chains.cosmos.types import (
    NANOSECONDS,
    BlockId,
    Commit,
    Flag,
    Header,
    KeyType,
    PublicKey,
    ValidatorSet,
)

PRECOMMIT = 2
EMPTY_ROOT = sha256(b"").digest()


def compute_merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the RFC 6962 tree head: leaves under 00, nodes under 01, the left part the largest power of two that leaves a rest."""
    if not leaves:
        return EMPTY_ROOT
    level = [sha256(b"\0" + leaf).digest() for leaf in leaves]
    # Pairing neighbours level by level and carrying an odd one up gives the same tree as the recursive definition.
    while len(level) > 1:
        paired = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def compute_header_hash(header: Header) -> bytes:
    """Return the 32-byte block hash: the root over the fourteen fields, scalars in their protobuf wrapper messages."""
    return compute_merkle_root(
        (
            encode_version(header),
            encode_bytes(1, header.chain_id.encode()),
            encode_integer(1, header.height),
            encode_timestamp(header.time_ns),
            encode_block_id(header.last_block_id),
            encode_bytes(1, header.last_commit_hash),
            encode_bytes(1, header.data_hash),
            encode_bytes(1, header.validators_hash),
            encode_bytes(1, header.next_validators_hash),
            encode_bytes(1, header.consensus_hash),
            encode_bytes(1, header.app_hash),
            encode_bytes(1, header.last_results_hash),
            encode_bytes(1, header.evidence_hash),
            encode_bytes(1, header.proposer_address),
        )
    )


def compute_validators_hash(validators: ValidatorSet) -> bytes:
    """Return the 32-byte hash of a set in its order: keys and powers; addresses and proposer priorities are not under it."""
    return compute_merkle_root([encode_simple_validator(validator) for validator in validators.validators])


def compute_address(key: PublicKey) -> bytes:
    """Return the 20-byte address of a key: cut SHA-256 (ed25519), RIPEMD-160 of SHA-256 (secp256k1)."""
    digest = hashlib.sha256(key.data).digest()
    if key.kind is KeyType.SECP256K1:
        return RIPEMD160.new(digest).digest()
    return digest[:20]


class VoteEncoder:
    """Sign-bytes of the votes of one commit: only the time differs, and nil votes name no block.

    What the votes have in common is encoded once, the seconds once a second; the rest of a vote is its nanoseconds.
    """

    def __init__(self, chain_id: str, commit: Commit) -> None:
        ids: dict[int, BlockId | None] = {Flag.COMMIT: commit.block_id, Flag.NIL: None}
        self._heads = {flag: encode_vote_head(PRECOMMIT, commit.height, commit.round, i) for flag, i in ids.items()}
        self._tail = encode_bytes(6, chain_id.encode())
        self._seconds: dict[int, bytes] = {}

    def encode(self, flag: int, time_ns: int) -> bytes:
        """Return what a validator signed for a vote of a flag (COMMIT or NIL) at a time."""
        seconds, nanos = divmod(time_ns, NANOSECONDS)
        stamp = self._seconds.get(seconds)
        if stamp is None:
            stamp = self._seconds[seconds] = encode_integer(1, seconds)
        if nanos >> 28:  # nearly all: written out, once a vote
            n = nanos
            stamp += bytes((16, n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127 | 128, n >> 28))
        elif nanos:
            stamp += b"\x10" + encode_varint(nanos)
        # field 5, length-delimited; a time has at most 17 bytes
        body = self._heads[flag] + b"\x2a" + bytes((len(stamp),)) + stamp + self._tail
        return encode_varint(len(body)) + body


def encode_vote_head(kind: int, height: int, round_: int, block_id: BlockId | None) -> bytes:
    """Return the fields of CanonicalVote before the time: 1 type, 2 height, 3 round (both fixed), 4 block id unless nil."""
    return b"".join(
        (
            encode_integer(1, kind),
            encode_fixed64(2, height),
            encode_fixed64(3, round_),
            b"" if block_id is None else encode_message(4, encode_block_id(block_id)),
        )
    )


def encode_vote(chain_id: str, kind: int, height: int, round_: int, block_id: BlockId | None, time_ns: int) -> bytes:
    """Return the sign-bytes of any vote: CanonicalVote with its length in front. ``kind`` 1 prevote, 2 precommit."""
    body = b"".join(
        (
            encode_vote_head(kind, height, round_, block_id),
            encode_message(5, encode_timestamp(time_ns)),
            encode_bytes(6, chain_id.encode()),
        )
    )
    return encode_varint(len(body)) + body
