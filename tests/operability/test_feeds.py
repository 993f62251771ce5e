"""Feeds over HTTP: prices come from the address that the operator wrote, and from nowhere else."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from messages.documents import encode_document
from messages.errors import Unavailable
from relayer.feeds import HttpFeed
from tests.builders import START, make_report


async def serve(answer):
    app = web.Application()
    app.router.add_get("/prices", answer)
    server = TestServer(app)
    await server.start_server()
    return server, str(server.make_url("/prices"))


async def test_a_feed_is_asked_for_what_is_new_and_a_redirect_is_not_followed():
    asked, report = [], make_report(START, 2000)

    async def give(request):
        asked.append(request.query["since"])
        return web.Response(body=encode_document(report) + b"\n")

    good, url = await serve(give)

    async def send_elsewhere(_request):
        raise web.HTTPFound(url)

    bad, bad_url = await serve(send_elsewhere)
    try:
        feed = HttpFeed(url, "feed")
        assert await feed.fetch(START) == ([report], [])
        await feed.fetch(START)
        assert asked == [str(START - 3600), str(START)]
        with pytest.raises(Unavailable) as caught:
            await HttpFeed(bad_url, "bad feed").fetch(START)
        assert (caught.value.reason, caught.value.got, caught.value.source) == ("http", 302, "bad feed")
        assert len(asked) == 2
    finally:
        await good.close()
        await bad.close()
