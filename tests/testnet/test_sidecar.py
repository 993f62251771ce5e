"""The sidecar over a real node: its light-client data pass the product's own verifier, and lies about blocks are refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from chains import base
from chains.evm.codec import encode_approve, encode_deposit, encode_mint, encode_token_args, encode_vault_args
from chains.evm.sidecar import Follower, Profile, compute_block_hash, compute_transactions_root, parse_block_header
from chains.evm.transport import HttpBeaconTransport, HttpExecutionProvider
from chains.registry import ChainConfig, EndpointConfig, build_chain
from contracts.evm import get_artifact
from messages.bodies import Ack, AckStatus, Deposited, Execute, make_inbox_packet
from messages.digests import Certificate, compute_packet_digest, get_address, sign_digest
from messages.errors import Rejected, Unavailable
from messages.ids import get_evm_account
from messages.outbox import get_start_cursor
from messages.packet import compute_commitment
from relayer.testnet.door import Door, get_faucet_key
from relayer.testnet.nodes import ask, start_anvil, start_sidecar
from relayer.testnet.processes import Group
from tests.builders import OPERATOR_KEYS, OPERATORS
from tests.testnet.conftest import CHAIN_ID, SIZES

AMOUNT = 1_234_567
CAP = 10**12


@pytest.fixture(scope="module")
def vault(devnet):
    """The real vault on the real node, a funded user, a finalized checkpoint."""
    node, beacon = devnet
    door = Door(node.url, CHAIN_ID, get_faucet_key(), b"test")
    user = door.make_key("user")
    door.make_key("submitter")
    address = get_address(user)
    token, _ = door.deploy(user, get_artifact("erc20").bytecode + encode_token_args("USD Coin", "USDC", 6))
    asset = get_evm_account(token)
    args = encode_vault_args(OPERATORS, 3, get_evm_account(address), 86_400, [(asset, CAP, CAP, CAP)])
    vault, receipt = door.deploy(user, get_artifact("vault").bytecode + args)
    door.act(user, token, encode_mint(address, 10 * AMOUNT))
    door.act(user, token, encode_approve(vault, 10 * AMOUNT))
    config = ChainConfig(
        chain_id=f"eip155:{CHAIN_ID}",
        family="evm",
        endpoints=(EndpointConfig("local", node.url, beacon.url),),
        vault_account=get_evm_account(vault),
        checkpoint=beacon.wait_for_checkpoint(),
        start_height=receipt.block_number,
        settings=beacon.settings,
    )
    return door, user, asset, config


async def walk_until(chain, count):
    """Follow the chain until so many facts are proven, as a node does: advance, collect."""
    _, trusted, _ = await base.bootstrap(chain, int(time.time()))
    cursor, facts, deadline = get_start_cursor(chain.vault_id), [], time.time() + 60
    while len(facts) < count and time.time() < deadline:
        advanced = await base.advance(chain, trusted, int(time.time()))
        trusted = advanced.steps[-1][1] if advanced.steps else trusted
        if chain.verifier.get_point(trusted).height >= chain.start_height:
            collected = await base.collect(chain, trusted, cursor, chain.start_height)
            cursor, facts = collected.cursor, [*facts, *collected.facts]
        await asyncio.sleep(0.5)
    return facts


async def close(chain):
    for endpoint in chain.reader._endpoints.values():
        await endpoint.beacon.close()
        await endpoint.execution.disconnect()


async def test_a_deposit_on_a_real_node_becomes_a_fact_and_a_certified_packet_its_ack(vault):
    door, user, asset, config = vault
    chain = build_chain(config, door.make_key("submitter"))
    try:
        vault_address = config.vault_account[12:]
        door.act(user, vault_address, encode_deposit(asset, AMOUNT, get_evm_account(get_address(user))))
        (fact,) = await walk_until(chain, 1)
        assert isinstance(fact.body, Deposited)
        assert fact.body.amount == AMOUNT

        packet = make_inbox_packet(chain.vault_id, 1, int(time.time()) + 1800, Execute(bytes(32), (), ()))
        digest = compute_packet_digest(chain.vault_id, 0, 1, compute_commitment(packet))
        certificate = Certificate(packet, chain.vault_id, 0, tuple(sign_digest(k, digest) for k in OPERATOR_KEYS[:3]))
        signed = await chain.submitter.prepare(certificate, [])
        assert await chain.submitter.send(signed) == signed.tx_id
        _, fact = await walk_until(chain, 2)
        assert isinstance(fact.body, Ack)
        assert (fact.body.inbox_sequence, fact.body.status) == (1, AckStatus.DONE)
        with pytest.raises(Rejected) as caught:
            await chain.submitter.prepare(certificate, [])
        assert caught.value.reason.startswith("revert_")
    finally:
        await close(chain)


async def test_a_checkpoint_that_the_sidecar_does_not_know_starts_nothing(vault):
    *_, config = vault
    chain = build_chain(replace(config, checkpoint=bytes([7]) * 32))
    try:
        with pytest.raises(Unavailable) as caught:
            await base.bootstrap(chain, int(time.time()))
        assert caught.value.reason == "no_bootstrap"
    finally:
        await close(chain)


def test_every_header_of_the_node_hashes_to_its_block_hash_and_a_changed_one_does_not(vault):
    door, *_ = vault
    newest = int(ask(door.url, "eth_blockNumber"), 16)
    for number in range(newest + 1):
        block = ask(door.url, "eth_getBlockByNumber", hex(number), False)
        header, block_hash = parse_block_header(block)
        assert compute_block_hash(header) == block_hash
        with pytest.raises(Rejected) as caught:
            parse_block_header({**block, "stateRoot": "0x" + "11" * 32})
        assert caught.value.reason == "block_hash"


def test_raw_transactions_hash_to_the_header_and_in_another_order_they_do_not(vault):
    door, user, *_ = vault
    other = door.make_key("other")
    sent = [door.transact(key, get_address(user), b"", value=1, gas=21_000) for key in (user, other)]
    number = door.wait_for_receipt(sent[0]).block_number
    block = ask(door.url, "eth_getBlockByNumber", hex(number), False)
    raw = [bytes.fromhex(ask(door.url, "eth_getRawTransactionByHash", h)[2:]) for h in block["transactions"]]
    root = bytes.fromhex(block["transactionsRoot"][2:])
    assert compute_transactions_root(raw) == root
    assert compute_transactions_root([*raw, raw[0]]) != root


async def test_a_second_sidecar_tells_the_same_chain(devnet, tmp_path):
    node, beacon = devnet
    with Group(tmp_path) as group:
        again = start_sidecar(group, "sidecar", node, SIZES)
        assert again.settings == beacon.settings
        roots = []
        for url in (beacon.url, again.url):
            transport = HttpBeaconTransport(url)
            roots.append((await transport.get("/eth/v1/beacon/headers/3", {}))["data"]["root"])
            await transport.close()
        assert roots[0] == roots[1]


async def test_a_node_of_another_chain_is_not_followed(devnet):
    node, _ = devnet
    provider = HttpExecutionProvider(node.url)
    try:
        with pytest.raises(Rejected) as caught:
            await Follower(provider, Profile(CHAIN_ID + 1)).advance()
        assert caught.value.reason == "wrong_chain_id"
        follower = Follower(provider, Profile(CHAIN_ID))
        assert await follower.advance() == follower.head.number
    finally:
        await provider.disconnect()


async def test_unfinalized_blocks_that_the_node_replaces_are_replaced_and_finalized_ones_never(anvil_program, tmp_path):
    with Group(tmp_path) as group:
        node = start_anvil(group, "anvil", CHAIN_ID + 7, block_time_s=3600)

        def mine(count, step_s):
            for _ in range(count):
                newest = int(ask(node.url, "eth_getBlockByNumber", "latest", False)["timestamp"], 16)
                ask(node.url, "evm_mine", hex(newest + step_s))

        provider = HttpExecutionProvider(node.url)
        try:
            patient = Follower(provider, Profile(CHAIN_ID + 7, slots_per_epoch=32))
            hasty = Follower(provider, Profile(CHAIN_ID + 7, slots_per_epoch=1))
            mine(10, 1)
            snapshot = ask(node.url, "evm_snapshot")
            mine(6, 1)
            for follower in (patient, hasty):
                await follower.advance()
            before = patient.head.hash
            assert ask(node.url, "evm_revert", snapshot)
            mine(8, 2)
            await patient.advance()
            assert patient.reorgs == 1
            head = ask(node.url, "eth_getBlockByNumber", hex(patient.head.number), False)
            assert "0x" + patient.head.hash.hex() == head["hash"] != "0x" + before.hex()
            assert patient.beacon.head.execution["block_hash"] == head["hash"]
            with pytest.raises(Rejected) as caught:
                await hasty.advance()
            assert caught.value.reason == "finalized_reorg"
        finally:
            await provider.disconnect()
