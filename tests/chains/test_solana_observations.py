"""What counts from Solana: m operators over one history, each from endpoints that agree; everything less is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.solana.observations import (
    MAX_CLOCK_AHEAD_S,
    MAX_CLOCK_BEHIND_S,
    MAX_SLOTS_BEHIND,
    Agreement,
    Kind,
    NoAgreement,
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


def attest(*observations, links=None, timed=None):
    """M observations with what links them, and what says the time where they are at several numbers: the same operators, all at the lowest."""
    numbers = sorted(s.observation.sequence for s in observations)
    between = tuple(COMMITMENTS[numbers[0] : numbers[-1]]) if links is None else tuple(links)
    if timed is None:
        timed = () if len(set(numbers)) == 1 else [make_timed(s, numbers[0]) for s in observations]
    return Attested(by_operator(observations), between, by_operator(timed))


def by_operator(observations):
    return tuple(sorted(observations, key=lambda s: s.operator))


def make_timed(signed, sequence):
    """What the same operator said of a number before it saw a later one."""
    o = signed.observation
    keys = [key for key in OPERATOR_KEYS if get_address(key) == signed.operator]
    return observe(keys[0], sequence, o.slot, o.clock, vault=o.vault_id) if keys else signed


def get_reason(check, *args, error=Rejected, **kwargs):
    with pytest.raises(error) as caught:
        check(*args, **kwargs)
    return caught.value.reason


def change(update, **changes):
    return replace(update, **changes)


FOUR = [observe(key, 4, 100 + i, NOW + i) for i, key in enumerate(OPERATOR_KEYS[:3])]
THREE = [observe(key, 4 + i, 100 + i, NOW + i) for i, key in enumerate(OPERATOR_KEYS[:3])]


FIRST = verify_first(VAULT, SETS, attest(*(observe(key, 3, 50, NOW - 50) for key in OPERATOR_KEYS[:3])), NOW)


def test_three_operators_count_at_the_lowest_of_what_they_saw():
    trusted = verify_attested(VAULT, SETS, attest(*THREE))
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
    assert verify_update(FIRST, SETS, good, NOW).sequence == 4
    assert get_reason(verify_update, FIRST, SETS, spoil(good), NOW) == reason


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
    trusted = verify_first(VAULT, SETS, attest(*FOUR), NOW)
    same_later = [observe(key, 4, 200, NOW + 10) for key in OPERATOR_KEYS[:3]]
    later = verify_update(trusted, SETS, attest(*same_later), NOW)
    assert (later.sequence, later.slot, later.clock) == (4, 200, NOW + 10)
    assert get_reason(verify_update, later, SETS, attest(*FOUR), NOW) == "old"
    assert get_reason(verify_update, trusted, SETS, attest(*FOUR), NOW) == "old"
    back = [observe(key, 5, 300, NOW - 1) for key in OPERATOR_KEYS[:3]]
    assert get_reason(verify_update, trusted, SETS, attest(*back), NOW) == "old"
    other = [observe(key, 6, 300, NOW + 20, FORKED) for key in OPERATOR_KEYS[:3]]
    six = verify_update(trusted, SETS, attest(*[observe(key, 6, 200, NOW + 10) for key in OPERATOR_KEYS[:3]]), NOW)
    assert get_reason(verify_update, six, SETS, attest(*other), NOW, error=Conflict) == "two_heads"


def test_a_clock_of_the_future_and_a_time_without_operators_are_refused():
    assert get_reason(verify_first, VAULT, SETS, attest(*FOUR), NOW - 31) == "future"
    verify_first(VAULT, SETS, attest(*FOUR), NOW - 30)
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


def get_faults(agreement):
    return [(fault.source, fault.reason) for fault in agreement.faults]


def test_three_of_four_endpoints_make_a_reading_and_the_odd_one_is_named():
    readings = [read("a", slot=103, clock=NOW + 2), read("b"), read("c", slot=101, clock=NOW + 1)]
    for fourth, faults in (
        (read("d", 6), []),
        (Reading("d", Kind.ERRORED), []),
        (Reading("d", Kind.MISSING), [("d", "missing")]),
        (read("d", 6, heads=FORKED), []),
        (read("d", 5, heads=make_heads([b"\1" * 32] * 5)), [("d", "other_head")]),
    ):
        found = compute_agreement([*readings, fourth], NOW)
        assert found.observation == Observation(VAULT, 100, NOW, 5, HEADS[5])
        assert get_faults(found) == faults


def test_an_endpoint_far_behind_is_named_and_does_not_hold_the_others_time():
    readings = [read(source, slot=1000, clock=NOW) for source in "abc"]
    for slot, clock in ((1000 - MAX_SLOTS_BEHIND - 1, NOW), (1000, NOW - MAX_CLOCK_BEHIND_S - 1), (1, 1)):
        found = compute_agreement([*readings, read("d", slot=slot, clock=clock)], NOW)
        assert (found.observation.slot, found.observation.clock) == (1000, NOW)
        assert get_faults(found) == [("d", "behind")]
    near = read("d", slot=1000 - MAX_SLOTS_BEHIND, clock=NOW - MAX_CLOCK_BEHIND_S)
    found = compute_agreement([*readings, near], NOW)
    assert (found.observation.slot, found.observation.clock, found.faults) == (
        near.observation.slot,
        near.observation.clock,
        (),
    )


def test_an_endpoint_whose_clock_is_of_the_future_is_named_and_is_no_part_of_the_agreement():
    readings = [read(source) for source in "abc"]
    assert get_faults(compute_agreement([*readings, read("d", clock=NOW + MAX_CLOCK_AHEAD_S)], NOW)) == []
    ahead = read("d", clock=NOW + MAX_CLOCK_AHEAD_S + 1)
    assert get_faults(compute_agreement([*readings, ahead], NOW)) == [("d", "future")]
    with pytest.raises(NoAgreement) as caught:
        compute_agreement([*readings[:2], ahead, Reading("c", Kind.ERRORED)], NOW)
    assert (caught.value.reason, get_faults(caught.value)) == ("abstain", [("d", "future")])


def test_the_lowest_slot_of_a_liar_does_not_bring_its_clock_with_it():
    """One of three that agree says the lowest slot and the latest clock: the pair of the lowest slot would be the liar's clock."""
    readings = [
        read("a", slot=100),
        read("b", slot=101),
        read("c", slot=99, clock=NOW + 25),
        Reading("d", Kind.ERRORED),
    ]
    assert min((r.observation.slot, r.observation.clock) for r in readings[:3]) == (
        99,
        NOW + 25,
    )  # what a pair would say
    assert compute_agreement(readings, NOW).observation.clock == NOW


