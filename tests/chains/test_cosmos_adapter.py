"""The Cosmos adapter over a simulated chain and over HTTP: what it reads, what it refuses, and whom it names."""

import asyncio
import base64
import copy
import json
import re
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from chains import base
from chains.claims import make_claims
from chains.cosmos import comet_json, reader
from chains.cosmos.address import (
    compute_chain_name,
    decode_address,
    encode_address,
    get_account,
    get_comet_chain_id,
)
from chains.cosmos.client import CosmosClient, CosmosEndpoint
from chains.cosmos.comet_json import (
    build_search,
    parse_block_results,
    parse_query,
    parse_status,
    parse_tx_search,
    parse_validator_page,
)
from chains.cosmos.proofs import OUTBOX_HEAD_KEY
from chains.cosmos.reader import CosmosReader, ReaderSettings, is_within_reach
from chains.cosmos.sim import SimCosmos
from chains.cosmos.transport import HttpCometTransport, RpcError, call
from chains.cosmos.types import NANOSECONDS
from chains.cosmos.verifier import (
    CosmosSettings,
    CosmosVerifier,
    build_rules,
    decode_settings,
    encode_settings,
)
from chains.registry import (
    EndpointConfig,
    build_chain,
    build_probe,
    build_rules_of,
    make_cosmos_settings,
    make_cosmos_sim_config,
)
from messages.bodies import Deposited, Execute
from messages.canonical import encode_canonical
from messages.errors import Conflict, Rejected, Unavailable
from messages.outbox import fold
from relayer.config import ChainTable
from relayer.proof_file import (
    Anchor,
    Judge,
    ProofStep,
    decode_proof_file,
    encode_proof_file,
    make_proof_file,
    verify_proof,
)
from tests.chains.harness_cosmos import DENOM, CosmosHarness
from tests.http_node import HttpNode

HEARTBEAT = Execute(bytes(32), (), ())
NOBODY = b"\x11" * 32


@pytest.fixture
def harness():
    return CosmosHarness()


@pytest.fixture(scope="module")
def deposits():
    """A chain with three deposits under a header. Only for tests that move nothing."""
    made = CosmosHarness()
    for amount in (1, 2, 3):
        made.deposit(amount)
    made.finalize()
    return made


def make_reader(harness, **options):
    rules = build_rules_of_harness(harness)
    endpoints = [CosmosEndpoint(e.name, e.rpc) for e in harness.network.endpoints]
    return CosmosReader(rules, endpoints, ReaderSettings(retry_s=0.0, **options))


def build_rules_of_harness(harness, **changes):
    config = replace(make_cosmos_sim_config(harness.network, harness.vault, checkpoint=harness.checkpoint), **changes)
    return build_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings)


def get_reason(function, *arguments):
    with pytest.raises(Rejected) as caught:
        function(*arguments)
    return caught.value.reason


async def ask_sim(harness, method, index=0, **params):
    return await harness.network.endpoints[index].rpc.call(method, params)


async def search(harness, index=0):
    address = encode_address(harness.vault, "wasm")
    return await ask_sim(
        harness, "tx_search", index, query=build_search(address, 1, 1000), page="1", per_page="100", order_by="asc"
    )


# ---- headers ----------------------------------------------------------------------------------------------------------


async def test_one_step_leads_to_the_newest_block_and_the_round_ends_there(harness):
    trusted = await harness.bootstrap()
    harness.network.mine(40)
    advanced = await base.advance(harness.chain, trusted, harness.now())
    assert [harness.chain.verifier.get_point(after).height for _, after in advanced.steps] == [harness.network.height]
    assert advanced.blames == ()


async def test_a_chain_that_makes_blocks_faster_than_it_is_asked_is_not_chased(harness):
    trusted = await harness.bootstrap()
    harness.mine()
    source = harness.get_source(0)
    update = await harness.chain.reader.update(source, trusted)
    trusted = harness.chain.verifier.verify_update(trusted, update, harness.now())
    harness.mine()
    assert await harness.chain.reader.update(source, trusted) is None
    assert (await harness.chain.reader.update(source, trusted)).header.height == harness.network.height


async def test_a_source_that_gives_one_block_a_round_keeps_no_other_from_being_heard(harness):
    """It answers, everything it says is true, and it is always far behind: no fault, and not the chain's last word."""
    trusted = await harness.bootstrap()
    lies = harness.network.endpoints[0].lies
    for _ in range(4):
        for _ in range(20):
            harness.mine()
        lies.stall_height = trusted.height + 1
        advanced = await base.advance(harness.chain, trusted, harness.now())
        assert advanced.blames == ()
        trusted = advanced.steps[-1][1]
        assert trusted.height == harness.network.height


async def test_a_source_that_drips_pages_just_in_time_is_given_up(harness, monkeypatch):
    trusted = await harness.bootstrap()
    harness.mine()
    door = harness.network.endpoints[0].rpc
    true_call = door.call
    asked = []

    async def call(method, params):
        if method != "validators":
            return await true_call(method, params)
        asked.append(params["page"])
        await asyncio.sleep(0.03)
        answer = await true_call(method, {**params, "page": "1", "per_page": "1"})
        return {**answer, "total": "10000"}

    monkeypatch.setattr(door, "call", call)
    for ask in (lambda r: r.update(harness.get_source(0), replace(trusted, next_validators=None)), get_bootstrap_of):
        asked.clear()
        with pytest.raises(Unavailable) as caught:
            await ask(make_reader(harness, timeout_s=0.05))
        assert (caught.value.reason, caught.value.source) == ("timeout", harness.get_source(0))
        assert 0 < len(asked) < 50


def get_bootstrap_of(made):
    return made.bootstrap(made.sources[0])


