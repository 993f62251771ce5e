"""ICS-23 over own trees: membership, absence, chains of trees, batches; beside each proof the one with a single thing changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import ics23
from chains.cosmos.ics23 import IAVL_SPEC, SMT_SPEC, TENDERMINT_SPEC, ExistenceProof, InnerOp, NonExistenceProof
from chains.cosmos.protobuf import encode_varint
from messages.errors import Rejected
from tests.chains.cosmos_forge import IAVL_LEAF, SIMPLE_LEAF, Tree, compute_simple_root, make_stores

ENTRIES = {b"key%02d" % i: b"value %d" % i for i in range(0, 26, 2)}
IAVL = Tree(ENTRIES, IAVL_LEAF)
SIMPLE = Tree(ENTRIES, SIMPLE_LEAF)
TREES = [(IAVL_SPEC, IAVL), (TENDERMINT_SPEC, SIMPLE)]


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def decode(entry):
    return ics23.decode_proof(ics23.encode_entry(entry))


def is_member(spec, tree, key, value) -> bool:
    ics23.verify_membership(spec, tree.root, decode(tree.prove(key)), key, value)
    return True


def test_the_forged_multistore_has_the_root_of_the_trees_definition():
    assert SIMPLE.root == compute_simple_root(ENTRIES)


@pytest.mark.parametrize(("spec", "tree"), TREES, ids=["iavl", "simple"])
def test_every_entry_is_proven_and_no_other_value_or_key(spec, tree):
    for key, value in ENTRIES.items():
        assert is_member(spec, tree, key, value)
        proof = decode(tree.prove(key))
        assert refuse(lambda p=proof, k=key: ics23.verify_membership(spec, tree.root, p, k, b"x")) == "wrong_value"
        assert refuse(lambda p=proof, v=value: ics23.verify_membership(spec, tree.root, p, b"key", v)) == "wrong_key"
        assert (
            refuse(lambda p=proof, k=key, v=value: ics23.verify_membership(spec, b"\1" * 32, p, k, v)) == "wrong_root"
        )
        assert refuse(lambda p=proof, k=key: ics23.verify_non_membership(spec, tree.root, p, k)) == "wrong_kind"


@pytest.mark.parametrize(("spec", "tree"), TREES, ids=["iavl", "simple"])
def test_every_gap_is_proven_and_no_entry_is(spec, tree):
    for i in range(-1, 27, 2):
        key = b"key%02d" % i if i >= 0 else b"a"
        ics23.verify_non_membership(spec, tree.root, decode(tree.prove_absence(key)), key)
    for key in ENTRIES:
        keys = sorted(ENTRIES)
        at = keys.index(key)
        left = tree.prove(keys[at - 1]) if at else None
        right = tree.prove(keys[at + 1]) if at + 1 < len(keys) else None
        skipping = (NonExistenceProof(key, left, right),)
        assert refuse(lambda p=skipping, k=key: ics23.verify_non_membership(spec, tree.root, p, k)) == "not_adjacent"


@pytest.mark.parametrize(("spec", "tree"), TREES, ids=["iavl", "simple"])
def test_an_edge_is_an_edge_only_at_the_edge(spec, tree):
    for key in sorted(ENTRIES)[1:]:
        claim = (NonExistenceProof(b"", None, tree.prove(key)),)
        assert refuse(lambda c=claim: ics23.verify_non_membership(spec, tree.root, c, b"a")) == "not_adjacent"
    for key in sorted(ENTRIES)[:-1]:
        claim = (NonExistenceProof(b"", tree.prove(key), None),)
        assert refuse(lambda c=claim: ics23.verify_non_membership(spec, tree.root, c, b"z")) == "not_adjacent"
    neither = (NonExistenceProof(b"a", None, None),)
    assert refuse(lambda: ics23.verify_non_membership(spec, tree.root, neither, b"a")) == "no_neighbour"


def test_the_provers_own_name_of_an_absent_key_decides_nothing():
    absent = IAVL.prove_absence(b"key03")._replace(key=b"anything")
    ics23.verify_non_membership(IAVL_SPEC, IAVL.root, (absent,), b"key03")
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, IAVL.root, (absent,), b"key05")) == "not_between"
    same = (NonExistenceProof(b"key04", IAVL.prove(b"key04"), IAVL.prove(b"key04")),)
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, IAVL.root, same, b"key05")) == "not_between"


@pytest.mark.parametrize(("spec", "tree"), TREES, ids=["iavl", "simple"])
def test_a_proof_of_one_kind_of_tree_is_none_of_another(spec, tree):
    other = TENDERMINT_SPEC if spec is IAVL_SPEC else IAVL_SPEC
    proof = decode(tree.prove(b"key04"))
    assert refuse(lambda: ics23.verify_membership(other, tree.root, proof, b"key04", b"value 4")) in {
        "bad_inner",
        "bad_iavl_op",
        "bad_leaf",
    }
    assert refuse(lambda: ics23.verify_membership(SMT_SPEC, tree.root, proof, b"key04", b"value 4")) == "bad_leaf"


@pytest.mark.parametrize("encode", [ics23.encode_batch, ics23.encode_compressed_batch])
def test_a_batch_proves_what_is_in_it_and_nothing_else(encode):
    entries = (
        *(IAVL.prove(key) for key in list(ENTRIES)[:5]),
        IAVL.prove_absence(b"key03"),
        IAVL.prove_absence(b"a"),
    )
    data = encode(entries)
    batch = ics23.decode_proof(data)
    assert batch == entries
    for key in list(ENTRIES)[:5]:
        ics23.verify_membership(IAVL_SPEC, IAVL.root, batch, key, ENTRIES[key])
    for key in (b"key03", b"a"):
        ics23.verify_non_membership(IAVL_SPEC, IAVL.root, batch, key)
    assert refuse(lambda: ics23.verify_membership(IAVL_SPEC, IAVL.root, batch, b"key10", b"value 10")) == "wrong_key"
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, IAVL.root, batch, b"key07")) == "not_between"
    assert len(encode(entries)) > 100


def test_a_compressed_batch_is_limited_and_its_indices_are_checked(monkeypatch):
    entries = tuple(IAVL.prove(key) for key in ENTRIES)
    data = ics23.encode_compressed_batch(entries)
    assert len(data) < len(ics23.encode_batch(entries))
    monkeypatch.setattr(ics23, "MAX_INFLATED_OPS", 10)
    assert refuse(lambda: ics23.decode_proof(data)) == "size"
    monkeypatch.setattr(ics23, "MAX_INFLATED_OPS", 10_000)
    monkeypatch.setattr(ics23, "MAX_BATCH_ENTRIES", 2)
    assert refuse(lambda: ics23.decode_proof(data)) == "size"
    lone = ics23.encode_compressed_batch(entries[:1])
    assert ics23.decode_proof(lone) == entries[:1]
    path = bytes(range(len(entries[0].path)))
    beyond = lone.replace(b"\x22" + bytes([len(path)]) + path, b"\x22" + bytes([len(path)]) + path[:-1] + b"\x7f")
    assert beyond != lone
    assert refuse(lambda: ics23.decode_proof(beyond)) == "bad_protobuf"


def test_bytes_of_no_proof_or_of_two_are_refused():
    one = ics23.encode_entry(IAVL.prove(b"key04"))
    assert refuse(lambda: ics23.decode_proof(b"")) == "wrong_kind"
    assert refuse(lambda: ics23.decode_proof(one + ics23.encode_entry(IAVL.prove_absence(b"key03")))) == "wrong_kind"
    assert refuse(lambda: ics23.decode_proof(b"\x1a\x00")) == "size"
    assert refuse(lambda: ics23.decode_proof(b"\x1a\x02\x0a\x00")) == "bad_protobuf"
    assert refuse(lambda: ics23.decode_proof(bytes(ics23.MAX_PROOF_BYTES + 1))) == "size"


# ---- trees inside trees -----------------------------------------------------------------------------------------------

MODULE, STORES = make_stores(ENTRIES)
SPECS = (IAVL_SPEC, TENDERMINT_SPEC)


def chain(key=b"key04", value=b"value 4", store=b"wasm", root=STORES.root, proofs=None, specs=SPECS):
    proofs = proofs or ((MODULE.prove(key),), (STORES.prove(store),))
    ics23.verify_chained_membership(specs, root, proofs, (key, store), value)


def test_a_value_is_proven_through_its_store_up_to_the_app_hash():
    chain()
    assert refuse(lambda: chain(value=b"value 5")) == "wrong_value"
    assert refuse(lambda: chain(store=b"bank")) == "wrong_value"
    assert refuse(lambda: chain(root=MODULE.root)) == "wrong_root"
    assert refuse(lambda: chain(root=b"")) == "wrong_root"
    assert refuse(lambda: chain(proofs=((MODULE.prove(b"key04"),),))) == "wrong_depth"
    assert refuse(lambda: chain(specs=SPECS[:1], proofs=((MODULE.prove(b"key04"),),))) == "wrong_depth"
    assert refuse(lambda: ics23.verify_chained_membership((), b"", (), (), b"")) == "wrong_depth"


def test_absence_is_proven_only_inside_a_store_that_exists():
    gap = (MODULE.prove_absence(b"key03"),)
    ics23.verify_chained_non_membership(SPECS, STORES.root, (gap, (STORES.prove(b"wasm"),)), (b"key03", b"wasm"))
    for above, reason in (
        ((STORES.prove(b"bank"),), "wrong_value"),
        ((STORES.prove_absence(b"none"),), "wrong_kind"),
    ):
        keys = (b"key03", b"bank" if reason == "wrong_value" else b"none")
        call = lambda a=above, k=keys: ics23.verify_chained_non_membership(SPECS, STORES.root, (gap, a), k)  # noqa: E731
        assert refuse(call) == reason
    present = (MODULE.prove(b"key04"),)
    call = lambda: ics23.verify_chained_non_membership(  # noqa: E731
        SPECS, STORES.root, (present, (STORES.prove(b"wasm"),)), (b"key04", b"wasm")
    )
    assert refuse(call) == "wrong_kind"


def test_an_absence_inside_a_chain_of_existence_is_refused():
    above = (STORES.prove_absence(b"none"),)
    assert refuse(lambda: chain(proofs=((MODULE.prove(b"key04"),), above), store=b"none")) == "wrong_kind"


# ---- sparse trees -----------------------------------------------------------------------------------------------------


def make_sparse(keys):
    """Return root and proofs of a sparse tree over hashed keys, empty children being 32 zero bytes."""
    leaf = SMT_SPEC.leaf
    placed = {ics23.compute_hash(1, key): key for key in keys}
    paths = {key: [] for key in keys}

    def build(places, depth):
        if not places:
            return bytes(32)
        if len(places) == 1:
            key = placed[places[0]]
            return ics23.compute_leaf(leaf, key, b"v" + key)
        sides = [[p for p in places if (int.from_bytes(p, "big") >> (255 - depth)) & 1 == bit] for bit in (0, 1)]
        left, right = (build(side, depth + 1) for side in sides)
        for place in sides[0]:
            paths[placed[place]].append(InnerOp(1, b"\1", right))
        for place in sides[1]:
            paths[placed[place]].append(InnerOp(1, b"\1" + left, b""))
        return ics23.compute_hash(1, b"\1" + left + right)

    root = build(sorted(placed), 0)
    return root, {key: ExistenceProof(key, b"v" + key, leaf, tuple(paths[key])) for key in keys}


def test_a_sparse_tree_proves_absence_beside_empty_children():
    keys = [b"k%d" % i for i in range(12)]
    root, proofs = make_sparse(keys)
    order = sorted(keys, key=lambda k: ics23.compute_hash(1, k))
    for key in keys:
        ics23.verify_membership(SMT_SPEC, root, (proofs[key],), key, b"v" + key)
    for i in range(30):
        absent = b"absent %d" % i
        place = ics23.compute_hash(1, absent)
        before = [k for k in order if ics23.compute_hash(1, k) < place]
        after = [k for k in order if ics23.compute_hash(1, k) > place]
        claim = NonExistenceProof(absent, proofs[before[-1]] if before else None, proofs[after[0]] if after else None)
        ics23.verify_non_membership(SMT_SPEC, root, (claim,), absent)
        if len(before) > 1:
            wide = claim._replace(left=proofs[before[-2]])
            assert (
                refuse(lambda w=wide, a=absent: ics23.verify_non_membership(SMT_SPEC, root, (w,), a)) == "not_adjacent"
            )


def test_an_empty_branch_counts_only_where_the_spec_says_what_empty_is():
    without = replace(SMT_SPEC, inner=replace(SMT_SPEC.inner, empty_child=b""))
    step = InnerOp(1, b"\1" + bytes(32), b"")
    assert ics23.is_left_most(SMT_SPEC.inner, [step])
    assert not ics23.is_left_most(without.inner, [step])
    assert not ics23.is_left_most(SMT_SPEC.inner, [InnerOp(1, b"\1" + b"\1" * 32, b"")])
    assert ics23.is_right_most(SMT_SPEC.inner, [InnerOp(1, b"\1", bytes(32))])
    assert not ics23.is_right_most(without.inner, [InnerOp(1, b"\1", bytes(32))])


# ---- any change -------------------------------------------------------------------------------------------------------

RAW = ics23.encode_entry(IAVL.prove(b"key12"))
RAW_ABSENT = ics23.encode_entry(IAVL.prove_absence(b"key13")._replace(key=b""))


@given(st.integers(min_value=0, max_value=len(RAW) - 1), st.integers(min_value=0, max_value=7))
@settings(max_examples=300, deadline=None)
def test_a_proof_with_any_bit_changed_proves_nothing(at, bit):
    data = RAW[:at] + bytes([RAW[at] ^ (1 << bit)]) + RAW[at + 1 :]
    reason = refuse(
        lambda: ics23.verify_membership(IAVL_SPEC, IAVL.root, ics23.decode_proof(data), b"key12", ENTRIES[b"key12"])
    )
    assert reason


@given(st.integers(min_value=0, max_value=len(RAW_ABSENT) - 1), st.integers(min_value=0, max_value=7))
@settings(max_examples=300, deadline=None)
def test_a_proof_of_absence_with_any_bit_changed_proves_nothing(at, bit):
    data = RAW_ABSENT[:at] + bytes([RAW_ABSENT[at] ^ (1 << bit)]) + RAW_ABSENT[at + 1 :]
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, IAVL.root, ics23.decode_proof(data), b"key13"))


@given(st.dictionaries(st.binary(min_size=1, max_size=6), st.binary(min_size=1, max_size=9), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_tree_proves_its_entries_and_its_gaps(entries):
    for spec, leaf in ((IAVL_SPEC, IAVL_LEAF), (TENDERMINT_SPEC, SIMPLE_LEAF)):
        tree = Tree(entries, leaf)
        for key, value in entries.items():
            ics23.verify_membership(spec, tree.root, decode(tree.prove(key)), key, value)
            absent = key + b"\0"
            if absent not in entries:
                ics23.verify_non_membership(spec, tree.root, decode(tree.prove_absence(absent)), absent)


def test_the_quick_reading_of_a_step_and_the_general_one_agree():
    for step in (
        InnerOp(1, b"\2\4\6\x20", b"\x20" + b"\7" * 32),
        InnerOp(1, b"\1", b""),
        InnerOp(1, b"\1" * 127, b"\2" * 127),
        InnerOp(1, b"\1" * 128, b"\2" * 128),
        InnerOp(0, b"\1", b"\2"),
        InnerOp(1, b"", b"\2"),
        InnerOp(1, b"", b""),
        InnerOp(2, b"\1", b""),
    ):
        assert ics23._decode_inner(ics23.encode_inner(step)) == step
    for data in ("0801120101 1a00", "08011200", "0801120201", "0801120101 1a0201", "0801120101 1a0102 00", "080112"):
        assert refuse(lambda d=data: ics23._decode_inner(bytes.fromhex(d))) == "bad_protobuf"


def judge(read, data):
    try:
        return read(data)
    except Rejected as error:
        return error.reason


EXISTENCE = ics23.encode_existence(IAVL.prove(b"key12"))


@given(st.lists(st.tuples(st.integers(0, len(EXISTENCE) - 1), st.integers(0, 255)), max_size=3), st.integers(-3, 3))
@settings(max_examples=300, deadline=None)
def test_the_quick_reading_of_a_proof_and_the_general_one_agree(changes, extra):
    data = bytearray(EXISTENCE)
    for at, value in changes:
        data[at] = value
    raw = bytes(data) + bytes(extra) if extra >= 0 else bytes(data)[:extra]
    assert judge(ics23._decode_existence, raw) == judge(ics23._decode_any_existence, raw)


def test_the_quick_reading_of_a_proof_is_the_usual_road():
    assert ics23._read_usual_existence(EXISTENCE) == IAVL.prove(b"key12")
    long = IAVL.prove(b"key12")._replace(value=b"x" * 128)
    assert ics23._read_usual_existence(ics23.encode_existence(long)) is None
    assert ics23._decode_existence(ics23.encode_existence(long)) == long


@given(
    height=st.one_of(st.integers(0, 40), st.integers(0, 300)),
    numbers=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**20)),
    tail=st.sampled_from([b"", b"\x20", b"\x20" * 34, b"\x20" * 2, b"\x80\0\x20"]),
    layer=st.integers(1, 20),
    cut=st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_what_the_quick_look_at_an_iavl_prefix_takes_the_full_one_takes(height, numbers, tail, layer, cut):
    prefix = b"".join(encode_varint(n) for n in (height, *numbers)) + tail
    prefix = prefix[: len(prefix) - cut]
    full = judge(lambda data: ics23.verify_iavl_prefix(data, layer, is_leaf=False), prefix)
    assert ics23._measure_usual_iavl_prefix(prefix, layer) in {0, full}


def test_the_quick_look_at_an_iavl_prefix_sees_the_usual_node():
    for step, rest in ((b"\2\4\6\x20", 1), (b"\4\x82\1\xc0\x84\x3d\x20" + b"\7" * 33, 34)):
        assert ics23._measure_usual_iavl_prefix(step, 1) == rest
        assert ics23._measure_usual_iavl_prefix(step, 3) == 0
    for bad in (b"\3\4\6\x20", b"\2\5\6\x20", b"\2\4\7\x20", b"\2\x84\0\6\x20", b"\2\4\x86", b"\2", b""):
        assert ics23._measure_usual_iavl_prefix(bad, 1) == 0
