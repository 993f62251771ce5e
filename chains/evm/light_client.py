"""The sync-committee light client: from a checkpoint to the newest finalized header, believing signatures and branches only.

Trust model: more than two thirds of one sync committee (512 validators drawn for about 27 hours) are honest. They are not slashed for
lying (EIP-7657 is a draft), so what settles on this evidence must stay small beside their bond. Limits that follow, all kept here:
* only a finalized header under at least two thirds of the committee moves trust (incident F9); the consensus minimum of one
  participant exists in the test suite's store alone;
* there is no forced update: without finality nothing moves, however long (incident F10);
* a checkpoint, and the state itself, expire (incidents F8, F13); a fork unknown to this program stops it (incident F12).

The order of checks is a security decision: shape, participation, slots, periods and usefulness cost nothing and come first; branches
cost some dozens of hashes; the signature costs two pairings and comes last, so that garbage is cheap to refuse.

Source: consensus-specs light-client/sync-protocol of Altair, Capella, Deneb, Electra, Fulu (function names in the docstrings).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chains.evm.bls import decode_signature, get_committee_keys, is_valid_for_key
from chains.evm.forks import Fork, ForkSchedule, compute_fork_data_root, get_gindices
from chains.evm.ssz import (
    EXECUTION_BRANCH_DEPTH,
    compute_committee_root,
    compute_execution_root,
    compute_header_root,
    compute_signing_root,
    is_valid_branch,
)
from chains.evm.types import (
    BeaconHeader,
    Bootstrap,
    Equivocation,
    LightClientHeader,
    SyncCommittee,
    Trusted,
    Update,
)
from messages.errors import Conflict, Rejected

ZERO32 = bytes(32)
DOMAIN_SYNC_COMMITTEE = b"\x07\x00\x00\x00"
MAX_BRANCH = 8
"""Longest branch that any fork's objects carry (Electra finality: 7), with room for none further."""
TWO_THIRDS = (2, 3)
DAY_S = 86_400
MAX_PERIOD_S = 30 * DAY_S
"""Members of a committee that is older may have left with their bond: no setting may trust them (incidents F8, F13)."""
MAX_CLOCK_DRIFT_S = 60
"""Five slots of Ethereum; more would take headers from the future (incident F2)."""


@dataclass(frozen=True)
class LightClientConfig:
    """What an operator chooses. ``floor`` is a fraction (numerator, denominator) of the committee, never under two thirds."""

    schedule: ForkSchedule
    floor: tuple[int, int] = TWO_THIRDS
    max_checkpoint_age_s: int = 14 * DAY_S
    trusting_period_s: int = 14 * DAY_S
    max_clock_drift_s: int = 10

    def __post_init__(self) -> None:
        numerator, denominator = self.floor
        if not (0 < numerator <= denominator and 3 * numerator >= 2 * denominator):
            raise Rejected("participation floor", got=self.floor, expected="2/3 to 1", reason="bad_config")
        periods = (self.max_checkpoint_age_s, self.trusting_period_s)
        if not all(0 < period <= MAX_PERIOD_S for period in periods):
            raise Rejected(
                "checkpoint age and trusting period",
                got=periods,
                expected=f"1 to {MAX_PERIOD_S} s",
                reason="bad_config",
            )
        if not 0 <= self.max_clock_drift_s <= MAX_CLOCK_DRIFT_S:
            raise Rejected(
                "clock drift", got=self.max_clock_drift_s, expected=f"0 to {MAX_CLOCK_DRIFT_S} s", reason="bad_config"
            )


# ---- predicates: one rule each ----------------------------------------------------------------------------------------


def count_participants(bits: bytes) -> int:
    """Return how many bits of a sync aggregate are set."""
    return int.from_bytes(bits, "little").bit_count()