async def test_a_source_that_gives_every_step_just_in_time_does_not_hold_up_the_next(harness, monkeypatch):
    trusted = await harness.bootstrap()
    for _ in range(40):
        harness.mine()
    monkeypatch.setattr(base, "MAX_ADVANCE_S", 0.05)
    true_update = harness.chain.reader.update

    async def update(source, state):
        if source == harness.get_source(0):
            await asyncio.sleep(0.02)
            return await harness.chain.reader.get_block(source, state.height + 1)
        return await true_update(source, state)

    monkeypatch.setattr(harness.chain.reader, "update", update)
    advanced = await base.advance(harness.chain, trusted, harness.now())
    assert advanced.steps[-1][1].height == harness.network.height
    assert [(blame.source, blame.reason) for blame in advanced.blames] == [(harness.get_source(0), "timeout")]


async def test_a_source_that_is_up_to_date_is_the_only_one_asked(harness):
    trusted = await harness.bootstrap()
    harness.mine()
    harness.network.endpoints[1].lies.down = True
    advanced = await base.advance(harness.chain, trusted, harness.now())
    assert len(advanced.steps) == 1
    assert advanced.blames == ()


async def test_a_change_of_all_validators_is_stepped_through_by_halving(harness):
    trusted = await harness.bootstrap()
    for step in range(3):
        harness.network.set_validators({f"v{i}": 10 for i in range(4 * step + 4, 4 * step + 8)})
        harness.network.mine(9)
    advanced = await base.advance(harness.chain, trusted, harness.now())
    heights = [harness.chain.verifier.get_point(after).height for _, after in advanced.steps]
    assert heights[-1] == harness.network.height
    assert 3 < len(heights) < 27
    assert advanced.blames == ()


async def test_a_change_of_some_validators_needs_no_step_between(harness):
    trusted = await harness.bootstrap()
    harness.network.set_validators({"v0": 40, "v1": 30, "v8": 25})
    harness.network.mine(9)
    advanced = await base.advance(harness.chain, trusted, harness.now())
    assert len(advanced.steps) == 1


async def test_what_claims_too_little_trusted_power_is_not_within_reach(harness):
    trusted = await harness.bootstrap()
    harness.network.mine(3)
    block = await harness.chain.reader.get_block(harness.get_source(0), harness.network.height)
    config = build_rules_of_harness(harness).config
    assert is_within_reach(trusted, block, config)
    votes = tuple(replace(v, flag=1, address=b"", signature=b"") for v in block.commit.signatures[:2])
    silent = replace(block, commit=replace(block.commit, signatures=(*votes, *block.commit.signatures[2:])))
    assert not is_within_reach(trusted, silent, config)
    assert not is_within_reach(replace(trusted, next_validators=None), block, config)
    neighbour = await harness.chain.reader.get_block(harness.get_source(0), trusted.height + 1)
    assert is_within_reach(replace(trusted, next_validators=None), neighbour, config)


async def test_sets_of_more_than_a_page_come_whole():
    network = SimCosmos("many", CosmosHarness().clock, n_endpoints=1, n_validators=230)
    config = make_cosmos_sim_config(network, NOBODY)
    chain = build_chain(config, None, {config.chain_id: network})
    _, trusted, _ = await base.bootstrap(chain, network.clock())
    network.mine(2)
    advanced = await base.advance(chain, trusted, network.clock())
    (_, after), *_ = advanced.steps
    assert len(after.next_validators.validators) == 230


async def test_a_set_that_is_known_is_not_fetched_again(harness):
    asked = []
    door = harness.network.endpoints[0].rpc
    true_call = door.call

    async def count(method, params):
        asked.append(method)
        return await true_call(method, params)

    door.call = count
    trusted = await harness.bootstrap()
    for _ in range(3):
        harness.mine()
        trusted = (await base.advance(harness.chain, trusted, harness.now())).steps[-1][1]
    assert asked.count("validators") == 1


async def test_a_second_header_is_a_conflict_whichever_source_shows_it_f1(harness):
    trusted = await harness.bootstrap()
    harness.mine()
    harness.network.endpoints[1].lies.equivocate = True
    with pytest.raises(Conflict) as caught:
        await base.advance(harness.chain, trusted, harness.now())
    assert caught.value.source == harness.get_source(1)


async def test_a_witness_that_shows_what_nobody_signed_changes_nothing_f3(harness):
    trusted = await harness.bootstrap()
    harness.mine()
    door = harness.network.endpoints[1].rpc
    true_call = door.call

    async def invent(method, params):
        answer = copy.deepcopy(await true_call(method, params))
        if method == "commit":
            answer["signed_header"]["header"]["app_hash"] = "11" * 32
        return answer

    door.call = invent
    advanced = await base.advance(harness.chain, trusted, harness.now())
    assert len(advanced.steps) == 1
    assert advanced.blames == ()


async def test_a_witness_that_hangs_is_not_waited_for_round_after_round(harness):
    rules = build_rules_of_harness(harness)
    endpoints = [CosmosEndpoint(e.name, e.rpc) for e in harness.network.endpoints]
    chain = replace(harness.chain, reader=CosmosReader(rules, endpoints, ReaderSettings(witness_s=0.01)))
    trusted = await harness.bootstrap()
    liar = harness.network.endpoints[1]
    liar.lies.slow_s = 60
    asked = []
    for _ in range(3):
        harness.mine()
        trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
        asked.append(liar.rpc.requests)
    assert asked[0] > 0
    assert len(set(asked)) == 1
    liar.lies.slow_s, liar.lies.equivocate = 0, True
    prompt = replace(chain, reader=CosmosReader(rules, endpoints))
    with pytest.raises(Conflict):
        await base.advance(prompt, trusted, harness.now())


