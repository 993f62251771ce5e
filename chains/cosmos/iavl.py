"""The trees of a Cosmos SDK application, for building: IAVL+ for a module's store, the multistore above, proofs of both. Pure.

An IAVL+ tree is an AVL tree whose values lie in the leaves; an inner node's key is the smallest key to its right. A node carries the version
(block height) that made it, and the version is hashed, so a tree's hash depends on its history, not on its contents alone. Trees here
are values: `set` and `remove` give another tree that shares what did not change, so every version stays readable.

Verification is in `ics23` and shares nothing with this module but the forms of a proof: a mistake made in both would not be seen.

Source: cosmos/iavl v1 `node.go`, `mutable_tree.go`, `proof_ics23.go`; Cosmos SDK `store/internal/maps` (multistore).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from chains.cosmos.hashing import compute_merkle_root
from chains.cosmos.ics23 import ExistenceProof, HashOp, InnerOp, LeafOp, LengthOp, NonExistenceProof
from chains.cosmos.protobuf import encode_varint

EMPTY_HASH = sha256(b"").digest()
"""Hash of a tree without entries."""


def _encode_signed(number: int) -> bytes:
    """A varint as IAVL writes it: zigzag, which for what is not negative is twice the number."""
    return encode_varint(number * 2)


class Node:
    """A node, never changed after it was made; its hash is made when it is first asked for."""

    __slots__ = ("_hash", "height", "key", "left", "right", "size", "value", "version")

    def __init__(self, key: bytes, value: bytes, version: int) -> None:
        self.key = key
        self.value = value
        self.version = version
        self.height = 0
        self.size = 1
        self.left: Node | None = None
        self.right: Node | None = None
        self._hash = b""

    @property
    def hash(self) -> bytes:
        """32 bytes."""
        if not self._hash:
            if self.left is None or self.right is None:
                digest = sha256(self.value).digest()
                body = encode_varint(len(self.key)) + self.key + b"\x20" + digest
            else:
                body = b"\x20" + self.left.hash + b"\x20" + self.right.hash
            self._hash = sha256(self.head + body).digest()
        return self._hash

    @property
    def head(self) -> bytes:
        """What the preimage of the hash begins with: height, size, version."""
        return _encode_signed(self.height) + _encode_signed(self.size) + _encode_signed(self.version)


def _make_inner(key: bytes, left: Node, right: Node, version: int) -> Node:
    node = Node(key, b"", version)
    node.left, node.right = left, right
    node.height = max(left.height, right.height) + 1
    node.size = left.size + right.size
    return node


def _get_children(node: Node) -> tuple[Node, Node]:
    if node.left is None or node.right is None:
        raise AssertionError("a leaf has no children")
    return node.left, node.right


def _get_tilt(node: Node) -> int:
    left, right = _get_children(node)
    return left.height - right.height


def _rotate_right(node: Node, version: int) -> Node:
    left, right = _get_children(node)
    outer, inner = _get_children(left)
    return _make_inner(left.key, outer, _make_inner(node.key, inner, right, version), version)


def _rotate_left(node: Node, version: int) -> Node:
    left, right = _get_children(node)
    inner, outer = _get_children(right)
    return _make_inner(right.key, _make_inner(node.key, left, inner, version), outer, version)


def _balance(node: Node, version: int) -> Node:
    tilt = _get_tilt(node)
    left, right = _get_children(node)
    if tilt > 1:
        if _get_tilt(left) < 0:
            node = _make_inner(node.key, _rotate_left(left, version), right, version)
        return _rotate_right(node, version)
    if tilt < -1:
        if _get_tilt(right) > 0:
            node = _make_inner(node.key, left, _rotate_right(right, version), version)
        return _rotate_left(node, version)
    return node


def _set(node: Node, key: bytes, value: bytes, version: int) -> tuple[Node, bool]:
    """(node with the entry, whether it was there already: then nothing needs balancing)."""
    if not node.height:
        leaf = Node(key, value, version)
        if key == node.key:
            return leaf, True
        if key < node.key:
            return _make_inner(node.key, leaf, node, version), False
        return _make_inner(key, node, leaf, version), False
    left, right = _get_children(node)
    if key < node.key:
        left, was_there = _set(left, key, value, version)
    else:
        right, was_there = _set(right, key, value, version)
    changed = _make_inner(node.key, left, right, version)
    return (changed if was_there else _balance(changed, version)), was_there


def _remove(node: Node, key: bytes, version: int) -> tuple[Node | None, bytes | None]:
    """(node without an entry that is in it, its new smallest key if that changed)."""
    if not node.height:
        return None, None
    left, right = _get_children(node)
    if key < node.key:
        rest, smallest = _remove(left, key, version)
        if rest is None:
            return right, node.key
        return _balance(_make_inner(node.key, rest, right, version), version), smallest
    rest, smallest = _remove(right, key, version)
    if rest is None:
        return left, None
    return _balance(_make_inner(node.key if smallest is None else smallest, left, rest, version), version), None


@dataclass(frozen=True)
class Tree:
    """One version of an IAVL+ tree."""

    root: Node | None = None

    @property
    def hash(self) -> bytes:
        """32 bytes: what the multistore holds for the module."""
        return EMPTY_HASH if self.root is None else self.root.hash

    def __len__(self) -> int:
        return 0 if self.root is None else self.root.size

    def get(self, key: bytes) -> bytes | None:
        """The value at a key, or None."""
        node = self.root
        while node is not None and node.height:
            node = node.left if key < node.key else node.right
        return node.value if node is not None and node.key == key else None

    def set(self, key: bytes, value: bytes, version: int) -> Tree:
        """The tree with an entry, made by ``version``."""
        return Tree(Node(key, value, version) if self.root is None else _set(self.root, key, value, version)[0])

    def remove(self, key: bytes, version: int) -> Tree:
        """The tree without a key; itself where the key is not there."""
        if self.root is None or self.get(key) is None:
            return self
        return Tree(_remove(self.root, key, version)[0])

    def scan(
        self, start: bytes | None = None, end: bytes | None = None, descending: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in order; None leaves a side open."""
        waiting = [] if self.root is None else [self.root]
        while waiting:
            node = waiting.pop()
            if node.height:
                left, right = _get_children(node)
                sides = [right, left]
                if start is not None and node.key <= start:
                    sides = [right]  # everything to the left is before the start
                elif end is not None and node.key >= end:
                    sides = [left]
                waiting += reversed(sides) if descending else sides
            elif (start is None or node.key >= start) and (end is None or node.key < end):
                yield node.key, node.value

    def prove(self, key: bytes) -> ExistenceProof | NonExistenceProof:
        """The ICS-23 proof that an entry is there, or that none is. ValueError for an empty tree, which proves nothing."""
        if self.root is None:
            raise ValueError("an empty tree has no proofs")
        if self.get(key) is not None:
            return self._prove_entry(key)
        before = next(self.scan(None, key, descending=True), None)
        after = next(self.scan(key, None), None)
        return NonExistenceProof(
            key,
            None if before is None else self._prove_entry(before[0]),
            None if after is None else self._prove_entry(after[0]),
        )

    def _prove_entry(self, key: bytes) -> ExistenceProof:
        path: list[InnerOp] = []
        node = self.root
        while node is not None and node.height:
            left, right = _get_children(node)
            if key < node.key:
                path.append(InnerOp(HashOp.SHA256, node.head + b"\x20", b"\x20" + right.hash))
                node = left
            else:
                path.append(InnerOp(HashOp.SHA256, node.head + b"\x20" + left.hash + b"\x20", b""))
                node = right
        if node is None or node.key != key:
            raise AssertionError("only an entry that is there is proven so")
        leaf = LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, node.head)
        return ExistenceProof(key, node.value, leaf, tuple(reversed(path)))


