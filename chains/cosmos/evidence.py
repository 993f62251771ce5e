"""Misbehaviour of CometBFT validators, as proof that others can check (F1). Pure.

Honest validators sign one block a height, and times rise with heights. Two signed blocks that break this prove that more than a third of
some validator set lied, to anyone who trusts a header before both. Such a proof is portable: two light blocks, nothing else; it is checked
with *every* signature, because it accuses each signer by name and verification of updates stops at two thirds (F7).

`watch_witness` compares what a source gave with what another one says (F3): a difference is either proven, and the chain stops, or it is
the witness's lie.

Source: ibc-go 07-tendermint `misbehaviour_handle.go`; CometBFT `light/detector.go`, `types/evidence.go`; specification "Attack detection".
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum

from chains.cosmos.light_client import (
    LightClientConfig,
    Steps,
    is_expired,
    is_from_future,
    is_trusted_by,
    verify_block,
    verify_two_thirds,
    walk,
)
from chains.cosmos.types import LightBlock, Misbehaviour, Trusted
from chains.cosmos.validators import get_addresses, get_signers
from messages.errors import Conflict, Rejected


class Attack(Enum):
    """What a conflicting block is beside the true one of its height."""

    LUNATIC = "lunatic"
    """Its header holds what the chain never computed: other validators, another state."""
    EQUIVOCATION = "equivocation"
    """A valid header, signed beside the true one in the same round."""
    AMNESIA = "amnesia"
    """A valid header of another round: who forgot a lock cannot be told from the commits alone."""


def find_misbehaviour(first: LightBlock, second: LightBlock) -> Misbehaviour | None:
    """Return the evidence that two blocks make together, if they exclude each other. Judges no signature.

    One height with two headers is a "fork", whatever the commits look like; a higher block without a later time is a fault of "time".
    """
    if first.header.chain_id != second.header.chain_id:
        return None
    if first.header.height < second.header.height:
        first, second = second, first
    if first.header.height == second.header.height:
        is_fork = first.commit.block_id.hash != second.commit.block_id.hash
        return Misbehaviour("fork", first, second) if is_fork else None
    return Misbehaviour("time", first, second) if first.header.time_ns <= second.header.time_ns else None


def verify_misbehaviour(
    evidence: Misbehaviour,
    trusted: Trusted,
    now_ns: int,
    config: LightClientConfig,
    second_trusted: Trusted | None = None,
) -> None:
    """Check evidence against headers that the verifier trusts: each block proven by one below it, every signature valid.

    Args:
        evidence: two blocks; first is judged against ``trusted``.
        trusted: what the verifier believes.
        now_ns: nanoseconds since 1970.
        config: of the light client.
        second_trusted: what the second block is judged against, where that is another header.

    Raises Rejected: "no_misbehaviour" (they do not exclude each other, or not as claimed), and the reasons of `verify_statement`.
    """
    found = find_misbehaviour(evidence.first, evidence.second)
    if found is None or found.kind != evidence.kind:
        raise Rejected("the blocks do not exclude each other as claimed", got=evidence.kind, reason="no_misbehaviour")
    verify_statement(trusted, evidence.first, now_ns, config)
    verify_statement(second_trusted or trusted, evidence.second, now_ns, config)


def verify_statement(trusted: Trusted, block: LightBlock, now_ns: int, config: LightClientConfig) -> None:
    """Check that validators whom a trusted header vouches for really said a block; its time is not judged against the trusted one.

    Raises Rejected: "expired", "future", "not_newer", "not_enough_trust", "too_few", "bad_signature", and the reasons of `verify_block`
    and `is_trusted_by`.
    """
    if is_expired(trusted, now_ns, config):
        raise Rejected("the trusted header is too old to judge anybody", got=trusted.time_ns, reason="expired")
    if block.header.height <= trusted.height:
        raise Rejected(
            "evidence about a block that the trusted header does not precede",
            got=block.header.height,
            expected=f"> {trusted.height}",
            reason="not_newer",
        )
    votes = verify_block(block, config)
    if is_from_future(block.header, now_ns, config):
        raise Rejected("evidence from the future: check the clock", got=block.header.time_ns, reason="future")
    if not is_trusted_by(trusted, block, votes, config):
        raise Rejected(
            "too few of the trusted validators signed: this accuses nobody whom the trusted header knows",
            got=block.header.height,
            reason="not_enough_trust",
        )
    verify_two_thirds(votes, block)
    votes.verify_all()


# ---- against the trusted header itself --------------------------------------------------------------------------------


def is_conflict(trusted: Trusted, block: LightBlock) -> bool:
    """Ask whether a block contradicts the trusted header: another one at its height, or a time that does not follow the height's order."""
    header = block.header
    if header.height == trusted.height:
        return block.commit.block_id.hash != trusted.header_hash
    return (header.height > trusted.height) != (header.time_ns > trusted.time_ns)


