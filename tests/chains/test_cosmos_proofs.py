"""From a trusted header to a proven outbox head on Cosmos, and everything that must not lead there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chains.cosmos import codec, proofs
from chains.cosmos.ics23 import encode_batch
from chains.cosmos.types import NANOSECONDS, Proof, ProofOp
from messages.errors import Rejected
from messages.ids import ChainId
from messages.outbox import TrustTier
from tests.chains.cosmos_forge import Forge, make_set, make_store_proof, make_stores

CONTRACT = b"\xc0" * 32
VAULT_ID = b"\x1d" * 32
CHAIN = ChainId("cosmos:forge-1")
HEAD = b"\xaa" * 32
KEY = b"\x03" + CONTRACT + b"outbox_head"
ENTRIES = {
    KEY: HEAD,
    KEY + b"2": b"\xab" * 32,
    b"\x03" + b"\xc1" * 32 + b"outbox_head": b"\xbb" * 32,
    b"\x03" + CONTRACT + b"inbox_sequence": b"\7",
    b"\x01" + b"code": b"x",
}
MODULE, STORES = make_stores(ENTRIES)
TRUSTED = replace(Forge(((1, make_set(["ann"])),)).make_trusted(8), app_hash=STORES.root)
PROOF = make_store_proof(MODULE, STORES, KEY)


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def verify(head=HEAD, proof=PROOF, trusted=TRUSTED, contract=CONTRACT):
    return proofs.verify_head(trusted, head, proof, vault_id=VAULT_ID, chain=CHAIN, contract=contract)


def test_the_head_in_the_vaults_storage_is_proven_at_the_header_that_carries_the_app_hash():
    proven = verify()
    assert (proven.head, proven.vault_id, proven.chain) == (HEAD, VAULT_ID, CHAIN)
    assert (proven.height, proven.header_hash) == (TRUSTED.height, TRUSTED.header_hash)
    assert proven.time == TRUSTED.time_ns // NANOSECONDS
    assert proven.tier == TrustTier(1)
    assert proven.proof_digest == proofs.compute_proof_digest(TRUSTED, codec.decode_proof(codec.encode_proof(PROOF)))


def test_another_head_than_the_stored_one_is_refused():
    assert refuse(lambda: verify(head=b"\xab" * 32)) == "wrong_value"
    for head in (bytes(32), b"", HEAD[:31], HEAD + b"\0"):
        assert refuse(lambda h=head: verify(head=h)) == "zero_head"


def test_another_state_is_refused_and_no_state_at_all():
    assert refuse(lambda: verify(trusted=replace(TRUSTED, app_hash=b"\1" * 32))) == "wrong_root"
    for app_hash in (b"", bytes(32), b"\1" * 31):
        assert refuse(lambda a=app_hash: verify(trusted=replace(TRUSTED, app_hash=a))) == "no_app_hash"


def test_the_head_of_another_contract_or_under_another_key_is_refused():
    for key, value in ENTRIES.items():
        if key != KEY:
            other = make_store_proof(MODULE, STORES, key)
            assert refuse(lambda p=other, v=value: verify(head=v.rjust(32, b"\1"), proof=p)) == "wrong_proof"
            renamed = Proof((replace(other.ops[0], key=KEY), other.ops[1]))
            assert refuse(lambda p=renamed, v=value: verify(head=v.rjust(32, b"\1"), proof=p)) == "wrong_key"
    assert refuse(lambda: verify(contract=b"\xc1" * 32)) == "wrong_proof"
    assert refuse(lambda: verify(contract=b"\xc1" * 20)) == "bad_address"


def test_the_same_key_in_another_store_is_refused():
    evil, stores = make_stores(ENTRIES, store=b"evil")
    trusted = replace(TRUSTED, app_hash=stores.root)
    proof = make_store_proof(evil, stores, KEY, store=b"evil")
    proofs.verify_store_value(stores.root, proof, b"evil", KEY, HEAD)
    assert refuse(lambda: verify(proof=proof, trusted=trusted)) == "wrong_proof"
    renamed = Proof((proof.ops[0], replace(proof.ops[1], key=b"wasm")))
    assert refuse(lambda: verify(proof=renamed, trusted=trusted)) == "wrong_key"


@pytest.mark.parametrize(
    "types",
    [
        ("iavl:v", "multistore"),
        ("iavl:a", "ics23:simple"),
        ("ics23:simple", "ics23:iavl"),
        ("ics23:iavl", "ics23:iavl"),
        ("ics23:iavl",),
        ("ics23:iavl", "ics23:simple", "ics23:simple"),
        (),
    ],
)
def test_steps_of_another_format_order_or_number_are_refused(types):
    ops = tuple(
        ProofOp(kind, *((op.key, op.data))) for kind, op in zip(types, (*PROOF.ops, PROOF.ops[1]), strict=False)
    )
    assert refuse(lambda: verify(proof=Proof(ops))) == "op_type"


def test_a_proof_that_is_too_large_or_not_a_proof_is_refused():
    assert refuse(lambda: verify(proof=Proof((replace(PROOF.ops[0], data=bytes(1 << 20)), PROOF.ops[1])))) == "size"
    assert refuse(lambda: verify(proof=Proof((replace(PROOF.ops[0], data=b"\xff"), PROOF.ops[1])))) == "bad_protobuf"
    assert refuse(lambda: verify(proof=Proof((replace(PROOF.ops[0], data=b""), PROOF.ops[1])))) == "wrong_kind"


def test_a_batch_serves_as_well_as_a_plain_proof():
    batch = encode_batch((MODULE.prove(KEY + b"2"), MODULE.prove(KEY)))
    assert verify(proof=Proof((replace(PROOF.ops[0], data=batch), PROOF.ops[1]))).head == HEAD


def test_a_missing_head_is_proven_absent_and_never_a_head():
    module, stores = make_stores({k: v for k, v in ENTRIES.items() if k != KEY})
    proof = make_store_proof(module, stores, KEY)
    proofs.verify_store_absence(stores.root, proof, b"wasm", KEY)
    assert refuse(lambda: verify(proof=proof, trusted=replace(TRUSTED, app_hash=stores.root))) == "wrong_kind"
    assert refuse(lambda: proofs.verify_store_absence(STORES.root, PROOF, b"wasm", KEY)) == "wrong_kind"


def test_every_byte_of_the_evidence_is_bound():
    """A proof with any byte changed proves nothing, so the digest on record names one thing only."""
    data = codec.encode_proof(PROOF)
    for at in range(1, len(data), 3):
        changed = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        assert refuse(lambda c=changed: verify(proof=codec.decode_proof(c)))
