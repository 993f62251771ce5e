"""Gossip envelopes: one encoding, every bit signed, replays are a value."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import wire as w
from messages.digests import sign_digest
from messages.hashing import keccak256
from tests.messages.builders import EDGE_SEQUENCES, KEYS, OPERATORS, flip_each_bit, get_refusal, word

COMMITTEE = word(42)


def sign(envelope: w.Envelope, key: bytes = KEYS[0], committee: bytes = COMMITTEE) -> w.Envelope:
    return replace(envelope, signature=sign_digest(key, w.compute_envelope_digest(envelope, committee)))


PLAIN = w.Envelope(OPERATORS[0], 7, 1, "vote", b'{"k":1}')
GOOD = sign(PLAIN)


def verify(envelope, operators=OPERATORS[:4], committee=COMMITTEE):
    return get_refusal(w.verify_envelope, envelope, operators, committee)


def test_an_envelope_comes_back_and_its_operator_is_believed():
    assert w.decode_envelope(w.encode_envelope(GOOD)) == GOOD
    assert verify(GOOD) is None


def test_an_envelope_is_worth_nothing_elsewhere():
    assert verify(GOOD, committee=word(43)) == "bad_signature"
    assert verify(GOOD, operators=OPERATORS[1:4]) == "not_operator"
    assert verify(sign(PLAIN, KEYS[1])) == "bad_signature"
    assert verify(replace(GOOD, operator=OPERATORS[1])) == "bad_signature"


@pytest.mark.parametrize(
    "change", [{"boot_id": 8}, {"sequence": 2}, {"type": "plan"}, {"body": b'{"k":2}'}, {"operator": OPERATORS[1]}]
)
def test_c6_every_field_of_an_envelope_is_signed(change):
    changed = replace(PLAIN, **change)
    assert w.compute_envelope_digest(changed, COMMITTEE) != w.compute_envelope_digest(PLAIN, COMMITTEE)


def test_a9_every_bit_of_an_envelope_is_bound():
    # Aztec Connect: a field outside the digest could be chosen. Every flipped bit must fail to decode or to verify.
    verdicts = set()
    for changed in flip_each_bit(w.encode_envelope(GOOD)):
        verdict = get_refusal(w.decode_envelope, changed) or verify(w.decode_envelope(changed))
        assert verdict in {"bad_envelope", "bad_signature", "not_operator"}
        verdicts.add(verdict)
    assert len(verdicts) == 3


def test_a9_a_twin_that_signs_the_body_alone_leaves_bits_free():
    def compute_like_twin(envelope):
        return keccak256(envelope.body)

    free = 0
    for changed in flip_each_bit(w.encode_envelope(GOOD)):
        if get_refusal(w.decode_envelope, changed) is None:
            free += compute_like_twin(w.decode_envelope(changed)) == compute_like_twin(GOOD)
    assert free > 8 * 20


def test_c5_type_and_body_can_not_lend_each_other_bytes():
    text = b"votepayload"
    digests = {
        w.compute_envelope_digest(replace(PLAIN, type=text[:i].decode(), body=text[i:]), COMMITTEE)
        for i in range(1, len(text) + 1)
    }
    twins = {keccak256(text[:i] + text[i:]) for i in range(1, len(text) + 1)}
    assert len(digests) == len(text)
    assert len(twins) == 1


@pytest.mark.parametrize("number", EDGE_SEQUENCES)
def test_boots_and_sequences_at_the_edges_of_number_types_survive(number):
    envelope = sign(replace(PLAIN, boot_id=number, sequence=number))
    assert w.decode_envelope(w.encode_envelope(envelope)) == envelope
    assert verify(envelope) is None


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 0}, {"sequence": 2**64}, {"boot_id": -1}, {"boot_id": 2**64}, {"type": ""}, {"type": "x" * 33},
        {"type": "é"}, {"type": "a\n"}, {"operator": bytes(19)}, {"signature": b""}, {"signature": bytes(64)},
    ],
)  # fmt: skip
def test_an_envelope_out_of_shape_is_not_written(change):
    assert get_refusal(w.encode_envelope, replace(GOOD, **change)) == "bad_envelope"


def splice(parts):
    at, junk = parts
    data = w.encode_envelope(GOOD)
    return data[:at] + junk + data[at + len(junk) :]


spliced = st.tuples(st.integers(0, 200), st.binary(max_size=4)).map(splice)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), spliced))
def test_hostile_bytes_are_refused_or_are_the_one_encoding(data):
    refusal = get_refusal(w.decode_envelope, data)
    assert refusal in {None, "bad_envelope"}
    if refusal is None:
        assert w.encode_envelope(w.decode_envelope(data)) == data


@pytest.mark.parametrize("version", [v for v in range(256) if v != w.WIRE_VERSION])
def test_a10_every_unknown_version_is_refused(version):
    assert get_refusal(w.decode_envelope, bytes([version]) + w.encode_envelope(GOOD)[1:]) == "bad_envelope"


def test_size_is_judged_first_and_on_both_sides():
    full = sign(replace(PLAIN, body=bytes(w.MAX_ENVELOPE_BYTES - 111)))
    data = w.encode_envelope(full)
    assert len(data) == w.MAX_ENVELOPE_BYTES
    assert w.decode_envelope(data) == full
    assert get_refusal(w.encode_envelope, replace(full, body=full.body + b"\0")) == "size"
    assert get_refusal(w.decode_envelope, data + b"\0") == "size"
    assert get_refusal(w.decode_envelope, data, 1000) == "size"


def at(sequence, boot=7, operator=OPERATORS[0]):
    return w.Envelope(operator, boot, sequence, "vote", b"")


def test_g7_a_replayed_envelope_is_a_duplicate_for_ever():
    guard, verdict = w.ReplayGuard().record(GOOD)
    assert verdict is w.FRESH
    for _ in range(1_000):
        guard, verdict = guard.record(GOOD)
        assert verdict is w.DUPLICATE


def test_each_operator_has_its_own_numbers_and_a_new_boot_starts_again():
    guard = w.ReplayGuard()
    for envelope in (at(5), at(5, operator=OPERATORS[1]), at(1, boot=8)):
        guard, verdict = guard.record(envelope)
        assert verdict is w.FRESH
    for envelope in (at(6, boot=7), at(1, boot=8), at(5, operator=OPERATORS[1])):
        guard, verdict = guard.record(envelope)
        assert verdict is w.DUPLICATE


def test_below_the_window_counts_as_seen_and_inside_it_each_number_passes_once():
    guard, _ = w.ReplayGuard(window=4).record(at(10))
    assert guard.record(at(6))[1] is w.DUPLICATE
    for sequence in (7, 9, 8):
        guard, verdict = guard.record(at(sequence))
        assert verdict is w.FRESH
        assert guard.record(at(sequence))[1] is w.DUPLICATE


@pytest.mark.parametrize("jump", [1, 3, 4, 5, 2**40, 2**64 - 11])
def test_a_jump_ahead_forgets_nothing_it_should_know(jump):
    guard, _ = w.ReplayGuard(window=4).record(at(10))
    guard, verdict = guard.record(at(10 + jump))
    assert verdict is w.FRESH
    assert guard.record(at(10))[1] is w.DUPLICATE
    assert guard.record(at(10 + jump))[1] is w.DUPLICATE
    assert guard.seen[OPERATORS[0]][2] < 2**4


def test_shuffled_and_repeated_each_number_is_fresh_exactly_once():
    rng = random.Random(21)
    numbers = [n for n in range(1, 101) for _ in range(rng.randrange(1, 6))]
    rng.shuffle(numbers)
    guard, fresh = w.ReplayGuard(), []
    for n in numbers:
        guard, verdict = guard.record(at(n))
        if verdict is w.FRESH:
            fresh.append(n)
    assert sorted(fresh) == list(range(1, 101))


def test_recording_leaves_the_old_guard_as_it_was():
    first = w.ReplayGuard()
    second, _ = first.record(GOOD)
    assert first.seen == {}
    assert second.record(GOOD) == (second, w.DUPLICATE)
