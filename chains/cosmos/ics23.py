"""ICS-23: that a key has a value, or has none, under a root; checked against a spec that the *verifier* chose. Pure.

A proof says how to hash a leaf and which bytes to put around it on the way up. Left alone such a proof could claim anything, because an inner
node's bytes can be read as a leaf's and the other way round. What makes it sound is the spec: it fixes the hash functions, the prefix
of leaves, the lengths of what may stand around a child. The three specs below are constants; none is ever read from outside (A3).

Beyond the generic spec two trees have rules of their own (A2, "Dragonberry"): the prefix of an IAVL node must be exactly the three varints
of the node with nothing hidden behind them, and a Tendermint node is its one byte and whole hashes.

Batch proofs are read too: an entry is looked up by the key in question and then checked alone. Range proofs of old IAVL versions are not
ICS-23 and are not read at all (A1).

Sources: cosmos/ics23 specification and `proofs.proto`; iavl node hashing; CometBFT `crypto/merkle`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from Crypto.Hash import RIPEMD160, SHA512

from chains.cosmos.protobuf import (
    Field,
    Kind,
    Schema,
    decode_message,
    encode_bytes,
    encode_integer,
    encode_message,
    encode_varint,
    read_varint,
    refuse,
)
from messages.errors import Rejected
from messages.hashing import keccak256

DEFAULT_MAX_DEPTH = 128
"""Where a spec says none: never unlimited (A5)."""
MAX_PROOF_BYTES = 1 << 20
MAX_BATCH_ENTRIES = 4096
MAX_INFLATED_OPS = 100_000
"""Bound of what a compressed batch may unfold to."""


class HashOp(IntEnum):
    """Hash functions of the format; BLAKE3 (9) is in no spec here and unknown."""

    NO_HASH = 0
    SHA256 = 1
    SHA512 = 2
    KECCAK256 = 3
    RIPEMD160 = 4
    BITCOIN = 5
    SHA512_256 = 6
    BLAKE2B_512 = 7
    BLAKE2S_256 = 8


class LengthOp(IntEnum):
    """What is put before key and value of a leaf; VAR_RLP (2) is in the format and implemented nowhere."""

    NO_PREFIX = 0
    VAR_PROTO = 1
    FIXED32_BIG = 3
    FIXED32_LITTLE = 4
    FIXED64_BIG = 5
    FIXED64_LITTLE = 6
    REQUIRE_32_BYTES = 7
    REQUIRE_64_BYTES = 8


class LeafOp(NamedTuple):
    """How a leaf is hashed: hash(prefix || length(prehash_key(key)) || length(prehash_value(value)))."""

    hash: int = 0
    prehash_key: int = 0
    prehash_value: int = 0
    length: int = 0
    prefix: bytes = b""


class InnerOp(NamedTuple):
    """How a parent is made of a child: hash(prefix || child || suffix)."""

    hash: int = 0
    prefix: bytes = b""
    suffix: bytes = b""


class ExistenceProof(NamedTuple):
    """A leaf and the steps from it up to the root."""

    key: bytes = b""
    value: bytes = b""
    leaf: LeafOp | None = None
    path: tuple[InnerOp, ...] = ()


class NonExistenceProof(NamedTuple):
    """The neighbours between which a key would be; ``key`` is what the prover says and decides nothing."""

    key: bytes = b""
    left: ExistenceProof | None = None
    right: ExistenceProof | None = None


Entry = ExistenceProof | NonExistenceProof
CommitmentProof = tuple[Entry, ...]
"""One entry of a plain proof, several of a batch."""


@dataclass(frozen=True)
class InnerSpec:
    """Shape of inner nodes: order of children, bytes of a child, least and most bytes before the first, what stands for none."""

    child_order: tuple[int, ...]
    child_size: int
    min_prefix: int
    max_prefix: int
    hash: HashOp = HashOp.SHA256
    empty_child: bytes = b""


@dataclass(frozen=True)
class ProofSpec:
    """What a tree's proofs must look like; depths of 0 mean none and `DEFAULT_MAX_DEPTH`."""

    leaf: LeafOp
    inner: InnerSpec
    min_depth: int = 0
    max_depth: int = 0
    compares_hashed_keys: bool = False

    def __post_init__(self) -> None:
        """Refuse a spec under which one step could be read as two positions, or that has no children (A3, A4)."""
        inner = self.inner
        if inner.child_size <= 0 or sorted(inner.child_order) != list(range(len(inner.child_order))):
            raise Rejected("children of a proof spec", got=inner, reason="bad_spec")
        if not 0 <= inner.min_prefix <= inner.max_prefix < inner.min_prefix + inner.child_size:
            raise Rejected("prefix lengths of a proof spec are ambiguous", got=inner, reason="bad_spec")


