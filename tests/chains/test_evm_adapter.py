"""Reader of the Ethereum family: what nodes do wrong, one test each, and the twins that would be fooled."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from web3.exceptions import BadResponseFormat
from web3.providers.async_base import AsyncBaseProvider

from chains import base
from chains.claims import make_claims
from chains.evm import codec
from chains.evm.beacon_json import parse_update_json
from chains.evm.codec import (
    CURSORS_SLOT,
    INBOX_TOPIC,
    OUTBOX_HEAD_SLOT,
    OUTBOX_TOPIC,
    build_log_filter,
    decode_data,
    decode_log,
    decode_quantity,
    decode_recv,
    encode_recv,
    encode_vault_args,
    get_revert_reason,
)
from chains.evm.forks import MAINNET
from chains.evm.light_client import LightClientConfig
from chains.evm.reader import MAX_HEADS_AHEAD, EvmEndpoint, EvmReader, ReaderSettings
from chains.evm.sim_rpc import LogLimits
from chains.evm.transport import HttpBeaconTransport, HttpExecutionProvider, RpcError, call, call_each, decode_json
from chains.evm.verifier import build_rules, decode_settings, encode_settings
from chains.registry import EndpointConfig, build_chain, build_rules_of, make_sim_config
from contracts.evm import OUTBOX_HEAD_SLOT as BUILT_HEAD_SLOT
from contracts.evm import OUTBOX_SEQUENCE_SLOT, get_artifact
from messages.bodies import Deposited, Execute, encode_body
from messages.errors import Rejected, Unavailable
from messages.hashing import keccak256
from messages.packet import encode_packet_abi
from tests.chains.harness_evm import EvmHarness
from tests.http_node import HttpNode

# emits LOG2(topic0, topic1, data) of whatever it is called with: 32 + 32 bytes of topics, then data
ECHO_RUNTIME = bytes.fromhex("60403603806040600037602035600035826000a200")
ECHO = bytes.fromhex(f"60{len(ECHO_RUNTIME):02x}8060093d393df3") + ECHO_RUNTIME


@pytest.fixture
def harness():
    return EvmHarness()


@pytest.fixture(scope="module")
def deposits():
    """Three finalized deposits and the raw logs of them, as an honest endpoint tells them."""
    harness = EvmHarness()
    for amount in (1, 2, 3):
        harness.deposit(amount)
    harness.finalize()
    return harness


async def get_raw_logs(harness, index=0):
    last = harness.network.chain.head.number
    provider = harness.network.endpoints[index].execution
    return await call(provider, "eth_getLogs", [build_log_filter(harness.vault, 0, last)])


async def read_packets(harness, upto, index=0, **settings):
    chain = harness.make_chain(**settings)
    span = base.Span(0, upto, 0, harness.network.chain.head.number)
    return await chain.reader.packets(harness.get_source(index), span)


# ---- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [LogLimits(max_range=1), LogLimits(max_range=3), LogLimits(max_results=1)])
async def test_ranges_are_halved_until_the_node_answers(limits):
    harness = EvmHarness(log_limits=limits)
    for amount in (1, 2, 3):
        harness.deposit(amount)
    claims = await read_packets(harness, 3)
    assert [claim.packet.sequence for claim in claims] == [1, 2, 3]


async def test_a_node_that_refuses_even_one_block_is_no_use():
    harness = EvmHarness(log_limits=LogLimits(max_results=0))
    harness.deposit(1)
    with pytest.raises(Unavailable) as caught:
        await read_packets(harness, 1)
    assert (caught.value.reason, caught.value.source) == ("log_limit", harness.get_source(0))


async def test_a_busy_node_is_asked_again(harness):
    harness.deposit(1)
    harness.network.endpoints[0].lies.fail_every = 2
    assert len(await read_packets(harness, 1)) == 1
    harness.network.endpoints[0].lies.fail_every = 1
    with pytest.raises(Unavailable) as caught:
        await read_packets(harness, 1)
    assert caught.value.source == harness.get_source(0)


async def test_a_slow_node_is_given_up(harness):
    harness.deposit(1)
    harness.network.endpoints[0].lies.slow_s = 5.0
    with pytest.raises(Unavailable) as caught:
        await read_packets(harness, 1, timeout_s=0.01)
    assert caught.value.reason == "timeout"


async def test_a_node_of_another_chain_is_named_once_asked(harness):
    harness.deposit(1)
    harness.network.endpoints[0].lies.chain_id = 1
    with pytest.raises(Rejected) as caught:
        await read_packets(harness, 1)
    assert (caught.value.reason, caught.value.got, caught.value.expected) == ("wrong_chain_id", 1, 31337)
    assert caught.value.source == harness.get_source(0)


async def test_an_empty_answer_is_not_taken_for_silence_e5(harness):
    harness.deposit(1)
    harness.deposit(2)
    harness.network.endpoints[0].lies.drop_logs = True
    with pytest.raises(Unavailable) as caught:
        await read_packets(harness, 2)
    assert caught.value.reason == "packets_missing"
    # The twin takes [] for "nothing happened": two deposits are missed.
    logs = [decode_log(log, harness.vault, 0, 10**6) for log in await get_raw_logs(harness)]
    assert make_claims(logs, 0, 2) == ()
    harness.network.endpoints[0].lies.drop_logs = False
    assert len(await read_packets(harness, 2)) == 2


async def test_an_identical_event_of_another_contract_is_not_taken_e2(harness):
    """pNetwork, 2021-09: the emitter of a log was not checked."""
    harness.deposit(5)
    (real,) = await get_raw_logs(harness)
    attacker = harness.network.deploy(ECHO, b"", harness.user_key)
    forged = decode_data(real["data"])[:-1] + b"\xff"
    sent = harness.network.transact(harness.user_key, attacker, OUTBOX_TOPIC + decode_data(real["topics"][1]) + forged)
    harness.mine()
    (log,) = harness.network.get_receipt(sent).logs
    assert (log.topics[0], log.data) == (OUTBOX_TOPIC, forged)

    honest = await read_packets(harness, 1)
    assert honest[0].packet.payloads[0].value[-1] == 5

    harness.network.endpoints[0].lies.foreign_logs = True
    with pytest.raises(Rejected) as caught:
        await read_packets(harness, 1)
    assert (caught.value.reason, caught.value.source) == ("foreign_log", harness.get_source(0))
    # The twin decodes whatever has the right topic: it sees the attacker's amount.
    twin = [
        decode_log({**entry, "address": "0x" + harness.vault.hex()}, harness.vault, 0, 10**6)
        for entry in await get_raw_logs(harness)
    ]
    assert 255 in [log.packet.payloads[0].value[-1] for log in twin]


async def test_a_removed_log_is_refused_e6(deposits):
    (log, *_) = await get_raw_logs(deposits)
    decode_log(log, deposits.vault, 0, 10**6)
    with pytest.raises(Rejected) as caught:
        decode_log({**log, "removed": True}, deposits.vault, 0, 10**6)
    assert caught.value.reason == "removed_log"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"address": "0x" + "11" * 20}, "foreign_log"),
        ({"topics": ["0x" + "22" * 32, "0x" + "00" * 31 + "01"]}, "foreign_log"),
        ({"topics": ["0x" + OUTBOX_TOPIC.hex()]}, "foreign_log"),
        ({"topics": ["0x" + OUTBOX_TOPIC.hex(), "0x" + "00" * 31 + "09"]}, "log_number"),
        ({"blockNumber": "0x7fffffff"}, "out_of_range"),
        ({"blockNumber": None}, "malformed"),
        ({"blockNumber": 5}, "malformed"),
        ({"data": "0x"}, "malformed"),
        ({"data": "0x1"}, "malformed"),
        ({"data": None}, "malformed"),
        ({"transactionHash": "0x00"}, "malformed"),
        ({"topics": "0x00"}, "foreign_log"),
    ],
)
async def test_a_log_that_is_not_exactly_the_vaults_is_refused(deposits, change, reason):
    (log, *_) = await get_raw_logs(deposits)
    decode_log(log, deposits.vault, 0, 10**6)
    with pytest.raises(Rejected) as caught:
        decode_log({**log, **change}, deposits.vault, 0, 10**6)
    assert caught.value.reason == reason


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=40),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=12), x, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_a_node_says_is_a_log_or_refused(value):
    with pytest.raises(Rejected):
        decode_log(value, bytes(20), 0, 10)
    for decode in (decode_data, decode_quantity):
        try:
            decode(value)
        except Rejected:
            continue
        assert isinstance(value, str)
        assert value.startswith("0x")


async def test_the_order_in_which_logs_come_does_not_matter(deposits):
    logs = [decode_log(log, deposits.vault, 0, 10**6) for log in await get_raw_logs(deposits)]
    assert make_claims(logs[::-1], 0, 3) == make_claims(logs + logs, 0, 3) == make_claims(logs, 0, 3)
    assert [claim.packet.sequence for claim in make_claims(logs, 1, 2)] == [2]


async def test_two_contents_under_one_number_are_refused(deposits):
    first, second, _ = [decode_log(log, deposits.vault, 0, 10**6) for log in await get_raw_logs(deposits)]
    twin = replace(second, packet=replace(second.packet, sequence=1))
    with pytest.raises(Rejected) as caught:
        make_claims([first, twin], 0, 1)
    assert caught.value.reason == "log_twice"


async def test_an_ack_without_its_inbox_packet_is_refused(harness):
    certificate = harness.certify(1, Execute(bytes(32), (), ()))
    await harness.chain.submitter.send(await harness.chain.submitter.prepare(certificate, []))
    harness.mine()
    logs = [decode_log(log, harness.vault, 0, 10**6) for log in await get_raw_logs(harness)]
    (claim,) = make_claims(logs, 0, 1)
    assert claim.inbox == certificate.packet
    with pytest.raises(Rejected) as caught:
        make_claims([log for log in logs if log.is_outbox], 0, 1)
    assert caught.value.reason == "missing_inbox"


# ---- state ------------------------------------------------------------------------------------------------------------


async def test_the_value_beside_a_proof_is_only_a_claim_a12(deposits):
    trusted = (await base.advance(deposits.chain, await deposits.bootstrap(), deposits.now())).steps[-1][1]
    head, proof = await deposits.chain.reader.head(deposits.get_source(0), trusted)
    deposits.network.endpoints[0].lies.forge_head = True
    try:
        forged, same = await deposits.chain.reader.head(deposits.get_source(0), trusted)
    finally:
        deposits.network.endpoints[0].lies.forge_head = False
    assert same == proof
    assert forged.head != head.head
    with pytest.raises(Rejected) as caught:
        deposits.chain.verifier.verify_head(trusted, forged, proof)
    assert caught.value.reason == "wrong_head"


async def test_a_node_without_the_state_is_unavailable_not_a_liar(harness):
    harness.deposit(1)
    harness.finalize()
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    harness.network.endpoints[0].lies.stall_slot = 1
    with pytest.raises(Unavailable) as caught:
        await harness.chain.reader.head(harness.get_source(0), trusted)
    assert caught.value.reason == "no_proof"


async def test_a_vault_that_does_not_exist_yet_proves_nothing(harness):
    """An absent account reads as zero; a zero head is never accepted (incident B1)."""
    nobody = base.Head(0, bytes(32))
    harness.vault = bytes([7]) * 20
    chain = harness.make_chain()
    trusted = (await base.bootstrap(chain, harness.now()))[1]
    head, proof = await chain.reader.head(harness.get_source(0), trusted)
    assert head == nobody
    with pytest.raises(Rejected):
        chain.verifier.verify_head(trusted, head, proof)


@pytest.mark.parametrize("depth", [1, 2, 7, 40])
async def test_a_reorg_of_any_depth_before_finality_reverts_no_credit_g1(harness, depth):
    """Polygon, 2023-02-22: 157 blocks. Nothing is believed before it is final, so there is nothing to take back."""
    trusted = (await base.bootstrap(harness.chain, harness.now()))[1]
    for amount in range(1, depth + 1):
        harness.deposit(amount)
        advanced = await base.advance(harness.chain, trusted, harness.now())
        trusted = advanced.steps[-1][1] if advanced.steps else trusted
    assert (await base.collect(harness.chain, trusted, harness.start, 0)).facts == ()
    harness.network.reorg(depth)
    assert not any(block.transactions for block in harness.network.chain.blocks[-depth:])
    harness.finalize()
    trusted = (await base.advance(harness.chain, trusted, harness.now())).steps[-1][1]
    collected = await base.collect(harness.chain, trusted, harness.start, 0)
    assert [fact.body.amount for fact in collected.facts] == list(range(1, depth + 1))


async def test_errors_of_a_foreign_provider_are_ours_and_tell_no_address(harness):
    class Foreign(AsyncBaseProvider):
        async def make_request(self, *_):
            raise BadResponseFormat("http://node/secret-key said nonsense")

    with pytest.raises(Unavailable) as caught:
        await call(Foreign(), "eth_chainId", [])
    assert "secret-key" not in str(caught.value)


# ---- events -----------------------------------------------------------------------------------------------------------


async def make_heard(harness, change=lambda event: event):
    """A chain whose reader heard an event of its newest finalized header, the trusted state before it, and the routes asked after."""
    chain = harness.chain
    _, trusted, _ = await base.bootstrap(chain, harness.now())
    harness.deposit(1)
    harness.finalize()
    source = harness.get_source(0)
    beacon = harness.network.endpoints[0].beacon
    event = await beacon.get("/eth/v1/beacon/light_client/finality_update", {})
    asked = []
    inner = beacon.get

    async def get_route(path, params):
        asked.append(path.rpartition("/")[2])
        return await inner(path, params)

    beacon.get = get_route
    trusted = replace(trusted, next_committee=trusted.next_committee or trusted.current_committee)
    assert chain.reader.hear(source, change(json.dumps(event).encode()))
    return chain.reader, trusted, asked


async def test_an_event_is_read_in_place_of_its_route_once(harness):
    reader, trusted, asked = await make_heard(harness)
    heard = await reader.update(harness.get_source(0), trusted)
    assert asked == []
    assert heard == await reader.update(harness.get_source(0), trusted)
    assert asked == ["finality_update"]


async def test_an_event_that_cannot_be_read_or_is_no_news_costs_nothing_but_its_route(harness):
    reader, trusted, asked = await make_heard(harness, lambda event: event.replace(b"sync_aggregate", b"nothing"))
    assert await reader.update(harness.get_source(0), trusted) is not None
    assert asked == ["finality_update"]
    events = []
    reader, trusted, asked = await make_heard(harness, lambda event: events.append(event) or event)
    newest = parse_update_json(json.loads(events[0]), reader._schedule)
    assert await reader.update(harness.get_source(0), replace(trusted, finalized=newest.finalized)) is None
    assert asked == ["finality_update"]


async def tell_newest(harness, reader):
    """Let the reader hear of the newest block and read ahead up to it."""
    beacon = harness.network.endpoints[0].beacon
    event = await beacon.get("/eth/v1/beacon/light_client/finality_update", {})
    reader.hear(harness.get_source(0), json.dumps(event).encode())
    await reader.read_ahead(harness.get_source(0))


def count_calls(harness, wanted, get):
    """What ``get`` makes of the parameters of each call of one method to the first endpoint, from now on."""
    asked = []
    provider = harness.network.endpoints[0].execution
    inner = provider.make_request

    async def make_request(method, params):
        if method == wanted:
            asked.append(get(params))
        return await inner(method, params)

    provider.make_request = make_request
    return asked


def count_logs(harness):
    """The ranges of blocks that the first endpoint is asked logs of, from now on."""
    return count_calls(harness, "eth_getLogs", lambda p: (int(p[0]["fromBlock"], 16), int(p[0]["toBlock"], 16)))


def count_proofs(harness):
    """The blocks that the first endpoint is asked a proof of, from now on."""
    return count_calls(harness, "eth_getProof", lambda p: int(p[2], 16))


async def make_ahead(harness):
    """A chain with one collected deposit, and two more that were read before they are final; what was collected, and the ranges asked."""
    chain = harness.chain
    _, trusted, _ = await base.bootstrap(chain, harness.now())
    harness.deposit(1)
    harness.finalize()
    trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
    collected = await base.collect(chain, trusted, harness.start, 0)
    harness.deposit(2)
    harness.deposit(3)
    for _ in range(10):  # it reads ahead in quarters of an epoch; and a block is attested a slot after its own
        harness.mine()
    await tell_newest(harness, chain.reader)
    return chain, trusted, collected, count_logs(harness)


async def test_what_was_read_ahead_is_not_read_again_and_is_proven_like_everything(harness):
    chain, trusted, collected, asked = await make_ahead(harness)
    harness.finalize()
    trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
    height = chain.verifier.get_point(trusted).height
    found = await base.collect(chain, trusted, collected.cursor, collected.proven.height)
    assert [fact.body.amount for fact in found.facts] == [2, 3]
    assert found.blames == ()
    # only what lies before and after it
    assert asked
    assert all(last - first < height - collected.proven.height for first, last in asked)
    asked.clear()
    again = await base.collect(chain, trusted, collected.cursor, 0)
    assert (again.facts, again.blames) == (found.facts, ())


async def test_a_reorg_after_reading_ahead_costs_a_second_look(harness):
    chain, trusted, collected, asked = await make_ahead(harness)
    harness.network.reorg(12)
    harness.deposit(7)
    harness.finalize()
    trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
    found = await base.collect(chain, trusted, collected.cursor, collected.proven.height)
    assert 7 in [fact.body.amount for fact in found.facts]
    assert found.blames == ()
    assert (collected.proven.height, chain.verifier.get_point(trusted).height) in asked


async def follow_to_finality(harness, trusted):
    """Let a chain go on until it finalizes something new, each newest block told and read ahead."""
    for _ in range(200):
        harness.mine()
        steps = (await base.advance(harness.chain, trusted, harness.now())).steps
        await tell_newest(harness, harness.chain.reader)
        if steps:
            return steps[-1][1]
    raise AssertionError("nothing became final")


async def start_following(harness):
    """What was collected of a chain with one deposit, at a block that becomes final two epochs after somebody began to listen."""
    _, trusted, _ = await base.bootstrap(harness.chain, harness.now())
    harness.deposit(1)
    for _ in range(4):
        trusted = await follow_to_finality(harness, trusted)
    return trusted, await base.collect(harness.chain, trusted, harness.start, 0)


async def test_the_head_of_a_block_that_becomes_final_was_asked_before(harness):
    trusted, collected = await start_following(harness)
    harness.deposit(2)
    asked = count_proofs(harness)
    while collected.cursor.sequence < 2:
        trusted = await follow_to_finality(harness, trusted)
        asked_ahead, height = list(asked), harness.chain.verifier.get_point(trusted).height
        found = await base.collect(harness.chain, trusted, collected.cursor, collected.proven.height)
        assert (found.proven.height, found.blames) == (height, ())
        assert asked == asked_ahead
        collected = found
    source, reader = harness.get_source(0), harness.chain.reader
    assert 0 < len(reader._heads_ahead[source]) <= MAX_HEADS_AHEAD
    # the neighbour: what was forgotten is asked when it is final
    assert reader.forget(source)
    assert not reader.forget(source)
    await base.collect(harness.chain, trusted, collected.cursor, collected.proven.height)
    assert asked == [*asked_ahead, height]


async def test_a_head_of_a_branch_that_ended_is_asked_again_and_nobodys_lie(harness):
    trusted, collected = await start_following(harness)
    reader, source = harness.chain.reader, harness.get_source(0)
    other = reader._heads_ahead[source][collected.proven.height]
    harness.deposit(2)
    for _ in range(4):
        trusted = await follow_to_finality(harness, trusted)
    height = harness.chain.verifier.get_point(trusted).height
    assert reader._heads_ahead[source][height] != other
    reader._heads_ahead[source][height] = other  # as a block of another branch would have it
    asked = count_proofs(harness)
    found = await base.collect(harness.chain, trusted, collected.cursor, collected.proven.height)
    assert (found.proven.height, found.blames) == (height, ())
    assert asked == [height]


async def test_other_packets_of_a_branch_that_ended_are_nobodys_lie(harness):
    chain, trusted, collected, asked = await make_ahead(harness)
    logs = chain.reader._ahead[harness.get_source(0)].logs
    assert [log.packet.sequence for log in logs] == [2, 3]
    # as many as will be final, under the same numbers, with other contents
    value = encode_body(Deposited(bytes(32), bytes(32), 9))
    payload = replace(logs[1].packet.payloads[0], value=value)
    logs[1] = replace(logs[1], packet=replace(logs[1].packet, payloads=(payload,)))
    harness.finalize()
    trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
    found = await base.collect(chain, trusted, collected.cursor, collected.proven.height)
    assert [fact.body.amount for fact in found.facts] == [2, 3]
    assert found.blames == ()
    assert (collected.proven.height, chain.verifier.get_point(trusted).height) in asked
    assert not chain.reader.forget(harness.get_source(0))


async def test_a_lie_that_was_read_ahead_is_found_when_the_source_repeats_it(harness):
    chain, trusted, collected, _ = await make_ahead(harness)
    harness.network.endpoints[0].lies.drop_logs = True
    chain.reader.forget(harness.get_source(0))
    harness.finalize()
    trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
    found = await base.collect(chain, trusted, collected.cursor, collected.proven.height)
    assert [fact.body.amount for fact in found.facts] == [2, 3]
    assert [blame.source for blame in found.blames] == [harness.get_source(0)]


# ---- HTTP -------------------------------------------------------------------------------------------------------------


async def ask(answer, **options):
    async with HttpNode(answer) as node:
        provider = HttpExecutionProvider(node.url, **options)
        try:
            return await call(provider, "eth_chainId", [])
        finally:
            await provider.disconnect()


async def ask_each(change):
    """Three numbers asked in one batch from a node that doubles them, its list of answers changed before it is sent."""

    async def answer(request):
        doubled = [{"jsonrpc": "2.0", "id": a["id"], "result": 2 * a["params"][0]} for a in await request.json()]
        return web.json_response(change(doubled))

    async with HttpNode(answer) as node:
        provider = HttpExecutionProvider(node.url)
        try:
            return await call_each(provider, "eth_double", [[1], [2], [3]])
        finally:
            await provider.disconnect()


async def test_a_batch_is_answered_in_the_order_asked_whatever_the_nodes_order():
    assert await ask_each(lambda answers: answers) == [2, 4, 6]
    assert await ask_each(lambda answers: answers[::-1]) == [2, 4, 6]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answers: answers[:2], "wrong_id"),
        (lambda answers: [*answers[:2], answers[0]], "wrong_id"),
        (lambda answers: [*answers, answers[0]], "wrong_id"),
        (lambda answers: [answers[0], answers[1] | {"id": 99}, answers[2]], "wrong_id"),
        (lambda answers: [answers[0], answers[1] | {"id": True}, answers[2]], "wrong_id"),
        (lambda answers: answers[0], "malformed"),
        (lambda answers: [*answers[:2], 6], "malformed"),
        (lambda answers: [*answers[:2], {"jsonrpc": "2.0", "id": answers[2]["id"]}], "malformed"),
        (
            lambda answers: [*answers[:2], {"jsonrpc": "2.0", "id": answers[2]["id"], "error": {"code": 1}}],
            "rpc_error",
        ),
    ],
)
async def test_a_batch_with_a_missing_foreign_or_failed_answer_is_refused(change, reason):
    with pytest.raises(Rejected) as caught:
        await ask_each(change)
    assert caught.value.reason == reason


def reply(**fields):
    async def answer(request):
        asked = await request.json()
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"} | fields)

    return answer


async def test_an_answer_over_http_is_read():
    assert await ask(reply()) == "0x1"


@pytest.mark.parametrize("swapped", [2, "1", None, True, 1.0, 2**53 + 1, [1]])
async def test_an_answer_with_another_id_is_refused_e7(swapped):
    """CometBFT 0.40.0: ids collapsed, and answers went to other questions."""
    with pytest.raises(Rejected) as caught:
        await ask(reply(id=swapped))
    assert caught.value.reason == "wrong_id"


@pytest.mark.parametrize(
    ("body", "status", "kind", "reason"),
    [
        ("not json", 200, Rejected, "malformed"),
        ("[]", 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"id":1,"result":"0x1"}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"result":NaN}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"limit"}}', 200, RpcError, "rpc_error"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"limit"}}', 400, RpcError, "rpc_error"),
        ("slow down", 429, Unavailable, "http_status"),
        ("oops", 502, Unavailable, "http_status"),
        ("gone", 404, Unavailable, "not_found"),
        ("forbidden", 403, Rejected, "http_status"),
        ("[" * 100_000, 200, Rejected, "depth"),
        ("[" * 33 + "]" * 33, 200, Rejected, "depth"),
        ('{"a":' * 33 + "1" + "}" * 33, 200, Rejected, "depth"),
        ('{"a":"' + "[" * 99 + '"}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"result":"0x' + "00" * 6000 + '"}', 200, Rejected, "size"),
    ],
)
async def test_what_is_wrong_over_http_has_a_name(body, status, kind, reason):
    async def answer(_):
        return web.Response(text=body, status=status)

    with pytest.raises(kind) as caught:
        await ask(answer, max_bytes=200_000 if body.startswith("[[") else 10_000)
    assert caught.value.reason == reason


async def test_a_redirect_is_not_followed():
    async def answer(_):
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/")

    with pytest.raises(Rejected) as caught:
        await ask(answer)
    assert caught.value.reason == "http_status"


async def test_nobody_there_is_unavailable_and_the_address_is_not_told():
    provider = HttpExecutionProvider("http://127.0.0.1:1/secret-key")
    with pytest.raises(Unavailable) as caught:
        await call(provider, "eth_chainId", [])
    await provider.disconnect()
    assert "secret-key" not in str(caught.value)


async def test_a_dead_peer_does_not_hold_us_for_ever():
    async def answer(_):
        await asyncio.sleep(30)

    with pytest.raises(Unavailable) as caught:
        await ask(answer, timeout_s=0.05)
    assert caught.value.reason == "timeout"


async def test_the_whole_road_works_over_http(harness):
    """The same simulated endpoint behind real HTTP: reader and provider are the ones that operators use."""
    harness.deposit(1_000_000)
    harness.finalize()
    endpoint = harness.network.endpoints[0]

    async def answer(request):
        if request.method == "GET":
            status, value = endpoint.beacon.handle(request.path, dict(request.query))
            return web.json_response(value, status=status)
        asked = await request.json()
        answered = await endpoint.execution.make_request(asked["method"], asked["params"])
        return web.json_response(answered | {"id": asked["id"]})

    async with HttpNode(answer) as node:
        beacon, execution = HttpBeaconTransport(node.url.rstrip("/")), HttpExecutionProvider(node.url)
        rules = harness.chain.verifier
        reader = EvmReader(
            31337,
            harness.vault,
            harness.checkpoint,
            harness.network.schedule,
            [EvmEndpoint("http", beacon, execution)],
            ReaderSettings(),
        )
        trusted = rules.verify_bootstrap(await reader.bootstrap("http"), harness.now())
        trusted = rules.verify_update(trusted, await reader.update("http", trusted), harness.now())
        head, proof = await reader.head("http", trusted)
        proven = rules.verify_head(trusted, head, proof)
        claims = await reader.packets("http", base.Span(0, head.sequence, 0, proven.height))
        await beacon.close()
        await execution.disconnect()
    assert (head.sequence, len(claims)) == (1, 1)


def test_json_with_a_key_twice_is_refused():
    assert decode_json(b'{"a":1,"b":1}') == {"a": 1, "b": 1}
    with pytest.raises(Rejected):
        decode_json(b'{"a":1,"a":1}')


def test_brackets_inside_strings_are_not_depth():
    text = b'{"a\\"[":"' + b"[{" * 500 + b'\\\\","b":["]\\n"]}'
    assert decode_json(text)["b"] == ["]\n"]
    with pytest.raises(Rejected):
        decode_json(text.replace(b'"]\\n"', b"[" * 40 + b"]" * 40))


# ---- calls ------------------------------------------------------------------------------------------------------------


def test_storage_slots_and_signatures_are_those_of_the_built_vault():
    assert (OUTBOX_HEAD_SLOT, CURSORS_SLOT) == (BUILT_HEAD_SLOT, OUTBOX_SEQUENCE_SLOT)
    events = {entry["name"]: entry for entry in get_artifact("vault").abi if entry["type"] == "event"}
    for name, topic in (("Outbox", OUTBOX_TOPIC), ("Inbox", INBOX_TOPIC)):
        assert keccak256(get_signature(events[name]).encode()) == topic
    source = Path(codec.__file__).read_text()
    functions = {get_signature(e) for e in get_artifact("vault").abi if e["type"] == "function"}
    used = {s for s in functions if f'"{s}"' in source or s.startswith("list_series")}
    assert len(used) == 11, (
        "recv, deposit, link, list_series, offer, cancel, take, request_withdrawal, claim, pause, escape"
    )


def get_signature(entry):
    def get_type(item):
        if item["type"].startswith("tuple"):
            return "(" + ",".join(map(get_type, item["components"])) + ")" + item["type"][5:]
        return item["type"]

    return entry["name"] + "(" + ",".join(map(get_type, entry["inputs"])) + ")"


def test_the_call_that_carries_a_packet_has_one_form(harness):
    certificate = harness.certify(1, Execute(bytes(32), (), ()))
    data = encode_recv(certificate)
    assert decode_recv(data) == (certificate.packet, certificate.signatures)
    for wrong in (data[:-1], data + b"\0", b"\0" + data[1:], data[:4]):
        with pytest.raises(Rejected):
            decode_recv(wrong)
    assert encode_packet_abi(certificate.packet) in data


def test_the_word_of_a_revert_is_read_and_nothing_else_is_trusted():
    word = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (8).to_bytes(32, "big") + b"sequence".ljust(32, b"\0")
    assert get_revert_reason(word) == "sequence"
    assert get_revert_reason(b"") == get_revert_reason(word[:60]) == get_revert_reason(b"\0" * 100) == ""
    assert get_revert_reason(word.replace(b"sequence", b"a\nb\x1b[0m\0")) == ""


# ---- configuration ----------------------------------------------------------------------------------------------------


def test_settings_have_one_text_and_say_everything(harness):
    for config in (
        LightClientConfig(MAINNET),
        LightClientConfig(MAINNET, floor=(9, 10), trusting_period_s=86_400),
        LightClientConfig(harness.network.schedule),
    ):
        text = encode_settings(config)
        assert decode_settings(text) == config
        assert encode_settings(decode_settings(text)) == text


@pytest.mark.parametrize(
    "change",
    [
        {"network": "nowhere"},
        {"network": 1},
        {"extra": 1},
        {"floor": [1, 2]},
        {"floor": [2]},
        {"floor": "2/3"},
        {"trusting_period_s": 0},
        {"trusting_period_s": True},
        {"trusting_period_s": "1"},
        {"network": {"name": "mainnet"}},
    ],
)
def test_settings_that_make_no_sense_are_refused(change):
    good = {"network": "mainnet"}
    decode_settings(json.dumps(good, separators=(",", ":")))
    with pytest.raises(Rejected):
        decode_settings(json.dumps(good | change, separators=(",", ":"), sort_keys=True))


def test_a_participation_floor_under_two_thirds_cannot_be_configured(harness):
    text = encode_settings(LightClientConfig(harness.network.schedule))
    with pytest.raises(Rejected):
        decode_settings(text.replace('{"network"', '{"floor":[1,3],"network"'))


@pytest.mark.parametrize(
    "change",
    [
        {"family": "unheard of"},
        {"chain_id": "cosmos:1"},
        {"chain_id": "eip155:01"},
        {"chain_id": "eip155:"},
        {"vault_account": bytes(32)},
        {"vault_account": bytes([1]) * 32},
        {"checkpoint": bytes(32)},
        {"checkpoint": b"\1"},
        {"endpoints": ()},
        {"start_height": -1},
        {"endpoints": (EndpointConfig("a", "file:///etc/passwd", "http://b"),)},
        {"endpoints": (EndpointConfig("a", "sim:unknown", "sim:unknown"),)},
        {"endpoints": (EndpointConfig("a", "http://a", "http://a"), EndpointConfig("a", "http://b", "http://b"))},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_before_anything_is_asked(harness, change):
    config = make_sim_config(harness.network, harness.vault)
    sims = {config.chain_id: harness.network}
    build_chain(config, None, sims)
    with pytest.raises(Rejected):
        build_chain(replace(config, **change), None, sims)


async def test_rules_built_from_an_anchor_judge_like_the_chain(deposits):
    config = make_sim_config(deposits.network, deposits.vault, checkpoint=deposits.checkpoint)
    rules = build_rules_of("evm", config.chain_id, config.vault_account, config.checkpoint, config.settings)
    claimed = await deposits.chain.reader.bootstrap(deposits.get_source(0))
    assert rules.vault_id == deposits.chain.vault_id
    assert rules.verifier.verify_bootstrap(claimed, deposits.now()) == deposits.chain.verifier.verify_bootstrap(
        claimed, deposits.now()
    )
    assert (
        build_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings).vault_id
        == rules.vault_id
    )


def test_the_constructor_arguments_are_what_the_vault_was_built_with(harness):
    args = encode_vault_args([bytes([1]) * 20], 1, harness.user, 86_400, [(harness.asset, 1, 2, 3)])
    assert len(args) == 32 * (5 + 2 + 5)
    assert Deposited.KIND == 1
