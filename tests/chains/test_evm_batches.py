"""All questions about a transaction in one round trip, also where nodes take no batches, are away, or contradict each other."""

from __future__ import annotations

import asyncio

import pytest
import rlp
from aiohttp import web
from eth_account import Account

from chains.evm.reader import EvmEndpoint
from chains.evm.submitter import GAS_MARGIN_PERCENT, EvmSubmitter
from chains.evm.transport import HttpExecutionProvider, RpcError, call_all
from messages.bodies import Execute
from messages.errors import Rejected, Unavailable
from tests.builders import OPERATORS
from tests.chains.harness_evm import CHAIN_ID, EvmHarness
from tests.http_node import HttpNode

ASKS = [("double", [1]), ("double", [2]), ("fail", []), ("double", [4])]
HEARTBEAT = Execute(bytes(32), (), ())
REVERT = {"code": 3, "message": "execution reverted: no", "data": "0x"}


class RpcNode(HttpNode):
    """JSON-RPC over HTTP. ``methods``: name -> function of the parameters; ``answer_batch`` stands in for the list of answers.

    ``requests`` holds what came: one method, or the list of those in a batch.
    """

    def __init__(self, methods, answer_batch=None):
        super().__init__(self.serve)
        self.methods = methods
        self.answer_batch = answer_batch
        self.requests = []

    def get_one(self, ask):
        try:
            result = {"result": self.methods[ask["method"]](*ask["params"])}
        except RpcError as error:
            result = {"error": {"code": error.code, "message": str(error), "data": error.data}}
        return {"jsonrpc": "2.0", "id": ask["id"], **result}

    async def serve(self, request):
        asked = await request.json()
        if isinstance(asked, dict):
            self.requests.append(asked["method"])
            return web.json_response(self.get_one(asked))
        self.requests.append([a["method"] for a in asked])
        answers = [self.get_one(a) for a in asked]
        if self.answer_batch is not None:
            return await self.answer_batch(answers)
        return web.json_response(answers)


def fail(*_):
    raise RpcError("no", 7, None)


def make_doubler(answer_batch=None):
    return RpcNode({"double": lambda n: 2 * n, "fail": fail}, answer_batch)


async def ask_all(provider, asks=ASKS, timeout_s=20.0):
    """Results, failures as their reasons."""
    return [getattr(a, "reason", a) for a in await call_all(provider, asks, timeout_s)]


ANSWERS = [2, 4, "rpc_error", 8]


async def test_all_questions_are_one_request_and_a_failure_stands_in_its_place():
    async with make_doubler() as node:
        provider = HttpExecutionProvider(node.url)
        for _ in range(2):
            assert await ask_all(provider) == ANSWERS
        await provider.disconnect()
    assert node.requests == [[m for m, _ in ASKS]] * 2
    assert provider.takes_batches


async def refuse_with_an_object(_):
    return web.json_response({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}})


async def refuse_with_a_status(_):
    return web.Response(status=400, text="no batches")


async def refuse_with_a_missing_route(_):
    return web.Response(status=404)


async def leave_one_out(answers):
    return web.json_response(answers[1:])


async def answer_another(answers):
    return web.json_response([*answers[1:], answers[0] | {"id": 10**6}])


async def answer_text(_):
    return web.Response(text="<html>")


@pytest.mark.parametrize(
    "answer_batch",
    [
        refuse_with_an_object,
        refuse_with_a_status,
        refuse_with_a_missing_route,
        leave_one_out,
        answer_another,
        answer_text,
    ],
)
async def test_a_node_that_takes_no_batches_is_asked_one_by_one_and_from_then_on(answer_batch):
    methods = sorted(m for m, _ in ASKS)
    async with make_doubler(answer_batch) as node:
        provider = HttpExecutionProvider(node.url)
        assert await ask_all(provider) == ANSWERS
        assert node.requests[0] == [m for m, _ in ASKS]
        assert sorted(node.requests[1:]) == methods
        assert not provider.takes_batches
        node.requests.clear()
        assert await ask_all(provider) == ANSWERS
        assert sorted(node.requests) == methods
        await provider.disconnect()


async def test_an_answer_in_a_batch_that_is_none_is_no_reason_to_ask_again():
    async def spoil(answers):
        return web.json_response([{"jsonrpc": "2.0", "id": answers[0]["id"]}, *answers[1:]])

    async with make_doubler(spoil) as node:
        provider = HttpExecutionProvider(node.url)
        assert await ask_all(provider) == ["malformed", *ANSWERS[1:]]
        await provider.disconnect()
    assert len(node.requests) == 1
    assert provider.takes_batches


