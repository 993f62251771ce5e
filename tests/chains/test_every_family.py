"""What every chain family must do, in words that name no family. A new family adds one harness to HARNESSES.

A harness is a simulated chain with the real vault on it, a funded user, four operators (three sign) and at least two endpoints. Who brings
headers is a source of headers: an endpoint, or an operator where a family has no header that anybody could prove. It has
    chain, start, clock, network         a `chains.base.Chain` with a submitter, the vault's start cursor, a clock to move, the simulated chain
    make_chain()                         as after a restart; move_checkpoint() to what is final now, for chains that are made from then on
    deposit(amount)
    reorg()                              replace the newest block by one without its transactions, where the family can
    lies, get_stall()                    what an endpoint is told for each kind of lie named in this file
    update_reasons                       which reason the family gives for each of BAD_UPDATES
and inherits the rest from `tests.chains.harness`, which says what else a family may answer otherwise.
"""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains import base
from chains.base import Outcome, SignedTx
from messages.bodies import Ack, Deposited, Execute
from messages.errors import Conflict, Rejected, Unavailable
from messages.outbox import fold
from tests.chains.harness_cosmos import CosmosHarness
from tests.chains.harness_evm import EvmHarness
from tests.chains.harness_solana import SolanaHarness

HARNESSES = {"evm": EvmHarness, "cosmos": CosmosHarness, "solana": SolanaHarness}

BAD_UPDATES = ["bad_signature", "too_few", "future", "forged_state"]
LIES_ABOUT_PACKETS = ["withhold_all", "withhold_some", "forge_packet", "undone", "forge_head", "forge_number"]
LIES_ABOUT_HEADERS = [*BAD_UPDATES, "wrong_chain"]
ANY_LIE = [None, *LIES_ABOUT_PACKETS, *LIES_ABOUT_HEADERS, "down", "stall"]
HEARTBEAT = Execute(bytes(32), (), ())


@pytest.fixture(params=HARNESSES.values(), ids=HARNESSES)
def harness(request):
    return request.param()


async def advance(harness, trusted):
    heard = await harness.hear()
    result = await base.advance(harness.chain, trusted, harness.now())
    return (result.steps[-1][1] if result.steps else trusted), (*heard, *result.blames)


async def walk(harness, trusted=None, cursor=None):
    """Advance as far as it goes, then collect."""
    trusted, blames = await advance(harness, trusted or await harness.bootstrap())
    collected = await base.collect(harness.chain, trusted, cursor or harness.start, harness.chain.start_height)
    return trusted, collected, (*blames, *collected.blames)


def get_indexes(harness):
    """One for each source."""
    return range(len(harness.chain.reader.sources))


def get_amounts(facts):
    return [fact.body.amount for fact in facts if isinstance(fact.body, Deposited)]


# ---- the road ---------------------------------------------------------------------------------------------------------


async def test_a_finalized_deposit_becomes_a_fact(harness):
    harness.deposit(1_000_000)
    harness.deposit(2_000_000)
    harness.finalize()
    trusted, collected, blames = await walk(harness)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    assert blames == ()
    point = harness.chain.verifier.get_point(trusted)
    assert (point.height, point.header_hash, point.time) == (
        collected.proven.height,
        collected.proven.header_hash,
        collected.proven.time,
    )
    assert collected.head == base.Head(2, collected.proven.head)
    assert harness.chain.verifier.is_fresh(trusted, harness.now())


async def test_a_certified_packet_comes_back_as_an_ack_with_the_packet_it_answers(harness):
    certificate = harness.certify(1, HEARTBEAT)
    signed = await harness.chain.submitter.prepare(certificate, [])
    await harness.chain.submitter.send(signed)
    harness.mine()
    harness.finalize()
    _, collected, _ = await walk(harness)
    (fact,) = collected.facts
    assert isinstance(fact.body, Ack)
    assert (fact.inbox, fact.inbox_body) == (certificate.packet, HEARTBEAT)


async def test_collecting_again_from_the_new_cursor_gives_only_what_is_new(harness):
    harness.deposit(1_000_000)
    harness.finalize()
    trusted, first, _ = await walk(harness)
    again = await base.collect(harness.chain, trusted, first.cursor, first.proven.height)
    assert again.facts == ()
    harness.deposit(3_000_000)
    harness.finalize()
    _, second, _ = await walk(harness, trusted, first.cursor)
    assert get_amounts(second.facts) == [3_000_000]


