"""Incidents of proofs and light clients, replayed on the Cosmos family: the product refuses, a twin without the one check does not.

Numbers are those of the incident list: A1 to A6 proofs, F1 to F5 and F8 consensus (F6 is in the tests of the codec, F7 in those of evidence).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import evidence, ics23, proofs
from chains.cosmos import light_client as lc
from chains.cosmos.hashing import compute_address
from chains.cosmos.ics23 import (
    IAVL_SPEC,
    TENDERMINT_SPEC,
    ExistenceProof,
    InnerOp,
    InnerSpec,
    NonExistenceProof,
    ProofSpec,
)
from chains.cosmos.light_client import Verdict
from chains.cosmos.types import NANOSECONDS, Flag, Proof
from chains.cosmos.validators import TWO_THIRDS, is_above
from messages.errors import Rejected
from tests.chains.cosmos_forge import (
    CONFIG,
    IAVL_LEAF,
    SIMPLE_LEAF,
    Forge,
    Tree,
    change_vote,
    make_set,
    make_store_proof,
    make_stores,
)

ENTRIES = {b"key%03d" % i: b"value %d" % i for i in range(64)}
TREE = Tree(ENTRIES, IAVL_LEAF)
SIMPLE = Tree(ENTRIES, SIMPLE_LEAF)
NAMES = ["ann", "ben", "cat", "dan"]
FORGE = Forge(((1, make_set(NAMES)),))
TRUSTED = FORGE.make_trusted(3)
NOW = FORGE.get_time(30)
DAY_NS = 86_400 * NANOSECONDS


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def is_member(spec, root, proof, key, value) -> bool:
    try:
        ics23.verify_membership(spec, root, (proof,), key, value)
    except Rejected:
        return False
    return True


def make_weak_spec(spec: ProofSpec, **inner) -> ProofSpec:
    """A twin's spec: built without the checks of a spec, and with limits that are not those of a known tree."""
    weak = object.__new__(ProofSpec)
    for name, value in vars(spec).items():
        object.__setattr__(weak, name, value)
    shape = object.__new__(InnerSpec)
    for name, value in {**vars(spec.inner), **inner}.items():
        object.__setattr__(shape, name, value)
    object.__setattr__(weak, "inner", shape)
    return weak


# ---- A1: BNB bridge ---------------------------------------------------------------------------------------------------


def compute_weak_legacy_root(path, child):
    """The old range proof's inner hash: Right is ignored when Left is set, and nothing demands exactly one of them."""
    for head, left, right in path:
        parts = (b"\x20" + left, b"\x20" + child) if left else (b"\x20" + child, b"\x20" + right)
        child = sha256(head + b"".join(parts)).digest()
    return child


def test_a1_a_step_with_both_children_proves_nothing():
    """The forged leaf hides on the ignored side: the twin's root stays the true one, whatever stands there."""
    refused = 0
    for key, value in ENTRIES.items():
        proof = TREE.prove(key)
        legacy = [
            (step.prefix[:-34], step.prefix[-33:-1], b"")
            if len(step.prefix) > 33
            else (step.prefix[:-1], b"", step.suffix[1:])
            for step in proof.path
        ]
        leaf = ics23.compute_leaf(IAVL_LEAF, key, value)
        assert compute_weak_legacy_root(legacy, leaf) == TREE.root
        for at, (head, left, _) in enumerate(legacy):
            forged = sha256(b"forged leaf").digest()
            if left:
                both = [*legacy[:at], (head, left, forged), *legacy[at + 1 :]]
                assert compute_weak_legacy_root(both, leaf) == TREE.root  # the twin lets it pass
            step = proof.path[at]
            for other in (
                InnerOp(1, head + b"\x20" + forged + b"\x20", b"\x20" + forged),
                step._replace(suffix=b"\x20" + forged),
                step._replace(prefix=head + b"\x20" + forged + b"\x20"),
                InnerOp(1, head + b"\x20", b""),
                InnerOp(1, head, b""),
                InnerOp(1, head + b"\x20" + step.suffix[1:] + b"\x20", b"")
                if step.suffix
                else InnerOp(1, head + b"\x20", b"\x20" + left),
            ):
                changed = proof._replace(path=(*proof.path[:at], other, *proof.path[at + 1 :]))
                if changed != proof:
                    assert not is_member(IAVL_SPEC, TREE.root, changed, key, value)
                    refused += 1
    assert refused >= 1000