async def test_a_node_that_is_too_slow_is_not_asked_again_one_by_one():
    let_go = asyncio.Event()

    async def wait(answers):
        await let_go.wait()
        return web.json_response(answers)

    async with make_doubler(wait) as node:
        provider = HttpExecutionProvider(node.url)
        assert await ask_all(provider, timeout_s=0.2) == ["timeout"] * len(ASKS)
        assert len(node.requests) == 1
        assert provider.takes_batches
        let_go.set()
        assert await ask_all(provider) == ANSWERS  # it was slow, it takes batches
        await provider.disconnect()
    assert len(node.requests) == 2


async def test_a_node_whose_own_limit_is_the_shorter_one_is_not_asked_again_either():
    let_go = asyncio.Event()

    async def wait(answers):
        await let_go.wait()
        return web.json_response(answers)

    async with make_doubler(wait) as node:
        provider = HttpExecutionProvider(node.url, timeout_s=0.2)
        assert await ask_all(provider) == ["timeout"] * len(ASKS)
        let_go.set()
        await provider.disconnect()
    assert len(node.requests) == 1
    assert provider.takes_batches


@pytest.mark.parametrize("status", [429, 503])
async def test_a_node_that_has_too_much_to_do_is_not_asked_one_by_one_on_top(status):
    async def refuse(answers):
        del answers
        return web.Response(status=status)

    async with make_doubler(refuse) as node:
        provider = HttpExecutionProvider(node.url)
        assert await ask_all(provider) == ["http_status"] * len(ASKS)
        assert len(node.requests) == 1
        node.answer_batch = None
        assert await ask_all(provider) == ANSWERS  # in one request again
        await provider.disconnect()
    assert len(node.requests) == 2


async def test_a_node_that_is_away_is_not_asked_again_one_by_one():
    asked = []
    async with make_doubler() as node:
        url = node.url
    provider = HttpExecutionProvider(url)
    true_fetch = provider._http.fetch

    async def fetch(*args, **options):
        asked.append(options["json"])
        return await true_fetch(*args, **options)

    provider._http.fetch = fetch
    assert await ask_all(provider) == ["unreachable"] * len(ASKS)
    assert [type(a) for a in asked] == [list]
    assert provider.takes_batches
    await provider.disconnect()


async def test_a_bug_of_a_provider_comes_out(monkeypatch):
    async def break_down(*_):
        raise ZeroDivisionError

    provider = HttpExecutionProvider("http://127.0.0.1:1/")
    monkeypatch.setattr(provider, "make_requests", break_down)
    with pytest.raises(ZeroDivisionError):
        await call_all(provider, ASKS)
    provider.takes_batches = False
    monkeypatch.setattr(provider, "make_request", break_down)
    with pytest.raises(ZeroDivisionError):
        await call_all(provider, ASKS)


# ---- what a submitter makes of the answers


class VaultNode(RpcNode):
    """Enough of a node to prepare a transaction. ``enough``: gas with which a call goes through; None answers no call at all."""

    def __init__(self, enough=100_000, estimate=100_000, answer_batch=None):
        self.enough, self.estimate = enough, estimate
        methods = {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_getTransactionCount": lambda *_: "0x0",
            "eth_getBlockByNumber": lambda *_: {"baseFeePerGas": hex(10**9)},
            "eth_maxPriorityFeePerGas": lambda: hex(10**9),
            "eth_call": self.call,
            "eth_estimateGas": lambda *_: hex(self.estimate),
        }
        super().__init__(methods, answer_batch)

    def call(self, request, _block):
        if int(request["gas"], 16) < self.enough:
            raise RpcError(REVERT["message"], REVERT["code"], REVERT["data"])
        return "0x"

    def count(self, method):
        return sum(r.count(method) if isinstance(r, list) else r == method for r in self.requests)


class Bench:
    """One submitter over some nodes that has estimated before; counts begin after that."""

    def __init__(self, *nodes, timeout_s=20.0):
        self.nodes = nodes
        self.timeout_s = timeout_s

    async def __aenter__(self):
        for node in self.nodes:
            await node.__aenter__()
        self.providers = [HttpExecutionProvider(n.url) for n in self.nodes]
        endpoints = [EvmEndpoint(f"node{i}", None, p) for i, p in enumerate(self.providers)]
        account = Account.from_key(bytes([7]) * 32)
        self.submitter = EvmSubmitter(
            f"eip155:{CHAIN_ID}", CHAIN_ID, bytes(32), OPERATORS[0], endpoints, account, timeout_s=self.timeout_s
        )
        return self

    async def __aexit__(self, *_):
        for provider in self.providers:
            await provider.disconnect()
        for node in self.nodes:
            await node.__aexit__()

    async def prepare(self, data=bytes(1000)):
        """Gas of a prepared transaction."""
        for node in self.nodes:
            node.requests.clear()
        signed = await self.submitter.prepare_call(data)
        return decode_gas(signed)


def decode_gas(signed):
    return int.from_bytes(rlp.decode(signed.raw[1:])[4], "big")  # EIP-1559: chain, nonce, tip, fee, gas limit


def get_estimated(estimate):
    return estimate * (100 + GAS_MARGIN_PERCENT) // 100