def test_two_of_four_are_not_enough_and_nothing_is_signed():
    readings = [read("a"), read("b"), read("c", 6), Reading("d", Kind.MISSING)]
    with pytest.raises(Unavailable) as caught:
        compute_agreement(readings, NOW)
    assert (caught.value.reason, get_faults(caught.value)) == ("abstain", [("d", "missing")])
    torn = [read("a"), read("b"), *(read(s, heads=make_heads([b"\1" * 32] * 5)) for s in "cd")]
    with pytest.raises(NoAgreement) as caught:
        compute_agreement(torn, NOW)
    assert get_faults(caught.value) == [(source, "other_head") for source in "abcd"]
    missing = [Reading(source, Kind.MISSING) for source in "abc"]
    assert get_reason(compute_agreement, [*missing, read("d")], NOW, error=Unavailable) == "vault_missing"


def test_fewer_than_four_endpoints_and_a_repeated_one_are_refused():
    assert [compute_needed(k) for k in (4, 5, 6, 7)] == [3, 4, 5, 5]
    assert get_reason(compute_needed, 3) == "bad_config"
    assert get_reason(compute_agreement, [read("a"), read("a"), read("b"), read("c")], NOW) == "bad_config"


def get_sequence_at(clock, steps):
    """How many packets a history has at a time, packet i coming at steps[i]."""
    return sum(step <= clock for step in steps)


def agree_as_a_pair_of_the_lowest_slot(readings, now):
    """A vulnerable twin: all that have one head, and the clock that belongs to the lowest slot."""
    del now
    votes = {}
    for r in readings:
        if r.observation is not None:
            votes.setdefault((r.observation.sequence, r.observation.head), []).append(r.observation)
    enough = [same for same in votes.values() if len(same) >= compute_needed(len(readings))]
    if not enough:
        raise NoAgreement("no", (), got=None, expected=None, reason="abstain")
    slot, clock = min((o.slot, o.clock) for o in enough[0])
    return Agreement(Observation(VAULT, slot, clock, enough[0][0].sequence, enough[0][0].head), ())


