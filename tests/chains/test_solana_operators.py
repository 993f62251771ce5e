"""Four operators over four Solana endpoints: one endpoint may lie in any way and is named, two that lie silence everybody, and an operator that lies stands alone.

The lies that every family knows are in `test_every_family`; these are Solana's own.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.compute_budget import set_compute_unit_limit

from chains import base
from chains.solana.codec import encode_unsigned
from chains.solana.sim_chain import MAX_UNITS
from contracts.solana import client as c
from messages.digests import sign_digest
from messages.errors import Conflict, Rejected, Unavailable
from tests.builders import OPERATOR_KEYS, OPERATORS
from tests.chains.harness_solana import SolanaHarness, sign
from tests.chains.test_every_family import advance, get_amounts, walk

# name of a lie, and whether somebody who only hears endpoints can tell that it is one
ABOUT_STATE = {
    "missing_vault": True,
    "other_owner": True,
    "forge_head": True,
    "clock_ahead_s": 3_600,
    "unhealthy": None,  # nobody asks for its health: what it answers is right
}
ABOUT_PACKETS = {
    "other_program": True,
    "null_inner": True,
    "no_index": True,
    "reorder_events": True,
    "drop_event_every": 2,
}


@pytest.fixture
def harness():
    return SolanaHarness()


def set_lie(harness, index, name, value=True):
    lies = harness.network.endpoints[index].lies
    assert hasattr(lies, name)
    setattr(lies, name, value)


async def start(harness):
    """The trusted state before two final deposits."""
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    harness.deposit(2_000_000)
    harness.finalize()
    return trusted


# ---- one of four ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, value in (ABOUT_STATE | ABOUT_PACKETS).items() if value])
@pytest.mark.parametrize("index", [0, 3])
async def test_one_endpoint_of_four_that_lies_is_named_and_changes_nothing(harness, name, index):
    trusted = await start(harness)
    set_lie(harness, index, name, (ABOUT_STATE | ABOUT_PACKETS)[name])
    _, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    # who is asked for packets only after another gave them is not found out
    is_asked = name in ABOUT_STATE or index == 0
    assert {blame.source for blame in blames} == ({harness.get_source(index)} if is_asked else set())


async def test_an_endpoint_that_says_of_itself_that_it_is_behind_and_answers_well_is_not_blamed(harness):
    trusted = await start(harness)
    set_lie(harness, 0, "unhealthy")
    _, collected, blames = await walk(harness, trusted)
    assert (get_amounts(collected.facts), blames) == ([1_000_000, 2_000_000], ())


@pytest.mark.parametrize("indexes", [(0,), (0, 1)])
async def test_endpoints_that_overstate_their_slot_do_not_move_what_operators_say(harness, indexes):
    trusted = await start(harness)
    honest = harness.network.compute_view().finalized
    for index in indexes:
        set_lie(harness, index, "slot_ahead", 40)
    seen, _ = await harness.observe()
    assert {o.slot for o in seen.values()} == {honest}  # the lowest of those that agree
    _, collected, _ = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]


async def test_an_endpoint_that_never_answers_is_not_waited_for(harness):
    trusted = await start(harness)
    harness.chain = harness.make_chain(timeout_s=0.05)
    set_lie(harness, 0, "hang")
    _, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    assert {(blame.source, blame.reason) for blame in blames} == {(harness.get_source(0), "timeout")}


@pytest.mark.parametrize("hidden", [True, False])
async def test_a_failed_transaction_that_is_told_as_a_good_one_gives_no_packet(harness, hidden):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    # the vault tells of a packet, then a later instruction of the same transaction fails: nothing has happened
    deposit = c.make_deposit(harness.calls, harness.payer, harness.asset, 7, harness.user)
    failing = [set_compute_unit_limit(MAX_UNITS), deposit, c.make_cancel(harness.calls, harness.payer, 99)]
    signature = harness.network.send(harness.user_key, failing)
    harness.network.mine()
    landed = harness.network.get_landed(signature)
    assert landed.error is not None
    assert any(data[:2] == bytes([c.EVENT, c.OUT]) for inner in landed.inner for _, _, data, _ in inner)
    harness.deposit(2_000_000)
    harness.finalize()
    set_lie(harness, 0, "hide_failures", hidden)
    _, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    assert {blame.source for blame in blames} == ({harness.get_source(0)} if hidden else set())


async def test_a_fork_that_is_shown_as_final_is_not_believed_and_its_endpoint_is_named(harness):
    trusted, _ = await advance(harness, await harness.bootstrap())
    set_lie(harness, 0, "early_finality")
    harness.deposit(5_000_000)
    trusted, collected, _ = await walk(harness, trusted)
    assert collected.facts == ()  # three endpoints do not call it final
    harness.network.fork(drop=True)
    set_lie(harness, 0, "follow_fork")
    harness.deposit(1_000_000)
    harness.finalize()
    trusted, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000]
    named = {blame.reason for blame in blames if blame.source == harness.get_source(0)}
    assert "other_head" in named
    assert {blame.source for blame in blames} == {harness.get_source(0)}


async def test_an_endpoint_that_shows_fewer_or_more_packets_than_there_were_at_its_slot_is_named(harness):
    trusted = await start(harness)
    for change, reason in ((-1, "withheld"), (1, "invented")):
        set_lie(harness, 0, "forge_sequence", change)
        # a slot says more only beside another one: fewer at a later slot, more at one that is not later
        set_lie(harness, 0, "slot_ahead", 2 if change < 0 else 0)
        _, blames = await advance(harness, trusted)
        assert {(blame.source, blame.reason) for blame in blames} == {(harness.get_source(0), reason)}


# ---- two of four ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, value in ABOUT_STATE.items() if value])
async def test_two_endpoints_of_four_that_lie_silence_every_operator_and_nothing_is_credited(harness, name):
    trusted = await start(harness)
    for index in (1, 2):
        set_lie(harness, index, name, ABOUT_STATE[name])
    for _ in range(3):
        harness.clock.advance(20)
        seen, blames = await harness.observe()
        assert seen == {}
        assert {harness.get_source(1), harness.get_source(2)} <= {blame.source for blame in blames}
    after, _ = await advance(harness, trusted)
    assert after == trusted
    harness.be_honest()
    _, collected, blames = await walk(harness, trusted)
    assert (get_amounts(collected.facts), blames) == ([1_000_000, 2_000_000], ())


async def test_two_endpoints_that_are_away_do_not_lower_the_bar_for_the_liar_e1(harness):
    """KelpDAO, 2026-04-18: honest nodes were taken down so that the poisoned ones decided."""
    trusted = await start(harness)
    for index in (0, 1):
        set_lie(harness, index, "down")
    set_lie(harness, 2, "forge_head")
    seen, blames = await harness.observe()
    assert seen == {}
    assert {harness.get_source(i) for i in (0, 1)} <= {blame.source for blame in blames}
    # the twin takes what most of those say that answer, and here it takes the lie for as good as the truth
    answering = {
        e.name: e.rpc.handle("getAccountInfo", [str(harness.calls.state), {"encoding": "base64"}])
        for e in harness.network.endpoints[2:]
    }
    assert len({answer["result"]["value"]["data"][0] for answer in answering.values()}) == 2
    after, _ = await advance(harness, trusted)
    assert after == trusted


async def test_an_operator_whose_endpoints_went_back_says_nothing(harness):
    """All endpoints show an older final state than before: a finalized outbox does not shrink."""
    await start(harness)
    seen, _ = await harness.observe()
    assert {o.sequence for o in seen.values()} == {2}
    for index in range(4):
        set_lie(harness, index, "forge_sequence", -1)
    harness.clock.advance(2)
    seen, _ = await harness.observe()
    assert seen == {}


# ---- operators --------------------------------------------------------------------------------------------------------


async def test_an_operator_that_says_two_heads_for_one_number_makes_evidence_against_itself(harness):
    await start(harness)
    await harness.hear()
    observer = harness.chain.observer
    seen, _ = await harness.observe()
    second = sign(OPERATOR_KEYS[0], replace(seen[0], head=b"\x11" * 32, slot=seen[0].slot + 1), OPERATORS[0])
    accepted = observer.accept(
        observer.encode_signed(encode_unsigned(second.observation), second.operator, second.signature), harness.now()
    )
    assert observer.verify_evidence(*accepted.evidence) == OPERATORS[0]
    first, other = accepted.evidence
    for wrong in ((first, first), (other, other)):
        with pytest.raises(Rejected):
            observer.verify_evidence(*wrong)
    assert not accepted.is_news


async def test_the_same_head_again_at_a_later_time_is_no_evidence(harness):
    await start(harness)
    await harness.hear()
    harness.clock.advance(30)
    seen, _ = await harness.observe()
    accepted = harness.chain.observer.accept(harness.speak(0, seen[0]), harness.now())
    assert accepted.is_news
    assert accepted.evidence is None


@pytest.mark.parametrize("liars", [1, 2])
async def test_fewer_than_m_honest_operators_credit_nothing_and_m_of_them_do(harness, liars):
    trusted = await start(harness)
    for index in range(liars):
        harness.lie(index, "forged_state")
    if liars == 2:  # two honest ones of four, three are needed
        assert (await advance(harness, trusted))[0] == trusted
        return
    _, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    assert {blame.source for blame in blames} == {harness.get_operator(0)}


async def test_m_operators_that_lie_about_the_head_credit_nothing_without_packets_that_fold(harness):
    """Beyond what is assumed: m operators together make a state count. Its packets must still fold into it."""
    trusted = await start(harness)
    for index in range(3):
        harness.operator_lies[index] = "equivocate"
    after, _ = await advance(harness, trusted)
    assert after.head != trusted.head
    with pytest.raises(Unavailable):
        await base.collect(harness.chain, after, harness.start, 0)
    # and once honest operators are heard again, the node stops instead of choosing between two histories
    harness.be_honest()
    harness.chain = harness.make_chain()
    harness.clock.advance(2)
    with pytest.raises(Conflict):
        await advance(harness, after)


async def test_a_statement_that_nobody_of_the_set_signed_does_not_get_in(harness):
    await start(harness)
    seen, _ = await harness.observe()
    observer = harness.chain.observer
    for key, operator in ((b"\x07" * 32, OPERATORS[0]), (OPERATOR_KEYS[1], OPERATORS[0]), (b"\x07" * 32, b"\x08" * 20)):
        signed = sign(key, seen[0], operator)
        with pytest.raises(Rejected):
            observer.accept(
                observer.encode_signed(encode_unsigned(seen[0]), signed.operator, signed.signature), harness.now()
            )
    digestless = sign_digest(OPERATOR_KEYS[0], b"\x01" * 32)
    with pytest.raises(Rejected):
        observer.accept(observer.encode_signed(encode_unsigned(seen[0]), OPERATORS[0], digestless), harness.now())
    assert observer.accept(harness.speak(0, seen[0]), harness.now()).is_news