def test_a1_there_is_no_door_for_range_proofs():
    module, stores = make_stores(ENTRIES)
    proof = make_store_proof(module, stores, b"key005")
    proofs.verify_store_value(stores.root, proof, b"wasm", b"key005", ENTRIES[b"key005"])
    legacy = Proof((replace(proof.ops[0], type="iavl:v"), replace(proof.ops[1], type="multistore")))
    assert refuse(lambda: proofs.verify_store_value(stores.root, legacy, b"wasm", b"key005", b"")) == "op_type"


# ---- A2: Dragonberry --------------------------------------------------------------------------------------------------


def test_a2_bytes_moved_between_prefix_child_suffix_key_and_value_prove_nothing():
    key = b"key017"
    proof = TREE.prove(key)
    tried = 0
    for size in range(1, 65):
        for at, step in enumerate(proof.path):
            for other in (
                InnerOp(1, step.prefix[:-size], step.suffix),
                InnerOp(1, step.prefix, step.suffix[size:]),
                InnerOp(1, step.prefix + step.suffix[:size], step.suffix[size:]),
                InnerOp(1, step.prefix[:-size], step.prefix[-size:] + step.suffix),
                InnerOp(1, step.prefix + bytes(size), step.suffix),
            ):
                changed = proof._replace(path=(*proof.path[:at], other, *proof.path[at + 1 :]))
                if changed != proof:
                    tried += 1
                    assert not is_member(IAVL_SPEC, TREE.root, changed, key, proof.value)
        moved = proof._replace(key=proof.key[size:] or b"k", value=proof.key[:size] + proof.value)
        assert not is_member(IAVL_SPEC, TREE.root, moved, moved.key, moved.value)
    assert tried > 1000


def test_a2_a_leaf_that_hides_bytes_in_its_prefix_is_refused_and_the_twin_believes_it():
    """A key that contains a length byte: its tail can be read as a key of its own once a prefix may hold anything."""
    tree = Tree({b"abc\x03xyz": b"secret", b"other": b"x"}, IAVL_LEAF)
    true = tree.prove(b"abc\x03xyz")
    forged = ExistenceProof(b"xyz", b"secret", IAVL_LEAF._replace(prefix=IAVL_LEAF.prefix + b"\x07abc"), true.path)
    assert ics23.compute_existence_root(forged) == tree.root
    assert refuse(lambda: ics23.verify_membership(IAVL_SPEC, tree.root, (forged,), b"xyz", b"secret")) == "bad_iavl_op"
    weak = make_weak_spec(IAVL_SPEC, max_prefix=13)  # no known tree: its prefix is not read
    assert is_member(weak, tree.root, forged, b"xyz", b"secret")


def test_a2_a_leaf_read_as_an_inner_node_and_back_is_refused():
    key = b"key017"
    proof = TREE.prove(key)
    step = proof.path[0]
    child = ics23.compute_leaf(IAVL_LEAF, key, proof.value)
    preimage = step.prefix + child + step.suffix
    for cut in range(1, len(preimage) - 33):
        leaf = IAVL_LEAF._replace(prefix=preimage[:cut], length=0, prehash_value=0)
        inner_as_leaf = ExistenceProof(preimage[cut:-32], preimage[-32:], leaf, proof.path[1:])
        if inner_as_leaf.key:
            assert ics23.compute_existence_root(inner_as_leaf) == TREE.root
            assert not is_member(IAVL_SPEC, TREE.root, inner_as_leaf, inner_as_leaf.key, inner_as_leaf.value)
    leaf_as_step = InnerOp(1, IAVL_LEAF.prefix + b"\x20", b"\x20" + bytes(32))
    for layer in (1, 2, 5):
        assert refuse(lambda n=layer: ics23.verify_inner_op(leaf_as_step, IAVL_SPEC, n)) in {"bad_inner", "bad_iavl_op"}


# ---- A3: ambiguous specs ----------------------------------------------------------------------------------------------


def test_a3_a_spec_under_which_a_step_has_two_places_is_refused_and_the_twin_denies_an_entry_that_exists():
    a, b, c = (ics23.compute_leaf(SIMPLE_LEAF, key, b"v") for key in (b"a", b"b", b"c"))
    root = sha256(b"\1" + a + b + c).digest()  # a node with three children, made by whoever owns the tree
    first = ExistenceProof(b"a", b"v", SIMPLE_LEAF, (InnerOp(1, b"\1", b + c),))
    middle = ExistenceProof(b"b", b"v", SIMPLE_LEAF, (InnerOp(1, b"\1" + a, c),))
    absence = NonExistenceProof(b"a", None, middle)

    weak = make_weak_spec(TENDERMINT_SPEC, max_prefix=33)
    assert is_member(weak, root, first, b"a", b"v")
    ics23.verify_non_membership(weak, root, (absence,), b"a")  # the twin denies what it has just seen

    assert refuse(lambda: replace(TENDERMINT_SPEC, inner=replace(TENDERMINT_SPEC.inner, max_prefix=33))) == "bad_spec"
    assert replace(TENDERMINT_SPEC, inner=replace(TENDERMINT_SPEC.inner, max_prefix=32)).inner.max_prefix == 32
    assert refuse(lambda: ics23.verify_non_membership(TENDERMINT_SPEC, root, (absence,), b"a")) == "bad_inner"


