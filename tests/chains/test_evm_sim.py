"""The simulated network: is it what it says, real roots, real proofs, real signatures, and finality by the rule?"""

import pytest
import rlp
from eth_hash.auto import keccak
from web3 import AsyncWeb3

from chains.evm import proofs
from chains.evm.beacon_json import parse_bootstrap_json, parse_proof_json, parse_update_json, parse_updates_json
from chains.evm.codec import OUTBOX_TOPIC, encode_claim, encode_deposit
from chains.evm.forks import MINIMAL_PRESET, Fork
from chains.evm.light_client import LightClientConfig, verify_bootstrap, verify_update
from chains.evm.sim import ManualClock, SimNetwork
from chains.evm.sim_chain import GENESIS_BALANCE_WEI, SimChain
from chains.evm.sim_rpc import LogLimits
from chains.evm.transport import RpcError, call
from chains.evm.types import Proof
from messages.errors import Rejected
from tests.chains.harness_evm import EvmHarness

START = 1_800_000_000
EPOCH_S = 32 * 12
LIGHT_CLIENT = "/eth/v1/beacon/light_client/"


@pytest.fixture
def network():
    return SimNetwork(31337, ManualClock(START))


def beacon(network, path, index=0, **query):
    status, value = network.endpoints[index].beacon.handle(path, {k: str(v) for k, v in query.items()})
    assert status == 200, value
    return value


def make_client(network):
    root = network.get_checkpoint()
    found = parse_bootstrap_json(beacon(network, LIGHT_CLIENT + "bootstrap/0x" + root.hex()), network.schedule)
    config = LightClientConfig(network.schedule)
    return verify_bootstrap(found, root, config, network.clock()), config


# ---- blocks and time --------------------------------------------------------------------------------------------------


def test_a_transaction_lands_in_the_first_slot_after_it_was_sent(network):
    key = network.make_key("a")
    network.clock.advance(11)
    network.tick()
    assert len(network.chain.pool) == 1
    network.clock.advance(1)
    network.tick()
    assert not network.chain.pool
    assert network.chain.head.timestamp == START + 12
    assert network.get_slot() == network.chain.head.slot
    assert key == network.make_key("a")
    assert not network.chain.pool


def test_a_transaction_that_nobody_looked_at_landed_all_the_same(network):
    network.make_key("a")
    network.clock.advance(10 * 86_400)
    network.tick()
    (block,) = [b for b in network.chain.blocks if b.transactions]
    assert block.timestamp == START + 12


def test_the_same_story_gives_the_same_blocks():
    def tell():
        net = SimNetwork(31337, ManualClock(START))
        key = net.make_key("a")
        net.mine()
        net.transact(key, bytes([1]) * 20, b"", value=5)
        net.finalize()
        return net.chain.head.hash, net.beacon.head.root, len(net.chain.blocks)

    assert tell() == tell()
    assert (
        SimNetwork(31338, ManualClock(START)).chain.head.hash != SimNetwork(31337, ManualClock(START)).chain.head.hash
    )


def test_each_block_names_its_parents_on_both_layers(network):
    network.make_key("a")
    network.finalize()
    for parent, block in zip(network.chain.blocks, network.chain.blocks[1:], strict=False):
        assert block.header.parent_hash == parent.hash == keccak(rlp.encode(parent.header))
        assert block.timestamp == network.schedule.get_time(block.slot)
    for parent, made, block in zip(
        network.beacon.blocks, network.beacon.blocks[1:], network.chain.blocks[1:], strict=False
    ):
        assert made.parent_root == parent.root == block.header.parent_beacon_block_root
        assert bytes.fromhex(made.execution["block_hash"][2:]) == block.hash


def test_weeks_cost_a_few_blocks_and_every_period_has_its_update(network):
    network.clock.advance(14 * 86_400)
    network.tick()
    assert len(network.chain.blocks) < 40
    last = network.schedule.get_period(network.get_slot())
    updates = parse_updates_json(beacon(network, LIGHT_CLIENT + "updates", start_period=0, count=128), network.schedule)
    assert [network.schedule.get_period(u.attested.beacon.slot) for u in updates] == list(range(last + 1))
    for update in updates[:-1]:
        assert network.schedule.get_period(update.finalized.beacon.slot) == network.schedule.get_period(
            update.attested.beacon.slot
        )


# ---- finality ---------------------------------------------------------------------------------------------------------


