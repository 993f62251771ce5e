"""What counts from Solana: m operators over one history, each from endpoints that agree; everything less is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.solana.observations import (
    Kind,
    Reading,
    choose_attested,
    compute_agreement,
    compute_needed,
    compute_observation_digest,
    get_operator_set,
    verify_attested,
    verify_equivocation,
    verify_first,
    verify_observation,
    verify_update,
)
from chains.solana.proofs import verify_head
from chains.solana.types import Attested, Observation, OperatorSet, SignedObservation
from messages.digests import get_address, sign_digest
from messages.errors import Conflict, Rejected, Unavailable
from messages.hashing import sha256
from messages.ids import ChainId
from messages.outbox import TrustTier, compute_next_head
from tests.builders import OPERATOR_KEYS, OPERATORS

VAULT = sha256(b"vault")
NOW = 1_800_000_000
SETS = (OperatorSet(NOW - 1000, OPERATORS, 3),)
COMMITMENTS = [sha256(b"packet %d" % i) for i in range(1, 13)]


def make_heads(commitments=COMMITMENTS):
    heads = [VAULT]
    for number, commitment in enumerate(commitments, 1):
        heads.append(compute_next_head(heads[-1], number, commitment))
    return heads


HEADS = make_heads()
FORKED = make_heads([*COMMITMENTS[:5], *(sha256(b"other %d" % i) for i in range(7))])


def observe(key, sequence, slot=100, clock=NOW, heads=HEADS, vault=VAULT):
    observation = Observation(vault, slot, clock, sequence, heads[sequence])
    return SignedObservation(observation, get_address(key), sign_digest(key, compute_observation_digest(observation)))


def attest(*observations, links=None):
    numbers = sorted(s.observation.sequence for s in observations)
    between = tuple(COMMITMENTS[numbers[0] : numbers[-1]]) if links is None else tuple(links)
    return Attested(tuple(sorted(observations, key=lambda s: s.operator)), between)


def get_reason(check, *args, error=Rejected, **kwargs):
    with pytest.raises(error) as caught:
        check(*args, **kwargs)
    return caught.value.reason


def change(update, **changes):
    return replace(update, **changes)


THREE = [observe(key, 4 + i, 100 + i, NOW + i) for i, key in enumerate(OPERATOR_KEYS[:3])]


def test_three_operators_count_at_the_lowest_of_what_they_saw():
    trusted = verify_first(VAULT, SETS, attest(*THREE), NOW)
    assert (trusted.sequence, trusted.slot, trusted.clock, trusted.head) == (4, 100, NOW, HEADS[4])
    proven = verify_head(trusted, HEADS[4], b"evidence", chain=ChainId("solana:x"))
    assert (proven.tier, proven.header_hash, proven.height, proven.time) == (TrustTier(3, 3, 4), bytes(32), 100, NOW)
    assert get_reason(verify_head, trusted, HEADS[5], b"", chain=ChainId("solana:x")) == "wrong_head"
    assert get_reason(verify_head, trusted, bytes(32), b"", chain=ChainId("solana:x")) == "zero_head"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda u: change(u, observations=u.observations[:2]), "too_few"),
        (lambda u: change(u, observations=()), "too_few"),
        (lambda u: attest(*u.observations, observe(OPERATOR_KEYS[3], 5)), "too_many"),
        (lambda u: change(u, observations=(u.observations[0], *u.observations[:2])), "repeated_signer"),
        (lambda u: change(u, observations=u.observations[::-1]), "repeated_signer"),
        (lambda u: attest(*u.observations[:2], observe(b"\7" * 32, 5)), "unknown_signer"),
        (lambda u: change(u, commitments=u.commitments[:-1]), "malformed"),
        (lambda u: change(u, commitments=(*u.commitments, COMMITMENTS[0])), "malformed"),
        (lambda u: change(u, commitments=(b"\1" * 32, *u.commitments[1:])), "wrong_link"),
        (lambda u: change(u, commitments=(b"\1" * 31, *u.commitments[1:])), "malformed"),
        (lambda u: attest(*THREE[:2], observe(OPERATOR_KEYS[2], 6, heads=FORKED)), "wrong_link"),
        (lambda u: attest(*THREE[:2], observe(OPERATOR_KEYS[2], 4, vault=b"\1" * 32)), "wrong_vault"),
    ],
)
def test_anything_less_than_three_on_one_history_is_refused(spoil, reason):
    good = attest(*THREE)
    assert verify_first(VAULT, SETS, good, NOW).sequence == 4
    assert get_reason(verify_first, VAULT, SETS, spoil(good), NOW) == reason


def test_a_signature_is_worth_nothing_for_another_vault_slot_clock_number_or_head():
    signed = THREE[0]
    verify_observation(signed, VAULT, OPERATORS)
    o = signed.observation
    for other in (
        replace(o, slot=o.slot + 1),
        replace(o, clock=o.clock + 1),
        replace(o, sequence=o.sequence + 1),
        replace(o, head=HEADS[9]),
    ):
        assert get_reason(verify_observation, replace(signed, observation=other), VAULT, OPERATORS) == "unknown_signer"
    moved = replace(signed, observation=replace(o, vault_id=b"\2" * 32))
    assert get_reason(verify_observation, moved, b"\2" * 32, OPERATORS) == "unknown_signer"
    assert get_reason(verify_observation, replace(signed, operator=OPERATORS[3]), VAULT, OPERATORS) == "unknown_signer"


@pytest.mark.parametrize(
    "observation",
    [
        Observation(VAULT, 0, NOW, 1, HEADS[1]),
        Observation(VAULT, 1, 0, 1, HEADS[1]),
        Observation(VAULT, 1, NOW, 1, bytes(32)),
        Observation(VAULT, 1, NOW, 0, HEADS[1]),
        Observation(VAULT, 1, NOW, 1, VAULT),
        Observation(VAULT, 2**64, NOW, 1, HEADS[1]),
        Observation(VAULT[:31], 1, NOW, 1, HEADS[1]),
    ],
)
def test_what_no_reading_can_be_is_never_signed(observation):
    assert get_reason(compute_observation_digest, observation) == "malformed"


def test_what_counts_only_moves_forward_and_two_heads_are_a_conflict():
    trusted = verify_first(VAULT, SETS, attest(*THREE), NOW)
    same_later = [observe(key, 4, 200, NOW + 10) for key in OPERATOR_KEYS[:3]]
    later = verify_update(trusted, SETS, attest(*same_later), NOW)
    assert (later.sequence, later.slot, later.clock) == (4, 200, NOW + 10)
    assert get_reason(verify_update, later, SETS, attest(*THREE), NOW) == "old"
    assert get_reason(verify_update, trusted, SETS, attest(*THREE), NOW) == "old"
    back = [observe(key, 5, 300, NOW - 1) for key in OPERATOR_KEYS[:3]]
    assert get_reason(verify_update, trusted, SETS, attest(*back), NOW) == "old"
    other = [observe(key, 6, 300, NOW + 20, FORKED) for key in OPERATOR_KEYS[:3]]
    six = verify_update(trusted, SETS, attest(*[observe(key, 6, 200, NOW + 10) for key in OPERATOR_KEYS[:3]]), NOW)
    assert get_reason(verify_update, six, SETS, attest(*other), NOW, error=Conflict) == "two_heads"


def test_a_clock_of_the_future_and_a_time_without_operators_are_refused():
    assert get_reason(verify_first, VAULT, SETS, attest(*THREE), NOW - 31) == "future"
    verify_first(VAULT, SETS, attest(*THREE), NOW - 30)
    early = [observe(key, 4, 100, NOW - 1001) for key in OPERATOR_KEYS[:3]]
    assert get_reason(verify_first, VAULT, SETS, attest(*early), NOW) == "no_set"


def test_after_a_rotation_only_the_new_set_counts():
    keys = sorted((sha256(b"new operator %d" % i) for i in range(4)), key=get_address)
    sets = (*SETS, OperatorSet(NOW + 5, tuple(get_address(key) for key in keys), 3))
    assert get_operator_set(sets, NOW + 4) == SETS[0]
    new = [observe(key, 5, 300, NOW + 6) for key in keys[:3]]
    assert verify_first(VAULT, sets, attest(*new), NOW).sequence == 5
    former = [observe(key, 5, 300, NOW + 6) for key in OPERATOR_KEYS[:3]]
    assert get_reason(verify_first, VAULT, sets, attest(*former), NOW) == "unknown_signer"
    assert get_reason(get_operator_set, sets[::-1], NOW) == "bad_set"


def test_two_heads_for_one_number_are_evidence_and_a_later_look_is_not():
    first, second = observe(OPERATOR_KEYS[0], 7), observe(OPERATOR_KEYS[0], 7, heads=FORKED)
    verify_equivocation(first, second, OPERATORS)
    for other in (observe(OPERATOR_KEYS[0], 7, 101, NOW + 1), observe(OPERATOR_KEYS[1], 7, heads=FORKED)):
        assert get_reason(verify_equivocation, first, other, OPERATORS) == "no_equivocation"
    assert get_reason(verify_equivocation, first, second, OPERATORS[1:]) == "unknown_signer"


# ---- endpoints --------------------------------------------------------------------------------------------------------


def read(source, sequence=5, slot=100, clock=NOW, heads=HEADS):
    return Reading(source, Kind.FOUND, Observation(VAULT, slot, clock, sequence, heads[sequence]))


def test_three_of_four_endpoints_make_a_reading_and_the_odd_one_is_named():
    readings = [read("a", slot=103, clock=NOW + 2), read("b"), read("c", slot=101, clock=NOW + 1)]
    for fourth, against in (
        (read("d", 6), ()),
        (Reading("d", Kind.ERRORED), ()),
        (read("d", 6, heads=FORKED), ()),
        (read("d", 5, heads=make_heads([b"\1" * 32] * 5)), ("d",)),
    ):
        found = compute_agreement([*readings, fourth])
        assert found.observation == Observation(VAULT, 100, NOW, 5, HEADS[5])
        assert found.against == against


def test_two_of_four_are_not_enough_and_nothing_is_signed():
    readings = [read("a"), read("b"), read("c", 6), Reading("d", Kind.MISSING)]
    assert get_reason(compute_agreement, readings, error=Unavailable) == "abstain"
    missing = [Reading(source, Kind.MISSING) for source in "abc"]
    assert get_reason(compute_agreement, [*missing, read("d")], error=Unavailable) == "vault_missing"


def test_fewer_than_four_endpoints_and_a_repeated_one_are_refused():
    assert [compute_needed(k) for k in (4, 5, 6, 7)] == [3, 4, 5, 5]
    assert get_reason(compute_needed, 3) == "bad_config"
    assert get_reason(compute_agreement, [read("a"), read("a"), read("b"), read("c")]) == "bad_config"


# ---- choosing ---------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    liar=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_with_one_liar_of_four_the_honest_three_always_count_and_the_liar_never_spoils_them(numbers, liar, seed):
    observations = [
        observe(key, n, 100 + n, NOW + n, FORKED if i == liar else HEADS)
        for i, (key, n) in enumerate(zip(OPERATOR_KEYS, numbers, strict=True))
    ]
    random.Random(seed).shuffle(observations)
    chosen = choose_attested(observations, 3, COMMITMENTS, 0)
    assert chosen is not None
    trusted = verify_attested(VAULT, SETS[0], chosen)
    assert trusted.head == HEADS[trusted.sequence]
    assert trusted.sequence >= min(n for i, n in enumerate(numbers) if i != liar)


def test_without_the_packets_between_them_operators_do_not_agree():
    spread = [observe(key, n) for key, n in zip(OPERATOR_KEYS[:3], (3, 5, 7), strict=True)]
    assert choose_attested(spread, 3, COMMITMENTS[:5], 0) is None
    assert choose_attested(spread, 3, COMMITMENTS[3:], 3) is not None
    assert choose_attested(spread[:2], 3, COMMITMENTS, 0) is None
    same = [observe(key, 5) for key in OPERATOR_KEYS[:3]]
    assert choose_attested(same, 3, (), 0) == attest(*same)


def test_of_an_operator_only_its_newest_word_counts_once():
    old = [observe(OPERATOR_KEYS[0], n, 100 + n, NOW + n) for n in (3, 4, 5)]
    assert choose_attested([*old, observe(OPERATOR_KEYS[1], 5)], 3, COMMITMENTS, 0) is None
