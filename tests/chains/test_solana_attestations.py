"""Attestations for other stacks: published vectors, each negative beside its positive, every byte flipped."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.solana.attestations import (
    Applied,
    AttestationProof,
    AttestationsClient,
    PacketAttestation,
    PathEntry,
    StateAttestation,
    Tag,
    apply_update,
    compute_attestation_digest,
    decode_envelope_abi,
    decode_envelope_borsh,
    decode_envelope_protobuf,
    decode_packet_attestation,
    decode_state_attestation,
    encode_envelope_abi,
    encode_envelope_borsh,
    encode_envelope_protobuf,
    encode_packet_attestation,
    encode_state_attestation,
    freeze,
    sign_attestation,
    verify_client,
    verify_membership,
    verify_non_membership,
    verify_signatures,
)
from messages.digests import get_address
from messages.errors import Conflict, Rejected
from messages.hashing import keccak256

KEYS = [number.to_bytes(32, "big") for number in (1, 2, 3, 4)]
SET = tuple(get_address(key) for key in KEYS[:3])
CLIENT = AttestationsClient(SET, 2)
STATE = encode_state_attestation(StateAttestation(42, 1_700_000_000))
STATE_SIGNATURES = [
    "6f000f37496426ea874fb6a6211082de5e00ccaf8148f695dd58b3502c4fc448704ae838299f4d9771e4f1ece13202eeb135c78e65b0580572ef7b521fc0694f1c",
    "c3e69e33d32ef8cdc0937d17b752816ac90beccbf61da97b7795646c2ada2a886e8fb7f5ac633b667e29503ccde298b55279410ece444a18c8199e1767e209831c",
    "017a42d4e795ca3832ee3dbab65dbfdd520bd57a23474828443f8dce20f0490020f5b3b5cfdc844f02eac451a91189081a7c83b1eb2777d3727dfd19f7921c4d1c",
]
PATH = b"channel-0\x01" + (1).to_bytes(8, "big")
COMMITMENT = bytes.fromhex("b691a1950f6fb0bbbcf4bdb16fe2c4d0aa7ef783eb7803073f475cb8164d9b7a")
PACKET = encode_packet_attestation(PacketAttestation(42, (PathEntry(keccak256(PATH), COMMITMENT),)))
PACKET_SIGNATURES = [
    "06deab7840b9616ef766abaad61656e7517bef2e462d14d36cbed13ca4c802c93e93322521bce211a5af1502fb6d0716699a0db0a9770f054fca4f3b18159f291c",
    "d092f803e14ed340805670c3b682e1a5e853d4882d5dd1c744eda110f7dc70c60050f56d5765e8d4567fc0ad26e2fb7bf063abe833d58382315fab82bf72378c1b",
    "2a5bd96d5040bc20c8e76473eaf29cfa87a1033f2f4eabc1b1f6be6cf94587414ae00d5df746d3a6648861ea247203ed94228682f235156af221b5ff13d476671b",
]
RECEIPT_PATH = b"channel-1\x02" + (1).to_bytes(8, "big")
ABSENCE = encode_packet_attestation(PacketAttestation(42, (PathEntry(keccak256(RECEIPT_PATH), bytes(32)),)))
ENVELOPES = [
    (encode_envelope_abi, decode_envelope_abi),
    (encode_envelope_protobuf, decode_envelope_protobuf),
    (encode_envelope_borsh, decode_envelope_borsh),
]


def sign(tag, data, count=2):
    return AttestationProof(data, tuple(sign_attestation(key, tag, data) for key in KEYS[:count]))


def get_reason(check, *args):
    with pytest.raises(Rejected) as caught:
        check(*args)
    return caught.value.reason


def test_a_state_attestation_has_the_published_bytes_digest_and_signatures():
    assert sha256(STATE).hexdigest() == "d39c0b4d35934df86d8ff2241506e926360fdae90b921ef97f14c3dbe83b940a"
    digest = compute_attestation_digest(Tag.STATE, STATE)
    assert digest.hex() == "9f35b2ba2d300f9a61dadcef090ee5a80ba379dec95492f3427f9323969abc49"
    assert [sign_attestation(key, Tag.STATE, STATE).hex() for key in KEYS[:3]] == STATE_SIGNATURES
    assert decode_state_attestation(STATE) == StateAttestation(42, 1_700_000_000)


def test_a_packet_attestation_has_the_published_bytes_digest_and_signatures():
    assert keccak256(PATH).hex() == "f12abff5cdc0ca904de170332d1278d1002652e8bd9ed9e103cd2ae10d5465a7"
    assert sha256(PACKET).hexdigest() == "1e8dda577476ecda448296290cf0d7036ff6a187eb028dcea5f9b1e8a6434e07"
    digest = compute_attestation_digest(Tag.PACKET, PACKET)
    assert digest.hex() == "c41631019324b988b6a5111904439b8af30a44dc00f0a62266c268928904b2fe"
    assert [sign_attestation(key, Tag.PACKET, PACKET).hex() for key in KEYS[:3]] == PACKET_SIGNATURES
    assert decode_packet_attestation(PACKET) == PacketAttestation(42, (PathEntry(keccak256(PATH), COMMITMENT),))


def test_an_absence_has_the_published_digest_and_signature():
    assert keccak256(RECEIPT_PATH).hex() == "612f9ee1d9031c92db81e848ffee074b44e091c4968b352a7ea503edfc618c4a"
    digest = compute_attestation_digest(Tag.PACKET, ABSENCE)
    assert digest.hex() == "6c97a6c3655a725e4465f9943232560e108e97d4f44402758bd58e978bda853c"
    assert sign_attestation(KEYS[0], Tag.PACKET, ABSENCE).hex().startswith("0e7a28c83009b27fec743acec34073d9")


@pytest.mark.parametrize(
    ("encode", "size", "digest"),
    [
        (encode_envelope_abi, 672, "ec9314797e0438ef73374b902328aad3f5250f4293d2cbf7727dbaab2d066e47"),
        (encode_envelope_protobuf, 329, "95e5c99f0b1403d9469e9bff12a2db9da47e9b4606b7b21e765fb52f917c4e33"),
        (encode_envelope_borsh, 338, "8003ba7bb9ffa5632bb4b3ea6fe1d0edb2a660593636b39a04df050f7f7292cc"),
    ],
)
def test_the_envelopes_of_a_packet_attestation_have_their_published_digests(encode, size, digest):
    envelope = encode(sign(Tag.PACKET, PACKET))
    assert (len(envelope), sha256(envelope).hexdigest()) == (size, digest)


def test_the_envelopes_of_a_state_attestation_have_their_published_sizes_and_the_small_one_its_bytes():
    proof = sign(Tag.STATE, STATE)
    assert [len(encode(proof)) for encode, _ in ENVELOPES] == [544, 200, 210]
    small = AttestationProof(bytes([1, 2, 3]), (bytes([4, 5]), bytes([6])))
    assert encode_envelope_protobuf(small).hex() == "0a0301020312020405120106"
    assert encode_envelope_borsh(small).hex() == "03000000010203020000000200000004050100000006"


@pytest.mark.parametrize(("encode", "decode"), ENVELOPES)
def test_an_envelope_reads_back_and_no_flipped_byte_of_it_proves_the_same(encode, decode):
    envelope = encode(sign(Tag.STATE, STATE))
    assert decode(envelope) == sign(Tag.STATE, STATE)
    apply_update(CLIENT, decode(envelope))
    for at in range(len(envelope)):
        changed = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
        with pytest.raises(Rejected):
            apply_update(CLIENT, decode(changed))
    for longer in (envelope + b"\0", envelope[:-1], b"\0" + envelope, b""):
        with pytest.raises(Rejected):
            decode(longer)


@given(data=st.binary(max_size=300))
def test_a_reader_of_envelopes_refuses_or_gives_what_encodes_to_the_same_bytes(data):
    for encode, decode in ENVELOPES:
        with contextlib.suppress(Rejected):
            assert encode(decode(data)) == data


def test_two_of_three_make_a_height_known_and_one_does_not():
    client, applied = apply_update(CLIENT, sign(Tag.STATE, STATE))
    assert (applied, client.timestamps, client.latest_height) == (Applied.STORED, {42: 1_700_000_000}, 42)
    assert apply_update(client, sign(Tag.STATE, STATE)) == (client, Applied.NOTHING)
    assert get_reason(apply_update, CLIENT, sign(Tag.STATE, STATE, 1)) == "too_few"


def test_an_older_height_is_stored_and_does_not_lower_the_latest():
    client, _ = apply_update(CLIENT, sign(Tag.STATE, STATE))
    older = encode_state_attestation(StateAttestation(41, 1_699_999_990))
    client, applied = apply_update(client, sign(Tag.STATE, older))
    assert (applied, client.latest_height, sorted(client.timestamps)) == (Applied.STORED, 42, [41, 42])


def test_two_times_for_a_height_are_a_conflict_and_a_frozen_client_takes_nothing():
    client, _ = apply_update(CLIENT, sign(Tag.STATE, STATE))
    other = encode_state_attestation(StateAttestation(42, 1_700_000_001))
    with pytest.raises(Conflict) as caught:
        apply_update(client, sign(Tag.STATE, other))
    assert caught.value.reason == "two_times"
    assert get_reason(apply_update, freeze(client), sign(Tag.STATE, STATE)) == "frozen"


def test_one_bad_stranger_or_repeated_signature_spoils_the_proof():
    good = sign(Tag.STATE, STATE)
    stranger = sign_attestation(KEYS[3], Tag.STATE, STATE)
    three = (*good.signatures, stranger)
    assert get_reason(verify_signatures, CLIENT, Tag.STATE, replace(good, signatures=three)) == "unknown_signer"
    twice = (good.signatures[0], good.signatures[0])
    assert get_reason(verify_signatures, CLIENT, Tag.STATE, replace(good, signatures=twice)) == "repeated_signer"
    short = (good.signatures[0], good.signatures[1][:64])
    assert get_reason(verify_signatures, CLIENT, Tag.STATE, replace(good, signatures=short)) == "bad_signature"
    zero_and_one = tuple(s[:64] + bytes([s[64] - 27]) for s in good.signatures)
    verify_signatures(CLIENT, Tag.STATE, replace(good, signatures=zero_and_one))


def test_the_published_negatives_are_refused():
    high = "6f000f37496426ea874fb6a6211082de5e00ccaf8148f695dd58b3502c4fc4488fb517c7d660b2688e1b0e131ecdfd1009791558499848364ce2e33ab075d7f21b"
    good = sign(Tag.STATE, STATE)
    assert (
        get_reason(
            verify_signatures, CLIENT, Tag.STATE, replace(good, signatures=(bytes.fromhex(high), good.signatures[1]))
        )
        == "bad_signature"
    )
    wrong_tag = compute_attestation_digest(Tag.STATE, PACKET)
    assert wrong_tag.hex() == "dc8e2eb0739b9443ef0126249a89d8df1aa6707cc67d358016ef8383777bb854"
    client, _ = apply_update(CLIENT, good)
    under_state = sign(Tag.STATE, PACKET)
    assert get_reason(verify_membership, client, 42, under_state, PATH, COMMITMENT) == "unknown_signer"
    verify_membership(client, 42, sign(Tag.PACKET, PACKET), PATH, COMMITMENT)


def test_membership_needs_the_height_the_path_and_the_value():
    client, _ = apply_update(CLIENT, sign(Tag.STATE, STATE))
    proof = sign(Tag.PACKET, PACKET)
    assert get_reason(verify_membership, CLIENT, 42, proof, PATH, COMMITMENT) == "unknown_height"
    later, _ = apply_update(client, sign(Tag.STATE, encode_state_attestation(StateAttestation(43, 1_700_000_012))))
    assert get_reason(verify_membership, later, 43, proof, PATH, COMMITMENT) == "another_height"
    assert get_reason(verify_membership, client, 42, proof, RECEIPT_PATH, COMMITMENT) == "absent_path"
    assert get_reason(verify_membership, client, 42, proof, PATH, b"\1" * 32) == "wrong_commitment"
    assert get_reason(verify_membership, client, 42, proof, PATH, bytes(32)) == "zero_commitment"
    assert get_reason(verify_non_membership, client, 42, proof, PATH) == "wrong_commitment"
    verify_non_membership(client, 42, sign(Tag.PACKET, ABSENCE), RECEIPT_PATH)


def test_a_repeated_path_is_never_written_and_never_read():
    entry = PathEntry(keccak256(PATH), COMMITMENT)
    twice = PacketAttestation(42, (entry, PathEntry(entry.path, bytes(32))))
    assert get_reason(encode_packet_attestation, twice) == "repeated_path"
    raw = bytearray(encode_packet_attestation(PacketAttestation(42, (entry, PathEntry(bytes(32), COMMITMENT)))))
    raw[128 + 64 : 128 + 96] = entry.path
    assert get_reason(decode_packet_attestation, bytes(raw)) == "repeated_path"


@pytest.mark.parametrize(
    "client",
    [
        AttestationsClient((), 0),
        AttestationsClient(SET, 0),
        AttestationsClient(SET, 4),
        AttestationsClient((SET[0], SET[0]), 1),
        AttestationsClient((bytes(20),), 1),
    ],
)
def test_an_unsound_set_is_refused_at_start(client):
    assert get_reason(verify_client, client) == "bad_set"
    verify_client(CLIENT)


@pytest.mark.parametrize("attestation", [StateAttestation(0, 1), StateAttestation(1, 0), StateAttestation(2**64, 1)])
def test_zero_and_oversized_heights_and_times_are_refused(attestation):
    assert get_reason(encode_state_attestation, attestation) == "malformed"
    raw = attestation.height.to_bytes(32, "big") + attestation.timestamp_s.to_bytes(32, "big")
    assert get_reason(decode_state_attestation, raw) == "malformed"
