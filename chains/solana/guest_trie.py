"""Proofs in the provable trie of a guest chain: a binary Patricia trie under SHA-256. Pure.

A node is a branch of two references or an extension of key bits over one; a reference says whether its hash names a node or is a value's.
A proof is the path of nodes from the root down. It is walked with the bits of the key that the verifier asks about, never with bits that
the proof brings, and each node must hash to the reference that led to it.

The empty trie's root is 32 zero bytes and would "prove" the absence of everything; it is refused here, also for membership.

Source: ibc-v2.md 11 (guest chain), node hashes of the public vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from messages.errors import Rejected

MAX_KEY_BYTES = 256
MAX_NODES = 8 * MAX_KEY_BYTES
MAX_EXTENSION_BYTES = 34
MAX_EXTENSION_BITS = 8 * MAX_EXTENSION_BYTES - 1
ZERO32 = bytes(32)


@dataclass(frozen=True)
class Reference:
    """What a node points to: the hash of another node, or a value's 32-byte hash."""

    hash: bytes
    is_value: bool


@dataclass(frozen=True)
class Branch:
    """Two ways to go on: left for a 0 bit, right for a 1 bit."""

    left: Reference
    right: Reference


@dataclass(frozen=True)
class Extension:
    """Key bits that all keys below share: ``bit_length`` bits of ``key_bytes``, beginning at bit ``bit_offset`` (0 to 7, from the top)."""

    key_bytes: bytes
    bit_offset: int
    bit_length: int
    child: Reference


Node = Branch | Extension


def compute_node_hash(node: Node) -> bytes:
    """SHA-256 of a node's preimage, 32 bytes.

    Branch: 0b000000xy (x, y: left, right is a value), left, right. Extension: BE16 of 0b100v_llll_llll_looo (v: child is a value, l: bits,
    o: offset), key bytes with every bit outside the range cleared, child. Rejected ("malformed"): a width.
    """
    if isinstance(node, Branch):
        _verify_references(node.left, node.right)
        tag = node.left.is_value << 1 | node.right.is_value
        return sha256(bytes([tag]) + node.left.hash + node.right.hash).digest()
    _verify_references(node.child)
    _verify_extension(node)
    head = 0x8000 | node.child.is_value << 12 | node.bit_length << 3 | node.bit_offset
    return sha256(head.to_bytes(2, "big") + _mask(node) + node.child.hash).digest()


def verify_membership(root: bytes, key: bytes, value_hash: bytes, proof: Sequence[Node]) -> None:
    """Check that the trie of ``root`` holds a value with ``value_hash`` (both 32 bytes) at ``key``.

    Rejected: "zero_root", "malformed", "node_hash" (a node is not the one that was pointed to), "absent" (the path leads elsewhere or ends
    early), "wrong_value".
    """
    found = _walk(root, key, proof)
    if found is None:
        raise Rejected("the proof shows that the key is not there", got=key, reason="absent")
    if found != value_hash:
        raise Rejected("another value is there", got=found, expected=value_hash, reason="wrong_value")


def verify_non_membership(root: bytes, key: bytes, proof: Sequence[Node]) -> None:
    """Check that the trie of ``root`` holds nothing at ``key``; Rejected as `verify_membership`, "present" where something is."""
    found = _walk(root, key, proof)
    if found is not None:
        raise Rejected("a value is there", got=found, reason="present")


def _walk(root: bytes, key: bytes, proof: Sequence[Node]) -> bytes | None:
    """Follow the key's bits: the value's hash, or None where a node shows that the key goes nowhere."""
    if len(root) != 32 or root == ZERO32:
        raise Rejected("a root is 32 bytes that are not all zero", got=root, reason="zero_root")
    if not 0 < len(key) <= MAX_KEY_BYTES or not 0 < len(proof) <= MAX_NODES:
        raise Rejected("a key or proof of this size", got=(len(key), len(proof)), reason="malformed")
    place, at, count = Reference(root, is_value=False), 0, 8 * len(key)
    for number, node in enumerate(proof):
        if place.is_value or compute_node_hash(node) != place.hash:
            raise Rejected("a node that nothing points to", got=number, expected=place.hash, reason="node_hash")
        if isinstance(node, Branch):
            if at >= count:
                _verify_last(proof, number)
                return None
            place = node.right if _get_bit(key, at) else node.left
            at += 1
            continue
        for step in range(node.bit_length):
            if at + step >= count or _get_bit(key, at + step) != _get_bit(node.key_bytes, node.bit_offset + step):
                _verify_last(proof, number)
                return None
        at += node.bit_length
        place = node.child
    if not place.is_value:
        raise Rejected("the proof ends before a value", got=len(proof), reason="node_hash")
    # A value above the end of the key belongs to a shorter key: nothing can lie below it.
    return place.hash if at == count else None


def _verify_last(proof: Sequence[Node], number: int) -> None:
    if number != len(proof) - 1:
        raise Rejected("nodes below the end of the path", got=len(proof), expected=number + 1, reason="malformed")


def _get_bit(data: bytes, at: int) -> int:
    return data[at // 8] >> (7 - at % 8) & 1


def _verify_references(*references: Reference) -> None:
    for reference in references:
        if len(reference.hash) != 32:
            raise Rejected("a reference has 32 bytes", got=len(reference.hash), expected=32, reason="malformed")


def _verify_extension(node: Extension) -> None:
    if not 0 <= node.bit_offset < 8 or not 0 < node.bit_length <= MAX_EXTENSION_BITS:
        raise Rejected("an extension of these bits", got=(node.bit_offset, node.bit_length), reason="malformed")
    wanted = (node.bit_offset + node.bit_length + 7) // 8
    if len(node.key_bytes) != wanted or wanted > MAX_EXTENSION_BYTES:
        raise Rejected(
            "key bytes that hold exactly the bits", got=len(node.key_bytes), expected=wanted, reason="malformed"
        )


def _mask(node: Extension) -> bytes:
    """The key bytes with every bit outside the range cleared: a hash names one extension."""
    total = 8 * len(node.key_bytes)
    after = total - node.bit_offset - node.bit_length
    mask = ((1 << node.bit_length) - 1) << after
    return (int.from_bytes(node.key_bytes, "big") & mask).to_bytes(len(node.key_bytes), "big")
