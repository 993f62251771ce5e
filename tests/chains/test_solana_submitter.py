"""Delivering packets to the real vault on a simulated cluster: records, tables, prices, expiry, lying endpoints, restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction import VersionedTransaction

from chains.base import OUT_OF_TURN, Outcome
from chains.solana.fees import PricePolicy, compute_estimate, compute_fee, compute_unit_limit
from chains.solana.rpc_json import Failure, parse_failure
from chains.solana.submitter import MAX_REMEMBERED, translate_failure
from chains.solana.tables import MAX_FOUND, make_marker
from contracts.solana import client as c
from messages import bodies as b
from messages.bodies import Ack, AckStatus, decode_outbox_body
from messages.errors import Rejected, Unavailable
from messages.hashing import sha256
from relayer.commands.init import FAMILY_TERMS
from tests.chains.solana_site import KEYS, Site

MAX_TRIES = 12


@pytest.fixture
def site():
    site = Site("submitter")
    site.deposit(1_000_000)
    site.finalize()
    return site


@pytest.fixture
def chain(site):
    return site.build(site.gas_key)


async def prepare(site, chain, certificate, previous=()):
    """Try again while records and tables are on their way, as the submit task does; what it cost in tries."""
    for _ in range(MAX_TRIES):
        try:
            return await chain.submitter.prepare(certificate, previous)
        except Unavailable as error:
            if error.reason != "preparing":
                raise
            site.sim.mine()
    raise AssertionError("never prepared")


async def deliver(site, chain, certificate):
    signed = await prepare(site, chain, certificate)
    assert await chain.submitter.send(signed) == signed.tx_id
    site.sim.mine()
    return signed


def read_acks(site):
    """What the vault answered, out of its inner instructions."""
    events = []
    for landed in site.sim.bank.ledger.by_signature.values():
        for group in landed.inner:
            events += [c.decode_event(data, site.client) for _, _, data, _ in group if data[:2] == bytes([255, 0])]
    bodies = [decode_outbox_body(event.packet.payloads[0].value) for event in events]
    return {body.inbox_sequence: body.status for body in bodies if isinstance(body, Ack)}


def get_reason_of(caught):
    return caught.value.reason


# ---- delivery ------------------------------------------------------------------------------------------------------------


async def test_a_small_packet_is_delivered_in_one_transaction(site, chain):
    certificate = site.make_certificate(1, site.make_payout(1))
    signed = await deliver(site, chain, certificate)
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED
    assert site.sim.get_result(signed.tx_id).error == ""
    assert read_acks(site) == {1: AckStatus.DONE}
    assert (signed.account, signed.packet_sequence, signed.vault_id) == (
        chain.submitter.account,
        1,
        site.chain.vault_id,
    )
    assert len(signed.raw) <= c.MAX_TRANSACTION_BYTES
    assert (
        site.sim.get_result(signed.tx_id).units <= signed.priority_fee <= 1.2 * site.sim.get_result(signed.tx_id).units
    )


async def test_the_records_that_a_packet_writes_are_opened_before(site, chain):
    certificate = site.make_certificate(1, site.make_payout(9))
    with pytest.raises(Unavailable) as caught:
        await chain.submitter.prepare(certificate, ())
    assert get_reason_of(caught) == "preparing"
    before = len(site.sim.pool)
    assert before > 1
    with pytest.raises(Unavailable):
        await chain.submitter.prepare(certificate, ())
    assert len(site.sim.pool) == before  # what may still land is sent again and not made again
    site.sim.mine()
    await deliver(site, chain, certificate)
    assert read_acks(site) == {1: AckStatus.DONE}


async def test_a_large_packet_goes_through_a_lookup_table_that_later_packets_use_too(site, chain):
    signed = await deliver(site, chain, site.make_certificate(1, site.make_payout(16)))
    message = VersionedTransaction.from_bytes(signed.raw).message
    (lookup,) = message.address_table_lookups
    site.finalize()
    spent = site.sim.get_balance(Pubkey.from_string(chain.submitter.account))
    again = await prepare(site, chain, site.make_certificate(2, site.make_payout(16)))
    assert [one.account_key for one in VersionedTransaction.from_bytes(again.raw).message.address_table_lookups] == [
        lookup.account_key
    ]
    assert site.sim.get_balance(Pubkey.from_string(chain.submitter.account)) == spent  # nothing was made for it
    more = await deliver(site, chain, site.make_certificate(2, site.make_payout(20)))
    assert [one.account_key for one in VersionedTransaction.from_bytes(more.raw).message.address_table_lookups] == [
        lookup.account_key
    ]
    assert read_acks(site) == {1: AckStatus.DONE, 2: AckStatus.DONE}


async def test_the_largest_packet_of_this_family_fits(site, chain):
    signed = await deliver(site, chain, site.make_certificate(1, site.make_payout(31)))
    assert read_acks(site) == {1: AckStatus.DONE}
    assert len(signed.raw) <= c.MAX_TRANSACTION_BYTES


async def test_a_table_is_found_again_after_a_restart_and_not_one_of_somebody_else(site, chain):
    signed = await deliver(site, chain, site.make_certificate(1, site.make_payout(16)))
    site.finalize()
    (lookup,) = VersionedTransaction.from_bytes(signed.raw).message.address_table_lookups
    # another account names the marker too
    payer = Pubkey.from_string(chain.submitter.account)
    stranger = site.build(site.sim.make_key("stranger"))
    site.sim.send(site.maker, [_transfer(site, make_marker(payer, site.state))])
    site.finalize()
    restarted = site.build(site.gas_key)
    again = await restarted.submitter.prepare(site.make_certificate(2, site.make_payout(16)), ())
    found = VersionedTransaction.from_bytes(again.raw).message.address_table_lookups
    assert [one.account_key for one in found] == [lookup.account_key]
    with pytest.raises(Unavailable) as caught:
        await stranger.submitter.prepare(site.make_certificate(2, site.make_payout(16)), ())
    assert get_reason_of(caught) == "preparing"  # it makes its own


def _transfer(site, to):
    from solders.system_program import TransferParams, transfer

    return transfer(TransferParams(from_pubkey=Pubkey.from_bytes(site.account), to_pubkey=to, lamports=0))


async def test_a_packet_that_another_brought_first_is_out_of_turn(site, chain):
    certificate = site.make_certificate(1, site.make_payout(1))
    other = site.build(site.sim.make_key("another operator's gas"))
    mine, theirs = await prepare(site, chain, certificate), await prepare(site, other, certificate)
    await other.submitter.send(theirs)
    site.sim.mine()
    await chain.submitter.send(mine)
    site.sim.mine()
    assert await other.submitter.outcome(theirs) is Outcome.INCLUDED
    assert await chain.submitter.outcome(mine) is Outcome.FAILED
    assert read_acks(site) == {1: AckStatus.DONE}
    with pytest.raises(Rejected) as caught:
        await chain.submitter.prepare(certificate, ())
    assert get_reason_of(caught) == OUT_OF_TURN


async def test_what_the_vault_refuses_is_not_sent_and_its_word_is_the_reason(site, chain):
    good = site.make_certificate(1, site.make_payout(1))
    await prepare(site, chain, good)
    for certificate, word in (
        (replace(good, signatures=good.signatures[::-1]), "revert_signatures"),
        (site.make_certificate(1, site.make_payout(1), timeout=site.now() - 10), "revert_timeout"),
        (site.make_certificate(2, site.make_payout(1)), "revert_sequence"),
        (site.make_certificate(1, site.make_payout(1), keys=KEYS[:2]), "revert_signatures"),
    ):
        with pytest.raises(Rejected) as caught:
            await chain.submitter.prepare(certificate, ())
        assert get_reason_of(caught) == word
    with pytest.raises(Rejected) as caught:
        await chain.submitter.prepare(replace(good, vault_id=bytes(32)), ())
    assert get_reason_of(caught) == "wrong_vault"


# ---- again and again -----------------------------------------------------------------------------------------------------


async def test_a_transaction_that_may_still_land_is_given_again_and_one_that_cannot_is_replaced_at_a_higher_price(
    site, chain
):
    certificate = site.make_certificate(1, site.make_payout(1), timeout=site.now() + 10_000)
    first = await prepare(site, chain, certificate)
    restarted = site.build(site.gas_key)
    assert await restarted.submitter.prepare(certificate, (first,)) == first
    site.clock.advance(30)
    assert await chain.submitter.prepare(certificate, (first,)) == first
    site.clock.advance(60)  # 150 blocks of 0.4 s are over
    second = await restarted.submitter.prepare(certificate, (first,))
    assert second.max_fee >= first.max_fee * 11 // 10
    assert second.nonce > first.nonce
    await chain.submitter.send(second)
    site.sim.mine()
    assert await chain.submitter.outcome(second) is Outcome.INCLUDED
    assert await chain.submitter.outcome(first) is Outcome.UNKNOWN


async def test_a_twin_with_the_same_number_is_not_taken_for_the_packet(site, chain):
    first = await prepare(site, chain, site.make_certificate(1, site.make_payout(1)))
    twin = site.make_certificate(1, site.make_payout(2))
    second = await prepare(site, chain, twin, (first,))
    assert second.raw != first.raw
    assert b"".join(twin.signatures) in second.raw


async def test_the_price_follows_what_blocks_ask_for_within_the_limits(site):
    certificate = site.make_certificate(1, site.make_payout(1))
    chain = site.build(site.gas_key, unit_price_microlamports=10, max_unit_price_microlamports=5_000)
    assert (await prepare(site, chain, certificate)).max_fee == 10
    site.sim.unit_price = 2_345
    assert (await prepare(site, chain, certificate)).max_fee == 2_345
    site.sim.unit_price = 10**9
    dear = await prepare(site, chain, certificate)
    assert dear.max_fee == 5_000
    site.clock.advance(120)
    site.sim.unit_price = 0
    later = site.make_certificate(1, site.make_payout(1), timeout=site.now() + 300)
    assert (await prepare(site, chain, later, (dear,))).max_fee == 5_000
    with pytest.raises(Rejected) as caught:
        site.build(site.gas_key, unit_price_microlamports=10, max_unit_price_microlamports=9)
    assert get_reason_of(caught) == "bad_config"


async def test_outcomes_are_said_of_confirmed_blocks_and_a_fork_takes_them_back(site, chain):
    signed = await prepare(site, chain, site.make_certificate(1, site.make_payout(1)))
    site.finalize()  # the records that were opened for it
    assert await chain.submitter.outcome(signed) is Outcome.UNKNOWN
    await chain.submitter.send(signed)
    site.sim.mine()
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED
    site.sim.fork(drop=True)
    assert await chain.submitter.outcome(signed) is Outcome.UNKNOWN
    await chain.submitter.send(signed)
    site.finalize()
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED
    site.clock.advance(10_000)
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED  # history is searched


# ---- endpoints -----------------------------------------------------------------------------------------------------------


async def test_an_account_without_money_is_told_so(site):
    poor = site.build(site.sim.make_key("poor", 0))
    with pytest.raises(Unavailable) as caught:
        await poor.submitter.prepare(site.make_certificate(1, site.make_payout(1)), ())
    assert get_reason_of(caught) == "insufficient_funds"
    thin = site.build(site.sim.make_key("thin", 1_000_000))  # enough for a fee, not for a record
    with pytest.raises(Unavailable) as caught:
        await prepare(site, thin, site.make_certificate(1, site.make_payout(1)))
    assert get_reason_of(caught) == "insufficient_funds"


@pytest.mark.parametrize(
    ("lie", "value"),
    [("down", True), ("unhealthy", True), ("missing_vault", True), ("other_owner", True), ("genesis_hash", "1" * 32)],
)
async def test_one_endpoint_that_is_away_or_lies_keeps_no_packet_out(site, chain, lie, value):
    setattr(site.lies[0], lie, value)
    signed = await deliver(site, chain, site.make_certificate(1, site.make_payout(3)))
    assert await chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_an_endpoint_that_stands_still_is_left_for_the_next_one(site, chain):
    """It shows the records as unopened for ever: whoever always asks it first prepares for ever."""
    site.lies[0].stall_slot = site.sim.get_slot()
    await deliver(site, chain, site.make_certificate(1, site.make_payout(3)))
    assert read_acks(site) == {1: AckStatus.DONE}


async def test_endpoints_that_forget_what_they_are_sent_do_no_harm_while_one_does_not(site, chain):
    for lies in site.lies[:3]:
        lies.drop_sent = True
    await deliver(site, chain, site.make_certificate(1, site.make_payout(3)))
    assert read_acks(site) == {1: AckStatus.DONE}


async def test_where_nobody_answers_it_says_so(site, chain):
    signed = await prepare(site, chain, site.make_certificate(1, site.make_payout(1)))
    for lies in site.lies:
        lies.down = True
    for work in (
        chain.submitter.prepare(site.make_certificate(1, site.make_payout(1)), ()),
        chain.submitter.prepare(site.make_certificate(1, site.make_payout(1)), (signed,)),
        chain.submitter.send(signed),
        chain.submitter.outcome(signed),
    ):
        with pytest.raises(Unavailable) as caught:
            await work
        assert get_reason_of(caught) == "no_endpoint"


async def test_what_is_remembered_is_bounded(site, chain):
    for number in range(1, MAX_REMEMBERED + 10):
        with pytest.raises((Rejected, Unavailable)):
            await chain.submitter.prepare(site.make_certificate(number + 1, site.make_payout(1)), ())
    assert len(chain.submitter._turns) == MAX_REMEMBERED
    assert MAX_FOUND < 100  # all tables are read at once


# ---- words and numbers ---------------------------------------------------------------------------------------------------

VAULT = Pubkey.from_bytes(bytes([7]) * 32)


def get_word(err, program=""):
    failure = replace(parse_failure(err), program=program)
    return translate_failure(failure, {2: VAULT}, VAULT, "a").reason


def get_word_by_code_alone(err):
    """The fault: a code is looked up among the vault's words, whoever failed."""
    return "revert_" + c.ERRORS[parse_failure(err).code]


