"""Receipts of real blocks: rebuilt roots under headers that hash to their block, and proofs of single receipts. By shape of the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chains.evm import mpt, receipts
from chains.evm.beacon_json import parse_hex, parse_integer
from messages.errors import Rejected
from messages.hashing import keccak256
from tests.conformance.case import Case
from tests.conformance.evm_vectors import unhex

HEADER_FIELDS = (  # Yellow Paper 4.3 and the EIPs that added fields, in order
    *(
        "parentHash",
        "sha3Uncles",
        "miner",
        "stateRoot",
        "transactionsRoot",
        "receiptsRoot",
        "logsBloom",
        "difficulty",
        "number",
    ),
    *(
        "gasLimit",
        "gasUsed",
        "timestamp",
        "extraData",
        "mixHash",
        "nonce",
        "baseFeePerGas",
        "withdrawalsRoot",
        "blobGasUsed",
    ),
    *("excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
INTEGERS = {
    *("difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"),
}


def discover(root: Path) -> Iterator[Case]:
    files = {str(path.relative_to(root)): json.loads(path.read_text()) for path in sorted(root.rglob("*.json"))}
    files = {name: data.get("result", data) if isinstance(data, dict) else data for name, data in files.items()}
    headers = {data["hash"]: data for data in files.values() if isinstance(data, dict) and "receiptsRoot" in data}
    for name, data in files.items():
        for title, check in find_cases(data, headers):
            yield Case("receipts", f"{name}: {title}", check)


def find_cases(data: Any, headers: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(data, list) and data and "cumulativeGasUsed" in data[0]:
        header = headers.get(data[0]["blockHash"])
        if header is not None:
            yield "receiptsRoot rebuilt", partial(run_block, data, header)
        yield "each receipt encodes, decodes and has its own bloom", partial(run_receipts, data)
    elif isinstance(data, dict) and "receiptsRoot" in data:
        yield "header hashes to its block hash", partial(run_header, data)
    elif isinstance(data, dict) and "receiptProof" in data:
        yield "receipt proof", partial(run_proof, data, headers.get(data["receipt"]["blockHash"]))
    elif isinstance(data, dict) and "receipt_index" in data:
        yield "receipt proof without a header", partial(run_bare_proof, data)


def run_header(header: dict[str, Any]) -> None:
    fields = []
    for name in HEADER_FIELDS:
        if name in header:
            is_integer = name in INTEGERS
            fields.append(
                mpt.encode_rlp_integer(parse_integer(header[name], name, 256))
                if is_integer
                else parse_hex(header[name], name)
            )
    assert keccak256(mpt.encode_rlp(fields)) == unhex(header["hash"])


def run_block(data: list[Any], header: dict[str, Any]) -> None:
    run_header(header)
    parsed = [receipts.parse_receipt_json(entry) for entry in data]
    root = unhex(header["receiptsRoot"])
    receipts.verify_receipts(parsed, root)
    if len(parsed) > 1:
        with pytest.raises(Rejected):
            receipts.verify_receipts(parsed[:-1], root)
    changed = replace(parsed[0], cumulative_gas=parsed[0].cumulative_gas + 1)
    with pytest.raises(Rejected):
        receipts.verify_receipts([changed, *parsed[1:]], root)
    with_logs = next((i for i, receipt in enumerate(parsed) if receipt.logs), None)
    if with_logs is not None:  # incident A13: one altered log changes the root
        first, *rest = parsed[with_logs].logs
        forged = replace(parsed[with_logs], logs=(replace(first, data=first.data + b"\0"), *rest))
        with pytest.raises(Rejected):
            receipts.verify_receipts([*parsed[:with_logs], forged, *parsed[with_logs + 1 :]], root)


def run_receipts(data: list[Any]) -> None:
    gas = 0
    for entry in data:
        receipt = receipts.parse_receipt_json(entry)
        assert receipts.decode_receipt(receipts.encode_receipt(receipt)) == receipt
        assert receipts.compute_bloom(receipt.logs) == receipt.bloom
        assert receipt.cumulative_gas == gas + int(entry["gasUsed"], 16)
        gas = receipt.cumulative_gas


def run_proof(data: dict[str, Any], header: dict[str, Any]) -> None:
    run_header(header)
    index = int(data["receipt"]["transactionIndex"], 16)
    verify_proof(
        unhex(header["receiptsRoot"]), index, data["receiptProof"], receipts.parse_receipt_json(data["receipt"])
    )


def run_bare_proof(data: dict[str, Any]) -> None:
    root = keccak256(unhex(data["proof"][0]))
    expected = receipts.decode_receipt(unhex(data["receipt"]))
    verify_proof(root, data["receipt_index"], data["proof"], expected)
    log = expected.logs[data["log_index"]]
    assert mpt.encode_rlp([log.address, list(log.topics), log.data]) == unhex(data["log"])


def verify_proof(root: bytes, index: int, proof: list[str], expected: receipts.Receipt) -> None:
    nodes = [unhex(node) for node in proof]
    assert receipts.verify_receipt_proof(root, index, nodes) == expected
    with pytest.raises(Rejected):
        receipts.verify_receipt_proof(root, index + 1, nodes)
    with pytest.raises(Rejected):
        receipts.verify_receipt_proof(root, index, nodes[:-1])
    flipped = nodes[-1][:-1] + bytes((nodes[-1][-1] ^ 1,))
    with pytest.raises(Rejected):
        receipts.verify_receipt_proof(root, index, [*nodes[:-1], flipped])
