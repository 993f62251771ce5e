"""The simulated Cosmos chain: what it shows is what a light client can check, what it does is what wasmd does."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import pytest
from cosmpy.protos.cosmos.auth.v1beta1.auth_pb2 import BaseAccount
from cosmpy.protos.cosmos.auth.v1beta1.query_pb2 import QueryAccountRequest, QueryAccountResponse
from cosmpy.protos.cosmos.bank.v1beta1.query_pb2 import QueryBalanceRequest, QueryBalanceResponse
from cosmpy.protos.cosmos.bank.v1beta1.tx_pb2 import MsgSend
from cosmpy.protos.cosmos.base.node.v1beta1.query_pb2 import ConfigResponse
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.tx.v1beta1.service_pb2 import SimulateRequest, SimulateResponse
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import TxRaw
from cosmpy.protos.cosmwasm.wasm.v1 import query_pb2
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgExecuteContract

from chains.cosmos import light_client as lc
from chains.cosmos import sim_chain
from chains.cosmos.address import encode_address
from chains.cosmos.codec import parse_light_block, parse_proof
from chains.cosmos.evidence import find_misbehaviour, verify_misbehaviour
from chains.cosmos.hashing import compute_merkle_root
from chains.cosmos.proofs import compute_contract_key, verify_store_absence, verify_store_value
from chains.cosmos.protobuf import encode_commit_sig
from chains.cosmos.sim import ManualClock, SimCosmos
from chains.cosmos.sim_chain import compute_contract_address
from chains.cosmos.transport import RpcError
from chains.cosmos.types import NANOSECONDS
from messages.errors import Rejected
from tests.chains.cosmos_wat import get_asker, get_puppet, make_wat

START = 1_800_000_000
CONFIG = lc.LightClientConfig("sim-1")


@pytest.fixture
def chain():
    made = SimCosmos("sim-1", ManualClock(START))
    made.make_key("user")
    made.mine()
    return made


@pytest.fixture
def key(chain):
    return chain.make_key("user")


@pytest.fixture
def puppet(chain, key):
    return chain.deploy(get_puppet(), {}, key)


def get_now_ns(chain):
    return chain.clock() * NANOSECONDS


def follow(chain, trusted, height):
    """The trusted state at a height, by bisection."""
    steps = lc.drive(
        lc.walk(trusted, height, get_now_ns(chain), CONFIG), lambda at: chain.comet.blocks[at - 1].light_block
    )
    return steps[-1][1], len(steps)


def bootstrap(chain):
    header_hash, height = chain.get_checkpoint()
    return lc.verify_bootstrap(chain.head.light_block, height, header_hash, get_now_ns(chain), CONFIG)


async def ask(chain, method, index=0, **params):
    return await chain.endpoints[index].rpc.call(method, params)


async def query(chain, path, data=b"", height=0, **params):
    answer = await ask(chain, "abci_query", path=path, data=data.hex(), height=str(height), **params)
    return answer["response"]


def play(messages=(), **answer):
    """What a puppet is told in order to answer so."""
    return {"ok": {"messages": list(messages), "attributes": [], "events": [], "data": None} | answer}


def make_sub(msg, reply_on="never", number=1, **more):
    return {"id": number, "payload": "", "msg": msg, "gas_limit": None, "reply_on": reply_on} | more


def make_execute(chain, contract, msg, funds=()):
    told = base64.b64encode(json.dumps(msg).encode()).decode()
    coins = [{"denom": denom, "amount": str(amount)} for denom, amount in funds]
    return {"wasm": {"execute": {"contract_addr": chain.app.encode(contract), "msg": told, "funds": coins}}}


def make_send(chain, target, amount, denom="utoken"):
    coins = [{"denom": denom, "amount": str(amount)}]
    return {"bank": {"send": {"to_address": chain.app.encode(target), "amount": coins}}}


def run(chain, key, contract, msg, funds=(), **options):
    """The result of a call, in a block of its own."""
    sent = chain.transact(key, contract, msg, funds, **options)
    chain.mine()
    return chain.get_result(sent)


def read_raw(chain, contract, name):
    return chain.app.trees[b"wasm"].get(b"\x03" + contract + name)


def get_kinds(result):
    return [kind for kind, _ in result.events if kind.startswith(("wasm", "execute", "reply", "instantiate"))]


# ---- time and blocks --------------------------------------------------------------------------------------------------


def test_a_transaction_lands_in_the_next_block_and_its_state_is_under_the_header_after_it(chain, key, puppet):
    height = chain.height
    sent = chain.transact(key, puppet, play())
    assert chain.get_result(sent) is None
    chain.clock.advance(4)
    assert chain.get_result(sent) is None
    chain.clock.advance(1)
    assert chain.get_result(sent).code == 0
    assert chain.get_place(sent) == (height + 1, 0)
    chain.finalize()
    header = chain.comet.blocks[height + 1].header
    assert header.app_hash == chain.app_hashes[height]
    assert header.app_hash != chain.comet.blocks[height].header.app_hash


def test_weeks_without_anything_are_one_block_and_a_busy_second_is_followed_by_its_proof(chain, key, puppet):
    height = chain.height
    chain.transact(key, puppet, play())
    chain.clock.advance(30 * 86_400)
    chain.tick()
    # the block with the transaction, the one with its hash, the newest
    assert chain.height == height + 3
    times = [block.header.time_ns // NANOSECONDS for block in chain.comet.blocks[-3:]]
    assert times[1] == times[0] + chain.block_s
    assert times[2] == chain.clock() // chain.block_s * chain.block_s


def test_the_same_calls_at_the_same_times_give_the_same_chain():
    def live():
        chain = SimCosmos("sim-1", ManualClock(START))
        key = chain.make_key("user")
        chain.mine()
        contract = chain.deploy(get_puppet(), {}, key)
        run(chain, key, contract, play(), [("utoken", 5)])
        chain.set_validators({"v0": 1, "v7": 2})
        chain.mine(4)
        return chain.head.hash

    assert live() == live()
    assert SimCosmos("sim-2", ManualClock(START)).head.hash != SimCosmos("sim-1", ManualClock(START)).head.hash


def test_a_halted_chain_makes_no_block_until_it_is_resumed(chain, key, puppet):
    chain.halt()
    sent = chain.transact(key, puppet, play())
    height = chain.height
    chain.clock.advance(3600)
    assert chain.get_result(sent) is None
    assert chain.height == height
    chain.resume()
    assert chain.get_result(sent).code == 0
    assert chain.comet.blocks[height].header.time_ns >= (chain.clock() - chain.block_s) * NANOSECONDS


def test_another_clock_is_not_moved_from_here():
    chain = SimCosmos("sim-1", lambda: float(START))
    with pytest.raises(TypeError, match="ManualClock"):
        chain.mine()


# ---- consensus --------------------------------------------------------------------------------------------------------


def test_a_light_client_follows_over_a_gap_of_days_and_refuses_beyond_its_trusting_period(chain):
    trusted = bootstrap(chain)
    chain.clock.advance(6 * 86_400)
    chain.tick()
    trusted, steps = follow(chain, trusted, chain.height)
    assert (trusted.height, steps) == (chain.height, 1)
    chain.clock.advance(8 * 86_400)
    chain.tick()
    with pytest.raises(Rejected) as caught:
        follow(chain, trusted, chain.height)
    assert caught.value.reason == "expired"


def test_every_header_names_what_came_before_it_and_what_is_in_it(chain, key, puppet):
    run(chain, key, puppet, play())
    chain.finalize()
    for before, block in zip(chain.comet.blocks, chain.comet.blocks[1:], strict=False):
        header = block.header
        assert header.last_block_id == before.commit.block_id
        assert header.last_commit_hash == compute_merkle_root([encode_commit_sig(v) for v in before.commit.signatures])
        assert header.data_hash == compute_merkle_root([sha256(raw).digest() for raw in block.transactions])
        assert header.app_hash == chain.app_hashes[before.height - 1]
        assert header.validators_hash == before.header.next_validators_hash
        assert header.time_ns > before.header.time_ns
        block_ = block.light_block
        lc.verify_two_thirds(lc.verify_block(block_, CONFIG), block_)


def test_new_validators_are_announced_one_header_before_they_sign(chain):
    trusted = bootstrap(chain)
    old = chain.head.header.validators_hash
    chain.set_validators({"v3": 10, "n1": 50, "n2": 50, "n3": 50})
    first = chain.mine()
    second = chain.mine()
    third = chain.mine()
    assert first.header.next_validators_hash == old
    assert second.header.validators_hash == old
    assert second.header.next_validators_hash == third.header.validators_hash != old
    with pytest.raises(Rejected) as caught:
        lc.verify_update(trusted, third.light_block, get_now_ns(chain), CONFIG)
    assert caught.value.reason == "not_enough_trust"
    trusted, steps = follow(chain, trusted, chain.height)
    assert steps > 1
    assert trusted.validators_hash == third.header.validators_hash


def test_validators_that_are_away_leave_a_hole_in_the_commit(chain):
    chain.comet.absent = frozenset({"v3"})
    block = chain.mine().light_block
    assert [int(vote.flag) for vote in block.commit.signatures].count(1) == 1
    lc.verify_two_thirds(lc.verify_block(block, CONFIG), block)
    chain.comet.absent = frozenset({"v0"})
    block = chain.mine().light_block
    with pytest.raises(Rejected) as caught:
        lc.verify_two_thirds(lc.verify_block(block, CONFIG), block)
    assert caught.value.reason == "too_few"


def test_a_fork_is_really_signed_and_is_proof_of_a_fault(chain):
    trusted = bootstrap(chain)
    chain.mine(2)
    first, second = (block.light_block for block in chain.fork())
    assert first.header.height == second.header.height
    for block in (first, second):
        lc.verify_update(trusted, block, get_now_ns(chain), CONFIG)
    found = find_misbehaviour(first, second)
    assert found is not None
    verify_misbehaviour(found, trusted, get_now_ns(chain), CONFIG)
    assert chain.head.light_block == first


def test_a_block_of_many_bytes_has_many_parts(chain, key):
    noise = "".join(sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(2000))
    contract = chain.deploy(get_puppet(), {}, key)
    run(chain, key, contract, play(data=base64.b64encode(noise.encode()).decode()), gas=50_000_000)
    assert chain.head.commit.block_id.parts.total == -(-chain.head.size // 65_536) > 1


# ---- state ------------------------------------------------------------------------------------------------------------


async def prove(chain, key, height):
    answer = await query(chain, "/store/wasm/key", key, height, prove=True)
    assert answer["height"] == str(height)
    return answer["value"] and base64.b64decode(answer["value"]), parse_proof(answer["proofOps"])


async def test_a_contract_s_value_is_proven_under_the_next_header_and_another_is_not(chain, key, puppet):
    run(chain, key, puppet, play())
    chain.finalize()
    header = chain.head.header
    name = compute_contract_key(puppet, b"last")
    value, proof = await prove(chain, name, header.height - 1)
    assert json.loads(value) == play()
    verify_store_value(header.app_hash, proof, b"wasm", name, value)
    before = chain.comet.blocks[0].header.app_hash
    for app_hash, told in ((header.app_hash, value + b" "), (before, value)):
        with pytest.raises(Rejected):
            verify_store_value(app_hash, proof, b"wasm", name, told)


async def test_an_absent_value_is_proven_absent_and_a_present_one_is_not(chain, key, puppet):
    run(chain, key, puppet, play())
    chain.finalize()
    header = chain.head.header
    name = compute_contract_key(puppet, b"nothing")
    value, proof = await prove(chain, name, header.height - 1)
    assert value is None
    verify_store_absence(header.app_hash, proof, b"wasm", name)
    there = compute_contract_key(puppet, b"last")
    value, proof = await prove(chain, there, header.height - 1)
    with pytest.raises(Rejected):
        verify_store_absence(header.app_hash, proof, b"wasm", there)


async def test_old_states_stay_readable(chain, key, puppet):
    name = compute_contract_key(puppet, b"last")
    heights = {}
    for number in range(3):
        run(chain, key, puppet, play(data=base64.b64encode(bytes([number])).decode()))
        heights[chain.height] = number
    chain.finalize()
    for height, number in heights.items():
        value, proof = await prove(chain, name, height)
        assert base64.b64decode(json.loads(value)["ok"]["data"]) == bytes([number])
        verify_store_value(chain.comet.blocks[height].header.app_hash, proof, b"wasm", name, value)


# ---- transactions -----------------------------------------------------------------------------------------------------


def make_message(chain, key, contract, msg=None):
    return MsgExecuteContract(
        sender=chain.get_address(key),
        contract=chain.app.encode(contract),
        msg=json.dumps(play() if msg is None else msg).encode(),
    )


def check(chain, raw):
    return chain.send_raw(raw)[1]


def test_a_wrong_number_fee_or_signature_is_refused_in_the_chain_s_words(chain, key, puppet):
    message = make_message(chain, key, puppet)
    sequence = chain.app.get_account(chain.get_check_context(), chain.get_address_bytes(key)).sequence
    refused = [
        (chain.sign(key, message, sequence=sequence + 1), 32),
        (chain.sign(key, message, fee=()), 13),
        (chain.sign(key, message, fee=(("utoken", 74_999),)), 13),
        (chain.sign(key, message, fee=(("utoken", 10**30),)), 5),
        (chain.sign(key, message, gas=0, fee=()), 11),
        (chain.sign(key, message, timeout_height=chain.height - 1), 30),
        (chain.sign(key, message)[:-2], 2),
        (b"\xff", 2),
    ]
    parts = TxRaw.FromString(chain.sign(key, message))
    forged = bytes([parts.signatures[0][0] ^ 1]) + parts.signatures[0][1:]
    refused.append(
        (
            TxRaw(
                body_bytes=parts.body_bytes, auth_info_bytes=parts.auth_info_bytes, signatures=[forged]
            ).SerializeToString(),
            4,
        )
    )
    for raw, code in refused:
        result = check(chain, raw)
        assert (result.code, result.codespace) == (code, "sdk"), result.log
    assert (
        f"account sequence mismatch, expected {sequence}, got {sequence + 1}: incorrect account sequence"
        in check(chain, refused[0][0]).log
    )
    assert (
        "insufficient fees; got: 74999utoken required: 75000utoken: insufficient fee" in check(chain, refused[2][0]).log
    )
    assert not chain.pool
    assert check(chain, chain.sign(key, message, timeout_height=chain.height)).code == 0


def test_a_signature_for_another_chain_or_by_another_key_is_refused(chain, key, puppet):
    other = SimCosmos("sim-2", ManualClock(START))
    other.make_key("user")
    message = make_message(chain, key, puppet)
    other.mint("utoken", chain.get_address_bytes(key), 10**9)
    sequence = chain.app.get_account(chain.get_check_context(), chain.get_address_bytes(key)).sequence
    assert check(chain, other.sign(key, message, sequence=sequence)).code == 4
    thief = chain.make_key("thief")
    assert check(chain, chain.sign(thief, message, sequence=sequence)).code == 8


def test_an_account_that_owns_nothing_is_unknown(chain, puppet):
    stranger = sha256(b"stranger").digest()
    with pytest.raises(Rejected) as caught:
        chain.transact(stranger, puppet, play())
    assert caught.value.reason == "no_account"
    chain.mint("utoken", chain.get_address_bytes(stranger), 10**6)
    chain.transact(stranger, puppet, play())


async def test_several_transactions_of_one_account_wait_in_the_pool_in_order(chain, key, puppet):
    sent = [chain.transact(key, puppet, play()) for _ in range(3)]
    pool = await ask(chain, "unconfirmed_txs", limit="2")
    assert (pool["n_txs"], pool["total"], len(pool["txs"])) == ("2", "3", 2)
    with pytest.raises(RpcError, match="tx already exists in cache"):
        await ask(chain, "broadcast_tx_sync", tx=pool["txs"][0])
    chain.mine()
    assert [chain.get_place(name) for name in sent] == [(chain.height, index) for index in range(3)]
    assert {chain.get_result(name).code for name in sent} == {0}
    assert (await ask(chain, "num_unconfirmed_txs"))["total"] == "0"


def test_what_waits_too_long_leaves_the_pool(chain, key, puppet):
    raw = chain.sign(key, make_message(chain, key, puppet), timeout_height=chain.height)
    name, result = chain.send_raw(raw)
    assert result.code == 0
    chain.mine()
    assert chain.get_result(name).code == 30
    late = chain.sign(key, make_message(chain, key, puppet), timeout_height=chain.height - 1)
    assert check(chain, late).code == 30


def test_a_failed_message_costs_its_fee_and_its_number_and_leaves_nothing_else(chain, key, puppet):
    before = chain.get_balance(chain.get_address(key))
    result = run(chain, key, puppet, {"error": "sequence 4 is not 3"}, [("utoken", 1000)])
    assert (result.code, result.codespace) == (5, "wasm")
    assert (
        result.log == "failed to execute message; message index: 0: sequence 4 is not 3: execute wasm contract failed"
    )
    assert before - chain.get_balance(chain.get_address(key)) == 75_000
    assert chain.get_balance(puppet) == 0
    assert read_raw(chain, puppet, b"last") is None
    assert [kind for kind, _ in result.events] == [
        "coin_spent",
        "coin_received",
        "transfer",
        "message",
        "tx",
        "tx",
        "tx",
    ]
    assert run(chain, key, puppet, play()).code == 0


def test_gas_that_runs_out_ends_the_transaction(chain, key, puppet):
    result = run(chain, key, puppet, play(), gas=60_000)
    assert (result.code, result.codespace) == (11, "sdk")
    assert "out of gas" in result.log
    assert result.gas_used > result.gas_wanted == 60_000
    enough = run(chain, key, puppet, play())
    assert 60_000 < enough.gas_used < enough.gas_wanted


def test_money_is_sent_and_not_twice(chain, key):
    target = bytes(range(20))
    message = MsgSend(
        from_address=chain.get_address(key),
        to_address=chain.app.encode(target),
        amount=[Coin(denom="utoken", amount="700")],
    )
    sent = chain.send(key, message)
    chain.mine()
    assert chain.get_result(sent).code == 0
    assert chain.get_balance(target) == 700
    message.amount[0].amount = str(10**12)
    sent = chain.send(key, message)
    chain.mine()
    result = chain.get_result(sent)
    assert (result.code, result.codespace) == (5, "sdk")
    assert "is smaller than 1000000000000utoken: insufficient funds" in result.log
    assert chain.get_balance(target) == 700


# ---- contracts --------------------------------------------------------------------------------------------------------


def test_addresses_of_contracts_are_those_of_wasmd():
    # the first contract of the first code of any chain has this address
    assert encode_address(compute_contract_address(1, 1), "cosmos") == (
        "cosmos14hj2tavq8fpesdwxxcu44rty3hh90vhujrvcmstl4zr3txmfvw9s4hmalr"
    )


def test_a_code_is_uploaded_once_and_instantiated_without_an_admin(chain, key, puppet):
    second = chain.deploy(get_puppet(), {}, key, "second")
    assert second == compute_contract_address(1, 2)
    info = chain.app.get_contract_info(chain.app.make_query_context(chain.height), second)
    assert (info.code_id, info.admin, info.label, info.creator) == (1, "", "second", chain.get_address(key))


def test_a_binary_that_is_no_contract_is_not_deployed(chain, key):
    with pytest.raises(Rejected) as caught:
        chain.deploy(b"\0asm\1\0\0\0", {}, key)
    assert caught.value.reason == "deployment"
    assert str(caught.value.got).endswith("create wasm contract failed")


def test_a_call_of_nothing_and_a_message_that_is_no_json_are_refused(chain, key, puppet):
    result = run(chain, key, bytes(32), {})
    assert (result.code, result.codespace) == (22, "wasm")
    message = make_message(chain, key, puppet)
    message.msg = b"{"
    sent = chain.send(key, message)
    chain.mine()
    assert (chain.get_result(sent).code, chain.get_result(sent).codespace) == (14, "wasm")


def test_events_have_the_contract_s_address_and_the_place_of_their_message(chain, key, puppet):
    told = play(
        attributes=[{"key": "action", "value": "play"}],
        events=[{"type": "optsettle_out", "attributes": [{"key": "sequence", "value": "1"}]}],
        data=base64.b64encode(b"answer").decode(),
    )
    result = run(chain, key, puppet, told)
    address = ("_contract_address", chain.app.encode(puppet))
    index = ("msg_index", "0")
    sender = ("sender", chain.get_address(key))
    assert result.events[-4:] == (
        ("message", (("action", "/cosmwasm.wasm.v1.MsgExecuteContract"), sender, ("module", "wasm"), index)),
        ("execute", (address, index)),
        ("wasm", (address, ("action", "play"), index)),
        ("wasm-optsettle_out", (address, ("sequence", "1"), index)),
    )
    assert b"answer" in result.data


@pytest.mark.parametrize(
    "answer",
    [
        {"attributes": [{"key": "_contract_address", "value": "forged"}]},
        {"attributes": [{"key": " ", "value": "x"}]},
        {"events": [{"type": "ab", "attributes": []}]},
    ],
)
def test_an_event_that_could_pass_for_another_is_refused(chain, key, puppet, answer):
    result = run(chain, key, puppet, play(**answer))
    assert (result.code, result.codespace) == (21, "wasm")


def test_funds_are_there_before_the_contract_runs_and_gone_again_when_it_fails(chain, key, puppet):
    assert run(chain, key, puppet, play([make_sub(make_send(chain, bytes(20), 30))]), [("utoken", 50)]).code == 0
    assert (chain.get_balance(puppet), chain.get_balance(bytes(20))) == (20, 30)
    assert run(chain, key, puppet, play([make_sub(make_send(chain, bytes(20), 30))])).code == 5
    assert (chain.get_balance(puppet), chain.get_balance(bytes(20))) == (20, 30)


def test_messages_run_depth_first(chain, key, puppet):
    others = [chain.deploy(get_puppet(), {}, key, f"p{i}") for i in range(3)]
    inner = make_sub(make_execute(chain, others[2], play()))
    told = play(
        [
            make_sub(make_execute(chain, others[0], play([inner]))),
            make_sub(make_execute(chain, others[1], play())),
        ]
    )
    result = run(chain, key, puppet, told)
    called = [dict(pairs)["_contract_address"] for kind, pairs in result.events if kind == "execute"]
    assert called == [chain.app.encode(contract) for contract in (puppet, others[0], others[2], others[1])]


def test_a_failed_message_without_a_reply_fails_everything(chain, key, puppet):
    other = chain.deploy(get_puppet(), {}, key, "other")
    for reply_on in ("never", "success"):
        told = play([make_sub(make_execute(chain, other, {"error": "no way"}), reply_on)])
        result = run(chain, key, puppet, told)
        assert result.code == 5
        assert result.log.endswith("no way: execute wasm contract failed")
        assert read_raw(chain, puppet, b"last") is None
        assert read_raw(chain, puppet, b"reply") is None


@pytest.mark.parametrize("reply_on", ["always", "error"])
def test_a_failed_message_with_a_reply_is_undone_alone_and_told(chain, key, puppet, reply_on):
    other = chain.deploy(get_puppet(), {}, key, "other")
    run(chain, key, puppet, play(), [("utoken", 100)])
    told = play(
        [make_sub(make_execute(chain, other, {"error": "no way"}, [("utoken", 40)]), reply_on, 9, payload="eHk=")]
    )
    assert run(chain, key, puppet, told).code == 0
    reply = json.loads(read_raw(chain, puppet, b"reply"))
    assert (reply["id"], reply["payload"]) == (9, "eHk=")
    assert reply["result"] == {"error": "no way: execute wasm contract failed"}
    assert read_raw(chain, other, b"last") is None
    assert (chain.get_balance(puppet), chain.get_balance(other)) == (100, 0)
    assert json.loads(read_raw(chain, puppet, b"last")) == told


def test_an_error_that_nodes_may_word_differently_is_told_as_a_code(chain, key, puppet):
    told = play([make_sub(make_send(chain, bytes(20), 30), "error")])
    assert run(chain, key, puppet, told).code == 0
    assert json.loads(read_raw(chain, puppet, b"reply"))["result"] == {"error": "codespace: sdk, code: 5"}
    # an error further in has been wrapped on its way
    other = chain.deploy(make_wat(execute="(unreachable)"), {}, key, "other")
    told = play([make_sub(make_execute(chain, other, {}), "always")])
    assert run(chain, key, puppet, told).code == 0
    assert json.loads(read_raw(chain, puppet, b"reply"))["result"] == {"error": "codespace: wasm, code: 29"}


def test_a_reply_on_success_tells_events_and_data_and_one_on_error_is_not_called(chain, key, puppet):
    other = chain.deploy(get_puppet(), {}, key, "other")
    answer = play(attributes=[{"key": "b", "value": "2"}, {"key": "a", "value": "1"}], data="eHk=")
    for reply_on, is_called in (("error", False), ("success", True)):
        told = play([make_sub(make_execute(chain, other, answer), reply_on)])
        result = run(chain, key, puppet, told)
        assert get_kinds(result) == ["execute", "execute", "wasm", *(["reply"] if is_called else [])]
        assert (read_raw(chain, puppet, b"reply") is not None) == is_called
    found = json.loads(read_raw(chain, puppet, b"reply"))["result"]["ok"]
    assert [event["type"] for event in found["events"]] == ["execute", "wasm"]
    assert [a["key"] for a in found["events"][1]["attributes"]] == ["_contract_address", "a", "b"]
    assert found["msg_responses"][0]["type_url"] == "/cosmwasm.wasm.v1.MsgExecuteContractResponse"
    assert b"xy" in base64.b64decode(found["data"])


def test_a_message_with_its_own_gas_limit_uses_no_more(chain, key, puppet):
    spinner = chain.deploy(make_wat(execute="(loop $l (br $l))"), {}, key, "spinner")
    told = play([make_sub(make_execute(chain, spinner, {}), "error", gas_limit=80_000)])
    result = run(chain, key, puppet, told)
    assert result.code == 0
    assert 80_000 < result.gas_used < 500_000
    assert json.loads(read_raw(chain, puppet, b"reply"))["result"] == {"error": "codespace: sdk, code: 11"}
    unlimited = play([make_sub(make_execute(chain, spinner, {}), "error")])
    assert run(chain, key, puppet, unlimited, gas=250_000).code == 11


def test_contracts_that_call_each_other_without_end_are_stopped(chain, key, puppet):
    looped = chain.deploy(
        make_wat(
            execute="(return (global.get $again))",
            regions={
                "again": json.dumps(play([make_sub(make_execute(chain, compute_contract_address(2, 2), {}))])).encode()
            },
        ),
        {},
        key,
        "loop",
    )
    assert looped == compute_contract_address(2, 2)
    result = run(chain, key, looped, {}, gas=90_000_000)
    assert (result.code, result.codespace) == (30, "wasm")


def test_a_contract_makes_another(chain, key, puppet):
    msg = base64.b64encode(b"{}").decode()
    made = {"wasm": {"instantiate": {"admin": None, "code_id": 1, "msg": msg, "funds": [], "label": "child"}}}
    result = run(chain, key, puppet, play([make_sub(made, "success")]))
    assert result.code == 0
    child = compute_contract_address(1, 2)
    info = chain.app.get_contract_info(chain.app.make_query_context(chain.height), child)
    assert (info.creator, info.label) == (chain.app.encode(puppet), "child")


def test_a_message_that_the_chain_has_not_is_refused(chain, key, puppet):
    result = run(chain, key, puppet, play([make_sub({"staking": {"delegate": {}}})]))
    assert (result.code, result.codespace) == (20, "wasm")


def ask_from_contract(chain, key, request):
    """What the chain answers a contract."""
    asker = chain.deploy(get_asker(), {}, key, "asker")
    assert run(chain, key, asker, request).code == 0
    answer = json.loads(read_raw(chain, asker, b"answer"))
    if "ok" not in answer or "ok" not in answer["ok"]:
        return answer
    found = base64.b64decode(answer["ok"]["ok"])
    return json.loads(found) if found[:1] == b"{" else found


def test_contracts_ask_the_bank_and_each_other(chain, key, puppet):
    run(chain, key, puppet, play(), [("utoken", 12)])
    address = chain.app.encode(puppet)
    bank = {"bank": {"balance": {"address": address, "denom": "utoken"}}}
    assert ask_from_contract(chain, key, bank) == {"amount": {"denom": "utoken", "amount": "12"}}
    every = {"bank": {"all_balances": {"address": address}}}
    assert ask_from_contract(chain, key, every) == {"amount": [{"denom": "utoken", "amount": "12"}]}
    raw = {"wasm": {"raw": {"contract_addr": address, "key": base64.b64encode(b"last").decode()}}}
    assert ask_from_contract(chain, key, raw) == play()
    info = {"wasm": {"contract_info": {"contract_addr": address}}}
    assert ask_from_contract(chain, key, info)["creator"] == chain.get_address(key)

    def make_smart(told, contract=address):
        return {
            "wasm": {"smart": {"contract_addr": contract, "msg": base64.b64encode(json.dumps(told).encode()).decode()}}
        }

    assert ask_from_contract(chain, key, make_smart({"ok": base64.b64encode(b"found").decode()})) == b"found"
    refused = ask_from_contract(chain, key, make_smart({"error": "not today"}))
    assert refused == {"ok": {"error": "not today: query wasm contract failed"}}
    nobody = chain.app.encode(bytes(32))
    assert ask_from_contract(chain, key, make_smart({}, nobody)) == {"error": {"no_such_contract": {"addr": nobody}}}
    assert ask_from_contract(chain, key, {"ibc": {}}) == {"error": {"unsupported_request": {"kind": "ibc"}}}


# ---- the door ---------------------------------------------------------------------------------------------------------


async def test_status_commit_and_validators_make_a_light_block(chain):
    trusted = bootstrap(chain)
    chain.mine(3)
    status = await ask(chain, "status")
    height = status["sync_info"]["latest_block_height"]
    assert (height, status["node_info"]["network"]) == (str(chain.height), "sim-1")
    commit = await ask(chain, "commit", height=height)
    assert commit["canonical"] is False
    assert (await ask(chain, "commit", height="2"))["canonical"] is True
    members = await ask(chain, "validators", height=height, page="1", per_page="100")
    assert (members["count"], members["total"], members["block_height"]) == ("4", "4", height)
    block = parse_light_block(commit["signed_header"], members["validators"])
    after = lc.verify_update(trusted, block, get_now_ns(chain), CONFIG)
    assert after.header_hash.hex().upper() == status["sync_info"]["latest_block_hash"]


async def test_validators_come_in_pages(chain):
    first = await ask(chain, "validators", page="1", per_page="3")
    second = await ask(chain, "validators", page="2", per_page="3")
    assert [page["count"] for page in (first, second)] == ["3", "1"]
    assert first["total"] == "4"
    with pytest.raises(RpcError, match=r"page should be within \[1, 2\] range, given 3"):
        await ask(chain, "validators", page="3", per_page="3")


async def test_what_is_not_there_is_an_error_in_the_node_s_words(chain):
    with pytest.raises(RpcError, match="must be less than or equal to the current blockchain height"):
        await ask(chain, "commit", height=str(chain.height + 1))
    with pytest.raises(RpcError, match="height must be greater than 0"):
        await ask(chain, "commit", height="0")
    with pytest.raises(RpcError, match=r"tx \(00.*\) not found"):
        await ask(chain, "tx", hash=base64.b64encode(bytes(32)).decode())
    with pytest.raises(RpcError) as caught:
        await ask(chain, "unsafe_flush_mempool")
    assert caught.value.code == -32601
    with pytest.raises(RpcError) as caught:
        await ask(chain, "commit", height="one")
    assert caught.value.code == -32602
    future = await query(chain, "/cosmos.base.node.v1beta1.Service/Config", height=chain.height + 1)
    assert (future["code"], future["codespace"]) == (26, "sdk")
    unproven = await query(chain, "/store/wasm/key", b"x", chain.height + 1, prove=True)
    assert (unproven["code"], unproven["codespace"]) == (7, "store")
    assert (await query(chain, "/store/wasm/key", b"x", 1, prove=True))["code"] == 18
    assert (await query(chain, "/nothing"))["code"] == 6


async def test_transactions_are_found_by_hash_and_by_event(chain, key, puppet):
    told = play(events=[{"type": "optsettle_out", "attributes": [{"key": "n", "value": "1"}]}])
    names = []
    for _ in range(3):
        names.append(chain.transact(key, puppet, told))
        chain.mine()
    run(chain, key, puppet, play())
    found = await ask(chain, "tx", hash=base64.b64encode(names[0]).decode(), prove=False)
    assert (found["hash"], found["index"], found["tx_result"]["code"]) == (names[0].hex().upper(), 0, 0)
    address = chain.app.encode(puppet)
    search = f"wasm-optsettle_out._contract_address='{address}'"
    every = await ask(chain, "tx_search", query=search, order_by="asc")
    assert [tx["hash"] for tx in every["txs"]] == [name.hex().upper() for name in names]
    some = await ask(
        chain,
        "tx_search",
        query=f"{search} AND tx.height>={found['height']} AND tx.height<{int(found['height']) + 2}",
        page="1",
        per_page="1",
    )
    assert (some["total_count"], len(some["txs"])) == ("2", 1)
    other = await ask(chain, "tx_search", query="wasm-optsettle_out._contract_address='nobody'")
    assert other == {"txs": [], "total_count": "0"}
    results = await ask(chain, "block_results", height=found["height"])
    assert results["txs_results"][0]["events"] == found["tx_result"]["events"]
    block = await ask(chain, "block", height=found["height"])
    assert block["block"]["data"]["txs"] == [found["tx"]]
    with pytest.raises(RpcError, match="parse query"):
        await ask(chain, "tx_search", query="nonsense")


async def test_a_transaction_is_sent_through_the_door(chain, key, puppet):
    raw = chain.sign(key, make_message(chain, key, puppet))
    answer = await ask(chain, "broadcast_tx_sync", tx=base64.b64encode(raw).decode())
    assert (answer["code"], answer["hash"]) == (0, sha256(raw).hexdigest().upper())
    chain.mine()
    assert chain.get_result(sha256(raw).digest()).code == 0
    again = await ask(
        chain,
        "broadcast_tx_sync",
        tx=base64.b64encode(chain.sign(key, make_message(chain, key, puppet), sequence=0)).decode(),
    )
    assert again["code"] == 32


async def test_the_application_answers_its_queries(chain, key, puppet):
    address = chain.get_address(key)

    async def get(path, request, answer):
        found = await query(chain, path, request.SerializeToString())
        assert found["code"] == 0, found["log"]
        return answer.FromString(base64.b64decode(found["value"]))

    found = await get("/cosmos.auth.v1beta1.Query/Account", QueryAccountRequest(address=address), QueryAccountResponse)
    account = BaseAccount()
    assert found.account.Unpack(account)
    assert (account.address, account.sequence) == (address, 2)
    found = await get(
        "/cosmos.bank.v1beta1.Query/Balance", QueryBalanceRequest(address=address, denom="utoken"), QueryBalanceResponse
    )
    assert int(found.balance.amount) == chain.get_balance(address)
    wasm = "/cosmwasm.wasm.v1.Query/"
    contract = chain.app.encode(puppet)
    request = query_pb2.QuerySmartContractStateRequest(address=contract, query_data=b'{"ok":"e30="}')
    assert (await get(wasm + "SmartContractState", request, query_pb2.QuerySmartContractStateResponse)).data == b"{}"
    run(chain, key, puppet, play())
    request = query_pb2.QueryRawContractStateRequest(address=contract, query_data=b"last")
    assert (
        json.loads((await get(wasm + "RawContractState", request, query_pb2.QueryRawContractStateResponse)).data)
        == play()
    )
    request = query_pb2.QueryContractInfoRequest(address=contract)
    assert (await get(wasm + "ContractInfo", request, query_pb2.QueryContractInfoResponse)).contract_info.code_id == 1
    found = await get(wasm + "Code", query_pb2.QueryCodeRequest(code_id=1), query_pb2.QueryCodeResponse)
    assert (found.data, found.code_info.data_hash) == (get_puppet(), sha256(get_puppet()).digest())
    config = await query(chain, "/cosmos.base.node.v1beta1.Service/Config")
    assert (
        ConfigResponse.FromString(base64.b64decode(config["value"])).minimum_gas_price == "0.025000000000000000utoken"
    )


async def test_queries_that_fail_say_why(chain, key, puppet, monkeypatch):
    nobody = encode_address(bytes(20), "wasm")
    found = await query(
        chain, "/cosmos.auth.v1beta1.Query/Account", QueryAccountRequest(address=nobody).SerializeToString()
    )
    assert found["code"] == 22
    assert "not found: key not found" in found["log"]
    contract = chain.app.encode(puppet)
    request = query_pb2.QuerySmartContractStateRequest(address=contract, query_data=b'{"error":"unknown asset"}')
    found = await query(chain, "/cosmwasm.wasm.v1.Query/SmartContractState", request.SerializeToString())
    assert found["code"] == 6
    assert "unknown asset: query wasm contract failed" in found["log"]
    monkeypatch.setattr(sim_chain, "QUERY_GAS", 100_000)  # the real limit takes seconds to use up
    spinner = chain.deploy(make_wat(query="(loop $l (br $l))"), {}, key, "spinner")
    request = query_pb2.QuerySmartContractStateRequest(address=chain.app.encode(spinner), query_data=b"{}")
    found = await query(chain, "/cosmwasm.wasm.v1.Query/SmartContractState", request.SerializeToString())
    assert (found["code"], found["value"]) == (11, None)


async def test_a_simulation_tells_the_gas_and_changes_nothing(chain, key, puppet):
    message = make_message(chain, key, puppet)

    async def simulate(raw):
        return await query(
            chain, "/cosmos.tx.v1beta1.Service/Simulate", SimulateRequest(tx_bytes=raw).SerializeToString()
        )

    answer = await simulate(chain.sign(key, message, gas=0, fee=()))
    told = SimulateResponse.FromString(base64.b64decode(answer["value"])).gas_info.gas_used
    assert read_raw(chain, puppet, b"last") is None
    used = run(chain, key, puppet, play()).gas_used
    assert abs(told - used) < 20_000
    failing = await simulate(chain.sign(key, make_message(chain, key, puppet, {"error": "sequence 1"}), gas=0, fee=()))
    assert failing["code"] == 6
    assert "message index: 0: sequence 1: execute wasm contract failed" in failing["log"]
    chain.transact(key, puppet, play())
    late = await simulate(chain.sign(key, message, gas=0, fee=(), sequence=0))
    assert "account sequence mismatch, expected 4, got 0" in late["log"]


# ---- lies -------------------------------------------------------------------------------------------------------------


async def get_newest(chain, index):
    height = (await ask(chain, "status", index))["sync_info"]["latest_block_height"]
    commit = await ask(chain, "commit", index, height=height)
    members = await ask(chain, "validators", index, height=height)
    return parse_light_block(commit["signed_header"], members["validators"])


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"forge_signature": True}, "bad_signature"),
        ({"too_few": True}, "too_few"),
        ({"clock_ahead_s": 3600}, "future"),
        ({"forge_state": True}, "wrong_commit"),
    ],
)
async def test_a_forged_header_is_refused_for_its_own_reason_and_the_honest_door_is_not(chain, lie, reason):
    trusted = bootstrap(chain)
    chain.mine(2)
    vars(chain.endpoints[0].lies).update(lie)
    with pytest.raises(Rejected) as caught:
        lc.verify_update(trusted, await get_newest(chain, 0), get_now_ns(chain), CONFIG)
    assert caught.value.reason == reason
    assert lc.verify_update(trusted, await get_newest(chain, 1), get_now_ns(chain), CONFIG).height == chain.height


async def test_an_equivocating_door_shows_another_signed_header(chain):
    trusted = bootstrap(chain)
    chain.mine(2)
    chain.endpoints[0].lies.equivocate = True
    blocks = [await get_newest(chain, index) for index in (0, 1)]
    assert blocks[0].header.app_hash != blocks[1].header.app_hash
    for block in blocks:
        lc.verify_update(trusted, block, get_now_ns(chain), CONFIG)


async def test_a_stalled_door_knows_nothing_newer(chain, key, puppet):
    chain.endpoints[0].lies.stall_height = 3
    status = await ask(chain, "status")
    assert status["sync_info"]["latest_block_height"] == "3"
    with pytest.raises(RpcError):
        await ask(chain, "commit", height="4")
    sent = chain.transact(key, puppet, play())
    chain.mine()
    with pytest.raises(RpcError, match="not found"):
        await ask(chain, "tx", hash=base64.b64encode(sent).decode())
    assert (await ask(chain, "tx", 1, hash=base64.b64encode(sent).decode()))["hash"] == sent.hex().upper()


async def test_doors_that_are_closed_busy_or_of_another_chain(chain):
    lies = chain.endpoints[0].lies
    lies.down = True
    with pytest.raises(ConnectionRefusedError):
        await ask(chain, "status")
    lies.down, lies.chain_id = False, "sim-9"
    assert (await ask(chain, "status"))["node_info"]["network"] == "sim-9"
    lies.no_index = True
    with pytest.raises(RpcError, match="transaction indexing is disabled"):
        await ask(chain, "tx_search", query="tx.height>=1")


async def test_a_door_that_forgets_what_it_is_sent(chain, key, puppet):
    chain.endpoints[0].lies.drop_sent = True
    raw = chain.sign(key, make_message(chain, key, puppet))
    answer = await ask(chain, "broadcast_tx_sync", tx=base64.b64encode(raw).decode())
    assert answer["code"] == 0
    assert not chain.pool
    assert (await ask(chain, "broadcast_tx_sync", 1, tx=base64.b64encode(raw).decode()))["hash"] == answer["hash"]
    assert len(chain.pool) == 1


async def test_withheld_and_forged_events(chain, key, puppet):
    value = base64.b64encode(bytes(31) + b"\7").decode()
    told = play(events=[{"type": "optsettle_out", "attributes": [{"key": "value", "value": value}]}])
    for _ in range(3):
        run(chain, key, puppet, told)
    search = f"wasm-optsettle_out._contract_address='{chain.app.encode(puppet)}'"

    async def get_values(**lie):
        vars(chain.endpoints[0].lies).update(lie)
        found = await ask(chain, "tx_search", query=search)
        events = [e for tx in found["txs"] for e in tx["tx_result"]["events"] if e["type"] == "wasm-optsettle_out"]
        return [base64.b64decode(a["value"])[-1] for e in events for a in e["attributes"] if a["key"] == "value"]

    assert await get_values() == [7, 7, 7]
    assert await get_values(drop_event_every=2) == [7, 7]
    assert await get_values(drop_event_every=0, forge_events=True) == [6, 6, 6]
    assert await get_values(drop_events=True) == []