IAVL_SPEC = ProofSpec(
    LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\0"),
    InnerSpec(child_order=(0, 1), child_size=33, min_prefix=4, max_prefix=12),
)
"""The store of a Cosmos SDK module; a child is its length byte and 32 bytes of hash."""
TENDERMINT_SPEC = ProofSpec(
    LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\0"),
    InnerSpec(child_order=(0, 1), child_size=32, min_prefix=1, max_prefix=1),
)
"""The multistore: store names over store roots, up to the app hash."""
SMT_SPEC = ProofSpec(
    LeafOp(HashOp.SHA256, HashOp.SHA256, HashOp.SHA256, LengthOp.NO_PREFIX, b"\0"),
    InnerSpec(child_order=(0, 1), child_size=32, min_prefix=1, max_prefix=1, empty_child=bytes(32)),
    max_depth=256,
    compares_hashed_keys=True,
)
"""Sparse Merkle tree of the SDK's store v2."""


def is_like(spec: ProofSpec, other: ProofSpec) -> bool:
    """Ask whether two specs describe one kind of tree, depths apart: such proofs obey that tree's own rules too."""
    a, b = spec.inner, other.inner
    return (
        spec.leaf[:4] == other.leaf[:4]
        and (a.hash, a.min_prefix, a.max_prefix, a.child_size) == (b.hash, b.min_prefix, b.max_prefix, b.child_size)
        and len(a.child_order) == len(b.child_order)
        and bool(a.empty_child) == bool(b.empty_child)
    )


# ---- hashing ----------------------------------------------------------------------------------------------------------


