"""From a trusted header to a proven outbox head: IAVL proof, multistore proof, comparison. Pure.

The only place of this family where a `ProvenHead` is made (protocol.md 2 and 11). The app hash comes from the light client's header, the
contract and the key from the operator's configuration, the kinds of trees from constants. What a node *says* the value is, is the claim to
be proven and nothing else.

Header h + 1 carries the app hash of the state after block h. The result names the header that carries the hash: its height, its hash, and
its time, which every later block's time exceeds, so that absence by that time is proven too.
"""

from __future__ import annotations

from hashlib import sha256

from chains.cosmos.codec import encode_proof
from chains.cosmos.ics23 import (
    IAVL_SPEC,
    MAX_PROOF_BYTES,
    TENDERMINT_SPEC,
    CommitmentProof,
    decode_proof,
    verify_chained_membership,
    verify_chained_non_membership,
)
from chains.cosmos.types import NANOSECONDS, Proof, Trusted
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ChainId
from messages.outbox import ProvenHead, TrustTier

ZERO32 = bytes(32)
LIGHT_CLIENT_TIER = TrustTier(level=1)
WASM_STORE = b"wasm"
CONTRACT_STORE_PREFIX = b"\x03"
OUTBOX_HEAD_KEY = b"outbox_head"
PACKET_TABLE = b"\x10"
"""Keys of the newest outbox packets: this byte and the number as u64, big-endian (contracts/cosmos/README.md)."""
KEPT_PACKETS = 1024
OP_TYPES = ("ics23:iavl", "ics23:simple")
"""Steps of a store query's proof, innermost first. The old "iavl:v", "iavl:a" and "multistore" steps are range proofs: never read (A1)."""
SPECS = (IAVL_SPEC, TENDERMINT_SPEC)


def compute_contract_key(contract: bytes, key: bytes) -> bytes:
    """Return the key of a contract's value in the wasm store: 03 || 32-byte contract address || key; Rejected ("bad_address")."""
    if len(contract) != 32:
        raise Rejected("a contract address has 32 bytes", got=contract, reason="bad_address")
    return CONTRACT_STORE_PREFIX + contract + key


def compute_packet_key(contract: bytes, sequence: int) -> bytes:
    """Return the key of an outbox packet in the wasm store; Rejected ("bad_address")."""
    return compute_contract_key(contract, PACKET_TABLE + sequence.to_bytes(8, "big"))


def verify_head(
    trusted: Trusted, head: bytes, proof: Proof, *, vault_id: bytes, chain: ChainId, contract: bytes
) -> ProvenHead:
    """Return the head that the vault's storage holds in the state under a trusted header, if it is the claimed one.

    Args:
        trusted: state of the light client; its app hash is used.
        head: 32 bytes, what a source claims.
        proof: IAVL step and multistore step of `abci_query` at height ``trusted.height - 1``.
        vault_id: 32 bytes.
        chain: CAIP-2.
        contract: 32-byte canonical address of the vault.

    Raises Rejected: "zero_head", "bad_address", and the reasons of `verify_store_value`.
    """
    if len(head) != 32 or head == ZERO32:
        raise Rejected("a head is 32 non-zero bytes", got=head, reason="zero_head")
    verify_store_value(trusted.app_hash, proof, WASM_STORE, compute_contract_key(contract, OUTBOX_HEAD_KEY), head)
    return ProvenHead(
        vault_id=vault_id,
        chain=chain,
        height=trusted.height,
        header_hash=trusted.header_hash,
        time=trusted.time_ns // NANOSECONDS,
        head=head,
        tier=LIGHT_CLIENT_TIER,
        proof_digest=compute_proof_digest(trusted, proof),
    )


def verify_store_value(app_hash: bytes, proof: Proof, store: bytes, key: bytes, value: bytes) -> None:
    """Check that a module's store holds a value at a key under an app hash.

    Raises Rejected: "wrong_proof" (steps about another key or store, or missing), "op_type" (a proof of another format), "no_app_hash",
    and the reasons of `ics23.decode_proof` and `verify_chained_membership`.
    """
    proofs = _open_proof(app_hash, proof, store, key)
    verify_chained_membership(SPECS, app_hash, proofs, (key, store), value)


def verify_store_absence(app_hash: bytes, proof: Proof, store: bytes, key: bytes) -> None:
    """Check that a module's store holds nothing at a key under an app hash; Rejected as `verify_store_value`."""
    proofs = _open_proof(app_hash, proof, store, key)
    verify_chained_non_membership(SPECS, app_hash, proofs, (key, store))


def _open_proof(app_hash: bytes, proof: Proof, store: bytes, key: bytes) -> tuple[CommitmentProof, ...]:
    if len(app_hash) != 32 or app_hash == ZERO32:
        raise Rejected("an app hash is 32 non-zero bytes", got=app_hash, reason="no_app_hash")
    types = tuple(op.type for op in proof.ops)
    if types != OP_TYPES:
        raise Rejected("not an ICS-23 proof of a store", got=types[:8], expected=OP_TYPES, reason="op_type")
    keys = tuple(op.key for op in proof.ops)
    if keys != (key, store):
        raise Rejected("the proof is about another key or store", got=keys, expected=(key, store), reason="wrong_proof")
    if sum(len(op.data) for op in proof.ops) > MAX_PROOF_BYTES:
        raise Rejected("a proof is too large", expected=f"<= {MAX_PROOF_BYTES}", reason="size")
    return tuple(decode_proof(op.data) for op in proof.ops)


def compute_proof_digest(trusted: Trusted, proof: Proof) -> bytes:
    """Return keccak256(header hash || SHA-256 of the stored proof): names the evidence of a fact, is never a key for settlement."""
    return keccak256(trusted.header_hash + sha256(encode_proof(proof)).digest())