# ---- the multistore ---------------------------------------------------------------------------------------------------


def _encode_store(name: bytes, root: bytes) -> bytes:
    digest = sha256(root).digest()
    return encode_varint(len(name)) + name + encode_varint(len(digest)) + digest


def compute_app_hash(stores: Mapping[bytes, bytes]) -> bytes:
    """The app hash: the root over the hash of every store, in the order of their names."""
    return compute_merkle_root([_encode_store(name, stores[name]) for name in sorted(stores)])


def prove_store(stores: Mapping[bytes, bytes], name: bytes) -> ExistenceProof:
    """The ICS-23 proof of a store's hash under the app hash. KeyError where there is no such store."""
    value = stores[name]
    names = sorted(stores)
    level = [sha256(b"\0" + _encode_store(n, stores[n])).digest() for n in names]
    at, path = names.index(name), list[InnerOp]()
    while len(level) > 1:
        # pairing neighbours and carrying an odd one up is the tree of RFC 6962
        if at % 2:
            path.append(InnerOp(HashOp.SHA256, b"\1" + level[at - 1], b""))
        elif at + 1 < len(level):
            path.append(InnerOp(HashOp.SHA256, b"\1", level[at + 1]))
        paired = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        at //= 2
    leaf = LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\0")
    return ExistenceProof(name, value, leaf, tuple(path))
