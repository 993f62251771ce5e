"""Misbehaviour: two signed blocks that exclude each other convict; lies of a source, and honest histories, convict nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chains.cosmos import codec, evidence
from chains.cosmos import light_client as lc
from chains.cosmos.evidence import Attack
from chains.cosmos.hashing import compute_address
from chains.cosmos.types import Flag, Misbehaviour
from messages.errors import Conflict, Rejected
from tests.chains.cosmos_forge import CONFIG, Forge, change_vote, get_key, make_set

OLD = make_set(["ann", "ben", "cat", "dan"])
LIARS = make_set(["ann", "ben", "eve", "fay", "gus"])
FORGE = Forge(((1, OLD),))
TRUSTED = FORGE.make_trusted(3)
NOW = FORGE.get_time(30)
TRUE = FORGE.make_block(9)
FORKED = FORGE.make_block(9, data_hash=b"\1" * 32, signers=["ann", "ben", "dan"])


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def verify(first, second, trusted=TRUSTED, now_ns=NOW):
    found = evidence.find_misbehaviour(first, second)
    assert found is not None
    evidence.verify_misbehaviour(found, trusted, now_ns, CONFIG)
    return found


def test_two_headers_at_one_height_are_a_fork_in_either_order():
    assert verify(TRUE, FORKED).kind == "fork"
    assert verify(FORKED, TRUE).kind == "fork"
    assert evidence.find_misbehaviour(TRUE, TRUE) is None
    assert evidence.find_misbehaviour(TRUE, FORGE.make_block(9, signers=["ann", "ben", "cat"])) is None


def test_a_later_height_without_a_later_time_is_a_fault_of_time():
    early = FORGE.make_block(11, time_ns=TRUE.header.time_ns)
    assert verify(TRUE, early) == Misbehaviour("time", early, TRUE)
    assert evidence.find_misbehaviour(TRUE, FORGE.make_block(11, time_ns=TRUE.header.time_ns + 1)) is None


def test_blocks_of_two_chains_exclude_nothing():
    assert evidence.find_misbehaviour(TRUE, replace(FORGE, chain_id="forge-2").make_block(9, data_hash=b"")) is None


def test_evidence_that_names_another_fault_or_none_is_refused():
    for claim in (Misbehaviour("time", TRUE, FORKED), Misbehaviour("fork", TRUE, TRUE), Misbehaviour("", TRUE, FORKED)):
        assert refuse(lambda c=claim: evidence.verify_misbehaviour(c, TRUSTED, NOW, CONFIG)) == "no_misbehaviour"


def test_evidence_is_carried_as_bytes_and_still_convicts():
    blocks = [codec.decode_update(codec.encode_update(block)) for block in (TRUE, FORKED)]
    assert verify(*blocks).kind == "fork"


def test_too_few_signers_convict_nobody():
    weak = FORGE.make_block(9, data_hash=b"\1" * 32, signers=["ann", "ben"])
    assert refuse(lambda: verify(TRUE, weak)) == "too_few"


def test_strangers_convict_nobody():
    strange = FORGE.make_block(9, validators=make_set(["eve", "fay", "gus"]))
    assert refuse(lambda: verify(TRUE, strange)) == "not_enough_trust"


def test_a_third_of_the_trusted_who_signed_a_false_set_are_convicted():
    """The lunatic attack: the set is invented, but two of four trusted ones signed."""
    forged = FORGE.make_block(9, validators=LIARS)
    verify(TRUE, forged)
    assert evidence.classify_attack(forged, TRUE) is Attack.LUNATIC
    guilty = evidence.get_byzantine(forged, TRUE, TRUSTED)
    assert set(guilty) == {compute_address(get_key(name)) for name in ("ann", "ben")}


def test_equivocation_convicts_who_signed_both_and_amnesia_nobody():
    assert evidence.classify_attack(FORKED, TRUE) is Attack.EQUIVOCATION
    guilty = evidence.get_byzantine(FORKED, TRUE, TRUSTED)
    assert set(guilty) == {compute_address(get_key(name)) for name in ("ann", "ben", "dan")}
    later = FORGE.make_block(9, data_hash=b"\1" * 32, round_=1)
    assert verify(TRUE, later).kind == "fork"
    assert evidence.classify_attack(later, TRUE) is Attack.AMNESIA
    assert evidence.get_byzantine(later, TRUE, TRUSTED) == ()


def test_evidence_needs_a_trusted_header_before_it_that_still_lives():
    assert refuse(lambda: verify(TRUE, FORKED, trusted=FORGE.make_trusted(9))) == "not_newer"
    expiry = TRUSTED.time_ns + CONFIG.trusting_period_ns
    assert refuse(lambda: verify(TRUE, FORKED, now_ns=expiry)) == "expired"
    assert refuse(lambda: verify(TRUE, FORKED, now_ns=TRUE.header.time_ns - CONFIG.max_clock_drift_ns)) == "future"


def test_the_second_block_may_be_judged_by_another_trusted_header():
    turned = Forge(((1, OLD), (6, make_set(["eve", "fay", "gus"]))))
    one, two = turned.make_block(9), turned.make_block(9, data_hash=b"\1" * 32)
    claim = Misbehaviour("fork", one, two)
    near, far = turned.make_trusted(7), turned.make_trusted(3)
    evidence.verify_misbehaviour(claim, near, NOW, CONFIG)
    assert refuse(lambda: evidence.verify_misbehaviour(claim, near, NOW, CONFIG, far)) == "not_enough_trust"
    assert refuse(lambda: evidence.verify_misbehaviour(claim, far, NOW, CONFIG, near)) == "not_enough_trust"


# ---- against what is trusted ------------------------------------------------------------------------------------------


def confront(trusted, block):
    evidence.verify_no_conflict(trusted, block, NOW, CONFIG)


def test_another_signed_header_at_the_trusted_height_is_a_conflict():
    trusted = lc.make_trusted(TRUE)
    with pytest.raises(Conflict) as error:
        confront(trusted, FORKED)
    assert error.value.reason == "equivocation"
    confront(trusted, TRUE)
    assert refuse(lambda: confront(trusted, FORGE.make_block(9, data_hash=b"", signers=["ann"]))) == "too_few"
    stranger = FORGE.make_block(9, validators=make_set(["eve", "fay"]))
    assert refuse(lambda: confront(trusted, stranger)) == "not_enough_trust"
    with pytest.raises(Conflict):
        confront(trusted, FORGE.make_block(9, validators=LIARS))
    old = trusted.time_ns + CONFIG.trusting_period_ns
    assert refuse(lambda: evidence.verify_no_conflict(trusted, FORKED, old, CONFIG)) == "expired"


def test_a_signed_later_height_with_an_earlier_time_is_a_conflict():
    trusted = lc.make_trusted(TRUE)
    with pytest.raises(Conflict):
        confront(trusted, FORGE.make_block(11, time_ns=trusted.time_ns))
    confront(trusted, FORGE.make_block(11))
    unsigned = FORGE.make_block(11, time_ns=trusted.time_ns, signers=["ann", "ben"])
    assert refuse(lambda: confront(trusted, unsigned)) == "too_few"


def test_a_block_below_is_left_to_those_who_trust_a_header_before_it():
    trusted = lc.make_trusted(TRUE)
    late = FORGE.make_block(8, time_ns=trusted.time_ns + 1)
    assert evidence.is_conflict(trusted, late)
    confront(trusted, late)


# ---- witnesses --------------------------------------------------------------------------------------------------------


def ask(steps, witness, trusted=TRUSTED):
    path = evidence.watch_witness(trusted, steps, NOW, CONFIG)
    try:
        height = next(path)
        while True:
            height = path.send(witness(height))
    except StopIteration as end:
        return end.value


def make_steps(heights, forge=FORGE, **changes):
    return tuple((block, lc.make_trusted(block)) for block in (forge.make_block(h, **changes) for h in heights))


def test_a_witness_that_agrees_is_asked_once():
    asked = []

    def witness(height):
        asked.append(height)
        return FORGE.make_block(height)

    assert ask(make_steps([5, 7, 9]), witness) is None
    assert asked == [9]
    assert ask((), witness) is None


def test_a_proven_contradiction_gives_evidence_from_the_last_common_header_on():
    def witness(height):
        return FORGE.make_block(height, data_hash=b"\1" * 32) if height >= 7 else FORGE.make_block(height)

    found = ask(make_steps([5, 7, 9]), witness)
    assert found.common.height == 5
    assert found.evidence.first.header.height == found.evidence.second.header.height == 7
    evidence.verify_misbehaviour(found.evidence, found.common, NOW, CONFIG, found.second_trusted)


def test_a_witness_whose_way_needs_blocks_between_still_proves_it():
    turning = Forge(((1, OLD), (6, make_set(["ann", "ben", "eve", "fay"])), (11, make_set(["eve", "fay", "gus"]))))
    lying = make_steps([14], forge=turning, validators=make_set(["ann", "ben", "cat", "dan"]))
    found = ask(lying, turning.make_block)
    assert found.second_trusted.height > found.common.height
    evidence.verify_misbehaviour(found.evidence, found.common, NOW, CONFIG, found.second_trusted)
    assert refuse(lambda: evidence.verify_misbehaviour(found.evidence, found.common, NOW, CONFIG)) == "not_enough_trust"


@pytest.mark.parametrize("signers", [["ann"], ["ann", "ben"]])
def test_a_witness_that_cannot_prove_its_contradiction_stops_the_comparison(signers):
    """F3: one diverging witness of n stops it, proven or not."""

    def witness(height):
        return FORGE.make_block(height, data_hash=b"\1" * 32, signers=signers)

    assert refuse(lambda: ask(make_steps([5, 9]), witness)) == "witness_diverged"


def test_a_witness_that_says_two_things_or_another_height_is_refused():
    answers = iter([FORGE.make_block(9, data_hash=b"\1" * 32), FORGE.make_block(9)])
    assert refuse(lambda: ask(make_steps([9]), lambda _: next(answers))) == "witness_diverged"
    assert refuse(lambda: ask(make_steps([5, 9]), lambda _: FORGE.make_block(9, data_hash=b""))) == "wrong_height"


def test_every_signature_of_evidence_is_checked_also_those_beyond_two_thirds_and_nil_ones():
    """F7: verification of an update stops when it has enough; evidence names each signer."""
    everybody = FORGE.make_block(9, data_hash=b"\1" * 32)
    last = len(everybody.commit.signatures) - 1
    forged = change_vote(everybody, last, signature=b"\1" * 64)
    assert lc.judge_update(TRUSTED, forged, NOW, CONFIG) is lc.Verdict.SUCCESS
    assert refuse(lambda: verify(TRUE, forged)) == "bad_signature"
    with_nil = FORGE.make_block(9, data_hash=b"\1" * 32, nil=["cat"])
    verify(TRUE, with_nil)
    slot = next(i for i, vote in enumerate(with_nil.commit.signatures) if vote.flag == Flag.NIL)
    assert refuse(lambda: verify(TRUE, change_vote(with_nil, slot, signature=b"\1" * 64))) == "bad_signature"