@pytest.mark.parametrize(
    "changes",
    [{"child_size": 0}, {"child_size": -1}, {"child_order": (0, 0)}, {"child_order": (1, 2)}, {"min_prefix": 13}],
)
def test_a3_a_spec_without_children_or_with_doubtful_ones_is_refused(changes):
    assert refuse(lambda: replace(IAVL_SPEC, inner=replace(IAVL_SPEC.inner, **changes))) == "bad_spec"


# ---- A4: panics -------------------------------------------------------------------------------------------------------

RAW = ics23.encode_entry(TREE.prove_absence(b"key017x"))


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=30).map(lambda b: RAW[: len(b) * 9] + b)))
@settings(max_examples=300, deadline=None)
def test_a4_arbitrary_bytes_give_one_kind_of_error(data):
    for spec in (IAVL_SPEC, TENDERMINT_SPEC, ics23.SMT_SPEC):
        for check in (
            lambda p, s=spec: ics23.verify_membership(s, TREE.root, p, b"k", b"v"),
            lambda p, s=spec: ics23.verify_non_membership(s, TREE.root, p, b"key017x"),
            lambda p, s=spec: ics23.verify_chained_membership((s, s), TREE.root, (p, p), (b"k", b"k"), b"v"),
            lambda p, s=spec: ics23.verify_chained_non_membership((s, s), TREE.root, (p, p), (b"k", b"k")),
        ):
            try:
                check(ics23.decode_proof(data))
            except Rejected:
                continue
            assert data == RAW


def test_a4_missing_parts_and_unknown_operations_are_refusals():
    proof = TREE.prove(b"key017")
    for broken in (
        proof._replace(leaf=None),
        proof._replace(leaf=IAVL_LEAF._replace(hash=99)),
        proof._replace(leaf=IAVL_LEAF._replace(length=2)),
        proof._replace(leaf=IAVL_LEAF._replace(prehash_value=9)),
        proof._replace(path=(InnerOp(),)),
        proof._replace(path=(InnerOp(99, b"\2\4\6\x20", b""),)),
    ):
        assert not is_member(IAVL_SPEC, TREE.root, broken, b"key017", proof.value)
        assert refuse(lambda b=broken: ics23.verify_against_spec(b, IAVL_SPEC))
    assert refuse(lambda: ics23.compute_existence_root(ExistenceProof())) == "no_leaf"
    assert refuse(lambda: ics23.compute_leaf(IAVL_LEAF, b"", b"v")) == "empty_leaf"
    assert refuse(lambda: ics23.compute_inner(InnerOp(1, b"\1"), b"")) == "empty_child"


# ---- A5: depth --------------------------------------------------------------------------------------------------------


def test_a5_a_path_of_129_steps_is_refused_and_one_of_128_is_not():
    path = tuple(InnerOp(1, b"\1", sha256(b"%d" % i).digest()) for i in range(129))
    for count, is_accepted in ((128, True), (129, False)):
        proof = ExistenceProof(b"k", b"v", SIMPLE_LEAF, path[:count])
        root = ics23.compute_existence_root(proof)
        assert is_member(TENDERMINT_SPEC, root, proof, b"k", b"v") == is_accepted
    unlimited = replace(TENDERMINT_SPEC, max_depth=10**9)  # the twin: what a depth of zero once meant
    deep = ExistenceProof(b"k", b"v", SIMPLE_LEAF, path)
    assert is_member(unlimited, ics23.compute_existence_root(deep), deep, b"k", b"v")
    assert refuse(lambda: ics23.verify_against_spec(deep, TENDERMINT_SPEC)) == "bad_depth"


# ---- A6: neighbours ---------------------------------------------------------------------------------------------------


def verify_weak_absence(tree, claim, key):
    """The twin: neighbours exist and stand on either side, that nothing is between them is taken on trust."""
    for side in (claim.left, claim.right):
        ics23.verify_existence(side, IAVL_SPEC, tree.root, side.key, side.value)
    assert claim.left.key < key < claim.right.key