@pytest.mark.parametrize("lie", ["down", "stall_height"])
async def test_a_witness_that_is_silent_or_behind_stops_nothing(harness, lie):
    trusted = await harness.bootstrap()
    harness.mine()
    setattr(harness.network.endpoints[1].lies, lie, 2)
    assert len((await base.advance(harness.chain, trusted, harness.now())).steps) == 1


async def test_a_node_without_the_block_is_unavailable_not_a_liar(harness):
    for height in (0, harness.network.height + 5):
        with pytest.raises(Unavailable) as caught:
            await harness.chain.reader.get_block(harness.get_source(0), height)
        assert caught.value.reason == "no_block"


async def test_a_node_of_another_chain_is_named_once_asked(harness):
    harness.lie(0, "wrong_chain")
    trusted = await harness.bootstrap()
    for question in (harness.chain.reader.update, harness.chain.reader.head):
        with pytest.raises(Rejected) as caught:
            await question(harness.get_source(0), trusted)
        assert (caught.value.reason, caught.value.source) == ("wrong_chain_id", harness.get_source(0))


async def test_two_endpoints_of_one_name_are_refused(harness):
    rules = build_rules_of_harness(harness)
    door = harness.network.endpoints[0].rpc
    CosmosClient(rules, [CosmosEndpoint("a", door), CosmosEndpoint("b", door)])
    for wrong in ([], [CosmosEndpoint("a", door), CosmosEndpoint("a", door)]):
        with pytest.raises(Rejected):
            CosmosClient(rules, wrong)


# ---- state ------------------------------------------------------------------------------------------------------------


async def test_the_head_is_that_of_the_state_before_the_header(harness):
    """Header h carries the app hash after block h - 1: what the newest block did is not provable yet."""
    harness.deposit(7)
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    head, proof = await harness.chain.reader.head(harness.get_source(0), trusted)
    assert head == base.Head(0, harness.chain.vault_id)
    harness.chain.verifier.verify_head(trusted, head, proof)
    harness.mine()
    trusted = (await base.advance(harness.chain, trusted, harness.now())).steps[-1][1]
    head, proof = await harness.chain.reader.head(harness.get_source(0), trusted)
    assert head.sequence == 1
    assert harness.chain.verifier.verify_head(trusted, head, proof).height == harness.network.height


async def test_a_node_without_the_state_is_unavailable_not_a_liar(harness):
    harness.network.mine(3)
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    harness.network.endpoints[0].lies.stall_height = 3
    with pytest.raises(Unavailable) as caught:
        await harness.chain.reader.head(harness.get_source(0), trusted)
    assert caught.value.reason == "no_proof"


async def test_a_vault_that_does_not_exist_proves_nothing(harness):
    """An absent value is told as nothing; nothing is no head (incident B1)."""
    harness.vault = NOBODY
    chain = harness.make_chain()
    _, trusted, _ = await base.bootstrap(chain, harness.now())
    with pytest.raises(Rejected) as caught:
        await chain.reader.head(harness.get_source(0), trusted)
    assert caught.value.source == harness.get_source(0)


async def test_the_time_of_a_state_is_that_of_its_header_in_seconds(deposits):
    _, trusted, _ = await base.bootstrap(deposits.chain, deposits.now())
    point = deposits.chain.verifier.get_point(trusted)
    assert point.time * NANOSECONDS <= trusted.time_ns < (point.time + 1) * NANOSECONDS
    verifier = deposits.chain.verifier
    last = point.time + 7 * 86_400
    assert [verifier.is_fresh(trusted, now) for now in (last - 1, last)] == [True, False]


# ---- packets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heights", [1, 3, 10_000])
async def test_whatever_the_range_every_packet_is_told(deposits, heights):
    claims = await make_reader(deposits, log_range=heights).packets(
        deposits.get_source(0), base.Span(0, 3, 1, deposits.network.height)
    )
    assert [claim.packet.sequence for claim in claims] == [1, 2, 3]


async def test_a_node_without_an_index_is_read_block_by_block(deposits):
    span = base.Span(0, 3, 1, deposits.network.height)
    told = await make_reader(deposits).packets(deposits.get_source(0), span)
    deposits.network.endpoints[0].lies.no_index = True
    try:
        assert await make_reader(deposits).packets(deposits.get_source(0), span) == told
        deposits.network.endpoints[0].lies.drop_events = True
        with pytest.raises(Unavailable) as caught:
            await make_reader(deposits).packets(deposits.get_source(0), span)
        assert caught.value.reason == "packets_missing"
    finally:
        deposits.be_honest()


async def test_more_transactions_than_a_page_are_all_told(deposits, monkeypatch):
    monkeypatch.setattr(reader, "TRANSACTIONS_PER_PAGE", 2)
    span = base.Span(0, 3, 1, deposits.network.height)
    claims = await make_reader(deposits).packets(deposits.get_source(0), span)
    assert [claim.packet.sequence for claim in claims] == [1, 2, 3]


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(deposits, monkeypatch):
    door = deposits.network.endpoints[0].rpc
    true_call = door.call
    most = 1

    async def call(method, params):
        if method == "tx_search" and int(params["per_page"]) > most:
            raise Rejected("answer too large", reason="size")
        return await true_call(method, params)

    monkeypatch.setattr(door, "call", call)
    span = base.Span(0, 3, 1, deposits.network.height)
    claims = await make_reader(deposits).packets(deposits.get_source(0), span)
    assert [claim.packet.sequence for claim in claims] == [1, 2, 3]
    most = 0
    monkeypatch.setattr(reader, "KEPT_PACKETS", 0)
    with pytest.raises(Rejected) as caught:
        await make_reader(deposits).packets(deposits.get_source(0), span)
    assert (caught.value.reason, caught.value.source) == ("size", deposits.get_source(0))


