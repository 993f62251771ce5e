"""Attacks that happened, as they were sent. What is offered as a store proof goes through the product's own door.

Cases are lists of entries with ``store_name``, ``key``, ``value``, ``proof`` (CometBFT ProofOps) and ``expect``. A proof in the old
range format is refused for its format, be it the forged or the honest one: the verifier that could be fooled does not exist here. A
forged proof is also refused when its steps are renamed to the format we do read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chains.cosmos.codec import decode_proof_ops
from chains.cosmos.proofs import OP_TYPES, verify_store_value
from chains.cosmos.types import Proof
from messages.errors import Rejected
from tests.conformance.case import Case

ANY_APP_HASH = b"\1" * 32


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*.json")):
        data = json.loads(path.read_text())
        name = str(path.relative_to(root))
        found = False
        for group, entries in data.items() if isinstance(data, dict) else []:
            for i, entry in enumerate(entries if isinstance(entries, list) else []):
                if isinstance(entry, dict) and {"store_name", "proof", "expect"} <= entry.keys():
                    found = True
                    yield Case("attacks", f"{name}: {group} {i} {entry['name']}", partial(run, entry))
        if not found:
            yield Case("attacks", name, partial(fail, "no known layout of vectors"))


def fail(why: str) -> None:
    raise AssertionError(why)


def run(entry: dict[str, Any]) -> None:
    ops = decode_proof_ops(bytes.fromhex(entry["proof"]))
    for op, named in zip(ops, entry.get("ops", []), strict=True):
        assert (op.type, op.key.hex(), op.data.hex()) == (named["type"], named["key"], named["data"])
    key, value = bytes.fromhex(entry["key"]), bytes.fromhex(entry["value"])
    store = entry["store_name"].encode()
    app_hash = bytes.fromhex(entry["app_hash"]) if "app_hash" in entry else ANY_APP_HASH
    is_legacy = any(not op.type.startswith("ics23:") for op in ops)
    if not is_legacy and entry["expect"].startswith("accept"):
        verify_store_value(app_hash, Proof(ops), store, key, value)
        assert refuse(app_hash, ops, store, key, value + b"\0") == "wrong_value"
        return
    if is_legacy:
        assert refuse(app_hash, ops, store, key, value) == "op_type"
        ops = tuple(replace(op, type=kind) for op, kind in zip(ops, OP_TYPES, strict=False))
    assert refuse(app_hash, ops, store, key, value)
    if "precompile_input" in entry:
        verify_input(bytes.fromhex(entry["precompile_input"]), entry)


def refuse(app_hash: bytes, ops: Any, store: bytes, key: bytes, value: bytes) -> str:
    try:
        verify_store_value(app_hash, Proof(tuple(ops)), store, key, value)
    except Rejected as error:
        return error.reason
    raise AssertionError("accepted")


def verify_input(data: bytes, entry: dict[str, Any]) -> None:
    """The calldata holds the same claim as the entry: 32 length, 32 store, 32 key length, key, 32 value length, value, 32 app hash, proof."""
    at = 64
    assert (
        data[32:64].rstrip(b"\0").decode() in {entry["store_name"], ""} or entry["store_name"].encode() in data[32:64]
    )
    parts = []
    for _ in range(2):
        size = int.from_bytes(data[at : at + 32], "big")
        parts.append(data[at + 32 : at + 32 + size].hex())
        at += 32 + size
    assert parts == [entry["key"], entry["value"]]
    assert data[at : at + 32].hex() == entry["app_hash"]
    assert data[at + 32 :].hex() == entry["proof"]
