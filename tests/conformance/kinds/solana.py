"""Kind `solana`: hashes of the guest chain's trie nodes, and of accounts as Solana hashed them.

Node hashes are the product's. The account hash is not: no header commits to it any more (SIMD-0223), so its rule is written out here, where
only the vectors need it. Files are recognised by their sections.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from chains.solana.guest_trie import Branch, Extension, Reference, compute_node_hash
from tests.conformance.case import Case

KIND = "solana"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def discover(folder: Path) -> Iterator[Case]:
    """Yield a case per node and per account."""
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        name = str(path.relative_to(folder))
        for i, entry in enumerate(data.get("node_hashes", [])):
            yield Case(KIND, f"{name}:node_hashes[{i}] {entry['node']}", partial(_check_node, entry))
        for i, entry in enumerate(data.get("account_hash", [])):
            yield Case(KIND, f"{name}:account_hash[{i}]", partial(_check_account, entry))


def _read_reference(entry: dict[str, Any]) -> Reference:
    return Reference(bytes.fromhex(entry["hash"]), entry["is_value"])


def _check_node(entry: dict[str, Any]) -> None:
    if entry["node"] == "branch":
        left, right = map(_read_reference, entry["children"])
        found = compute_node_hash(Branch(left, right))
    else:
        offset, length = entry["bit_offset"], entry["bit_length"]
        # the vectors hand over more bytes than the bits need: those are not part of the node
        held = bytes.fromhex(entry["key_bytes"])[: (offset + length + 7) // 8]
        found = compute_node_hash(Extension(held, offset, length, _read_reference(entry["child"])))
    assert found == base64.b64decode(entry["hash_b64"])


def _decode_base58(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    return number.to_bytes(32, "big")


def _check_account(entry: dict[str, Any]) -> None:
    numbers = entry["lamports"].to_bytes(8, "little") + entry["rent_epoch"].to_bytes(8, "little")
    body = bytes.fromhex(entry["data_hex"]) + bytes([entry["executable"]])
    keys = _decode_base58(entry["owner_b58"]) + _decode_base58(entry["pubkey_b58"])
    assert blake3(numbers + body + keys).hexdigest() == entry["blake3_account_hash"]
