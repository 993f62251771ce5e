"""Outbox heads by storage proof: the value is what the trie walk finds, under the finalized header, and never what a node says.

Incident A12: presence, absence, empty account, slot zero, inlined nodes, extra nodes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import rlp
from trie import HexaryTrie

from chains.evm import mpt, proofs
from chains.evm.beacon_json import encode_proof_json, parse_proof_json
from chains.evm.types import Account, Proof, Trusted
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ChainId
from messages.outbox import TrustTier
from tests.chains.evm_forge import PERIOD, Forge

CHAIN = ChainId("eip155:31337")
VAULT = bytes.fromhex("aa" * 20)
VAULT_ID = keccak256(b"vault")
OTHER = bytes.fromhex("bb" * 20)
SLOT = 3
HEAD = keccak256(b"head")
EMPTY_CODE = keccak256(b"")


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


class World:
    """A state of accounts with storage, in py-trie."""

    def __init__(self, storage: dict[bytes, dict[int, int]]) -> None:
        self.state = HexaryTrie({})
        self.storage: dict[bytes, HexaryTrie] = {}
        self.accounts: dict[bytes, Account] = {}
        for address, slots in storage.items():
            trie = HexaryTrie({})
            for slot, value in slots.items():
                trie[keccak256(slot.to_bytes(32, "big"))] = rlp.encode(value)
            account = Account(1, 10**18, trie.root_hash, EMPTY_CODE)
            self.storage[address] = trie
            self.accounts[address] = account
            self.state[keccak256(address)] = rlp.encode(
                [account.nonce, account.balance_wei, account.storage_root, account.code_hash]
            )

    def prove(self, address: bytes, slot: int) -> Proof:
        storage = self.storage.get(address, HexaryTrie({}))
        return Proof(
            address,
            slot,
            tuple(map(rlp.encode, self.state.get_proof(keccak256(address)))),
            tuple(map(rlp.encode, storage.get_proof(keccak256(slot.to_bytes(32, "big"))))),
        )


MANY = {bytes((i,)) * 20: {0: i + 1} for i in range(60)}
WORLD = World({**MANY, VAULT: {0: 7, SLOT: int.from_bytes(HEAD, "big"), 9: 1}, OTHER: {SLOT: 5}})


def trust(state_root: bytes) -> Trusted:
    forge = Forge()
    header, _ = forge.make_header_with_branches(2 * PERIOD, {}, state_root)
    committee = forge.make_bootstrap(2 * PERIOD).current_committee
    return Trusted(header, header, committee)


TRUSTED = trust(WORLD.state.root_hash)


def verify(proof: Proof, head: bytes = HEAD, trusted: Trusted = TRUSTED, slot: int = SLOT, vault: bytes = VAULT):
    return proofs.verify_head(trusted, head, proof, vault_id=VAULT_ID, chain=CHAIN, vault_address=vault, slot=slot)


def test_the_head_in_the_vaults_slot_is_proven_with_height_hash_and_time_of_its_block():
    proven = verify(WORLD.prove(VAULT, SLOT))
    execution = TRUSTED.finalized.execution
    assert proven.head == HEAD
    assert (proven.height, proven.header_hash, proven.time) == (
        execution.block_number,
        execution.block_hash,
        execution.timestamp,
    )
    assert (proven.vault_id, proven.chain, proven.tier) == (VAULT_ID, CHAIN, TrustTier(1, 0, 0))
    assert len(proven.proof_digest) == 32


def test_another_head_another_slot_another_account_or_another_root_is_refused():
    proof = WORLD.prove(VAULT, SLOT)
    assert refuse(lambda: verify(proof, head=keccak256(b"other"))) == "wrong_head"
    assert refuse(lambda: verify(proof, head=bytes(32))) == "zero_head"
    assert refuse(lambda: verify(proof, head=HEAD[:31])) == "zero_head"
    assert refuse(lambda: verify(proof, slot=SLOT + 1)) == "wrong_proof"
    assert refuse(lambda: verify(WORLD.prove(OTHER, SLOT))) == "wrong_proof"
    assert refuse(lambda: verify(replace(WORLD.prove(OTHER, SLOT), address=VAULT))) in {"bad_node_hash", "no_account"}
    assert refuse(lambda: verify(proof, trusted=trust(keccak256(b"root")))) == "bad_node_hash"


def test_the_proof_of_another_account_with_the_same_storage_slot_does_not_pass_for_the_vaults():
    mixed = replace(WORLD.prove(VAULT, SLOT), storage_nodes=WORLD.prove(OTHER, SLOT).storage_nodes)
    assert refuse(lambda: verify(mixed)) == "bad_node_hash"
    assert proofs.verify_slot(WORLD.accounts[OTHER].storage_root, SLOT, mixed.storage_nodes)[-1] == 5


def test_a12_what_the_answer_claims_is_never_what_is_proven():
    answer = encode_proof_json(WORLD.prove(VAULT, 0), WORLD.accounts[VAULT], 7)
    answer["storageProof"][0]["value"] = "0x" + HEAD.hex()
    proof = parse_proof_json(answer, VAULT, 0)
    assert refuse(lambda: verify(proof, slot=0)) == "wrong_head"
    weak = int(answer["storageProof"][0]["value"], 16).to_bytes(32, "big")  # the twin reads the JSON value
    assert weak == HEAD


def test_a12_a_slot_that_is_absent_or_zero_is_no_head():
    absent = WORLD.prove(VAULT, 4)
    assert proofs.verify_storage_value(WORLD.state.root_hash, absent) == bytes(32)
    assert refuse(lambda: verify(absent, slot=4)) == "zero_head"
    empty = World({VAULT: {}})
    proof = empty.prove(VAULT, SLOT)
    for nodes in ((), (b"\x80",)):
        bare = replace(proof, storage_nodes=nodes)
        assert proofs.verify_storage_value(empty.state.root_hash, bare) == bytes(32)
        assert refuse(lambda b=bare: verify(b, trusted=trust(empty.state.root_hash))) == "zero_head"


def test_a12_an_account_that_does_not_exist_is_said_so_and_proves_no_slot():
    nobody = b"\xee" * 20
    proof = WORLD.prove(nobody, SLOT)
    assert proofs.verify_account(WORLD.state.root_hash, nobody, proof.account_nodes) is None
    assert refuse(lambda: verify(proof, vault=nobody)) == "no_account"
    assert refuse(lambda: verify(replace(proof, account_nodes=()), vault=nobody)) == "missing_node"


def test_a12_small_values_lie_in_inlined_nodes_and_are_proven():
    crowd = World({VAULT: dict.fromkeys(range(400), 1)})
    trusted = crowd.state.root_hash
    for slot in range(0, 400, 7):
        proof = crowd.prove(VAULT, slot)
        assert proofs.verify_storage_value(trusted, proof)[-1] == 1
        short = replace(
            proof, storage_nodes=tuple(n for i, n in enumerate(proof.storage_nodes) if i == 0 or len(n) >= 32)
        )
        assert proofs.verify_storage_value(trusted, short)[-1] == 1


def test_a12_missing_extra_and_changed_nodes_are_refused():
    good = WORLD.prove(VAULT, SLOT)
    assert verify(good)
    for field in ("account_nodes", "storage_nodes"):
        nodes = getattr(good, field)
        for i, node in enumerate(nodes):
            flipped = node[:-1] + bytes((node[-1] ^ 1,))
            for changed in (
                (*nodes[:i], flipped, *nodes[i + 1 :]),
                nodes[:i] + nodes[i + 1 :],
                (*nodes[: i + 1], *nodes[i:]),
            ):
                assert refuse(lambda c=changed, f=field: verify(replace(good, **{f: c}))) != ""
        assert refuse(lambda f=field, n=nodes: verify(replace(good, **{f: (*n, n[0])}))) == "unused_nodes"


def test_only_a_canonical_account_and_a_canonical_value_count():
    account = WORLD.accounts[VAULT]
    fields = [account.nonce, account.balance_wei, account.storage_root, account.code_hash]
    assert proofs.decode_account(rlp.encode(fields)) == account
    for wrong in (
        fields[:3],
        [*fields, b""],
        [b"\0\1", *fields[1:]],
        [*fields[:2], b"", b""],
        [*fields[:2], [b""] * 32, fields[3]],
    ):
        assert refuse(lambda w=wrong: proofs.decode_account(rlp.encode(w))) in {"bad_account", "bad_rlp"}
    for wrong in (rlp.encode(b""), rlp.encode(b"\0\1"), rlp.encode(b"\1" * 33), b"\x81\x01", rlp.encode([b"\1"])):
        trie = HexaryTrie({})
        trie[keccak256(SLOT.to_bytes(32, "big"))] = wrong
        nodes = tuple(map(rlp.encode, trie.get_proof(keccak256(SLOT.to_bytes(32, "big")))))
        assert refuse(lambda t=trie, n=nodes: proofs.verify_slot(t.root_hash, SLOT, n)) in {"bad_slot_value", "bad_rlp"}


def test_a_header_without_execution_state_proves_nothing():
    early = replace(TRUSTED, finalized=replace(TRUSTED.finalized, execution=None, execution_branch=()))
    assert refuse(lambda: verify(WORLD.prove(VAULT, SLOT), trusted=early)) == "no_execution"


def test_the_digest_names_the_evidence():
    proof = WORLD.prove(VAULT, SLOT)
    digest = proofs.compute_proof_digest(TRUSTED.finalized, proof)
    assert digest == proofs.compute_proof_digest(TRUSTED.finalized, proof)
    others = [
        replace(proof, slot=SLOT + 1),
        replace(proof, address=OTHER),
        replace(proof, account_nodes=proof.account_nodes[:-1]),
        replace(proof, account_nodes=(), storage_nodes=proof.account_nodes + proof.storage_nodes),
    ]
    header = replace(TRUSTED.finalized, beacon=replace(TRUSTED.finalized.beacon, slot=1))
    digests = {digest, proofs.compute_proof_digest(header, proof)}
    digests |= {proofs.compute_proof_digest(TRUSTED.finalized, other) for other in others}
    assert len(digests) == 2 + len(others)


def test_the_limits_of_a_proof_hold():
    proof = WORLD.prove(VAULT, SLOT)
    assert refuse(lambda: verify(replace(proof, account_nodes=proof.account_nodes * 40))) == "too_many_nodes"
    fat = mpt.encode_rlp([b"\x20", b"x" * 2000])
    assert refuse(lambda: verify(replace(proof, account_nodes=(fat,)))) == "node_size"