async def test_weeks_of_silence_are_followed_step_by_step(harness):
    trusted = await harness.bootstrap()
    for _ in range(3):
        harness.clock.advance(4 * 86_400)
        trusted, blames = await advance(harness, trusted)
        assert blames == ()
    harness.deposit(5)
    harness.finalize()
    _, collected, _ = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [5]


async def test_a_state_older_than_the_trusting_period_is_not_built_on(harness):
    trusted = await harness.bootstrap()
    harness.clock.advance(15 * 86_400)
    if not harness.expires:
        # the word of operators does not grow old: it says itself of what time it is, and a newer one counts in its place
        assert harness.chain.verifier.is_fresh(trusted, harness.now())
        later, _ = await advance(harness, trusted)
        old, new = (harness.chain.verifier.get_point(state).time for state in (trusted, later))
        assert harness.now() - old > 14 * 86_400
        assert harness.now() - new < 60
        return
    assert not harness.chain.verifier.is_fresh(trusted, harness.now())
    with pytest.raises(Unavailable) as caught:
        await advance(harness, trusted)
    assert "expired" in str(caught.value)


# ---- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD_UPDATES)
async def test_a_bad_update_is_refused_and_the_good_one_beside_it_is_not(harness, kind):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.mine()
    harness.finalize()
    harness.lie(0, kind)
    bad, good = await harness.get_update(trusted, 0), await harness.get_update(trusted, 1)
    with pytest.raises(Rejected) as caught:
        harness.chain.verifier.verify_update(trusted, bad, harness.now())
    assert caught.value.reason == harness.update_reasons[kind]
    after = harness.chain.verifier.verify_update(trusted, good, harness.now())
    assert harness.chain.verifier.get_point(after).height > harness.chain.verifier.get_point(trusted).height


async def test_an_old_update_is_refused(harness):
    trusted = await harness.bootstrap()
    harness.mine()
    harness.finalize()
    update = await harness.get_update(trusted)
    after = harness.chain.verifier.verify_update(trusted, update, harness.now())
    with pytest.raises(Rejected):
        harness.chain.verifier.verify_update(after, update, harness.now())


async def test_a_bootstrap_under_another_checkpoint_is_refused(harness):
    await harness.hear()
    claimed = await harness.chain.reader.bootstrap(harness.get_source(0))
    harness.chain.verifier.verify_bootstrap(claimed, harness.now())
    harness.finalize()
    harness.move_checkpoint()
    with pytest.raises(Rejected):
        harness.make_chain().verifier.verify_bootstrap(claimed, harness.now())


async def test_a_proof_under_another_root_is_refused(harness):
    trusted, _ = await advance(harness, await harness.bootstrap())
    head, proof = await harness.chain.reader.head(harness.get_source(0), trusted)
    harness.chain.verifier.verify_head(trusted, head, proof)
    harness.deposit(1)
    harness.finalize()
    later, _ = await advance(harness, trusted)
    with pytest.raises(Rejected):
        harness.chain.verifier.verify_head(later, head, proof)


async def test_a_changed_head_is_refused_under_the_right_proof(harness):
    trusted, _ = await advance(harness, await harness.bootstrap())
    head, proof = await harness.chain.reader.head(harness.get_source(0), trusted)
    for wrong in (bytes(32), bytes(31) + b"\x01", head.head[:-1] + bytes([head.head[-1] ^ 1])):
        with pytest.raises(Rejected):
            harness.chain.verifier.verify_head(trusted, replace(head, head=wrong), proof)


async def test_a_changed_amount_is_refused_by_the_fold(harness):
    harness.deposit(1_000_000)
    harness.deposit(2_000_000)
    harness.finalize()
    _, collected, _ = await walk(harness)
    span = base.Span(0, 2, 0, collected.proven.height)
    claims = await harness.chain.reader.packets(harness.get_source(0), span)
    fold(harness.start, claims, collected.proven, harness.chain.limits)
    changed = (claims[0], harness.change_packet(claims[1]))
    for wrong in (changed, claims[:1], claims[1:], claims[::-1], (*claims, claims[1])):
        with pytest.raises(Rejected):
            fold(harness.start, wrong, collected.proven, harness.chain.limits)


async def test_two_finalized_headers_at_one_slot_are_a_conflict(harness):
    harness.deposit(1_000_000)
    harness.finalize()
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.lie(0, "equivocate")
    with pytest.raises(Conflict):
        await advance(harness, trusted)


