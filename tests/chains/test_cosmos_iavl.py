"""The trees that the simulated chain builds: the same as the SDK's, and proven by the verifier that real chains are held to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos.iavl import EMPTY_HASH, Tree, compute_app_hash, prove_store
from chains.cosmos.ics23 import (
    IAVL_SPEC,
    TENDERMINT_SPEC,
    ExistenceProof,
    decode_proof,
    encode_entry,
    verify_membership,
    verify_non_membership,
)
from messages.errors import Rejected

# Roots that cosmos/iavl v1.2.8 gives for the changes of `make_history`: version -> (root, number of entries).
REAL_ROOTS = {
    1: ("8adb67568857be2fdbdba29aea1aa0adf762f6e03af7bc9bdd559166be312158", 8),
    10: ("0698227b149dc8fbd54ed2d07524e8486855a714ba745d7615da33d2697a8523", 59),
    20: ("87dd27c717c82ac13723019a78582d775cd29d949047b036251b3f27882af592", 74),
    30: ("1e331f9e43c22dc0adf033c00b1051b3ea8031b818907c7792214644788362ef", 78),
    40: ("aa94f1f448efc9a64cfbf16b8a0978ca0bee1c741fa40eae62a6309b856e042a", 76),
}


def make_history():
    """Yield (version, tree) of 40 versions with twelve changes each, a quarter of them removals."""
    state = 12345
    tree = Tree()

    def draw():
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return state >> 8

    for version in range(1, 41):
        for _ in range(12):
            key = b"key-%d" % (draw() % 97)
            tree = tree.remove(key, version) if draw() % 4 == 0 else tree.set(key, b"value-%d" % draw(), version)
        yield version, tree


def test_roots_are_those_of_the_real_library_through_forty_versions():
    for version, tree in make_history():
        if version in REAL_ROOTS:
            assert (tree.hash.hex(), len(tree)) == REAL_ROOTS[version]


def test_a_root_depends_on_the_version_that_made_an_entry():
    assert Tree().set(b"a", b"1", 1).hash != Tree().set(b"a", b"1", 2).hash


def verify(tree, key, value):
    """Check a proof through its bytes, as a client gets it."""
    proof = decode_proof(encode_entry(tree.prove(key)))
    if value is None:
        verify_non_membership(IAVL_SPEC, tree.hash, proof, key)
    else:
        verify_membership(IAVL_SPEC, tree.hash, proof, key, value)


def test_every_entry_is_proven_and_every_gap_too():
    *_, (_, tree) = make_history()
    entries = dict(tree.scan())
    for key, value in entries.items():
        verify(tree, key, value)
        with pytest.raises(Rejected):
            verify(tree, key, value + b"x")
    for gap in (b"a", b"key-0x", b"key-5!", b"zzz", *(key + b"\0" for key in entries)):
        verify(tree, gap, None)


def test_a_proof_says_nothing_about_another_version():
    trees = [tree for _, tree in make_history()]
    old, new = trees[-2], trees[-1]
    key = next(key for key, _ in new.scan())
    with pytest.raises(Rejected):
        verify_membership(IAVL_SPEC, old.hash, (new.prove(key),), key, new.get(key) or b"")


def test_an_entry_cannot_be_proven_absent_and_an_absent_one_not_present():
    tree = Tree().set(b"a", b"1", 1).set(b"c", b"3", 1)
    with pytest.raises(Rejected):
        verify_non_membership(IAVL_SPEC, tree.hash, (tree.prove(b"b"),), b"a")
    assert isinstance(tree.prove(b"a"), ExistenceProof)
    with pytest.raises(Rejected):
        verify_membership(IAVL_SPEC, tree.hash, (tree.prove(b"b"),), b"b", b"2")


def test_an_empty_tree_proves_nothing():
    assert Tree().hash == EMPTY_HASH
    with pytest.raises(ValueError, match="empty"):
        Tree().prove(b"a")


KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(min_size=1, max_size=4)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(CHANGES, KEYS, KEYS)
def test_a_tree_holds_what_a_dict_holds_and_stays_balanced(changes, start, end):
    tree, entries = Tree(), {}
    for version, (key, value) in enumerate(changes, 1):
        if value is None:
            tree = tree.remove(key, version)
            entries.pop(key, None)
        else:
            tree = tree.set(key, value, version)
            entries[key] = value
    assert list(tree.scan()) == sorted(entries.items())
    inside = [(k, v) for k, v in sorted(entries.items()) if start <= k < end]
    assert list(tree.scan(start, end)) == inside
    assert list(tree.scan(start, end, descending=True)) == inside[::-1]
    assert len(tree) == len(entries)
    assert_balanced(tree.root)


def assert_balanced(node):
    if node is None or not node.height:
        return
    assert abs(node.left.height - node.right.height) <= 1
    assert node.height == max(node.left.height, node.right.height) + 1
    assert node.size == node.left.size + node.right.size
    assert_balanced(node.left)
    assert_balanced(node.right)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(min_size=32, max_size=32), min_size=1, max_size=17))
def test_every_store_is_proven_under_the_app_hash(stores):
    root = compute_app_hash(stores)
    for name, value in stores.items():
        proof = decode_proof(encode_entry(prove_store(stores, name)))
        verify_membership(TENDERMINT_SPEC, root, proof, name, value)
        with pytest.raises(Rejected):
            verify_membership(TENDERMINT_SPEC, root, proof, name, bytes(32) if value != bytes(32) else b"\1" * 32)
