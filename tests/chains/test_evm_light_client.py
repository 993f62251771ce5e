"""The sync-committee light client by its own statements: what it accepts, and the one changed thing that makes it refuse."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest

from chains.evm import light_client as lc
from chains.evm.beacon_json import encode_equivocation_json, parse_equivocation_json
from chains.evm.forks import Fork, build_devnet, get_gindices
from chains.evm.ssz import compute_committee_root, compute_header_root
from chains.evm.types import Bootstrap, Equivocation, Update
from messages.canonical import decode_canonical, encode_canonical
from messages.errors import Conflict, Rejected
from tests.chains.evm_forge import DEVNET, GENESIS_TIME, PERIOD, SMALL, Forge, get_committee

FORGE = Forge()
CONFIG = lc.LightClientConfig(DEVNET, max_clock_drift_s=0)
START = 2 * PERIOD + 8  # slot of the first trusted header, period 2


def verify(trusted, update: Update, *, config=CONFIG, at: int | None = None):
    slot = update.signature_slot if at is None else at
    return lc.verify_update(trusted, update, config.schedule.get_time(slot), config)


def reason_of(call, kind=Rejected) -> str:
    with pytest.raises(kind) as error:
        call()
    return error.value.reason


# ---- bootstrap --------------------------------------------------------------------------------------------------------


def test_a_bootstrap_under_the_checkpoint_is_trusted():
    bootstrap = FORGE.make_bootstrap(START)
    root = compute_header_root(bootstrap.header.beacon)
    trusted = lc.verify_bootstrap(bootstrap, root, CONFIG, FORGE.get_time(START))
    assert trusted.finalized == bootstrap.header
    assert trusted.current_committee == bootstrap.current_committee
    assert trusted.next_committee is None


def test_a_bootstrap_is_refused_when_any_part_of_it_is_another():
    good = FORGE.make_bootstrap(START)
    root = compute_header_root(good.header.beacon)
    now = FORGE.get_time(START)
    execution = replace(good.header.execution, state_root=bytes(32))
    branch = good.current_committee_branch
    short = replace(good.current_committee, pubkeys=good.current_committee.pubkeys[1:])
    cases = {
        "no_checkpoint": (good, bytes(32)),
        "wrong_checkpoint": (good, bytes(31) + b"\1"),
        "bad_execution": (replace(good, header=replace(good.header, execution=execution)), root),
        "bad_shape": (replace(good, current_committee=short), root),
        "bad_committee": (replace(good, current_committee=get_committee(3, 32)), root),
    }
    for reason, (bootstrap, checkpoint) in cases.items():
        assert reason_of(lambda b=bootstrap, c=checkpoint: lc.verify_bootstrap(b, c, CONFIG, now)) == reason
    for wrong in (branch[1:], branch[:-1], (), (*branch[:-1], bytes(32)), (bytes(31) + b"\1", *branch)):
        other = replace(good, current_committee_branch=wrong)
        assert reason_of(lambda b=other: lc.verify_bootstrap(b, root, CONFIG, now)) == "bad_committee"
    assert reason_of(lambda: lc.verify_bootstrap(good, root, CONFIG, now - 1)) == "future"


def test_a_committee_with_a_key_that_is_no_key_is_refused_although_its_branch_holds():
    for bad in (b"\xc0" + bytes(47), bytes(48), b"\xff" * 48):
        keys = get_committee(2, 32)
        committee = replace(keys, pubkeys=(bad, *keys.pubkeys[1:]))
        gindex = get_gindices(Fork.FULU).current_committee
        header, branches = FORGE.make_header_with_branches(START, {gindex: compute_committee_root(committee)})
        bootstrap = Bootstrap(header, committee, branches[gindex])
        assert reason_of(lambda b=bootstrap: lc.verify_anchor(b, DEVNET)) == "bad_pubkey"


def test_a_floor_under_two_thirds_cannot_be_configured():
    assert lc.LightClientConfig(DEVNET, floor=(9, 10)).floor == (9, 10)
    for floor in ((1, 2), (0, 1), (4, 3), (65, 100)):
        assert reason_of(lambda f=floor: lc.LightClientConfig(DEVNET, floor=f)) == "bad_config"


# ---- updates ----------------------------------------------------------------------------------------------------------


def test_a_finality_update_moves_the_finalized_header():
    trusted = FORGE.make_trusted(START)
    update = FORGE.make_update(START + 24, START + 8)
    after = verify(trusted, update)
    assert after.finalized == update.finalized
    assert after.optimistic == update.attested
    assert after.next_committee == update.next_committee
    assert trusted == FORGE.make_trusted(START), "trusted states are replaced, never changed"


def test_an_optimistic_update_is_information_only():
    trusted = FORGE.make_trusted(START)
    after = verify(trusted, FORGE.make_update(START + 3, next_committee=None))
    assert after.optimistic.beacon.slot == START + 3
    assert after.finalized == trusted.finalized


def test_an_update_whose_finality_is_old_teaches_the_next_committee():
    trusted = FORGE.make_trusted(START + 24)
    after = verify(trusted, FORGE.make_update(START + 16, START))
    assert after.next_committee == get_committee(3, 32)
    assert after.finalized == trusted.finalized


def test_committees_rotate_period_by_period_and_never_skip_one():
    trusted = FORGE.make_trusted(START)
    for period in range(2, 7):
        slot = period * PERIOD + 40
        trusted = verify(trusted, FORGE.make_update(slot, slot - 16))
        assert trusted.current_committee == get_committee(period, 32)
        assert trusted.next_committee == get_committee(period + 1, 32)
    ahead = 8 * PERIOD + 40
    assert reason_of(lambda: verify(trusted, FORGE.make_update(ahead, ahead - 16))) == "period_ahead"
    forgetful = replace(trusted, next_committee=None)
    following = 7 * PERIOD + 40
    assert (
        reason_of(lambda: verify(forgetful, FORGE.make_update(following, following - 16))) == "next_committee_unknown"
    )
    past = PERIOD + 40
    behind = FORGE.make_update(past, past - 16)
    assert reason_of(lambda: lc.verify_statement(trusted, behind, 10**6, DEVNET, lc.TWO_THIRDS)) == "period_behind"


def test_the_first_update_of_a_period_is_signed_by_its_own_committee():
    trusted = FORGE.make_trusted(START, knows_next=True)
    slot = 3 * PERIOD
    update = FORGE.make_update(slot - 1, slot - 17, signature_slot=slot)
    assert verify(trusted, update).finalized.beacon.slot == slot - 17
    by_old = FORGE.sign(update, period=2)
    assert reason_of(lambda: verify(trusted, by_old)) == "bad_signature"


def test_an_update_that_tells_nothing_new_is_a_named_refusal():
    trusted = verify(FORGE.make_trusted(START), FORGE.make_update(START + 24, START + 8))
    assert reason_of(lambda: verify(trusted, FORGE.make_update(START + 24, START + 8))) == "not_newer"
    assert reason_of(lambda: verify(trusted, FORGE.make_update(START + 20, START + 8))) == "not_newer"
    assert verify(trusted, FORGE.make_update(START + 25, START + 8)).finalized == trusted.finalized


def test_each_rule_refuses_with_its_own_reason():
    trusted = FORGE.make_trusted(START)
    good = FORGE.make_update(START + 24, START + 8)
    sign = FORGE.sign
    other_header = FORGE.make_header(START + 9)
    cases = {
        "bad_shape": [
            replace(good, aggregate=replace(good.aggregate, bits=good.aggregate.bits + b"\xff")),
            replace(good, aggregate=replace(good.aggregate, signature=good.aggregate.signature[:-1])),
            replace(good, finality_branch=good.finality_branch + (bytes(32),) * 9),
            replace(good, finality_branch=(b"", *good.finality_branch[1:])),
            replace(good, next_committee=get_committee(3, 64)),
        ],
        "participation": [replace(good, aggregate=replace(good.aggregate, bits=bytes(4)))],
        "slots": [
            sign(replace(good, signature_slot=START + 24)),
            sign(replace(good, signature_slot=START)),
            replace(good, finalized=FORGE.make_header(START + 25)),
        ],
        "bad_finality": [
            replace(good, finalized=other_header),
            replace(good, finalized=None),
            replace(good, finality_branch=()),
            replace(good, finality_branch=good.finality_branch[:-1]),
            replace(good, finality_branch=(b"\1" * 32, *good.finality_branch)),
        ],
        "bad_committee": [
            replace(good, next_committee=get_committee(4, 32)),
            replace(good, next_committee=None),
            replace(good, next_committee_branch=()),
        ],
        "bad_execution": [
            replace(good, attested=replace(good.attested, execution=None, execution_branch=())),
            replace(good, attested=replace(good.attested, execution_branch=good.attested.execution_branch[:-1])),
            replace(good, attested=replace(good.attested, execution=other_header.execution)),
        ],
        "bad_signature": [
            replace(good, aggregate=replace(good.aggregate, signature=b"\xc0" + bytes(95))),
            replace(good, aggregate=replace(good.aggregate, signature=bytes(96))),
            sign(good, period=3),
            replace(good, aggregate=replace(good.aggregate, bits=b"\xfe\xff\xff\xff")),
        ],
    }
    assert verify(trusted, good)
    for reason, updates in cases.items():
        for i, update in enumerate(updates):
            assert reason_of(lambda u=update: verify(trusted, u)) == reason, (reason, i)
    assert reason_of(lambda: verify(trusted, good, at=good.signature_slot - 1)) == "future"


def list_flips(value, path=()):
    """Yield every field of a value with one bit or one unit changed, as (path, changed value)."""
    if is_dataclass(value):
        for field in fields(value):
            for where, changed in list_flips(getattr(value, field.name), (*path, field.name)):
                yield where, replace(value, **{field.name: changed})
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            for where, changed in list_flips(item, (*path, i)):
                yield where, (*value[:i], changed, *value[i + 1 :])
    elif isinstance(value, bytes):
        middle = len(value) // 2
        yield path, value[:middle] + bytes((value[middle] ^ 4,)) + value[middle + 1 :]
    elif isinstance(value, int):
        yield path, value + 1


def test_no_part_of_a_verified_update_may_change():
    trusted = FORGE.make_trusted(START)
    good = FORGE.make_update(START + 24, START + 8)
    assert verify(trusted, good)
    count = 0
    for where, changed in list_flips(good):
        if where == ("signature_slot",):
            continue  # not signed: any later slot of the same fork and period is as good
        with pytest.raises((Rejected, Conflict)):
            verify(trusted, changed, at=good.signature_slot + 5)
        count += 1
    assert count > 80


@pytest.mark.parametrize("fork", list(Fork)[1:])
def test_every_fork_has_its_own_header_and_branches(fork):
    epochs = tuple(0 if known <= fork else 2**64 - 1 for known in Fork)
    schedule = build_devnet(genesis_time=GENESIS_TIME, genesis_validators_root=bytes(32), preset=SMALL, epochs=epochs)
    forge = Forge(schedule)
    config = lc.LightClientConfig(schedule, max_clock_drift_s=0)
    trusted = forge.make_trusted(START)
    update = forge.make_update(START + 24, START + 8)
    assert len(update.finality_branch) == (7 if fork >= Fork.ELECTRA else 6)
    assert (update.attested.execution is not None) == (fork >= Fork.CAPELLA)
    after = verify(trusted, update, config=config)
    assert after.finalized == update.finalized
    padded = replace(update, finality_branch=(bytes(32), *update.finality_branch))
    assert verify(trusted, padded, config=config) == after, "a later store's padding changes nothing"
    if fork == Fork.CAPELLA:
        blobs = replace(update.attested.execution, blob_gas_used=1)
        strange = replace(update, attested=replace(update.attested, execution=blobs))
        assert reason_of(lambda: verify(trusted, strange, config=config)) == "bad_execution"
    if fork < Fork.CAPELLA:
        early = replace(update, attested=replace(update.attested, execution=FORGE.make_execution(START + 24)))
        assert reason_of(lambda: verify(trusted, early, config=config)) == "bad_execution"


# ---- equivocation -----------------------------------------------------------------------------------------------------


def test_another_finalized_header_at_the_trusted_slot_is_a_conflict():
    trusted = verify(FORGE.make_trusted(START), FORGE.make_update(START + 24, START + 8))
    fork = Forge(salt=b"other").make_update(START + 25, START + 8)
    assert reason_of(lambda: verify(trusted, fork), Conflict) == "equivocation"
    same = FORGE.make_update(START + 25, START + 8)
    assert verify(trusted, same)


def test_another_next_committee_is_a_conflict_only_when_it_is_signed():
    trusted = FORGE.make_trusted(START, knows_next=True)
    other = FORGE.make_update(START + 24, START + 8, next_committee=get_committee(9, 32))
    assert reason_of(lambda: verify(trusted, other), Conflict) == "equivocation"
    unsigned = replace(other, aggregate=replace(other.aggregate, signature=b"\xc0" + bytes(95)))
    assert reason_of(lambda: verify(trusted, unsigned)) == "bad_signature"


def make_evidence() -> dict[str, Equivocation]:
    other = Forge(salt=b"other")
    pairs = {
        "attested": (FORGE.make_update(START + 24, START + 8), other.make_update(START + 24, START)),
        "finalized": (FORGE.make_update(START + 24, START + 8), other.make_update(START + 30, START + 8)),
        "committee": (
            FORGE.make_update(START + 24, START + 8),
            FORGE.make_update(START + 30, START + 16, next_committee=get_committee(9, 32)),
        ),
    }
    return {kind: lc.find_equivocation(*pair, DEVNET) for kind, pair in pairs.items()}


def test_two_statements_that_exclude_each_other_are_portable_evidence():
    trusted = FORGE.make_trusted(START)
    for kind, evidence in make_evidence().items():
        assert evidence is not None
        assert evidence.kind == kind
        text = encode_canonical(encode_equivocation_json(evidence, DEVNET))
        again = parse_equivocation_json(decode_canonical(text), DEVNET)
        assert again == evidence
        lc.verify_equivocation(again, trusted, CONFIG)


def test_evidence_is_refused_when_one_side_is_not_signed_or_nothing_is_excluded():
    trusted = FORGE.make_trusted(START)
    evidence = make_evidence()["finalized"]
    second = replace(evidence.second, aggregate=replace(evidence.second.aggregate, signature=b"\xc0" + bytes(95)))
    assert (
        reason_of(lambda: lc.verify_equivocation(replace(evidence, second=second), trusted, CONFIG)) == "bad_signature"
    )
    few = FORGE.sign(replace(evidence.first, aggregate=replace(evidence.first.aggregate, bits=b"\xff\xff\x1f\0")))
    assert reason_of(lambda: lc.verify_equivocation(replace(evidence, first=few), trusted, CONFIG)) == "participation"
    same = replace(evidence, second=evidence.first)
    assert reason_of(lambda: lc.verify_equivocation(same, trusted, CONFIG)) == "no_equivocation"
    assert (
        reason_of(lambda: lc.verify_equivocation(replace(evidence, kind="attested"), trusted, CONFIG))
        == "no_equivocation"
    )
    stranger = FORGE.make_trusted(5 * PERIOD)
    assert reason_of(lambda: lc.verify_equivocation(evidence, stranger, CONFIG)) == "period_behind"


def test_an_honest_reorg_of_the_head_is_no_evidence():
    first = FORGE.make_update(START + 24, START + 8)
    second = Forge(salt=b"other").make_update(START + 24, START, signature_slot=START + 26, next_committee=None)
    assert lc.find_equivocation(first, second, DEVNET) is None


# ---- ranking ----------------------------------------------------------------------------------------------------------


def test_updates_rank_by_supermajority_committee_finality_participation_then_age():
    make = FORGE.make_update
    slot = START + 24
    best_first = [
        make(slot, START + 8),
        make(slot, START + 8, participants=30),
        make(slot + 1, START + 8, participants=30),
        make(slot + 1, START + 8, participants=30, signature_slot=slot + 4),
        make(slot, 8, participants=32),  # finality of an older period
        make(slot, None),
        make(slot, START + 8, next_committee=None),
        make(slot, None, next_committee=None),
        make(slot, START + 8, participants=21),
        make(slot, START + 8, participants=20),
    ]
    for i, better in enumerate(best_first):
        for worse in best_first[i + 1 :]:
            assert lc.is_better_update(better, worse, DEVNET)
            assert not lc.is_better_update(worse, better, DEVNET)
