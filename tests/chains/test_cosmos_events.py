"""Hints over a node's websocket: when they come, and that nothing a stream says can do more than wake."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import WSMsgType, web

from chains.cosmos import comet_events
from chains.cosmos.comet_events import HEADERS, build_event_query, follow_vault
from chains.registry import EndpointConfig
from messages.errors import Rejected, Unavailable
from tests.chains.harness_cosmos import CosmosHarness
from tests.http_node import HttpNode

ADDRESS = "wasm1vault"


def make_event(kind, height):
    value = {"TxResult": {"height": str(height)}} if kind == "Tx" else {"header": {"height": str(height)}}
    data = {"type": f"tendermint/event/{kind}", "value": value}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"query": "", "data": data}})


class Stream(HttpNode):
    """A websocket on the loopback that answers the subscriptions, says what a test wants, and closes."""

    def __init__(self, *messages, is_hanging=False):
        self.messages = messages
        self.is_hanging = is_hanging
        self.asked = []

    async def _serve(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for _ in range(2):
            asked = json.loads((await socket.receive()).data)
            self.asked.append(asked["params"]["query"])
            await socket.send_str(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {}}))
        for message in self.messages:
            await socket.send_str(message)
        if self.is_hanging:
            while (await socket.receive()).type is not WSMsgType.CLOSE:
                pass
        await socket.close()
        return socket

    def get_routes(self):
        return {"/websocket": self._serve}


async def follow(*messages, **options):
    """(hints, error) of a stream that says these messages."""
    hints = []
    async with Stream(*messages, **options) as stream:
        with pytest.raises((Unavailable, Rejected)) as caught:
            await follow_vault(stream.url, ADDRESS, lambda: hints.append(True))
        assert stream.asked == [HEADERS, build_event_query(ADDRESS)]
    return len(hints), caught.value


async def test_the_hint_comes_with_the_header_after_the_vaults_transaction():
    header, tx = "NewBlockHeader", "Tx"
    for events, expected in (
        ([(header, 5), (header, 6)], 0),
        ([(tx, 5)], 0),
        ([(tx, 5), (header, 5)], 0),
        ([(tx, 5), (header, 5), (header, 6)], 1),
        ([(tx, 5), (tx, 5), (header, 6), (header, 7)], 1),
        ([(tx, 5), (header, 6), (tx, 6), (header, 7)], 2),
    ):
        hints, error = await follow(*(make_event(*event) for event in events))
        assert (hints, error.reason) == (expected, "stream"), events


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hello", "malformed"),
        ("[]", "bad_json"),
        ("[" * 100 + "]" * 100, "depth"),
        ('{"error":{"code":-32603,"message":"max_subscriptions_per_client 5 reached"}}', "not_found"),
        ('{"result":{"data":5}}', "bad_json"),
        (make_event("Tx", "many"), "bad_json"),
        ("x" * (1 << 21), "malformed"),
    ],
)
async def test_what_is_wrong_in_a_stream_ends_it_with_a_name(message, reason):
    hints, error = await follow(message)
    assert (hints, error.reason) == (0, reason)


async def test_a_message_that_is_too_long_ends_the_stream(monkeypatch):
    monkeypatch.setattr(comet_events, "MAX_MESSAGE_BYTES", 1000)
    assert (await follow("x" * 2000))[1].reason == "stream"


async def test_a_stream_that_says_nothing_is_taken_for_dead(monkeypatch):
    monkeypatch.setattr(comet_events, "SILENCE_S", 0.2)
    assert (await follow(is_hanging=True))[1].reason == "stream"


async def test_an_endpoint_without_a_stream_is_named_and_its_address_is_not():
    async with Stream() as stream:
        with pytest.raises(Unavailable) as caught:
            await follow_vault(stream.url + "secret-key", ADDRESS, lambda: None)
        assert caught.value.reason == "not_found"
        assert "secret-key" not in str(caught.value)
    with pytest.raises(Unavailable) as caught:
        await follow_vault("http://127.0.0.1:1", ADDRESS, lambda: None)
    assert caught.value.reason == "stream"


async def test_a_reader_follows_what_has_a_stream_and_returns_where_there_is_none():
    harness = CosmosHarness()
    await harness.chain.reader.follow(harness.get_source(0), lambda: None)
    async with Stream(make_event("Tx", 5), make_event("NewBlockHeader", 6)) as stream:
        reader = harness.make_chain(endpoints=(EndpointConfig("http", rpc_url=stream.url),)).reader
        hint = asyncio.Event()
        with pytest.raises(Unavailable) as caught:
            await reader.follow("http", hint.set)
        assert hint.is_set()
        assert caught.value.source == "http"
        assert harness.network.app.encode(harness.vault) in stream.asked[1]