def test_a_block_is_final_when_its_epoch_boundary_is_two_epochs_old(network):
    network.make_key("a")
    block = network.mine()
    final_at = network.get_finality_time(block)
    assert 2 * EPOCH_S < final_at - block.timestamp <= 3 * EPOCH_S + 12
    network.clock.advance(final_at - 12 - network.clock.now)
    assert network.get_finalized_block().number < block.number
    network.clock.advance(12)
    network.tick()
    assert network.get_finalized_block().number >= block.number


def test_finality_is_the_newest_block_at_or_before_the_boundary(network):
    for _ in range(100):
        network.mine()
    network.finalize()
    for block in network.beacon.blocks:
        finalized = network.beacon.get_block(block.finalized_root)
        if finalized is None:
            continue
        boundary = 32 * block.finalized_epoch
        assert block.finalized_epoch == block.slot // 32 - 2
        assert finalized.slot <= boundary
        assert not [b for b in network.beacon.blocks if finalized.slot < b.slot <= boundary]


def test_without_finality_nothing_moves_and_it_resumes_alone(network):
    """Incident F10: 48 hours without finality credit nothing; no forced update."""
    trusted, config = make_client(network)
    network.beacon.finality_stalled = True
    network.clock.advance(20 * 3600)
    before = network.get_finalized_block().number
    update = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update"), network.schedule)
    assert verify_update(trusted, update, network.clock(), config).finalized == trusted.finalized
    network.beacon.finality_stalled = False
    network.clock.advance(3 * EPOCH_S)
    network.tick()
    assert network.get_finalized_block().number > before
    update = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update"), network.schedule)
    after = verify_update(trusted, update, network.clock(), config)
    assert after.finalized.beacon.slot > trusted.finalized.beacon.slot


@pytest.mark.parametrize(("seats", "good"), [(342, True), (341, False), (1, False)])
def test_two_thirds_of_the_committee_must_sign_f9(network, seats, good):
    trusted, config = make_client(network)
    network.finalize()
    network.beacon.participation = seats
    network.mine()
    network.finalize()
    update = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update"), network.schedule)
    if good:
        assert verify_update(trusted, update, network.clock(), config).finalized == update.finalized
    else:
        with pytest.raises(Rejected) as caught:
            verify_update(trusted, update, network.clock(), config)
        assert caught.value.reason == "participation"


@pytest.mark.parametrize("fork", [Fork.DENEB, Fork.ELECTRA, Fork.FULU])
@pytest.mark.parametrize("preset", [MINIMAL_PRESET, None], ids=["minimal", "mainnet"])
def test_the_light_client_follows_every_fork_and_preset(fork, preset):
    options = {"fork": fork} | ({"preset": preset} if preset else {})
    network = SimNetwork(31337, ManualClock(START), **options)
    trusted, config = make_client(network)
    network.mine()
    network.finalize()
    update = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update"), network.schedule)
    after = verify_update(trusted, update, network.clock(), config)
    assert after.finalized.execution.block_hash == network.get_finalized_block().hash


def test_finalized_blocks_are_not_replaced_and_others_are(network):
    network.make_key("a")
    network.mine()
    network.finalize()
    sent = network.transact(network.make_key("a"), bytes([1]) * 20, b"", value=1)
    block = network.mine()
    (gone,) = network.reorg(1)
    assert gone.hash == block.hash
    assert network.chain.get_block(block.hash) is None
    assert network.chain.head.slot == block.slot
    assert sent in network.chain.pool
    network.mine()
    assert network.get_receipt(sent).succeeded
    final = network.get_finalized_block().number
    with pytest.raises(ValueError, match="finalized"):
        network.reorg(network.chain.head.number - final + 1)
    network.reorg(1, drop=True)
    network.mine()
    assert network.get_receipt(sent) is None


# ---- execution --------------------------------------------------------------------------------------------------------


async def test_every_proof_of_the_node_is_one(network):
    payer = network.make_key("payer")
    network.mine()
    accounts = [bytes([i]) * 20 for i in range(1, 20)]
    for i, address in enumerate(accounts[::2]):
        network.transact(payer, address, b"", value=i + 1)
    network.mine()
    root = network.chain.head.header.state_root
    for address in accounts:
        answer = await call(network.endpoints[0].execution, "eth_getProof", ["0x" + address.hex(), ["0x0"], "latest"])
        proof = parse_proof_json(answer, address, 0)
        account = proofs.verify_account(root, address, proof.account_nodes)
        assert (account.balance_wei if account else 0) == network.chain.get_account_state(network.chain.head, address)[
            1
        ]
        assert (account is None) == (address not in accounts[::2])
        other = network.chain.blocks[-2].header.state_root
        with pytest.raises(Rejected):
            proofs.verify_account(other, address, proof.account_nodes)


