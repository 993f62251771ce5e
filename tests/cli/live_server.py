"""What every family's test of `relayer check --live` shares: a simulated chain behind HTTP, its folder of an operator, its answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from chains.registry import ChainConfig
from chains.sim_clock import ManualClock
from messages.documents import VaultParameters
from relayer.cli import app
from tests.builders import make_parameters
from tests.cli.operator_files import write_folder

CAP = 10**12
CREATED_AT = 1_700_000_000


class LiveServer(ABC):
    """A simulated chain whose endpoints are served on the loopback by a thread of its own while it is entered.

    The clock stands at the machine's time when the chain was made; ``network`` may be told to lie.
    """

    clock: ManualClock
    network: Any
    url: str  # ends with a slash; known once it is entered

    def start_clock(self, seconds_back: int) -> None:
        """Begin before now, so that a chain has a past when it is looked at."""
        self.clock = ManualClock(int(time.time()) - seconds_back)

    def reach_now(self) -> None:
        """Let the chain go on to the machine's time."""
        self.clock.now = max(self.clock.now, int(time.time()))
        self.network.tick()

    @property
    @abstractmethod
    def parameters(self) -> VaultParameters:
        """The vault's terms as it was created."""

    @abstractmethod
    def make_config(self) -> ChainConfig:
        """Its chain, reached over HTTP."""

    @abstractmethod
    async def answer(self, request: web.Request) -> web.Response:
        """What an endpoint says; `/{path}` is all that follows the host."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        served = web.Application(client_max_size=2**22)
        served.router.add_route("*", "/{path:.*}", self.answer)
        self._server = TestServer(served)
        asyncio.run_coroutine_threadsafe(self._server.start_server(), self._loop).result(30)
        self.url = str(self._server.make_url("/"))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


def hold_clock(served, monkeypatch):
    """The chain, with this machine's clock standing where the chain's stands: a slow machine changes no age."""
    now = float(served.clock.now)
    monkeypatch.setattr(time, "time", lambda: now)
    return served


def run_json(*arguments, code):
    """What a command answers with --json and this exit code."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert "Traceback" not in result.output, result.output
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def write_live(folder: Path, chain: LiveServer, *, gas, terms=None, config=None, **changes) -> Path:
    """relayer.toml of an operator of that chain's vault; nobody listens at its broker."""
    terms = terms or chain.parameters
    return write_folder(
        folder,
        parameters=make_parameters([terms], effective=CREATED_AT),
        chains=[config or chain.make_config()],
        gas_keys={terms.chain: gas},
        **changes,
    )


def get_codes(data, level):
    return {f["code"] for f in data["findings"] if f["level"] == level}


def assert_a_pause_is_sent_once(folder: Path, chain: LiveServer, *, gas, is_paused) -> None:
    """`relayer pause` hands the pause over, the vault is paused (``is_paused`` looks), and a second one says so."""
    path = write_live(folder, chain, gas=gas)
    assert is_paused() is False
    (result,) = run_json("pause", "-c", path, "--yes", code=0)["vaults"]
    assert result["state"] == "sent"
    chain.network.finalize()
    assert is_paused() is True
    (again,) = run_json("pause", "-c", path, "--yes", code=0)["vaults"]
    assert again["state"] == "paused_already"
