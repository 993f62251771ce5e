"""BLS, SSZ and JSON of the light client: what goes out comes back, and hostile bytes give a named refusal and nothing else."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from chains.evm import beacon_json as bj
from chains.evm import bls, ssz
from chains.evm.forks import FAR_FUTURE_EPOCH, Fork, build_devnet
from chains.evm.types import Account, Proof
from messages.canonical import decode_canonical, encode_canonical
from messages.errors import Rejected
from tests.chains.evm_forge import DEVNET, GENESIS_TIME, PERIOD, SMALL, Forge, build_tree, get_committee

START = 2 * PERIOD + 8
NAMES = ("update", "finality_update", "optimistic_update")


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def build_network(fork: Fork):
    epochs = tuple(0 if known <= fork else FAR_FUTURE_EPOCH for known in Fork)
    return build_devnet(genesis_time=GENESIS_TIME, genesis_validators_root=bytes(32), preset=SMALL, epochs=epochs)


def strip(update, name):
    """Return the part of an update that a route carries."""
    if name != "update":
        update = replace(update, next_committee=None, next_committee_branch=())
    if name == "optimistic_update":
        update = replace(update, finalized=None, finality_branch=())
    return update


# ---- BLS --------------------------------------------------------------------------------------------------------------


def make_keys(count: int):
    secrets = [Scalar(1000 + i) for i in range(count)]
    return secrets, [(G1Point() * secret).to_compressed_bytes() for secret in secrets]


def sign(secrets, message: bytes) -> bytes:
    total = G2Point.identity()
    for secret in secrets:
        total = total + bls.hash_to_g2(message) * secret
    return total.to_compressed_bytes()


def test_an_aggregate_verifies_for_exactly_its_signers_and_message():
    secrets, keys = make_keys(5)
    signature = sign(secrets, b"head")
    assert bls.is_valid_fast_aggregate(keys, b"head", signature)
    assert not bls.is_valid_fast_aggregate(keys[1:], b"head", signature)
    assert not bls.is_valid_fast_aggregate([*keys, keys[0]], b"head", signature)
    assert not bls.is_valid_fast_aggregate(keys, b"heaD", signature)
    assert bls.is_valid_signature(keys[0], b"head", sign(secrets[:1], b"head"))


def test_infinity_signs_for_nobody():
    infinity1 = G1Point.identity().to_compressed_bytes()
    assert refuse(lambda: bls.decode_pubkey(infinity1)) == "bad_pubkey"
    assert not bls.is_valid_signature(infinity1, b"any", bls.G2_INFINITY)
    assert not bls.is_valid_fast_aggregate([], b"any", bls.G2_INFINITY)
    assert bls.is_valid_eth_fast_aggregate([], b"any", bls.G2_INFINITY)
    (_, keys) = make_keys(1)
    opposite = (-bls.decode_pubkey(keys[0])).to_compressed_bytes()
    assert not bls.is_valid_fast_aggregate([keys[0], opposite], b"any", bls.G2_INFINITY), "keys that cancel out"


def test_other_writings_of_infinity_are_refused():
    assert bls.decode_signature(bls.G2_INFINITY) == G2Point.identity()
    for other in (b"\xc0" + bytes(94) + b"\1", b"\xe0" + bytes(95), b"\x40" + bytes(95), bytes(96), b"\xc0" * 96, b""):
        assert refuse(lambda o=other: bls.decode_signature(o)) == "bad_signature"


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32])
def test_the_sum_of_participants_is_the_same_by_adding_and_by_subtracting(count):
    committee = get_committee(2, 32)
    bits = ((1 << count) - 1).to_bytes(4, "little")
    expected = G1Point.identity()
    for pubkey in committee.pubkeys[:count]:
        expected = expected + bls.decode_pubkey(pubkey)
    assert bls.get_committee_keys(committee.pubkeys).sum_participants(bits) == expected


# ---- SSZ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fork", list(Fork)[1:])
def test_ssz_of_every_object_and_fork_comes_back(fork):
    forge = Forge(build_network(fork))
    bootstrap = forge.make_bootstrap(START)
    update = forge.make_update(START + 24, START + 8)
    data = ssz.encode_light_client("bootstrap", bootstrap, fork, SMALL)
    assert ssz.decode_light_client("bootstrap", data, fork, SMALL) == bootstrap
    for name in NAMES:
        part = strip(update, name)
        data = ssz.encode_light_client(name, part, fork, SMALL)
        assert ssz.decode_light_client(name, data, fork, SMALL) == part
        for wrong in (data + bytes(40), b"", data[:100]):
            assert refuse(lambda w=wrong, n=name: ssz.decode_light_client(n, w, fork, SMALL)) == "bad_ssz"
    absent = strip(update, "optimistic_update")
    data = ssz.encode_light_client("update", absent, fork, SMALL)
    assert ssz.decode_light_client("update", data, fork, SMALL) == absent, "zero objects are absent ones"


def test_ssz_offsets_must_be_those_an_encoder_writes():
    update = Forge().make_update(START + 24, START + 8)
    data = ssz.encode_light_client("update", update, Fork.FULU, SMALL)
    first = int.from_bytes(data[:4], "little")
    for wrong in (first - 1, first + 1, 0, len(data), 2**32 - 1):
        other = wrong.to_bytes(4, "little") + data[4:]
        assert refuse(lambda o=other: ssz.decode_light_client("update", o, Fork.FULU, SMALL)) == "bad_ssz"
    kind = ssz.get_execution_type(Fork.FULU)
    header = kind.encode(update.attested.execution)
    place = header.index(kind.fixed_part.to_bytes(4, "little"))
    later = (kind.fixed_part + 1).to_bytes(4, "little")
    gap = header[:place] + later + header[place + 4 : kind.fixed_part] + b"\0" + header[kind.fixed_part :]
    assert kind.decode(header) == update.attested.execution
    assert refuse(lambda: kind.decode(gap)) == "bad_ssz", "bytes that no offset names"
    assert refuse(lambda: ssz.decode_light_client("update", bytes(2**20 + 1), Fork.FULU, SMALL)) == "size"


UPDATE_SSZ = ssz.encode_light_client("update", Forge().make_update(START + 24, START + 8), Fork.FULU, SMALL)


@settings(max_examples=150)
@given(at=st.integers(0, len(UPDATE_SSZ) - 1), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_ssz_that_decodes_is_the_canonical_form_of_its_value(at, byte, cut):
    data = UPDATE_SSZ[:at] + bytes((byte,)) + UPDATE_SSZ[at + 1 : len(UPDATE_SSZ) - cut]
    try:
        value = ssz.decode_light_client("update", data, Fork.FULU, SMALL)
    except Rejected:
        return
    assert ssz.encode_light_client("update", value, Fork.FULU, SMALL) == data


@settings(max_examples=60)
@given(places=st.sets(st.integers(8, 63), min_size=1, max_size=5))
def test_a_branch_proves_its_leaf_at_its_place_only(places):
    leaves = {g: bytes((g,)) * 32 for g in places if not any(g >> i in places for i in (1, 2, 3))}
    root, branches = build_tree(leaves, b"salt")
    for gindex, leaf in leaves.items():
        branch = branches[gindex]
        assert ssz.is_valid_branch(leaf, branch, gindex, root)
        assert ssz.is_valid_branch(leaf, (bytes(32), *branch), gindex, root)
        assert not ssz.is_valid_branch(leaf, (b"\1" * 32, *branch), gindex, root)
        assert not ssz.is_valid_branch(leaf, branch, gindex ^ 1, root)
        assert not ssz.is_valid_branch(leaf, branch[:-1], gindex, root)
        assert not ssz.is_valid_branch(root, (), gindex, root)


# ---- JSON -------------------------------------------------------------------------------------------------------------


def through_text(obj):
    return bj.decode_json(json.dumps(obj).encode())


@pytest.mark.parametrize("fork", list(Fork)[1:])
def test_json_of_every_object_and_fork_comes_back(fork):
    schedule = build_network(fork)
    forge = Forge(schedule)
    bootstrap = forge.make_bootstrap(START)
    update = forge.make_update(START + 24, START + 8)
    obj = through_text(bj.encode_bootstrap_json(bootstrap, schedule))
    assert obj["version"] == fork.name.lower()
    assert bj.parse_bootstrap_json(obj, schedule) == bootstrap
    assert bj.parse_bootstrap_json(obj["data"], schedule) == bootstrap
    for name in NAMES:
        part = strip(update, name)
        assert bj.parse_update_json(through_text(bj.encode_update_json(part, schedule, name)), schedule) == part
    assert bj.parse_updates_json(bj.encode_updates_json((update, update), schedule), schedule) == (update, update)
    trusted = forge.make_trusted(START, knows_next=fork > Fork.CAPELLA)
    document = decode_canonical(encode_canonical(bj.encode_trusted_json(trusted, schedule)))
    assert bj.parse_trusted_json(document, schedule) == trusted
    assert refuse(lambda: bj.parse_trusted_json(document, replace(schedule, name="other"))) == "bad_json"


def test_dialects_with_bare_headers_integers_and_nulls_read_alike():
    update = strip(Forge().make_update(START + 24, START + 8), "optimistic_update")
    obj = bj.encode_update_json(update, DEVNET)["data"]
    obj["signature_slot"] = update.signature_slot
    obj["attested_header"]["execution"]["base_fee_per_gas"] = hex(7)
    obj["finalized_header"] = obj["next_sync_committee"] = None
    obj["something_of_the_node"] = {"x": 1}
    assert bj.parse_update_json(obj, DEVNET) == update
    bare = {**obj, "attested_header": obj["attested_header"]["beacon"]}
    assert bj.parse_update_json(bare, DEVNET).attested.beacon == update.attested.beacon


def test_json_of_wrong_shape_is_refused_with_a_name():
    good = bj.encode_update_json(Forge().make_update(START + 24, START + 8), DEVNET)
    assert refuse(lambda: bj.parse_update_json({**good, "version": "gloas"}, DEVNET)) == "unknown_fork"
    for path, value in (
        (("signature_slot",), "-1"),
        (("signature_slot",), 1.5),
        (("signature_slot",), True),
        (("signature_slot",), str(2**64)),
        (("signature_slot",), "\uff11\uff12"),  # digits of another script
        (("signature_slot",), None),
        (("sync_aggregate", "sync_committee_bits"), "0xff"),
        (("sync_aggregate", "sync_committee_signature"), "0x" + "zz" * 96),
        (("sync_aggregate",), []),
        (("attested_header", "beacon", "state_root"), "0x" + "0" * 63),
        (("attested_header", "execution", "extra_data"), "0x" + "00" * 33),
        (("next_sync_committee", "pubkeys"), []),
        (("next_sync_committee", "pubkeys"), ["0x"] * 100_000),
        (("finality_branch",), ["0x" + "00" * 32] * 9),
        (("attested_header",), "text"),
    ):
        obj = copy.deepcopy(good)
        target = obj["data"]
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        assert refuse(lambda o=obj: bj.parse_update_json(o, DEVNET)) == "bad_json", (path, value)
    assert refuse(lambda: bj.parse_updates_json([good] * 129, DEVNET)) == "bad_json"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "bad_json"),
        (b'{"a":1,"a":2}', "bad_json"),
        (b"1.5", "bad_json"),
        (b"NaN", "bad_json"),
        (b"\xff", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b"9" * 10_000, "bad_json"),
        (b" " * (2**25 + 1), "size"),
    ],
)
def test_json_text_that_could_be_read_two_ways_or_never_ends_is_refused(data, reason):
    assert refuse(lambda: bj.decode_json(data)) == reason


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["0x", "0x00", "1", "0x" + "00" * 32]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*list("abc"), "data", "version", "beacon"]), inner)
    ),
    max_leaves=8,
)
GOOD = bj.encode_update_json(Forge().make_update(START + 24, START + 8), DEVNET)
PATHS = [
    *(("data", key) for key in GOOD["data"]),
    *(("data", "attested_header", key) for key in GOOD["data"]["attested_header"]),
    *(("data", "attested_header", "execution", key) for key in GOOD["data"]["attested_header"]["execution"]),
    ("version",),
    ("data",),
]


@settings(max_examples=200)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_hostile_json_gives_an_update_or_a_refusal(path, value):
    obj = copy.deepcopy(GOOD)
    target = obj
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    for parse in (bj.parse_update_json, bj.parse_bootstrap_json, bj.parse_updates_json, bj.parse_trusted_json):
        for thing in (obj, value):
            try:
                parse(thing, DEVNET)
            except Rejected as error:
                assert error.reason in {"bad_json", "unknown_fork"}  # noqa: PT017  one of two outcomes
    for thing in (obj, value):
        try:
            bj.parse_proof_json(thing, bytes(20), 0)
        except Rejected as error:
            assert error.reason == "bad_json"  # noqa: PT017  one of two outcomes


def test_a_proof_answer_comes_back_and_its_claims_are_not_read():
    proof = Proof(b"\1" * 20, 5, (b"\xc0" * 40,), (b"\xc1" * 33, b"\xc2" * 40))
    answer = through_text(bj.encode_proof_json(proof, Account(1, 2, bytes(32), bytes(32)), 7))
    assert bj.parse_proof_json(answer, proof.address, 5) == proof
    assert bj.parse_proof_json({"jsonrpc": "2.0", "id": 1, "result": answer}, proof.address, 5) == proof
    for key in ("0x5", "0x0" + "5", "0x" + "0" * 63 + "5", "5"):
        answer["storageProof"][0]["key"] = key
        assert bj.parse_proof_json(answer, proof.address, 5) == proof
    lying = {**answer, "balance": "nonsense", "storageHash": None, "address": "0x"}
    lying["storageProof"][0]["value"] = "0xdead"
    assert bj.parse_proof_json(lying, proof.address, 5) == proof
    assert refuse(lambda: bj.parse_proof_json(answer, proof.address, 6)) == "bad_json"
    long = {**answer, "accountProof": ["0x00"] * 66}
    assert refuse(lambda: bj.parse_proof_json(long, proof.address, 5)) == "bad_json"