async def test_storage_present_and_absent_is_proven():
    harness = EvmHarness()
    harness.deposit(7)
    root = harness.network.chain.head.header.state_root
    provider = harness.network.endpoints[0].execution
    for slot in (0, 1, 4, 2**200 + 1):
        answer = await call(provider, "eth_getProof", ["0x" + harness.vault.hex(), [hex(slot)], "latest"])
        proof: Proof = parse_proof_json(answer, harness.vault, slot)
        stored = await call(provider, "eth_getStorageAt", ["0x" + harness.vault.hex(), hex(slot), "latest"])
        assert proofs.verify_storage_value(root, proof).hex() == stored[2:]
        assert int(answer["storageProof"][0]["value"], 16) == int(stored, 16)
    assert int(stored, 16) == 0


def test_the_pool_speaks_like_a_node():
    harness = EvmHarness()
    network = harness.network
    key = harness.user_key
    chain: SimChain = network.chain
    sent = network.transact(key, bytes([1]) * 20, b"", value=1)
    raw = chain.pool[sent].raw
    with pytest.raises(Rejected, match="already known"):
        chain.send_raw(raw, network.get_slot())
    with pytest.raises(Rejected):
        chain.send_raw(raw[:-1], network.get_slot())
    network.mine()
    with pytest.raises(Rejected, match="nonce too low"):
        chain.send_raw(raw, network.get_slot())
    with pytest.raises(Rejected, match="insufficient funds"):
        network.transact(key, bytes([1]) * 20, b"", value=10**30)
    with pytest.raises(Rejected, match="block gas limit"):
        network.transact(key, bytes([1]) * 20, b"", gas=10**9)
    elsewhere = SimNetwork(5, ManualClock(START))
    elsewhere.make_key("a")
    (foreign,) = elsewhere.chain.pool.values()
    with pytest.raises(Rejected, match="invalid chain id"):
        chain.send_raw(foreign.raw, network.get_slot())


async def test_a_call_that_reverts_says_why():
    harness = EvmHarness()
    provider = harness.network.endpoints[0].execution
    request = {"to": "0x" + harness.vault.hex(), "data": "0x" + encode_claim(harness.user, harness.asset).hex()}
    for method in ("eth_call", "eth_estimateGas"):
        with pytest.raises(RpcError, match="execution reverted") as caught:
            await call(provider, method, [request])
        assert caught.value.code == 3
        assert isinstance(caught.value.data, str)


async def test_an_estimate_is_enough_and_not_much_more():
    harness = EvmHarness()
    data = encode_deposit(harness.asset, 5, harness.user)
    sender = harness.user[12:]
    request = {"to": "0x" + harness.vault.hex(), "data": "0x" + data.hex(), "from": "0x" + sender.hex()}
    estimate = int(await call(harness.network.endpoints[0].execution, "eth_estimateGas", [request]), 16)
    sent = harness.network.transact(harness.user_key, harness.vault, data, gas=estimate)
    harness.mine()
    receipt = harness.network.get_receipt(sent)
    assert receipt.succeeded
    assert receipt.gas_used <= estimate < 1.3 * receipt.gas_used


async def test_limits_on_logs_are_errors_not_short_answers():
    harness = EvmHarness(log_limits=LogLimits(max_range=5, max_results=2))
    for amount in (1, 2, 3):
        harness.deposit(amount)
    provider = harness.network.endpoints[0].execution
    head = harness.network.chain.head.number
    wanted = {"address": "0x" + harness.vault.hex(), "topics": ["0x" + OUTBOX_TOPIC.hex()]}
    for first, words in ((head - 5, "block range"), (head - 4, "returned more than")):
        with pytest.raises(RpcError, match=words):
            await call(provider, "eth_getLogs", [wanted | {"fromBlock": hex(first), "toBlock": hex(head)}])
    found = await call(provider, "eth_getLogs", [wanted | {"fromBlock": hex(head - 1), "toBlock": hex(head)}])
    assert len(found) == 2
    block = harness.network.chain.head
    assert await call(provider, "eth_getLogs", [wanted | {"blockHash": "0x" + block.hash.hex()}]) == found[1:]


