"""Bodies: one encoding each, strict decoders, limits before memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import bodies as b
from messages.errors import Rejected
from messages.hashing import keccak256
from tests.messages.builders import (
    EXECUTE,
    INBOX,
    OUTBOX,
    TRADE,
    TRADES,
    VAULT,
    b32,
    flip_each_bit,
    get_refusal,
    inbox_bodies,
    outbox_bodies,
    tuples,
    word,
)

LEG = "(uint8,bytes32,bytes32,int256)[]"
PRICE = "(bytes32,uint256)[]"


@pytest.mark.parametrize("cls", OUTBOX, ids=lambda c: c.__name__)
def test_an_outbox_body_decodes_to_itself_and_no_inbox_takes_it(cls):
    @settings(max_examples=40, deadline=None)
    @given(OUTBOX[cls])
    def check(body):
        value = b.encode_body(body)
        assert b.decode_outbox_body(value) == body
        with pytest.raises(Rejected) as why:
            b.decode_inbox_body(value, b.EVM_LIMITS)
        assert why.value.reason == "malformed"

    check()


@pytest.mark.parametrize("cls", INBOX, ids=lambda c: c.__name__)
def test_an_inbox_body_decodes_to_itself_and_no_outbox_takes_it(cls):
    @settings(max_examples=40, deadline=None)
    @given(INBOX[cls])
    def check(body):
        value = b.encode_body(body)
        assert b.decode_inbox_body(value, b.EVM_LIMITS) == body
        with pytest.raises(Rejected) as why:
            b.decode_outbox_body(value)
        assert why.value.reason == "malformed"

    check()


@settings(max_examples=50, deadline=None)
@given(INBOX[b.Execute])
def test_execute_is_what_an_independent_abi_library_gives(body):
    legs = [(leg.kind, leg.account, leg.id, leg.delta) for leg in body.legs]
    prices = [(p.series, p.price_e8) for p in body.prices]
    assert b.encode_body(body) == abi_encode(["uint16", "bytes32", PRICE, LEG], [32, body.plan_digest, prices, legs])


@settings(max_examples=30, deadline=None)
@given(INBOX[b.RotateOperators], OUTBOX[b.Ack])
def test_rotation_and_ack_are_what_an_independent_abi_library_gives(rotation, ack):
    types = ["uint16", "uint64", "uint8", "uint64", "bytes32", "address[]"]
    operators = ["0x" + o.hex() for o in rotation.operators]
    values = [35, rotation.epoch, rotation.threshold, rotation.effective, rotation.treasurer, operators]
    assert b.encode_body(rotation) == abi_encode(types, values)
    types = ["uint16", "uint64", "bytes32", "uint16", "uint8", "uint16", "uint256"]
    values = [16, ack.inbox_sequence, ack.inbox_commitment, ack.kind, ack.status, ack.reason, ack.bitmap]
    assert b.encode_body(ack) == abi_encode(types, values)


@settings(max_examples=30, deadline=None)
@given(OUTBOX[b.SeriesListed])
def test_a_series_id_is_the_hash_of_its_static_tuple(body):
    d = body.definition
    kinds = "(bytes32,uint64,uint256,uint8,bytes32,uint256,bytes32,uint32)"
    values = (
        d.underlying,
        d.expiry,
        d.strike_e8,
        d.right,
        d.quote_class,
        d.multiplier_e8,
        d.price_source,
        d.twap_seconds,
    )
    assert b.compute_series_id(d) == keccak256(abi_encode([kinds], [values]))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=700),
        st.integers(0, 40).flatmap(lambda k: st.binary(max_size=700).map(lambda t: word(k) + t)),
    )
)
def test_hostile_bytes_are_refused_or_are_the_one_encoding_of_what_they_give(value):
    for decode in (b.decode_outbox_body, lambda v: b.decode_inbox_body(v, b.EVM_LIMITS)):
        refusal = get_refusal(decode, value)
        assert refusal in {None, "malformed"}
        if refusal is None:
            assert b.encode_body(decode(value)) == value


@pytest.mark.parametrize("body", [TRADE, EXECUTE, TRADES], ids=lambda x: type(x).__name__)
def test_a9_every_bit_of_a_value_is_bound_or_refused(body):
    # Aztec Connect: a count outside what the proof binds. Here the counts are inside the value.
    decode = b.decode_outbox_body if body.KIND < 32 else lambda v: b.decode_inbox_body(v, b.EVM_LIMITS)
    refused = 0
    for changed in flip_each_bit(b.encode_body(body)):
        try:
            assert decode(changed) != body
        except Rejected:
            refused += 1
    assert refused


def test_a9_a_twin_that_does_not_compare_takes_a_second_encoding():
    def decode_like_twin(value: bytes) -> tuple[int, ...]:
        # trusts offset and count, ignores what else is there
        at = int.from_bytes(value[64:96], "big")
        count = int.from_bytes(value[at : at + 32], "big")
        return tuple(int.from_bytes(value[at + 32 + 96 * i : at + 64 + 96 * i], "big") for i in range(count))

    body = b.DecideWithdrawals(word(9), (b.WithdrawalItem(word(1), word(2), word(3)),))
    good = b.encode_body(body)
    padded = good + bytes(32)
    moved = good[:64] + word(128) + bytes(32) + good[96:]
    for second in (padded, moved):
        assert decode_like_twin(second) == decode_like_twin(good)
        with pytest.raises(Rejected):
            b.decode_inbox_body(second, b.EVM_LIMITS)


@pytest.mark.parametrize(("limits", "count"), [(b.EVM_LIMITS, 64), (b.COSMOS_LIMITS, 128), (b.SOLANA_LIMITS, 32)])
def test_as_many_legs_as_the_family_takes_and_not_one_more(limits, count):
    legs = tuple(b.Leg(0, word(i), word(1), 1) for i in range(count + 1))
    full = b.encode_body(b.Execute(word(9), (), legs[:count]))
    assert len(b.decode_inbox_body(full, limits).legs) == count
    with pytest.raises(Rejected) as why:
        b.decode_inbox_body(b.encode_body(b.Execute(word(9), (), legs)), limits)
    assert why.value.reason == "malformed"


def test_a_count_that_lies_is_refused_before_anything_is_built():
    head = word(33) + word(9) + word(0) + word(128)
    for count in (1, 256, 257, 2**32, 2**64, 2**256 - 1):
        with pytest.raises(Rejected) as why:
            b.decode_inbox_body(head + word(count), b.EVM_LIMITS)
        assert why.value.reason == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        replace(TRADE, nonce=2**64),
        replace(TRADE, quantity=-1),
        replace(TRADE, buyer=b"short"),
        replace(TRADE, cost=True),
        b.Paused(bytes(32)),
        replace(EXECUTE, legs=(b.Leg(256, word(1), word(1), 1),)),
        replace(EXECUTE, legs=(b.Leg(0, word(1), word(1), 2**255),)),
    ],
)
def test_a_field_that_does_not_fit_its_type_is_never_written(body):
    with pytest.raises(Rejected) as why:
        b.encode_body(body)
    assert why.value.reason == "range"


@settings(max_examples=50, deadline=None)
@given(tuples(st.tuples(st.integers(0, 1), b32, b32), 6))
def test_legs_are_sorted_exactly_when_their_keys_ascend_strictly(keys):
    legs = [b.Leg(*key, 1) for key in keys]
    assert b.is_sorted_legs(legs) == (sorted(set(keys)) == list(keys))


def test_an_inbox_packet_of_another_vault_is_not_ours():
    packet = b.make_inbox_packet(VAULT, 1, 5, b.Unpause())
    b.verify_inbox_packet(VAULT, packet)
    changed = [
        replace(packet, source_client="vault-0"),
        replace(packet, destination_client="x"),
        replace(packet, payloads=packet.payloads * 2),
        *(
            replace(packet, payloads=(replace(packet.payloads[0], **{name: "x"}),))
            for name in ("source_port", "destination_port", "version", "encoding")
        ),
    ]
    for bad in changed:
        with pytest.raises(Rejected) as why:
            b.verify_inbox_packet(VAULT, bad)
        assert why.value.reason == "bad_packet"


@settings(max_examples=30, deadline=None)
@given(outbox_bodies, inbox_bodies)
def test_made_packets_carry_the_fixed_names_and_a_day_of_life(out, inn):
    packet = b.make_outbox_packet(VAULT, 7, 1000, out)
    assert (packet.source_client, packet.destination_client) == ("optsettle-clearing", "vault-1111111111111111")
    assert packet.timeout_timestamp == 87_400
    packet = b.make_inbox_packet(VAULT, 7, 1000, inn)
    assert (packet.destination_client, packet.source_client) == ("optsettle-clearing", "vault-1111111111111111")
    assert packet.timeout_timestamp == 1000
