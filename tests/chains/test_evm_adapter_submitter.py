"""Submitter of the Ethereum family: nonces, fees, refusals, restarts (incidents.md 2: 16 to 19; anchors.md 3 and 4 B)."""

from dataclasses import replace

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.base import Outcome, SignedTx
from chains.evm.submitter import FeePolicy
from chains.registry import build_sim_chain
from chains.sending import choose_nonce, compute_bumped_fee, is_replacement
from messages.bodies import Execute
from messages.errors import Rejected, Unavailable
from tests.chains.harness_evm import EvmHarness

HEARTBEAT = Execute(bytes(32), (), ())
GWEI = 10**9


@pytest.fixture
def harness():
    return EvmHarness()


@pytest.fixture
def submitter(harness):
    return harness.chain.submitter


def make_tx(nonce, sequence=1):
    return SignedTx("eip155:1", bytes(32), sequence, "0x", nonce, 1, 1, hex(nonce), b"")


# ---- fees -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "estimate", "expected"),
    [
        (100, 50, 110),  # 10 % more is enough
        (101, 50, 112),  # rounded up
        (100, 1000, 1000),  # the market is far above
        (100, 37, 110),  # three times the market is still more
        (100, 36, 108),  # capped at three times the market ...
        (100, 30, 100),  # ... but never less than before
        (0, 5, 5),
    ],
)
def test_a_replacement_pays_what_the_rule_says(old, estimate, expected):
    assert compute_bumped_fee(old, estimate) == expected


@given(st.integers(0, 10**15), st.integers(1, 10**15))
def test_a_bump_never_lowers_a_fee_and_never_passes_three_times_the_market(old, estimate):
    new = compute_bumped_fee(old, estimate)
    assert old <= new <= max(old, 3 * estimate)
    assert is_replacement(old, new) or new in (old, 3 * estimate)


async def test_the_same_packet_is_replaced_at_its_nonce_with_both_fees_raised(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    first = await submitter.prepare(certificate, [])
    await submitter.send(first)
    second = await submitter.prepare(certificate, [first])
    assert second.nonce == first.nonce
    assert is_replacement(first.max_fee, second.max_fee)
    assert is_replacement(first.priority_fee, second.priority_fee)
    await submitter.send(second)
    harness.mine()
    assert await submitter.outcome(second) is Outcome.INCLUDED
    assert await submitter.outcome(first) is Outcome.UNKNOWN


async def test_where_no_allowed_bump_would_be_taken_the_stored_transaction_is_sent_again(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    first = await submitter.prepare(certificate, [])
    dear = replace(first, max_fee=first.max_fee * 4, priority_fee=first.priority_fee * 4)
    assert await submitter.prepare(certificate, [dear]) is dear
    assert await submitter.prepare(certificate, [first]) is not first


async def test_a_gas_spike_is_waited_out_under_the_cap(harness):
    chain = harness.make_chain(max_fee_cap_wei=100 * GWEI)
    certificate = harness.certify(1, HEARTBEAT)
    harness.network.chain.base_fee_floor_wei = 60 * GWEI
    harness.mine()
    with pytest.raises(Unavailable) as caught:
        await chain.submitter.prepare(certificate, [])
    assert caught.value.reason == "fee_cap"
    harness.network.chain.base_fee_floor_wei = 40 * GWEI
    for _ in range(5):
        harness.mine()
    signed = await chain.submitter.prepare(certificate, [])
    assert signed.max_fee <= 100 * GWEI
    # nor does a replacement pass the cap: the stored one is kept
    stuck = replace(signed, max_fee=95 * GWEI)
    assert await chain.submitter.prepare(certificate, [stuck]) is stuck


# ---- nonces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "pending", "others", "same", "expected"),
    [
        ([5, 5], [5, 5], [], None, (5, False)),
        ([5, 5], [5, 5], [5, 6], None, (7, False)),  # stored ones come first
        ([5, 5], [7, 7], [5, 6], None, (7, False)),
        ([5, 5], [5, 5], [6], None, (5, False)),  # a freed nonce is used again
        ([5, 5], [6, 6], [], None, (6, False)),  # a pool holds one that is not stored
        ([5, 5], [6, 6], [], 5, (5, True)),  # replace
        ([5, 5], [7, 7], [5], 6, (6, True)),
        ([5, 5], [7, 7], [6], 5, (5, True)),
        ([6, 6], [6, 6], [], 5, (6, False)),  # used by something else
        ([5, 5], [5, 5], [], 9, (5, False)),  # behind a gap
        ([3, 5], [3, 5], [], None, (5, False)),  # one endpoint lags
        ([3, 5], [3, 5], [], 3, (5, False)),
        ([3, 5], [3, 6], [], 5, (5, True)),
        ([5, 900], [5, 900], [], None, (900, False)),  # or one boasts: see the test below
        ([5, 900], [5, 900], [], 900, (900, True)),
        ([5, 900], [5, 900], [], 899, (900, False)),
        ([4, 5, 5], [4, 5, 5], [], None, (5, False)),
    ],
)
def test_the_nonce_is_the_lowest_that_nobody_uses(counts, pending, others, same, expected):
    previous = [make_tx(n, 100 + n) for n in others]
    mine = None if same is None else make_tx(same)
    assert choose_nonce(counts, pending, [*previous, *([mine] if mine else [])], mine) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 50), st.sets(st.integers(0, 60), max_size=10))
