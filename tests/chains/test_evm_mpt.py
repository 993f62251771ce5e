"""RLP and tries against py-trie: what is in a trie is proven, what is not is proven absent, and nothing else is ever proven."""

from __future__ import annotations

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from chains.evm import mpt
from messages.errors import Rejected
from messages.hashing import keccak256

REASONS = {"too_many_nodes", "node_size", "bad_node_hash", "missing_node", "unused_nodes", "bad_node", "bad_rlp"}


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def build(entries: dict[bytes, bytes]) -> HexaryTrie:
    trie = HexaryTrie({})
    for key, value in entries.items():
        trie[key] = value
    return trie


def get_nodes(trie: HexaryTrie, key: bytes, *, redundant: bool = False) -> list[bytes]:
    nodes = [rlp.encode(node) for node in trie.get_proof(key)]
    return [node for i, node in enumerate(nodes) if redundant or i == 0 or len(node) >= 32]


# ---- RLP --------------------------------------------------------------------------------------------------------------

ITEMS = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=6), max_leaves=12)


@settings(max_examples=150)
@given(ITEMS)
def test_rlp_comes_back_and_is_that_of_the_library(item):
    data = mpt.encode_rlp(item)
    assert data == rlp.encode(item)
    assert mpt.decode_rlp(data) == item


@settings(max_examples=300)
@given(
    st.binary(max_size=70)
    | ITEMS.map(mpt.encode_rlp).flatmap(lambda d: st.integers(0, len(d) - 1).map(lambda i: d[:i] + d[i + 1 :]))
)
def test_rlp_that_is_read_is_canonical_and_the_library_agrees(data):
    try:
        item = mpt.decode_rlp(data)
    except Rejected as error:
        assert error.reason == "bad_rlp"  # noqa: PT017  one of two outcomes
        with pytest.raises(rlp.DecodingError):
            rlp.decode(data, strict=True)
        return
    assert mpt.encode_rlp(item) == data


def test_rlp_nested_without_end_is_refused():
    deep = b"\xc0"
    for _ in range(mpt.MAX_RLP_DEPTH - 1):
        deep = mpt._encode_length(len(deep), 0xC0) + deep
    assert mpt.decode_rlp(deep)
    assert (
        refuse(
            lambda: mpt.decode_rlp(mpt._encode_length(len(deep) + 3, 0xC0) + mpt._encode_length(len(deep), 0xC0) + deep)
        )
        == "bad_rlp"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xb9\x00\x38" + bytes(56),  # leading zero in the length
        b"\xf9\x00\x38" + bytes(56),
        b"\xb8\x37" + bytes(55),  # short enough for the short form
        b"\xf8\x37" + bytes(55),
        b"\xb8",
        b"\xbf" + b"\xff" * 8,
        b"\x81\x7f",
        b"\x82\x01",
        b"\xc2\x01",
        b"\xc1\x82\x01\x02",  # an item longer than its list
        b"",
    ],
)
def test_each_other_writing_of_an_rlp_length_is_refused(data):
    assert refuse(lambda: mpt.decode_rlp(data)) == "bad_rlp"
    assert mpt.decode_rlp(b"\xb8\x38" + bytes(56)) == bytes(56), "the neighbour that is right"


def test_rlp_integers_have_no_leading_zeros_and_a_limit():
    assert mpt.decode_rlp_integer(b"") == 0
    assert mpt.decode_rlp_integer(b"\1\0") == 256
    for wrong in (b"\0", b"\0\1", bytes(33), b"\1" * 33, [b"\1"]):
        assert refuse(lambda w=wrong: mpt.decode_rlp_integer(w)) == "bad_rlp"


