"""From the word of m operators to an outbox head that counts: tier 3, and it says so. Pure.

The only place of this family where a `ProvenHead` is made. The header hash is zero, because no header proves anything here; the time is the
lowest clock that all m have seen, so absence by that time is as good as their word, and no better.
"""

from __future__ import annotations

from chains.solana.types import Trusted
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ChainId
from messages.outbox import ProvenHead, TrustTier

ZERO32 = bytes(32)
ATTESTED = 3


def verify_head(trusted: Trusted, head: bytes, evidence: bytes, *, chain: ChainId) -> ProvenHead:
    """The head that m operators stand for, if it is the claimed one.

    Args:
        trusted: by `observations.verify_update`.
        head: 32 bytes, what a source claims.
        evidence: the encoded observations, as stored; their digest names the evidence of the facts.
        chain: CAIP-2.

    Raises Rejected: "zero_head", "wrong_head".
    """
    if len(head) != 32 or head == ZERO32:
        raise Rejected("a head is 32 non-zero bytes", got=head, reason="zero_head")
    if head != trusted.head:
        raise Rejected("not the head that operators stand for", got=head, expected=trusted.head, reason="wrong_head")
    return ProvenHead(
        vault_id=trusted.vault_id,
        chain=chain,
        height=trusted.slot,
        header_hash=ZERO32,
        time=trusted.clock,
        head=head,
        tier=TrustTier(ATTESTED, trusted.m, trusted.n),
        proof_digest=keccak256(trusted.vault_id + keccak256(evidence)),
    )