def test_a_new_packet_never_takes_a_stored_or_used_nonce_nor_leaves_a_gap(count, others):
    previous = [make_tx(n, 100 + n) for n in others]
    nonce, replaces = choose_nonce([count], [count], previous, None)
    assert not replaces
    assert nonce >= count
    assert nonce not in others
    assert all(n in others for n in range(count, nonce))


async def test_an_endpoint_that_lags_costs_nothing(harness, submitter):
    sent = harness.network.transact(
        harness.submit_key, harness.token, b""
    )  # the account was used: it fails, and counts
    harness.mine()
    harness.mine()
    assert harness.network.get_receipt(sent)
    certificate = harness.certify(1, HEARTBEAT)
    used = max(b.slot for b in harness.network.chain.blocks if any(t.hash == sent for t in b.transactions))
    harness.network.endpoints[0].lies.stall_slot = used - 1
    signed = await submitter.prepare(certificate, [])
    assert signed.nonce == 1
    await submitter.send(signed)
    harness.mine()
    assert await submitter.outcome(signed) is Outcome.INCLUDED


@pytest.mark.parametrize("step", [0, 1])
async def test_an_endpoint_that_boasts_costs_some_rounds_and_no_packet(harness, submitter, monkeypatch, step):
    certificate = harness.certify(1, HEARTBEAT)
    liar = harness.network.endpoints[1].execution
    boast = iter(range(900, 10**6, max(step, 1)))
    monkeypatch.setitem(liar._methods, "eth_getTransactionCount", lambda *_: hex(next(boast) if step else 900))
    stored = []
    while not stored or stored[-1].nonce != 0:
        stored.append(await submitter.prepare(certificate, stored))
        await submitter.send(stored[-1])
        harness.mine()
        assert len(stored) < 6
    assert len(stored) == 4
    assert await submitter.outcome(stored[-1]) is Outcome.INCLUDED


# ---- refusals ---------------------------------------------------------------------------------------------------------


async def test_sending_what_the_pool_or_the_chain_has_already_is_fine(harness, submitter):
    signed = await submitter.prepare(harness.certify(1, HEARTBEAT), [])
    for _ in range(2):
        assert await submitter.send(signed) == signed.tx_id  # already known
    harness.mine()
    assert await submitter.send(signed) == signed.tx_id  # nonce too low