# ---- sources that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LIES_ABOUT_PACKETS, *LIES_ABOUT_HEADERS, "down", "stall"])
async def test_one_liar_of_two_is_named_and_changes_nothing(harness, kind):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    harness.deposit(2_000_000)
    harness.finalize()
    harness.lie(0, kind)
    trusted, collected, blames = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000, 2_000_000]
    assert {blame.source for blame in blames} == {harness.get_liar(0, kind)}
    assert all(blame.reason and blame.chain == harness.chain.chain_id for blame in blames)


@pytest.mark.parametrize("kind", [*LIES_ABOUT_PACKETS, "wrong_chain", "down"])
async def test_when_every_source_lies_there_are_no_facts_e1(harness, kind):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    harness.deposit(2_000_000)
    harness.finalize()
    if kind not in harness.told:
        trusted, _ = await advance(harness, trusted)
        trusted = await harness.restart(trusted)
    for index in get_indexes(harness):
        harness.lie(index, kind)
    if kind in harness.told:  # operators are lied to before they speak, and say it of a state that is not on record yet
        before, (trusted, _) = trusted, await advance(harness, trusted)
        assert trusted != before
    with pytest.raises(Unavailable) as caught:
        await base.collect(harness.chain, trusted, harness.start, 0)
    assert all(harness.get_source(index) in str(caught.value) for index in get_indexes(harness))


@pytest.mark.parametrize("kind", BAD_UPDATES)
async def test_when_every_source_forges_headers_nothing_moves_e1(harness, kind):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.mine()
    harness.finalize()
    for index in get_indexes(harness):
        harness.lie(index, kind)
    if harness.is_spoken:  # nobody says anything that counts, and each of them is named
        after, blames = await advance(harness, trusted)
        assert after == trusted
        assert {blame.source for blame in blames} == {harness.get_liar(index, kind) for index in get_indexes(harness)}
        return
    with pytest.raises(Unavailable):
        await advance(harness, trusted)


async def test_killing_the_honest_source_does_not_make_the_liar_believed_e1(harness):
    """KelpDAO, 2026-04-18: honest nodes were taken down so that fail-over landed on the poisoned one."""
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    harness.finalize()
    trusted, _ = await advance(harness, trusted)
    for index in get_indexes(harness):
        harness.lie(index, "forge_packet" if index == 1 else "down")
    with pytest.raises(Unavailable):
        await base.collect(harness.chain, trusted, harness.start, 0)
    # The twin asks whoever is left and takes its word: it is robbed.
    assert await credit_what_is_told(harness, harness.get_source(1), trusted) != [1_000_000]


async def credit_what_is_told(harness, source, trusted):
    """A deliberately vulnerable copy of `collect`: no proof, no fold (incident E1)."""
    head, _ = await harness.chain.reader.head(source, trusted)
    height = harness.chain.verifier.get_point(trusted).height
    claims = await harness.chain.reader.packets(source, base.Span(0, head.sequence, 0, height))
    return [int.from_bytes(claim.packet.payloads[0].value[-32:], "big") for claim in claims]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(ANY_LIE), st.sampled_from(ANY_LIE), st.booleans()), min_size=2, max_size=4))
@pytest.mark.parametrize("make", HARNESSES.values(), ids=HARNESSES)
def test_whatever_the_sources_say_in_whatever_order_facts_are_the_deposits_e1(make, rounds):
    asyncio.run(live_through(make(), rounds))


async def live_through(harness, rounds):
    """Rounds of (lie of the first source, lie of the second, is the deposit reorganised); then one honest round."""
    trusted, cursor, made, seen = await harness.bootstrap(), harness.start, [], []
    for number, (first, second, is_reorganised) in enumerate([*rounds, (None, None, False)], 1):
        harness.be_honest()
        harness.deposit(number)
        made.append(number)
        if is_reorganised:
            harness.reorg()
        harness.finalize()
        for index, kind in enumerate((first, second)):
            if kind:
                harness.lie(index, kind)
        harness.chain = harness.make_chain()
        try:
            trusted, _ = await advance(harness, trusted)
            collected = await base.collect(harness.chain, trusted, cursor, 0)
        except Unavailable:
            continue
        cursor = collected.cursor
        seen += get_amounts(collected.facts)
        assert seen == made[: len(seen)]
    assert seen == made


# ---- finality ---------------------------------------------------------------------------------------------------------


async def test_a_reorg_before_finality_credits_nothing_early_and_loses_nothing(harness):
    trusted, _ = await advance(harness, await harness.bootstrap())
    harness.deposit(1_000_000)
    trusted, collected, _ = await walk(harness, trusted)
    assert collected.facts == ()
    harness.reorg()
    trusted, collected, _ = await walk(harness, trusted)
    assert collected.facts == ()
    harness.finalize()
    trusted, collected, _ = await walk(harness, trusted)
    assert get_amounts(collected.facts) == [1_000_000]


