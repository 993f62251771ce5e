"""Holes of the Solana family that a review looked for: what one lying endpoint, one lying operator or anybody with lamports could do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256

import pytest
from solders.address_lookup_table_account import ID as TABLE_PROGRAM

from chains.base import Outcome, Span, advance, bootstrap, collect
from chains.registry import build_solana_sim_chain
from chains.solana import submitter as submitter_module
from chains.solana.address import encode_key
from chains.solana.codec import decode_unsigned, encode_unsigned
from chains.solana.fees import compute_fee
from chains.solana.transport import RpcError
from chains.solana.types import OperatorSet
from messages.bodies import AckStatus, Execute
from messages.errors import Rejected, Unavailable
from messages.outbox import get_start_cursor
from tests.chains.solana_site import KEYS, OPERATORS, SETS, Site
from tests.chains.test_solana_submitter import read_acks

FOREVER = 2**60


@pytest.fixture
def site():
    site = Site("review")
    site.deposit(1_000_000)
    site.finalize()
    return site


def forge(site, index, method, change):
    """Let an endpoint change its answers to one method."""
    rpc = site.sim.endpoints[index].rpc
    honest = rpc.request

    async def request(asked, params):
        answer = await honest(asked, params)
        return change(answer, params) if asked == method else answer

    rpc.request = request


# ---- block hashes that never were --------------------------------------------------------------------------------------


def forge_blockhash(last_height):
    def change(answer, params):
        del params
        value = {
            "blockhash": encode_key(b"\7" * 32),
            "lastValidBlockHeight": last_height or answer["value"]["lastValidBlockHeight"],
        }
        return {**answer, "value": value}

    return change


async def deliver(site, chain, certificate, rounds=8):
    """What the submit task does with a packet, a round for each time that a block hash lasts (150 blocks of 0.4 s)."""
    sent = []
    for _ in range(rounds):
        try:
            signed = await chain.submitter.prepare(certificate, sent)
            await chain.submitter.send(signed)
            sent += [signed] if signed not in sent else []
        except Unavailable as error:
            if error.reason != "preparing":
                raise
        site.clock.advance(70)
        site.sim.tick()
        if certificate.packet.sequence in read_acks(site):
            break
    return sent


@pytest.mark.parametrize("is_writing", [False, True])
@pytest.mark.parametrize("last_height", [FOREVER, None])
async def test_an_endpoint_that_gives_block_hashes_that_never_were_delays_a_packet_and_does_not_keep_it_out(
    site, last_height, is_writing
):
    """What is signed over such a hash never lands; whoever believes that it may for ever waits for ever."""
    forge(site, 0, "getLatestBlockhash", forge_blockhash(last_height))
    chain = site.build(site.gas_key)
    body = site.make_payout(1) if is_writing else Execute(sha256(b"a heartbeat").digest(), (), ())
    certificate = site.make_certificate(1, body, timeout=site.now() + 10_000)
    await deliver(site, chain, certificate)
    assert read_acks(site) == {1: AckStatus.DONE}
    for number in (2, 3):  # and it delays one of them, not each
        body = Execute(sha256(b"the next").digest(), (), ())
        await deliver(site, chain, site.make_certificate(number, body, timeout=site.now() + 10_000), rounds=1)
        assert read_acks(site)[number] == AckStatus.DONE


# ---- packets in every slot ---------------------------------------------------------------------------------------------


async def say_at_numbers_of_their_own(site, listener, rounds):
    """A packet before each look, so that no two operators ever see the vault at one number."""
    for _ in range(rounds):
        for key in KEYS:
            site.deposit(1)
            site.finalize()
            await site.speak(key, chain=site.chain, listener=listener)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_time_moves_though_somebody_pays_for_a_packet_between_any_two_looks(site, is_restarted):
    """Else nothing for this vault would ever be absent or expire, and a node that starts would learn nothing."""
    chain = site.chain
    await site.speak()
    _, trusted, _ = await bootstrap(chain, site.now())
    found = await collect(chain, trusted, get_start_cursor(chain.vault_id), 0)
    if is_restarted:
        chain = site.build()
    begun, timeout = trusted, site.now() + 30
    for _ in range(4):
        await say_at_numbers_of_their_own(site, chain, 2)
        moved = await advance(chain, trusted, site.now())
        trusted = moved.steps[-1][1]
        found = await collect(chain, trusted, found.cursor, begun.slot)
    assert trusted.sequence > 20
    assert trusted.clock > timeout
    assert len({s.observation.sequence for s in found.proof.timed}) == 3


async def test_the_first_state_of_a_node_needs_no_number_at_which_operators_meet(site):
    chain = site.build()
    await say_at_numbers_of_their_own(site, chain, 1)
    with pytest.raises(Unavailable):
        await bootstrap(chain, site.now())  # three at several numbers, and nobody says when the lowest was the last
    await say_at_numbers_of_their_own(site, chain, 1)
    _, trusted, _ = await bootstrap(chain, site.now())
    found = await collect(chain, trusted, get_start_cursor(chain.vault_id), 0)
    assert found.head.sequence == trusted.sequence > 5


# ---- transactions of other forms ---------------------------------------------------------------------------------------


def tell_as_version(site, version):
    """Let every node refuse a transaction without packets to whoever does not know its version, as nodes do."""
    spam = {s for s, landed in site.sim.bank.ledger.by_signature.items() if not any(landed.inner)}

    for endpoint in site.sim.endpoints:

        async def request(method, params, honest=endpoint.rpc.request):
            if (
                method == "getTransaction"
                and params[0] in spam
                and params[1]["maxSupportedTransactionVersion"] < version
            ):
                text = f"Transaction version ({version}) is not supported by the requesting client"
                raise RpcError(text, -32015, None)
            return await honest(method, params)

        endpoint.rpc.request = request
    return spam


async def test_a_transaction_of_a_version_that_is_not_known_yet_hides_no_packet(site):
    """Anybody may send one that names the vault as soon as the chain takes them; every node would be stuck at it for ever."""
    site.deposit(5)
    site.spam(3)
    site.finalize()
    assert len(tell_as_version(site, 1)) >= 3
    found = await site.chain.reader.packets(site.chain.reader.sources[0], Span(0, 2, 0, 10**9))
    assert len(found) == 2


async def test_a_node_that_refuses_one_question_makes_nobody_read_everything_again(site):
    """Nodes that are asked too often say so with codes of their own; they have not lied."""
    site.deposit(5)
    site.spam(30)
    site.finalize()
    rpc = site.sim.endpoints[0].rpc
    honest, asked = rpc.request, []

    async def request(method, params):
        if method == "getTransaction":
            asked.append(params[0])
            if len(asked) % 12 == 0:
                raise RpcError("Too many requests for a specific RPC call", -32429, None)
        return await honest(method, params)

    rpc.request = request
    source, span = site.chain.reader.sources[0], Span(0, 2, 0, 10**9)
    for _ in range(10):
        try:
            assert len(await site.chain.reader.packets(source, span)) == 2
            break
        except Rejected:
            continue
    else:
        raise AssertionError("never read to the end")
    assert len(asked) < 50  # each once, and what was under way when it refused


# ---- who makes the account pay -----------------------------------------------------------------------------------------


def hide_accounts(site, index, is_hidden):
    """Let an endpoint tell accounts as not there, and every trial as good."""

    def hide(answer, params):
        rows = [
            None if row is not None and is_hidden(name, row) else row
            for name, row in zip(params[0], answer["value"], strict=True)
        ]
        return {**answer, "value": rows}

    def pass_trial(answer, params):
        del params
        return {**answer, "value": {**answer["value"], "err": None, "unitsConsumed": 9_000}}

    forge(site, index, "getMultipleAccounts", hide)
    forge(site, index, "simulateTransaction", pass_trial)


@pytest.mark.parametrize(("payees", "what"), [(3, "records"), (20, "tables")])
async def test_an_endpoint_that_hides_what_is_there_makes_nobody_pay_for_it_again(site, payees, what):
    """Rent is never given back: who is asked first could have the account pay for records and tables that nobody needs."""
    chain = site.build(site.gas_key)
    await deliver(site, chain, site.make_certificate(1, site.make_payout(payees), timeout=site.now() + 10_000))
    assert read_acks(site) == {1: AckStatus.DONE}
    owner = encode_key(bytes(site.vault.program)) if what == "records" else str(TABLE_PROGRAM)
    state = encode_key(site.state)
    hide_accounts(site, 0, lambda name, row: row["owner"] == owner and name != state)
    payer = site.sim.get_account_key(site.gas_key)
    before, count = site.sim.get_balance(payer), len(site.sim.bank.ledger.by_signature)
    for _ in range(12):
        try:
            signed = await chain.submitter.prepare(site.make_certificate(2, site.make_payout(payees)), ())
            break
        except Unavailable as error:
            if error.reason != "preparing":
                raise
            site.sim.mine()
    await chain.submitter.send(signed)
    site.sim.mine()
    assert read_acks(site) == {1: AckStatus.DONE, 2: AckStatus.DONE}
    assert len(site.sim.bank.ledger.by_signature) == count + 1
    assert before - site.sim.get_balance(payer) == compute_fee(signed.priority_fee, signed.max_fee)


# ---- where packets are looked for --------------------------------------------------------------------------------------


async def test_an_operator_that_says_the_lowest_number_at_a_late_slot_hides_no_packet_from_who_starts_anew(site):
    """The slot of such a set is that of later numbers: below it lie packets that nobody has folded yet."""
    await site.speak()
    _, trusted, _ = await bootstrap(site.chain, site.now())
    found = await collect(site.chain, trusted, get_start_cursor(site.chain.vault_id), 0)
    site.deposit(2)
    site.finalize()
    second = await site.chain.observer.observe(site.now())
    site.deposit(3)
    site.finalize()
    site.finalize()
    await site.speak(*KEYS[:2])
    site.say(
        site.chain, replace(second, claim=encode_unsigned(replace(decode_unsigned(second.claim), slot=10**9))), KEYS[3]
    )
    trusted = (await advance(site.chain, trusted, site.now())).steps[-1][1]
    found = await collect(site.chain, trusted, found.cursor, 0)
    assert (found.cursor.sequence, trusted.sequence) == (2, 2)
    node = site.build()  # nothing of what was read is left
    site.finalize()
    await site.speak(listener=node)
    after = (await advance(node, trusted, site.now())).steps[-1][1]
    for _ in range(3):
        try:
            found = await collect(node, after, found.cursor, trusted.slot)
        except Unavailable:
            continue
    assert [fact.sequence for fact in found.facts] == [3]


# ---- around a rotation -------------------------------------------------------------------------------------------------


async def test_one_operator_that_says_a_time_after_the_rotation_does_not_bring_the_next_threshold_forward(site):
    """A clock may be ahead by half a minute; what m is now is not the word of the one that is."""
    more = tuple(sorted((*OPERATORS, bytes([255]) * 20)))
    sets = (*SETS, OperatorSet(site.now() + 20, more, 4))
    chain = build_solana_sim_chain(site.sim, site.state, operator_sets=sets)
    seen = await site.speak(*KEYS[:3], listener=chain)
    ahead = replace(decode_unsigned(seen.claim), clock=site.now() + 25)
    site.say(chain, replace(seen, claim=encode_unsigned(ahead)), KEYS[3], chain)
    assert (await bootstrap(chain, site.now()))[1].sequence == 1


# ---- what became of a transaction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("err", [None, {"InstructionError": [2, {"Custom": 1}]}])
async def test_one_endpoint_that_says_a_transaction_has_landed_does_not_end_the_work(site, err):
    """Who believes it sends nothing more until the packet's time is over, each time."""
    chain = site.build(site.gas_key)
    signed = await chain.submitter.prepare(site.make_certificate(1, Execute(sha256(b"none").digest(), (), ())), ())

    def land(answer, params):
        del params
        return {**answer, "value": [{"slot": 1, "confirmations": None, "err": err, "confirmationStatus": "finalized"}]}

    forge(site, 0, "getSignatureStatuses", land)
    assert await chain.submitter.outcome(signed) is Outcome.PENDING
    for lies in site.lies[1:]:
        lies.down = True
    alone = Outcome.INCLUDED if err is None else Outcome.FAILED
    assert await chain.submitter.outcome(signed) is alone  # nobody else to ask
    for lies in site.lies[1:]:
        lies.down = False
    await chain.submitter.send(signed)
    site.sim.mine()
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_an_endpoint_that_never_answers_holds_no_packet_up(site):
    """A packet lives for five minutes; whoever waits for the last endpoint at every step has none of them left."""
    chain = site.build(site.gas_key, timeout_s=3_600.0)
    site.lies[3].hang = True
    async with asyncio.timeout(60):
        sent = await deliver(site, chain, site.make_certificate(1, site.make_payout(2), timeout=site.now() + 10_000))
        assert await chain.submitter.outcome(sent[-1]) is Outcome.INCLUDED
    assert read_acks(site) == {1: AckStatus.DONE}


async def test_an_opinion_that_never_comes_is_none(site, monkeypatch):
    monkeypatch.setattr(submitter_module, "OPINION_S", 0.01)
    chain = site.build(site.gas_key)
    first, second, third, fourth = chain.reader.sources
    asked = []

    async def agrees(other):
        asked.append(other)
        if other == second:
            await asyncio.Event().wait()
        return other == fourth

    await chain.submitter._confirm(first, agrees)
    assert asked == [second, third, fourth]
    with pytest.raises(Unavailable) as caught:
        await chain.submitter._confirm(fourth, agrees)  # of those that say anything, nobody agrees
    assert (caught.value.reason, caught.value.source) == ("unconfirmed", fourth)
