"""Validator sets and their commits: whose vote counts, how much power signed, whether it really signed. Pure.

Rules kept here, each from an incident:
* slot i of a commit belongs to validator i of the height's set, and its address must say so (F4): power is never found by one and
  credited by the other;
* absent and nil votes count for no power (F5);
* a member counts once, under whichever set it is counted.

Source: CometBFT `types/validation.go` (VerifyCommitLight, VerifyCommitLightTrusting), specification "Light client verification".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import NamedTuple

from coincurve import PublicKey as Secp256k1Key
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from chains.cosmos import ed25519
from chains.cosmos.ed25519 import find_invalid
from chains.cosmos.ed25519_batch import Case
from chains.cosmos.hashing import VoteEncoder, compute_address, compute_validators_hash
from chains.cosmos.types import CommitSig, Flag, KeyType, LightBlock, PublicKey, ValidatorSet
from messages.errors import Rejected

MAX_VALIDATORS = 10_000
MAX_TOTAL_POWER = (2**63 - 1) // 8
"""MaxTotalVotingPower of CometBFT: sums and products of powers stay within 64 bits there."""
TWO_THIRDS = (2, 3)
_KEY_BYTES = {KeyType.ED25519: 32, KeyType.SECP256K1: 33}
_KNOWN_SETS = 8
"""Sets whose facts are kept: they change seldom, and each block names the same two again."""
_VOTING = (Flag.COMMIT, Flag.NIL)
_SECP256K1_HALF_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


# ---- sets -------------------------------------------------------------------------------------------------------------


class SetFacts(NamedTuple):
    """What follows from the members of a set and nothing else: their addresses in order, slot by address, hash, soundness."""

    addresses: tuple[bytes, ...]
    slots: dict[bytes, int]
    hash: bytes
    is_sound: bool


@lru_cache(maxsize=_KNOWN_SETS)
def study(validators: ValidatorSet) -> SetFacts:
    """Return the facts of a set. Kept by *content* (kind, key and power of everybody in order), so no two sets can be taken for one."""
    members = validators.members
    addresses = tuple(compute_address(member.key) for member in validators.validators)
    is_sound = (
        0 < len(members) <= MAX_VALIDATORS
        and all(power > 0 and len(data) == _KEY_BYTES[kind] for kind, data, power in members)
        and validators.total_power <= MAX_TOTAL_POWER
        and len({(kind, data) for kind, data, _ in members}) == len(members)
    )
    slots = {address: slot for slot, address in enumerate(addresses)}
    return SetFacts(addresses, slots, compute_validators_hash(validators), is_sound)


# ---- predicates -------------------------------------------------------------------------------------------------------


def is_sound_set(validators: ValidatorSet) -> bool:
    """Ask whether a set has 1 to 10,000 members, positive powers within the chain's bound, keys of their size and nobody twice."""
    return study(validators).is_sound


def is_set_of(validators: ValidatorSet, validators_hash: bytes) -> bool:
    """Ask whether a set is the one that a header names by its hash."""
    return study(validators).hash == validators_hash


def is_sound_vote(vote: CommitSig) -> bool:
    """Ask whether a slot is what its flag says: an absent one says nothing, another one has address and signature.

    The time of an absent slot is read by nobody, and relayers differ in what they put there.
    """
    flag = vote.flag
    if flag in _VOTING:
        return len(vote.address) == 20 and len(vote.signature) == 64
    return flag == Flag.ABSENT and not vote.address and not vote.signature


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
        self._facts = study(block.validators)
        self._checked: set[int] = set()

    @cached_property
    def _encoder(self) -> VoteEncoder:
        return VoteEncoder(self._block.header.chain_id, self._block.commit)

    @cached_property
    def _voting(self) -> list[int]:
        """Slots that are a vote for the block (F5: nil is none), ascending."""
        commit = Flag.COMMIT
        return [slot for slot, vote in enumerate(self._block.commit.signatures) if vote.flag == commit]

    def get_signers(self) -> frozenset[bytes]:
        """Return the addresses of those whose slot is a vote for the block."""
        return frozenset(self._facts.addresses[slot] for slot in self._voting)

    def is_of_set(self) -> bool:
        """Ask whether the commit has one slot a validator and every address is that of its slot's validator (F4)."""
        votes, addresses = self._block.commit.signatures, self._facts.addresses
        return len(votes) == len(addresses) and all(
            vote.address == address or vote.flag == Flag.ABSENT for vote, address in zip(votes, addresses, strict=True)
        )

    def verify_power(self, validators: ValidatorSet, fraction: tuple[int, int]) -> bool:
        """Tell whether members of a set with more than a fraction of its power signed the block.

        What the slots claim is added up first, so that no signature is checked where even all of them would not do; then signatures are
        checked in the order of the commit, as many as are enough.

        Raises Rejected ("bad_signature") when one of those is wrong.
        """
        total = validators.total_power
        # where the trusted set is the block's own, two thirds of it are asked for next: one equation for both questions
        is_own = study(validators) is self._facts
        signed, enough, needed = 0, 0, []
        for slot, power in self._get_claims(validators):
            needed.append(slot)
            signed += power
            if is_above(signed, total, fraction):
                enough = enough or len(needed)
                if not is_own or is_above(signed, total, TWO_THIRDS):
                    enough = len(needed)
                    break
        if not enough:
            return False
        self._verify_slots(needed[:enough])
        return True

    def _get_claims(self, validators: ValidatorSet) -> Iterator[tuple[int, int]]:
        """Yield slot and power of the members of a set who say that they voted for the block, in the order of the commit."""
        members, known, addresses = validators.validators, study(validators), self._facts.addresses
        if known is self._facts:
            for slot in self._voting:
                yield slot, members[slot].power
            return
        for slot in self._voting:
            place = known.slots.get(addresses[slot])
            if place is not None:
                yield slot, members[place].power

    def _verify_slots(self, slots: Iterable[int]) -> None:
        """Check the signatures of slots that are not absent and not yet checked; Rejected ("bad_signature") for the first wrong one."""
        votes, members, encode = self._block.commit.signatures, self._block.validators.validators, self._encoder.encode
        asked = [slot for slot in slots if slot not in self._checked]
        edwards: dict[int, Case] = {}
        wrong = []
        for slot in asked:
            vote, key = votes[slot], members[slot].key
            message = encode(vote.flag, vote.time_ns)
            if key.kind is KeyType.ED25519:
                edwards[slot] = (key.data, message, vote.signature)
            elif not is_valid_signature(key, message, vote.signature):
                wrong.append(slot)
        place = find_invalid(list(edwards.values()))
        if place is not None:
            wrong.append(list(edwards)[place])
        if wrong:
            slot = min(wrong)
            raise Rejected(
                "a validator did not sign what the commit says",
                got=votes[slot].signature,
                expected=f"a signature of validator {slot} ({votes[slot].address.hex()})",
                reason="bad_signature",
            )
        self._checked.update(asked)

    def verify_all(self) -> None:
        """Check every signature, also of nil votes and beyond two thirds: evidence accuses each signer by name (F7).

        Raises Rejected ("bad_signature").
        """
        votes = self._block.commit.signatures
        self._verify_slots(slot for slot, vote in enumerate(votes) if vote.flag != Flag.ABSENT)


def get_signers(block: LightBlock) -> frozenset[bytes]:
    """Return the addresses of those whose slot is a vote for the block. Checks no signature."""
    return Votes(block).get_signers()


def get_addresses(validators: ValidatorSet) -> frozenset[bytes]:
    """Return the addresses of a set."""
    return frozenset(study(validators).addresses)
