"""An HTTP server before a JSON-RPC endpoint: passes calls on, and lets a subclass answer some of them otherwise."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import web

from relayer.testnet.processes import LOOPBACK

MAX_REQUEST_BYTES = 1 << 20
MAX_ANSWER_BYTES = 1 << 26
TIMEOUT_S = 20.0
UNREACHABLE = -32603


class JsonDoor(ABC):
    """See the module. ``target``: URL of the endpoint behind. Paths are of no meaning: one server can be several endpoints."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None

    @abstractmethod
    async def answer(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """The JSON-RPC answer of a call, with "result" or "error"."""

    async def ask(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """The answer of the endpoint behind, with "result" or "error"; an error too where it does not answer."""
        if self._session is None:
            raise RuntimeError("the server does not run")
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._session.post(self._target, json=body) as response:
                raw = await response.content.read(MAX_ANSWER_BYTES)
                found = json.loads(raw)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return make_error(UNREACHABLE, f"the node behind does not answer: {error}")
        return found if isinstance(found, dict) else make_error(UNREACHABLE, "the node behind answers no JSON-RPC")

    async def _post(self, request: web.Request) -> web.Response:
        try:
            call = json.loads(await request.read())
            method, params = str(call["method"]), call.get("params") or []
        except (ValueError, TypeError, KeyError):
            return web.json_response(
                {"jsonrpc": "2.0", "id": None, **make_error(-32700, "one JSON-RPC call is wanted")}
            )
        found = await self.answer(method, params)
        kept = {key: found[key] for key in ("result", "error") if key in found}
        return web.json_response({"jsonrpc": "2.0", "id": call.get("id"), **kept})

    async def work(self) -> None:
        """What is done beside serving, until it is cancelled."""
        await asyncio.Event().wait()

    async def serve(self, port: int = 0) -> None:
        """Serve on a loopback port, 0 a free one, until SIGTERM or SIGINT; says {"event": "ready", "url"} on stdout."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/{path:.*}", self._post)
        runner = web.AppRunner(app, access_log=None)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, LOOPBACK, port)
            await site.start()
            tell({"event": "ready", "url": f"http://{LOOPBACK}:{runner.addresses[0][1]}"})
            working = asyncio.create_task(self.work())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (working, stopping):
                task.cancel()
            await runner.cleanup()
            if working.done() and not working.cancelled():
                working.result()


def make_error(code: int, message: str, data: Any = None) -> dict[str, Any]:
    """A JSON-RPC answer that is an error."""
    return {"error": {"code": code, "message": message, **({} if data is None else {"data": data})}}


def tell(event: dict[str, Any]) -> None:
    """One JSON line on stdout, at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
