"""The CometBFT light client: from a checkpoint to any later header, believing signatures of validators only.

Trust model: of the validators of a trusted header, more than a third of the power (the trust level) still is honest and bonded for the whole
trusting period, which must be shorter than the unbonding period; and of each header's own set more than two thirds signed. Limits:
* a trusted header expires (F8); after that only a new checkpoint helps;
* validators above a third may show two chains: then both are signed, and `evidence` makes proof of it; this module believes the first
  it saw, so several sources must be asked (F1, F3);
* a header from beyond the clock drift is refused (F2);
* a chain that was upgraded to a new revision (name-2) is another chain here: it needs a new checkpoint.

The order of checks is a security decision: shape, times and hashes cost nothing or a few hashes and come first. Power is counted before
signatures are checked; the overlap with the trusted set comes before the block's own set, because the latter may be made large by
whoever sent it.

Source: CometBFT specification, "Light client verification"; `light/verifier.go`; ibc-go 07-tendermint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum

from chains.cosmos.hashing import compute_header_hash
from chains.cosmos.types import NANOSECONDS, BlockId, Commit, Header, LightBlock, Trusted
from chains.cosmos.validators import TWO_THIRDS, Votes, is_set_of, is_sound_set, is_sound_vote
from messages.errors import Rejected

BLOCK_PROTOCOL = 11
MAX_CHAIN_ID_BYTES = 50
MAX_APP_HASH_BYTES = 64
MAX_HEIGHT = 2**63 - 1
MAX_ROUND = 2**31 - 1
MAX_BISECTION_DEPTH = 64
"""Halvings between two heights of 63 bits: deeper is impossible."""
MAX_BISECTION_FETCHES = 256
"""Bound of one walk: a source that makes us fetch more is refused."""
DAY_NS = 86_400 * NANOSECONDS
_REVISION = re.compile(r".*[^-]-([1-9][0-9]{0,18})")


class Verdict(Enum):
    """What may come of a sound update: applied, or too far from the trusted header for its validators to be known."""

    SUCCESS = "success"
    NOT_ENOUGH_TRUST = "not_enough_trust"


@dataclass(frozen=True)
class LightClientConfig:
    """What an operator chooses. ``trust_level`` is a fraction (numerator, denominator) from a third to one."""

    chain_id: str
    trust_level: tuple[int, int] = (1, 3)
    trusting_period_ns: int = 7 * DAY_NS
    max_clock_drift_ns: int = 10 * NANOSECONDS

    def __post_init__(self) -> None:
        if not is_valid_trust_level(self.trust_level):
            raise Rejected("trust level", got=self.trust_level, expected="1/3 to 1", reason="bad_config")
        if not 0 < len(self.chain_id.encode()) <= MAX_CHAIN_ID_BYTES:
            raise Rejected("chain id", got=self.chain_id, expected="1 to 50 bytes", reason="bad_config")
        if self.trusting_period_ns <= 0 or self.max_clock_drift_ns < 0:
            raise Rejected(
                "trusting period or clock drift",
                got=(self.trusting_period_ns, self.max_clock_drift_ns),
                reason="bad_config",
            )


# ---- predicates: one rule each ----------------------------------------------------------------------------------------


def is_valid_trust_level(level: tuple[int, int]) -> bool:
    """Ask whether a trust level lies between a third and one (ValidateTrustLevel)."""
    numerator, denominator = level
    return 0 < numerator <= denominator <= 3 * numerator


def get_revision(chain_id: str) -> int:
    """Return the revision number in a chain id, "name-4" being 4, and 0 for a name without one (ICS-02 of ibc-go)."""
    match = _REVISION.fullmatch(chain_id)
    return int(match[1]) if match else 0


def is_expired(trusted: Trusted, now_ns: int, config: LightClientConfig) -> bool:
    """Ask whether a trusted header is too old to build on; the instant of expiry is expired (F8)."""
    return now_ns >= trusted.time_ns + config.trusting_period_ns


def is_from_future(header: Header, now_ns: int, config: LightClientConfig) -> bool:
    """Ask whether a header's time is at or beyond the local clock and its drift (F2)."""
    return header.time_ns >= now_ns + config.max_clock_drift_ns


