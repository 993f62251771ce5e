"""The fold: nothing becomes a fact but under a proven head, and nothing under one makes it raise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import bodies as b
from messages import outbox as o
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.packet import Packet, Payload, compute_commitment, encode_packet_borsh
from tests.messages.builders import (
    DEPOSIT,
    EDGE_SEQUENCES,
    EXECUTE,
    NOW,
    TRADES,
    VAULT,
    compute_head,
    flip_each_bit,
    get_refusal,
    inbox_bodies,
    make_ack_claim,
    make_claims,
    outbox_bodies,
    packets,
    prove,
    word,
)

START = o.get_start_cursor(VAULT)
CLAIMS = make_claims()
HEAD = compute_head(CLAIMS)


def fold(claims, head=HEAD, cursor=START, **changes):
    return o.fold(cursor, claims, prove(head, **changes), b.EVM_LIMITS)


def get_fold_refusal(claims, head=HEAD, cursor=START, **changes):
    return get_refusal(lambda: fold(claims, head, cursor, **changes))


def test_claims_that_fold_to_the_proven_head_become_facts():
    cursor, facts = fold(CLAIMS)
    assert cursor == o.Cursor(VAULT, 6, HEAD)
    assert [f.sequence for f in facts] == [1, 2, 3, 4, 5, 6]
    assert [f.stamp for f in facts] == [NOW + i for i in range(1, 7)]
    assert facts[0].body == DEPOSIT
    assert facts[3].inbox_body == EXECUTE
    assert facts[4].inbox_body == TRADES
    assert facts[-1].head == HEAD
    assert all(f.void == "" and f.tier == o.TrustTier(1) and f.proof_digest == word(88) for f in facts)


def test_the_head_of_one_packet_is_fixed_for_ever():
    # golden: a change of the formula, of the commitment or of the body encoding shows here
    assert compute_head(CLAIMS[:1]).hex() == "245d3f15540f7407a2b399184205945f689794acb58d98094f3442cdeca9370d"


@pytest.mark.parametrize("cut", range(7))
def test_folding_in_two_steps_gives_the_same_facts(cut):
    middle, first = fold(CLAIMS[:cut], compute_head(CLAIMS[:cut]))
    end, second = fold(CLAIMS[cut:], cursor=middle)
    assert (end, first + second) == fold(CLAIMS)


def test_no_claims_under_the_head_we_know_give_no_facts():
    cursor, _ = fold(CLAIMS)
    assert fold([], cursor=cursor) == (cursor, ())
    assert fold([], VAULT) == (START, ())


@pytest.mark.parametrize("missing", range(6))
def test_a_withheld_packet_is_caught(missing):
    claims = CLAIMS[:missing] + CLAIMS[missing + 1 :]
    assert get_fold_refusal(claims) == ("head_mismatch" if missing == 5 else "bad_sequence")
    # a source that also renumbers the rest meets the head
    renumbered = [replace(c, packet=replace(c.packet, sequence=i)) for i, c in enumerate(claims, 1)]
    assert get_fold_refusal(renumbered) == "head_mismatch"


def test_an_invented_packet_is_caught():
    extra = o.Claim(b.make_outbox_packet(VAULT, 7, NOW, DEPOSIT))
    assert get_fold_refusal([*CLAIMS, extra]) == "head_mismatch"


def test_two_swapped_packets_are_caught_even_when_renumbered():
    swapped = [CLAIMS[1], CLAIMS[0], *CLAIMS[2:]]
    assert get_fold_refusal(swapped) == "bad_sequence"
    renumbered = [replace(c, packet=replace(c.packet, sequence=i)) for i, c in enumerate(swapped, 1)]
    assert get_fold_refusal(renumbered) == "head_mismatch"


@pytest.mark.parametrize("index", range(6))
def test_a_packet_changed_anywhere_is_caught(index):
    packet = CLAIMS[index].packet
    payload = packet.payloads[0]
    changed = [
        replace(packet, timeout_timestamp=packet.timeout_timestamp + 1),
        replace(packet, destination_client="vault-0"),
        replace(packet, payloads=(payload, payload)),
        *(
            replace(packet, payloads=(replace(payload, **{name: "x"}),))
            for name in ("source_port", "destination_port", "version", "encoding")
        ),
        replace(packet, payloads=(replace(payload, value=payload.value[:-1] + b"\xff"),)),
    ]
    for bad in changed:
        claims = [*CLAIMS[:index], replace(CLAIMS[index], packet=bad), *CLAIMS[index + 1 :]]
        assert get_fold_refusal(claims) == "head_mismatch"
    # these two are not under the commitment, so the fold judges them by itself
    for bad, reason in (
        (replace(packet, source_client="vault-0"), "bad_packet"),
        (replace(packet, sequence=packet.sequence + 1), "bad_sequence"),
    ):
        claims = [*CLAIMS[:index], replace(CLAIMS[index], packet=bad), *CLAIMS[index + 1 :]]
        assert get_fold_refusal(claims) == reason


def test_packets_beyond_the_limits_are_refused_before_they_are_hashed():
    big = replace(CLAIMS[0].packet, payloads=(replace(CLAIMS[0].packet.payloads[0], value=bytes(262_145)),))
    assert get_fold_refusal([o.Claim(big)]) == "bad_packet"
    assert get_fold_refusal([o.Claim(replace(big, payloads=()))]) == "bad_packet"


def test_b1_a_zero_or_missing_head_proves_nothing():
    # Nomad: the zero root was confirmed. A twin that compares defaults accepts nothing-equals-nothing.
    def verify_like_twin(heads, vault, proven):
        return heads.get(vault, bytes(32)) == proven

    assert verify_like_twin({}, VAULT, bytes(32))
    assert get_fold_refusal([], bytes(32)) == "zero_head"
    assert get_fold_refusal([], bytes(32), o.Cursor(VAULT, 0, bytes(32))) == "zero_head"
    assert get_fold_refusal([], b"") == "zero_head"
    assert get_refusal(o.get_start_cursor, bytes(32)) == "zero_head"
    assert get_refusal(o.get_start_cursor, b"") == "zero_head"


def test_a_head_of_another_vault_or_of_the_past_is_refused():
    assert get_fold_refusal(CLAIMS, vault_id=word(5)) == "wrong_vault"
    cursor, _ = fold(CLAIMS)
    assert get_fold_refusal([], compute_head(CLAIMS[:3]), cursor) == "head_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": o.TrustTier(0)},
        {"tier": o.TrustTier(4, 2, 3)},
        {"tier": o.TrustTier(5)},
        {"tier": o.TrustTier(3, 0, 4)},
        {"tier": o.TrustTier(3, 5, 4)},
        {"header_hash": b"\1" * 31},
        {"proof_digest": bytes(32)},
        {"proof_digest": b"\1" * 33},
        {"height": -1},
        {"height": 2**64},
        {"time": 0},
    ],
)
def test_a_proof_record_out_of_shape_or_of_a_tier_never_credited_is_refused(changes):
    assert get_fold_refusal(CLAIMS, **changes) == "bad_proof"


@pytest.mark.parametrize("level", range(256))
def test_a10_every_tier_but_the_three_credited_ones_is_refused(level):
    verdict = get_fold_refusal(CLAIMS, tier=o.TrustTier(level, 3, 4))
    assert verdict == (None if level in (1, 2, 3) else "bad_proof")


def test_an_attested_tier_travels_into_the_facts():
    _, facts = fold(CLAIMS, tier=o.TrustTier(3, 3, 4), header_hash=bytes(32))
    assert facts[0].tier == o.TrustTier(3, 3, 4)


def test_an_ack_without_the_packet_it_answers_is_withheld_evidence():
    claims = [*CLAIMS[:3], replace(CLAIMS[3], inbox=None), *CLAIMS[4:]]
    assert get_fold_refusal(claims) == "missing_inbox"


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, sequence=2),
        lambda p: replace(p, source_client="vault-0"),
        lambda p: replace(p, timeout_timestamp=p.timeout_timestamp + 1),
        lambda p: replace(p, payloads=(replace(p.payloads[0], value=b""),)),
        lambda p: CLAIMS[4].inbox,
    ],
)
def test_an_ack_beside_another_inbox_packet_is_refused(change):
    claims = [*CLAIMS[:3], replace(CLAIMS[3], inbox=change(CLAIMS[3].inbox)), *CLAIMS[4:]]
    assert get_fold_refusal(claims) == "inbox_mismatch"


def test_an_inbox_packet_beside_no_ack_is_refused():
    claims = [replace(CLAIMS[0], inbox=CLAIMS[3].inbox), *CLAIMS[1:]]
    assert get_fold_refusal(claims) == "unexpected_inbox"


def fold_one(claim):
    _, (fact,) = fold([claim], compute_head([claim]))
    return fact


@pytest.mark.parametrize(
    ("changes", "void"),
    [
        ({}, ""),
        ({"status": 2, "reason": 9}, ""),
        ({"kind": 33}, "ack_content"),
        ({"status": 0}, "ack_content"),
        ({"status": 3}, "ack_content"),
        ({"reason": 1}, "ack_content"),
        ({"bitmap": 1}, "ack_content"),
        ({"status": 2, "reason": 0}, "ack_content"),
        ({"status": 2, "reason": 18}, "ack_content"),
        ({"status": 2, "reason": 9, "bitmap": 1}, "ack_content"),
    ],
)
def test_an_ack_that_no_vault_would_write_is_void(changes, void):
    fact = fold_one(make_ack_claim(1, 1, EXECUTE, **changes))
    assert fact.void == void
    assert (fact.body is None) == (fact.inbox_body is None) == bool(void)


def test_a_bitmap_reaches_as_far_as_the_items():
    assert fold_one(make_ack_claim(1, 1, TRADES, bitmap=0b11)).void == ""
    assert fold_one(make_ack_claim(1, 1, TRADES, bitmap=0b100)).void == "ack_content"


@pytest.mark.parametrize("status", range(256))
def test_a10_every_unknown_status_of_an_ack_is_void(status):
    fact = fold_one(make_ack_claim(1, 1, EXECUTE, status=status, reason=9 if status == 2 else 0))
    assert (fact.void == "") == (status in (1, 2))


def test_an_answered_packet_beyond_the_limits_of_its_family_is_void():
    legs = tuple(b.Leg(0, word(i), word(1), 1) for i in range(1, 66))
    claim = make_ack_claim(1, 1, b.Execute(word(9), (), legs))
    assert fold_one(claim).void == "inbox_body"
    _, (fact,) = o.fold(START, [claim], prove(compute_head([claim])), b.COSMOS_LIMITS)
    assert fact.void == ""


@settings(max_examples=150, deadline=None)
@given(st.one_of(packets, st.binary(max_size=400).map(
    lambda value: Packet(1, "", "vault-1111111111111111", NOW, (Payload(b.PORT, b.PORT, b.VERSION, b.ENCODING, value),))
)))  # fmt: skip
def test_whatever_a_vault_accepted_folds_and_strange_content_is_void(packet):
    claim = o.Claim(replace(packet, sequence=1, source_client=b.CLEARING_CLIENT))
    head = compute_head([claim])
    cursor, (fact,) = fold([claim], head)
    assert cursor.head == head
    assert (fact.body is None) == bool(fact.void)
    assert o.decode_fact(o.encode_fact(fact)) == fact


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(outbox_bodies.filter(lambda x: not isinstance(x, b.Ack)), inbox_bodies), max_size=5))
def test_any_history_folds_back_to_its_bodies_and_survives_storage(items):
    claims = []
    for i, body in enumerate(items, 1):
        if body.KIND < 32:
            claims.append(o.Claim(b.make_outbox_packet(VAULT, i, NOW, body)))
        else:
            claims.append(make_ack_claim(i, i, body))
    cursor, facts = fold(claims, compute_head(claims))
    assert [f.inbox_body or f.body for f in facts] == items
    stored = [o.encode_fact(f) for f in facts]
    assert tuple(map(o.decode_fact, stored)) == facts
    assert o.verify_chain(START, map(o.decode_fact, stored)) == cursor


@pytest.mark.parametrize("sequence", EDGE_SEQUENCES)
def test_sequences_at_the_edges_of_number_types_fold_and_store(sequence):
    cursor = o.Cursor(VAULT, sequence - 1, word(4))
    claim = o.Claim(b.make_outbox_packet(VAULT, sequence, NOW, DEPOSIT))
    end, (fact,) = fold([claim], compute_head([claim], cursor), cursor)
    assert end.sequence == fact.sequence == sequence
    assert o.decode_fact(o.encode_fact(fact)) == fact


def test_after_the_last_u64_there_is_no_next_packet():
    cursor = o.Cursor(VAULT, 2**64 - 1, word(4))
    claim = o.Claim(replace(CLAIMS[0].packet, sequence=2**64))
    assert get_fold_refusal([claim], word(5), cursor) == "bad_packet"


def test_c5_heads_bind_widths_where_a_joining_twin_shifts_bytes():
    def compute_like_twin(head, sequence, commitment):
        return head + str(sequence).encode() + commitment

    assert compute_like_twin(b"a", 11, b"b") == compute_like_twin(b"a1", 1, b"b")
    for head, sequence, commitment in ((b"a", 11, b"b"), (word(1), 1, word(1)[:31]), (word(1), 0, word(1))):
        assert get_refusal(o.compute_next_head, head, sequence, commitment) == "bad_packet"


def test_take_until_head_stops_at_the_proven_packet():
    for count in range(7):
        assert o.take_until_head(START, CLAIMS, compute_head(CLAIMS[:count])) == tuple(CLAIMS[:count])
    assert o.take_until_head(START, CLAIMS, word(1)) is None


def test_every_flipped_bit_of_a_stored_fact_is_refused_or_gives_another_fact():
    _, facts = fold(CLAIMS)
    for fact in (facts[0], facts[3]):
        record = o.encode_fact(fact)
        refused = 0
        for changed in flip_each_bit(record):
            if get_refusal(o.decode_fact, changed):
                refused += 1
            else:
                assert o.decode_fact(changed) != fact
        assert refused


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400), st.integers(0, 600).map(lambda n: (o.encode_fact(fold(CLAIMS)[1][4]) + b"\0")[:n])
    )
)
def test_hostile_records_are_refused_or_are_the_one_encoding(record):
    if get_refusal(o.decode_fact, record) is None:
        assert o.encode_fact(o.decode_fact(record)) == record


def test_a_stored_fact_has_one_form_for_ever():
    _, facts = fold(CLAIMS)
    record = o.encode_fact(facts[3])
    # golden: stores of the past must stay readable; a new form needs a new version byte
    assert keccak256(record).hex() == "4c4c5cba6d5a8f443c0b067c49f78b79ce535da61d9b31f6b1ee6aa0641daf3d"
    assert get_refusal(o.decode_fact, record + b"\0") == "malformed"
    assert get_refusal(o.decode_fact, record[:-1]) == "malformed"
    # the same packet in the long form
    packet = facts[0].packet
    plain = o.encode_fact(facts[0])
    at = plain.index(b"\x01" + (1).to_bytes(8, "big") + packet.timeout_timestamp.to_bytes(8, "big"))
    borsh = encode_packet_borsh(packet)
    long = plain[:at] + b"\x02" + len(borsh).to_bytes(4, "big") + borsh + b"\0"
    assert get_refusal(o.decode_fact, long) == "malformed"


def test_a_packet_whose_timeout_is_before_any_block_is_void():
    for timeout, void in ((0, "timeout"), (86_399, "timeout"), (86_400, "")):
        fact = fold_one(o.Claim(replace(CLAIMS[0].packet, timeout_timestamp=timeout)))
        assert (fact.void, fact.stamp) == (void, 0)


def test_a_changed_dropped_or_foreign_fact_breaks_the_chain():
    _, facts = fold(CLAIMS)
    assert get_refusal(o.verify_chain, START, facts[1:]) == "bad_sequence"
    assert get_refusal(o.verify_chain, START, [replace(facts[0], commitment=word(1))]) == "head_mismatch"
    assert get_refusal(o.verify_chain, START, [replace(facts[0], vault_id=word(1))]) == "wrong_vault"


def test_a_stored_ack_without_or_beside_a_wrong_inbox_packet_is_refused():
    _, facts = fold(CLAIMS)
    ack, deposit = facts[3], facts[0]
    assert get_refusal(o.decode_fact, o.encode_fact(replace(ack, inbox=None))) == "missing_inbox"
    assert get_refusal(o.decode_fact, o.encode_fact(replace(ack, inbox=facts[4].inbox))) == "inbox_mismatch"
    assert get_refusal(o.decode_fact, o.encode_fact(replace(deposit, inbox=ack.inbox))) == "malformed"


def test_the_commitment_of_a_fact_is_that_of_its_packet():
    _, facts = fold(CLAIMS)
    assert [f.commitment for f in facts] == [compute_commitment(c.packet) for c in CLAIMS]
    with pytest.raises(Rejected):
        o.fold(o.Cursor(word(1), 0, word(1)), CLAIMS, prove(HEAD), b.EVM_LIMITS)


# ---- a long way, in parts


def walk_over(claims, every=2, cursor=START, proven=None):
    walk = o.Walk(cursor, every)
    for claim in claims:
        walk.take((claim,))
    return walk.finish(proven or prove(HEAD), b.EVM_LIMITS)


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 6, 7, 100])
def test_a_way_folded_part_by_part_gives_the_facts_of_one_fold(every):
    trail = walk_over(CLAIMS, every)
    assert [mark.sequence for mark in trail.marks] == [*range(every, 6, every), 6]
    assert trail.marks[-1] == o.Cursor(VAULT, 6, HEAD)
    cursor, facts = START, ()
    while (mark := o.get_next_mark(trail, cursor.sequence)) is not None:
        part = CLAIMS[cursor.sequence : mark.sequence]
        cursor, found = o.fold_part(cursor, part, trail, b.EVM_LIMITS)
        facts += found
    assert (cursor, facts) == fold(CLAIMS)


def test_a_part_may_begin_anywhere_on_record_and_ends_at_the_next_mark():
    trail = walk_over(CLAIMS, 4)
    middle, _ = fold(CLAIMS[:1], compute_head(CLAIMS[:1]))
    cursor, facts = o.fold_part(middle, CLAIMS[1:4], trail, b.EVM_LIMITS)
    assert (cursor, [f.sequence for f in facts]) == (trail.marks[0], [2, 3, 4])


@pytest.mark.parametrize("index", range(6))
def test_a_way_with_any_packet_changed_is_no_trail(index):
    changed = list(CLAIMS)
    packet = changed[index].packet
    changed[index] = o.Claim(replace(packet, timeout_timestamp=packet.timeout_timestamp + 1), changed[index].inbox)
    for wrong in (changed, CLAIMS[:index]):
        assert get_refusal(lambda wrong=wrong: walk_over(wrong)) == "head_mismatch"
    trail = walk_over(CLAIMS, 2)
    begin = index // 2 * 2
    cursor = o.Cursor(VAULT, begin, compute_head(CLAIMS[:begin]) if begin else VAULT)
    assert o.fold_part(cursor, CLAIMS[begin : begin + 2], trail, b.EVM_LIMITS)[0] == trail.marks[index // 2]
    for part in (changed[begin : begin + 2], CLAIMS[begin : begin + 1], CLAIMS[begin : begin + 3], []):
        if part != CLAIMS[begin : begin + 2]:
            assert get_refusal(lambda part=part: o.fold_part(cursor, part, trail, b.EVM_LIMITS)) == "head_mismatch"


def test_a_walk_refuses_what_does_not_follow_and_every_proof_that_a_fold_refuses():
    walk = o.Walk(START, 2)
    assert get_refusal(lambda: walk.take(CLAIMS[1:2])) == "bad_sequence"
    assert get_refusal(lambda: walk_over(CLAIMS, proven=prove(bytes(32)))) == "zero_head"
    assert get_refusal(lambda: walk_over(CLAIMS, proven=prove(HEAD, vault_id=word(7)))) == "wrong_vault"
    assert get_refusal(lambda: walk_over(CLAIMS, proven=prove(HEAD, tier=o.TrustTier(4)))) == "bad_proof"
    assert get_refusal(lambda: o.Walk(replace(START, head=bytes(32)), 2)) == "zero_head"


def test_a_trail_that_is_over_folds_nothing_more():
    trail = walk_over(CLAIMS)
    end = trail.marks[-1]
    assert o.get_next_mark(trail, 6) is None
    assert get_refusal(lambda: o.fold_part(end, [], trail, b.EVM_LIMITS)) == "head_mismatch"


ROTATION = b.RotateOperators(1, 3, NOW + 90_000, word(9), (bytes([1]) * 20, bytes([2]) * 20, bytes([3]) * 20))


def test_a_trail_knows_who_became_operator_on_the_way_and_nothing_else():
    claims = [*CLAIMS, make_ack_claim(7, 3, ROTATION), make_ack_claim(8, 4, ROTATION, status=2, reason=1), CLAIMS[5]]
    claims[8] = o.Claim(b.make_outbox_packet(VAULT, 9, NOW + 9, DEPOSIT))
    head = compute_head(claims)
    trail = walk_over(claims, 4, proven=prove(head))
    _, facts = fold(claims, head)
    assert trail.rotations == (facts[6],)
    assert [o.is_rotation(fact) for fact in facts] == [n == 7 for n in range(1, 10)]
    without = [*claims[:6], o.Claim(claims[6].packet), *claims[7:]]
    assert get_refusal(lambda: walk_over(without, proven=prove(head))) == "missing_inbox"


def test_rotations_without_end_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(o, "MAX_ROTATIONS", 2)
    claims = [make_ack_claim(n, n, ROTATION) for n in range(1, 4)]
    walk_over(claims[:2], proven=prove(compute_head(claims[:2])))
    assert get_refusal(lambda: walk_over(claims, proven=prove(compute_head(claims)))) == "size"