@st.composite
def worlds(draw):
    """A history, honest endpoints that read it at times of their own, and up to k - needed liars that say anything."""
    k = draw(st.integers(4, 10))
    steps = sorted(draw(st.lists(st.integers(NOW - 60, NOW), min_size=5, max_size=12)))
    liars = draw(st.integers(0, k - compute_needed(k)))
    readings = []
    for i in range(k):
        if i < liars:
            sequence = draw(st.integers(1, 12))
            slot, clock = draw(st.integers(1, 2**64 - 1)), draw(st.integers(1, NOW + 1000))
            readings.append(read(f"{i}", sequence, slot, clock, draw(st.sampled_from([HEADS, FORKED]))))
        elif draw(st.integers(0, 9)) == 0:
            readings.append(Reading(f"{i}", draw(st.sampled_from([Kind.ERRORED, Kind.MISSING]))))
        else:
            clock = NOW - draw(st.integers(0, 12))
            readings.append(read(f"{i}", get_sequence_at(clock, steps), 10_000 + (clock - NOW) * 2, clock))
    return readings, steps, liars, draw(st.integers(0, 1000))


def verify_no_overstatement(readings, steps, agree):
    """Whatever is agreed on: the head is on the history, and at the clock named no later packet was there."""
    try:
        o = agree(readings, NOW).observation
    except Unavailable:
        return
    assert o.head == HEADS[o.sequence]
    assert o.clock <= NOW
    assert get_sequence_at(o.clock, steps) <= o.sequence


@settings(max_examples=150, deadline=None)
@given(world=worlds())
def test_no_liars_that_may_be_there_make_an_absence_longer_than_it_was(world):
    readings, steps, _, seed = world
    random.Random(seed).shuffle(readings)
    verify_no_overstatement(readings, steps, compute_agreement)


def test_the_twin_that_pairs_slot_and_clock_lets_one_liar_overstate_an_absence():
    steps = [NOW - 50] * 5 + [NOW - 1]
    readings = [read("0", 5, 1, NOW + 900), *(read(str(i), 5, 9_990, NOW - 5) for i in range(1, 4))]
    verify_no_overstatement(readings, steps, compute_agreement)
    with pytest.raises(AssertionError):
        verify_no_overstatement(readings, steps, agree_as_a_pair_of_the_lowest_slot)


@settings(max_examples=100, deadline=None)
@given(world=worlds(), sequence=st.integers(5, 12))
def test_liars_that_may_be_there_never_hold_back_the_time_of_honest_endpoints_that_agree(world, sequence):
    readings, _, liars, seed = world
    honest = [r for i, r in enumerate(readings) if i >= liars]
    agreed = [read(r.source, sequence, 10_000, NOW - i) for i, r in enumerate(honest)]
    shuffled = [*readings[:liars], *agreed]
    random.Random(seed).shuffle(shuffled)
    found = compute_agreement(shuffled, NOW)
    assert (found.observation.sequence, found.observation.head) == (sequence, HEADS[sequence])
    assert found.observation.clock >= NOW - len(honest) - MAX_CLOCK_BEHIND_S
    assert found.observation.slot >= 10_000 - MAX_SLOTS_BEHIND
    assert not {fault.source for fault in found.faults} & {r.source for r in agreed}


# ---- choosing ---------------------------------------------------------------------------------------------------------

BEGUN = attest(*(observe(key, 0, 1, NOW - 100) for key in OPERATOR_KEYS[:3]))
BEGIN = verify_first(VAULT, SETS, BEGUN, NOW)


