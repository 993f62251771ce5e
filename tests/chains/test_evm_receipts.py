"""Receipts: they come back, their root is rebuilt, and an altered log is found (incident A13)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from chains.evm import receipts as rc
from messages.errors import Rejected


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def make(index: int, kind: int = 2, outcome: int | bytes = 1) -> rc.Receipt:
    logs = tuple(rc.Log(bytes((index,)) * 20, (bytes((n,)) * 32,), bytes(n * 7)) for n in range(index % 4))
    return rc.Receipt(kind, outcome, 21_000 * (index + 1), rc.compute_bloom(logs), logs)


BLOCK = tuple(make(i, kind=(0, 1, 2, 3)[i % 4], outcome=i % 2) for i in range(140))


def build_trie(block) -> HexaryTrie:
    trie = HexaryTrie({})
    for i, receipt in enumerate(block):
        trie[rlp.encode(i)] = rc.encode_receipt(receipt)
    return trie


TRIE = build_trie(BLOCK)


def prove(index: int) -> list[bytes]:
    nodes = [rlp.encode(node) for node in TRIE.get_proof(rlp.encode(index))]
    return [node for i, node in enumerate(nodes) if i == 0 or len(node) >= 32]


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 140])
def test_the_root_of_all_receipts_is_that_of_the_block(count):
    trie = build_trie(BLOCK[:count])
    assert rc.compute_receipts_root([rc.encode_receipt(receipt) for receipt in BLOCK[:count]]) == trie.root_hash
    rc.verify_receipts(BLOCK[:count], trie.root_hash)


def test_a13_an_altered_withheld_or_invented_log_changes_the_root():
    root = TRIE.root_hash
    rc.verify_receipts(BLOCK, root)
    victim = BLOCK[3]
    first = victim.logs[0]
    for logs in (
        (replace(first, data=first.data + b"\1"), *victim.logs[1:]),
        victim.logs[1:],
        (*victim.logs, first),
        (replace(first, address=b"\x99" * 20), *victim.logs[1:]),
    ):
        forged = [*BLOCK[:3], replace(victim, logs=logs), *BLOCK[4:]]
        assert refuse(lambda f=forged: rc.verify_receipts(f, root)) == "wrong_receipts_root"
        believed = [log for receipt in forged for log in receipt.logs]  # the twin: takes eth_getLogs for the truth
        assert believed != [log for receipt in BLOCK for log in receipt.logs]
    assert refuse(lambda: rc.verify_receipts([BLOCK[1], BLOCK[0], *BLOCK[2:]], root)) == "wrong_receipts_root"


def test_one_receipt_is_proven_by_its_index_only():
    root = TRIE.root_hash
    for index in (0, 1, 55, 127, 128, 139):
        assert rc.verify_receipt_proof(root, index, prove(index)) == BLOCK[index]
        assert refuse(lambda i=index: rc.verify_receipt_proof(root, i ^ 1, prove(i))) != ""
        assert refuse(lambda i=index: rc.verify_receipt_proof(root, i, prove(i)[:-1])) == "missing_node"
    assert refuse(lambda: rc.verify_receipt_proof(root, 140, prove(140))) == "no_receipt"


@settings(max_examples=60)
@given(
    kind=st.integers(0, 127),
    outcome=st.integers(0, 1),
    gas=st.integers(0, 2**64 - 1),
    logs=st.lists(
        st.tuples(
            st.binary(min_size=20, max_size=20),
            st.lists(st.binary(min_size=32, max_size=32), max_size=4),
            st.binary(max_size=80),
        ),
        max_size=3,
    ),
)
def test_receipts_come_back(kind, outcome, gas, logs):
    parsed = tuple(rc.Log(address, tuple(topics), data) for address, topics, data in logs)
    receipt = rc.Receipt(kind, outcome, gas, rc.compute_bloom(parsed), parsed)
    assert rc.decode_receipt(rc.encode_receipt(receipt)) == receipt


def test_receipts_before_byzantium_carry_a_state_root():
    old = make(2, kind=0, outcome=b"\7" * 32)
    assert rc.decode_receipt(rc.encode_receipt(old)) == old
    typed = b"\2" + rc.encode_receipt(old)
    assert refuse(lambda: rc.decode_receipt(typed)) == "bad_receipt"


def test_malformed_receipts_are_refused_with_a_name():
    good = rc.encode_receipt(make(3))
    assert rc.decode_receipt(good)
    for wrong in (
        b"",
        b"\0" + good[1:],
        good[:-1],
        good + b"\0",
        b"\x80",
        rc.encode_receipt(replace(make(3), bloom=bytes(256))),
        rc.encode_receipt(replace(make(3), outcome=2)),
        rc.encode_receipt(replace(make(3), logs=(rc.Log(bytes(19), (), b""),))),
        rc.encode_receipt(replace(make(3), logs=(rc.Log(bytes(20), (bytes(31),), b""),))),
        rc.encode_receipt(replace(make(3), logs=(rc.Log(bytes(20), (bytes(32),) * 5, b""),))),
    ):
        assert refuse(lambda w=wrong: rc.decode_receipt(w)) in {"bad_receipt", "bad_rlp"}


def describe(receipt: rc.Receipt) -> dict:
    return {
        "type": hex(receipt.type),
        "status": hex(receipt.outcome),
        "cumulativeGasUsed": hex(receipt.cumulative_gas),
        "logsBloom": "0x" + receipt.bloom.hex(),
        "logs": [
            {
                "address": "0x" + log.address.hex(),
                "topics": ["0x" + topic.hex() for topic in log.topics],
                "data": "0x" + log.data.hex(),
            }
            for log in receipt.logs
        ],
    }


def test_receipts_of_a_node_are_read_and_malformed_ones_refused():
    good = describe(make(3))
    assert rc.parse_receipt_json(good) == make(3)
    for key, value in (
        ("status", "0x2"),
        ("status", None),
        ("root", "0x" + "00" * 32),
        ("logsBloom", "0x00"),
        ("cumulativeGasUsed", None),
        ("type", "0x80"),
        ("logs", None),
        ("logs", [None]),
        ("logs", [{**good["logs"][0], "topics": ["0x"]}]),
        ("logs", [{**good["logs"][0], "topics": ["0x" + "00" * 32] * 5}]),
    ):
        assert refuse(lambda k=key, v=value: rc.parse_receipt_json({**good, k: v})) in {"bad_json", "bad_receipt"}
    assert refuse(lambda: rc.parse_receipt_json([])) == "bad_receipt"
