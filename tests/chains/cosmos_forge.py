"""Makes CometBFT blocks and store proofs with test keys: real commits, real trees; any part may be made wrong on purpose.

Validators are named by short texts; a name gives its key. Trees hold few entries and give proofs in the form nodes give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, serialize_compact

from chains.cosmos import ed25519
from chains.cosmos import light_client as lc
from chains.cosmos.hashing import (
    PRECOMMIT,
    VoteEncoder,
    compute_address,
    compute_header_hash,
    compute_merkle_root,
    compute_validators_hash,
)
from chains.cosmos.ics23 import (
    ExistenceProof,
    HashOp,
    InnerOp,
    LeafOp,
    LengthOp,
    NonExistenceProof,
    encode_entry,
)
from chains.cosmos.protobuf import encode_varint
from chains.cosmos.types import (
    NANOSECONDS,
    BlockId,
    Commit,
    CommitSig,
    Flag,
    Header,
    KeyType,
    LightBlock,
    PartSetHeader,
    Proof,
    ProofOp,
    PublicKey,
    Trusted,
    Validator,
    ValidatorSet,
)

assert PRECOMMIT == 2

CHAIN = "forge-1"
GENESIS_NS = 1_700_000_000 * NANOSECONDS
STEP_NS = 5 * NANOSECONDS
CONFIG = lc.LightClientConfig(CHAIN, max_clock_drift_ns=NANOSECONDS)
NAMES = ("ann", "ben", "cat", "dan", "eve", "fay", "gus", "hal")


def get_seed(name: str) -> bytes:
    return sha256(b"validator " + name.encode()).digest()


@lru_cache(maxsize=256)
def get_key(name: str) -> PublicKey:
    """Return the key of a name; names that begin with "k1" have a secp256k1 key."""
    if name.startswith("k1"):
        return PublicKey(KeyType.SECP256K1, PrivateKey(get_seed(name)).public_key.format())
    return PublicKey(KeyType.ED25519, ed25519.compute_public_key(get_seed(name)))


@lru_cache(maxsize=4096)
def sign(name: str, message: bytes) -> bytes:
    if name.startswith("k1"):
        der = PrivateKey(get_seed(name)).sign(sha256(message).digest(), hasher=None)
        return bytes(serialize_compact(der_to_cdata(der)))
    return ed25519.sign(get_seed(name), message)


def make_set(powers: Mapping[str, int] | Sequence[str]) -> ValidatorSet:
    """Return a set in the chain's order: power descending, then address; names alone have power 10 each."""
    if not isinstance(powers, Mapping):
        powers = dict.fromkeys(powers, 10)
    members = [Validator(get_key(name), power) for name, power in powers.items()]
    return ValidatorSet(tuple(sorted(members, key=lambda v: (-v.power, compute_address(v.key)))))


def get_name(key: PublicKey) -> str:
    return next(name for name in (*NAMES, *EXTRA) if get_key(name) == key)


EXTRA = ("k1a", "k1b", "k1c", *(f"v{i}" for i in range(150)))


@dataclass(frozen=True)
class Forge:
    """Makes the blocks of one chain. ``sets`` gives the validators from a height on; the last entry at or below a height counts."""

    sets: tuple[tuple[int, ValidatorSet], ...]
    chain_id: str = CHAIN

    def get_set(self, height: int) -> ValidatorSet:
        return [members for start, members in self.sets if start <= height][-1]

    def get_time(self, height: int) -> int:
        return GENESIS_NS + height * STEP_NS

    def make_header(self, height: int, **changes) -> Header:
        fields = {
            "version_block": 11,
            "version_app": 0,
            "chain_id": self.chain_id,
            "height": height,
            "time_ns": self.get_time(height),
            "last_block_id": BlockId(b"\5" * 32, PartSetHeader(1, b"\6" * 32)),
            "last_commit_hash": b"\7" * 32,
            "data_hash": b"\x08" * 32,
            "validators_hash": compute_validators_hash(self.get_set(height)),
            "next_validators_hash": compute_validators_hash(self.get_set(height + 1)),
            "consensus_hash": b"\x09" * 32,
            "app_hash": sha256(b"app %d" % height).digest(),
            "last_results_hash": b"\x0a" * 32,
            "evidence_hash": b"\x0b" * 32,
            "proposer_address": b"\x0c" * 20,
        }
        return Header(**{**fields, **changes})

    def make_block(self, height: int, signers=None, nil=(), round_=0, validators=None, **changes) -> LightBlock:
        """Return a signed block. ``signers``: names (default everybody); ``nil``: names that vote for nothing; else absent."""
        members = validators or self.get_set(height)
        if validators is not None:
            changes.setdefault("validators_hash", compute_validators_hash(validators))
        header = self.make_header(height, **changes)
        following = self.get_set(height + 1)
        if compute_validators_hash(following) != header.next_validators_hash:
            following = None
        return LightBlock(header, make_commit(header, members, signers, nil, round_), members, following)

    def make_trusted(self, height: int) -> Trusted:
        return lc.make_trusted(self.make_block(height))


