"""The committee's rules: slots, votes, signatures, open packets, evidence (protocol.md 8; incidents B2, fault 23)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.bodies import Execute, Unpause, encode_body, make_inbox_packet
from messages.digests import (
    compute_packet_digest,
    compute_vote_digest,
    get_address,
    is_threshold,
    sign_digest,
    verify_certificate,
)
from messages.documents import (
    Cut,
    MarketSnapshot,
    OpenPacket,
    OpenPackets,
    Plan,
    PlannedPacket,
    Proposal,
    Vote,
    compute_digest,
    encode_document,
)
from messages.errors import Rejected
from messages.packet import compute_commitment
from messages.wire import Envelope, compute_envelope_digest, encode_envelope
from relayer.rules import quorum as q
from relayer.rules.plan import finalize_packet
from relayer.rules.statements import PacketSignature, SignedParameters, SignedPlan
from tests.builders import OPERATOR_KEYS, OPERATORS, make_key

ID = b"\x11" * 32
VAULT = b"\x22" * 32
PLAN = b"\x33" * 32
COMMITTEE = q.Committee(ID, 0, OPERATORS, 3)


def make_vote(i, *, k=5, r=0, plan=PLAN, key=None):
    digest = compute_vote_digest(ID, k, r, plan)
    return Vote(k, r, plan, OPERATORS[i], sign_digest(key or OPERATOR_KEYS[i], digest))


def make_proposal(k, r, operator, **changes):
    plan = Proposal(k, r, operator, Cut(()), (), MarketSnapshot(1, (), (), ()), PLAN, OpenPackets(()), PLAN)
    return replace(plan, **changes)


# ---- the set


@pytest.mark.parametrize("threshold", [0, 1, 2, 5, -3])
def test_no_threshold_but_a_quorum_makes_a_committee(threshold):
    with pytest.raises(Rejected) as caught:
        q.Committee(ID, 0, OPERATORS, threshold)
    assert caught.value.reason == "bad_operators"


@pytest.mark.parametrize("threshold", [3, 4])
def test_three_or_four_of_four_make_a_committee(threshold):
    assert q.Committee(ID, 0, OPERATORS, threshold).threshold == threshold


@pytest.mark.parametrize(
    "operators", [(), OPERATORS[::-1], OPERATORS[:1] * 2, (bytes(20), *OPERATORS), (OPERATORS[0][:19],)]
)
def test_no_set_with_a_zero_a_repeated_or_a_misplaced_member_makes_a_committee(operators):
    with pytest.raises(Rejected):
        q.Committee(ID, 0, operators, max(1, len(operators)))


def test_a_zero_committee_id_is_refused():
    with pytest.raises(Rejected):
        q.Committee(bytes(32), 0, OPERATORS, 3)


@given(st.integers(1, 20), st.integers(0, 21))
def test_two_quorums_always_share_more_members_than_may_be_faulty(n, m):
    if is_threshold(m, n):
        assert 2 * m - n > n - m


# ---- slots


def test_proposers_take_turns_by_k_and_r():
    assert [q.get_proposer(COMMITTEE, 0, r) for r in range(5)] == [*OPERATORS, OPERATORS[0]]
    assert q.get_proposer(COMMITTEE, 2, 3) == OPERATORS[1]


def test_a_slot_moves_by_patience_and_then_to_the_next_k():
    get = lambda now: q.get_slot(7, 1000, now, 30, 4)  # noqa: E731
    assert [get(t) for t in (900, 1000, 1029, 1030, 1119, 1120, 1150)] == [
        (7, 0), (7, 0), (7, 0), (7, 1), (7, 3), (8, 0), (8, 1)
    ]  # fmt: skip
    assert q.get_slot(7, None, 10**9, 30, 4) == (7, 0)


@pytest.mark.parametrize(
    ("k", "r", "slot", "highest", "expected"),
    [
        (7, 0, (7, 0), 0, "due"),
        (7, 1, (7, 0), 0, "early"),
        (7, 1, (7, 1), 0, "due"),
        (7, 0, (7, 2), 0, "due"),
        (8, 0, (7, 0), 0, "early"),
        (8, 0, (8, 0), 0, "due"),
        (8, 1, (7, 3), 0, "early"),
        (6, 3, (7, 0), 0, "due"),
        (6, 0, (7, 0), 0, "due"),
        (5, 0, (7, 0), 0, "old_k"),
        (7, 0, (7, 0), 8, "old_k"),
        (7, 0, (7, 0), 7, "due"),
        (71, 0, (7, 0), 0, "early"),
        (72, 0, (7, 0), 0, "far_k"),
    ],
)
def test_a_proposal_is_judged_by_its_slot(k, r, slot, highest, expected):
    operator = q.get_proposer(COMMITTEE, k, r)
    try:
        verdict = q.verify_slot(make_proposal(k, r, operator), operator, COMMITTEE, slot, highest).value
    except Rejected as error:
        verdict = error.reason
    assert verdict == expected


def test_nobody_proposes_in_anothers_slot():
    right, wrong = q.get_proposer(COMMITTEE, 7, 0), q.get_proposer(COMMITTEE, 7, 1)
    for proposer, sender in ((wrong, wrong), (right, wrong), (wrong, right)):
        with pytest.raises(Rejected) as caught:
            q.verify_slot(make_proposal(7, 0, proposer), sender, COMMITTEE, (7, 0), 0)
        assert caught.value.reason == "wrong_proposer"


def test_a_node_follows_the_slot_that_more_operators_than_may_be_faulty_have_reached():
    ballot = q.Ballot(5, (make_vote(0, r=3), make_vote(1, r=1)))
    assert q.get_peers_slot([ballot], COMMITTEE) == (5, 1)
    assert q.get_peers_slot([q.Ballot(5, (make_vote(0, r=3),))], COMMITTEE) == (0, 0)  # one may be lying
    assert q.get_peers_slot([ballot, q.Ballot(9, (make_vote(2, k=9),))], COMMITTEE) == (5, 3)


def test_votes_too_far_ahead_to_be_kept_count_for_the_slot_of_the_others():
    far = {OPERATORS[0]: (900, 1), OPERATORS[1]: (800, 2)}
    assert q.get_peers_slot([], COMMITTEE, far) == (800, 2)
    assert q.get_peers_slot([], COMMITTEE, {OPERATORS[0]: (2**63, 0)}) == (0, 0)  # one may be lying
    assert q.get_peers_slot([], COMMITTEE, {bytes(20): (900, 0), **far}) == (800, 2)  # and strangers count nothing


# ---- votes


def test_the_third_of_four_votes_certifies_in_every_order():
    for order in permutations(range(4), 3):
        ballot, results = q.Ballot(5), []
        for i in order:
            ballot, added, evidence = q.add_vote(ballot, make_vote(i), COMMITTEE)
            assert evidence is None
            results.append(added)
        assert results == [q.Added.NO_QUORUM_YET, q.Added.NO_QUORUM_YET, q.Added.CERTIFIED]
        assert q.get_certified_plan(ballot, COMMITTEE) == PLAN
        assert [v.operator for v in q.get_quorum_votes(ballot, PLAN, COMMITTEE)] == sorted(OPERATORS[i] for i in order)


def test_a_repeated_vote_is_a_duplicate_and_counts_once():
    ballot, _, _ = q.add_vote(q.Ballot(5), make_vote(0), COMMITTEE)
    for _ in range(5):
        ballot, added, evidence = q.add_vote(ballot, make_vote(0), COMMITTEE)
        assert (added, evidence) == (q.Added.DUPLICATE, None)
    assert q.get_voters(ballot, PLAN) == (OPERATORS[0],)
    assert q.get_quorum_votes(ballot, PLAN, COMMITTEE) == ()


def test_one_operator_in_many_rounds_is_one_voter():
    ballot = q.Ballot(5)
    for r in range(4):
        ballot, added, _ = q.add_vote(ballot, make_vote(0, r=r), COMMITTEE)
        assert added is q.Added.NO_QUORUM_YET
    assert q.get_certified_plan(ballot, COMMITTEE) is None


def test_votes_for_different_plans_do_not_add_up():
    ballot = q.Ballot(5)
    for i, plan in enumerate((PLAN, b"\x44" * 32, PLAN, b"\x44" * 32)):
        ballot, added, _ = q.add_vote(ballot, make_vote(i, plan=plan), COMMITTEE)
        assert added is q.Added.NO_QUORUM_YET


@pytest.mark.parametrize("spoil", ["stranger", "forged", "other_k", "other_committee", "round", "high_s"])
def test_a_bad_vote_is_refused_and_harms_nobody(spoil):
    vote = make_vote(0)
    if spoil == "stranger":
        vote = replace(vote, operator=get_address(make_key("stranger")))
    if spoil == "forged":
        vote = make_vote(0, key=OPERATOR_KEYS[1])
    if spoil == "other_k":
        vote = make_vote(0, k=6)
    if spoil == "other_committee":
        vote = replace(vote, signature=sign_digest(OPERATOR_KEYS[0], compute_vote_digest(b"\x99" * 32, 5, 0, PLAN)))
    if spoil == "round":
        vote = make_vote(0, r=10**6)
    if spoil == "high_s":
        n = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
        s = n - int.from_bytes(vote.signature[32:64], "big")
        vote = replace(vote, signature=vote.signature[:32] + s.to_bytes(32, "big") + bytes([55 - vote.signature[64]]))
    ballot, _, _ = q.add_vote(q.Ballot(5), make_vote(1), COMMITTEE)
    with pytest.raises(Rejected):
        q.add_vote(ballot, vote, COMMITTEE)
    assert q.add_vote(ballot, make_vote(0), COMMITTEE)[1] is q.Added.NO_QUORUM_YET


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([PLAN, b"\x44" * 32])), max_size=14))
def test_at_most_one_plan_is_ever_certified_by_honest_operators_and_equivocation_always_shows(statements):
    """Whatever the order: a plan needs m voters, and whoever says two things in one slot is proven to have done so."""
    ballot, found, said = q.Ballot(5), [], {}
    for i, r, plan in statements:
        ballot, added, evidence = q.add_vote(ballot, make_vote(i, r=r, plan=plan), COMMITTEE)
        if evidence is not None:
            found.append(evidence.operator)
            q.verify_equivocation(evidence, COMMITTEE)
        assert (added is q.Added.CERTIFIED) <= (len(q.get_voters(ballot, plan)) >= 3)
        assert (said.setdefault((i, r), plan) != plan) == (evidence is not None)
    assert set(found) == {OPERATORS[i] for i, r, plan in statements if said[i, r] != plan}


@pytest.mark.parametrize("wrong", ["few", "twice", "other_plan", "other_k", "none"])
def test_a_quorum_from_outside_is_checked_vote_by_vote(wrong):
    votes = [make_vote(i) for i in range(3)]
    q.verify_quorum(votes, 5, PLAN, COMMITTEE)
    if wrong == "few":
        votes = votes[:2]
    if wrong == "twice":
        votes[2] = votes[0]
    if wrong == "other_plan":
        votes[2] = make_vote(2, plan=b"\x44" * 32)
    if wrong == "other_k":
        votes[2] = make_vote(2, k=6)
    if wrong == "none":
        votes = []
    with pytest.raises(Rejected):
        q.verify_quorum(votes, 5, PLAN, COMMITTEE)


# ---- packet signatures


PACKET = make_inbox_packet(VAULT, 1, 2000, Unpause())


def sign_packet(i, key=None):
    digest = compute_packet_digest(VAULT, 0, 1, compute_commitment(PACKET))
    return sign_digest(key or OPERATOR_KEYS[i], digest)


def test_any_three_signatures_make_a_certificate_that_a_vault_accepts():
    for chosen in combinations(range(4), 3):
        ballot = q.PacketBallot(VAULT, 0, PACKET)
        for i in reversed(chosen):
            assert q.get_certificate(ballot, COMMITTEE) is None
            ballot, _ = q.add_signature(ballot, OPERATORS[i], sign_packet(i), COMMITTEE)
        certificate = q.get_certificate(ballot, COMMITTEE)
        verify_certificate(certificate, OPERATORS, 3)


def test_four_signatures_give_a_certificate_with_exactly_three():
    ballot = q.PacketBallot(VAULT, 0, PACKET)
    results = []
    for i in range(4):
        ballot, added = q.add_signature(ballot, OPERATORS[i], sign_packet(i), COMMITTEE)
        results.append(added)
    assert results[2:] == [q.Added.CERTIFIED, q.Added.CERTIFIED]
    assert len(q.get_certificate(ballot, COMMITTEE).signatures) == 3


def test_a_bad_packet_signature_is_refused_alone():
    ballot, _ = q.add_signature(q.PacketBallot(VAULT, 0, PACKET), OPERATORS[0], sign_packet(0), COMMITTEE)
    for operator, signature in (
        (OPERATORS[1], sign_packet(2)),
        (get_address(make_key("stranger")), sign_packet(0, make_key("stranger"))),
        (OPERATORS[1], bytes(65)),
    ):
        with pytest.raises(Rejected):
            q.add_signature(ballot, operator, signature, COMMITTEE)
    assert q.add_signature(ballot, OPERATORS[0], sign_packet(0), COMMITTEE) == (ballot, q.Added.DUPLICATE)
    assert q.add_signature(ballot, OPERATORS[1], sign_packet(1), COMMITTEE)[1] is q.Added.NO_QUORUM_YET


# ---- open packets


@pytest.mark.parametrize(
    ("inbox", "time", "fate"),
    [(4, 0, "open"), (4, 99, "open"), (4, 100, "absent"), (5, 0, "answered"), (6, 500, "answered")],
)
def test_a_state_says_open_absent_or_answered(inbox, time, fate):
    assert q.get_fate(5, 100, inbox, time).value == fate


def make_open(sequence=1, timeout=100, plan=PLAN, voters=(0, 1, 2)):
    return OpenPacket(VAULT, 0, sequence, timeout, b"value", plan, tuple(make_vote(i, plan=plan) for i in voters))


OWN = {(VAULT, 1, PLAN)}


def test_a_list_with_all_of_ours_and_their_votes_is_accepted():
    q.verify_open_packets([make_open()], OWN, {VAULT: (0, 50)}, COMMITTEE)
    q.verify_open_packets([make_open(), make_open(2)], OWN, {VAULT: (0, 50)}, COMMITTEE)
    q.verify_open_packets([make_open()], set(), {VAULT: (0, 100)}, COMMITTEE)  # absent, number not used up


def test_after_a_rotation_only_packets_on_record_here_need_no_votes_of_the_new_set():
    rotated = replace(COMMITTEE, epoch=1, operators=tuple(sorted((*OPERATORS[1:], b"\x77" * 20))))
    q.verify_open_packets([make_open()], OWN, {VAULT: (0, 50)}, rotated)
    for listed, own in (
        (make_open(), set()),
        (make_open(plan=b"\x44" * 32), set()),
        (replace(make_open(), operator_epoch=1), OWN),
    ):
        with pytest.raises(Rejected) as caught:
            q.verify_open_packets([listed], own, {VAULT: (0, 50)}, rotated)
        assert caught.value.reason == "not_operator"


@pytest.mark.parametrize(
    ("listed", "position", "reason"),
    [
        ([], (0, 50), "open_missing"),
        ([make_open(2)], (0, 50), "open_missing"),
        ([make_open(plan=b"\x44" * 32)], (0, 50), "open_missing"),
        ([make_open(2), make_open(1)], (0, 50), "open_order"),
        ([make_open(), make_open()], (0, 50), "open_order"),
        ([make_open()], (1, 50), "open_settled"),
        ([make_open(voters=(0, 1))], (0, 50), "no_quorum"),
        ([make_open(voters=())], (0, 50), "no_quorum"),
        ([replace(make_open(), vault_id=b"\x01" * 32), make_open()], (0, 50), "open_vault"),
    ],
)
def test_a_list_that_forgets_settles_or_invents_is_refused(listed, position, reason):
    with pytest.raises(Rejected) as caught:
        q.verify_open_packets(listed, OWN, {VAULT: position}, COMMITTEE)
    assert caught.value.reason == reason


# ---- parameters


def test_parameters_need_m_operators_and_their_time():
    statement = q.compute_parameters_statement(COMMITTEE, PLAN)
    signatures = tuple(sign_digest(key, statement) for key in OPERATOR_KEYS)
    q.verify_parameters(SignedParameters(PLAN, signatures[:3]), PLAN, 100, 100, COMMITTEE)
    for signed, digest, now, reason in (
        (SignedParameters(PLAN, signatures[:2]), PLAN, 100, "no_quorum"),
        (SignedParameters(PLAN, signatures[:1] * 3), PLAN, 100, "no_quorum"),
        (SignedParameters(PLAN, signatures[:3]), ID, 100, "parameters_digest"),
        (SignedParameters(PLAN, signatures[:3]), PLAN, 99, "not_effective"),
        (SignedParameters(PLAN, (*signatures[:2], sign_digest(make_key("x"), statement))), PLAN, 100, "not_operator"),
    ):
        with pytest.raises(Rejected) as caught:
            q.verify_parameters(signed, digest, 100, now, COMMITTEE)
        assert caught.value.reason == reason


# ---- evidence


def make_signed_plan(i, k, timeout):
    planned = PlannedPacket(VAULT, 0, 1, timeout, encode_body(Execute(bytes(32), (), ())), "test")
    plan = Plan(k, PLAN, PLAN, PLAN, PLAN, (planned,))
    packet = finalize_packet(planned, compute_digest(plan))
    signature = sign_digest(OPERATOR_KEYS[i], compute_packet_digest(VAULT, 0, 1, compute_commitment(packet)))
    return SignedPlan(plan, (), (PacketSignature(VAULT, 1, OPERATORS[i], signature),))


def make_envelope(i, proposal):
    bare = Envelope(OPERATORS[i], 1, 1, "proposal", encode_document(proposal))
    return encode_envelope(replace(bare, signature=sign_digest(OPERATOR_KEYS[i], compute_envelope_digest(bare, ID))))


def test_each_kind_of_equivocation_can_be_checked_by_anyone():
    first, second = make_proposal(5, 0, OPERATORS[1]), make_proposal(5, 0, OPERATORS[1], plan_digest=ID)
    for evidence in (
        q.compute_vote_equivocation(make_vote(1), make_vote(1, plan=ID)),
        q.compute_proposal_equivocation(OPERATORS[1], make_envelope(1, first), make_envelope(1, second)),
        q.compute_packets_equivocation(OPERATORS[1], make_signed_plan(1, 5, 100), make_signed_plan(1, 5, 200)),
    ):
        q.verify_equivocation(evidence, COMMITTEE)
        for other in (replace(evidence, operator=OPERATORS[2]), replace(evidence, second=evidence.first),
                      replace(evidence, kind="x"), replace(evidence, first=b"{}")):  # fmt: skip
            with pytest.raises(Rejected):
                q.verify_equivocation(other, COMMITTEE)


def test_evidence_is_the_same_whoever_saw_which_first():
    one, two = make_vote(1), make_vote(1, plan=ID)
    assert q.compute_vote_equivocation(one, two) == q.compute_vote_equivocation(two, one)


def test_statements_of_different_slots_are_no_equivocation():
    for evidence in (
        q.compute_vote_equivocation(make_vote(1), make_vote(1, r=1, plan=ID)),
        q.compute_packets_equivocation(OPERATORS[1], make_signed_plan(1, 5, 100), make_signed_plan(1, 6, 200)),
    ):
        with pytest.raises(Rejected) as caught:
            q.verify_equivocation(evidence, COMMITTEE)
        assert caught.value.reason == "no_equivocation"