# ---- submitter --------------------------------------------------------------------------------------------------------


async def test_submitting_again_after_restarts_has_one_effect(harness):
    certificate = harness.certify(1, HEARTBEAT)
    stored: list[SignedTx] = []
    for _ in range(3):
        harness.chain = harness.make_chain()  # a restart: only `stored` is left
        signed = await harness.chain.submitter.prepare(certificate, stored)
        stored = [*[s for s in stored if s.tx_id != signed.tx_id], signed]
        await harness.chain.submitter.send(signed)
        await harness.chain.submitter.send(signed)
    assert len({signed.nonce for signed in stored}) == 1
    assert await harness.chain.submitter.outcome(stored[-1]) is harness.waiting
    harness.mine()
    assert await harness.chain.submitter.outcome(stored[-1]) is Outcome.INCLUDED
    await harness.chain.submitter.send(stored[-1])
    with pytest.raises(Rejected):
        await harness.chain.submitter.prepare(certificate, [])
    harness.finalize()
    _, collected, _ = await walk(harness)
    assert [fact.body.inbox_sequence for fact in collected.facts] == [1]


async def test_a_stored_transaction_that_was_never_sent_is_sent_after_a_restart(harness):
    signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    harness.chain = harness.make_chain()
    assert await harness.chain.submitter.outcome(signed) is Outcome.UNKNOWN
    assert await harness.chain.submitter.send(signed) == signed.tx_id
    harness.mine()
    assert await harness.chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_a_packet_that_the_vault_would_refuse_is_not_sent(harness):
    good = harness.certify(1, HEARTBEAT)
    late = harness.certify(1, HEARTBEAT, timeout_s=-1)
    early = harness.certify(2, HEARTBEAT)
    unsigned = replace(good, signatures=good.signatures[:2])
    elsewhere = replace(good, vault_id=bytes([1]) * 32)
    await harness.chain.submitter.prepare(good, [])
    reasons = []
    for wrong in (late, early, unsigned, elsewhere):
        with pytest.raises(Rejected) as caught:
            await harness.chain.submitter.prepare(wrong, [])
        reasons.append(caught.value.reason)
    assert all(reasons)
    assert len(set(reasons)) == 4


async def test_the_submitter_needs_one_endpoint_and_says_when_there_is_none(harness):
    certificate = harness.certify(1, HEARTBEAT)
    harness.lie(0, "down")
    signed = await harness.chain.submitter.prepare(certificate, [])
    assert await harness.chain.submitter.send(signed) == signed.tx_id
    for index in get_indexes(harness)[1:]:
        harness.lie(index, "down")
    for attempt in (
        harness.chain.submitter.prepare(certificate, []),
        harness.chain.submitter.send(signed),
        harness.chain.submitter.outcome(signed),
    ):
        with pytest.raises(Unavailable):
            await attempt


# ---- bytes ------------------------------------------------------------------------------------------------------------


async def test_everything_that_is_stored_comes_back_as_it_was_and_nothing_else_is_read(harness):
    chain = harness.chain
    source = harness.get_source(0)
    await harness.hear()
    claimed = await chain.reader.bootstrap(source)
    trusted = chain.verifier.verify_bootstrap(claimed, harness.now())
    harness.mine()
    harness.finalize()
    update = await harness.get_update(trusted)
    after = chain.verifier.verify_update(trusted, update, harness.now())
    _, proof = await chain.reader.head(source, after)
    codec = chain.codec
    for value, encode, decode in (
        (claimed, codec.encode_bootstrap, codec.decode_bootstrap),
        (trusted, codec.encode_trusted, codec.decode_trusted),
        (after, codec.encode_trusted, codec.decode_trusted),
        (update, codec.encode_update, codec.decode_update),
        (proof, codec.encode_proof, codec.decode_proof),
    ):
        data = encode(value)
        assert decode(data) == value
        for wrong in (b"", data[:-1], data[1:], bytes([data[0] ^ 1]) + data[1:], bytes(len(data))):
            with pytest.raises(Rejected):
                decode(wrong)
        for wrong in (
            data + b"\0",
            *(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(0, len(data), 997)),
        ):
            # one byte string per object: what is still well formed is another object
            assert is_refused_or_other(decode, wrong, value, encode)


def is_refused_or_other(decode, data, value, encode):
    try:
        found = decode(data)
    except Rejected:
        return True
    return found != value and encode(found) == data