def make_commit(header: Header, members: ValidatorSet, signers=None, nil=(), round_=0) -> Commit:
    block_id = BlockId(compute_header_hash(header), PartSetHeader(1, sha256(b"parts").digest()))
    names = [get_name(member.key) for member in members.validators]
    signers = set(names if signers is None else signers) - set(nil)
    commit = Commit(header.height, round_, block_id, ())
    encoder = VoteEncoder(header.chain_id, commit)
    votes = []
    for slot, (name, member) in enumerate(zip(names, members.validators, strict=True)):
        flag = Flag.COMMIT if name in signers else Flag.NIL if name in nil else Flag.ABSENT
        if flag is Flag.ABSENT:
            votes.append(CommitSig(flag))
            continue
        time_ns = header.time_ns + 300_000_000 + (slot + 1) * 1_000_003
        votes.append(CommitSig(flag, compute_address(member.key), time_ns, sign(name, encoder.encode(flag, time_ns))))
    return replace(commit, signatures=tuple(votes))


def change_vote(block: LightBlock, slot: int, **changes) -> LightBlock:
    votes = list(block.commit.signatures)
    votes[slot] = replace(votes[slot], **changes)
    return replace(block, commit=replace(block.commit, signatures=tuple(votes)))


# ---- trees ------------------------------------------------------------------------------------------------------------

LEAF_VERSION = 5
IAVL_LEAF = LeafOp(
    HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\0\2" + encode_varint(LEAF_VERSION * 2)
)
SIMPLE_LEAF = LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\0")


def encode_leaf_preimage(prefix: bytes, key: bytes, value: bytes) -> bytes:
    digest = sha256(value).digest()
    return prefix + encode_varint(len(key)) + key + encode_varint(len(digest)) + digest


class Tree:
    """A tree over sorted entries; a path lists the steps from a leaf up, as proofs do."""

    def __init__(self, entries: Mapping[bytes, bytes], leaf: LeafOp) -> None:
        self.entries = dict(sorted(entries.items()))
        self.leaf = leaf
        self.paths: dict[bytes, list[InnerOp]] = {key: [] for key in self.entries}
        self.root, _ = self._build(list(self.entries))

    def _build(self, keys: list[bytes]) -> tuple[bytes, int]:
        """Return hash and height of the subtree over keys."""
        if len(keys) == 1:
            return sha256(encode_leaf_preimage(self.leaf.prefix, keys[0], self.entries[keys[0]])).digest(), 0
        middle = self.split(len(keys))
        left, left_height = self._build(keys[:middle])
        right, right_height = self._build(keys[middle:])
        height = max(left_height, right_height) + 1
        head, is_iavl = self.get_head(height, len(keys)), self.leaf is IAVL_LEAF
        size = b"\x20" if is_iavl else b""
        for key in keys[:middle]:
            self.paths[key].append(InnerOp(HashOp.SHA256, head + size, size + right))
        for key in keys[middle:]:
            self.paths[key].append(InnerOp(HashOp.SHA256, head + size + left + size, b""))
        return sha256(head + size + left + size + right).digest(), height

    def split(self, count: int) -> int:
        """Where a node divides its keys: IAVL in halves, the simple tree at the largest power of two that leaves a rest."""
        return (count + 1) // 2 if self.leaf is IAVL_LEAF else 1 << (count - 1).bit_length() - 1

    def get_head(self, height: int, size: int) -> bytes:
        if self.leaf is not IAVL_LEAF:
            return b"\1"
        return encode_varint(height * 2) + encode_varint(size * 2) + encode_varint(LEAF_VERSION * 2)

    def prove(self, key: bytes) -> ExistenceProof:
        return ExistenceProof(key, self.entries[key], self.leaf, tuple(self.paths[key]))

    def prove_absence(self, key: bytes) -> NonExistenceProof:
        before = [k for k in self.entries if k < key]
        after = [k for k in self.entries if k > key]
        return NonExistenceProof(
            key, self.prove(before[-1]) if before else None, self.prove(after[0]) if after else None
        )


def make_stores(entries: Mapping[bytes, bytes], store: bytes = b"wasm") -> tuple[Tree, Tree]:
    """Return a module's tree and the multistore above it, whose root is the app hash."""
    module = Tree(entries, IAVL_LEAF)
    others = {name: sha256(name).digest() for name in (b"acc", b"bank", b"gov", b"ibc", b"staking")}
    return module, Tree({**others, store: module.root}, SIMPLE_LEAF)


def make_store_proof(module: Tree, stores: Tree, key: bytes, store: bytes = b"wasm") -> Proof:
    entry = module.prove(key) if key in module.entries else module.prove_absence(key)
    return Proof(
        (
            ProofOp("ics23:iavl", key, encode_entry(entry)),
            ProofOp("ics23:simple", store, encode_entry(stores.prove(store))),
        )
    )


def compute_simple_root(entries: Mapping[bytes, bytes]) -> bytes:
    """Return the multistore's root by the definition of the tree, as a check on `Tree`."""
    return compute_merkle_root([encode_leaf_preimage(b"", key, value) for key, value in sorted(entries.items())])
