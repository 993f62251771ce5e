"""Who follows whom: an operator set counts from the vault's own word, as the set before it has seen it, and for its own time only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.base import Head
from chains.solana import codec
from chains.solana.observations import compute_observation_digest
from chains.solana.pool import Pool, verify_evidence
from chains.solana.rotation import Succession, follow, get_set, make_handovers, verify_handover
from chains.solana.types import (
    MAX_HANDOVER_LINKS,
    Attested,
    Observation,
    OperatorSet,
    SignedObservation,
)
from chains.solana.verifier import SolanaVerifier, build_rules
from messages.bodies import Deposited, RotateOperators, Unpause
from messages.digests import compute_vault_id, get_address, sign_digest
from messages.errors import Conflict, Rejected
from messages.hashing import sha256
from tests.builders import DAY, OPERATOR_KEYS, OPERATORS, START, Outbox, make_key
from tests.chains.test_solana_verifier import ACCOUNT, CHAIN, make_settings

VAULT_ID = compute_vault_id(CHAIN, ACCOUNT)
FIRST = OperatorSet(0, OPERATORS, 3)
TREASURER = sha256(b"treasurer")
JOINING = [make_key(f"joining {i}") for i in range(4)]
MIXED_KEYS = sorted([*OPERATOR_KEYS[2:], *JOINING[:2]], key=get_address)
NEXT_KEYS = sorted(JOINING, key=get_address)
MIXED, NEXT = (tuple(get_address(key) for key in keys) for keys in (MIXED_KEYS, NEXT_KEYS))
T1, T2 = START + DAY, START + 3 * DAY
NOW = START + 10 * DAY


def make_verifier(*sets):
    return SolanaVerifier(build_rules(CHAIN, ACCOUNT, make_settings(*(sets or (FIRST,)))))


VERIFIER = make_verifier()


class Story:
    """An outbox with some deposits, a rotation, more deposits, another rotation; and what anybody may say of it."""

    def __init__(self):
        self.outbox = Outbox(VAULT_ID)
        self.deposit(2)
        self.r1 = self.rotate(1, MIXED, T1)
        self.deposit(2)
        self.r2 = self.rotate(2, NEXT, T2, time=T1 + 600)
        self.deposit(2)

    def deposit(self, count):
        for n in range(count):
            self.outbox.put(Deposited(sha256(b"user"), sha256(b"mint"), n + 1), time=self.outbox.time + 1)

    def rotate(self, epoch, operators, effective, *, time=None, status=1, threshold=3):
        body = RotateOperators(epoch, threshold, effective, TREASURER, operators)
        self.outbox.ack(body, time=time or self.outbox.time + 1, status=status, reason=14 if status == 2 else 0)
        return self.outbox.sequence

    def get_facts(self):
        return self.outbox.facts(tier=3)

    def say(self, key, number, clock, *, head=None, slot=None):
        heads = [VAULT_ID, *(fact.head for fact in self.get_facts())]
        slot = slot or (clock - START) * 2 + 1_000
        observation = Observation(VAULT_ID, slot, clock, number, head or heads[number])
        signature = sign_digest(key, compute_observation_digest(observation))
        return SignedObservation(observation, get_address(key), signature)

    def stand(self, keys, number, clock, **how):
        said = [self.say(key, number, clock, **how) for key in keys]
        return Attested(tuple(sorted(said, key=lambda s: s.operator)))

    def hand_over(self, rotation, keys, number, clock):
        """What m operators who saw ``number`` packets prove of the rotation whose Ack is number ``rotation``."""
        facts = self.get_facts()[:number]
        before = ([VAULT_ID, *(f.head for f in facts)])[rotation - 1]
        (made,) = make_handovers(before, facts[rotation - 1 :], self.stand(keys, number, clock))
        return made


STORY = Story()
TO_MIXED = STORY.hand_over(STORY.r1, OPERATOR_KEYS[:3], STORY.r1 + 1, START + 60)
TO_NEXT = STORY.hand_over(STORY.r2, MIXED_KEYS[:3], STORY.r2, T1 + 700)


def get_reason(verify, *args, error=Rejected):
    with pytest.raises(error) as refused:
        verify(*args)
    return refused.value.reason


def test_the_sets_are_walked_from_the_first_one_that_people_named():
    assert verify_handover(VAULT_ID, (FIRST,), TO_MIXED) == OperatorSet(T1, MIXED, 3)
    known = follow(VAULT_ID, Succession((FIRST,)), (TO_MIXED, TO_NEXT))
    assert known.sets == (FIRST, OperatorSet(T1, MIXED, 3), OperatorSet(T2, NEXT, 3))
    assert known.handovers == (TO_MIXED, TO_NEXT)
    assert follow(VAULT_ID, known, (TO_MIXED, TO_NEXT)) == known
    assert get_reason(follow, VAULT_ID, Succession((FIRST,)), (TO_NEXT,)) == "unknown_signer"
    later = Succession((OperatorSet(T1, MIXED, 3),))  # people begin with a later set: what was before it is passed over
    assert follow(VAULT_ID, later, (TO_MIXED, TO_NEXT)).sets == known.sets[1:]


def test_one_that_is_left_out_is_missed():
    third = STORY.hand_over(STORY.r2, MIXED_KEYS[:3], STORY.r2, T1 + 700)
    third = replace(third, rotation=replace(third.rotation, epoch=3))
    known = follow(VAULT_ID, Succession((FIRST,)), (TO_MIXED,))
    assert get_reason(follow, VAULT_ID, known, (third,)) == "epoch"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"operators": NEXT}, "wrong_link"),
        ({"threshold": 4}, "wrong_link"),
        ({"effective": T1 - 1}, "wrong_link"),
        ({"effective": T1 + 1}, "wrong_link"),
        ({"effective": START + 60}, "late"),
        ({"epoch": 2}, "wrong_link"),
        ({"treasurer": bytes(31) + b"\1"}, "wrong_link"),
        ({"inbox_sequence": 2}, "wrong_link"),
        ({"inbox_timeout": START + 1}, "wrong_link"),
        ({"stamp": START + 1}, "wrong_link"),
        ({"sequence": STORY.r1 + 1}, "wrong_link"),
        ({"sequence": 0}, "malformed"),
        ({"operators": MIXED[:2], "threshold": 1}, "bad_operators"),
    ],
)
def test_no_word_of_the_rotation_can_be_changed(change, reason):
    forged = replace(TO_MIXED, rotation=replace(TO_MIXED.rotation, **change))
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), forged) == reason


def test_a_rotation_that_was_refused_or_never_carried_out_hands_nothing_over():
    story = Story()
    number = story.rotate(3, OPERATORS, T2 + 2 * DAY, status=2)
    facts = story.get_facts()[number - 1 :]
    assert facts[0].inbox_body.epoch == 3
    assert not make_handovers(VAULT_ID, facts, story.stand(NEXT_KEYS[:3], number, T2 + 60))
    # the certified packet was never taken: another Ack stands in its place
    wrong = replace(TO_MIXED, before=STORY.get_facts()[STORY.r1 - 1].head)
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), wrong) == "wrong_link"
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), replace(TO_MIXED, commitments=())) == "wrong_link"


@pytest.mark.parametrize(
    ("keys", "clock", "reason"),
    [
        (OPERATOR_KEYS[:3], T1 - 1, ""),
        (OPERATOR_KEYS[:3], T1, "late"),  # the twin: one second on, and the word of those who left is worth nothing
        (MIXED_KEYS[:3], T1, "late"),
        (OPERATOR_KEYS[:2], T1 - 1, "too_few"),
        (OPERATOR_KEYS, T1 - 1, "too_many"),
        (JOINING[:3], T1 - 1, "unknown_signer"),
        ([*OPERATOR_KEYS[:2], JOINING[0]], T1 - 1, "unknown_signer"),
    ],
)
def test_only_those_in_force_hand_over_and_only_while_they_are(keys, clock, reason):
    handover = replace(TO_MIXED, seen=STORY.stand(keys, STORY.r1 + 1, clock))
    if reason:
        assert get_reason(verify_handover, VAULT_ID, (FIRST,), handover) == reason
    else:
        assert verify_handover(VAULT_ID, (FIRST,), handover).operators == MIXED


def test_those_of_the_set_before_last_do_not_hand_over():
    known = follow(VAULT_ID, Succession((FIRST,)), (TO_MIXED,))
    early = replace(TO_NEXT, seen=STORY.stand(OPERATOR_KEYS[:3], STORY.r2, T1 - 1))
    assert get_reason(verify_handover, VAULT_ID, known.sets, early) == "not_in_force"


def test_a_set_that_took_over_before_it_was_named_is_none():
    """No vault does that; whoever signs so wants the past."""
    story = Story.__new__(Story)
    story.outbox = Outbox(VAULT_ID)
    story.outbox.time = START + 100
    number = story.rotate(1, MIXED, START + 90)
    forged = replace(
        TO_MIXED,
        rotation=replace(TO_MIXED.rotation, effective=START + 90, stamp=START + 101, inbox_sequence=1, sequence=number),
        before=VAULT_ID,
        commitments=(),
        seen=story.stand(OPERATOR_KEYS[:3], number, START + 80),
    )
    forged = replace(
        forged, rotation=replace(forged.rotation, inbox_timeout=story.outbox.packets[0][1].timeout_timestamp)
    )
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), forged) == "late"
    sound = replace(forged, rotation=replace(forged.rotation, stamp=START + 1))
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), sound) == "wrong_link"


def test_what_is_seen_too_late_to_prove_a_rotation_is_not_made_into_a_handover():
    facts = STORY.get_facts()[: STORY.r1 + 1]
    for clock, count in ((T1 - 1, 1), (T1, 0)):
        assert len(make_handovers(VAULT_ID, facts, STORY.stand(OPERATOR_KEYS[:3], STORY.r1 + 1, clock))) == count


def test_a_handover_is_bounded():
    long = replace(TO_MIXED, commitments=(bytes([1]) * 32,) * (MAX_HANDOVER_LINKS + 1))
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), long) == "size"
    nested = replace(TO_MIXED, seen=replace(TO_MIXED.seen, handovers=(TO_MIXED,)))
    assert get_reason(verify_handover, VAULT_ID, (FIRST,), nested) == "size"
    assert get_reason(codec.decode_handovers, codec.encode_handovers((nested,))) == "malformed"
    assert get_reason(codec.decode_handovers, codec.encode_handovers((long,))) == "size"
    assert get_reason(codec.decode_handovers, codec.encode_handovers(())) == "malformed"


# ---- what counts ------------------------------------------------------------------------------------------------------


def start(verifier=VERIFIER, *, clock=START + 60, handovers=()):
    keys = OPERATOR_KEYS[:3] if clock < T1 else MIXED_KEYS[:3]
    return verifier.verify_bootstrap(replace(STORY.stand(keys, STORY.r1 + 1, clock), handovers=handovers), NOW)


def test_the_same_statements_with_a_handover_are_a_step_that_changes_who_is_believed_next():
    trusted = start()
    facts = STORY.get_facts()[: STORY.r1 + 1]
    seen = STORY.stand(OPERATOR_KEYS[:3], STORY.r1 + 1, START + 60)
    step = VERIFIER.make_succession(trusted, VAULT_ID, facts, seen)
    after = VERIFIER.verify_update(trusted, step, NOW)
    assert replace(after, handovers=()) == trusted
    assert [get_set(h.rotation) for h in after.handovers] == [OperatorSet(T1, MIXED, 3)]
    assert VERIFIER.make_succession(after, VAULT_ID, facts, seen) is None
    assert get_reason(VERIFIER.verify_update, after, step, NOW) == "old"
    VERIFIER.verify_head(after, Head(STORY.r1 + 1, facts[-1].head), seen)
    assert codec.decode_trusted(codec.encode_trusted(after)) == after
    assert codec.decode_attested(codec.encode_attested(step)) == step


@pytest.mark.parametrize(
    ("keys", "clock", "reason"),
    [
        (OPERATOR_KEYS[:3], T1 - 1, ""),  # those who leave speak until the instant
        (MIXED_KEYS[:3], T1, ""),  # those who come from then on
        (MIXED_KEYS[1:], T1 + 60, ""),
        (OPERATOR_KEYS[:3], T1, "unknown_signer"),
        (OPERATOR_KEYS[:3], T1 + 60, "unknown_signer"),
        (MIXED_KEYS[:3], T1 - 1, "unknown_signer"),
    ],
)
@pytest.mark.parametrize("is_alone", [False, True])
def test_each_set_counts_in_its_own_time(keys, clock, reason, is_alone):
    update = STORY.stand(keys, STORY.r1 + 2, clock)
    if is_alone:
        verify, args = VERIFIER.verify_bootstrap, (replace(update, handovers=(TO_MIXED,)), NOW)
    else:
        trusted = replace(start(), handovers=(TO_MIXED,))
        verify, args = VERIFIER.verify_update, (trusted, update, NOW)
    if reason:
        assert get_reason(verify, *args) == reason
    else:
        assert verify(*args).sequence == STORY.r1 + 2


def test_two_of_each_set_over_the_changeover_are_nobody():
    trusted = replace(start(), handovers=(TO_MIXED,))
    number = STORY.r1 + 2
    staying, leaving = OPERATOR_KEYS[2:], OPERATOR_KEYS[:2]
    for early, late in (
        (leaving, [JOINING[0]]),
        (leaving, [staying[0]]),
        ([staying[0]], leaving),
        (staying, leaving[:1]),
    ):
        said = [STORY.say(key, number, T1 - 1) for key in early] + [STORY.say(key, number, T1 + 1) for key in late]
        mixed = Attested(tuple(sorted(said, key=lambda s: s.operator)))
        assert get_reason(VERIFIER.verify_update, trusted, mixed, NOW) == "two_sets"


def test_a_handover_that_comes_with_an_update_is_what_lets_it_count():
    trusted, update = start(), STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 60)
    assert get_reason(VERIFIER.verify_update, trusted, update, NOW) == "unknown_signer"
    after = VERIFIER.verify_update(trusted, replace(update, handovers=(TO_MIXED,)), NOW)
    assert after.handovers == (TO_MIXED,)
    assert (after.clock, after.m, after.n) == (T1 + 60, 3, 4)
    again = STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 90)
    assert VERIFIER.verify_update(after, again, NOW).handovers == (TO_MIXED,)
    forged = replace(TO_MIXED, rotation=replace(TO_MIXED.rotation, operators=NEXT))
    false = replace(STORY.stand(NEXT_KEYS[:3], STORY.r1 + 2, T1 + 60), handovers=(forged,))
    assert get_reason(VERIFIER.verify_update, trusted, false, NOW) == "wrong_link"


def test_facts_that_say_who_vouches_for_them_has_left_are_refused():
    facts = STORY.get_facts()[: STORY.r1 + 1]
    trusted = start()
    VERIFIER.verify_facts(trusted, facts)
    VERIFIER.verify_facts(replace(trusted, clock=T1 - 1), facts)
    assert get_reason(VERIFIER.verify_facts, replace(trusted, clock=T1), facts) == "former_set"
    VERIFIER.verify_facts(replace(trusted, clock=T1, handovers=(TO_MIXED,)), facts)
    whole = STORY.get_facts()
    both = (TO_MIXED, TO_NEXT)
    VERIFIER.verify_facts(replace(trusted, clock=T2, handovers=both), facts)  # the first part of a long way
    VERIFIER.verify_facts(replace(trusted, clock=T2, handovers=both), whole)
    assert get_reason(VERIFIER.verify_facts, replace(trusted, clock=T2, handovers=both[:1]), whole) == "former_set"
    VERIFIER.verify_facts(replace(trusted, clock=T2 - 1, handovers=both[:1]), whole)


# ---- one pending rotation in the place of another (vault.md 2) --------------------------------------------------------


def make_replaced():
    story = Story.__new__(Story)
    story.outbox = Outbox(VAULT_ID)
    first = story.rotate(1, MIXED, T1)
    second = story.rotate(1, NEXT, T1 + DAY)
    return (
        story,
        story.hand_over(first, OPERATOR_KEYS[:3], first, START + 60),
        story.hand_over(second, OPERATOR_KEYS[:3], second, START + 90),
    )


def test_a_later_rotation_replaces_one_that_is_pending_and_none_that_is_in_force():
    story, one, other = make_replaced()
    known = follow(VAULT_ID, Succession((FIRST,)), (one, other))
    assert known.sets == (FIRST, OperatorSet(T1 + DAY, NEXT, 3))
    assert follow(VAULT_ID, known, (one,)) == known  # the one before it changes nothing
    assert follow(VAULT_ID, Succession((FIRST,)), (other,)) == known
    believed = follow(VAULT_ID, Succession((FIRST,)), (one,))
    assert follow(VAULT_ID, believed, (other,), T1 - 1).sets == known.sets
    assert get_reason(follow, VAULT_ID, believed, (other,), T1) == "another_set"
    VERIFIER.verify_facts(replace(start(), clock=T1), story.get_facts())  # the first never took effect


def test_keys_that_left_can_not_rewrite_who_followed_them():
    """m keys of the former set, found by a thief, and a history in which they named others: not where the next set is in force."""
    thief = Story.__new__(Story)
    thief.outbox = Outbox(VAULT_ID)
    thief.deposit(2)
    thief.rotate(1, MIXED, T1)
    number = thief.rotate(1, NEXT, T1 + DAY)
    forged = thief.hand_over(number, OPERATOR_KEYS[:3], number, START + 90)
    trusted = VERIFIER.verify_update(
        start(), replace(STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 60), handovers=(TO_MIXED,)), NOW
    )
    false = replace(thief.stand(NEXT_KEYS[:3], number, T1 + 2 * DAY), handovers=(forged,))
    assert get_reason(VERIFIER.verify_update, trusted, false, NOW) == "another_set"
    assert get_reason(VERIFIER.verify_alone, trusted, false, NOW) == "another_set"
    pool = Pool(build_rules(CHAIN, ACCOUNT, make_settings(FIRST)))
    pool.learn((TO_MIXED,))
    assert get_reason(pool.learn, (forged,), T1 + 60) == "another_set"
    assert pool.sets[-1].operators == MIXED
    # before the instant it was true of one vault or the other: m operators in force stand for two histories
    lagging = VERIFIER.verify_update(start(), replace(STORY.stand(OPERATOR_KEYS[:3], 4, START + 90), handovers=()), NOW)
    other = thief.stand(OPERATOR_KEYS[:3], number, START + 120)
    assert get_reason(VERIFIER.verify_update, lagging, other, NOW, error=Conflict) == "two_heads"


# ---- settings with several sets ---------------------------------------------------------------------------------------


def test_sets_that_people_name_by_hand_still_count_and_agree_with_what_is_proven():
    by_hand = make_verifier(FIRST, OperatorSet(T1, MIXED, 3))
    assert start(by_hand, clock=T1 + 60).handovers == ()
    trusted = start(by_hand)
    step = by_hand.make_succession(
        trusted, VAULT_ID, STORY.get_facts()[:4], STORY.stand(OPERATOR_KEYS[:3], 4, START + 60)
    )
    after = by_hand.verify_update(trusted, step, NOW)  # kept for those whose settings have the first set alone
    assert [get_set(h.rotation).operators for h in after.handovers] == [MIXED]
    update = replace(STORY.stand(NEXT_KEYS[:3], STORY.r2 + 1, T2), handovers=(TO_NEXT,))
    assert by_hand.verify_update(after, update, NOW).handovers[1:] == (TO_NEXT,)
    assert by_hand.verify_update(trusted, update, NOW).handovers == (TO_NEXT,)


def test_a_later_set_that_people_name_from_0_on_leads_to_the_next():
    loose = make_verifier(OperatorSet(0, MIXED, 3))
    update = replace(STORY.stand(NEXT_KEYS[:3], STORY.r2 + 1, T2), handovers=(TO_MIXED, TO_NEXT))
    assert loose.verify_bootstrap(update, NOW).handovers == (TO_NEXT,)
    loose.verify_facts(loose.verify_bootstrap(update, NOW), STORY.get_facts())
    trusted = start(loose, clock=T1 + 60)
    loose.verify_facts(trusted, STORY.get_facts()[: STORY.r1 + 1])
    assert get_reason(loose.verify_update, trusted, replace(update, handovers=(TO_MIXED,)), NOW) == "unknown_signer"


def test_settings_that_begin_with_a_later_set_go_on_from_the_same_record():
    """People who do not believe the former keys any more change the settings; what is on record stays what it is."""
    trusted = VERIFIER.verify_update(
        start(), replace(STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 60), handovers=(TO_MIXED,)), NOW
    )
    same = STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 60)
    next_one = replace(STORY.stand(NEXT_KEYS[:3], STORY.r2 + 1, T2), handovers=(TO_NEXT,))
    for since in (T1, 0):
        later = make_verifier(OperatorSet(since, MIXED, 3))
        assert get_reason(later.verify_update, trusted, same, NOW) == "old"
        after = later.verify_update(trusted, next_one, NOW)
        assert (after.clock, after.handovers) == (T2, (TO_NEXT,))
        assert (
            get_reason(later.verify_update, trusted, STORY.stand(OPERATOR_KEYS[:3], 5, T1 + 90), NOW)
            == "unknown_signer"
        )
    later = make_verifier(OperatorSet(T1, MIXED, 3))
    assert get_reason(later.verify_bootstrap, STORY.stand(OPERATOR_KEYS[:3], 4, T1 - 1), NOW) == "no_set"


def test_sets_that_people_name_otherwise_than_the_vault_are_told_and_not_overruled():
    wrong = make_verifier(FIRST, OperatorSet(T1 + 5, MIXED, 3))
    facts, seen = STORY.get_facts()[:4], STORY.stand(OPERATOR_KEYS[:3], 4, START + 60)
    assert get_reason(wrong.make_succession, start(wrong), VAULT_ID, facts, seen) == "another_set"


# ---- the pool ---------------------------------------------------------------------------------------------------------


def make_pool():
    return Pool(build_rules(CHAIN, ACCOUNT, make_settings(FIRST)))


def test_the_pool_learns_who_is_next_and_chooses_from_each_in_its_time():
    pool = make_pool()
    number = STORY.r1 + 2
    for key in OPERATOR_KEYS:
        pool.add(STORY.say(key, number, T1 - 20), T1 - 10)
    assert get_reason(pool.add, STORY.say(JOINING[0], number, T1 + 5), T1 - 10) == "unknown_signer"
    assert pool.learn((TO_MIXED,), T1 - 10)
    assert not pool.learn((TO_MIXED,), T1 - 10)
    for key in MIXED_KEYS:  # clocks that are ahead: their time has not come
        pool.add(STORY.say(key, number, T1 + 5), T1 - 10)
    assert {s.observation.clock for s in pool.get_observations()} == {T1 - 20}
    assert get_reason(pool.add, STORY.say(OPERATOR_KEYS[0], number, T1 + 5), T1 - 10) == "unknown_signer"
    pool.add(STORY.say(OPERATOR_KEYS[0], number, T1 - 1), T1 + 1)  # late news of the former time
    found = pool.get_observations()
    assert {s.operator for s in found} == set(MIXED)
    assert all(s.observation.clock >= T1 for s in found)
    assert pool.get_missing(()) == (TO_MIXED,)
    assert pool.get_missing((TO_MIXED,)) == ()


def test_two_heads_of_one_who_joined_are_evidence_by_the_proven_set():
    pool = make_pool()
    pool.learn((TO_MIXED,))
    one, other = (STORY.say(JOINING[0], 5, T1 + 5 + n, head=bytes([n + 1]) * 32) for n in range(2))
    pool.add(one, T1 + 5)
    evidence = pool.add(other, T1 + 6).evidence
    rules = build_rules(CHAIN, ACCOUNT, make_settings(FIRST))
    assert verify_evidence(rules, *evidence, pool.sets) == get_address(JOINING[0])
    assert get_reason(verify_evidence, rules, *evidence) == "unknown_signer"


# ---- whatever the times and the signers -------------------------------------------------------------------------------

CAST = [*OPERATOR_KEYS, *JOINING]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(-3, 3)), min_size=3, max_size=3, unique_by=lambda s: s[0]),
    st.booleans(),
)
def test_three_statements_count_exactly_when_one_set_in_force_made_them_all(said, is_known):
    """Whoever says whatever at any second around the instant: only three of the former before it, or three of the next from it on."""
    trusted = replace(start(), handovers=(TO_MIXED,) if is_known else ())
    statements = [STORY.say(CAST[who], STORY.r1 + 2, T1 + offset) for who, offset in said]
    update = Attested(tuple(sorted(statements, key=lambda s: s.operator)))
    signers = {s.operator for s in statements}
    before = all(offset < 0 for _, offset in said)
    after = all(offset >= 0 for _, offset in said)
    is_sound = (before or not is_known) and signers <= set(OPERATORS)
    is_sound = is_sound or (is_known and after and signers <= set(MIXED))
    try:
        VERIFIER.verify_update(trusted, update, NOW)
    except Rejected:
        assert not is_sound
    else:
        assert is_sound


@settings(max_examples=60, deadline=None)
@given(st.permutations([0, 1, 0, 1, 1]), st.integers(START + 40, T1 - 1), st.integers(0, 2))
def test_the_walk_is_the_same_whatever_of_it_comes_twice_and_whoever_saw_it(order, clock, more):
    """Two nodes prove one rotation by other statements of other numbers; what is known after it is one thing."""
    other = STORY.hand_over(STORY.r1, OPERATOR_KEYS[1:], STORY.r1 + more, clock)
    choices = ((TO_MIXED, other), (TO_NEXT, TO_NEXT))
    known = Succession((FIRST,))
    for index, place in enumerate(order):
        handover = choices[place][index % 2]
        try:
            known = follow(VAULT_ID, known, (handover,))
        except Rejected:
            assert place == 1
            assert len(known.sets) == 1  # the second before the first
    known = follow(VAULT_ID, known, (other, TO_NEXT))
    assert known.sets == (FIRST, OperatorSet(T1, MIXED, 3), OperatorSet(T2, NEXT, 3))
    assert follow(VAULT_ID, Succession((FIRST,)), known.handovers) == known
    assert codec.decode_handovers(codec.encode_handovers(known.handovers)) == known.handovers


def test_facts_without_a_rotation_hand_nothing_over():
    story = Story.__new__(Story)
    story.outbox = Outbox(VAULT_ID)
    story.deposit(2)
    story.outbox.ack(Unpause())
    assert make_handovers(VAULT_ID, story.get_facts(), story.stand(OPERATOR_KEYS[:3], 3, START + 60)) == ()
    assert (
        VERIFIER.make_succession(start(), VAULT_ID, story.get_facts(), story.stand(OPERATOR_KEYS[:3], 3, START + 60))
        is None
    )