def test_a6_neighbours_that_are_not_adjacent_prove_no_absence_and_the_twin_believes_them():
    keys = sorted(ENTRIES)
    for at in range(1, len(keys) - 1):
        for left, right in ((at - 1, at + 1), (0, at + 1), (at - 1, len(keys) - 1)):
            claim = NonExistenceProof(keys[at], TREE.prove(keys[left]), TREE.prove(keys[right]))
            verify_weak_absence(TREE, claim, keys[at])
            refusal = refuse(lambda c=claim, k=keys[at]: ics23.verify_non_membership(IAVL_SPEC, TREE.root, (c,), k))
            assert refusal == "not_adjacent"


def test_a6_neighbours_of_two_trees_or_on_the_wrong_sides_prove_no_absence():
    other = Tree({**ENTRIES, b"key017": b"changed"}, IAVL_LEAF)
    mixed = NonExistenceProof(b"", TREE.prove(b"key017"), other.prove(b"key018"))
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, TREE.root, (mixed,), b"key017x")) == "wrong_root"
    turned = NonExistenceProof(b"", TREE.prove(b"key018"), TREE.prove(b"key017"))
    assert refuse(lambda: ics23.verify_non_membership(IAVL_SPEC, TREE.root, (turned,), b"key017x")) == "not_between"


# ---- F1: attacks on skipping verification -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 7, 10])
def test_f1_fewer_than_a_third_convince_nobody_and_more_are_convicted(count):
    names = [f"v{i}" for i in range(count)]
    forge = Forge(((1, make_set(names)),))
    trusted, true = forge.make_trusted(3), forge.make_block(9)
    for faulty in range(1, count + 1):
        liars = names[:faulty]
        equivocation = forge.make_block(9, signers=liars, data_hash=b"\1" * 32)
        lunatic = forge.make_block(9, validators=make_set([*liars, "eve"]) if faulty > 2 else make_set(liars))
        phantom = forge.make_block(9, validators=make_set({"eve": 1000, liars[0]: 1}))
        assert judge_or_refuse(phantom, trusted) is not Verdict.SUCCESS
        for attack, needed in ((equivocation, 2 * count), (lunatic, count)):
            verdict = judge_or_refuse(attack, trusted)
            assert (verdict is Verdict.SUCCESS) == (3 * faulty > needed), (faulty, count)
            if verdict is Verdict.SUCCESS:
                found = evidence.find_misbehaviour(true, attack)
                assert found is not None
                evidence.verify_misbehaviour(found, trusted, NOW, CONFIG)
                assert len(evidence.get_byzantine(attack, true, trusted)) == faulty
    back = forge.make_block(9, time_ns=trusted.time_ns - 1)  # back to the past
    assert judge_or_refuse(back, trusted) == "time_order"


def judge_or_refuse(block, trusted=TRUSTED, now_ns=NOW, config=CONFIG):
    try:
        return lc.judge_update(trusted, block, now_ns, config)
    except Rejected as error:
        return error.reason


# ---- F2: forward lunatic ----------------------------------------------------------------------------------------------


def test_f2_a_header_beyond_the_clock_is_refused_and_a_twin_without_a_clock_takes_it():
    far = FORGE.make_block(1000)
    assert judge_or_refuse(far) == "future"
    assert judge_or_refuse(far, now_ns=far.header.time_ns) is Verdict.SUCCESS
    weak = replace(CONFIG, max_clock_drift_ns=10**9 * NANOSECONDS)
    assert judge_or_refuse(far, config=weak) is Verdict.SUCCESS


# ---- F3: witnesses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", range(4))
def test_f3_one_diverging_witness_of_four_stops_the_comparison(odd):
    def make_witness(number):
        changes = {"data_hash": b"\1" * 32} if number == odd else {}
        return lambda height: FORGE.make_block(height, **changes)

    block = FORGE.make_block(9)
    steps = ((block, lc.make_trusted(block)),)
    found = []
    for number in range(4):
        path = evidence.watch_witness(TRUSTED, steps, NOW, CONFIG)
        fetch = make_witness(number)
        try:
            height = next(path)
            while True:
                height = path.send(fetch(height))
        except StopIteration as end:
            found.append(end.value)
    assert [number for number, divergence in enumerate(found) if divergence] == [odd]


# ---- F4: slots and addresses ------------------------------------------------------------------------------------------


def is_weakly_signed(block) -> bool:
    """The twin: power is looked up by the address that the slot names, the signature by the slot; nobody compares the two."""
    powers = {compute_address(v.key): v.power for v in block.validators.validators}
    signed = sum(powers.get(vote.address, 0) for vote in block.commit.signatures if vote.flag == Flag.COMMIT)
    return is_above(signed, block.validators.total_power, TWO_THIRDS)