def is_adjacent(trusted: Trusted, header: Header) -> bool:
    """Ask whether a header directly follows the trusted one."""
    return header.height == trusted.height + 1


def is_sound_block_id(block_id: BlockId) -> bool:
    """Ask whether a block id is empty or complete, its hashes of 32 bytes."""
    return len(block_id.hash) in {0, 32} and len(block_id.parts.hash) in {0, 32} and block_id.parts.total >= 0


def is_sound_header(header: Header) -> bool:
    """Ask whether sizes and numbers of a header are within the chain's rules (Header.ValidateBasic)."""
    hashes = (
        header.last_commit_hash,
        header.data_hash,
        header.evidence_hash,
        header.last_results_hash,
        header.consensus_hash,
    )
    return (
        header.version_block == BLOCK_PROTOCOL
        and len(header.chain_id.encode()) <= MAX_CHAIN_ID_BYTES
        and 0 < header.height <= MAX_HEIGHT
        and is_sound_block_id(header.last_block_id)
        and all(len(value) in {0, 32} for value in hashes)
        and len(header.validators_hash) == len(header.next_validators_hash) == 32
        and len(header.app_hash) <= MAX_APP_HASH_BYTES
        and len(header.proposer_address) == 20
    )


def is_sound_commit(commit: Commit) -> bool:
    """Ask whether a commit names one whole block and its slots are what their flags say (Commit.ValidateBasic)."""
    block_id = commit.block_id
    return (
        0 < commit.height <= MAX_HEIGHT
        and 0 <= commit.round <= MAX_ROUND
        and len(block_id.hash) == len(block_id.parts.hash) == 32
        and block_id.parts.total > 0
        and bool(commit.signatures)
        and all(is_sound_vote(vote) for vote in commit.signatures)
    )


# ---- verifier: reads like the list of rules ---------------------------------------------------------------------------


def verify_bootstrap(
    block: LightBlock, height: int, header_hash: bytes, now_ns: int, config: LightClientConfig
) -> Trusted:
    """Return the first trusted state, under a height and a 32-byte header hash that the operator got from people.

    Raises Rejected: "no_checkpoint" (zero hash), "wrong_checkpoint", "future", "expired", and the reasons of `verify_block` and
    `verify_two_thirds`.
    """
    if len(header_hash) != 32 or not any(header_hash) or height <= 0:
        raise Rejected("a checkpoint is a height and 32 non-zero bytes", got=header_hash, reason="no_checkpoint")
    votes = verify_block(block, config)
    got = block.commit.block_id.hash
    if block.header.height != height or got != header_hash:
        raise Rejected(
            "the header is not the checkpoint's",
            got=(block.header.height, got.hex()),
            expected=(height, header_hash.hex()),
            reason="wrong_checkpoint",
        )
    _verify_not_from_future(block.header, now_ns, config)
    trusted = make_trusted(block)
    _verify_not_expired(trusted, now_ns, config)
    verify_two_thirds(votes, block)
    return trusted


def verify_update(trusted: Trusted, block: LightBlock, now_ns: int, config: LightClientConfig) -> Trusted:
    """Return the trusted state after an update, at ``now_ns`` (nanoseconds since 1970).

    On return: the block is of this chain, later in height and time, not from the future; enough of the validators that the trusted header
    named are among its signers (all of the power's two thirds if it is the next block); and more than two thirds of its own set signed.

    Raises Rejected: "not_enough_trust" (fetch a block between: `walk`), and the reasons of `judge_update`.
    """
    if judge_update(trusted, block, now_ns, config) is Verdict.NOT_ENOUGH_TRUST:
        raise Rejected(
            "too few of the trusted validators signed: verify a block between first",
            got=block.header.height,
            expected=f"more than {config.trust_level[0]}/{config.trust_level[1]} of the validators of {trusted.height}",
            reason="not_enough_trust",
        )
    return make_trusted(block)