@settings(max_examples=200)
@given(ITEMS, st.integers(0, 200), st.integers(0, 255))
def test_the_short_way_of_reading_a_node_is_the_strict_one(item, at, byte):
    data = bytearray(mpt.encode_rlp([item, bytes(32), b"", b"\x80" * 32, item]))
    data[at % len(data)] = byte
    data = bytes(data)
    try:
        expected = mpt.decode_rlp(data)
    except Rejected:
        expected = None
    if not isinstance(expected, list):
        assert refuse(lambda: mpt._decode_node(data)) in {"bad_rlp", "bad_node"}
    else:
        assert mpt._decode_node(data) == expected


# ---- tries ------------------------------------------------------------------------------------------------------------

SHORT_KEYS = st.binary(min_size=1, max_size=3)  # many shared prefixes, keys inside keys
WORDS = st.binary(min_size=32, max_size=32)
VALUES = st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=60)  # small ones make inlined nodes
TRIES = st.dictionaries(SHORT_KEYS, VALUES, max_size=12) | st.dictionaries(WORDS, VALUES, max_size=12)


@settings(max_examples=150, deadline=None)
@given(TRIES, st.lists(SHORT_KEYS | WORDS, max_size=4))
def test_every_key_is_proven_present_or_absent_and_the_root_is_that_of_py_trie(entries, others):
    trie = build(entries)
    root = mpt.compute_trie_root(entries)
    assert root == trie.root_hash
    for key in [*entries, *others]:
        for redundant in (False, True):
            nodes = get_nodes(trie, key, redundant=redundant)
            assert mpt.verify_trie_value(root, key, nodes) == entries.get(key)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(SHORT_KEYS, VALUES, min_size=1, max_size=12), st.data())
def test_no_change_of_a_proof_ever_proves_another_value(entries, data):
    trie = build(entries)
    root = trie.root_hash
    key = data.draw(st.sampled_from(sorted(entries)) | SHORT_KEYS)
    nodes = get_nodes(trie, key)
    donor = get_nodes(trie, data.draw(st.sampled_from(sorted(entries))))
    i = data.draw(st.integers(0, len(nodes) - 1))
    at = data.draw(st.integers(0, len(nodes[i]) - 1))
    node = bytearray(nodes[i])
    node[at] ^= data.draw(st.integers(1, 255))
    mutations = {
        "flip": [*nodes[:i], bytes(node), *nodes[i + 1 :]],
        "drop": nodes[:i] + nodes[i + 1 :],
        "double": [*nodes[: i + 1], *nodes[i:]],
        "cut": [*nodes[:i], nodes[i][:at], *nodes[i + 1 :]],
        "extra": [*nodes, donor[-1]],
        "reversed": nodes[::-1],
        "other key": donor,
        "none": [],
    }
    for name, changed in mutations.items():
        try:
            got = mpt.verify_trie_value(root, key, changed)
        except Rejected as error:
            assert error.reason in REASONS  # noqa: PT017  one of two outcomes
            continue
        assert got == entries.get(key), name
        assert name != "flip"


def test_a_leaf_inside_its_parent_is_proven_with_and_without_being_listed():
    entries = {b"\x10": b"a", b"\x11": b"b", b"\x25" * 2: b"c" * 40}
    trie = build(entries)
    nodes, redundant = get_nodes(trie, b"\x10"), get_nodes(trie, b"\x10", redundant=True)
    assert len(redundant) > len(nodes)
    for proof in (nodes, redundant):
        assert mpt.verify_trie_value(trie.root_hash, b"\x10", proof) == b"a"
    other = [*redundant[:-1], mpt.encode_rlp([b"\x20", b"z"])]
    assert refuse(lambda: mpt.verify_trie_value(trie.root_hash, b"\x10", other)) == "unused_nodes"


def test_a_leaf_speaks_for_its_own_key_and_for_none_that_begins_or_ends_alike():
    for stored, other in ((b"\x10", b"\x10\x11"), (b"\x10\x11", b"\x10"), (b"\x10\x11", b"\x10\x12")):
        trie = build({stored: b"v" * 40})
        nodes = get_nodes(trie, stored)
        assert mpt.verify_trie_value(trie.root_hash, stored, nodes) == b"v" * 40
        assert mpt.verify_trie_value(trie.root_hash, other, nodes) is None