def test_f4_a_slot_that_names_another_validator_is_refused_and_the_twin_credits_its_power():
    forge = Forge(((1, make_set({"ann": 70, "ben": 10, "cat": 10, "dan": 10})),))
    trusted = forge.make_trusted(3)
    block = forge.make_block(4, signers=["ben", "cat", "dan"])
    assert judge_or_refuse(block, trusted) == "too_few"
    rich = compute_address(block.validators.validators[0].key)
    forged = change_vote(block, 1, address=rich)
    assert is_weakly_signed(forged)
    assert not is_weakly_signed(block)
    assert judge_or_refuse(forged, trusted) == "commit_mismatch"


def test_f4_permuted_doubled_missing_and_extra_slots_are_refused():
    block = FORGE.make_block(4)
    votes = block.commit.signatures
    for changed in (
        (votes[1], votes[0], *votes[2:]),
        (votes[0], votes[0], *votes[2:]),
        (*votes, votes[0]),
        votes[:-1],
        votes[::-1],
    ):
        forged = replace(block, commit=replace(block.commit, signatures=changed))
        assert judge_or_refuse(forged) == "commit_mismatch"
    moved = change_vote(change_vote(block, 0, signature=votes[1].signature), 1, signature=votes[0].signature)
    assert judge_or_refuse(moved) == "bad_signature"


# ---- F5: nil votes ----------------------------------------------------------------------------------------------------


def is_weakly_signed_with_nil(block) -> bool:
    """The twin: whoever voted, for whatever, adds power."""
    power = sum(
        member.power
        for member, vote in zip(block.validators.validators, block.commit.signatures, strict=True)
        if vote.flag != Flag.ABSENT
    )
    return is_above(power, block.validators.total_power, TWO_THIRDS)


def test_f5_nil_votes_add_no_power_and_give_no_trust():
    half = FORGE.make_block(4, signers=["ann", "ben"], nil=["cat", "dan"])
    assert is_weakly_signed_with_nil(half)
    assert judge_or_refuse(half) == "too_few"
    leap = FORGE.make_block(9, signers=["ann"], nil=["ben", "cat", "dan"])
    assert judge_or_refuse(leap) is Verdict.NOT_ENOUGH_TRUST
    enough = FORGE.make_block(4, signers=["ann", "ben", "dan"], nil=["cat"])
    assert judge_or_refuse(enough) is Verdict.SUCCESS


def test_f5_a_nil_vote_turned_into_one_for_the_block_has_no_signature_for_it():
    half = FORGE.make_block(4, signers=["ann", "ben"], nil=["cat", "dan"])
    for slot, vote in enumerate(half.commit.signatures):
        if vote.flag == Flag.NIL:
            assert judge_or_refuse(change_vote(half, slot, flag=Flag.COMMIT)) == "bad_signature"


# ---- F8: trusting period ----------------------------------------------------------------------------------------------


def test_f8_a_trusted_header_expires_at_the_instant_and_not_a_second_earlier():
    block = FORGE.make_block(9)
    expiry = TRUSTED.time_ns + CONFIG.trusting_period_ns
    assert judge_or_refuse(block, now_ns=expiry - NANOSECONDS) is Verdict.SUCCESS
    assert judge_or_refuse(block, now_ns=expiry - 1) is Verdict.SUCCESS
    for later in (0, NANOSECONDS, 30 * DAY_NS):
        assert judge_or_refuse(block, now_ns=expiry + later) == "expired"
    forever = replace(CONFIG, trusting_period_ns=10**6 * DAY_NS)  # the twin: validators of a month ago, long unbonded
    assert judge_or_refuse(block, now_ns=expiry + 30 * DAY_NS, config=forever) is Verdict.SUCCESS


def test_f8_a_clock_that_is_an_hour_slow_refuses_and_moves_nothing():
    block = FORGE.make_block(9)
    assert judge_or_refuse(block, now_ns=block.header.time_ns) is Verdict.SUCCESS
    assert judge_or_refuse(block, now_ns=block.header.time_ns - 3600 * NANOSECONDS) == "future"


def test_f8_an_expired_client_is_not_revived_by_a_walk_of_many_steps():
    late = TRUSTED.time_ns + CONFIG.trusting_period_ns
    for path in (lc.walk, lc.walk_every_block):
        way = path(TRUSTED, 9, late, CONFIG)
        assert refuse(lambda w=way: lc.drive(w, FORGE.make_block)) == "expired"