def _refuse(what: str, reason: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(what, got=got, expected=expected, reason=reason)


_HASHES: dict[int, Callable[[bytes], bytes]] = {
    HashOp.SHA256: lambda data: sha256(data).digest(),
    HashOp.SHA512: lambda data: hashlib.sha512(data).digest(),
    HashOp.KECCAK256: keccak256,
    HashOp.RIPEMD160: lambda data: RIPEMD160.new(data).digest(),
    HashOp.BITCOIN: lambda data: RIPEMD160.new(sha256(data).digest()).digest(),
    HashOp.SHA512_256: lambda data: SHA512.new(data, truncate="256").digest(),
    HashOp.BLAKE2B_512: lambda data: hashlib.blake2b(data).digest(),
    HashOp.BLAKE2S_256: lambda data: hashlib.blake2s(data).digest(),
}


def compute_hash(operation: int, data: bytes) -> bytes:
    """Return the digest of data under a hash operation; Rejected ("bad_op") for none or an unknown one."""
    function = _HASHES.get(operation)
    if function is None:
        raise _refuse("an unknown hash operation", "bad_op", operation)
    return function(data)


def _prepare(prehash: int, length: int, data: bytes) -> bytes:
    """Return one part of a leaf's preimage: hashed where the operation says so, then with its length."""
    if not data:
        raise _refuse("a leaf needs a key and a value", "empty_leaf")
    part = data if prehash == HashOp.NO_HASH else compute_hash(prehash, data)
    size = len(part)
    if length == LengthOp.VAR_PROTO:
        return encode_varint(size) + part
    if length == LengthOp.NO_PREFIX:
        return part
    if length in {LengthOp.FIXED32_BIG, LengthOp.FIXED32_LITTLE}:
        return size.to_bytes(4, "big" if length == LengthOp.FIXED32_BIG else "little") + part
    if length in {LengthOp.FIXED64_BIG, LengthOp.FIXED64_LITTLE}:
        return size.to_bytes(8, "big" if length == LengthOp.FIXED64_BIG else "little") + part
    if (length, size) in {(LengthOp.REQUIRE_32_BYTES, 32), (LengthOp.REQUIRE_64_BYTES, 64)}:
        return part
    raise _refuse("an unknown length operation, or data of another length", "bad_op", (length, size))


def compute_leaf(leaf: LeafOp, key: bytes, value: bytes) -> bytes:
    """Return a leaf's hash; Rejected ("empty_leaf", "bad_op")."""
    preimage = (
        leaf.prefix + _prepare(leaf.prehash_key, leaf.length, key) + _prepare(leaf.prehash_value, leaf.length, value)
    )
    return compute_hash(leaf.hash, preimage)


def compute_inner(step: InnerOp, child: bytes) -> bytes:
    """Return a parent's hash; Rejected ("empty_child", "bad_op")."""
    if not child:
        raise _refuse("a step needs a child", "empty_child")
    return compute_hash(step.hash, step.prefix + child + step.suffix)


def compute_existence_root(proof: ExistenceProof) -> bytes:
    """Return the root that an existence proof leads to, judged by no spec; Rejected ("no_leaf", "empty_leaf", "bad_op")."""
    if proof.leaf is None:
        raise _refuse("a proof without a leaf", "no_leaf")
    result = compute_leaf(proof.leaf, proof.key, proof.value)
    usual = int(HashOp.SHA256)
    for step in proof.path:
        operation, prefix, suffix = step
        # all but some vectors: saves a call a step
        result = sha256(prefix + result + suffix).digest() if operation == usual else compute_inner(step, result)
    return result


# ---- rules of a spec --------------------------------------------------------------------------------------------------


def verify_leaf_op(leaf: LeafOp, spec: LeafOp) -> None:
    """Check a leaf against a spec's leaf: equal operations, its prefix in front; Rejected ("bad_leaf")."""
    if leaf[:4] != spec[:4] or not leaf.prefix.startswith(spec.prefix):
        raise _refuse("a leaf of another kind of tree", "bad_leaf", leaf, spec)


def verify_iavl_prefix(prefix: bytes, min_height: int, *, is_leaf: bool) -> int:
    """Check the prefix of an IAVL node: height, size, version as signed varints, none negative, nothing hidden behind them.

    After them comes nothing in a leaf; else one length byte (before a left child) or length, hash, length (before a right child). Returns
    how many bytes that is.

    Raises Rejected ("bad_iavl_op").
    """
    height, at = _read_signed_varint(prefix, 0)
    count, at = _read_signed_varint(prefix, at)
    version, at = _read_signed_varint(prefix, at)
    rest = len(prefix) - at
    is_right = rest == 0 and height == 0 and count == 1 if is_leaf else rest in {1, 34}
    if height < min_height or count < 0 or version < 0 or not is_right:
        raise _refuse("not the prefix of an IAVL node", "bad_iavl_op", prefix)
    return rest


def _measure_usual_iavl_prefix(prefix: bytes, min_height: int) -> int:
    """Return what `verify_iavl_prefix` returns for an inner node, 0 where it must be asked: another form, or one to refuse.

    Only the lowest bit of each varint (its sign) and its end matter here, so no number is put together.
    """
    size = len(prefix)
    if not size or prefix[0] & 129 or prefix[0] >> 1 < min_height:
        return 0
    at = 1
    for _ in (0, 1):
        start = at
        while at < size and prefix[at] > 127:
            at += 1
        # over eight bytes, or a last byte that adds nothing: let the full reader say
        if at >= size or prefix[start] & 1 or at > start + 7 or (at > start and not prefix[at]):
            return 0
        at += 1
    rest = size - at
    return rest if rest == 1 or rest == 34 else 0  # noqa: PLR1714  (two comparisons are quicker than a set)


def _read_signed_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag varint as IAVL writes it, and the offset after it."""
    if at < len(data) and data[at] < 128:
        number, at = data[at], at + 1
    else:
        try:
            number, at = read_varint(data, at)
        except Rejected as error:
            raise _refuse("not the prefix of an IAVL node", "bad_iavl_op", data) from error
    return (number >> 1) ^ -(number & 1), at


def get_known_kind(spec: ProofSpec) -> ProofSpec | None:
    """Return the spec of the tree with rules of its own that a spec describes, None for another tree."""
    if spec is IAVL_SPEC or spec is TENDERMINT_SPEC:  # the usual case, found without comparing fields
        return spec
    return next((known for known in (IAVL_SPEC, TENDERMINT_SPEC) if is_like(spec, known)), None)


_SIMPLE_STEPS = ((1, 32), (33, 0))
"""Bytes before and after a left and a right child."""


def verify_inner_op(step: InnerOp, spec: ProofSpec, layer: int) -> None:
    """Check a step against a spec at a layer (1 is just above the leaf).

    Raises Rejected: "bad_inner" (hash, prefix or suffix of another shape, or a prefix that could be a leaf's), "bad_iavl_op".
    """
    _verify_steps((step,), spec, layer)


def _verify_steps(path: Sequence[InnerOp], spec: ProofSpec, layer: int) -> None:
    """Check steps that follow each other, the first at a layer; as `verify_inner_op`."""
    kind, inner, leaf_prefix = get_known_kind(spec), spec.inner, spec.leaf.prefix
    operation, child_size, least = inner.hash, inner.child_size, inner.min_prefix
    most = inner.max_prefix + (len(inner.child_order) - 1) * child_size
    for step in path:
        hash_, prefix, suffix = step
        if (
            hash_ != operation
            or not least <= len(prefix) <= most
            or len(suffix) % child_size
            or (leaf_prefix and prefix.startswith(leaf_prefix))
        ):
            raise _refuse("a step of another kind of tree", "bad_inner", step)
        if kind is IAVL_SPEC:
            rest = _measure_usual_iavl_prefix(prefix, layer) or verify_iavl_prefix(prefix, layer, is_leaf=False)
            if rest > 1 and suffix:
                # a node has two children: with a left one in the prefix none can follow (A1)
                raise _refuse("a step between two other children", "bad_iavl_op", step)
        elif kind is TENDERMINT_SPEC:
            verify_tendermint_op(step)
        layer += 1


def verify_tendermint_op(step: InnerOp) -> None:
    """Check a step of the multistore: 01 and one hash on either side of the child, nothing else.

    Raises Rejected ("bad_inner").
    """
    _, prefix, suffix = step
    if prefix[:1] != b"\1" or (len(prefix), len(suffix)) not in _SIMPLE_STEPS:
        raise _refuse("not a step of a Tendermint tree", "bad_inner", step)


def verify_against_spec(proof: ExistenceProof, spec: ProofSpec) -> None:
    """Check leaf, depth and every step of an existence proof against a spec.

    Raises Rejected: "no_leaf", "bad_leaf", "bad_depth", and the reasons of `verify_inner_op`.
    """
    leaf, path = proof.leaf, proof.path
    if leaf is None:
        raise _refuse("a proof without a leaf", "no_leaf")
    verify_leaf_op(leaf, spec.leaf)
    if not spec.min_depth <= len(path) <= (spec.max_depth or DEFAULT_MAX_DEPTH):
        raise _refuse("a path of another depth", "bad_depth", len(path), (spec.min_depth, spec.max_depth))
    kind = get_known_kind(spec)
    if kind is IAVL_SPEC:
        verify_iavl_prefix(leaf.prefix, 0, is_leaf=True)
    elif kind is TENDERMINT_SPEC and leaf.prefix != spec.leaf.prefix:
        # a name's first bytes hidden in the prefix would leave its end as a name of its own (A2)
        raise _refuse("bytes hidden in the prefix of a leaf", "bad_leaf", leaf.prefix, spec.leaf.prefix)
    _verify_steps(path, spec, 1)


def verify_existence(proof: ExistenceProof, spec: ProofSpec, root: bytes, key: bytes, value: bytes) -> None:
    """Check that a proof shows a value at a key under a root.

    Raises Rejected: "wrong_root", and the reasons of `verify_existence_claim`.
    """
    got = verify_existence_claim(proof, spec, key, value)
    if got != root or not root:
        raise _refuse("the proof leads to another root", "wrong_root", got, root)


def verify_existence_claim(proof: ExistenceProof, spec: ProofSpec, key: bytes, value: bytes) -> bytes:
    """Return the root under which a proof shows a value at a key; the caller must know that root.

    Raises Rejected: "wrong_key", "wrong_value", and the reasons of `verify_against_spec` and `compute_existence_root`.
    """
    if proof.key != key:
        raise _refuse("the proof is about another key", "wrong_key", proof.key, key)
    if proof.value != value:
        raise _refuse("the proof is about another value", "wrong_value", proof.value, value)
    verify_against_spec(proof, spec)
    return compute_existence_root(proof)


def verify_non_existence(proof: NonExistenceProof, spec: ProofSpec, root: bytes, key: bytes) -> None:
    """Check that a proof shows that no value is at a key: its neighbours exist, stand around it, and nothing is between them.

    Raises Rejected: "no_neighbour", "not_between", "not_adjacent", and the reasons of `verify_existence`.
    """
    left, right = proof.left, proof.right
    if left is None and right is None:
        raise _refuse("absence without a neighbour", "no_neighbour", key)
    for neighbour in (left, right):
        if neighbour is not None:
            verify_existence(neighbour, spec, root, neighbour.key, neighbour.value)
    if not _is_between(proof, spec, key):
        raise _refuse("the key is not between the neighbours", "not_between", key)
    inner = spec.inner
    if left is None:
        assert right is not None
        is_right = is_left_most(inner, right.path)
    elif right is None:
        is_right = is_right_most(inner, left.path)
    else:
        is_right = is_left_neighbour(inner, left.path, right.path)
    if not is_right:
        raise _refuse("there may be keys between the neighbours", "not_adjacent", key)


def _is_between(proof: NonExistenceProof, spec: ProofSpec, key: bytes) -> bool:
    def place(k: bytes) -> bytes:
        return compute_hash(spec.leaf.prehash_key, k) if spec.compares_hashed_keys else k

    return (proof.left is None or place(proof.left.key) < place(key)) and (
        proof.right is None or place(key) < place(proof.right.key)
    )


# ---- positions --------------------------------------------------------------------------------------------------------


def find_branch(inner: InnerSpec, step: InnerOp) -> int | None:
    """Return which child (0 leftmost) a step's padding says it is, None where it fits none."""
    for branch in range(len(inner.child_order)):
        if is_at_branch(inner, step, branch):
            return branch
    return None


def is_at_branch(inner: InnerSpec, step: InnerOp, branch: int) -> bool:
    """Ask whether a step's prefix and suffix are as long as they are at a branch (place in the order of children)."""
    at = inner.child_order.index(branch)
    before = at * inner.child_size
    after = (len(inner.child_order) - 1 - at) * inner.child_size
    return inner.min_prefix <= len(step.prefix) - before <= inner.max_prefix and len(step.suffix) == after


def is_left_most(inner: InnerSpec, path: Sequence[InnerOp]) -> bool:
    """Ask whether every step of a path is the leftmost child, or has only empty children to its left."""
    return all(is_at_branch(inner, step, 0) or _are_left_empty(inner, step) for step in path)


def is_right_most(inner: InnerSpec, path: Sequence[InnerOp]) -> bool:
    """Ask whether every step of a path is the rightmost child, or has only empty children to its right."""
    last = len(inner.child_order) - 1
    return all(is_at_branch(inner, step, last) or _are_right_empty(inner, step) for step in path)


def is_left_neighbour(inner: InnerSpec, left: Sequence[InnerOp], right: Sequence[InnerOp]) -> bool:
    """Ask whether no leaf is between two paths of one tree.

    Below their last common step they part into neighbouring children, the left one then keeping to the right edge and the right one to
    the left.
    """
    depth = 0
    while depth < min(len(left), len(right)) and left[-1 - depth][1:] == right[-1 - depth][1:]:
        depth += 1
    if depth == min(len(left), len(right)):
        return False  # one path is the other's, or lies inside it: these are not two leaves
    left, right = left[: len(left) - depth], right[: len(right) - depth]
    a, b = find_branch(inner, left[-1]), find_branch(inner, right[-1])
    return (
        a is not None
        and b is not None
        and b == a + 1
        and is_right_most(inner, left[:-1])
        and is_left_most(inner, right[:-1])
    )


def _are_left_empty(inner: InnerSpec, step: InnerOp) -> bool:
    branch = find_branch(inner, step)
    if not branch or not inner.empty_child:
        return False
    start = len(step.prefix) - branch * inner.child_size
    return start >= 0 and step.prefix[start:] == inner.empty_child * branch


def _are_right_empty(inner: InnerSpec, step: InnerOp) -> bool:
    branch = find_branch(inner, step)
    if branch is None or not inner.empty_child:
        return False
    count = len(inner.child_order) - 1 - branch
    return count > 0 and step.suffix == inner.empty_child * count


# ---- whole proofs -----------------------------------------------------------------------------------------------------


def verify_membership(spec: ProofSpec, root: bytes, proof: CommitmentProof, key: bytes, value: bytes) -> None:
    """Check that a decoded proof, or the entry of a batch that is about a key, shows its value under a root.

    Raises Rejected: "wrong_key" (no entry is about it), and the reasons of `verify_existence`.
    """
    verify_existence(get_existence(proof, key), spec, root, key, value)


def verify_non_membership(spec: ProofSpec, root: bytes, proof: CommitmentProof, key: bytes) -> None:
    """Check that a decoded proof, or the entry of a batch around a key, shows that nothing is at the key under a root.

    Raises Rejected: "not_between" (no entry is around it), "no_neighbour", and the reasons of `verify_non_existence`.
    """
    absences = [entry for entry in proof if isinstance(entry, NonExistenceProof)]
    if not absences:
        raise _refuse("the proof shows no absence", "wrong_kind", key)
    around = (entry for entry in absences if _is_between(entry, spec, key))
    verify_non_existence(next(around, absences[0]), spec, root, key)


def get_existence(proof: CommitmentProof, key: bytes) -> ExistenceProof:
    """Return the entry that claims existence of a key; Rejected ("wrong_kind", "wrong_key")."""
    found = [entry for entry in proof if isinstance(entry, ExistenceProof)]
    if not found:
        raise _refuse("the proof shows no existence", "wrong_kind", key)
    for entry in found:
        if entry.key == key:
            return entry
    raise _refuse("the proof is about another key", "wrong_key", found[0].key, key)


def verify_chained_membership(
    specs: Sequence[ProofSpec], root: bytes, proofs: Sequence[CommitmentProof], keys: Sequence[bytes], value: bytes
) -> None:
    """Check a value through trees inside trees: each tree's root is the value of the next, the last has the trusted root.

    Args:
        specs: kind of each tree, innermost first; chosen by the caller.
        root: trusted root of the outermost tree.
        proofs: one a tree; existence only, also above (a missing store proves nothing about its contents).
        keys: key in each tree, innermost first.
        value: what the innermost tree must hold.

    Raises Rejected: "wrong_depth", and the reasons of `verify_membership`.
    """
    _verify_same_length(specs, proofs, keys)
    _verify_chain(specs, root, proofs, keys, value)


def verify_chained_non_membership(
    specs: Sequence[ProofSpec], root: bytes, proofs: Sequence[CommitmentProof], keys: Sequence[bytes]
) -> None:
    """Check that the innermost tree holds nothing at its key, that tree itself existing in those above (as above).

    Raises Rejected: "wrong_depth", and the reasons of `verify_non_membership` and `verify_membership`.
    """
    _verify_same_length(specs, proofs, keys)
    subroot = _compute_root(proofs[0])
    verify_non_membership(specs[0], subroot, proofs[0], keys[0])
    _verify_chain(specs[1:], root, proofs[1:], keys[1:], subroot)


def _verify_same_length(specs: Sequence[ProofSpec], proofs: Sequence[CommitmentProof], keys: Sequence[bytes]) -> None:
    if not specs or not len(specs) == len(proofs) == len(keys):
        raise _refuse("one proof and one key a tree", "wrong_depth", (len(proofs), len(keys)), len(specs))


def _verify_chain(
    specs: Sequence[ProofSpec], root: bytes, proofs: Sequence[CommitmentProof], keys: Sequence[bytes], value: bytes
) -> None:
    for spec, proof, key in zip(specs, proofs, keys, strict=True):
        value = verify_existence_claim(get_existence(proof, key), spec, key, value)
    if value != root or not root:
        raise _refuse("the proof leads to another root", "wrong_root", value, root)


def _compute_root(proof: CommitmentProof) -> bytes:
    for entry in proof:
        if isinstance(entry, NonExistenceProof):
            neighbour = entry.left or entry.right
            if neighbour is not None:
                return compute_existence_root(neighbour)
    raise _refuse("the proof shows no absence", "wrong_kind")


# ---- bytes ------------------------------------------------------------------------------------------------------------

_PROOF: Schema = {
    1: Field("exist", Kind.MESSAGE),
    2: Field("nonexist", Kind.MESSAGE),
    3: Field("batch", Kind.MESSAGE),
    4: Field("compressed", Kind.MESSAGE),
}
_EXISTENCE: Schema = {
    1: Field("key", Kind.BYTES),
    2: Field("value", Kind.BYTES),
    3: Field("leaf", Kind.MESSAGE),
    4: Field("path", Kind.MESSAGE, repeated=True),
}
_COMPRESSED_EXISTENCE: Schema = {**_EXISTENCE, 4: Field("path", Kind.PACKED)}
_NON_EXISTENCE: Schema = {
    1: Field("key", Kind.BYTES),
    2: Field("left", Kind.MESSAGE),
    3: Field("right", Kind.MESSAGE),
}
_LEAF: Schema = {
    1: Field("hash", Kind.UNSIGNED),
    2: Field("prehash_key", Kind.UNSIGNED),
    3: Field("prehash_value", Kind.UNSIGNED),
    4: Field("length", Kind.UNSIGNED),
    5: Field("prefix", Kind.BYTES),
}
_INNER: Schema = {
    1: Field("hash", Kind.UNSIGNED),
    2: Field("prefix", Kind.BYTES),
    3: Field("suffix", Kind.BYTES),
}
_BATCH: Schema = {1: Field("entries", Kind.MESSAGE, repeated=True)}
_BATCH_ENTRY: Schema = {1: Field("exist", Kind.MESSAGE), 2: Field("nonexist", Kind.MESSAGE)}
_COMPRESSED: Schema = {**_BATCH, 2: Field("steps", Kind.MESSAGE, repeated=True)}


def decode_proof(data: bytes) -> CommitmentProof:
    """Return the entries of a CommitmentProof's bytes: one, or those of a batch, compressed ones unfolded.

    Raises Rejected: "bad_protobuf" (another form than the canonical one), "size", "wrong_kind" (nothing in it).
    """
    if len(data) > MAX_PROOF_BYTES:
        raise _refuse("a proof is too large", "size", len(data), f"<= {MAX_PROOF_BYTES}")
    found = decode_message(data, _PROOF)
    given = [name for name, value in found.items() if value is not None]
    if len(given) != 1:
        raise _refuse("a proof is of one kind", "wrong_kind", given)
    body = found[given[0]]
    if given[0] == "exist":
        return (_decode_existence(body),)
    if given[0] == "nonexist":
        return (_decode_non_existence(body),)
    if given[0] == "batch":
        return _decode_entries(decode_message(body, _BATCH)["entries"], _decode_existence)
    compressed = decode_message(body, _COMPRESSED)
    steps = tuple(_decode_inner(step) for step in compressed["steps"])
    budget = MAX_INFLATED_OPS

    def inflate(raw: bytes) -> ExistenceProof:
        nonlocal budget
        entry = decode_message(raw, _COMPRESSED_EXISTENCE)
        budget -= len(entry["path"])
        if budget < 0:
            raise _refuse("a compressed proof unfolds to too much", "size", expected=f"<= {MAX_INFLATED_OPS} steps")
        if any(index >= len(steps) for index in entry["path"]):
            raise refuse("a step that is not in the list", max(entry["path"]))
        path = tuple(steps[index] for index in entry["path"])
        return ExistenceProof(entry["key"], entry["value"], _decode_leaf(entry["leaf"]), path)

    return _decode_entries(compressed["entries"], inflate)


def _decode_entries(raws: Sequence[bytes], decode: Callable[[bytes], ExistenceProof]) -> CommitmentProof:
    if not 0 < len(raws) <= MAX_BATCH_ENTRIES:
        raise _refuse("entries of a batch", "size", len(raws), f"1 to {MAX_BATCH_ENTRIES}")
    entries: list[Entry] = []
    for raw in raws:
        found = decode_message(raw, _BATCH_ENTRY)
        if (found["exist"] is None) == (found["nonexist"] is None):
            raise refuse("an entry of a batch is of one kind")
        if found["exist"] is not None:
            entries.append(decode(found["exist"]))
        else:
            entries.append(_decode_non_existence(found["nonexist"], decode))
    return tuple(entries)


def _decode_existence(data: bytes) -> ExistenceProof:
    return _read_usual_existence(data) or _decode_any_existence(data)


def _decode_any_existence(data: bytes) -> ExistenceProof:
    found = decode_message(data, _EXISTENCE)
    return ExistenceProof(
        found["key"], found["value"], _decode_leaf(found["leaf"]), tuple(_decode_inner(step) for step in found["path"])
    )


def _read_usual_existence(data: bytes) -> ExistenceProof | None:
    """Return what `_decode_any_existence` returns, read in place; None for a form that is left to it, also every one to refuse.

    The usual form: key, value and leaf there, none of 128 bytes or more, then up to 128 steps. Proofs are mostly steps, and a verifier's
    time is mostly their reading.
    """
    size, at, parts = len(data), 0, []
    for tag in (0x0A, 0x12, 0x1A):
        if at + 2 > size or data[at] != tag or not 0 < data[at + 1] < 128:
            return None
        end = at + 2 + data[at + 1]
        parts.append(data[at + 2 : end])
        at = end
    path = []
    while at < size:
        if at + 2 > size or data[at] != 0x22 or data[at + 1] > 127:
            return None
        end = at + 2 + data[at + 1]
        path.append(_decode_inner(data[at + 2 : end]))
        at = end
    if at > size or len(path) > DEFAULT_MAX_DEPTH:
        return None
    key, value, leaf = parts
    return ExistenceProof(key, value, _decode_leaf(leaf), tuple(path))


def _decode_non_existence(
    data: bytes, decode: Callable[[bytes], ExistenceProof] = _decode_existence
) -> NonExistenceProof:
    found = decode_message(data, _NON_EXISTENCE)
    left, right = found["left"], found["right"]
    return NonExistenceProof(
        found["key"], None if left is None else decode(left), None if right is None else decode(right)
    )


def _decode_leaf(data: bytes | None) -> LeafOp | None:
    return None if data is None else LeafOp(**decode_message(data, _LEAF))


_make_inner: Callable[[tuple[int, bytes, bytes]], InnerOp] = partial(tuple.__new__, InnerOp)
"""Without the call that fills in defaults: steps are made by the dozen."""


def _decode_inner(data: bytes) -> InnerOp:
    """Return a step. The usual form (SHA-256, a prefix, perhaps a suffix, each under 128 bytes) is read in place: proofs are mostly steps."""
    size = len(data)
    if size > 4 and data[:3] == b"\x08\x01\x12":
        end = 4 + data[3]
        if 0 < data[3] < 128 and end <= size:
            if end == size:
                return _make_inner((1, data[4:], b""))
            if size > end + 2 and data[end] == 0x1A and 0 < data[end + 1] < 128 and end + 2 + data[end + 1] == size:
                return _make_inner((1, data[4:end], data[end + 2 :]))
    return InnerOp(**decode_message(data, _INNER))


def encode_leaf(leaf: LeafOp) -> bytes:
    """Return the bytes of a LeafOp."""
    numbers = b"".join(encode_integer(i, number) for i, number in enumerate(leaf[:4], 1))
    return numbers + encode_bytes(5, leaf.prefix)


def encode_inner(step: InnerOp) -> bytes:
    """Return the bytes of an InnerOp."""
    return encode_integer(1, step.hash) + encode_bytes(2, step.prefix) + encode_bytes(3, step.suffix)


def encode_existence(proof: ExistenceProof) -> bytes:
    """Return the bytes of an ExistenceProof."""
    return b"".join(
        (
            encode_bytes(1, proof.key),
            encode_bytes(2, proof.value),
            b"" if proof.leaf is None else encode_message(3, encode_leaf(proof.leaf)),
            *(encode_message(4, encode_inner(step)) for step in proof.path),
        )
    )


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes of the CommitmentProof of one entry; the same bytes are a BatchEntry."""
    if isinstance(entry, ExistenceProof):
        return encode_message(1, encode_existence(entry))
    sides = b"".join(
        encode_message(field, encode_existence(side))
        for field, side in ((2, entry.left), (3, entry.right))
        if side is not None
    )
    return encode_message(2, encode_bytes(1, entry.key) + sides)


def encode_batch(entries: CommitmentProof) -> bytes:
    """Return the bytes of the CommitmentProof of several entries, each whole."""
    return encode_message(3, b"".join(encode_message(1, encode_entry(entry)) for entry in entries))


def encode_compressed_batch(entries: CommitmentProof) -> bytes:
    """Return the bytes of the CommitmentProof of several entries whose steps are listed once."""
    steps: dict[InnerOp, int] = {}

    def compress(proof: ExistenceProof) -> bytes:
        path = b"".join(encode_varint(steps.setdefault(step, len(steps))) for step in proof.path)
        return encode_existence(proof._replace(path=())) + encode_bytes(4, path)

    parts = []
    for entry in entries:
        if isinstance(entry, ExistenceProof):
            parts.append(encode_message(1, compress(entry)))
            continue
        sides = [
            encode_message(field, compress(side))
            for field, side in ((2, entry.left), (3, entry.right))
            if side is not None
        ]
        parts.append(encode_message(2, encode_bytes(1, entry.key) + b"".join(sides)))
    listed = b"".join(encode_message(2, encode_inner(step)) for step in steps)
    return encode_message(4, b"".join(encode_message(1, part) for part in parts) + listed)
