"""BLS vectors: the handler is the name of the folder a file lies in (with or without ``eth_``); wycheproof files carry their groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from chains.evm import bls
from messages.errors import Rejected
from tests.conformance.case import Case
from tests.conformance.evm_vectors import read_yaml, unhex

TEST_DST = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_"  # the suite of RFC 9380, appendix J.10.1


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".json", ".yaml", ".yml"} or path.name.startswith(("manifest", "meta")):
            continue
        name = str(path.relative_to(root))
        data = json.loads(path.read_text()) if path.suffix == ".json" else read_yaml(path)
        if "testGroups" in data:
            for group in data["testGroups"]:
                for test in group["tests"]:
                    case = f"{name}: {test['tcId']} {test['comment']}"
                    yield Case("bls", case, lambda group=group, test=test: run_wycheproof(group, test))
        else:
            folders = reversed(path.relative_to(root).parts[:-1])
            handler = next((part for part in folders if part in HANDLERS), path.parent.name)
            yield Case("bls", name, lambda handler=handler, data=data: run(handler, data))


def run_wycheproof(group: dict[str, Any], test: dict[str, Any]) -> None:
    got = bls.hash_to_g2(unhex(test["msg"]), group["dst"].encode()).to_compressed_bytes()
    assert (got.hex() == test["expected"]) == (test["result"] == "valid"), got.hex()


def run(handler: str, data: dict[str, Any]) -> None:
    got = HANDLERS[handler](data["input"])
    assert got == data["output"], f"got {got}, expected {data['output']}"


def _unhex_all(texts: list[str]) -> list[bytes]:
    return [unhex(text) for text in texts]


def _hex_or_none(function: Callable[[], bytes]) -> str | None:
    try:
        return "0x" + function().hex()
    except Rejected:
        return None


def deserialize_g1(arg: dict[str, str]) -> bool:
    """The suite accepts infinity as a point; as a public key we must refuse it."""
    data = unhex(arg["pubkey"])
    try:
        bls.decode_pubkey(data)
    except Rejected:
        return data == G1Point.identity().to_compressed_bytes()
    return True


def deserialize_g2(arg: dict[str, str]) -> bool:
    try:
        bls.decode_signature(unhex(arg["signature"]))
    except Rejected:
        return False
    return True


def hash_to_g2(arg: dict[str, str]) -> dict[str, str]:
    raw = bls.hash_to_g2(arg["msg"].encode(), TEST_DST).to_xy_bytes_be().hex()
    half = len(raw) // 2
    parts = [raw[i : i + 96] for i in (0, 96, half, half + 96)]
    return {"x": f"0x{parts[0]},0x{parts[1]}", "y": f"0x{parts[2]},0x{parts[3]}"}


def sign(arg: dict[str, str]) -> str | None:
    secret = int(arg["privkey"], 16)
    if secret == 0:
        return None
    return "0x" + (bls.hash_to_g2(unhex(arg["message"])) * Scalar(secret)).to_compressed_bytes().hex()


def aggregate_verify(arg: dict[str, Any]) -> bool:
    try:
        keys = [bls.decode_pubkey(data) for data in _unhex_all(arg["pubkeys"])]
        signature = bls.decode_signature(unhex(arg["signature"]))
    except Rejected:
        return False
    hashes = [bls.hash_to_g2(data) for data in _unhex_all(arg["messages"])]
    return bool(keys) and len(keys) == len(hashes) and GT.pairing_check([*keys, -G1Point()], [*hashes, signature])


def batch_verify(arg: dict[str, Any]) -> bool:
    return all(
        bls.is_valid_signature(unhex(key), unhex(message), unhex(signature))
        for key, message, signature in zip(arg["pubkeys"], arg["messages"], arg["signatures"], strict=True)
    )


HANDLERS: dict[str, Callable[[Any], Any]] = {
    "aggregate": lambda arg: _hex_or_none(lambda: bls.aggregate_signatures(_unhex_all(arg))),
    "aggregate_verify": aggregate_verify,
    "batch_verify": batch_verify,
    "deserialization_G1": deserialize_g1,
    "deserialization_G2": deserialize_g2,
    "eth_aggregate_pubkeys": lambda arg: _hex_or_none(lambda: bls.aggregate_pubkeys(_unhex_all(arg))),
    "eth_fast_aggregate_verify": lambda arg: bls.is_valid_eth_fast_aggregate(
        _unhex_all(arg["pubkeys"]), unhex(arg["message"]), unhex(arg["signature"])
    ),
    "fast_aggregate_verify": lambda arg: bls.is_valid_fast_aggregate(
        _unhex_all(arg["pubkeys"]), unhex(arg["message"]), unhex(arg["signature"])
    ),
    "hash_to_G2": hash_to_g2,
    "sign": sign,
    "verify": lambda arg: bls.is_valid_signature(unhex(arg["pubkey"]), unhex(arg["message"]), unhex(arg["signature"])),
}
assert G2Point.identity().to_compressed_bytes() == bls.G2_INFINITY
