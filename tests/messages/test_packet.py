"""IBC v2 packets: published vectors, three strict encodings, paths and the traps of the texts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import packet as p
from messages.errors import Rejected
from messages.hashing import keccak256, sha256
from tests.messages.builders import EDGE_SEQUENCES, flip_each_bit, get_refusal, packets

JSON_VALUE = b'{"denom":"uatom","amount":"1000000","sender":"sender","receiver":"receiver","memo":"memo"}'
ABI_VALUE = abi_encode(["(string,string,string,uint256,string)"], [("uatom", "sender", "receiver", 1_000_000, "memo")])
JSON = p.Payload("transfer", "transfer", "ics20-1", "application/json", JSON_VALUE)
ABI = p.Payload("transfer", "transfer", "ics20-1", "application/x-solidity-abi", ABI_VALUE)
GMP = p.Payload("gmp", "gmp", "gmp-1", "application/octet-stream", b"callback_data")
P1 = p.Packet(1, "07-tendermint-0", "07-tendermint-1", 100, (JSON,))
P3 = p.Packet(1, "channel-0", "channel-1", 100, (ABI,))
ENCODINGS = {
    "abi": (p.encode_packet_abi, p.decode_packet_abi),
    "protobuf": (p.encode_packet_protobuf, p.decode_packet_protobuf),
    "borsh": (p.encode_packet_borsh, p.decode_packet_borsh),
}
every_encoding = pytest.mark.parametrize("name", ENCODINGS)


@pytest.mark.parametrize(
    ("packet", "commitment"),
    [
        (P1, "a096722aa6534040a0efbdae05765132a7b223ad306d6512f3734821bd046505"),
        (replace(P1, payloads=(ABI,)), "d408dca5088b9b375edb3c4df6bae0e18084fc0dbd90fcd0d028506553c81b25"),
        (P3, "b691a1950f6fb0bbbcf4bdb16fe2c4d0aa7ef783eb7803073f475cb8164d9b7a"),
        (replace(P1, payloads=(JSON, GMP)), "8271343058fadd1fee7dd4e7baf054a05eb371c006cdf501357bbd01d5de278a"),
        (replace(P1, payloads=(GMP, JSON)), "66d3a53ce6ac60bd2df1eab114f9ecc850b683226a9f066b269e7f23ead64010"),
    ],
    ids=["P1", "P2", "P3", "P4", "P5"],
)
def test_published_commitments_come_out(packet, commitment):
    assert p.compute_commitment(packet).hex() == commitment


def test_a_little_endian_timeout_gives_the_value_that_must_not_match():
    def compute_like_twin(packet):
        timeout = packet.timeout_timestamp.to_bytes(8, "little")
        payload_hashes = sha256(b"".join(map(p.compute_payload_hash, packet.payloads)))
        return sha256(b"\x02" + sha256(packet.destination_client.encode()) + sha256(timeout) + payload_hashes)

    wrong = "ef75ed4f75423e3cc71c5a6a4d782c24a074a38454b996d20ce915cbe67466b4"
    assert compute_like_twin(P1).hex() == wrong
    assert p.compute_commitment(P1).hex() != wrong


@pytest.mark.parametrize(
    ("acks", "commitment"),
    [
        ([b"some bytes"], "f03b4667413e56aaf086663267913e525c442b56fa1af4fa3f3dab9f37044c5b"),
        ([p.UNIVERSAL_ERROR_ACK], "e2fb30dfbf7abdeaca82d426534d2b3a9d5444dd2a87fa16d38b77ba1a13ced7"),
        ([b"success", b"transfer_complete"], "8fbf92755d8b640c5d3aee36358b6c5e055247eea933b78c6453d56f35e1fe3b"),
        ([b"transfer_complete", b"success"], "d9eff056db9d944d8dfb9d38262573bbee1cd40ac17dd09098dac232e6d5a956"),
    ],
)
def test_published_ack_commitments_come_out(acks, commitment):
    assert p.compute_ack_commitment(acks).hex() == commitment
    assert p.decode_ack_protobuf(p.encode_ack_protobuf(acks)) == tuple(acks)


def test_no_acknowledgement_is_no_acknowledgement():
    for call in (p.compute_ack_commitment, p.encode_ack_protobuf):
        with pytest.raises(Rejected) as why:
            call([])
        assert why.value.reason == "bad_ack"
    with pytest.raises(Rejected):
        p.decode_ack_protobuf(b"")


@pytest.mark.parametrize(
    ("path", "key", "slot"),
    [
        (
            p.get_packet_commitment_path("channel-0", 1),
            "f12abff5cdc0ca904de170332d1278d1002652e8bd9ed9e103cd2ae10d5465a7",
            "159ac19e1a188a1143a006ecbbdce0e626c08665252d035c98633a7286456057",
        ),
        (
            p.get_packet_receipt_path("channel-1", 2),
            "3fd10d1f3b200d6379fdde314db45ed883c09ea2415c6057fa27f6e31dd2f919",
            "ab42385f2ce7e8380d5a3f61cad9eb1f744b079aaf09b9070281f38d3c215032",
        ),
        (
            p.get_packet_ack_path("channel-2", 3),
            "bf0bb0132a7cd36dbf8a591c499342a951c4e53870ecbe3e02547ece7a858aff",
            "a7d121d96c2b5a7c1b894cef0f2fe6f625f3625238310da68ffc63955c17bc02",
        ),
    ],
)
def test_paths_map_to_their_keys_and_slots(path, key, slot):
    assert keccak256(path).hex() == key
    assert p.compute_evm_storage_slot(path).hex() == slot


def test_path_bytes_are_one_for_commitment_two_for_receipt_three_for_ack():
    assert p.get_packet_commitment_path("channel-0", 2**63 + 5).hex() == "6368616e6e656c2d30018000000000000005"
    assert p.get_packet_receipt_path("channel-1", 2).hex() == "6368616e6e656c2d31020000000000000002"
    assert p.get_packet_ack_path("channel-2", 3).hex() == "6368616e6e656c2d32030000000000000003"


def test_sequence_zero_and_more_than_a_u64_have_no_path():
    for sequence in (0, -1, 2**64):
        with pytest.raises(Rejected):
            p.get_packet_commitment_path("channel-0", sequence)


def test_receipts_of_p3_come_out():
    assert p.compute_evm_receipt(P3).hex() == "a62b6efdd8ab1a34131bdb7037e3ec86d6972398d1358ac8ddef2d9862f0924a"
    assert p.compute_solana_receipt(P3).hex() == "698d7f02062510936556a1040743f6d238d35c46f1f662715674604d3861d344"
    assert p.COSMOS_RECEIPT == b"\x02"


@every_encoding
def test_a_packet_decodes_to_itself(name):
    encode, decode = ENCODINGS[name]

    @settings(max_examples=60, deadline=None)
    @given(packets)
    def check(packet):
        assert decode(encode(packet)) == packet

    check()


@settings(max_examples=40, deadline=None)
@given(packets)
def test_the_abi_form_is_what_an_independent_library_gives(packet):
    rows = [(x.source_port, x.destination_port, x.version, x.encoding, x.value) for x in packet.payloads]
    values = (packet.sequence, packet.source_client, packet.destination_client, packet.timeout_timestamp, rows)
    kind = "(uint64,string,string,uint64,(string,string,string,string,bytes)[])"
    assert p.encode_packet_abi(packet) == abi_encode([kind], [values])


@every_encoding
@pytest.mark.parametrize("sequence", EDGE_SEQUENCES)
def test_sequences_at_the_edges_of_number_types_survive(name, sequence):
    encode, decode = ENCODINGS[name]
    packet = replace(P3, sequence=sequence, timeout_timestamp=sequence)
    assert decode(encode(packet)) == packet


@every_encoding
@pytest.mark.parametrize("sequence", [0, -1, 2**64])
def test_sequences_outside_a_u64_are_refused(name, sequence):
    with pytest.raises(Rejected) as why:
        ENCODINGS[name][0](replace(P3, sequence=sequence))
    assert why.value.reason == "bad_packet"


def get_identity(packet):
    return packet.source_client, packet.sequence, p.compute_commitment(packet)


@every_encoding
def test_every_flipped_bit_gives_another_packet_or_none(name):
    encode, decode = ENCODINGS[name]
    refused = 0
    for changed in flip_each_bit(encode(replace(P3, payloads=(GMP,)))):
        try:
            other = decode(changed)
        except Rejected:
            refused += 1
        else:
            assert get_identity(other) != get_identity(replace(P3, payloads=(GMP,)))
    assert refused


def decode_without_frames(data):
    return p._compare(packet := p._decode_whole(data), p._encode_whole(packet), data)


def test_a_remembered_frame_decides_as_a_look_at_every_field():
    # once seen, the texts are not read again: whatever is changed in them, or around the three words between, must still show
    good = p.encode_packet_abi(replace(P3, payloads=(GMP,)))
    assert p.decode_packet_abi(good) == decode_without_frames(good)
    accepted = 0
    for changed in [*flip_each_bit(good), good[:-32], good + bytes(32), good[:-1]]:
        try:
            expected = decode_without_frames(changed)
            p.verify_packet_limits(expected)
        except Rejected:
            expected = None
        if expected is None:
            assert get_refusal(p.decode_packet_abi, changed) in {"malformed", "bad_packet"}
        else:
            accepted += 1
            assert p.decode_packet_abi(changed) == expected
    assert accepted > 64


@every_encoding
def test_hostile_bytes_are_refused_or_are_the_one_encoding(name):
    encode, decode = ENCODINGS[name]

    def splice(parts):
        packet, at, junk = parts
        data = encode(packet)
        return data[:at] + junk + data[at + len(junk) :]

    spliced = st.tuples(packets, st.integers(0, 500), st.binary(max_size=8)).map(splice)

    @settings(max_examples=150, deadline=None)
    @given(st.one_of(st.binary(max_size=300), spliced))
    def check(data):
        refusal = get_refusal(decode, data)
        assert refusal in {None, "malformed", "bad_packet"}
        if refusal is None:
            assert encode(decode(data)) == data

    check()


@every_encoding
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x2a", b"\x2a\x00", b"\x80"])
def test_a_mebibyte_of_anything_is_refused_by_its_size(name, fill):
    with pytest.raises(Rejected) as why:
        ENCODINGS[name][1](fill * (1_048_576 // len(fill)))
    assert why.value.reason == "size"


@every_encoding
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x2a\x00", b"\x80", b"\x00" * 31 + b"\x20"])
def test_the_largest_input_that_passes_the_size_check_is_refused_all_the_same(name, fill):
    with pytest.raises(Rejected):
        ENCODINGS[name][1](fill * (p.MAX_PACKET_BYTES // len(fill)))


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("unknown field", lambda d: d + b"\x30\x01"),
        ("default written out", lambda d: b"\x08\x00" + d[2:]),
        ("long varint", lambda d: b"\x08\x81\x00" + d[2:]),
        ("sequence twice", lambda d: b"\x08\x02" + d),
        ("fields out of order", lambda d: d[2:] + d[:2]),
        ("wrong wire type", lambda d: b"\x09" + d[1:]),
        ("cut off", lambda d: d[:-1]),
    ],
)
def test_protobuf_has_one_form_only(why, change):
    data = p.encode_packet_protobuf(P1)
    assert data[:2] == b"\x08\x01"
    with pytest.raises(Rejected):
        p.decode_packet_protobuf(change(data))


def test_limits_of_a_packet_hold_both_ways():
    good = replace(P3, payloads=(replace(GMP, value=bytes(p.MAX_VALUE_BYTES)),))
    assert p.decode_packet_borsh(p.encode_packet_borsh(good)) == good
    for bad in (
        replace(P3, payloads=(replace(GMP, value=bytes(p.MAX_VALUE_BYTES + 1)),)),
        replace(P3, payloads=()),
        replace(P3, payloads=(GMP,) * (p.MAX_PAYLOADS + 1)),
        replace(P3, source_client="x" * 129),
        replace(P3, destination_client="\ud800"),
    ):
        for encode, _ in ENCODINGS.values():
            with pytest.raises(Rejected) as why:
                encode(bad)
            assert why.value.reason == "bad_packet"


def test_a11_two_hundred_encodings_of_one_packet_settle_once():
    # Polygon Plasma: the exit id contained an encoding that the attacker chose. The twin's key does, ours does not.
    data = p.encode_packet_protobuf(P1)
    variants = (
        {data}
        | {data + bytes([0x30]) + bytes([i]) for i in range(1, 100)}
        | {bytes([8, 0x81]) + b"\x80" * i + b"\x00" + data[2:] for i in range(100)}
    )
    assert len(variants) == 200
    twin_keys = {keccak256(v) for v in variants}
    ours = set()
    for variant in variants:
        try:
            ours.add(get_identity(p.decode_packet_protobuf(variant)))
        except Rejected:
            continue
    assert len(twin_keys) == 200
    assert len(ours) == 1


def test_c5_no_split_of_neighbouring_fields_gives_the_same_commitment():
    # MAP: packed encoding of neighbouring dynamic fields. The twin joins raw fields and collides, ours hashes each.
    def compute_like_twin(x):
        return sha256((x.source_port + x.destination_port + x.version + x.encoding).encode() + x.value)

    rng = random.Random(5)
    text = "transfertransferics20-1application/json" + "payload"
    ours, twins, seen = set(), set(), set()
    for _ in range(5_000):
        a, b, c, d = sorted(rng.randrange(len(text) + 1) for _ in range(4))
        payload = p.Payload(text[:a], text[a:b], text[b:c], text[c:d], text[d:].encode())
        if (a, b, c, d) not in seen:
            seen.add((a, b, c, d))
            twins.add(compute_like_twin(payload))
            ours.add(p.compute_commitment(p.Packet(1, "a", "b", 1, (payload,))))
    assert len(ours) == len(seen)
    assert len(twins) == 1