def test_a_code_is_the_vaults_word_only_where_the_vault_failed():
    failed = {"InstructionError": [2, {"Custom": 1}]}
    assert get_word(failed) == OUT_OF_TURN
    assert get_word(failed, str(VAULT)) == OUT_OF_TURN
    # the system program says 1 for "not enough lamports"; taken for the vault's word it would look as if another had been first
    assert get_word_by_code_alone(failed) == OUT_OF_TURN
    assert get_word(failed, str(SYSTEM_PROGRAM)) == "insufficient_funds"
    assert get_word({"InstructionError": [0, {"Custom": 1}]}) == "refused"
    assert get_word({"InstructionError": [2, {"Custom": 4}]}) == "revert_signatures"
    assert get_word({"InstructionError": [2, {"Custom": 99}]}) == "revert_custom_99"


@pytest.mark.parametrize(
    ("err", "word"),
    [
        ("AccountNotFound", "insufficient_funds"),
        ("InsufficientFundsForFee", "insufficient_funds"),
        ({"InsufficientFundsForRent": {"account_index": 0}}, "insufficient_funds"),
        ("BlockhashNotFound", "stale"),
        ("AddressLookupTableNotFound", "preparing"),
        ("InvalidAddressLookupTableIndex", "preparing"),
        ({"InstructionError": [2, "ProgramFailedToComplete"]}, "refused"),
        ("AccountInUse", "refused"),
        ("TooManyAccountLocks", "too_large"),
    ],
)
def test_words_of_nodes(err, word):
    assert get_word(err) == word