async def refuse_to_tell(deposits, monkeypatch):
    """From now on no answer with the vault's transactions is small enough to be read, with an index and without."""
    for endpoint in deposits.network.endpoints:
        true_call = endpoint.rpc.call

        async def call(method, params, true_call=true_call):
            if method in {"tx_search", "block_results"}:
                raise Rejected("answer too large", reason="size")
            return await true_call(method, params)

        monkeypatch.setattr(endpoint.rpc, "call", call)


async def test_a_transaction_too_large_to_be_told_hides_no_packet(harness, monkeypatch):
    """Whoever calls the vault may write a hundred thousand attributes beside its events: the vault's own records tell the packets."""
    for amount in (1, 2, 3):
        harness.deposit(amount)
    harness.finalize()
    await refuse_to_tell(harness, monkeypatch)
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    collected = await base.collect(harness.chain, trusted, harness.start, 1)
    assert [fact.body.amount for fact in collected.facts] == [1, 2, 3]
    assert collected.blames == ()
    # the twin knows events only: it stops here for ever, and everybody with it
    monkeypatch.setattr(reader, "KEPT_PACKETS", 0)
    with pytest.raises(Unavailable) as caught:
        await base.collect(harness.chain, trusted, harness.start, 1)
    assert "size" in str(caught.value)


async def test_records_that_a_node_forges_do_not_fold(harness, monkeypatch):
    harness.deposit(1)
    harness.finalize()
    await refuse_to_tell(harness, monkeypatch)
    for endpoint in harness.network.endpoints:
        endpoint.lies.forge_events = True
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    with pytest.raises(Unavailable) as caught:
        await base.collect(harness.chain, trusted, harness.start, 1)
    assert "head_mismatch" in str(caught.value)


async def test_a_record_that_is_gone_or_cut_short_is_no_packet(harness, monkeypatch):
    harness.deposit(1)
    harness.finalize()
    await refuse_to_tell(harness, monkeypatch)
    span = base.Span(0, 1, 1, harness.network.height)
    true_query = harness.network.app.prove
    for value in (None, bytes(7)):
        monkeypatch.setattr(harness.network.app, "prove", lambda *args, v=value: (v, true_query(*args)[1]))
        with pytest.raises(Rejected) as caught:
            await make_reader(harness).packets(harness.get_source(0), span)
        assert caught.value.reason == "size"


async def test_packets_that_nobody_asked_for_are_not_kept_and_the_rest_is_bounded(deposits, monkeypatch):
    monkeypatch.setattr(reader, "MAX_PACKET_EVENTS", 1)
    monkeypatch.setattr(reader, "KEPT_PACKETS", 0)
    height = deposits.network.height
    (claim,) = await make_reader(deposits).packets(deposits.get_source(0), base.Span(2, 3, 1, height))
    assert claim.packet.sequence == 3
    with pytest.raises(Rejected) as caught:
        await make_reader(deposits).packets(deposits.get_source(0), base.Span(1, 3, 1, height))
    assert caught.value.reason == "size"
    monkeypatch.setattr(reader, "MAX_PACKET_EVENTS", 2)
    monkeypatch.setattr(reader, "MAX_PACKET_BYTES", len(claim.packet.payloads[0].value))
    with pytest.raises(Rejected):
        await make_reader(deposits).packets(deposits.get_source(0), base.Span(1, 3, 1, height))


async def test_a_node_that_makes_us_ask_for_ever_is_given_up(deposits, monkeypatch):
    monkeypatch.setattr(reader, "MAX_QUERIES", 2)
    monkeypatch.setattr(reader, "KEPT_PACKETS", 0)
    with pytest.raises(Unavailable) as caught:
        await make_reader(deposits, log_range=1).packets(
            deposits.get_source(0), base.Span(0, 3, 1, deposits.network.height)
        )
    assert caught.value.reason == "log_limit"


async def test_a_node_that_refuses_long_ranges_is_asked_for_shorter_ones(deposits, monkeypatch):
    door = deposits.network.endpoints[0].rpc
    true_call = door.call
    asked = []

    async def refuse(method, params):
        if method == "tx_search":
            first, last = (int(number) for number in re.findall(r"tx\.height[<>]=(\d+)", params["query"]))
            asked.append(last - first + 1)
            if last - first >= 4:
                raise RpcError("Internal error: range too long", -32603, None)
        return await true_call(method, params)

    monkeypatch.setattr(door, "call", refuse)
    claims = await make_reader(deposits).packets(deposits.get_source(0), base.Span(0, 3, 1, deposits.network.height))
    assert len(claims) == 3
    assert max(asked) > 4 >= min(asked)


async def test_a_busy_node_is_asked_again(harness):
    harness.deposit(1)
    harness.finalize()
    harness.network.endpoints[0].lies.fail_every = 2
    span = base.Span(0, 1, 1, harness.network.height)
    assert len(await make_reader(harness).packets(harness.get_source(0), span)) == 1


async def test_a_slow_node_is_given_up(harness):
    harness.deposit(1)
    harness.finalize()
    harness.network.endpoints[0].lies.slow_s = 30
    span = base.Span(0, 1, 1, harness.network.height)
    with pytest.raises(Unavailable) as caught:
        await make_reader(harness, timeout_s=0.01).packets(harness.get_source(0), span)
    assert caught.value.reason == "timeout"


