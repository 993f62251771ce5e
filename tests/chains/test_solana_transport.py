"""JSON-RPC and hints over real sockets of this machine: ids, errors, limits, and that no address gets into an error."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from aiohttp import web

from chains.registry import EndpointConfig, build_chain
from chains.solana import account_events
from chains.solana.account_events import follow_account
from chains.solana.transport import HttpSolanaTransport, RpcError, call
from messages.errors import Rejected, Unavailable
from tests.chains.solana_site import Site
from tests.http_node import HttpNode


class Node(HttpNode):
    """Answers calls by a function of what was asked, and a stream by messages."""

    def __init__(self, answer, messages=()):
        super().__init__()
        self.tell = answer
        self.messages = messages
        self.asked = []

    async def _serve(self, request):
        asked = await request.json()
        self.asked.append(asked)
        status, body = self.tell(asked)
        return web.Response(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())

    async def _stream(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.asked.append(json.loads((await socket.receive()).data))
        for message in self.messages:
            await socket.send_str(message if isinstance(message, str) else json.dumps(message))
        await socket.close()
        return socket

    def get_routes(self):
        return {"/": self._serve, "/stream": self._stream}

    @property
    def stream(self):
        return "ws" + self.url.removeprefix("http") + "stream"


def reply(asked, **fields):
    return 200, {"jsonrpc": "2.0", "id": asked["id"], **fields}


async def ask(answer, **options):
    async with Node(answer) as node:
        transport = HttpSolanaTransport(node.url, **options)
        try:
            return await call(transport, "getSlot", [{"commitment": "finalized"}], options.get("timeout_s", 5.0))
        finally:
            await transport.close()
            assert node.asked[0]["method"] == "getSlot"
            assert node.asked[0]["params"] == [{"commitment": "finalized"}]


async def test_the_result_of_an_answer_comes_back():
    assert await ask(lambda asked: reply(asked, result=7)) == 7
    assert await ask(lambda asked: reply(asked, result=None)) is None


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (lambda a: (200, {"jsonrpc": "2.0", "id": a["id"] + 1, "result": 7}), Rejected, "wrong_id"),  # E7
        (lambda a: (200, {"jsonrpc": "2.0", "id": True, "result": 7}), Rejected, "wrong_id"),
        (lambda a: (200, {"jsonrpc": "2.0", "id": None, "result": 7}), Rejected, "wrong_id"),
        (lambda a: (200, {"jsonrpc": "1.0", "id": a["id"], "result": 7}), Rejected, "malformed"),
        (lambda a: (200, {"jsonrpc": "2.0", "id": a["id"]}), Rejected, "malformed"),
        (lambda a: (200, [7]), Rejected, "malformed"),
        (lambda _: (200, b"{"), Rejected, "depth"),
        (lambda _: (200, b"[" * 100_000), Rejected, "depth"),
        (lambda a: reply(a, error={"code": -32602, "message": "no"}), RpcError, "rpc_error"),
        (lambda a: reply(a, error="no"), Rejected, "malformed"),
        (lambda a: reply(a, error={"code": -32016, "message": "not yet", "data": {}}), Unavailable, "behind"),
        (lambda a: reply(a, error={"code": -32005, "message": "Node is behind"}), Unavailable, "behind"),
        (
            lambda a: (429, {"jsonrpc": "2.0", "id": None, "error": {"code": 429, "message": "slow"}}),
            Unavailable,
            "behind",
        ),
        (lambda _: (429, b"slow down"), Unavailable, "http_status"),
        (lambda _: (503, b"{}"), Unavailable, "http_status"),
        (lambda _: (403, b"no"), Rejected, "http_status"),
        (lambda a: reply(a, result="x" * 2_000), Rejected, "size"),
    ],
)
async def test_every_other_answer_is_one_of_the_products_errors(answer, kind, reason):
    with pytest.raises(kind) as caught:
        await ask(answer, max_bytes=1_500 if reason == "size" else 1 << 20)
    assert caught.value.reason == reason
    assert "127.0.0.1" not in str(caught.value)


async def test_a_node_that_is_not_there_is_told_without_its_address():
    transport = HttpSolanaTransport("http://127.0.0.1:1/SECRET")
    with pytest.raises(Unavailable) as caught:
        await call(transport, "getSlot")
    await transport.close()
    assert caught.value.reason == "unreachable"
    assert "SECRET" not in str(caught.value)


NOTICE = {"jsonrpc": "2.0", "method": "accountNotification", "params": {"result": {}, "subscription": 1}}
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": 1}


async def follow(*messages):
    hints = []
    async with Node(None, messages) as node:
        with pytest.raises((Rejected, Unavailable)) as caught:
            await follow_account(node.stream, "an account", lambda: hints.append(True))
    assert node.asked[0]["params"] == ["an account", {"encoding": "base64", "commitment": "finalized"}]
    return len(hints), caught.value.reason


async def test_a_final_change_is_a_hint_and_a_stream_that_ends_says_so(monkeypatch):
    monkeypatch.setattr(account_events, "PAUSE_S", 0.0)
    assert await follow(ANSWER) == (0, "stream")
    assert await follow(ANSWER, NOTICE, NOTICE) == (2, "stream")
    assert await follow({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601}}) == (0, "not_found")
    assert await follow(ANSWER, "7") == (0, "bad_json")
    assert await follow(ANSWER, "no") == (0, "malformed")
    with pytest.raises(Rejected):
        await follow_account("http://127.0.0.1/", "an account", lambda: None)


async def test_an_endpoint_without_a_stream_gives_no_hints_and_no_error():
    site = Site("no stream")
    await site.chain.reader.follow(site.chain.reader.sources[0], lambda: None)
    config = site.make_config()
    plain = [EndpointConfig(f"e{i}", rpc_url=f"http://127.0.0.1:{i + 1}/") for i in range(4)]
    chain = build_chain(replace(config, endpoints=tuple(plain)))
    await chain.reader.follow("e0", lambda: None)
    async with Node(None, [ANSWER, NOTICE]) as node:
        hints = []
        heard = replace(plain[0], stream_url=node.stream)
        chain = build_chain(replace(config, endpoints=(heard, *plain[1:])))
        with pytest.raises(Unavailable) as caught:
            await chain.reader.follow("e0", lambda: hints.append(True))
        assert (len(hints), caught.value.source) == (1, "e0")
    for wrong in (
        replace(plain[0], stream_url="http://x/"),
        replace(plain[0], rpc_url="ftp://x/"),
        replace(plain[0], rpc_url="sim:nobody"),
    ):
        with pytest.raises(Rejected) as caught:
            build_chain(replace(config, endpoints=(wrong, *plain[1:])))
        assert caught.value.reason == "bad_config"
