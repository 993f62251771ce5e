"""From a finalized header to a proven outbox head: account proof, storage proof, comparison. Pure.

The only place of this family where a `ProvenHead` is made (protocol.md 2 and 11). The state root comes from the light client's finalized
header, the account and the slot from the operator's configuration, the value from the trie walk. What a node *says* the value is,
is not even an argument (incident A12).
"""

from __future__ import annotations

from chains.evm.mpt import (
    MAX_STATE_NODE_BYTES,
    RlpItem,
    decode_rlp,
    decode_rlp_integer,
    encode_rlp,
    verify_trie_value,
)
from chains.evm.ssz import compute_header_root
from chains.evm.types import Account, LightClientHeader, Proof, Trusted
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ChainId
from messages.outbox import ProvenHead, TrustTier

ZERO32 = bytes(32)
LIGHT_CLIENT_TIER = TrustTier(level=1)


def verify_head(
    trusted: Trusted,
    head: bytes,
    proof: Proof,
    *,
    vault_id: bytes,
    chain: ChainId,
    vault_address: bytes,
    slot: int,
) -> ProvenHead:
    """Return the head that the vault's storage holds at the finalized header, if it is the claimed one.

    Height, hash and time of the result are the execution block's number, hash and timestamp.

    Args:
        trusted: state of the light client; its finalized header is used.
        head: 32 bytes, what a source claims.
        proof: account and storage nodes; its address and slot must be the configured ones.
        vault_id: 32 bytes.
        chain: CAIP-2.
        vault_address: 20 bytes.
        slot: storage slot of `outbox_head`.

    Raises Rejected: "wrong_proof" (another account or slot), "no_execution" (header before Capella), "no_account", "zero_head",
    "wrong_head", and the reasons of `verify_trie_value`.
    """
    if proof.address != vault_address or proof.slot != slot:
        raise Rejected(
            "the proof is about another account or slot",
            got=(proof.address.hex(), proof.slot),
            expected=(vault_address.hex(), slot),
            reason="wrong_proof",
        )
    execution = trusted.finalized.execution
    if execution is None:
        raise Rejected(
            "the finalized header has no execution state", got=trusted.finalized.beacon.slot, reason="no_execution"
        )
    if len(head) != 32 or head == ZERO32:
        raise Rejected("a head is 32 non-zero bytes", got=head, reason="zero_head")
    proven = verify_storage_value(execution.state_root, proof)
    if proven == ZERO32:
        raise Rejected("the vault has no outbox head at this header", got=proven, expected=head, reason="zero_head")
    if proven != head:
        raise Rejected("the vault's outbox head is another", got=head, expected=proven, reason="wrong_head")
    return ProvenHead(
        vault_id=vault_id,
        chain=chain,
        height=execution.block_number,
        header_hash=execution.block_hash,
        time=execution.timestamp,
        head=proven,
        tier=LIGHT_CLIENT_TIER,
        proof_digest=compute_proof_digest(trusted.finalized, proof),
    )


def verify_storage_value(state_root: bytes, proof: Proof) -> bytes:
    """Return the 32 bytes that lie in the proof's slot under a trusted state root; zero is proven absence of the slot.

    Raises Rejected: "no_account" (proven absent), and the reasons of `verify_account` and `verify_slot`.
    """
    account = verify_account(state_root, proof.address, proof.account_nodes)
    if account is None:
        raise Rejected("the account does not exist at this header", got=proof.address, reason="no_account")
    return verify_slot(account.storage_root, proof.slot, proof.storage_nodes)


def verify_account(state_root: bytes, address: bytes, nodes: tuple[bytes, ...]) -> Account | None:
    """Return the account at a 20-byte address under a trusted state root, None where the nodes prove there is none.

    Raises Rejected: "bad_account", and the reasons of `verify_trie_value`.
    """
    value = verify_trie_value(state_root, keccak256(address), nodes, MAX_STATE_NODE_BYTES)
    return None if value is None else decode_account(value)


def decode_account(value: bytes) -> Account:
    """Return the account of a state trie value, RLP [nonce, balance, storage root, code hash]; Rejected ("bad_account")."""
    item = decode_rlp(value)
    if not isinstance(item, list) or len(item) != 4 or not all(_is_hash(part) for part in item[2:]):
        raise Rejected("not an account", got=value, reason="bad_account")
    nonce, balance, storage_root, code_hash = item
    assert isinstance(storage_root, bytes)
    assert isinstance(code_hash, bytes)
    return Account(decode_rlp_integer(nonce, 8), decode_rlp_integer(balance), storage_root, code_hash)


def _is_hash(item: RlpItem) -> bool:
    return isinstance(item, bytes) and len(item) == 32


def verify_slot(storage_root: bytes, slot: int, nodes: tuple[bytes, ...]) -> bytes:
    """Return the 32 bytes of a storage slot under a proven storage root; zero is proven absence.

    Raises Rejected: "bad_slot_value" (a zero is never stored), "bad_rlp", and the reasons of `verify_trie_value`.
    """
    value = verify_trie_value(storage_root, keccak256(slot.to_bytes(32, "big")), nodes, MAX_STATE_NODE_BYTES)
    if value is None:
        return ZERO32
    number = decode_rlp_integer(decode_rlp(value))
    if number == 0:
        raise Rejected("a zero is not stored", got=value, reason="bad_slot_value")
    return number.to_bytes(32, "big")


def compute_proof_digest(header: LightClientHeader, proof: Proof) -> bytes:
    """Return keccak256 of RLP [beacon block root, address, slot (32 bytes), account nodes, storage nodes].

    It names the evidence of a fact in the store; it is never a key for settlement, because one claim has many proofs.
    """
    return keccak256(
        encode_rlp(
            [
                compute_header_root(header.beacon),
                proof.address,
                proof.slot.to_bytes(32, "big"),
                list(proof.account_nodes),
                list(proof.storage_nodes),
            ]
        )
    )
