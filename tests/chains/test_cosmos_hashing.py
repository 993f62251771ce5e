"""What validators hash and sign, the strict protobuf, JSON and storage bytes: one value, one encoding."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import fields, replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import codec, hashing, protobuf
from chains.cosmos.protobuf import Field, Kind, decode_message, encode_varint
from chains.cosmos.types import (
    ZERO_TIME_NS,
    BlockId,
    Flag,
    Header,
    KeyType,
    PartSetHeader,
    Proof,
    ProofOp,
    PublicKey,
    Validator,
    ValidatorSet,
)
from messages.errors import Rejected
from tests.chains.cosmos_forge import GENESIS_NS, Forge, get_key, make_set

FORGE = Forge(((1, make_set(["ann", "ben", "k1a"])), (8, make_set({"ann": 7, "cat": 3}))))
BLOCK = FORGE.make_block(7, nil=["ben"])
HEADER = BLOCK.header


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


# ---- trees and hashes -------------------------------------------------------------------------------------------------


def compute_root_by_definition(leaves):
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(
        b"\1" + compute_root_by_definition(leaves[:split]) + compute_root_by_definition(leaves[split:])
    ).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_tree_is_the_one_of_its_recursive_definition(leaves):
    assert hashing.compute_merkle_root(leaves) == compute_root_by_definition(leaves)


def test_every_field_of_a_header_is_under_its_hash():
    before = hashing.compute_header_hash(HEADER)
    seen = {before}
    for field in fields(Header):
        value = getattr(HEADER, field.name)
        if isinstance(value, int):
            changed = value + 1
        elif isinstance(value, bytes):
            changed = value[:-1] + bytes([value[-1] ^ 1])
        elif isinstance(value, str):
            changed = value + "x"
        else:
            changed = BlockId(value.hash, PartSetHeader(value.parts.total + 1, value.parts.hash))
        seen.add(hashing.compute_header_hash(replace(HEADER, **{field.name: changed})))
    assert len(seen) == len(fields(Header)) + 1


def test_keys_kinds_powers_and_order_are_under_a_sets_hash():
    a, b = Validator(get_key("ann"), 5), Validator(get_key("ben"), 5)
    sets = [
        (a, b),
        (b, a),
        (a,),
        (a, b, b),
        (Validator(a.key, 6), b),
        (Validator(get_key("cat"), 5), b),
        (Validator(PublicKey(KeyType.SECP256K1, a.key.data), 5), b),
        (),
    ]
    assert len({hashing.compute_validators_hash(ValidatorSet(members)) for members in sets}) == len(sets)


def test_every_word_of_a_vote_is_under_its_sign_bytes_and_nil_names_no_block():
    vote = ["chain", 2, 5, 1, BlockId(b"h" * 32, PartSetHeader(1, b"p" * 32)), GENESIS_NS]
    other = ["chaim", 1, 6, 2, BlockId(b"i" * 32, PartSetHeader(1, b"p" * 32)), GENESIS_NS + 1]
    seen = {hashing.encode_vote(*vote)}
    for i, value in enumerate(other):
        seen.add(hashing.encode_vote(*vote[:i], value, *vote[i + 1 :]))
    seen.add(hashing.encode_vote(*vote[:4], None, GENESIS_NS))
    assert len(seen) == 8
    encoder = hashing.VoteEncoder(HEADER.chain_id, BLOCK.commit)
    commit = BLOCK.commit
    for flag, block_id in ((Flag.COMMIT, commit.block_id), (Flag.NIL, None)):
        whole = hashing.encode_vote(HEADER.chain_id, 2, commit.height, commit.round, block_id, GENESIS_NS)
        assert encoder.encode(flag, GENESIS_NS) == whole


def test_an_empty_block_id_still_has_its_part_set_header():
    assert protobuf.encode_block_id(BlockId()) == bytes.fromhex("1200")


# ---- protobuf ---------------------------------------------------------------------------------------------------------

SCHEMA = {
    1: Field("number", Kind.UNSIGNED),
    2: Field("text", Kind.TEXT),
    3: Field("items", Kind.MESSAGE, repeated=True),
    4: Field("packed", Kind.PACKED),
    5: Field("signed", Kind.SIGNED),
}


def test_a_message_in_canonical_form_is_read_and_absent_fields_are_zero():
    data = bytes.fromhex("0805" + "12026162" + "1a00" + "1a0101" + "220305ac02" + "28ffffffffffffffffff01")
    assert decode_message(data, SCHEMA) == {
        "number": 5,
        "text": "ab",
        "items": (b"", b"\1"),
        "packed": (5, 300),
        "signed": -1,
    }
    assert decode_message(b"", SCHEMA) == {"number": 0, "text": "", "items": (), "packed": (), "signed": 0}


@pytest.mark.parametrize(
    "data",
    [
        "0800",  # zero spelled out
        "1200",  # empty text spelled out
        "080508050805",  # twice
        "12016108 05",  # out of order
        "088500",  # a number in more bytes than it needs
        "08ffffffffffffffffff02",  # over 64 bits
        "08ffffffffffffffffffff01",
        "0d05000000",  # another wire type
        "0a0105",
        "3005",  # unknown
        "0005",  # field zero
        "120561",  # cut off
        "08",
        "1201ff",  # not UTF-8
        "2201ac",  # cut off inside a packed list
    ],
)
def test_any_other_form_of_a_message_is_refused(data):
    assert refuse(lambda: decode_message(bytes.fromhex(data), SCHEMA)) == "bad_protobuf"


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_read_or_refused_and_what_is_read_has_one_form(data):
    try:
        header = protobuf.decode_header(data)
    except Rejected:
        pass
    else:
        assert protobuf.encode_header(header) == data
    for decode in (codec.decode_update, codec.decode_trusted, codec.decode_proof, protobuf.decode_validators):
        with contextlib.suppress(Rejected):  # any other exception is a bug
            decode(b"\1" + data)


@given(st.integers(min_value=-(2**63), max_value=2**64 - 1))
@settings(deadline=None)
def test_a_varint_reads_back_as_the_64_bits_it_is(number):
    data = encode_varint(number)
    assert protobuf.read_varint(data, 0) == (number % 2**64, len(data))


def test_times_before_1970_and_nanoseconds_survive():
    for time_ns in (ZERO_TIME_NS, -1, 0, 1, GENESIS_NS + 123_456_789):
        assert protobuf.decode_timestamp(protobuf.encode_timestamp(time_ns)) == time_ns
    assert refuse(lambda: protobuf.decode_timestamp(bytes.fromhex("1080 94ebdc03"))) == "bad_protobuf"


def test_a_key_of_two_kinds_or_none_is_refused():
    one = protobuf.encode_public_key(get_key("ann"))
    two = one + protobuf.encode_public_key(get_key("k1a"))
    assert protobuf.decode_public_key(one) == get_key("ann")
    assert refuse(lambda: protobuf.decode_public_key(two)) == "bad_protobuf"
    assert refuse(lambda: protobuf.decode_public_key(b"")) == "bad_protobuf"


# ---- storage ----------------------------------------------------------------------------------------------------------


def test_stored_objects_read_back_and_have_one_form():
    trusted = FORGE.make_trusted(7)
    proof = Proof((ProofOp("ics23:iavl", b"k", b"d"), ProofOp("ics23:simple", b"s", b"")))
    for encode, decode, value in (
        (codec.encode_update, codec.decode_update, BLOCK),
        (codec.encode_trusted, codec.decode_trusted, trusted),
        (codec.encode_trusted, codec.decode_trusted, replace(trusted, next_validators=None)),
        (codec.encode_proof, codec.decode_proof, proof),
    ):
        data = encode(value)
        assert decode(data) == value
        assert refuse(lambda d=data, f=decode: f(d[:-1])) == "bad_protobuf"
        assert refuse(lambda d=data, f=decode: f(d + b"\0")) == "bad_protobuf"
        assert refuse(lambda d=data, f=decode: f(b"\2" + d[1:])) == "bad_protobuf"
        assert refuse(lambda f=decode: f(b"\1" * (5 << 20))) == "size"


def test_too_many_steps_of_a_proof_are_refused():
    ops = tuple(ProofOp("x", b"k", b"d") for _ in range(codec.MAX_OPS + 1))
    assert codec.decode_proof(codec.encode_proof(Proof(ops[1:])))
    assert refuse(lambda: codec.decode_proof(codec.encode_proof(Proof(ops)))) == "size"


# ---- JSON -------------------------------------------------------------------------------------------------------------


def to_time(time_ns: int) -> str:
    seconds, nanos = divmod(time_ns - GENESIS_NS, 10**9)
    minutes, seconds = divmod(seconds + 20, 60)  # GENESIS is 2023-11-14T22:13:20Z
    return f"2023-11-14T22:{13 + minutes:02}:{seconds:02}.{nanos:09}Z"


def to_id(block_id: BlockId):
    return {
        "hash": block_id.hash.hex().upper(),
        "parts": {"total": block_id.parts.total, "hash": block_id.parts.hash.hex().upper()},
    }


def to_json(block):
    header = block.header
    names = {"last_commit_hash", "data_hash", "validators_hash", "next_validators_hash", "consensus_hash", "app_hash"}
    names |= {"last_results_hash", "evidence_hash", "proposer_address"}
    return {
        "header": {
            "version": {"block": "11"},
            "chain_id": header.chain_id,
            "height": str(header.height),
            "time": to_time(header.time_ns),
            "last_block_id": to_id(header.last_block_id),
            **{name: getattr(header, name).hex().upper() for name in names},
        },
        "commit": {
            "height": str(block.commit.height),
            "round": block.commit.round,
            "block_id": to_id(block.commit.block_id),
            "signatures": [
                {
                    "block_id_flag": vote.flag,
                    "validator_address": vote.address.hex().upper(),
                    "timestamp": to_time(vote.time_ns),
                    "signature": base64.b64encode(vote.signature).decode(),
                }
                for vote in block.commit.signatures
            ],
        },
    }


def to_json_set(members):
    names = {KeyType.ED25519: "tendermint/PubKeyEd25519", KeyType.SECP256K1: "tendermint/PubKeySecp256k1"}
    return [
        {
            "address": hashing.compute_address(member.key).hex().upper(),
            "pub_key": {"type": names[member.key.kind], "value": base64.b64encode(member.key.data).decode()},
            "voting_power": str(member.power),
            "proposer_priority": "-3",
        }
        for member in members.validators
    ]


def parse():
    return json.loads(json.dumps([to_json(BLOCK), to_json_set(BLOCK.validators), to_json_set(BLOCK.next_validators)]))


def test_what_a_node_answers_becomes_the_block():
    assert codec.parse_light_block(*parse()) == BLOCK


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((0, "header", "height"), "07"),
        ((0, "header", "height"), "1e3"),
        ((0, "header", "height"), str(2**63)),
        ((0, "header", "height"), True),
        ((0, "header", "height"), 7.0),
        ((0, "header", "time"), "2023-11-14T22:13:20+00:00"),
        ((0, "header", "time"), "2023-13-14T22:13:20Z"),
        ((0, "header", "time"), "2023-11-14T22:13:20.1234567890Z"),
        ((0, "header", "chain_id"), None),
        ((0, "header", "app_hash"), "0x00"),
        ((0, "header", "app_hash"), "abc"),
        ((0, "header", "version"), {"block": "-1"}),
        ((0, "header"), []),
        ((0, "commit", "signatures"), {}),
        ((0, "commit", "signatures", 0, "signature"), "not base64"),
        ((0, "commit", "signatures", 0, "signature"), "QUJ="),
        ((0, "commit", "block_id", "parts", "total"), 2**32),
        ((1, 0, "pub_key", "type"), "tendermint/PubKeySr25519"),
        ((1, 0, "voting_power"), "9" * 19),
    ],
)
def test_an_answer_of_another_shape_is_refused(path, value):
    answer = parse()
    target = answer
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert refuse(lambda: codec.parse_light_block(*answer)) == "bad_json"


def test_an_address_that_is_not_the_keys_is_refused():
    """F6: redundant fields that disagree."""
    answer = parse()
    answer[1][0]["address"] = answer[1][1]["address"]
    assert refuse(lambda: codec.parse_light_block(*answer)) == "address_mismatch"


def test_a_store_proof_of_a_node_is_read_and_limited():
    op = {"type": "ics23:iavl", "key": base64.b64encode(b"k").decode(), "data": base64.b64encode(b"d").decode()}
    assert codec.parse_proof({"ops": [op]}) == Proof((ProofOp("ics23:iavl", b"k", b"d"),))
    assert refuse(lambda: codec.parse_proof({"ops": [op] * 9})) == "bad_json"
    assert refuse(lambda: codec.parse_proof({"ops": [{**op, "type": 5}]})) == "bad_json"
    assert codec.parse_proof({"ops": None}) == Proof(())
