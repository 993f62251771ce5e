"""Validator sets and their commits: whose vote counts, how much power signed, whether it really signed. Pure.

Rules kept here, each from an incident:
* slot i of a commit belongs to validator i of the height's set, and its address must say so (F4): power is never found by one and
  credited by the other;
* absent and nil votes count for no power (F5);
* a member counts once, under whichever set it is counted.

Source: CometBFT `types/validation.go` (VerifyCommitLight, VerifyCommitLightTrusting), specification "Light client verification".
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256

from coincurve import PublicKey as Secp256k1Key
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from chains.cosmos import ed25519
from chains.cosmos.hashing import VoteEncoder, compute_address
from chains.cosmos.types import CommitSig, Flag, KeyType, LightBlock, PublicKey, Validator, ValidatorSet
from messages.errors import Rejected

MAX_VALIDATORS = 10_000
MAX_TOTAL_POWER = (2**63 - 1) // 8
"""MaxTotalVotingPower of CometBFT: sums and products of powers stay within 64 bits there."""
TWO_THIRDS = (2, 3)
_KEY_BYTES = {KeyType.ED25519: 32, KeyType.SECP256K1: 33}
_SECP256K1_HALF_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


# ---- predicates -------------------------------------------------------------------------------------------------------


def is_sound_set(validators: ValidatorSet) -> bool:
    """Ask whether a set has 1 to 10,000 members, positive powers within the chain's bound, keys of their size and nobody twice."""
    members = validators.validators
    return (
        0 < len(members) <= MAX_VALIDATORS
        and all(member.power > 0 and len(member.key.data) == _KEY_BYTES[member.key.kind] for member in members)
        and validators.total_power <= MAX_TOTAL_POWER
        and len({member.key for member in members}) == len(members)
    )


def is_sound_vote(vote: CommitSig) -> bool:
    """Ask whether a slot is what its flag says: an absent one says nothing, another one has address and signature.

    The time of an absent slot is read by nobody, and relayers differ in what they put there.
    """
    if vote.flag == Flag.ABSENT:
        return not vote.address and not vote.signature
    return vote.flag in {Flag.COMMIT, Flag.NIL} and len(vote.address) == 20 and len(vote.signature) == 64


def is_above(power: int, total: int, fraction: tuple[int, int]) -> bool:
    """Ask whether a power is *more* than a fraction of a total; exact, in integers."""
    return power * fraction[1] > total * fraction[0]


def is_valid_signature(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Ask whether a validator's key signed a message: ed25519 under ZIP-215, secp256k1 over SHA-256 with low s (64 bytes r || s)."""
    if key.kind is KeyType.ED25519:
        return ed25519.is_valid(key.data, message, signature)
    if len(signature) != 64 or int.from_bytes(signature[32:], "big") > _SECP256K1_HALF_ORDER:
        return False
    try:
        der = cdata_to_der(deserialize_compact(signature))
        return bool(Secp256k1Key(key.data).verify(der, sha256(message).digest(), hasher=None))
    except ValueError:  # no point of the curve, or a number beyond the order
        return False


# ---- the votes of one block -------------------------------------------------------------------------------------------


class Votes:
    """The votes of a light block by slot. Each signature is checked at most once, whichever sets it counts for."""

    def __init__(self, block: LightBlock) -> None:
        self._block = block
        self._encoder = VoteEncoder(block.header.chain_id, block.commit)
        self._checked: set[int] = set()

    @cached_property
    def addresses(self) -> list[bytes]:
        """Addresses of the block's own set, in order."""
        return [compute_address(member.key) for member in self._block.validators.validators]

    @cached_property
    def signers(self) -> dict[bytes, int]:
        """Address -> slot of everyone whose slot is a vote for the block (F5: nil is none)."""
        votes = self._block.commit.signatures
        return {self.addresses[i]: i for i, vote in enumerate(votes) if vote.flag == Flag.COMMIT}

    def is_of_set(self) -> bool:
        """Ask whether the commit has one slot a validator and every address is that of its slot's validator (F4)."""
        votes = self._block.commit.signatures
        return len(votes) == len(self.addresses) and all(
            vote.flag == Flag.ABSENT or vote.address == address
            for vote, address in zip(votes, self.addresses, strict=True)
        )

    def verify_power(self, validators: ValidatorSet, fraction: tuple[int, int]) -> bool:
        """Tell whether members of a set with more than a fraction of its power signed the block.

        What the slots claim is added up first, so that no signature is checked where even all of them would not do; then signatures are
        checked in the order of the commit until there are enough.

        Raises Rejected ("bad_signature") when a signature on the way is wrong.
        """
        total = validators.total_power
        claimed = sorted(
            (self.signers[address], member.power)
            for member, address in self._get_members(validators)
            if address in self.signers
        )
        if not is_above(sum(power for _, power in claimed), total, fraction):
            return False
        signed = 0
        for slot, power in claimed:
            self.verify_slot(slot)
            signed += power
            if is_above(signed, total, fraction):
                return True
        return False

    def _get_members(self, validators: ValidatorSet) -> list[tuple[Validator, bytes]]:
        if validators is self._block.validators:
            return list(zip(validators.validators, self.addresses, strict=True))
        return [(member, compute_address(member.key)) for member in validators.validators]

    def verify_slot(self, slot: int) -> None:
        """Check the signature of a slot that is not absent; Rejected ("bad_signature")."""
        if slot in self._checked:
            return
        vote = self._block.commit.signatures[slot]
        member = self._block.validators.validators[slot]
        message = self._encoder.encode(Flag(vote.flag), vote.time_ns)
        if not is_valid_signature(member.key, message, vote.signature):
            raise Rejected(
                "a validator did not sign what the commit says",
                got=vote.signature,
                expected=f"a signature of validator {slot} ({vote.address.hex()})",
                reason="bad_signature",
            )
        self._checked.add(slot)

    def verify_all(self) -> None:
        """Check every signature, also of nil votes and beyond two thirds: evidence accuses each signer by name (F7)."""
        for slot, vote in enumerate(self._block.commit.signatures):
            if vote.flag != Flag.ABSENT:
                self.verify_slot(slot)


def get_signers(block: LightBlock) -> frozenset[bytes]:
    """Return the addresses of those whose slot is a vote for the block. Checks no signature."""
    return frozenset(Votes(block).signers)


def get_addresses(validators: ValidatorSet) -> frozenset[bytes]:
    """Return the addresses of a set."""
    return frozenset(compute_address(member.key) for member in validators.validators)
