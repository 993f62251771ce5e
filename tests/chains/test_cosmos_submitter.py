"""The submitter of the Cosmos family: numbers, fees, time-outs, and what nodes say of a transaction."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import pytest
from coincurve import PublicKey
from coincurve.ecdsa import cdata_to_der, deserialize_compact
from cosmpy.protos.cosmos.crypto.secp256k1.keys_pb2 import PubKey
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, SignDoc, TxBody, TxRaw
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgExecuteContract
from hypothesis import given, settings
from hypothesis import strategies as st

from chains import base
from chains.base import OUT_OF_TURN, PREPARE_AGAIN, Outcome
from chains.cosmos.address import encode_address
from chains.cosmos.fees import GasPolicy, GasPrice, parse_gas_price, parse_minimum_price
from chains.cosmos.submitter import TIMEOUT_BLOCKS, compute_tx_id, decode_signed, get_contract_word
from chains.cosmos.vault_json import encode_json, make_recv
from chains.registry import build_probe, make_cosmos_sim_config
from messages.bodies import Ack, Execute, Paused
from messages.digests import compute_pause_digest, sign_digest
from messages.errors import Rejected, Unavailable
from tests.builders import OPERATOR_KEYS
from tests.chains.harness_cosmos import CosmosHarness

HEARTBEAT = Execute(bytes(32), (), ())
SIMULATION_REFUSED = (
    "rpc error: code = Unknown desc = failed to execute message; message index: 0: sequence: execute wasm contract failed"
    " [wasmd/x/wasm/keeper/keeper.go:410] with gas used: '62340': unknown request"
)
"""As wasmd v0.70 says it."""


@pytest.fixture
def harness():
    return CosmosHarness()


def get_price(harness):
    return parse_gas_price(f"0.025{harness.network.denom}")


async def get_facts(harness):
    trusted = await harness.bootstrap()
    advanced = await base.advance(harness.chain, trusted, harness.now())
    collected = await base.collect(harness.chain, advanced.steps[-1][1], harness.start, 1)
    return [fact.body for fact in collected.facts]


# ---- what is signed ---------------------------------------------------------------------------------------------------


async def test_the_transaction_says_what_it_should_and_its_key_signed_it(harness):
    certificate = harness.certify(1, HEARTBEAT)
    height = harness.network.height
    signed = await harness.chain.submitter.prepare(certificate, [])
    parts = TxRaw.FromString(signed.raw)
    body, auth = TxBody.FromString(parts.body_bytes), AuthInfo.FromString(parts.auth_info_bytes)
    (message,) = body.messages
    call = MsgExecuteContract.FromString(message.value)
    assert message.type_url == "/cosmwasm.wasm.v1.MsgExecuteContract"
    assert (call.sender, call.contract) == (signed.account, encode_address(harness.vault, "wasm"))
    assert (call.msg, list(call.funds)) == (encode_json(make_recv(certificate)), [])
    assert body.timeout_height == height + TIMEOUT_BLOCKS
    assert auth.signer_infos[0].sequence == signed.nonce == 0
    (coin,) = auth.fee.amount
    assert coin.denom == harness.network.denom
    assert int(coin.amount) == signed.max_fee == get_price(harness).get_fee(auth.fee.gas_limit)
    assert signed.tx_id == hashlib.sha256(signed.raw).hexdigest().upper() == compute_tx_id(signed.raw)
    account = harness.network.app.get_account(
        harness.network.get_check_context(), harness.network.get_address_bytes(harness.submit_key)
    )
    document = SignDoc(
        body_bytes=parts.body_bytes,
        auth_info_bytes=parts.auth_info_bytes,
        chain_id=harness.network.chain_id,
        account_number=account.account_number,
    ).SerializeToString()
    key = PublicKey(PubKey.FromString(auth.signer_infos[0].public_key.value).key)
    assert key.verify(cdata_to_der(deserialize_compact(parts.signatures[0])), document)


async def test_what_is_used_of_the_gas_is_less_than_what_is_paid_for(harness):
    signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    await harness.chain.submitter.send(signed)
    harness.mine()
    result = harness.network.get_result(bytes.fromhex(signed.tx_id))
    assert result.code == 0
    assert 0 < result.gas_used < decode_signed(signed.raw).gas


# ---- numbers and replacements -----------------------------------------------------------------------------------------


async def test_a_stored_transaction_is_sent_again_until_its_last_height_and_then_replaced(harness):
    certificate = harness.certify(1, HEARTBEAT)
    first = await harness.chain.submitter.prepare(certificate, [])
    harness.network.mine(TIMEOUT_BLOCKS - 1)
    certificate = harness.certify(1, HEARTBEAT)
    assert await harness.chain.submitter.prepare(certificate, [first]) == first
    harness.mine()
    second = await harness.chain.submitter.prepare(certificate, [first])
    assert second.nonce == first.nonce
    assert second.tx_id != first.tx_id
    assert second.max_fee * 10 >= first.max_fee * 11
    harness.mine()
    with pytest.raises(Unavailable) as caught:
        await harness.chain.submitter.send(first)
    assert caught.value.reason == "stale"
    assert caught.value.reason in PREPARE_AGAIN
    assert await harness.chain.submitter.send(second) == second.tx_id
    harness.mine()
    assert await harness.chain.submitter.outcome(second) is Outcome.INCLUDED
    assert await harness.chain.submitter.outcome(first) is Outcome.UNKNOWN


async def test_fees_of_replacements_never_pass_the_cap(harness):
    chain = harness.make_chain(max_gas_price="0.026utoken")
    stored = []
    for _ in range(4):
        certificate = harness.certify(1, HEARTBEAT)
        stored.append(await chain.submitter.prepare(certificate, stored))
        harness.network.mine(TIMEOUT_BLOCKS)
    parts = [decode_signed(signed.raw) for signed in stored]
    assert len({signed.tx_id for signed in stored}) == 4
    assert all(Fraction(part.fee - 1, part.gas) <= Fraction(26, 1000) for part in parts)
    assert parts[1].fee > parts[0].fee


async def test_a_new_packet_takes_the_number_after_what_is_stored_and_after_what_is_in_the_pool(harness):
    first = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    harness.network.transact(harness.submit_key, harness.vault, {"register_denom": {"denom": "uother"}})
    again = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    assert (first.nonce, again.nonce) == (0, 1)
    elsewhere = replace(first, packet_sequence=7)
    assert (await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [elsewhere])).nonce == 1


async def test_a_number_that_another_instance_used_is_chosen_anew(harness):
    certificate = harness.certify(1, HEARTBEAT)
    first = await harness.chain.submitter.prepare(certificate, [])
    harness.network.transact(harness.submit_key, harness.vault, {"register_denom": {"denom": "uother"}})
    assert await harness.chain.submitter.send(first) == first.tx_id  # its number is used: the outcome shows by what
    harness.mine()
    assert await harness.chain.submitter.outcome(first) is Outcome.UNKNOWN
    second = await harness.chain.submitter.prepare(certificate, [first])
    assert second.nonce == 1
    await harness.chain.submitter.send(second)
    harness.mine()
    assert await harness.chain.submitter.outcome(second) is Outcome.INCLUDED


async def test_a_number_that_leaves_a_gap_is_told(harness):
    boasted = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    stored = replace(boasted, packet_sequence=9)
    signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [stored])
    with pytest.raises(Unavailable) as caught:
        await harness.chain.submitter.send(signed)
    assert caught.value.reason == "stale"


@pytest.mark.parametrize("number", [2**64 - 1, 2**64, 10**20 - 1])
async def test_a_number_that_no_account_has_is_that_endpoints_lie_and_stops_nothing(harness, monkeypatch, number):
    rpc = harness.network.endpoints[0].rpc
    honest = rpc.call

    async def call(method, params):
        answer = await honest(method, params)
        if method == "abci_query" and params["path"].endswith("/Simulate"):
            log = f"account sequence mismatch, expected {number}, got 0: incorrect account sequence"
            return {"response": {**answer["response"], "code": 32, "log": log}}
        return answer

    monkeypatch.setattr(rpc, "call", call)
    certificate = harness.certify(1, HEARTBEAT)
    signed = await harness.chain.submitter.prepare(certificate, [])
    assert signed.nonce == 0
    harness.network.endpoints[1].lies.down = True
    with pytest.raises(Unavailable) as caught:
        await harness.chain.submitter.prepare(certificate, [])
    assert caught.value.reason == "no_endpoint"


async def test_who_names_another_account_number_is_outvoted_or_has_its_turn(harness, monkeypatch):
    true_ask = harness.chain.submitter._get_account

    async def ask(source):
        account = await true_ask(source)
        return replace(account, number=account.number + 5) if source == harness.get_source(0) else account

    monkeypatch.setattr(harness.chain.submitter, "_get_account", ask)
    stored = []
    for _ in range(2):
        signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), stored)
        stored.append(signed)
        try:
            await harness.chain.submitter.send(signed)
            break
        except Rejected as error:
            assert error.reason == "refused"  # noqa: PT017  the wrong number makes the signature one of another account
            harness.network.mine(TIMEOUT_BLOCKS)
    assert len(stored) == 2
    harness.mine()
    assert await harness.chain.submitter.outcome(stored[-1]) is Outcome.INCLUDED


# ---- refusals ---------------------------------------------------------------------------------------------------------


async def test_a_packet_that_another_carried_is_out_of_turn(harness):
    certificate = harness.certify(1, HEARTBEAT)
    await harness.chain.submitter.send(await harness.chain.submitter.prepare(certificate, []))
    harness.finalize()
    with pytest.raises(Rejected) as caught:
        await harness.chain.submitter.prepare(certificate, [])
    assert caught.value.reason == OUT_OF_TURN
    assert [type(body) for body in await get_facts(harness)] == [Ack]


async def test_an_endpoint_that_lags_does_not_hide_what_another_can_simulate(harness):
    harness.network.endpoints[0].lies.stall_height = 5
    signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    assert await harness.chain.submitter.send(signed) == signed.tx_id
    harness.mine()
    assert await harness.chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_an_account_without_money_is_told(harness):
    harness.submit_key = hashlib.sha256(b"poor").digest()
    chain = harness.make_chain()
    with pytest.raises(Unavailable) as caught:
        await chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    assert caught.value.reason == "insufficient_funds"


async def test_nodes_that_ask_for_more_than_the_operator_allows_are_waited_for(harness):
    dear = harness.make_chain(gas_price="0.001utoken", max_gas_price="0.002utoken")
    with pytest.raises(Unavailable) as caught:
        await dear.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    assert caught.value.reason == "fee_cap"
    cheap = harness.make_chain(gas_price="0.001utoken", max_gas_price="1utoken")
    signed = await cheap.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    assert await cheap.submitter.send(signed) == signed.tx_id


async def test_a_fee_below_what_a_node_asks_for_is_told(harness, monkeypatch):
    chain = harness.make_chain(gas_price="0.001utoken", max_gas_price="1utoken")

    async def get_price():
        return parse_gas_price("0.001utoken")

    monkeypatch.setattr(chain.submitter, "_get_price", get_price)
    signed = await chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    with pytest.raises(Unavailable) as caught:
        await chain.submitter.send(signed)
    assert caught.value.reason == "underpriced"
    monkeypatch.undo()
    better = await chain.submitter.prepare(harness.certify(1, HEARTBEAT), [signed])
    assert better.nonce == signed.nonce
    assert await chain.submitter.send(better) == better.tx_id


async def test_a_pause_goes_the_same_way(harness):
    config = make_cosmos_sim_config(harness.network, harness.vault)
    probe = build_probe(config, harness.submit_key, {config.chain_id: harness.network})
    digest = compute_pause_digest(harness.chain.vault_id, 0)
    signed = await probe.prepare_pause(sign_digest(OPERATOR_KEYS[1], digest))
    await probe.submitter.send(signed)
    harness.finalize()
    assert (await probe.get_control(probe.sources[0])).paused
    assert [type(body) for body in await get_facts(harness)] == [Paused]
    with pytest.raises(Rejected) as caught:
        await probe.prepare_pause(sign_digest(bytes([9]) * 32, digest))
    assert caught.value.reason.startswith("revert_")


async def test_a_source_that_forgets_what_it_took_does_not_stop_the_other(harness):
    harness.network.endpoints[0].lies.drop_sent = True
    signed = await harness.chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
    await harness.chain.submitter.send(signed)
    assert await harness.chain.submitter.outcome(signed) is Outcome.PENDING
    harness.network.endpoints[1].lies.down = True
    assert await harness.chain.submitter.outcome(signed) is Outcome.PENDING
    harness.mine()
    assert await harness.chain.submitter.outcome(signed) is Outcome.INCLUDED


async def test_a_transaction_that_fails_in_its_block_has_failed(harness):
    """Two carriers at once: both simulate well, and one comes second."""
    certificate = harness.certify(1, HEARTBEAT)
    mine = await harness.chain.submitter.prepare(certificate, [])
    other = harness.network.make_key("another operator")
    harness.network.transact(other, harness.vault, make_recv(certificate))
    await harness.chain.submitter.send(mine)
    harness.mine()
    assert await harness.chain.submitter.outcome(mine) is Outcome.FAILED


# ---- words and prices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "word"),
    [
        (SIMULATION_REFUSED, "sequence"),
        ("failed to execute message; message index: 0: Timeout is past: execute wasm contract failed", "timeout"),
        ("failed to execute message; message index: 0: : execute wasm contract failed", "failed"),
        ("failed to execute message; message index: 0: no such contract", None),
        ("account sequence mismatch, expected 1, got 0: incorrect account sequence", None),
        ("", None),
    ],
)
def test_the_word_of_the_vault_is_read_and_nothing_else_is_taken_for_it(log, word):
    assert get_contract_word(log) == word


def test_prices_are_exact_and_rounded_up():
    price = parse_gas_price("0.025utoken")
    assert (price.amount, price.denom, str(price)) == (Fraction(1, 40), "utoken", "0.025utoken")
    assert [price.get_fee(gas) for gas in (0, 1, 40, 41)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "text", ["", "utoken", "1", "-1utoken", "\u0661utoken", "0.1 utoken", "1.utoken", "1u" + "x" * 200]
)
def test_what_is_no_price_is_refused(text):
    with pytest.raises(Rejected):
        parse_gas_price(text)


def test_a_policy_has_one_denomination_and_a_cap_above_its_price():
    one, two = GasPrice(Fraction(1), "utoken"), GasPrice(Fraction(2), "utoken")
    GasPolicy(one, two)
    for wrong in ((two, one), (one, GasPrice(Fraction(2), "uother"))):
        with pytest.raises(Rejected):
            GasPolicy(*wrong)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_whatever_a_node_says_it_asks_for_is_a_price_or_nothing(text):
    assert parse_minimum_price(text, "utoken") >= 0
    assert parse_minimum_price("1.5uother,0.25utoken", "utoken") == Fraction(1, 4)
    assert parse_minimum_price("9" * 5000 + "utoken", "utoken") == 0


def test_bytes_that_are_no_transaction_are_refused():
    with pytest.raises(Rejected):
        decode_signed(b"\xff\xff")