@settings(max_examples=80, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 12), min_size=4, max_size=4),
    liar=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_with_one_liar_of_four_the_honest_three_always_count_and_the_liar_never_spoils_them(numbers, liar, seed):
    observations = [
        observe(key, n, 100 + n, NOW + n, FORKED if i == liar else HEADS)
        for i, (key, n) in enumerate(zip(OPERATOR_KEYS, numbers, strict=True))
    ]
    random.Random(seed).shuffle(observations)
    chosen = choose_attested(observations, 3, COMMITMENTS, 0, BEGIN, BEGUN)
    assert chosen is not None
    trusted = verify_update(BEGIN, SETS, chosen, NOW)
    assert trusted.head == HEADS[trusted.sequence]
    assert trusted.sequence >= min(n for i, n in enumerate(numbers) if i != liar)


def test_without_the_packets_between_them_operators_do_not_agree():
    spread = [observe(key, n) for key, n in zip(OPERATOR_KEYS[:3], (3, 5, 7), strict=True)]
    assert choose_attested(spread, 3, COMMITMENTS[:5], 0, BEGIN, BEGUN) is None
    assert choose_attested(spread, 3, COMMITMENTS[3:], 3, BEGIN, BEGUN) is not None
    assert choose_attested(spread, 3, COMMITMENTS[3:], 3) is None  # no first state of several numbers
    assert choose_attested(spread[:2], 3, COMMITMENTS, 0, BEGIN, BEGUN) is None
    same = [observe(key, 5) for key in OPERATOR_KEYS[:3]]
    assert choose_attested(same, 3, (), 0) == attest(*same)


def test_operators_meet_at_a_number_that_each_saw_at_its_own_time():
    a, b, c = OPERATOR_KEYS[:3]
    said = [
        observe(a, 5, 100, NOW),
        observe(a, 7, 103, NOW + 3),
        observe(b, 5, 101, NOW + 1),
        observe(c, 5, 102, NOW + 2),
    ]
    chosen = choose_attested([*said, observe(b, 6, 102, NOW + 2)], 3, COMMITMENTS, 0, BEGIN)
    assert chosen == attest(said[0], said[2], said[3])
    trusted = verify_update(BEGIN, SETS, chosen, NOW)
    assert (trusted.sequence, trusted.clock) == (5, NOW)
    # then the number goes on without time, as far as all three of them went
    later = [*said, observe(b, 6, 102, NOW + 2), observe(c, 8, 104, NOW + 4)]
    assert choose_attested(later[1:], 3, COMMITMENTS, 0, trusted) is None  # nothing at hand says what time it was
    mixed = choose_attested(later, 3, COMMITMENTS, 0, trusted, chosen)
    assert mixed.timed == chosen.observations
    further = verify_update(trusted, SETS, mixed, NOW)
    assert (further.sequence, further.slot, further.clock) == (6, 102, NOW)
    assert choose_attested(later, 3, COMMITMENTS, 0, further, mixed) is None
    last = [observe(key, 9, 110, NOW + 10) for key in (a, b, c)]
    assert choose_attested([*later, *last], 3, COMMITMENTS, 0, further, mixed) == attest(*last)
    even_later = [observe(key, n, 120 + n, NOW + n) for key, n in ((a, 9), (b, 10), (c, 11))]
    moved = choose_attested([*later, *even_later], 3, COMMITMENTS, 0, further, mixed)
    assert moved.timed == by_operator([later[4], later[5], even_later[0]])  # none of them had seen 10
    assert verify_update(further, SETS, moved, NOW + 9).clock == NOW + 2


def test_what_lies_below_what_counts_is_never_chosen_again():
    trusted = verify_first(VAULT, SETS, attest(*(observe(key, 5) for key in OPERATOR_KEYS[:3])), NOW)
    others = [observe(key, 5, 110, NOW + 10) for key in OPERATOR_KEYS[1:4]]
    backward = observe(OPERATOR_KEYS[0], 6, 1, NOW - 900)  # the newest number, and a time that would make every set old
    chosen = choose_attested([backward, *others], 3, COMMITMENTS, 0, trusted)
    assert chosen == attest(*others)
    assert verify_update(trusted, SETS, chosen, NOW).clock == NOW + 10
    assert get_reason(verify_update, trusted, SETS, attest(backward, *others[:2]), NOW) == "old"


def test_of_an_operator_only_its_newest_word_counts_once():
    old = [observe(OPERATOR_KEYS[0], n, 100 + n, NOW + n) for n in (3, 4, 5)]
    assert choose_attested([*old, observe(OPERATOR_KEYS[1], 5)], 3, COMMITMENTS, 0, BEGIN, BEGUN) is None


