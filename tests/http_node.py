"""A real HTTP server on the loopback whose answers a test chooses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpNode:
    """Use as ``async with``; ``url`` ends with a slash."""

    url: str

    def __init__(self, answer: Handler | None = None) -> None:
        self.answer = answer

    def get_routes(self) -> Mapping[str, Handler]:
        """Who answers under which path: one for all of them, unless a test says otherwise."""
        assert self.answer is not None
        return {"/{path:.*}": self.answer}

    async def __aenter__(self) -> Self:
        app = web.Application()
        for path, handler in self.get_routes().items():
            app.router.add_route("*", path, handler)
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("/"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()