def test_an_empty_trie_proves_every_absence_and_nothing_else():
    for nodes in ([], [b"\x80"]):
        assert mpt.verify_trie_value(mpt.EMPTY_ROOT, b"\1" * 32, nodes) is None
    assert keccak256(b"\x80") == mpt.EMPTY_ROOT == mpt.compute_trie_root({})
    assert refuse(lambda: mpt.verify_trie_value(mpt.EMPTY_ROOT, b"\1", [b"\x80", b"\x80"])) in REASONS
    assert refuse(lambda: mpt.verify_trie_value(mpt.EMPTY_ROOT, b"\1", [b"\xc0"])) == "bad_node_hash"
    assert refuse(lambda: mpt.verify_trie_value(bytes(32), b"\1", [])) == "missing_node"


@pytest.mark.parametrize(
    "node",
    [
        b"\xc0",
        mpt.encode_rlp([b""] * 16),
        mpt.encode_rlp([b""] * 18),
        mpt.encode_rlp([[], *[b""] * 16]),
        mpt.encode_rlp([b"short", *[b""] * 16]),
        mpt.encode_rlp([[b"\x20", b"x" * 40], *[b""] * 16]),  # long enough to be hashed, so it may not lie here
        mpt.encode_rlp([*[b""] * 16, [b"value"]]),
        mpt.encode_rlp([b"\x20", b""]),
        mpt.encode_rlp([b"\x00", bytes(32)]),
        mpt.encode_rlp([b"\x11", b""]),
        mpt.encode_rlp([b"\x11", b"short"]),
        mpt.encode_rlp([b"\x40", b"x"]),
        mpt.encode_rlp([b"\x2f", b"x"]),
        mpt.encode_rlp([b"", b"x"]),
        mpt.encode_rlp([[b"\x20"], b"x"]),
        b"\x83abc",
    ],
)
def test_a_node_of_no_lawful_form_proves_nothing_even_under_its_own_hash(node):
    for key in (b"", b"\1", b"\xff"):
        assert refuse(lambda k=key: mpt.verify_trie_value(keccak256(node), k, [node])) == "bad_node"


def test_limits_come_before_hashing():
    many = [b"\x80"] * 66
    assert refuse(lambda: mpt.verify_trie_value(bytes(32), b"\1", many)) == "too_many_nodes"
    long = mpt.encode_rlp([b"\x20", b"x" * 2000])
    assert refuse(lambda: mpt.verify_trie_value(keccak256(long), b"", [long])) == "node_size"
    assert mpt.verify_trie_value(keccak256(long), b"", [long], max_node_bytes=4096) == b"x" * 2000


def test_a_short_node_listed_as_if_it_were_hashed_is_refused():
    leaf = mpt.encode_rlp([b"\x20", b"x"])
    branch = mpt.encode_rlp([keccak256(leaf), *[b""] * 16])
    assert refuse(lambda: mpt.verify_trie_value(keccak256(branch), b"\x0f", [branch, leaf])) == "node_size"


def test_full_branches_are_read_in_place_as_strictly_as_elsewhere():
    entries = {keccak256(bytes((i, j))): bytes((i, j)) * 20 for i in range(20) for j in range(20)}
    trie = build(entries)
    for key in list(entries)[:40]:
        nodes = get_nodes(trie, key)
        assert len(nodes[0]) == 532
        assert mpt.verify_trie_value(trie.root_hash, key, nodes) == entries[key]
    root_node = bytearray(get_nodes(trie, key)[0])
    root_node[3 + 33 * 5] = 0xA1  # the mark of the sixth child: no canonical node any more
    assert refuse(lambda: mpt.verify_trie_value(keccak256(bytes(root_node)), key, [bytes(root_node)])) in REASONS
