"""The CometBFT light client with own validators: what it accepts, and beside each accepted block the one that breaks one rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import codec
from chains.cosmos import light_client as lc
from chains.cosmos.light_client import Verdict
from chains.cosmos.types import NANOSECONDS, Flag, KeyType, PublicKey, Validator, ValidatorSet
from chains.cosmos.validators import MAX_TOTAL_POWER, is_sound_set, is_valid_signature
from messages.errors import Rejected
from tests.chains.cosmos_forge import (
    CHAIN,
    CONFIG,
    Forge,
    change_vote,
    get_key,
    get_name,
    make_set,
    sign,
)

OLD = make_set(["ann", "ben", "cat", "dan"])
NEW = make_set(["eve", "fay", "gus", "hal"])
STEADY = Forge(((1, OLD),))
TURNING = Forge(((1, OLD), (6, make_set(["ann", "ben", "eve", "fay"])), (11, NEW)))
TRUSTED = STEADY.make_trusted(3)
NOW = STEADY.get_time(20)


def refuse(call) -> str:
    with pytest.raises(Rejected) as error:
        call()
    return error.value.reason


def judge(block, trusted=TRUSTED, now_ns=NOW, config=CONFIG):
    return lc.judge_update(trusted, block, now_ns, config)


def why(block, **given) -> str:
    return refuse(lambda: judge(block, **given))


# ---- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [4, 5, 9])
def test_a_block_that_all_signed_is_accepted_next_or_by_a_leap(height):
    block = STEADY.make_block(height)
    after = lc.verify_update(TRUSTED, block, NOW, CONFIG)
    assert (after.height, after.app_hash, after.time_ns) == (height, block.header.app_hash, block.header.time_ns)
    assert after.next_validators == OLD
    assert codec.decode_trusted(codec.encode_trusted(after)) == after


@pytest.mark.parametrize("height", [4, 9])
def test_three_of_four_are_enough_and_two_are_not(height):
    assert judge(STEADY.make_block(height, signers=["ann", "ben", "dan"])) is Verdict.SUCCESS
    assert why(STEADY.make_block(height, signers=["ann", "dan"])) == "too_few"


def test_two_thirds_exactly_are_not_more_than_two_thirds():
    forge = Forge(((1, make_set(["ann", "ben", "cat"])),))
    trusted = forge.make_trusted(3)
    assert why(forge.make_block(4, signers=["ann", "ben"]), trusted=trusted) == "too_few"
    heavier = Forge(((1, make_set({"ann": 10, "ben": 11, "cat": 10})),))
    assert judge(heavier.make_block(4, signers=["ann", "ben"]), trusted=heavier.make_trusted(3)) is Verdict.SUCCESS


def test_a_block_that_is_not_newer_is_refused():
    assert why(STEADY.make_block(3)) == "not_newer"
    assert why(STEADY.make_block(2)) == "not_newer"


def test_a_later_height_needs_a_later_time():
    for height in (4, 9):
        assert why(STEADY.make_block(height, time_ns=TRUSTED.time_ns)) == "time_order"
        assert judge(STEADY.make_block(height, time_ns=TRUSTED.time_ns + 1)) is Verdict.SUCCESS


def test_a_header_at_the_clock_and_its_drift_is_refused_and_one_nanosecond_before_is_not():
    block = STEADY.make_block(4)
    edge = block.header.time_ns - CONFIG.max_clock_drift_ns
    assert why(block, now_ns=edge) == "future"
    assert judge(block, now_ns=edge + 1) is Verdict.SUCCESS


def test_another_chain_and_another_revision_are_refused_by_their_names():
    assert why(replace(STEADY, chain_id="fork-1").make_block(4)) == "wrong_chain"
    assert why(replace(STEADY, chain_id="forge-2").make_block(4)) == "revision"


@pytest.mark.parametrize(
    ("chain_id", "revision"),
    [("hub-4", 4), ("hub-1-2", 2), ("hub", 0), ("hub-0", 0), ("hub-04", 0), ("hub--1", 0), ("-1", 0), ("hub-", 0)],
)
def test_the_revision_is_the_number_behind_the_last_dash(chain_id, revision):
    assert lc.get_revision(chain_id) == revision


def test_a_commit_about_another_header_or_height_is_refused():
    block = STEADY.make_block(4)
    assert why(replace(block, header=replace(block.header, app_hash=b"\1" * 32))) == "wrong_commit"
    assert why(replace(block, commit=STEADY.make_block(5).commit)) == "wrong_commit"
    assert why(replace(block, commit=replace(block.commit, height=5))) == "wrong_commit"


def test_validators_that_the_header_does_not_name_are_refused():
    block = STEADY.make_block(4)
    assert why(replace(block, validators=NEW)) == "wrong_validators"
    assert why(replace(block, next_validators=NEW)) == "wrong_validators"
    richer = make_set({"ann": 11, "ben": 10, "cat": 10, "dan": 10})
    assert why(replace(block, validators=richer)) == "wrong_validators"


def test_the_next_block_must_have_the_announced_validators_though_all_of_them_signed():
    block = STEADY.make_block(4, validators=make_set(["ann", "ben", "cat", "dan", "eve"]))
    assert why(block) == "wrong_validators"
    assert judge(STEADY.make_block(5, validators=make_set(["ann", "ben", "cat", "dan", "eve"]))) is Verdict.SUCCESS


@pytest.mark.parametrize(
    "changes",
    [
        {"version_block": 10},
        {"proposer_address": b"\1" * 19},
        {"data_hash": b"\1" * 31},
        {"validators_hash": b""},
        {"next_validators_hash": b""},
        {"app_hash": bytes(65)},
        {"height": 0},
        {"chain_id": "x" * 51},
    ],
)
def test_a_header_of_another_shape_is_refused(changes):
    block = STEADY.make_block(4)
    assert why(replace(block, header=replace(block.header, **changes))) == "bad_shape"


def test_a_commit_of_another_shape_is_refused():
    block = STEADY.make_block(4, nil=["ann"])
    commit = block.commit
    slot = next(i for i, vote in enumerate(commit.signatures) if vote.flag == Flag.COMMIT)
    assert why(replace(block, commit=replace(commit, signatures=()))) == "bad_shape"
    assert why(replace(block, commit=replace(commit, round=-1))) == "bad_shape"
    assert why(replace(block, commit=replace(commit, block_id=replace(commit.block_id, hash=b"")))) == "bad_shape"
    for changes in ({"flag": 0}, {"flag": 4}, {"flag": Flag.ABSENT}, {"signature": b""}, {"address": b""}):
        assert why(change_vote(block, slot, **changes)) == "bad_shape"


def test_a_set_without_members_or_power_or_with_a_double_is_unsound():
    ann = Validator(get_key("ann"), 1)
    assert is_sound_set(ValidatorSet((ann,)))
    for members in (
        (),
        (ann, ann),
        (ann, Validator(get_key("ann"), 2)),
        (Validator(get_key("ben"), 0),),
        (Validator(get_key("ben"), -1),),
        (ann, Validator(get_key("ben"), MAX_TOTAL_POWER)),
        (Validator(PublicKey(KeyType.ED25519, b"\1" * 33), 1),),
        (Validator(PublicKey(KeyType.SECP256K1, b"\2" * 32), 1),),
    ):
        assert not is_sound_set(ValidatorSet(members))


def test_one_wrong_signature_among_those_that_count_refuses_the_block():
    block = STEADY.make_block(4, signers=["ann", "ben", "dan"])
    for slot, vote in enumerate(block.commit.signatures):
        if vote.flag == Flag.COMMIT:
            wrong = vote.signature[:-1] + bytes([vote.signature[-1] ^ 1])
            assert why(change_vote(block, slot, signature=wrong)) == "bad_signature"
            assert why(change_vote(block, slot, time_ns=vote.time_ns + 1)) == "bad_signature"


def test_a_vote_of_another_round_or_block_does_not_count_here():
    block = STEADY.make_block(4)
    assert why(replace(block, commit=replace(block.commit, round=1))) == "bad_signature"
    parts = replace(block.commit.block_id, parts=replace(block.commit.block_id.parts, total=2))
    assert why(replace(block, commit=replace(block.commit, block_id=parts))) == "bad_signature"


def test_secp256k1_validators_sign_too_and_a_high_s_does_not_count():
    forge = Forge(((1, make_set(["k1a", "k1b", "ann"])),))
    trusted = forge.make_trusted(3)
    block = forge.make_block(4)
    assert judge(block, trusted=trusted) is Verdict.SUCCESS
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    slot = next(i for i, v in enumerate(block.validators.validators) if v.key.kind is KeyType.SECP256K1)
    signature = block.commit.signatures[slot].signature
    high = signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert why(change_vote(block, slot, signature=high), trusted=trusted) == "bad_signature"


def test_a_secp256k1_signature_of_another_form_is_refused_and_never_an_error():
    key, message = get_key("k1a"), b"message"
    signature = sign("k1a", message)
    assert is_valid_signature(key, message, signature)
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(64), b"\xff" * 32 + signature[32:]):
        assert not is_valid_signature(key, message, wrong)
    assert not is_valid_signature(key, b"other", signature)
    assert not is_valid_signature(PublicKey(KeyType.SECP256K1, b"\5" * 33), message, signature)


def spoil(block, slot):
    signature = block.commit.signatures[slot].signature
    return change_vote(block, slot, signature=signature[:-1] + bytes([signature[-1] ^ 1]))


MANY = Forge(((1, make_set({**{f"v{i}": 10 for i in range(30)}, "k1a": 20, "k1b": 20})),))
"""Slots 0 and 1 have secp256k1 keys; the first 21 have more than two thirds of the power, the first 10 more than a third."""


def name_wrong(block, trusted) -> str:
    with pytest.raises(Rejected) as error:
        judge(block, trusted=trusted)
    assert error.value.reason == "bad_signature"
    return str(error.value)


@pytest.mark.parametrize("height", [4, 9])
def test_of_many_votes_the_first_wrong_one_is_named_and_those_beyond_two_thirds_are_not_read(height):
    block, trusted = MANY.make_block(height), MANY.make_trusted(3)
    assert judge(block, trusted=trusted) is Verdict.SUCCESS
    for slot in (0, 1, 7, 20):
        assert f"validator {slot} (" in name_wrong(spoil(block, slot), trusted)
        assert f"validator {min(slot, 5)} (" in name_wrong(spoil(spoil(block, slot), 5), trusted)
    assert judge(spoil(block, 21), trusted=trusted) is Verdict.SUCCESS


def test_a_leap_with_a_third_of_an_unchanged_set_and_no_two_thirds_is_too_few_whatever_more_they_signed():
    """What only two thirds would need is not read where two thirds cannot be reached; less than a third is no verdict on anybody."""
    trusted = MANY.make_trusted(3)
    names = [get_name(member.key) for member in MANY.get_set(1).validators]
    block = MANY.make_block(9, signers=names[:12])
    assert why(block, trusted=trusted) == "too_few"
    assert why(spoil(block, 11), trusted=trusted) == "too_few"
    assert why(spoil(block, 9), trusted=trusted) == "bad_signature"
    fewer = MANY.make_block(9, signers=names[:9])
    assert judge(spoil(fewer, 0), trusted=trusted) is Verdict.NOT_ENOUGH_TRUST


# ---- trust ------------------------------------------------------------------------------------------------------------


def test_a_leap_to_strangers_is_not_enough_trust_and_a_leap_over_a_third_is():
    trusted = TURNING.make_trusted(3)
    assert judge(TURNING.make_block(12), trusted=trusted) is Verdict.NOT_ENOUGH_TRUST
    assert judge(TURNING.make_block(7), trusted=trusted) is Verdict.SUCCESS
    assert refuse(lambda: lc.verify_update(trusted, TURNING.make_block(12), NOW, CONFIG)) == "not_enough_trust"


@pytest.mark.parametrize(("level", "is_enough"), [((1, 3), True), ((49, 100), True), ((1, 2), False), ((1, 1), False)])
def test_the_trust_level_is_what_the_operator_says_and_must_be_exceeded(level, is_enough):
    config = replace(CONFIG, trust_level=level)
    verdict = judge(TURNING.make_block(7), trusted=TURNING.make_trusted(3), config=config)
    assert (verdict is Verdict.SUCCESS) == is_enough


def test_a_third_exactly_is_not_enough():
    forge = Forge(((1, make_set(["ann", "ben", "cat"])), (6, make_set(["ann", "eve", "fay"]))))
    assert judge(forge.make_block(7), trusted=forge.make_trusted(3)) is Verdict.NOT_ENOUGH_TRUST


def test_who_is_in_both_sets_but_did_not_sign_gives_no_trust():
    block = TURNING.make_block(7, signers=["ann", "eve", "fay"])
    assert judge(block, trusted=TURNING.make_trusted(3)) is Verdict.NOT_ENOUGH_TRUST


def test_the_power_of_a_common_member_is_that_of_the_trusted_set():
    forge = Forge(((1, make_set({"ann": 1, "ben": 5, "cat": 5})), (6, make_set({"ann": 1000, "eve": 1}))))
    assert judge(forge.make_block(7), trusted=forge.make_trusted(3)) is Verdict.NOT_ENOUGH_TRUST


def test_without_the_next_set_only_the_next_block_can_be_judged():
    trusted = replace(TRUSTED, next_validators=None)
    assert judge(STEADY.make_block(4), trusted=trusted) is Verdict.SUCCESS
    assert judge(STEADY.make_block(5), trusted=trusted) is Verdict.NOT_ENOUGH_TRUST


def test_the_next_set_is_taken_from_the_block_itself_where_nothing_changes():
    block = replace(STEADY.make_block(4), next_validators=None)
    assert lc.verify_update(TRUSTED, block, NOW, CONFIG).next_validators == OLD
    turning = replace(TURNING.make_block(5), next_validators=None)
    assert lc.verify_update(TURNING.make_trusted(3), turning, NOW, CONFIG).next_validators is None


@pytest.mark.parametrize("level", [(0, 1), (1, 0), (0, 0), (1, 4), (6, 5), (-1, -2)])
def test_a_trust_level_outside_a_third_to_one_is_no_configuration(level):
    assert refuse(lambda: replace(CONFIG, trust_level=level)) == "bad_config"


def test_other_nonsense_is_no_configuration():
    for changes in ({"chain_id": ""}, {"trusting_period_ns": 0}, {"max_clock_drift_ns": -1}):
        assert refuse(lambda c=changes: replace(CONFIG, **c)) == "bad_config"


# ---- bootstrap --------------------------------------------------------------------------------------------------------


def start(block, height=3, header_hash=None, now_ns=NOW):
    header_hash = block.commit.block_id.hash if header_hash is None else header_hash
    return lc.verify_bootstrap(block, height, header_hash, now_ns, CONFIG)


def test_a_client_starts_at_its_checkpoint_and_nowhere_else():
    block = STEADY.make_block(3)
    assert start(block) == TRUSTED
    assert refuse(lambda: start(block, header_hash=b"\1" * 32)) == "wrong_checkpoint"
    assert refuse(lambda: start(block, height=4)) == "wrong_checkpoint"
    for header_hash in (bytes(32), b"", b"\1" * 31):
        assert refuse(lambda h=header_hash: start(block, header_hash=h)) == "no_checkpoint"
    assert refuse(lambda: start(block, now_ns=block.header.time_ns + CONFIG.trusting_period_ns)) == "expired"
    assert refuse(lambda: start(block, now_ns=block.header.time_ns - CONFIG.max_clock_drift_ns)) == "future"
    assert refuse(lambda: start(STEADY.make_block(3, signers=["ann", "ben"]))) == "too_few"
    assert refuse(lambda: start(replace(block, validators=NEW))) == "wrong_validators"


# ---- bisection --------------------------------------------------------------------------------------------------------


class Source:
    """Gives the blocks of a chain and remembers what was asked."""

    def __init__(self, forge: Forge) -> None:
        self.forge = forge
        self.asked: list[int] = []

    def __call__(self, height: int):
        self.asked.append(height)
        return self.forge.make_block(height)


def test_a_leap_that_is_too_wide_is_halved_until_it_holds():
    source = Source(TURNING)
    steps = lc.drive(lc.walk(TURNING.make_trusted(1), 14, NOW, CONFIG), source)
    assert source.asked == [14, 7]
    assert [after.height for _, after in steps] == [7, 14]
    assert steps[-1][1] == TURNING.make_trusted(14)


def test_a_complete_change_between_two_blocks_is_walked_to_its_edge():
    forge = Forge(((1, OLD), (8, NEW)))
    source = Source(forge)
    steps = lc.drive(lc.walk(forge.make_trusted(1), 14, NOW, CONFIG), source)
    assert [after.height for _, after in steps] == [7, 14]
    assert max(source.asked) == 14


def test_every_block_can_be_walked_and_gives_the_same_end():
    source = Source(TURNING)
    steps = lc.drive(lc.walk_every_block(TURNING.make_trusted(1), 14, NOW, CONFIG), source)
    assert source.asked == list(range(2, 15))
    assert steps[-1][1] == TURNING.make_trusted(14)


def test_a_wrong_block_on_the_way_stops_the_walk():
    def lying(height):
        return TURNING.make_block(height, signers=["eve"] if height == 7 else None)

    path = lc.walk(TURNING.make_trusted(1), 14, NOW, CONFIG)
    assert refuse(lambda: lc.drive(path, lying)) in {"too_few", "wrong_validators"}
    every = lc.walk_every_block(TURNING.make_trusted(1), 14, NOW, CONFIG)
    assert refuse(lambda: lc.drive(every, lying)) == "too_few"


def test_a_source_that_answers_another_height_is_refused():
    for path in (lc.walk, lc.walk_every_block):
        way = path(TRUSTED, 9, NOW, CONFIG)
        assert refuse(lambda w=way: lc.drive(w, lambda _: STEADY.make_block(8))) == "wrong_height"


def test_a_walk_goes_forward_only():
    for height in (2, 3):
        for path in (lc.walk, lc.walk_every_block):
            assert refuse(lambda h=height, p=path: lc.drive(p(TRUSTED, h, NOW, CONFIG), Source(STEADY))) == "not_newer"


def test_a_walk_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(lc, "MAX_BISECTION_FETCHES", 3)
    names = [f"v{i}" for i in range(30)]
    rolling = Forge(tuple((h, make_set(names[h : h + 1])) for h in range(1, 20)))
    source = Source(rolling)
    assert refuse(lambda: lc.drive(lc.walk(rolling.make_trusted(1), 17, NOW, CONFIG), source)) == "bisection"
    assert len(source.asked) == 3
    monkeypatch.setattr(lc, "MAX_BISECTION_FETCHES", 100)
    assert lc.drive(lc.walk(rolling.make_trusted(1), 17, NOW, CONFIG), source)[-1][1].height == 17
    monkeypatch.setattr(lc, "MAX_BISECTION_DEPTH", 3)
    assert refuse(lambda: lc.drive(lc.walk(rolling.make_trusted(1), 17, NOW, CONFIG), source)) == "bisection"


# ---- any change -------------------------------------------------------------------------------------------------------

MINIMAL = STEADY.make_block(9, signers=["ann", "ben", "dan"])
STORED = codec.encode_update(MINIMAL)


@given(st.integers(min_value=1, max_value=len(STORED) - 1), st.integers(min_value=0, max_value=7))
@settings(max_examples=300, deadline=None)
def test_a_block_with_any_bit_changed_is_never_accepted(at, bit):
    data = STORED[:at] + bytes([STORED[at] ^ (1 << bit)]) + STORED[at + 1 :]
    try:
        block = codec.decode_update(data)
        if forget_idle_times(block) == forget_idle_times(MINIMAL):
            return  # the time of an absent vote says nothing
        verdict = judge(block)
    except Rejected:
        return
    assert verdict is Verdict.NOT_ENOUGH_TRUST


def forget_idle_times(block):
    votes = tuple(replace(v, time_ns=0) if v.flag == Flag.ABSENT else v for v in block.commit.signatures)
    return replace(block, commit=replace(block.commit, signatures=votes))


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from(list(Flag))), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_the_tally_is_that_of_the_plain_model(members):
    """F4, F5: power of those whose own slot is a vote for the block, against two thirds of all."""
    names = [f"v{i}" for i in range(len(members))]
    powers = {name: power for name, (power, _) in zip(names, members, strict=True)}
    forge = Forge(((1, make_set(powers)),))
    by_flag = {flag: [n for n, (_, f) in zip(names, members, strict=True) if f is flag] for flag in Flag}
    block = forge.make_block(4, signers=by_flag[Flag.COMMIT], nil=by_flag[Flag.NIL])
    signed = sum(powers[name] for name in by_flag[Flag.COMMIT])
    trusted = forge.make_trusted(3)
    if 3 * signed > 2 * sum(powers.values()):
        assert judge(block, trusted=trusted) is Verdict.SUCCESS
    else:
        assert why(block, trusted=trusted) == "too_few"


def test_the_configured_defaults_are_safe_ones():
    config = lc.LightClientConfig(CHAIN)
    assert config.trust_level == (1, 3)
    assert config.trusting_period_ns <= 14 * 86_400 * NANOSECONDS