async def test_a_transaction_is_prepared_with_one_request_to_each_node():
    async with Bench(VaultNode(), VaultNode()) as bench:
        assert await bench.prepare() == get_estimated(100_000)
        expected = bench.submitter._get_expected_gas(1000)[1]
        assert await bench.prepare() == expected
        assert [len(n.requests) for n in bench.nodes] == [1, 1]
        assert [len(n.requests[0]) for n in bench.nodes] == [5, 5]


@pytest.mark.parametrize("order", [1, -1])
async def test_a_revert_anywhere_leads_to_the_estimate(order):
    nodes = [VaultNode(), VaultNode()]
    async with Bench(*nodes[::order]) as bench:
        await bench.prepare()
        nodes[0].enough = nodes[0].estimate = 300_000  # there it takes more than expected
        assert await bench.prepare() == get_estimated(300_000)
        assert [n.count("eth_estimateGas") for n in bench.nodes] == [1, 1]
        # and the byte is dearer from now on: the next one is not estimated
        assert await bench.prepare() > get_estimated(300_000)
        assert [n.count("eth_estimateGas") for n in bench.nodes] == [0, 0]


async def spoil_the_call(answers):
    return web.json_response([*answers[:-1], {"jsonrpc": "2.0", "id": answers[-1]["id"]}])


@pytest.mark.parametrize("order", [1, -1])
async def test_an_endpoint_that_says_nothing_of_the_call_does_not_lead_to_the_estimate(order):
    nodes = [VaultNode(), VaultNode()]
    async with Bench(*nodes[::order]) as bench:
        await bench.prepare()
        nodes[0].answer_batch = spoil_the_call
        expected = bench.submitter._get_expected_gas(1000)[1]
        assert await bench.prepare() == expected
        assert [n.count("eth_estimateGas") for n in bench.nodes] == [0, 0]
        nodes[1].answer_batch = spoil_the_call  # but if nobody says anything, somebody must estimate
        assert await bench.prepare() == get_estimated(100_000)
        assert [n.count("eth_estimateGas") for n in bench.nodes] == [1, 1]


@pytest.mark.parametrize("order", [1, -1])
async def test_an_endpoint_that_is_away_costs_neither_the_estimate_nor_the_packet(order):
    nodes = [VaultNode(), VaultNode()]
    async with Bench(*nodes[::order], timeout_s=0.5) as bench:
        await bench.prepare()
        expected = bench.submitter._get_expected_gas(1000)[1]
        silent = bench.providers[bench.nodes.index(nodes[0])]

        async def stay_silent(*_):
            await asyncio.Event().wait()

        silent.make_requests = stay_silent
        assert await bench.prepare() == expected
        assert [n.count("eth_estimateGas") for n in bench.nodes] == [0, 0]
        assert len(nodes[1].requests) == 1


async def test_where_no_endpoint_answers_the_first_question_names_the_failure():
    nodes = [VaultNode(), VaultNode()]
    async with Bench(*nodes) as bench:
        await bench.prepare()
        for node in nodes:
            node.methods["eth_getTransactionCount"] = fail
        with pytest.raises(Unavailable) as caught:
            await bench.prepare()
        assert caught.value.reason == "no_endpoint"
        nodes[1].methods["eth_getTransactionCount"] = lambda *_: "0x5"
        await bench.prepare()


async def test_a_node_that_serves_another_chain_is_asked_nothing_else():
    nodes = [VaultNode(), VaultNode()]
    nodes[0].methods["eth_chainId"] = lambda: "0x1"
    async with Bench(*nodes) as bench:
        assert await bench.prepare() == get_estimated(100_000)
        assert set(nodes[0].requests) == {"eth_chainId"}
    with pytest.raises(Unavailable) as caught:
        async with Bench(nodes[0]) as bench:
            await bench.prepare()
    assert caught.value.reason == "no_endpoint"


async def test_what_a_batch_prepares_is_what_single_questions_prepare():
    async def prepare(answer_batch):
        async with Bench(VaultNode(answer_batch=answer_batch), VaultNode(answer_batch=answer_batch)) as bench:
            await bench.prepare()
            return await bench.prepare(), [p.takes_batches for p in bench.providers]

    batched, single = await prepare(None), await prepare(refuse_with_an_object)
    assert batched[0] == single[0]
    assert (batched[1], single[1]) == ([True, True], [False, False])


async def test_a_revert_of_the_vault_itself_keeps_its_word():
    harness = EvmHarness()
    submitter = harness.chain.submitter
    certificate = harness.certify(1, HEARTBEAT)
    await submitter.send(await submitter.prepare(certificate, []))
    harness.mine()
    with pytest.raises(Rejected) as caught:
        await submitter.prepare(certificate, [])
    assert caught.value.reason == "revert_sequence"
    following = await submitter.prepare(harness.certify(2, HEARTBEAT), [])
    assert following.nonce == 1