async def test_another_transaction_at_our_nonce_is_said_and_got_over(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    signed = await submitter.prepare(certificate, [])
    account = Account.from_key(harness.submit_key)
    fields = {"type": 2, "chainId": 31337, "nonce": signed.nonce, "to": harness.token, "value": 0, "gas": 21_000}
    fields |= {"maxFeePerGas": signed.max_fee * 3, "maxPriorityFeePerGas": signed.priority_fee * 3}
    harness.network.chain.send_raw(bytes(account.sign_transaction(fields).raw_transaction), harness.network.get_slot())
    with pytest.raises(Unavailable) as caught:
        await submitter.send(signed)
    assert caught.value.reason == "underpriced"
    harness.mine()
    again = await submitter.prepare(certificate, [signed])
    assert again.nonce == signed.nonce + 1
    await submitter.send(again)
    harness.mine()
    assert await submitter.outcome(again) is Outcome.INCLUDED


async def test_an_account_without_money_is_named(harness):
    chain = build_sim_chain(harness.network, harness.vault, bytes([9]) * 32, checkpoint=harness.checkpoint)
    signed = await chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    with pytest.raises(Unavailable) as caught:
        await chain.submitter.send(signed)
    assert caught.value.reason == "insufficient_funds"


async def test_a_transaction_that_is_no_transaction_is_refused(harness, submitter):
    signed = await submitter.prepare(harness.certify(1, HEARTBEAT), [])
    with pytest.raises(Rejected) as caught:
        await submitter.send(replace(signed, raw=signed.raw[:-1]))
    assert caught.value.reason == "refused"
    assert caught.value.source in harness.chain.reader.sources


async def test_a_pool_that_forgets_is_made_good_by_sending_again(harness, submitter):
    signed = await submitter.prepare(harness.certify(1, HEARTBEAT), [])
    for endpoint in harness.network.endpoints:
        endpoint.lies.drop_sent = True
    await submitter.send(signed)
    harness.mine()
    assert await submitter.outcome(signed) is Outcome.UNKNOWN
    harness.network.endpoints[1].lies.drop_sent = False
    await submitter.send(signed)
    harness.mine()
    assert await submitter.outcome(signed) is Outcome.INCLUDED


async def test_two_relayers_with_one_key_do_it_once(harness):
    certificate = harness.certify(1, HEARTBEAT)
    one, two = harness.make_chain().submitter, harness.make_chain().submitter
    first, second = await one.prepare(certificate, []), await two.prepare(certificate, [])
    assert first == second  # the same question has the same answer
    await one.send(first)
    await two.send(second)
    harness.mine()
    assert await one.outcome(first) is Outcome.INCLUDED
    nonce, _ = harness.network.chain.get_account_state(harness.network.chain.head, bytes.fromhex(one.account[2:]))
    assert nonce == first.nonce + 1


async def test_a_reverted_transaction_is_failed_not_included(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    signed = await submitter.prepare(certificate, [])
    other = build_sim_chain(harness.network, harness.vault, harness.user_key, checkpoint=harness.checkpoint).submitter
    faster = await other.prepare(certificate, [])
    await other.send(faster)
    harness.mine()
    await submitter.send(signed)
    harness.mine()
    assert await other.outcome(faster) is Outcome.INCLUDED
    assert await submitter.outcome(signed) is Outcome.FAILED


@pytest.mark.parametrize("order", [0, 1])
async def test_an_endpoint_that_does_not_know_the_vault_yet_does_not_lower_the_gas(harness, order):
    certificate = harness.certify(1, HEARTBEAT)
    harness.network.endpoints[order].lies.stall_slot = 1
    signed = await harness.chain.submitter.prepare(certificate, [])
    await harness.chain.submitter.send(signed)
    harness.mine()
    assert await harness.chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_an_endpoint_that_claims_a_revert_does_not_stop_a_packet(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    before = harness.network.get_slot()
    await submitter.send(await submitter.prepare(certificate, []))
    harness.mine()
    following = harness.certify(2, HEARTBEAT)
    harness.network.endpoints[0].lies.stall_slot = before  # there packet 1 is still missing: "sequence"
    signed = await submitter.prepare(following, [])
    await submitter.send(signed)
    harness.mine()
    assert await submitter.outcome(signed) is Outcome.INCLUDED


def count_methods(harness):
    """JSON-RPC methods that the endpoints are asked from now on."""
    asked = []
    for endpoint in harness.network.endpoints:
        inner = endpoint.execution.make_request

        async def make_request(method, params, inner=inner):
            asked.append(str(method))
            return await inner(method, params)

        endpoint.execution.make_request = make_request
    return asked


async def test_after_the_first_estimate_one_call_shows_that_the_gas_is_enough(harness, submitter):
    first = await submitter.prepare(harness.certify(1, HEARTBEAT), [])
    await submitter.send(first)
    harness.mine()
    asked = count_methods(harness)
    second = await submitter.prepare(harness.certify(2, HEARTBEAT), [])
    assert "eth_estimateGas" not in asked
    assert asked.count("eth_call") == len(harness.network.endpoints)
    await submitter.send(second)
    harness.mine()
    assert await submitter.outcome(second) is Outcome.INCLUDED


async def test_a_call_that_needs_more_than_expected_is_estimated_anew(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    honest = await submitter.prepare(certificate, [])
    submitter._gas_per_byte = 20
    asked = count_methods(harness)
    signed = await submitter.prepare(certificate, [])
    assert asked.count("eth_estimateGas") == len(harness.network.endpoints)
    assert Account.recover_transaction(signed.raw) == submitter.account
    assert submitter._gas_per_byte > 20
    await submitter.send(signed)
    harness.mine()
    assert await submitter.outcome(signed) is Outcome.INCLUDED
    assert signed.nonce == honest.nonce


async def test_a_packet_whose_turn_is_over_is_refused_with_the_vaults_word_also_when_gas_is_known(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    await submitter.send(await submitter.prepare(certificate, []))
    harness.mine()
    with pytest.raises(Rejected) as caught:
        await submitter.prepare(certificate, [])
    assert caught.value.reason == "revert_sequence"


async def test_more_gas_than_the_cap_is_not_offered(harness, submitter):
    certificate = harness.certify(1, HEARTBEAT)
    await submitter.prepare(certificate, [])
    submitter._policy = FeePolicy(gas_cap=50_000)
    with pytest.raises(Rejected) as caught:
        await submitter.prepare(certificate, [])
    assert caught.value.reason == "gas_cap"