# ---- time -------------------------------------------------------------------------------------------------------------


def test_one_liar_with_the_lowest_number_and_a_late_clock_makes_no_absence():
    """Packet 6 came at NOW + 2, seen by two; the third says that at NOW + 9 there were five, and the set of them would say it too."""
    trusted = verify_first(VAULT, SETS, attest(*(observe(key, 5) for key in OPERATOR_KEYS[:3])), NOW)
    honest = [observe(key, 7, 110, NOW + 10) for key in OPERATOR_KEYS[:2]]
    liar = observe(OPERATOR_KEYS[2], 5, 109, NOW + 9)
    mixed = attest(*honest, liar, timed=())
    lowest = (
        min(s.observation.sequence for s in mixed.observations),
        min(s.observation.clock for s in mixed.observations),
    )
    assert lowest == (5, NOW + 9)  # what a twin would take that has no regard to who says what
    assert get_reason(verify_update, trusted, SETS, mixed, NOW) == "untimed"
    assert get_reason(verify_first, VAULT, SETS, mixed, NOW) == "untimed"
    standing = [observe(key, 5, 90, NOW) for key in OPERATOR_KEYS[:3]]
    assert verify_update(trusted, SETS, attest(*honest, liar, timed=standing), NOW).clock == NOW


TIMED = [observe(key, 4, 90, NOW - 10) for key in OPERATOR_KEYS[1:4]]


@pytest.mark.parametrize(
    ("timed", "reason"),
    [
        ((), "untimed"),
        (TIMED[:2], "too_few"),
        ([observe(key, 5, 101, NOW) for key in OPERATOR_KEYS[:3]], "untimed"),  # a later number than the lowest
        ([*TIMED[:2], TIMED[0]], "repeated_signer"),
        ([*TIMED[:2], observe(b"\7" * 32, 4, 90, NOW - 10)], "unknown_signer"),
        ([*TIMED[:2], observe(OPERATOR_KEYS[3], 4, 90, NOW - 10, heads=make_heads([b"\1" * 32] * 5))], "untimed"),
    ],
)
def test_time_is_the_word_of_m_operators_that_had_seen_none_of_the_later_numbers(timed, reason):
    good = attest(*THREE, timed=TIMED)
    assert verify_update(FIRST, SETS, good, NOW).clock == NOW - 10
    apart = attest(*THREE, timed=[*TIMED[:2], observe(OPERATOR_KEYS[3], 3, 90, NOW - 20)])
    assert verify_update(FIRST, SETS, apart, NOW).clock == NOW - 20
    timed = timed if reason == "repeated_signer" else by_operator(timed)
    assert get_reason(verify_update, FIRST, SETS, replace(good, timed=tuple(timed)), NOW) == reason
    assert get_reason(verify_update, FIRST, SETS, replace(attest(*FOUR), timed=by_operator(TIMED)), NOW) == "malformed"


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(1, 40), min_size=3, max_size=10),
    looks=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=4, max_size=30),
    lies=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60), st.booleans()), max_size=6),
    restarts=st.sets(st.integers(1, 30)),
)
def test_with_one_liar_of_four_no_state_that_counts_ever_overstates_an_absence(steps, looks, lies, restarts):
    steps = sorted(steps)
    said = [observe(OPERATOR_KEYS[i], get_sequence_at(t, steps), t + 1, NOW + t) for i, t in looks if i != 3]
    said += [observe(OPERATOR_KEYS[3], n, t, NOW + t, FORKED if odd else HEADS) for n, t, odd in lies]
    standing = attest(*(observe(key, 0, 1, NOW) for key in OPERATOR_KEYS[:3]))
    trusted = verify_first(VAULT, SETS, standing, NOW)
    for count in range(1, len(said) + 1):
        at_hand = None if count in restarts else standing
        chosen = choose_attested(said[:count], 3, COMMITMENTS, 0, trusted, at_hand)
        if chosen is None:
            continue
        standing, trusted = chosen, verify_update(trusted, SETS, chosen, NOW + 40)
        assert trusted.head == HEADS[trusted.sequence]
        assert get_sequence_at(trusted.clock - NOW, steps) <= trusted.sequence