def verify_no_conflict(trusted: Trusted, block: LightBlock, now_ns: int, config: LightClientConfig) -> None:
    """Stop at a block that contradicts the trusted header and that its validators really signed.

    A block at or above the trusted height is proven by the announced set, or by the trusted header's own set where it is the same height.
    What nobody of them signed is a lie of its source and no conflict; so is anything below, which one trusted header cannot judge.

    Raises Conflict ("equivocation"); Rejected as `verify_statement`, "not_enough_trust" where the signers are strangers.
    """
    if not is_conflict(trusted, block) or block.header.height < trusted.height:
        return
    if block.header.height > trusted.height:
        verify_statement(trusted, block, now_ns, config)
    else:
        if is_expired(trusted, now_ns, config):
            raise Rejected("the trusted header is too old to judge anybody", got=trusted.time_ns, reason="expired")
        votes = verify_block(block, config)
        known = trusted.next_validators
        is_of_chain = block.header.validators_hash == trusted.validators_hash or (
            known is not None and votes.verify_power(known, config.trust_level)
        )
        if not is_of_chain:
            raise Rejected("strangers signed this block", got=block.header.validators_hash, reason="not_enough_trust")
        verify_two_thirds(votes, block)
        votes.verify_all()
    raise Conflict(
        "validators signed what excludes the trusted header",
        got=(block.header.height, block.commit.block_id.hash.hex(), block.header.time_ns),
        expected=(trusted.height, trusted.header_hash.hex(), trusted.time_ns),
        reason="equivocation",
    )


# ---- witnesses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Divergence:
    """A proven contradiction of two sources: the evidence, and the headers that prove its first and its second block.

    ``common`` is the last header of the way on which both agree; ``second_trusted`` differs from it where the witness's block needs blocks
    between.
    """

    common: Trusted
    second_trusted: Trusted
    evidence: Misbehaviour


def watch_witness(
    trusted: Trusted, steps: Steps, now_ns: int, config: LightClientConfig
) -> Generator[int, LightBlock, Divergence | None]:
    """Compare a verified way with what a witness says at each of its heights: yields heights, is sent the witness's blocks.

    Returns None where the witness agrees at the last height. Else the evidence: the block of the way (first) and the witness's block
    (second) of one height, each proven from the last header on which both agree.

    Args:
        trusted: where the way began.
        steps: result of `light_client.walk` or `walk_every_block`.
        now_ns: nanoseconds since 1970.
        config: of the light client.

    Raises Rejected: "witness_diverged" (the witness contradicts what was verified and cannot prove it: do not go on with it, and do not
    believe either before a third source was asked), "wrong_height".
    """
    if not steps:
        return None
    last, _ = steps[-1]
    claimed = yield last.header.height
    if claimed.commit.block_id.hash == last.commit.block_id.hash:
        return None
    common = trusted
    for block, state in steps:
        height = block.header.height
        other = claimed if height == last.header.height else (yield height)
        if other.header.height != height:
            raise Rejected("a block of another height", got=other.header.height, expected=height, reason="wrong_height")
        if other.commit.block_id.hash == block.commit.block_id.hash:
            common = state
            continue
        try:
            # the witness's block may need its own blocks between; the common header then vouches for each in turn
            path = yield from walk(common, height, now_ns, config)
            evidence = find_misbehaviour(block, path[-1][0])
            verify_statement(path[-2][1] if len(path) > 1 else common, path[-1][0], now_ns, config)
        except Rejected as error:
            raise Rejected(
                "a witness contradicts what was verified and cannot prove it",
                got=error.reason,
                expected=f"the header {block.commit.block_id.hash.hex()} at {height}",
                reason="witness_diverged",
            ) from error
        if evidence is None:
            raise Rejected("a witness says two things of one height", got=height, reason="witness_diverged")
        second_trusted = path[-2][1] if len(path) > 1 else common
        return Divergence(common, second_trusted, evidence)
    raise AssertionError("the last block differs, so the loop has returned")


def classify_attack(conflicting: LightBlock, true: LightBlock) -> Attack:
    """Return which attack a conflicting block is, given the chain's true block of its height (`GetByzantineValidators`)."""
    a, b = conflicting.header, true.header
    computed = ("validators_hash", "next_validators_hash", "consensus_hash", "app_hash", "last_results_hash")
    if any(getattr(a, name) != getattr(b, name) for name in computed):
        return Attack.LUNATIC
    return Attack.EQUIVOCATION if conflicting.commit.round == true.commit.round else Attack.AMNESIA


def get_byzantine(conflicting: LightBlock, true: LightBlock, common: Trusted) -> tuple[bytes, ...]:
    """Return the addresses of validators whom a conflicting block convicts, sorted; nobody for amnesia.

    For a lunatic block: members of the common header's announced set who signed it; for an equivocation: who signed both blocks.
    """
    attack = classify_attack(conflicting, true)
    signers = get_signers(conflicting)
    if attack is Attack.EQUIVOCATION:
        return tuple(sorted(signers & get_signers(true)))
    if attack is Attack.LUNATIC and common.next_validators is not None:
        return tuple(sorted(signers & get_addresses(common.next_validators)))
    return ()
