"""Merkle Patricia tries: strict RLP and the walk from a root to a value or to its absence. Pure.

The walk believes nothing but the 32-byte root: every node is hashed before it is read, must have the one canonical encoding, and must be
used; a node that is short enough to lie inside its parent must lie there (some sources list it once more, byte for byte, which is
allowed). Incident A12 (empty account, empty slot, inlined nodes, extra nodes) is the reason for each of these.

Source: Ethereum Yellow Paper appendices B (RLP), C (hex prefix), D (modified Merkle Patricia tree); EIP-1186.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from messages.errors import Rejected
from messages.hashing import keccak256

RlpItem: TypeAlias = "bytes | list[RlpItem]"

EMPTY_ROOT = bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
"""keccak256(RLP of the empty string): the root of a trie without entries."""
MAX_NODES = 65
"""A 32-byte key has 64 nibbles: at most 64 branches and a leaf."""
MAX_STATE_NODE_BYTES = 1024
"""A full branch takes 532 bytes, a leaf of the state or of storage less."""
MAX_RLP_DEPTH = 64

_EMPTY_NODE = b"\x80"  # some sources list the root node of an empty trie
_FULL_BRANCH_BYTES = 532
_FULL_BRANCH_HEAD = b"\xf9\x02\x11"
_FULL_BRANCH_MARKS = b"\xa0" * 16 + b"\x80"
_PLAIN_LENGTHS = {0, 32}
_NIBBLES = {digit: value for value, digit in enumerate("0123456789abcdef")}


# ---- RLP --------------------------------------------------------------------------------------------------------------


def decode_rlp(data: bytes) -> RlpItem:
    """Return the byte string or nested list that ``data`` encodes, all of it, in its one canonical form.

    Raises Rejected ("bad_rlp"): truncated or trailing bytes, a length in more bytes than needed or with leading zeros, a single
    byte under 0x80 with a prefix, nesting deeper than MAX_RLP_DEPTH.
    """
    item, end = _decode_item(data, 0, len(data), MAX_RLP_DEPTH)
    if end != len(data):
        raise _refuse("bytes after the item", got=len(data) - end)
    return item


def _refuse(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(f"RLP: {what}", got=got, expected=expected, reason="bad_rlp")


def _decode_item(data: bytes, at: int, limit: int, depth: int) -> tuple[RlpItem, int]:
    """Return the item that begins at ``at`` and where it ends; it must end by ``limit``."""
    if at >= limit:
        raise _refuse("nothing where an item should be")
    first = data[at]
    if first < 0x80:
        return data[at : at + 1], at + 1
    is_list = first >= 0xC0
    code = first - (0xC0 if is_list else 0x80)
    begin = at + 1
    if code <= 55:
        size = code
    else:
        width = code - 55
        digits = data[begin : begin + width]
        size = int.from_bytes(digits, "big")
        if len(digits) != width or digits[0] == 0 or size <= 55:
            raise _refuse("length is not written in the shortest form", got=digits)
        begin += width
    end = begin + size
    if end > limit:
        raise _refuse("item longer than what holds it", got=size, expected=f"<= {limit - begin}")
    if not is_list:
        if size == 1 and data[begin] < 0x80:
            raise _refuse("a single byte under 0x80 stands for itself", got=data[begin])
        return data[begin:end], end
    if depth == 0:
        raise _refuse("nested too deep", expected=f"<= {MAX_RLP_DEPTH}")
    items: list[RlpItem] = []
    while begin < end:
        item, begin = _decode_item(data, begin, end, depth - 1)
        items.append(item)
    return items, end


def encode_rlp(item: RlpItem | Sequence[RlpItem]) -> bytes:
    """Return the canonical RLP of a byte string or of a (nested) sequence of them."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _encode_length(len(item), 0x80) + item
    body = b"".join(map(encode_rlp, item))
    return _encode_length(len(body), 0xC0) + body


def _encode_length(size: int, offset: int) -> bytes:
    if size <= 55:
        return bytes((offset + size,))
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((offset + 55 + len(digits),)) + digits