async def test_a_client_library_that_is_not_ours_reads_the_chain():
    harness = EvmHarness()
    harness.deposit(3)
    head = harness.network.chain.head
    w3 = AsyncWeb3(harness.network.endpoints[0].execution)
    assert await w3.eth.chain_id == 31337
    block = await w3.eth.get_block("latest")
    assert (block["number"], bytes(block["hash"]), block["timestamp"]) == (head.number, head.hash, head.timestamp)
    receipt = await w3.eth.get_transaction_receipt(block["transactions"][0])
    assert (receipt["status"], receipt["gasUsed"]) == (1, head.receipts[0].gas_used)
    logs = await w3.eth.get_logs({"address": w3.to_checksum_address(harness.vault), "fromBlock": 0})
    assert [bytes(log["topics"][0]) for log in logs] == [OUTBOX_TOPIC]
    stored = await w3.eth.get_storage_at(w3.to_checksum_address(harness.vault), 0)
    assert bytes(stored) == harness.network.chain.get_storage(head, harness.vault, 0)
    history = await w3.eth.fee_history(3, "latest", [50.0])
    assert len(history["baseFeePerGas"]) == 4
    assert (await w3.eth.get_transaction(block["transactions"][0]))["blockNumber"] == head.number
    assert await w3.eth.get_balance(w3.to_checksum_address(bytes([3]) * 20)) == 0


async def test_what_a_node_does_not_know_is_null_or_an_error(network):
    provider = network.endpoints[0].execution
    assert await call(provider, "eth_getBlockByNumber", ["0xffff", False]) is None
    assert await call(provider, "eth_getBlockByHash", ["0x" + "11" * 32, False]) is None
    assert await call(provider, "eth_getTransactionReceipt", ["0x" + "11" * 32]) is None
    for method, params in (("eth_nonsense", []), ("eth_getProof", ["0x" + "11" * 20, [], "0xffff"])):
        with pytest.raises(RpcError):
            await call(provider, method, params)


# ---- beacon -----------------------------------------------------------------------------------------------------------


def test_the_beacon_api_says_what_the_schedule_says(network):
    spec = beacon(network, "/eth/v1/config/spec")["data"]
    assert (spec["SLOTS_PER_EPOCH"], spec["SECONDS_PER_SLOT"], spec["SYNC_COMMITTEE_SIZE"]) == ("32", "12", "512")
    assert spec["ELECTRA_FORK_EPOCH"] == "0"
    genesis = beacon(network, "/eth/v1/beacon/genesis")["data"]
    assert genesis["genesis_time"] == str(network.schedule.genesis_time)
    finalized = beacon(network, "/eth/v1/beacon/headers/finalized")["data"]
    assert finalized["root"] == "0x" + network.get_checkpoint().hex()
    assert beacon(network, "/eth/v1/beacon/headers/head")["data"]["root"] == "0x" + network.beacon.head.root.hex()
    optimistic = beacon(network, LIGHT_CLIENT + "optimistic_update")
    assert parse_update_json(optimistic, network.schedule).finalized is None


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (LIGHT_CLIENT + "bootstrap/0x" + "11" * 32, {}, 404),
        (LIGHT_CLIENT + "bootstrap/zz", {}, 400),
        (LIGHT_CLIENT + "updates", {}, 400),
        (LIGHT_CLIENT + "updates", {"start_period": "0", "count": "-1"}, 400),
        (LIGHT_CLIENT + "updates", {"start_period": "x", "count": "1"}, 400),
        ("/eth/v9/anything", {}, 404),
        ("", {}, 404),
    ],
)
def test_the_beacon_api_refuses_like_a_node(network, path, query, status):
    got, value = network.endpoints[0].beacon.handle(path, query)
    assert (got, value["code"]) == (status, status)


def test_an_equivocation_is_really_signed(network):
    trusted, config = make_client(network)
    network.endpoints[1].lies.equivocate = True
    network.mine()
    network.finalize()
    honest = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update"), network.schedule)
    other = parse_update_json(beacon(network, LIGHT_CLIENT + "finality_update", index=1), network.schedule)
    assert honest.finalized.beacon.slot == other.finalized.beacon.slot
    assert honest.finalized != other.finalized
    for update in (honest, other):
        assert verify_update(trusted, update, network.clock(), config).finalized == update.finalized


def test_accounts_named_at_genesis_own_money():
    address = bytes([5]) * 20
    network = SimNetwork(31337, ManualClock(START), funded=[address])
    assert network.chain.get_account_state(network.chain.blocks[0], address) == (0, GENESIS_BALANCE_WEI)