def test_the_limit_is_tight_and_the_estimate_is_no_single_endpoints_word():
    assert compute_unit_limit(100_000) == 116_000
    assert compute_unit_limit(2_000_000) == 1_400_000
    assert compute_estimate([[0] * 75 + [900] * 25]) == 0
    assert compute_estimate([[0] * 74 + [900] * 26]) == 900
    assert compute_estimate([[5], [10**15]]) == 5
    assert compute_estimate([[], []]) == 0
    assert compute_fee(200_000, 1_000_000) == 205_000
    assert compute_fee(1, 1) == 5_001
    assert PricePolicy(5, 9).clamp(7) == 7
    assert Failure("x").instruction is None


# ---- size ----------------------------------------------------------------------------------------------------------------

TERMS = next(terms for terms in FAMILY_TERMS if terms.family == "solana")
LOCKS = 64
OTHERS = 4  # state, program, payer, compute budget


class Shelf:
    """Accounts of a vault as a test wants them, for `make_recv`."""

    def __init__(self, site):
        self.vault = site.vault
        self.found = {site.vault.state: site.sim.read(site.state)}

    def put(self, record, *content):
        head = bytes([record.tag]) + bytes(7) + bytes(self.vault.state) + record.keys
        self.found[self.vault.find(record)] = head + c.CONTENT[record.tag].pack(*content)

    def count_locks(self, certificate, now):
        delivery = c.make_recv(self.vault, certificate.packet, certificate.signatures, self.found.get, now)
        return len(delivery.instruction.accounts) - 2 + OTHERS