def encode_rlp_integer(value: int) -> bytes:
    """Return the big-endian bytes of an integer without leading zeros, as RLP strings hold them; 0 is empty."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode_rlp_integer(item: RlpItem, max_bytes: int = 32) -> int:
    """Return the integer of an RLP string; Rejected ("bad_rlp") for a list, leading zeros or more than ``max_bytes``."""
    if not isinstance(item, bytes) or len(item) > max_bytes or item[:1] == b"\0":
        raise _refuse("no canonical integer", got=item, expected=f"<= {max_bytes} bytes")
    return int.from_bytes(item, "big")


# ---- the walk ---------------------------------------------------------------------------------------------------------


def verify_trie_value(
    root: bytes, key: bytes, nodes: Sequence[bytes], max_node_bytes: int = MAX_STATE_NODE_BYTES
) -> bytes | None:
    """Return the value at ``key`` under ``root``, or None where the nodes prove that there is none.

    Args:
        root: 32 bytes, trusted.
        key: raw trie key (already hashed in secure tries).
        nodes: RLP of the nodes on the path, root first, none missing and none left over. Inlined nodes need not be listed.
        max_node_bytes: limit of one node.

    Raises Rejected: "too_many_nodes", "node_size", "bad_node_hash", "missing_node", "unused_nodes", "bad_node", "bad_rlp".
    """
    return verify_trie_path(root, key.hex(), nodes, max_node_bytes)


def verify_trie_path(
    root: bytes, path: str, nodes: Sequence[bytes], max_node_bytes: int = MAX_STATE_NODE_BYTES
) -> bytes | None:
    """Do what `verify_trie_value` does for a key given as lower-case hex digits, one a nibble."""
    count = len(nodes)
    if count > MAX_NODES:
        raise Rejected(
            "more nodes than a path can have", got=count, expected=f"<= {MAX_NODES}", reason="too_many_nodes"
        )
    if root == EMPTY_ROOT and (not count or list(nodes) == [_EMPTY_NODE]):
        return None
    used = 0
    at = 0
    reference: RlpItem = root
    while True:
        if isinstance(reference, bytes):
            if used == count:
                raise Rejected("the path ends before its node", got=count, reason="missing_node")
            data = nodes[used]
            size = len(data)
            if size > max_node_bytes or (size < 32 and used):
                raise Rejected("node size", got=size, expected=f"32..{max_node_bytes}", reason="node_size")
            if keccak256(data) != reference:
                raise Rejected(
                    "the node is not the one its parent names",
                    got=data[:64],
                    expected=reference,
                    reason="bad_node_hash",
                )
            used += 1
            if (
                size == _FULL_BRANCH_BYTES
                and data.startswith(_FULL_BRANCH_HEAD)
                and data[3::33] == _FULL_BRANCH_MARKS
                and at < len(path)
            ):  # most nodes of a large trie: sixteen hashes and no value, read in place
                begin = 4 + 33 * _NIBBLES[path[at]]
                reference = data[begin : begin + 32]
                at += 1
                continue
            node = _decode_node(data)
        else:
            node = reference
            if used < count and nodes[used] == encode_rlp(node):  # the redundant form of some sources
                used += 1
        step = _walk_node(node, path, at)
        if isinstance(step, tuple):
            reference, at = step
            continue
        if used != count:
            raise Rejected("nodes that the path does not need", got=count, expected=used, reason="unused_nodes")
        return step


def _decode_node(data: bytes) -> list[RlpItem]:
    """Return the items of a node; the same as `decode_rlp`, with a short way for the two items that nodes are made of."""
    size = len(data)
    if size > 57 and data[0] == 0xF8 and data[1] == size - 2:
        at = 2
    elif size > 258 and data[0] == 0xF9 and data[1] << 8 | data[2] == size - 3:
        at = 3
    elif size and 0xC0 <= data[0] <= 0xF7 and data[0] == 0xBF + size:
        at = 1
    else:  # not the canonical head of a list of this size: let the strict decoder say why
        node = decode_rlp(data)
        if not isinstance(node, list):
            raise Rejected("a node is a list", got=data[:64], reason="bad_node")
        return node
    items: list[RlpItem] = []
    while at < size:
        first = data[at]
        if first == 0xA0 and at + 33 <= size:
            items.append(data[at + 1 : at + 33])
            at += 33
        elif first == 0x80:
            items.append(b"")
            at += 1
        else:
            item, at = _decode_item(data, at, size, MAX_RLP_DEPTH - 1)
            items.append(item)
    return items


def _walk_node(node: list[RlpItem], path: str, at: int) -> bytes | tuple[RlpItem, int] | None:
    """Return the value (None: proven absent) if the walk ends in a node, else the reference to the next node and the place."""
    if len(node) == 17:
        children = node[:16]
        is_plain = set(map(type, children)) == {bytes} and set(map(len, children)) <= _PLAIN_LENGTHS
        if not is_plain and not all(map(_is_reference, children)):
            raise Rejected("branch with a child that is neither hash nor short node", reason="bad_node")
        value = node[16]
        if not isinstance(value, bytes):
            raise Rejected("the value of a branch is no string", reason="bad_node")
        if at == len(path):
            return value or None
        child = node[_NIBBLES[path[at]]]
        return (child, at + 1) if child else None
    if len(node) != 2 or not isinstance(node[0], bytes):
        raise Rejected("neither branch nor leaf nor extension", got=len(node), reason="bad_node")
    is_leaf, part = _decode_hex_prefix(node[0])
    target = node[1]
    if is_leaf:
        if not isinstance(target, bytes) or not target:
            raise Rejected("a leaf without a value", reason="bad_node")
        return target if path[at:] == part else None
    if not part or not target or not _is_reference(target):
        raise Rejected("an extension needs a path and a child", reason="bad_node")
    return (target, at + len(part)) if path.startswith(part, at) else None


def _is_reference(item: RlpItem) -> bool:
    """Ask whether an item may stand for a child: nothing, a hash, or a node whose RLP is shorter than a hash."""
    if isinstance(item, bytes):
        return len(item) in {0, 32}
    return len(item) in {2, 17} and len(encode_rlp(item)) < 32


def _decode_hex_prefix(encoded: bytes) -> tuple[bool, str]:
    """Return (is leaf, nibbles as hex digits) of a compact path; Rejected ("bad_node")."""
    digits = encoded.hex()
    flag = digits[:1]
    if flag in {"1", "3"}:
        return flag == "3", digits[1:]
    if flag not in {"0", "2"} or digits[1] != "0":
        raise Rejected("hex prefix", got=encoded, reason="bad_node")
    return flag == "2", digits[2:]


# ---- building ---------------------------------------------------------------------------------------------------------


def compute_trie_root(entries: Mapping[bytes, bytes]) -> bytes:
    """Return the root of the trie that holds exactly ``entries`` (raw key to non-empty value)."""
    items = sorted((key.hex(), value) for key, value in entries.items() if value)
    return keccak256(encode_rlp(_build_node(items, 0))) if items else EMPTY_ROOT


def _build_node(items: Sequence[tuple[str, bytes]], at: int) -> RlpItem:
    """Return the node over sorted (hex path, value) items that agree in the first ``at`` nibbles."""
    first, last = items[0][0], items[-1][0]
    if len(items) == 1:
        return [_encode_hex_prefix(first[at:], is_leaf=True), items[0][1]]
    end = at
    while end < len(first) and first[end] == last[end]:  # sorted: what first and last share, all share
        end += 1
    if end > at:
        return [_encode_hex_prefix(first[at:end], is_leaf=False), _build_reference(items, end)]
    value = items[0][1] if len(first) == at else b""
    groups = {digit: [item for item in items if item[0][at : at + 1] == digit] for digit in _NIBBLES}
    children: list[RlpItem] = [_build_reference(group, at + 1) if group else b"" for group in groups.values()]
    return [*children, value]


def _build_reference(items: Sequence[tuple[str, bytes]], at: int) -> RlpItem:
    node = _build_node(items, at)
    encoded = encode_rlp(node)
    return node if len(encoded) < 32 else keccak256(encoded)


def _encode_hex_prefix(digits: str, *, is_leaf: bool) -> bytes:
    flag = 2 * is_leaf + len(digits) % 2
    return bytes.fromhex(f"{flag}{digits}" if len(digits) % 2 else f"{flag}0{digits}")
