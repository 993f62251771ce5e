"""Incidents of light clients, replayed: the product refuses, and a twin without the one check lets the same attack through.

Numbers are those of the incident list: F8 trusting period, F9 one participant, F10 forced update, F12 fork version, F13 old checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from chains.evm import light_client as lc
from chains.evm.bls import decode_signature, get_committee_keys, is_valid_for_key
from chains.evm.forks import (
    FAR_FUTURE_EPOCH,
    NETWORKS,
    Fork,
    build_devnet,
    compute_fork_data_root,
    compute_fork_digest,
    get_fork_of_digest,
)
from chains.evm.ssz import compute_header_root, compute_signing_root
from messages.errors import Rejected
from tests.chains.evm_forge import DEVNET, DEVNET_512, GENESIS_TIME, PERIOD, SMALL, Forge
from tests.conformance.evm_vectors import ANYBODY, SpecStore

FORGE = Forge()
CONFIG = lc.LightClientConfig(DEVNET, max_clock_drift_s=0)
START = 2 * PERIOD + 8
DAY_S = 86_400


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


# ---- F8 ---------------------------------------------------------------------------------------------------------------


def test_f8_a_store_expires_at_the_end_of_the_trusting_period_and_not_a_second_earlier():
    trusted = FORGE.make_trusted(START)
    update = FORGE.make_update(START + 24, START + 8)
    expiry = FORGE.get_time(START) + CONFIG.trusting_period_s
    assert lc.verify_update(trusted, update, expiry - 1, CONFIG).finalized == update.finalized
    for now in (expiry, expiry + 1, expiry + 30 * DAY_S):
        assert refuse(lambda n=now: lc.verify_update(trusted, update, n, CONFIG)) == "expired"
    weak_verify = lc.verify_statement  # the rules alone know no expiry: keys of a month ago would do
    weak_verify(trusted, update, DEVNET.get_slot(expiry + 30 * DAY_S), DEVNET, lc.TWO_THIRDS)


def test_f8_a_clock_that_is_an_hour_slow_refuses_and_moves_nothing():
    trusted = FORGE.make_trusted(START)
    update = FORGE.make_update(START + 24, START + 8)
    now = FORGE.get_time(update.signature_slot)
    assert lc.verify_update(trusted, update, now, CONFIG)
    assert refuse(lambda: lc.verify_update(trusted, update, now - 3600, CONFIG)) == "future"
    assert refuse(lambda: lc.verify_update(trusted, update, now - 1, CONFIG)) == "future"
    drifting = replace(CONFIG, max_clock_drift_s=1)
    assert lc.verify_update(trusted, update, now - 1, drifting)


# ---- F9 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("participants", "is_accepted"), [(1, False), (341, False), (342, True), (512, True)])
def test_f9_a_header_settles_only_under_two_thirds_of_512(participants, is_accepted):
    forge = Forge(DEVNET_512)
    config = lc.LightClientConfig(DEVNET_512, max_clock_drift_s=0)
    trusted = forge.make_trusted(START)
    update = forge.make_update(START + 24, START + 8, participants=participants)
    now = forge.get_time(update.signature_slot)
    if is_accepted:
        assert lc.verify_update(trusted, update, now, config).finalized == update.finalized
    else:
        assert refuse(lambda: lc.verify_update(trusted, update, now, config)) == "participation"
    weak = SpecStore(trusted, DEVNET_512)  # the consensus minimum: a single member moves the header people look at
    weak.process(update, update.signature_slot)
    assert weak.trusted.optimistic == update.attested


def test_f9_a_higher_floor_is_kept_to_the_member():
    config = lc.LightClientConfig(DEVNET_512, floor=(9, 10), max_clock_drift_s=0)
    forge = Forge(DEVNET_512)
    trusted = forge.make_trusted(START)
    for participants, is_accepted in ((460, False), (461, True)):
        update = forge.make_update(START + 24, START + 8, participants=participants)
        now = forge.get_time(update.signature_slot)
        if is_accepted:
            assert lc.verify_update(trusted, update, now, config)
        else:
            assert refuse(lambda u=update, n=now: lc.verify_update(trusted, u, n, config)) == "participation"


def test_f9_the_attested_header_is_never_taken_for_the_finalized_one():
    trusted = FORGE.make_trusted(START)
    update = FORGE.make_update(START + 24, START + 8)
    after = lc.verify_update(trusted, update, FORGE.get_time(START + 25), CONFIG)
    assert after.finalized.beacon.slot == START + 8
    posing = replace(update, finalized=update.attested)
    assert refuse(lambda: lc.verify_update(trusted, posing, FORGE.get_time(START + 25), CONFIG)) == "bad_finality"


# ---- F10 --------------------------------------------------------------------------------------------------------------


def test_f10_two_days_without_finality_move_nothing_and_finality_resumes_alone():
    trusted = FORGE.make_trusted(START, knows_next=True)
    weak = SpecStore(trusted, DEVNET)
    slots = range(START + 8, START + 8 + PERIOD - 16, 8)
    for slot in slots:
        update = FORGE.make_update(slot)
        trusted = lc.verify_update(trusted, update, FORGE.get_time(slot + 1), CONFIG)
        weak.process(update, slot + 1)
    assert trusted.finalized.beacon.slot == START
    weak.force(START + 2 * PERIOD)
    assert weak.trusted.finalized.beacon.slot > START, "the forced update promotes a header that was never final"
    assert not [name for name in dir(lc) if "force" in name]
    resumed = lc.verify_update(trusted, FORGE.make_update(START + 56, START + 40), FORGE.get_time(START + 57), CONFIG)
    assert resumed.finalized.beacon.slot == START + 40


# ---- F12 --------------------------------------------------------------------------------------------------------------

FORK_EPOCH = 18  # slot 144, inside period 2
FORK_SLOT = FORK_EPOCH * SMALL.slots_per_epoch


def build_forking(fork: Fork):
    epochs = tuple(0 if known < fork else FORK_EPOCH if known == fork else FAR_FUTURE_EPOCH for known in Fork)
    return build_devnet(genesis_time=GENESIS_TIME, genesis_validators_root=bytes(32), preset=SMALL, epochs=epochs)


def is_weakly_signed(update, committee, schedule) -> bool:
    """The twin: takes the fork version of the signature slot itself, as several clients once did."""
    version = schedule.compute_fork_version(schedule.get_epoch(update.signature_slot))
    domain = lc.DOMAIN_SYNC_COMMITTEE + compute_fork_data_root(version, schedule.genesis_validators_root)[:28]
    message = compute_signing_root(compute_header_root(update.attested.beacon), domain)
    key = get_committee_keys(committee.pubkeys).sum_participants(update.aggregate.bits)
    return is_valid_for_key(key, message, decode_signature(update.aggregate.signature))


@pytest.mark.parametrize("fork", [fork for fork in Fork if fork > Fork.ALTAIR])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_f12_signatures_around_a_fork_are_made_under_the_version_of_the_slot_before(fork, offset):
    schedule = build_forking(fork)
    forge = Forge(schedule)
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    trusted = forge.make_trusted(START - 8)
    signature_slot = FORK_SLOT + offset
    versions = {known: version for known, _, version in schedule.forks}
    old, new = versions[Fork(fork - 1)], versions[fork]
    right, wrong = (new, old) if offset == 1 else (old, new)
    good = forge.make_update(signature_slot - 1, START, signature_slot=signature_slot, version=right)
    bad = forge.make_update(signature_slot - 1, START, signature_slot=signature_slot, version=wrong)
    now = forge.get_time(signature_slot)
    assert lc.verify_update(trusted, good, now, config).finalized == good.finalized
    assert refuse(lambda: lc.verify_update(trusted, bad, now, config)) == "bad_signature"
    if offset == 0:  # the only slot where the twin differs: it refuses the honest and takes the other
        assert is_weakly_signed(bad, trusted.current_committee, schedule)
        assert not is_weakly_signed(good, trusted.current_committee, schedule)


def test_f12_the_finalized_header_may_be_of_the_older_fork():
    schedule = build_forking(Fork.ELECTRA)
    forge = Forge(schedule)
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    update = forge.make_update(FORK_SLOT + 2, FORK_SLOT - 6)
    after = lc.verify_update(forge.make_trusted(START - 8), update, forge.get_time(FORK_SLOT + 3), config)
    assert after.finalized.beacon.slot == FORK_SLOT - 6
    assert len(update.finality_branch) == 7


def test_f12_an_unknown_fork_halts_before_its_first_slot_and_warns_two_weeks_ahead():
    schedule = replace(DEVNET, unknown_from_epoch=FORK_EPOCH)
    forge = Forge(schedule)
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    trusted = forge.make_trusted(START - 8)
    last = forge.make_update(FORK_SLOT - 2, START, signature_slot=FORK_SLOT - 1)
    assert lc.verify_update(trusted, last, forge.get_time(FORK_SLOT - 1), config)
    beyond = Forge().make_update(FORK_SLOT - 2, START, signature_slot=FORK_SLOT)
    assert refuse(lambda: lc.verify_update(trusted, beyond, forge.get_time(FORK_SLOT), config)) == "unknown_fork"
    begin = forge.get_time(FORK_SLOT)
    assert schedule.has_unknown_fork_within(begin - 14 * DAY_S, 14 * DAY_S)
    assert not schedule.has_unknown_fork_within(begin - 14 * DAY_S - 12, 14 * DAY_S)
    assert not DEVNET.has_unknown_fork_within(begin, 14 * DAY_S)


def test_f12_digests_name_the_data_format_and_blob_changes_are_digests_too():
    for schedule in NETWORKS.values():
        epochs = [first for _, first, _ in schedule.forks] + [epoch for epoch, _ in schedule.blob_schedule]
        digests = {compute_fork_digest(schedule, epoch) for epoch in epochs}
        assert len(digests) == len(epochs)
        for epoch in epochs:
            assert get_fork_of_digest(schedule, compute_fork_digest(schedule, epoch)) is schedule.get_fork(epoch)
        assert refuse(lambda s=schedule: get_fork_of_digest(s, b"\0\1\2\3")) == "unknown_fork"
    mainnet = NETWORKS["mainnet"]
    assert compute_fork_digest(mainnet, 269568).hex() == "6a95a1a9"  # published: Deneb
    assert compute_fork_digest(NETWORKS["sepolia"], 272640).hex() == "7e0d3447"  # published: Fulu


# ---- F13 --------------------------------------------------------------------------------------------------------------


def test_f13_an_old_checkpoint_is_refused_to_the_second():
    bootstrap = FORGE.make_bootstrap(START)
    root = compute_header_root(bootstrap.header.beacon)
    limit = FORGE.get_time(START) + CONFIG.max_checkpoint_age_s
    assert lc.verify_bootstrap(bootstrap, root, CONFIG, limit - 1).finalized == bootstrap.header
    for now in (limit, limit + 365 * DAY_S):
        assert refuse(lambda n=now: lc.verify_bootstrap(bootstrap, root, CONFIG, n)) == "checkpoint_too_old"
    assert lc.verify_anchor(bootstrap, DEVNET), "the twin that only warns: a year-old committee is believed"


def test_the_consensus_store_of_the_tests_is_weaker_on_purpose():
    assert ANYBODY == (0, 1)
    assert lc.has_participation(b"\1\0\0\0", ANYBODY)
    assert not lc.has_participation(b"\0\0\0\0", ANYBODY)
    assert not lc.has_participation(b"\1\0\0\0", lc.TWO_THIRDS)