def judge_update(trusted: Trusted, block: LightBlock, now_ns: int, config: LightClientConfig) -> Verdict:
    """Return whether a sound block is proven by a trusted one, or too far away for that.

    Raises Rejected: "expired" (re-anchor from a new checkpoint), "not_newer" (expected: nothing to do), "time_order", "future",
    "wrong_validators" (not the set that the trusted header announced), "too_few", "bad_signature", and the reasons of `verify_block`.
    """
    _verify_not_expired(trusted, now_ns, config)
    votes = verify_block(block, config)
    header = block.header
    if header.height <= trusted.height:
        raise Rejected("the block is not newer", got=header.height, expected=f"> {trusted.height}", reason="not_newer")
    if header.time_ns <= trusted.time_ns:
        raise Rejected(
            "a later height without a later time",
            got=header.time_ns,
            expected=f"> {trusted.time_ns}",
            reason="time_order",
        )
    _verify_not_from_future(header, now_ns, config)
    if not is_trusted_by(trusted, block, votes, config):
        return Verdict.NOT_ENOUGH_TRUST
    verify_two_thirds(votes, block)
    return Verdict.SUCCESS


def verify_block(block: LightBlock, config: LightClientConfig) -> Votes:
    """Check what a block says about itself, no signature yet; return its votes.

    Raises Rejected: "bad_shape", "revision", "wrong_chain", "wrong_commit" (height or hash), "wrong_validators" (a set that the header
    does not name), "commit_mismatch" (slots that are not the set's, F4).
    """
    header, commit = block.header, block.commit
    if not is_sound_header(header) or not is_sound_commit(commit) or not is_sound_set(block.validators):
        raise Rejected("sizes or numbers are not those of the chain", got=header.height, reason="bad_shape")
    _verify_chain(header, config)
    if commit.height != header.height or commit.block_id.hash != compute_header_hash(header):
        raise Rejected(
            "the commit is about another header",
            got=(commit.height, commit.block_id.hash.hex()),
            expected=(header.height, compute_header_hash(header).hex()),
            reason="wrong_commit",
        )
    if not is_set_of(block.validators, header.validators_hash):
        raise Rejected("the validators are not those of the header", got=header.height, reason="wrong_validators")
    following = block.next_validators
    if following is not None and not (is_sound_set(following) and is_set_of(following, header.next_validators_hash)):
        raise Rejected("the next validators are not those of the header", got=header.height, reason="wrong_validators")
    votes = Votes(block)
    if not votes.is_of_set():
        raise Rejected(
            "the commit's slots are not those of the validator set",
            got=len(commit.signatures),
            expected=len(block.validators.validators),
            reason="commit_mismatch",
        )
    return votes


def is_trusted_by(trusted: Trusted, block: LightBlock, votes: Votes, config: LightClientConfig) -> bool:
    """Ask whether a trusted header vouches for a later block's validators.

    For the next block its set must be the announced one. For others more than the trust level of the announced set must have signed; where
    that set is not known (its source left it out), only the next block can be judged.

    Raises Rejected: "wrong_validators", "bad_signature".
    """
    if is_adjacent(trusted, block.header):
        if block.header.validators_hash != trusted.next_validators_hash:
            raise Rejected(
                "the validators are not those that the trusted header announced",
                got=block.header.validators_hash,
                expected=trusted.next_validators_hash,
                reason="wrong_validators",
            )
        return True
    known = trusted.next_validators
    return known is not None and votes.verify_power(known, config.trust_level)


def verify_two_thirds(votes: Votes, block: LightBlock) -> None:
    """Check that more than two thirds of a block's own set signed it; Rejected ("too_few", "bad_signature")."""
    if not votes.verify_power(block.validators, TWO_THIRDS):
        raise Rejected(
            "too little of the validators' power signed",
            got=block.header.height,
            expected="more than 2/3",
            reason="too_few",
        )


def make_trusted(block: LightBlock) -> Trusted:
    """Return the trusted state that a verified block gives. Checks nothing."""
    header = block.header
    following = block.next_validators
    if following is None and header.next_validators_hash == header.validators_hash:
        following = block.validators
    return Trusted(
        chain_id=header.chain_id,
        height=header.height,
        time_ns=header.time_ns,
        header_hash=block.commit.block_id.hash,
        app_hash=header.app_hash,
        validators_hash=header.validators_hash,
        next_validators_hash=header.next_validators_hash,
        next_validators=following,
    )