async def test_an_ack_comes_with_the_packet_of_its_transaction_and_not_without(harness):
    certificate = harness.certify(1, HEARTBEAT)
    await harness.chain.submitter.send(await harness.chain.submitter.prepare(certificate, []))
    harness.finalize()
    events, _, _ = parse_tx_search(await search(harness), encode_address(harness.vault, "wasm"), 1, 1000)
    (claim,) = make_claims(events, 0, 1)
    assert claim.inbox == certificate.packet
    assert get_reason(make_claims, [e for e in events if e.is_outbox], 0, 1) == "missing_inbox"


async def test_an_identical_event_of_another_contract_is_not_taken_e2(deposits):
    answer = await search(deposits)
    ours = encode_address(deposits.vault, "wasm")
    assert len(parse_tx_search(answer, ours, 1, 1000)[0]) == 3
    assert parse_tx_search(answer, encode_address(NOBODY, "wasm"), 1, 1000)[0] == []


async def test_what_a_failed_transaction_emitted_is_not_taken(deposits):
    answer = copy.deepcopy(await search(deposits))
    answer["txs"][0]["tx_result"]["code"] = 5
    events, number, _ = parse_tx_search(answer, encode_address(deposits.vault, "wasm"), 1, 1000)
    assert [event.packet.sequence for event in events] == [2, 3]
    assert number == 3


def get_vault_event(answer, index=0):
    return next(e for e in answer["txs"][index]["tx_result"]["events"] if e["type"] == comet_json.OUTBOX_EVENT)


def change_attribute(key, value):
    def change(answer):
        for attribute in get_vault_event(answer)["attributes"]:
            if attribute["key"] == key:
                attribute["value"] = value

    return change


def drop_attribute(key):
    def change(answer):
        event = get_vault_event(answer)
        event["attributes"] = [a for a in event["attributes"] if a["key"] != key]

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_attribute("sequence", "01"),
        change_attribute("sequence", "-1"),
        change_attribute("sequence", str(2**64)),
        change_attribute("timeout", "soon"),
        change_attribute("value", "not base64"),
        change_attribute("value", 5),
        change_attribute("source_client", "x" * 10_000),
        drop_attribute("value"),
        lambda a: get_vault_event(a)["attributes"].append({"key": "sequence", "value": "9"}),
        lambda a: a["txs"][0].update(height="99999"),
        lambda a: a["txs"][0].update(height="many"),
        lambda a: a["txs"][0].update(tx_result=None),
        lambda a: a["txs"].extend(a["txs"] * 50),
        lambda a: a.update(total_count="-1"),
        lambda a: a.update(txs="none"),
    ],
)
async def test_an_answer_that_is_not_exactly_the_vaults_is_refused(deposits, change):
    answer = copy.deepcopy(await search(deposits))
    address = encode_address(deposits.vault, "wasm")
    parse_tx_search(answer, address, 1, 1000)
    change(answer)
    assert get_reason(parse_tx_search, answer, address, 1, 1000) in {"bad_json", "out_of_range"}


def make_foreign_event(*attributes, kind=comet_json.OUTBOX_EVENT):
    address = {"key": comet_json.ADDRESS_KEY, "value": encode_address(NOBODY, "wasm")}
    return {"type": kind, "attributes": [address, *({"key": key, "value": "1"} for key in attributes)]}


@pytest.mark.parametrize(
    "events",
    [
        [make_foreign_event("sequence", "sequence")],
        [make_foreign_event(*(f"a{i}" for i in range(300)))],
        [make_foreign_event(kind="wasm-noise")] * 10_001,
    ],
    ids=["an attribute twice", "many attributes", "many events"],
)
async def test_what_another_contract_writes_beside_the_vaults_events_makes_no_answer_unreadable(deposits, events):
    answer = copy.deepcopy(await search(deposits))
    answer["txs"][0]["tx_result"]["events"].extend(events)
    found, _, _ = parse_tx_search(answer, encode_address(deposits.vault, "wasm"), 1, 1000)
    assert [event.packet.sequence for event in found] == [1, 2, 3]


async def test_two_contents_under_one_number_are_refused(deposits):
    answer = copy.deepcopy(await search(deposits))
    change_attribute("sequence", "2")(answer)
    events, _, _ = parse_tx_search(answer, encode_address(deposits.vault, "wasm"), 1, 1000)
    assert get_reason(make_claims, events, 0, 3) == "log_twice"


