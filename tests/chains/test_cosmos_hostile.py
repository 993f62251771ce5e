"""What a hostile node may answer: every word of a block and of a proof made odd, and bytes that break one rule and no other.

Whatever comes, the answer is a refusal with a reason; another error would stop the node (errors.py).
"""

from __future__ import annotations

import base64
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import codec, ics23, proofs
from chains.cosmos import light_client as lc
from chains.cosmos.ics23 import TENDERMINT_SPEC, ExistenceProof, InnerOp
from messages.errors import Rejected
from tests.chains.cosmos_forge import (
    CONFIG,
    SIMPLE_LEAF,
    STEP_NS,
    Forge,
    Tree,
    make_set,
    make_store_proof,
    make_stores,
)
from tests.chains.test_cosmos_hashing import to_json, to_json_set

FORGE = Forge(((1, make_set(["ann", "ben", "k1a", "dan"])),))
BLOCK, TRUSTED = FORGE.make_block(8), FORGE.make_trusted(7)
NOW = BLOCK.header.time_ns + STEP_NS
ANSWER = json.loads(json.dumps([to_json(BLOCK), to_json_set(BLOCK.validators), to_json_set(BLOCK.validators)]))
MODULE, STORES = make_stores({b"key%d" % i: b"value" for i in range(9)})
PROOF = make_store_proof(MODULE, STORES, b"key4")
PROOF_ANSWER = {
    "ops": [
        {"type": op.type, "key": base64.b64encode(op.key).decode(), "data": base64.b64encode(op.data).decode()}
        for op in PROOF.ops
    ]
}


def list_paths(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from list_paths(inner, (*path, key))


ODD = [
    None, True, False, 0, 1, -1, 1.5, float("inf"), float("nan"), 2**31, 2**63, 2**64, -(2**63), 10**30, "", "0", "-0", "-1", "00", "1e9",
    "\u0663", " 1", "9" * 18, "9" * 400, "\ud800", "\udfff" * 40, "a\0b", "\u202e", "AA", "AA==", "QQ", "QR==", "zz", "A" * 300, [], {}, [[]],
    [None], {"hash": "\ud800"}, {"block": "18446744073709551615"}, "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
    "2023-11-14T22:13:60Z", "2023-11-14T22:13:20z",
]  # fmt: skip
PATHS = [path for path in list_paths(ANSWER) if path]
PROOF_PATHS = [path for path in list_paths(PROOF_ANSWER) if path]


def change(answer, path, value):
    changed = copy.deepcopy(answer)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


def follow(answer):
    """All that is done with a block: read, stored, judged from a header next to it and from its own checkpoint."""
    block = codec.parse_light_block(*answer)
    assert codec.decode_update(codec.encode_update(block)) == block
    lc.verify_bootstrap(block, 8, BLOCK.commit.block_id.hash, NOW, CONFIG)
    return lc.verify_update(TRUSTED, block, NOW, CONFIG)


def ask(call):
    """Return what a call returns, None where it refuses with a reason that a log can take; another error is the test's."""
    try:
        return call()
    except Rejected as error:
        str(error).encode()
        return None if error.reason else "no reason"


@given(st.sampled_from(PATHS), st.sampled_from(ODD))
@settings(max_examples=400, deadline=None)
def test_a_block_with_any_word_made_odd_is_the_block_or_refused(path, value):
    trusted = ask(lambda: follow(change(ANSWER, path, value)))
    assert trusted is None or trusted.header_hash == BLOCK.commit.block_id.hash


@given(st.sampled_from(PROOF_PATHS), st.sampled_from(ODD))
@settings(max_examples=200, deadline=None)
def test_a_proof_with_any_word_made_odd_is_the_proof_or_refused(path, value):
    def read():
        proof = codec.parse_proof(change(PROOF_ANSWER, path, value))
        assert codec.decode_proof(codec.encode_proof(proof)) == proof
        proofs.verify_store_value(STORES.root, proof, b"wasm", b"key4", b"value")
        return proof

    assert ask(read) in {None, PROOF}


def test_the_answers_are_taken_as_they_are():
    assert follow(ANSWER).height == 8
    proofs.verify_store_value(STORES.root, codec.parse_proof(PROOF_ANSWER), b"wasm", b"key4", b"value")


def test_a_name_that_has_no_bytes_is_refused_and_stops_nothing():
    """JSON may name half a character; it is a text here and no bytes exist for it."""
    for answer in (change(ANSWER, (0, "header", "chain_id"), "forge\ud800-1"),):
        with pytest.raises(Rejected) as error:
            codec.parse_light_block(*answer)
        assert error.value.reason == "bad_json"
    with pytest.raises(Rejected) as error:
        codec.parse_proof(change(PROOF_ANSWER, ("ops", 0, "type"), "ics23:\ud800"))
    assert error.value.reason == "bad_json"


def test_a_store_named_like_the_end_of_another_is_not_proven_by_hiding_the_rest_in_the_leafs_prefix():
    """A2 for the multistore: bytes behind the leaf's 00 would let "abc, 4, wasm" be read as "wasm"."""
    tree = Tree({b"abc\x04wasm": b"a root", b"other": b"another"}, SIMPLE_LEAF)
    true = tree.prove(b"abc\x04wasm")
    forged = ExistenceProof(b"wasm", b"a root", SIMPLE_LEAF._replace(prefix=b"\0\x08abc"), true.path)
    assert ics23.compute_existence_root(forged) == tree.root
    with pytest.raises(Rejected) as error:
        ics23.verify_membership(TENDERMINT_SPEC, tree.root, (forged,), b"wasm", b"a root")
    assert error.value.reason == "bad_leaf"
    ics23.verify_membership(TENDERMINT_SPEC, tree.root, (true,), b"abc\x04wasm", b"a root")


def test_a_step_of_the_multistore_has_the_length_of_two_hashes():
    """No honest step is shorter or longer; what else would fit the prefix lengths is refused before it is hashed."""
    proof = STORES.prove(b"wasm")
    at = next(i for i, step in enumerate(proof.path) if not step.suffix)
    for other in (InnerOp(1, b"\1" + bytes(16), b""), InnerOp(1, b"\1", bytes(64)), InnerOp(1, b"\1", b"")):
        path = (*proof.path[:at], other, *proof.path[at + 1 :])
        with pytest.raises(Rejected) as error:
            ics23.verify_against_spec(proof._replace(path=path), TENDERMINT_SPEC)
        assert error.value.reason == "bad_inner"
    ics23.verify_against_spec(proof, TENDERMINT_SPEC)
