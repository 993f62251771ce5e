"""Receipts: encoding, bloom, the receipts root of a block, and proofs of single receipts. Pure.

Used for export and audit: facts rest on storage proofs, because the root of receipts needs either all receipts of a block or one proof
an event, while one slot proves all packets. What `eth_getLogs` or `eth_getTransactionReceipt` say is believed only when it rebuilds the
header's receiptsRoot (incident A13).

Source: Yellow Paper 4.3.1 (bloom), EIP-658 (status), EIP-2718 (typed receipts: type byte || RLP), execution-apis (JSON).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chains.evm.beacon_json import parse_hex, parse_integer
from chains.evm.mpt import (
    RlpItem,
    compute_trie_root,
    decode_rlp,
    decode_rlp_integer,
    encode_rlp,
    encode_rlp_integer,
    verify_trie_value,
)
from messages.errors import Rejected
from messages.hashing import keccak256

MAX_RECEIPTS = 10_000
MAX_LOGS = 100_000
MAX_RECEIPT_BYTES = 1 << 23
"""Eight gas a byte of log data: a block of 60 million gas cannot hold more."""
MAX_TYPE = 0x7F


@dataclass(frozen=True)
class Log:
    """One log: 20-byte address, up to four 32-byte topics, data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Receipt:
    """A receipt as it is hashed. ``outcome`` is the status (0 or 1), or before Byzantium the 32-byte state root."""

    type: int
    outcome: int | bytes
    cumulative_gas: int
    bloom: bytes
    logs: tuple[Log, ...]


def compute_bloom(logs: Iterable[Log]) -> bytes:
    """Return the 256-byte bloom filter of the logs' addresses and topics."""
    bits = 0
    for log in logs:
        for entry in (log.address, *log.topics):
            digest = keccak256(entry)
            for i in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[i : i + 2], "big") & 2047)
    return bits.to_bytes(256, "big")


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the bytes that lie in the receipts trie: RLP, after the type byte for types above 0."""
    outcome = encode_rlp_integer(receipt.outcome) if isinstance(receipt.outcome, int) else receipt.outcome
    logs: list[RlpItem] = [[log.address, list(log.topics), log.data] for log in receipt.logs]
    body = encode_rlp([outcome, encode_rlp_integer(receipt.cumulative_gas), receipt.bloom, logs])
    return bytes((receipt.type,)) + body if receipt.type else body


def decode_receipt(data: bytes) -> Receipt:
    """Return the receipt of bytes from a receipts trie; Rejected ("bad_receipt", "bad_rlp"). The bloom must be the logs' own."""
    if not data or len(data) > MAX_RECEIPT_BYTES:
        raise _refuse("size", got=len(data), expected=f"1..{MAX_RECEIPT_BYTES}")
    kind = data[0] if data[0] <= MAX_TYPE else 0
    if data[0] == 0:
        raise _refuse("type 0 is written without its byte")
    item = decode_rlp(data[1:] if kind else data)
    if not isinstance(item, list) or len(item) != 4:
        raise _refuse("not four fields")
    outcome, gas, bloom, logs = item
    if not isinstance(outcome, bytes) or not isinstance(bloom, bytes) or not isinstance(logs, list):
        raise _refuse("fields of another shape")
    if outcome not in {b"", b"\1"} and (len(outcome) != 32 or kind):
        raise _refuse("neither status nor state root", got=outcome)
    if len(logs) > MAX_LOGS:
        raise _refuse("too many logs", got=len(logs), expected=f"<= {MAX_LOGS}")
    receipt = Receipt(
        type=kind,
        outcome=outcome if len(outcome) == 32 else len(outcome),
        cumulative_gas=decode_rlp_integer(gas, 8),
        bloom=bloom,
        logs=tuple(map(_decode_log, logs)),
    )
    if bloom != compute_bloom(receipt.logs):
        raise _refuse("the bloom is not that of the logs", got=bloom)
    return receipt


def _decode_log(item: RlpItem) -> Log:
    if isinstance(item, list) and len(item) == 3:
        address, topics, data = item
        if isinstance(address, bytes) and len(address) == 20 and isinstance(topics, list) and isinstance(data, bytes):
            words = tuple(topic for topic in topics if isinstance(topic, bytes) and len(topic) == 32)
            if len(words) == len(topics) <= 4:
                return Log(address, words, data)
    raise _refuse("not a log", got=str(item)[:80])


def _refuse(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(f"receipt: {what}", got=got, expected=expected, reason="bad_receipt")


def compute_receipts_root(receipts: Sequence[bytes]) -> bytes:
    """Return the root over all encoded receipts of a block in order; the key of the i-th is RLP(i)."""
    if len(receipts) > MAX_RECEIPTS:
        raise _refuse("more receipts than a block has", got=len(receipts), expected=f"<= {MAX_RECEIPTS}")
    return compute_trie_root({encode_rlp(encode_rlp_integer(i)): receipt for i, receipt in enumerate(receipts)})


def verify_receipts(receipts: Sequence[Receipt], receipts_root: bytes) -> None:
    """Check that these are all receipts of the block, in order; Rejected ("wrong_receipts_root")."""
    root = compute_receipts_root([encode_receipt(receipt) for receipt in receipts])
    if root != receipts_root:
        raise Rejected(
            "the receipts are not the block's", got=root, expected=receipts_root, reason="wrong_receipts_root"
        )


def verify_receipt_proof(receipts_root: bytes, index: int, nodes: Sequence[bytes]) -> Receipt:
    """Return the receipt of transaction ``index`` under a trusted receiptsRoot.

    Raises Rejected: "no_receipt" (proven absent), "bad_receipt", and the reasons of `mpt.verify_trie_value`.
    """
    value = verify_trie_value(receipts_root, encode_rlp(encode_rlp_integer(index)), nodes, MAX_RECEIPT_BYTES)
    if value is None:
        raise Rejected("the block has no such transaction", got=index, reason="no_receipt")
    return decode_receipt(value)


def parse_receipt_json(obj: object) -> Receipt:
    """Return the receipt of a JSON-RPC answer; Rejected ("bad_json", "bad_receipt")."""
    if not isinstance(obj, dict) or not isinstance(obj.get("logs"), list) or len(obj["logs"]) > MAX_LOGS:
        raise _refuse("no receipt object with logs")
    status, root = obj.get("status"), obj.get("root")
    if (status is None) == (root is None):
        raise _refuse("either status or root", got=(status, root))
    return Receipt(
        type=parse_integer(obj.get("type", "0x0"), "type", 7),
        outcome=parse_hex(root, "root", 32) if status is None else parse_integer(status, "status", 1),
        cumulative_gas=parse_integer(obj.get("cumulativeGasUsed"), "cumulativeGasUsed"),
        bloom=parse_hex(obj.get("logsBloom"), "logsBloom", 256),
        logs=tuple(map(_parse_log_json, obj["logs"])),
    )


def _parse_log_json(obj: object) -> Log:
    if not isinstance(obj, dict) or not isinstance(obj.get("topics"), list) or len(obj["topics"]) > 4:
        raise _refuse("no log object with topics")
    return Log(
        address=parse_hex(obj.get("address"), "address", 20),
        topics=tuple(parse_hex(topic, "topic", 32) for topic in obj["topics"]),
        data=parse_hex(obj.get("data"), "data", limit=MAX_RECEIPT_BYTES),
    )