async def test_results_of_another_block_are_refused(deposits):
    height = deposits.network.height - 1
    answer = await ask_sim(deposits, "block_results", height=str(height))
    address = encode_address(deposits.vault, "wasm")
    assert len(parse_block_results(answer, address, height)) == 1
    assert get_reason(parse_block_results, answer, address, height - 1) == "out_of_range"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["txs", "tx_result", "events", "height", "response", "value", "sync_info", "total", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(ANYTHING)
def test_whatever_a_node_says_is_an_answer_or_refused(value):
    for parse in (
        parse_status,
        parse_query,
        lambda v: parse_validator_page(v, 1),
        lambda v: parse_tx_search(v, "wasm1x", 1, 9),
        lambda v: parse_block_results(v, "wasm1x", 1),
    ):
        try:
            parse(value)
        except Rejected as error:
            assert error.reason in {"bad_json", "out_of_range", "wrong_height"}  # noqa: PT017  nothing else may come


async def test_validators_of_another_height_are_refused(deposits):
    answer = await ask_sim(deposits, "validators", height="5", page="1", per_page="100")
    members, total = parse_validator_page(answer, 5)
    assert len(members) == total == 4
    assert get_reason(parse_validator_page, answer, 6) == "wrong_height"
    assert get_reason(parse_validator_page, answer | {"total": "10001"}, 5) == "bad_json"


# ---- HTTP -------------------------------------------------------------------------------------------------------------


async def ask(answer, **options):
    async with HttpNode(answer) as node:
        transport = HttpCometTransport(node.url, **options)
        try:
            return await call(transport, "status", {}, 5.0)
        finally:
            await transport.close()


def reply(*, status=200, **fields):
    async def answer(request):
        asked = await request.json()
        body = {"jsonrpc": "2.0", "id": asked["id"]} | (fields or {"result": {"fine": True}})
        return web.json_response(body, status=status)

    return answer


async def test_an_answer_over_http_is_read():
    assert await ask(reply()) == {"fine": True}


@pytest.mark.parametrize("swapped", [2, "1", None, True, 1.0, [1]])
async def test_an_answer_with_another_id_is_refused_e7(swapped):
    with pytest.raises(Rejected) as caught:
        await ask(reply(result={}, id=swapped))
    assert caught.value.reason == "wrong_id"


@pytest.mark.parametrize("status", [200, 500])
async def test_what_a_node_says_went_wrong_is_kept(status):
    failure = {"code": -32603, "message": "Internal error", "data": "height 9 must be less than 5"}
    with pytest.raises(RpcError) as caught:
        await ask(reply(status=status, error=failure))
    assert caught.value.code == -32603
    assert caught.value.what == "Internal error: height 9 must be less than 5"


async def test_a_long_error_keeps_both_ends():
    with pytest.raises(RpcError) as caught:
        await ask(reply(error={"code": 1, "message": "first", "data": "x" * 10_000 + "last"}))
    assert caught.value.what.startswith("first")
    assert caught.value.what.endswith("last")
    assert len(caught.value.what) < 400


@pytest.mark.parametrize(
    ("body", "status", "kind", "reason"),
    [
        ("hello", 200, Rejected, "malformed"),
        ("[]", 200, Rejected, "malformed"),
        ('{"jsonrpc":"1.0","id":1,"result":1}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"error":"bad"}', 200, Rejected, "malformed"),
        ('{"jsonrpc":"2.0","id":1,"result":' + "[" * 40 + "]" * 40 + "}", 200, Rejected, "depth"),
        (" " * 5000, 200, Rejected, "size"),
        ("busy", 503, Unavailable, "http_status"),
        ("slow down", 429, Unavailable, "http_status"),
        ("no", 403, Rejected, "http_status"),
    ],
)
async def test_what_is_wrong_over_http_has_a_name(body, status, kind, reason):
    async def answer(_):
        return web.Response(text=body, status=status)

    with pytest.raises(kind) as caught:
        await ask(answer, max_bytes=4096)
    assert caught.value.reason == reason


async def test_nobody_there_is_unavailable_and_the_address_is_not_told():
    transport = HttpCometTransport("http://127.0.0.1:1/secret-key")
    with pytest.raises(Unavailable) as caught:
        await call(transport, "status")
    await transport.close()
    assert "secret-key" not in str(caught.value)


async def test_a_dead_peer_does_not_hold_us_for_ever():
    async def answer(_):
        await asyncio.sleep(30)

    with pytest.raises(Unavailable) as caught:
        await ask(answer, timeout_s=0.05)
    assert caught.value.reason == "timeout"


async def test_the_whole_road_works_over_http(harness):
    async def answer(request):
        asked = json.loads(await request.text())
        found = harness.network.endpoints[0].rpc.handle(asked["method"], asked["params"])
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"]} | found, status=500 if "error" in found else 200)

    harness.deposit(5)
    harness.finalize()
    async with HttpNode(answer) as node:
        chain = harness.make_chain(endpoints=(EndpointConfig("http", rpc_url=node.url),))
        _, trusted, blames = await base.bootstrap(chain, harness.now())
        trusted = (await base.advance(chain, trusted, harness.now())).steps[-1][1]
        collected = await base.collect(chain, trusted, harness.start, 1)
        signed = await chain.submitter.prepare(harness.certify(1, HEARTBEAT), [])
        assert await chain.submitter.send(signed) == signed.tx_id
        await chain.reader.close()
    assert [fact.body.amount for fact in collected.facts if isinstance(fact.body, Deposited)] == [5]
    assert blames == ()


# ---- names, settings, registry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20, 32])
def test_an_address_has_one_text(size):
    data = bytes(range(1, size + 1))
    text = encode_address(data, "wasm")
    assert decode_address(text, "wasm") == data
    assert get_account(data) == data.rjust(32, b"\0")
    other = "q" if text[-1] != "q" else "p"
    for wrong in (text.upper(), text[:-1] + other, text[:-1], text + "q", "cosmos" + text[4:], "", "wasm1", "1" * 91):
        assert get_reason(decode_address, wrong, "wasm") == "bad_address"


def test_other_sizes_than_those_of_keys_and_contracts_are_no_addresses():
    for size in (0, 19, 21, 31, 33):
        assert get_reason(encode_address, bytes(size), "wasm") == "bad_address"
        assert get_reason(get_account, bytes(size)) == "bad_address"


@pytest.mark.parametrize(
    ("chain_id", "name"),
    [
        ("cosmoshub-3", "cosmos:cosmoshub-3"),
        ("Binance-Chain-Tigris", "cosmos:Binance-Chain-Tigris"),
        ("x", "cosmos:x"),
        ("hash-", "cosmos:hash-"),
        ("hashed", "cosmos:hashed"),
        ("hashed-", "cosmos:hashed-c904589232422def"),
        ("hashed-123", "cosmos:hashed-99df5cd68192b33e"),
        (" ", "cosmos:hashed-36a9e7f1c95b82ff"),
        ("wonderland\N{ELF}\u200d\N{MALE SIGN}\ufe0f", "cosmos:hashed-843d2fc87f40eeb9"),
    ],
)
def test_a_chain_has_the_name_of_its_namespace(chain_id, name):
    """The examples of the CAIP-2 namespace "cosmos"."""
    assert compute_chain_name(chain_id) == name
    assert get_comet_chain_id(name, chain_id) == chain_id
    if "hashed-" in name:
        assert get_reason(get_comet_chain_id, name) == "bad_config"
    else:
        assert get_comet_chain_id(name) == chain_id
    assert get_reason(get_comet_chain_id, name, chain_id + "-2") == "bad_config"


def test_settings_have_one_text_and_say_everything():
    for chosen in (
        CosmosSettings(5),
        CosmosSettings(5, "osmo", "a chain", 3600, 3, (2, 3)),
    ):
        assert decode_settings(encode_settings(chosen)) == chosen
    assert encode_settings(CosmosSettings(5)) == '{"checkpoint_height":5,"prefix":"wasm"}'


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_height": 0},
        {"checkpoint_height": "5"},
        {"checkpoint_height": True},
        {"trusting_period_s": 0},
        {"trusting_period_s": 10**10},
        {"max_clock_drift_s": -1},
        {"trust_level": [1, 4]},
        {"trust_level": [1]},
        {"trust_level": "1/3"},
        {"prefix": "Wasm"},
        {"prefix": ""},
        {"chain_id": 5},
        {"gas_price": "1utoken"},
    ],
)
def test_settings_that_make_no_sense_are_refused(change):
    good = {"checkpoint_height": 5, "prefix": "wasm"}
    build_rules("cosmos:a", NOBODY, b"\x01" * 32, encode_canonical(good).decode())
    assert get_reason(build_rules, "cosmos:a", NOBODY, b"\x01" * 32, encode_canonical(good | change).decode()) == (
        "bad_config"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chain_id": "eip155:1"}, "bad_config"),
        ({"chain_id": "cosmos:hashed-0204c92a0388779d"}, "bad_config"),
        ({"vault_account": bytes(32)}, "bad_address"),
        ({"vault_account": bytes(12) + b"\x01" * 20}, "bad_address"),
        ({"vault_account": b"\x01" * 20}, "bad_address"),
        ({"checkpoint": bytes(32)}, "bad_config"),
        ({"checkpoint": b"\x01" * 31}, "bad_config"),
        ({"endpoints": ()}, "bad_config"),
        ({"endpoints": (EndpointConfig("a", rpc_url="file:///etc/passwd"),)}, "bad_config"),
        ({"endpoints": (EndpointConfig("a", "http://a", "http://a"),)}, "bad_config"),
        ({"endpoints": (EndpointConfig("a", rpc_url="sim:unknown"),)}, "bad_config"),
        ({"start_height": -1}, "bad_config"),
        ({"gas_price": ""}, "bad_config"),
        ({"gas_price": "cheap"}, "bad_config"),
        ({"max_gas_price": "0.01utoken"}, "bad_config"),
        ({"max_gas_price": "9uother"}, "bad_config"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_before_anything_is_asked(deposits, change, reason):
    config = make_cosmos_sim_config(deposits.network, deposits.vault)
    sims = {config.chain_id: deposits.network}
    build_chain(config, deposits.submit_key, sims)
    assert get_reason(build_chain, replace(config, **change), deposits.submit_key, sims) == reason


async def test_rules_built_from_an_anchor_judge_like_the_chain(deposits):
    config = make_cosmos_sim_config(deposits.network, deposits.vault, checkpoint=deposits.checkpoint)
    rules = build_rules_of("cosmos", config.chain_id, config.vault_account, config.checkpoint, config.settings)
    claimed, trusted, _ = await base.bootstrap(deposits.chain, deposits.now())
    assert rules.verifier.verify_bootstrap(claimed, deposits.now()) == trusted
    assert rules.vault_id == deposits.chain.vault_id
    update = await deposits.get_update(trusted)
    after = rules.verifier.verify_update(
        trusted, rules.codec.decode_update(rules.codec.encode_update(update)), deposits.now()
    )
    head, proof = await deposits.chain.reader.head(deposits.get_source(0), after)
    proven = rules.verifier.verify_head(after, head, proof)
    claims = await deposits.chain.reader.packets(deposits.get_source(0), base.Span(0, 3, 1, after.height))
    assert len(fold(deposits.start, claims, proven, rules.limits)[1]) == 3


async def test_a_hashed_chain_name_is_lived_under():
    """The vault computes the same name from the chain's id as the adapter does."""
    harness = CosmosHarness.__new__(CosmosHarness)
    harness.clock = CosmosHarness().clock
    network = SimCosmos("an id with spaces that no name can hold", harness.clock, n_endpoints=1)
    config = make_cosmos_sim_config(network, NOBODY)
    assert config.chain_id.startswith("cosmos:hashed-")
    chain = build_chain(config, None, {config.chain_id: network})
    _, trusted, _ = await base.bootstrap(chain, network.clock())
    assert trusted.chain_id == network.chain_id


TABLE = {
    "family": "cosmos",
    "vault": "0x" + NOBODY.hex(),
    "checkpoint": "0x" + "31" * 32,
    "start_height": 0,
    "settings": {"checkpoint_height": 5, "prefix": "wasm"},
    "endpoints": [{"name": "a", "rpc": "http://127.0.0.1:26657"}],
}


@pytest.mark.parametrize("vault", ["0x" + NOBODY.hex(), encode_address(NOBODY, "wasm")])
def test_a_table_of_the_file_names_the_vault_in_either_way(vault):
    assert ChainTable.model_validate(TABLE | {"vault": vault}).get_account() == NOBODY


@pytest.mark.parametrize(
    "change",
    [
        {"vault": encode_address(b"\x01" * 20, "wasm")},
        {"vault": encode_address(NOBODY, "osmo")},
        {"vault": "0x" + "11" * 20},
        {"endpoints": [{"name": "a", "execution": "http://a", "beacon": "http://b"}]},
        {"endpoints": [{"name": "a", "rpc": "http://a", "beacon": "http://b"}]},
        {"endpoints": [{"name": "a", "rpc": "http://a"}, {"name": "b", "rpc": "http://a"}]},
        {"max_fee_gwei": 5},
        {"gas_price": "cheap"},
        {"submit_key": "file:a", "submit_password": "file:b"},
        {"family": "evm"},
        {"settings": {"prefix": "wasm"}},
    ],
)
def test_a_table_of_the_file_that_fits_no_family_is_refused(change):
    ChainTable.model_validate(TABLE | {"gas_price": "0.025utoken"})
    with pytest.raises(ValueError, match="validation error"):
        ChainTable.model_validate(TABLE | change)


# ---- probe ------------------------------------------------------------------------------------------------------------


async def test_a_person_is_told_what_stands_at_the_address(deposits):
    config = make_cosmos_sim_config(deposits.network, deposits.vault, checkpoint=deposits.checkpoint)
    probe = build_probe(config, deposits.submit_key, {config.chain_id: deposits.network})
    source = probe.sources[0]
    await probe.verify_chain_id(source)
    assert "built vault" in await probe.verify_vault(source, 86_400)
    assert await probe.get_newest(source) == (deposits.network.height, await probe.get_finality_time(source))
    control = await probe.get_control(source)
    assert (control.threshold, len(control.operators), control.paused, control.pending_at) == (3, 4, False, 0)
    assert await probe.get_balance(source, probe.submitter.account) > probe.coin.low > 0
    assert probe.coin.name == "utoken"
    assert await probe.get_checkpoint_time(source, deposits.now()) <= deposits.now()
    assert probe.vault_text == encode_address(deposits.vault, "wasm")
    with pytest.raises(Rejected) as caught:
        await probe.verify_vault(source, 86_401)
    assert caught.value.reason == "wrong_immutables"
    await probe.close()


async def test_an_address_without_the_built_vault_is_told(deposits):
    config = make_cosmos_sim_config(deposits.network, NOBODY)
    probe = build_probe(config, None, {config.chain_id: deposits.network})
    with pytest.raises(Rejected) as caught:
        await probe.verify_vault(probe.sources[0], 86_400)
    assert caught.value.reason == "no_code"
    with pytest.raises(Rejected) as caught:
        await probe.prepare_pause(bytes(65))
    assert caught.value.reason == "no_submit_key"
    unknown = replace(config, settings=make_cosmos_settings(CosmosSettings(deposits.network.height + 9)))
    probe = build_probe(unknown, None, {config.chain_id: deposits.network})
    with pytest.raises(Unavailable) as nothing:
        await probe.get_checkpoint_time(probe.sources[0], deposits.now())
    assert nothing.value.reason == "not_found"


async def test_the_store_key_that_is_asked_is_the_contracts_own(deposits):
    """What the proof is about is fixed by the configuration, never by the answer."""
    key = b"\x03" + deposits.vault + OUTBOX_HEAD_KEY
    answer = await ask_sim(
        deposits,
        "abci_query",
        path="/store/wasm/key",
        data=key.hex(),
        height=str(deposits.network.height - 1),
        prove=True,
    )
    found = parse_query(answer)
    assert base64.b64decode(answer["response"]["key"]) == key
    assert [op.key for op in found.proof.ops] == [key, b"wasm"]
    assert isinstance(deposits.chain.verifier, CosmosVerifier)
    assert deposits.network.denom != DENOM


# ---- exported proofs --------------------------------------------------------------------------------------------------


async def test_an_exported_proof_is_short_and_outlives_the_trusting_period():
    """A header is recorded every few seconds; a checker needs one per trusting period, and can still check when all are long over."""
    harness = CosmosHarness()
    config = make_cosmos_sim_config(harness.network, harness.vault, checkpoint=harness.checkpoint)
    anchor = Anchor(config.chain_id, "cosmos", config.vault_account, config.checkpoint, config.settings)
    rules = build_rules_of(anchor.family, anchor.chain, anchor.vault_account, anchor.checkpoint, anchor.settings)
    judge = Judge(rules.vault_id, rules.limits, rules.verifier, rules.codec, rules.statement_s)
    claimed, trusted, _ = await base.bootstrap(harness.chain, harness.now())
    first = ProofStep(judge.verifier.get_point(trusted).time, judge.codec.encode_bootstrap(claimed))
    steps = []
    harness.deposit(5)
    for seconds in (20, 20, 20, 5 * 86_400, 5 * 86_400, 20, 20):
        harness.clock.advance(seconds)
        ((update, trusted),) = (await base.advance(harness.chain, trusted, harness.now())).steps
        steps.append(ProofStep(judge.verifier.get_point(trusted).time, judge.codec.encode_update(update)))
    collected = await base.collect(harness.chain, trusted, harness.start, 1)
    made = make_proof_file(
        anchor,
        judge,
        bootstrap=first,
        updates=steps,
        point=judge.verifier.get_point(trusted),
        head=collected.head,
        proof=judge.codec.encode_proof(collected.proof),
        facts=collected.facts,
        previous_head=harness.start.head,
        now=harness.now(),
    )
    assert len(made.updates) == 2
    later = harness.now() + 300 * 86_400
    verified = verify_proof(decode_proof_file(encode_proof_file(made)), judge, later)
    assert verified.fact.body.amount == 5
    assert not verified.is_fresh
    assert get_reason(verify_proof, replace(made, updates=made.updates[-1:]), judge, later) == "expired"
