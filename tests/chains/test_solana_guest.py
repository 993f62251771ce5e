"""The staked header chain and its trie: published hashes, a chain that is really signed, and everything that must be refused."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from chains.solana.guest import (
    Epoch,
    GuestHeader,
    SignedHeader,
    Stake,
    compute_block_hash,
    compute_epoch_commitment,
    compute_fingerprint,
    decode_header,
    encode_epoch,
    encode_header,
    is_fresh,
    make_trusted,
    verify_header,
    verify_misbehaviour,
    verify_value,
)
from chains.solana.guest_trie import (
    Branch,
    Extension,
    Reference,
    compute_node_hash,
    verify_membership,
    verify_non_membership,
)
from messages.errors import Conflict, Rejected

SECOND = 10**9
NOW = 1_000 * SECOND
PERIOD = 600 * SECOND


def get_reason(check, *args):
    with pytest.raises(Rejected) as caught:
        check(*args)
    return caught.value.reason


# ---- published hashes -------------------------------------------------------------------------------------------------


def make_short_epoch(first, second, quorum):
    keys = [number.to_bytes(4, "little") for number in (0, 1)]
    return sha256(encode_epoch(Epoch((Stake(keys[0], first), Stake(keys[1], second)), quorum), 4)).digest()


def test_epochs_headers_and_fingerprints_have_their_published_hashes():
    commitment = make_short_epoch(10, 10, 11)
    assert commitment.hex() == "c42fe764b46ba79e64e39e06a6b15aa05e3873dea7c53c10f05127d556c1d932"
    genesis = GuestHeader(bytes(32), 0, 42, 24, bytes.fromhex("00000042" * 8), bytes(32), commitment)
    first_hash = compute_block_hash(genesis)
    assert first_hash.hex() == "7e5ac90ab2cf55bd500da370eb694e8fbce99b99f8caac380f725f657cc6c5ef"
    assert len(encode_header(genesis)) == 154
    one = GuestHeader(first_hash, 1, 50, 50, bytes.fromhex("00000063" * 8), first_hash)
    assert compute_block_hash(one).hex() == "4c2b0ae80e0ed1af36b77cfe81d7aff859f4454592c9e08ca77635e2bae5c1c8"
    assert compute_fingerprint(first_hash, one).hex() == (
        "7e5ac90ab2cf55bd500da370eb694e8fbce99b99f8caac380f725f657cc6c5ef0100000000000000"
        "4c2b0ae80e0ed1af36b77cfe81d7aff859f4454592c9e08ca77635e2bae5c1c8"
    )
    two = GuestHeader(compute_block_hash(one), 2, 60, 60, one.state_root, first_hash, make_short_epoch(20, 10, 16))
    assert compute_block_hash(two).hex() == "083f3ebcdf57e28ad3cc2f70dc5dc934613075c8a05b49d2f8c87d65c77bd0e9"
    assert len(encode_header(one)) == 122
    for header in (genesis, one, two):
        assert decode_header(encode_header(header)) == header


def test_a_header_of_other_bytes_is_refused_or_another_header():
    data = encode_header(GuestHeader(b"\1" * 32, 3, 4, 5, b"\2" * 32, b"\3" * 32, b"\4" * 32))
    for bad in (data[:-1], data + b"\0", b"\1" + data[1:], data[:121] + b"\2" + data[122:], b""):
        assert get_reason(decode_header, bad) == "malformed"
    with pytest.raises(Rejected):
        encode_header(GuestHeader(b"\1" * 32, 3, 4, 0, b"\2" * 32, b"\3" * 32))


# ---- a signed chain ---------------------------------------------------------------------------------------------------


class Guest:
    """A guest chain with real keys; validator i has stake ``stakes[i]``."""

    def __init__(self, stakes=(40, 30, 20, 10)):
        self.keys = [SigningKey(bytes([i + 1]) * 32) for i in range(len(stakes))]
        self.epoch = self.make_epoch(stakes)
        self.root = sha256(b"state").digest()
        commitment = compute_epoch_commitment(self.epoch)
        self.genesis = GuestHeader(bytes(32), 0, 10, NOW - 60 * SECOND, self.root, bytes(32), commitment)
        self.hash = compute_block_hash(self.genesis)
        self.trusted = make_trusted(self.hash, self.genesis, self.hash, commitment, PERIOD)

    def make_epoch(self, stakes):
        return Epoch(
            tuple(Stake(bytes(key.verify_key), amount) for key, amount in zip(self.keys, stakes, strict=True)),
            sum(stakes) // 2 + 1,
        )

    def make(self, trusted, signers=(0, 1, 2), epoch=None, **changes):
        header = replace(
            GuestHeader(
                trusted.block_hash,
                trusted.header.block_height + 1,
                trusted.header.host_height + 5,
                trusted.header.timestamp_ns + SECOND,
                self.root,
                trusted.epoch_id,
            ),
            **changes,
        )
        message = compute_fingerprint(self.hash, header)
        signatures = tuple((i, self.keys[i].sign(message).signature) for i in signers)
        return SignedHeader(self.hash, header, epoch or self.epoch, signatures)


@pytest.fixture
def guest():
    return Guest()


def test_headers_that_two_thirds_signed_are_followed_one_by_one_and_over_a_gap(guest):
    first = verify_header(guest.trusted, guest.make(guest.trusted), NOW)
    assert first.header.block_height == 1
    assert verify_header(first, guest.make(guest.trusted), NOW) == first
    far = guest.make(first, block_height=9, host_height=100, prev_block_hash=b"\7" * 32)
    assert verify_header(first, far, NOW).header.block_height == 9


def test_a_majority_is_not_enough_where_two_thirds_are_asked(guest):
    assert get_reason(verify_header, guest.trusted, guest.make(guest.trusted, (0, 2)), NOW) == "too_little_stake"
    verify_header(guest.trusted, guest.make(guest.trusted, (0, 1)), NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state_root": bytes(32)}, "zero_root"),
        ({"epoch_id": b"\5" * 32}, "wrong_epoch"),
        ({"host_height": 10}, "not_monotonic"),
        ({"timestamp_ns": NOW - 60 * SECOND}, "not_monotonic"),
        ({"timestamp_ns": NOW + 31 * SECOND}, "future"),
        ({"prev_block_hash": b"\6" * 32}, "wrong_parent"),
    ],
)
def test_a_signed_header_that_breaks_one_rule_is_refused(guest, changes, reason):
    verify_header(guest.trusted, guest.make(guest.trusted), NOW)
    assert get_reason(verify_header, guest.trusted, guest.make(guest.trusted, **changes), NOW) == reason


def test_another_chain_an_old_header_and_an_expired_client_are_refused(guest):
    signed = guest.make(guest.trusted)
    assert get_reason(verify_header, guest.trusted, replace(signed, genesis_hash=b"\1" * 32), NOW) == "wrong_genesis"
    second = verify_header(guest.trusted, signed, NOW)
    third = verify_header(second, guest.make(second), NOW)
    assert get_reason(verify_header, third, signed, NOW) == "old"
    assert is_fresh(guest.trusted, NOW)
    assert get_reason(verify_header, guest.trusted, signed, NOW + PERIOD) == "expired"


def test_signatures_count_once_each_and_every_one_must_verify(guest):
    signed = guest.make(guest.trusted)
    (first, second, third) = signed.signatures
    cases = {
        "bad_index": [(first, first, second), ((9, first[1]), second, third), ((-1, first[1]), second, third)],
        "bad_signature": [(first, (1, third[1]), third), (first, (1, second[1][:63]), third)],
    }
    for reason, variants in cases.items():
        for signatures in variants:
            assert get_reason(verify_header, guest.trusted, replace(signed, signatures=signatures), NOW) == reason
    for at in range(64):
        flipped = bytes(b ^ (i == at) for i, b in enumerate(first[1]))
        bad = replace(signed, signatures=((0, flipped), second, third))
        assert get_reason(verify_header, guest.trusted, bad, NOW) == "bad_signature"


def test_a_small_order_key_signs_nothing(guest):
    weak = bytes([1]) + bytes(31)  # the neutral element: any message "verifies" where small orders are let in
    epoch = Epoch((Stake(weak, 1),), 1)
    commitment = compute_epoch_commitment(epoch)
    trusted = make_trusted(guest.hash, guest.genesis, guest.hash, commitment, PERIOD)
    signed = replace(guest.make(trusted, (), epoch), signatures=((0, weak + bytes(32)),))
    assert get_reason(verify_header, trusted, signed, NOW) == "bad_signature"


def test_the_last_header_of_an_epoch_hands_over_and_the_former_set_signs_nothing_more(guest):
    following = guest.make_epoch((10, 20, 30, 40))
    commitment = compute_epoch_commitment(following)
    last = verify_header(guest.trusted, guest.make(guest.trusted, next_epoch_commitment=commitment), NOW)
    assert (last.epoch_id, last.epoch_commitment) == (last.block_hash, commitment)
    good = guest.make(last, (1, 2, 3), following)
    assert verify_header(last, good, NOW).header.block_height == 2
    assert get_reason(verify_header, last, guest.make(last, (0, 1, 2)), NOW) == "wrong_epoch"
    assert get_reason(verify_header, last, guest.make(last, epoch_id=guest.hash), NOW) == "wrong_epoch"


def test_a_rival_is_a_conflict_only_when_the_stake_behind_the_known_header_signed_it(guest):
    commitment = compute_epoch_commitment(guest.make_epoch((10, 20, 30, 40)))
    for changes in ({}, {"next_epoch_commitment": commitment}):
        known = verify_header(guest.trusted, guest.make(guest.trusted, **changes), NOW)
        rival = guest.make(guest.trusted, host_height=99)
        with pytest.raises(Conflict) as caught:
            verify_header(known, rival, NOW)
        assert caught.value.reason == "two_headers"
        weak = guest.make(guest.trusted, (2, 3), host_height=99)
        assert get_reason(verify_header, known, weak, NOW) == "too_little_stake"


def test_two_signed_headers_that_exclude_each_other_are_evidence_and_others_are_not(guest):
    commitment = compute_epoch_commitment(guest.epoch)
    terms = (guest.hash, guest.hash, commitment)
    one, rival = guest.make(guest.trusted), guest.make(guest.trusted, host_height=77)
    verify_misbehaviour(*terms, one, rival)
    assert get_reason(verify_misbehaviour, *terms, one, one) == "no_misbehaviour"
    later = guest.make(guest.trusted, block_height=5, host_height=90, timestamp_ns=NOW - 59 * SECOND)
    verify_misbehaviour(*terms, later, one)
    sound = guest.make(guest.trusted, block_height=5, host_height=90, timestamp_ns=NOW - 50 * SECOND)
    assert get_reason(verify_misbehaviour, *terms, sound, one) == "no_misbehaviour"
    assert get_reason(verify_misbehaviour, *terms, one, guest.make(guest.trusted, (3,), host_height=77)) == (
        "too_little_stake"
    )


@pytest.mark.parametrize(
    "epoch",
    [
        Epoch((), 1),
        Epoch((Stake(b"\1" * 32, 0),), 1),
        Epoch((Stake(b"\1" * 31, 1),), 1),
        Epoch((Stake(b"\1" * 32, 1), Stake(b"\1" * 32, 2)), 1),
        Epoch((Stake(b"\1" * 32, 1),), 2),
        Epoch((Stake(b"\1" * 32, 1),), 0),
    ],
)
def test_an_unsound_epoch_is_refused(epoch):
    assert get_reason(compute_epoch_commitment, epoch) == "bad_epoch"


# ---- the trie ---------------------------------------------------------------------------------------------------------


def get_bits(key):
    return [key[i // 8] >> (7 - i % 8) & 1 for i in range(8 * len(key))]


def build(items, depth, nodes):
    """A trie of {key: value hash} with keys of one length: the reference to its top; nodes: hash -> node."""
    if len(items) == 1 and depth == 8 * len(next(iter(items))):
        return Reference(next(iter(items.values())), is_value=True)
    bits = {key: get_bits(key) for key in items}
    end = depth
    while end < 8 * len(next(iter(items))) and len({b[end] for b in bits.values()}) == 1:
        end += 1
    if end > depth:
        end = min(end, depth + 200)
        key = next(iter(items))
        child = build(items, end, nodes)
        node = Extension(key[depth // 8 : (end + 7) // 8], depth % 8, end - depth, child)
    else:
        sides = [{k: v for k, v in items.items() if bits[k][depth] == side} for side in (0, 1)]
        node = Branch(*(build(side, depth + 1, nodes) for side in sides))
    digest = compute_node_hash(node)
    nodes[digest] = node
    return Reference(digest, is_value=False)


def prove(root, key, nodes):
    proof, place, at, bits = [], root, 0, get_bits(key)
    while not place.is_value:
        node = nodes[place.hash]
        proof.append(node)
        if isinstance(node, Branch):
            place = (node.left, node.right)[bits[at]]
            at += 1
            continue
        have = get_bits(node.key_bytes)[node.bit_offset : node.bit_offset + node.bit_length]
        if bits[at : at + node.bit_length] != have:
            break
        at += node.bit_length
        place = node.child
    return proof


@settings(max_examples=60, deadline=None)
@given(
    keys=st.sets(st.binary(min_size=4, max_size=4), min_size=1, max_size=12),
    other=st.binary(min_size=4, max_size=4),
)
def test_every_key_of_a_trie_is_proven_and_every_other_is_proven_absent(keys, other):
    items = {key: sha256(key).digest() for key in keys}
    nodes = {}
    root = build(items, 0, nodes)
    for key, value in items.items():
        proof = prove(root, key, nodes)
        verify_membership(root.hash, key, value, proof)
        assert get_reason(verify_membership, root.hash, key, b"\1" * 32, proof) == "wrong_value"
        assert get_reason(verify_non_membership, root.hash, key, proof) == "present"
        assert get_reason(verify_membership, b"\1" * 32, key, value, proof) == "node_hash"
        assert get_reason(verify_membership, root.hash, key, value, [*proof, proof[-1]]) == "node_hash"
        if len(proof) > 1:
            assert get_reason(verify_membership, root.hash, key, value, proof[:-1]) == "node_hash"
    if other not in items:
        proof = prove(root, other, nodes)
        verify_non_membership(root.hash, other, proof)
        assert get_reason(verify_membership, root.hash, other, sha256(other).digest(), proof) == "absent"


def test_the_empty_root_proves_neither_presence_nor_absence():
    node = Branch(Reference(b"\1" * 32, is_value=True), Reference(b"\2" * 32, is_value=True))
    assert get_reason(verify_non_membership, bytes(32), b"\0", [node]) == "zero_root"
    assert get_reason(verify_membership, bytes(32), b"\0", b"\1" * 32, [node]) == "zero_root"


def test_a_value_is_read_under_the_trusted_header_alone(guest):
    nodes = {}
    items = {b"abcd": sha256(b"abcd").digest(), b"abce": sha256(b"abce").digest()}
    root = build(items, 0, nodes)
    trusted = verify_header(guest.trusted, guest.make(guest.trusted, state_root=root.hash), NOW)
    proof = prove(root, b"abcd", nodes)
    verify_value(trusted, b"abcd", items[b"abcd"], proof)
    assert get_reason(verify_value, guest.trusted, b"abcd", items[b"abcd"], proof) == "node_hash"


@pytest.mark.parametrize(
    "node",
    [
        Extension(b"\1", 0, 0, Reference(b"\1" * 32, is_value=False)),
        Extension(b"\1", 8, 1, Reference(b"\1" * 32, is_value=False)),
        Extension(b"\1\2", 0, 8, Reference(b"\1" * 32, is_value=False)),
        Extension(bytes(35), 0, 279, Reference(b"\1" * 32, is_value=False)),
        Branch(Reference(b"\1" * 31, is_value=False), Reference(b"\1" * 32, is_value=False)),
    ],
)
def test_an_unsound_node_has_no_hash(node):
    assert get_reason(compute_node_hash, node) == "malformed"