def _verify_chain(header: Header, config: LightClientConfig) -> None:
    if header.chain_id == config.chain_id:
        return
    if get_revision(header.chain_id) != get_revision(config.chain_id):
        raise Rejected(
            "the chain has another revision: after an upgrade a new checkpoint is needed",
            got=header.chain_id,
            expected=config.chain_id,
            reason="revision",
        )
    raise Rejected("another chain", got=header.chain_id, expected=config.chain_id, reason="wrong_chain")


def _verify_not_expired(trusted: Trusted, now_ns: int, config: LightClientConfig) -> None:
    if is_expired(trusted, now_ns, config):
        raise Rejected(
            "the trusted header is older than the trusting period: re-anchor from a new checkpoint",
            got=trusted.time_ns,
            expected=f"> {now_ns - config.trusting_period_ns}",
            reason="expired",
        )


def _verify_not_from_future(header: Header, now_ns: int, config: LightClientConfig) -> None:
    if is_from_future(header, now_ns, config):
        raise Rejected(
            "the header lies in the future: check the clock",
            got=header.time_ns,
            expected=f"< {now_ns + config.max_clock_drift_ns}",
            reason="future",
        )


# ---- bisection --------------------------------------------------------------------------------------------------------

Steps = tuple[tuple[LightBlock, Trusted], ...]


def choose_pivot(trusted: Trusted, height: int) -> int:
    """Return the height to try when ``height`` is too far: the middle, never the trusted one nor ``height`` itself."""
    return (trusted.height + height) // 2


def walk(trusted: Trusted, height: int, now_ns: int, config: LightClientConfig) -> Generator[int, LightBlock, Steps]:
    """Go from a trusted state to a height by bisection: yields the heights to fetch, is sent the blocks, returns the applied steps.

    Does no I/O, so that the same code serves a blocking callback (`verify_to_height`) and an asynchronous reader. Depth and number of
    fetches are bounded.

    Raises Rejected: "not_newer", "wrong_height" (a source that answers another height), "bisection" (bounds), and the reasons of
    `judge_update`.
    """
    if height <= trusted.height:
        raise Rejected("the height is not newer", got=height, expected=f"> {trusted.height}", reason="not_newer")
    steps: list[tuple[LightBlock, Trusted]] = []
    pending = [_verify_height((yield height), height)]
    fetched = 1
    while pending:
        block = pending[-1]
        if judge_update(trusted, block, now_ns, config) is Verdict.SUCCESS:
            trusted = make_trusted(block)
            steps.append((block, trusted))
            pending.pop()
            continue
        if len(pending) >= MAX_BISECTION_DEPTH or fetched >= MAX_BISECTION_FETCHES:
            raise Rejected(
                "the way to this height needs too many blocks between: go in shorter steps",
                got=(len(pending), fetched),
                expected=(MAX_BISECTION_DEPTH, MAX_BISECTION_FETCHES),
                reason="bisection",
            )
        # strictly between: a next block is either proven or refused above
        pivot = choose_pivot(trusted, block.header.height)
        pending.append(_verify_height((yield pivot), pivot))
        fetched += 1
    return tuple(steps)


def walk_every_block(
    trusted: Trusted, height: int, now_ns: int, config: LightClientConfig
) -> Generator[int, LightBlock, Steps]:
    """Go from a trusted state to a height through every block between; as `walk`, at most `MAX_BISECTION_FETCHES` blocks."""
    if not 0 < height - trusted.height <= MAX_BISECTION_FETCHES:
        raise Rejected("the height is not within reach", got=height, expected=f"> {trusted.height}", reason="not_newer")
    steps: list[tuple[LightBlock, Trusted]] = []
    for at in range(trusted.height + 1, height + 1):
        block = _verify_height((yield at), at)
        trusted = verify_update(trusted, block, now_ns, config)
        steps.append((block, trusted))
    return tuple(steps)


def _verify_height(block: LightBlock, height: int) -> LightBlock:
    if block.header.height != height:
        raise Rejected("a block of another height", got=block.header.height, expected=height, reason="wrong_height")
    return block


def drive(path: Generator[int, LightBlock, Steps], fetch: Callable[[int], LightBlock]) -> Steps:
    """Run `walk` or `walk_every_block` over a callback that gives blocks by height; raises what either raises."""
    try:
        height = next(path)
        while True:
            height = path.send(fetch(height))
    except StopIteration as end:
        steps: Steps = end.value
        return steps
