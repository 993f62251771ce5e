"""Streams of hints: what is heard, how a stream ends, and that a look follows a hint and nothing is believed."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import web

from chains.event_stream import MAX_LINE_BYTES, PAUSE_S, follow_events
from chains.evm.reader import EvmEndpoint, EvmReader
from chains.evm.transport import HttpBeaconTransport, HttpExecutionProvider
from messages.errors import Rejected, Unavailable
from relayer.testnet.processes import get_free_port

FINALITY = "light_client_finality_update"


@contextlib.asynccontextmanager
async def serve(chunks, *, status=200):
    """A beacon API with an event stream that says these chunks and ends."""

    async def stream(request):
        assert request.query["topics"] == FINALITY
        if status != 200:
            return web.Response(status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    app = web.Application()
    app.router.add_get("/eth/v1/events", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    port = get_free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def make_event(slot, signature_slot):
    update = {"finalized_header": {"beacon": {"slot": str(slot)}}, "signature_slot": str(signature_slot)}
    return f"event: {FINALITY}\ndata: {json.dumps({'data': update})}\n\n".encode()


async def hear(chunks, **options):
    heard = []
    async with serve(chunks, **options) as url:
        with pytest.raises((Unavailable, Rejected)) as caught:
            await follow_events(url + "/eth/v1/events", {"topics": FINALITY}, heard.append)
    return heard, caught.value.reason


async def test_the_data_of_every_event_is_heard_until_the_stream_ends():
    heard, reason = await hear([b": hello\n\n", b"event: a\nda", b"ta: one\n\n", b"data:two\n\n"])
    assert (heard, reason) == ([b"one", b"two"], "stream")


async def test_an_endpoint_without_the_stream_says_so():
    assert await hear([], status=404) == ([], "not_found")


async def test_a_line_without_an_end_is_not_kept():
    heard, reason = await hear([b"data: one\n\n", b"data: " + bytes(3 * MAX_LINE_BYTES)])
    assert (heard, reason) == ([b"one"], "size")


async def test_a_flood_is_read_slowly():
    began = asyncio.get_running_loop().time()
    heard, _ = await hear([b"data: x\n\n" * 8])
    assert len(heard) == 8
    assert asyncio.get_running_loop().time() - began >= 7 * PAUSE_S


async def test_nobody_listening_is_unavailable():
    with pytest.raises(Unavailable):
        await follow_events(f"http://127.0.0.1:{get_free_port()}/", {}, lambda _: None)


async def test_only_another_finalized_header_is_a_hint():
    events = [make_event(8, 17), make_event(8, 18), make_event(16, 25), make_event(16, 26)]
    heard = []
    async with serve(events) as url:
        endpoint = EvmEndpoint("one", HttpBeaconTransport(url), HttpExecutionProvider(url))
        reader = EvmReader(1, bytes(20), bytes(32), None, [endpoint])
        with pytest.raises(Unavailable) as caught:
            await reader.follow("one", lambda: heard.append(1))
        await reader.close()
    assert len(heard) == 2
    assert caught.value.source == "one"


async def test_an_event_that_can_not_be_read_is_a_hint_too():
    heard = []
    async with serve([b"data: {}\n\n", b"data: \xff\n\n"]) as url:
        endpoint = EvmEndpoint("one", HttpBeaconTransport(url), HttpExecutionProvider(url))
        reader = EvmReader(1, bytes(20), bytes(32), None, [endpoint])
        with pytest.raises(Unavailable):
            await reader.follow("one", lambda: heard.append(1))
        await reader.close()
    assert len(heard) == 2