def has_shape(update: Update, committee_size: int) -> bool:
    """Ask whether sizes are those of the network: bits, signature, committee, branch elements."""
    committee = update.next_committee
    branches = (
        update.finality_branch,
        update.next_committee_branch,
        update.attested.execution_branch,
        () if update.finalized is None else update.finalized.execution_branch,
    )
    return (
        len(update.aggregate.bits) * 8 == committee_size
        and len(update.aggregate.signature) == 96
        and (committee is None or has_committee_shape(committee, committee_size))
        and all(len(branch) <= MAX_BRANCH and all(len(chunk) == 32 for chunk in branch) for branch in branches)
    )


def has_committee_shape(committee: SyncCommittee, size: int) -> bool:
    """Ask whether a committee has the network's number of keys and each key its 48 bytes."""
    return (
        len(committee.pubkeys) == size
        and len(committee.aggregate_pubkey) == 48
        and set(map(len, committee.pubkeys)) <= {48}
    )


def has_participation(bits: bytes, floor: tuple[int, int]) -> bool:
    """Ask whether at least the fraction ``floor`` of the members signed, and at least one (MIN_SYNC_COMMITTEE_PARTICIPANTS)."""
    participants = count_participants(bits)
    return participants >= 1 and participants * floor[1] >= len(bits) * 8 * floor[0]


def has_slots_in_order(update: Update) -> bool:
    """Ask whether signature_slot > attested slot >= finalized slot (`validate_light_client_update`)."""
    return update.signature_slot > update.attested.beacon.slot >= get_finalized_slot(update)


def is_valid_header(header: LightClientHeader, schedule: ForkSchedule) -> bool:
    """Ask whether the execution header belongs to the beacon header (`is_valid_light_client_header`, Capella to Fulu).

    Before Capella there is none; before Deneb it has no blob fields. Raises Rejected ("unknown_fork").
    """
    fork = schedule.get_fork_at_slot(header.beacon.slot)
    execution = header.execution
    if fork < Fork.CAPELLA:
        return execution is None and not header.execution_branch
    if execution is None or len(header.execution_branch) != EXECUTION_BRANCH_DEPTH:
        return False
    if fork < Fork.DENEB and (execution.blob_gas_used or execution.excess_blob_gas):
        return False
    leaf = compute_execution_root(execution, fork)
    return is_valid_branch(leaf, header.execution_branch, get_gindices(fork).execution, header.beacon.body_root)