def make_trades(site, shelf, count):
    """Trades of twice as many accounts, each of which makes one short position and ends another."""
    items = []
    for i in range(count):
        maker, taker, series, ident = (sha256(b"%s %d" % (word, i)) for word in (b"maker", b"taker", b"series", b"id"))
        shelf.put(c.get_offer_id(i + 1), maker, series, site.mint, 10, 0, 1, 2**40, 2**40, 1, 0)
        shelf.put(c.get_trade_id(taker, i + 1, 1), ident, 10, 10, i + 1)
        shelf.put(c.get_position_id(taker, series), (-5).to_bytes(16, "little", signed=True))
        items.append(b.TradeItem(ident, taker, i + 1, 1))
    return b.DecideTrades(bytes([1]) * 32, 0, tuple(sorted(items, key=lambda item: item.id)))


def make_moves(count):
    """Legs of as many accounts and series, each of which makes a short position."""
    return b.Execute(
        bytes([1]) * 32,
        (),
        tuple(
            sorted(
                (b.Leg(1, sha256(b"account %d" % i), sha256(b"series %d" % i), -1) for i in range(count)),
                key=lambda leg: leg.account,
            )
        ),
    )


def test_the_worst_packet_that_the_terms_allow_locks_no_more_accounts_than_a_transaction_may(site):
    """A packet that cannot be delivered would be planned again and again."""
    shelf = Shelf(site)
    trades = site.make_certificate(1, make_trades(site, shelf, TERMS.max_items))
    assert shelf.count_locks(trades, site.now()) <= LOCKS
    moves = site.make_certificate(1, make_moves(TERMS.max_legs))
    assert shelf.count_locks(moves, site.now()) <= LOCKS
    for body in (make_trades(site, shelf, TERMS.max_items + 1), make_moves(TERMS.max_legs + 1)):
        with pytest.raises(Rejected) as caught:
            shelf.count_locks(site.make_certificate(1, body), site.now())
        assert get_reason_of(caught) == "too_large"