def is_valid_finality(update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether the finalized header is the one that the attested state finalizes; absent is right only without a branch.

    The branch of a zero root is the finality of genesis, which has no header.
    """
    if not update.finality_branch:
        return update.finalized is None
    if update.finalized is None:
        leaf = ZERO32
    elif update.finalized.beacon.slot == 0 or not is_valid_header(update.finalized, schedule):
        return False
    else:
        leaf = compute_header_root(update.finalized.beacon)
    attested = update.attested.beacon
    gindex = get_gindices(schedule.get_fork_at_slot(attested.slot)).finalized_root
    return is_valid_branch(leaf, update.finality_branch, gindex, attested.state_root)


def is_valid_next_committee(update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether the next committee is the one in the attested state; absent is right only without a branch."""
    if not update.next_committee_branch:
        return update.next_committee is None
    if update.next_committee is None:
        return False
    attested = update.attested.beacon
    gindex = get_gindices(schedule.get_fork_at_slot(attested.slot)).next_committee
    leaf = compute_committee_root(update.next_committee)
    return is_valid_branch(leaf, update.next_committee_branch, gindex, attested.state_root)


def is_valid_signature(update: Update, committee: SyncCommittee, schedule: ForkSchedule) -> bool:
    """Ask whether the participants of ``committee`` signed the attested beacon header.

    Raises Rejected ("unknown_fork", "bad_pubkey").
    """
    try:
        signature = decode_signature(update.aggregate.signature)
    except Rejected:
        return False
    key = get_committee_keys(committee.pubkeys).sum_participants(update.aggregate.bits)
    root = compute_signing_root(
        compute_header_root(update.attested.beacon), compute_sync_domain(update.signature_slot, schedule)
    )
    return is_valid_for_key(key, root, signature)


def is_expired(trusted: Trusted, now: int, config: LightClientConfig) -> bool:
    """Ask whether a trusted state is too old to build on at ``now`` (unix seconds); the instant of expiry is expired."""
    return now >= config.schedule.get_time(trusted.finalized.beacon.slot) + config.trusting_period_s


def is_next_committee_news(trusted: Trusted, update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether an update brings the next committee of the store's own period, which the store does not know yet."""
    return (
        trusted.next_committee is None
        and bool(update.next_committee_branch)
        and schedule.get_period(update.attested.beacon.slot) == schedule.get_period(trusted.finalized.beacon.slot)
    )


def is_finalized_news(trusted: Trusted, update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether an update moves finality, or brings a *finalized* next committee that the store lacks.

    Finalized: the finalized header lies in the attested header's period (`process_light_client_update`).
    """
    if not update.finality_branch:
        return False
    finalized_slot = get_finalized_slot(update)
    return finalized_slot > trusted.finalized.beacon.slot or (
        is_next_committee_news(trusted, update, schedule)
        and schedule.get_period(finalized_slot) == schedule.get_period(update.attested.beacon.slot)
    )


def get_finalized_slot(update: Update) -> int:
    """Return the slot of the finalized header, 0 without one."""
    return 0 if update.finalized is None else update.finalized.beacon.slot


def compute_sync_domain(signature_slot: int, schedule: ForkSchedule) -> bytes:
    """Return the 32-byte signing domain: the fork version is that of the slot *before* the signature slot (incident F12).

    Raises Rejected ("unknown_fork").
    """
    version = schedule.compute_fork_version(schedule.get_epoch(max(signature_slot, 1) - 1))
    return DOMAIN_SYNC_COMMITTEE + compute_fork_data_root(version, schedule.genesis_validators_root)[:28]


def is_better_update(new: Update, old: Update, schedule: ForkSchedule) -> bool:
    """Ask whether ``new`` should replace ``old`` as the best known update of a period (`is_better_update`)."""
    participants = count_participants(new.aggregate.bits), count_participants(old.aggregate.bits)
    supermajority = has_participation(new.aggregate.bits, TWO_THIRDS), has_participation(old.aggregate.bits, TWO_THIRDS)
    if supermajority[0] != supermajority[1]:
        return supermajority[0]
    if not supermajority[0] and participants[0] != participants[1]:
        return participants[0] > participants[1]
    return _rank(new, schedule) > _rank(old, schedule)


def _rank(update: Update, schedule: ForkSchedule) -> tuple[bool, bool, bool, int, int, int]:
    """Order of updates within the same class of participation, greatest best: relevant, finalized, finalized committee, ..."""
    period = schedule.get_period(update.attested.beacon.slot)
    has_finality = bool(update.finality_branch)
    return (
        bool(update.next_committee_branch) and period == schedule.get_period(update.signature_slot),
        has_finality,
        has_finality and period == schedule.get_period(get_finalized_slot(update)),
        count_participants(update.aggregate.bits),
        -update.attested.beacon.slot,
        -update.signature_slot,
    )


# ---- verifier: reads like the list of rules ---------------------------------------------------------------------------


def verify_bootstrap(bootstrap: Bootstrap, checkpoint_root: bytes, config: LightClientConfig, now: int) -> Trusted:
    """Return the first trusted state, under a 32-byte beacon block root that the operator got from people.

    Raises Rejected: "no_checkpoint" (zero root), "bad_shape", "wrong_checkpoint", "future", "checkpoint_too_old" (incident F13),
    "unknown_fork", "bad_execution", "bad_committee", "bad_pubkey".
    """
    schedule = config.schedule
    header = bootstrap.header
    if len(checkpoint_root) != 32 or checkpoint_root == ZERO32:
        raise Rejected("a checkpoint root is 32 non-zero bytes", got=checkpoint_root, reason="no_checkpoint")
    if not has_committee_shape(bootstrap.current_committee, schedule.preset.committee_size) or not all(
        len(chunk) == 32 for chunk in bootstrap.current_committee_branch[: MAX_BRANCH + 1]
    ):
        raise Rejected("committee of another size", expected=schedule.preset.committee_size, reason="bad_shape")
    root = compute_header_root(header.beacon)
    if root != checkpoint_root:
        raise Rejected(
            "the header is not the checkpoint's", got=root, expected=checkpoint_root, reason="wrong_checkpoint"
        )
    time = schedule.get_time(header.beacon.slot)
    if time > now + config.max_clock_drift_s:
        raise Rejected(
            "the checkpoint lies in the future: check the clock", got=time, expected=f"<= {now}", reason="future"
        )
    if now - time >= config.max_checkpoint_age_s:
        raise Rejected(
            "the checkpoint is older than the weak-subjectivity period allows: configure a newer one",
            got=now - time,
            expected=f"< {config.max_checkpoint_age_s} s",
            reason="checkpoint_too_old",
        )
    return verify_anchor(bootstrap, schedule)


def verify_anchor(bootstrap: Bootstrap, schedule: ForkSchedule) -> Trusted:
    """Return the trusted state of a bootstrap whose header is believed already (`initialize_light_client_store`).

    Raises Rejected: "unknown_fork", "bad_execution", "bad_committee", "bad_pubkey".
    """
    header = bootstrap.header
    if not is_valid_header(header, schedule):
        raise Rejected("execution header does not belong to the beacon header", reason="bad_execution")
    if not is_valid_branch(
        compute_committee_root(bootstrap.current_committee),
        bootstrap.current_committee_branch,
        get_gindices(schedule.get_fork_at_slot(header.beacon.slot)).current_committee,
        header.beacon.state_root,
    ):
        raise Rejected("the committee is not in the header's state", reason="bad_committee")
    get_committee_keys(bootstrap.current_committee.pubkeys)
    return Trusted(finalized=header, optimistic=header, current_committee=bootstrap.current_committee)


def verify_update(trusted: Trusted, update: Update, now: int, config: LightClientConfig) -> Trusted:
    """Return the trusted state after an update, at ``now`` (unix seconds).

    On return: at least the configured floor of the right committee signed the attested header, its state contains what the update
    says, and the result is newer in its finalized header, its next committee, or (information only) its optimistic header.

    Raises Rejected: "expired" (re-anchor from a new checkpoint), "not_newer" (expected: nothing to do), the reasons of
    `verify_statement`; Conflict ("equivocation") when the committee validly signed what excludes what is believed.
    """
    schedule = config.schedule
    if is_expired(trusted, now, config):
        raise Rejected(
            "the trusted header is older than the trusting period: re-anchor from a new checkpoint",
            got=schedule.get_time(trusted.finalized.beacon.slot),
            expected=f"> {now - config.trusting_period_s}",
            reason="expired",
        )
    is_final = is_finalized_news(trusted, update, schedule)
    if not is_final and update.attested.beacon.slot <= trusted.optimistic.beacon.slot:
        raise Rejected("the update tells nothing new", got=update.attested.beacon.slot, reason="not_newer")
    current_slot = schedule.get_slot(now + config.max_clock_drift_s)
    verify_statement(trusted, update, current_slot, schedule, config.floor)
    if is_finalized_conflict(trusted, update):
        raise Conflict(
            "the committee finalized another header at the slot that is trusted",
            got=compute_header_root(update.finalized.beacon) if update.finalized else None,
            expected=compute_header_root(trusted.finalized.beacon),
            reason="equivocation",
        )
    if update.attested.beacon.slot > trusted.optimistic.beacon.slot:
        trusted = replace(trusted, optimistic=update.attested)
    return apply_update(trusted, update, schedule) if is_final else trusted


def verify_statement(
    trusted: Trusted, update: Update, current_slot: int, schedule: ForkSchedule, floor: tuple[int, int]
) -> None:
    """Check every rule of `validate_light_client_update`, with ``floor`` as the least participation.

    Raises Rejected: "bad_shape", "participation", "slots", "future", "unknown_fork", "period_behind", "next_committee_unknown"
    (expected: fetch the update of the store's own period first), "period_ahead" (expected: fetch the periods between),
    "not_newer", "bad_execution", "bad_finality", "bad_committee", "bad_signature", "bad_pubkey".
    Raises Conflict ("equivocation") when all of it is right but the next committee is another than the one known.
    """
    beacon = update.attested.beacon
    committee = _verify_cheap_rules(trusted, update, schedule, floor)
    if current_slot < update.signature_slot:
        raise Rejected(
            "signed in the future", got=update.signature_slot, expected=f"<= {current_slot}", reason="future"
        )
    if beacon.slot <= trusted.finalized.beacon.slot and not is_next_committee_news(trusted, update, schedule):
        raise Rejected(
            "attested header is not newer than the trusted one",
            got=beacon.slot,
            expected=f"> {trusted.finalized.beacon.slot}",
            reason="not_newer",
        )
    _verify_branches(update, schedule)
    if not is_valid_signature(update, committee, schedule):
        raise Rejected("the committee did not sign this header", got=update.aggregate.signature, reason="bad_signature")
    if is_committee_conflict(trusted, update, schedule):
        raise Conflict(
            "the committee signed another next committee than the one that is trusted",
            got=update.next_committee and update.next_committee.aggregate_pubkey,
            expected=trusted.next_committee and trusted.next_committee.aggregate_pubkey,
            reason="equivocation",
        )


def _verify_cheap_rules(
    trusted: Trusted, update: Update, schedule: ForkSchedule, floor: tuple[int, int]
) -> SyncCommittee:
    """Check shape, participation, order of slots, fork and period; return the committee that must have signed."""
    beacon = update.attested.beacon
    bits = update.aggregate.bits
    if not has_shape(update, schedule.preset.committee_size):
        raise Rejected("sizes are not those of the network", got=8 * len(bits), reason="bad_shape")
    if not has_participation(bits, floor):
        raise Rejected(
            "too few members signed",
            got=f"{count_participants(bits)} of {8 * len(bits)}",
            expected=f">= {floor[0]}/{floor[1]} and 1",
            reason="participation",
        )
    if not has_slots_in_order(update):
        raise Rejected(
            "slots out of order",
            got=(update.signature_slot, beacon.slot, get_finalized_slot(update)),
            expected="signature > attested >= finalized",
            reason="slots",
        )
    schedule.compute_fork_version(schedule.get_epoch(update.signature_slot))
    return _select_committee(trusted, schedule, schedule.get_period(update.signature_slot))


def _select_committee(trusted: Trusted, schedule: ForkSchedule, signature_period: int) -> SyncCommittee:
    store_period = schedule.get_period(trusted.finalized.beacon.slot)
    if signature_period < store_period:
        raise Rejected(
            "signed before the trusted period", got=signature_period, expected=store_period, reason="period_behind"
        )
    if signature_period == store_period:
        return trusted.current_committee
    if signature_period > store_period + 1:
        raise Rejected(
            "periods between are missing", got=signature_period, expected=store_period + 1, reason="period_ahead"
        )
    if trusted.next_committee is None:
        raise Rejected("the next committee is not known yet", got=signature_period, reason="next_committee_unknown")
    return trusted.next_committee


def _verify_branches(update: Update, schedule: ForkSchedule) -> None:
    if not is_valid_header(update.attested, schedule):
        raise Rejected("attested execution header does not belong to its beacon header", reason="bad_execution")
    if not is_valid_finality(update, schedule):
        raise Rejected("the finalized header is not the attested state's", reason="bad_finality")
    if not is_valid_next_committee(update, schedule):
        raise Rejected("the next committee is not the attested state's", reason="bad_committee")


def apply_update(trusted: Trusted, update: Update, schedule: ForkSchedule) -> Trusted:
    """Return the state after a verified update that is finalized news (`apply_light_client_update`). Checks nothing.

    A finalized header in the next period rotates the committees; the next committee is then the update's, or unknown.
    """
    store_period = schedule.get_period(trusted.finalized.beacon.slot)
    current, following = trusted.current_committee, trusted.next_committee
    if following is None:
        following = update.next_committee
    elif schedule.get_period(get_finalized_slot(update)) == store_period + 1:
        current, following = following, update.next_committee
    finalized, optimistic = trusted.finalized, trusted.optimistic
    if update.finalized is not None and update.finalized.beacon.slot > finalized.beacon.slot:
        finalized = update.finalized
        if finalized.beacon.slot > optimistic.beacon.slot:
            optimistic = finalized
    return Trusted(finalized=finalized, optimistic=optimistic, current_committee=current, next_committee=following)


# ---- equivocation -----------------------------------------------------------------------------------------------------


def is_finalized_conflict(trusted: Trusted, update: Update) -> bool:
    """Ask whether an update finalizes another header at the very slot of the trusted one."""
    return update.finalized is not None and _is_fork_of(update.finalized.beacon, trusted.finalized.beacon)


def is_committee_conflict(trusted: Trusted, update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether an update of the store's period names another next committee than the store knows."""
    return (
        trusted.next_committee is not None
        and update.next_committee is not None
        and schedule.get_period(update.attested.beacon.slot) == schedule.get_period(trusted.finalized.beacon.slot)
        and update.next_committee != trusted.next_committee
    )


def _is_fork_of(one: BeaconHeader, other: BeaconHeader) -> bool:
    return one.slot == other.slot and one != other


def find_equivocation(first: Update, second: Update, schedule: ForkSchedule) -> Equivocation | None:
    """Return the evidence that two updates make together, if they exclude each other. Judges no signature.

    Two heads at one attested slot are evidence only when signed for one slot: honest members may follow a reorg a slot later.
    """
    period = schedule.get_period(first.signature_slot)
    if period != schedule.get_period(second.signature_slot):
        return None
    if first.signature_slot == second.signature_slot and first.attested.beacon != second.attested.beacon:
        return Equivocation("attested", first, second)
    if first.finalized and second.finalized and _is_fork_of(first.finalized.beacon, second.finalized.beacon):
        return Equivocation("finalized", first, second)
    if (
        is_committee_finalized(first, schedule)
        and is_committee_finalized(second, schedule)
        and schedule.get_period(first.attested.beacon.slot) == schedule.get_period(second.attested.beacon.slot)
        and first.next_committee != second.next_committee
    ):
        return Equivocation("committee", first, second)
    return None


def is_committee_finalized(update: Update, schedule: ForkSchedule) -> bool:
    """Ask whether an update has a next committee that its finality covers: the committee of a period is fixed only then."""
    return (
        update.next_committee is not None
        and update.finalized is not None
        and schedule.get_period(update.finalized.beacon.slot) == schedule.get_period(update.attested.beacon.slot)
    )


def verify_equivocation(evidence: Equivocation, trusted: Trusted, config: LightClientConfig) -> None:
    """Check evidence against a committee that the verifier trusts: both statements in full, each under the floor.

    Raises Rejected: "no_equivocation" when the two do not exclude each other or not in the way claimed; else as `verify_statement`.
    """
    schedule = config.schedule
    found = find_equivocation(evidence.first, evidence.second, schedule)
    if found is None or found.kind != evidence.kind:
        raise Rejected(
            "the statements do not exclude each other as claimed", got=evidence.kind, reason="no_equivocation"
        )
    for update in (evidence.first, evidence.second):
        committee = _verify_cheap_rules(trusted, update, schedule, config.floor)
        _verify_branches(update, schedule)
        if not is_valid_signature(update, committee, schedule):
            raise Rejected(
                "the committee did not sign this header", got=update.aggregate.signature, reason="bad_signature"
            )
