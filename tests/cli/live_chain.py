"""A simulated chain with the built vault, served over HTTP on the loopback by a thread of its own, at the machine's own time."""

from __future__ import annotations

import asyncio
import threading
import time

from aiohttp import web
from aiohttp.test_utils import TestServer

from chains.evm.codec import encode_vault_args
from chains.evm.forks import Preset
from chains.evm.sim import ManualClock, SimNetwork
from chains.registry import EndpointConfig, make_sim_config
from contracts.evm import get_artifact
from messages.documents import Amount, CapParameters
from messages.ids import get_evm_account
from tests.builders import DAY, OPERATORS, TOKEN, TREASURER, make_vault

SMALL = Preset(slots_per_epoch=4, epochs_per_period=64, committee_size=16)
CAP = 10**12


class LiveChain:
    """One endpoint over HTTP; ``network`` may be told to lie. The clock stands at the machine's time when it was made."""

    def __init__(self, chain_id: int = 31337, *, is_vault: bool = True, funded: tuple[bytes, ...] = ()) -> None:
        self.clock = ManualClock(int(time.time()) - 600)
        self.network = SimNetwork(chain_id, self.clock, n_endpoints=1, preset=SMALL, funded=funded)
        self.deployer = self.network.make_key("deployer")
        self.network.mine()
        artifact = get_artifact("vault" if is_vault else "erc20")
        caps = [(TOKEN, CAP, 4 * CAP, 16 * CAP)]
        from chains.evm.codec import encode_token_args

        args = encode_vault_args(OPERATORS, 3, TREASURER, DAY, caps) if is_vault else encode_token_args("T", "T", 6)
        self.vault = self.network.deploy(artifact.bytecode, args, self.deployer)
        self.network.finalize()
        self.clock.now = max(self.clock.now, int(time.time()))
        self.network.tick()

    @property
    def parameters(self):
        """The vault's terms as it was created."""
        caps = (CapParameters(TOKEN, Amount(CAP), Amount(4 * CAP), Amount(16 * CAP)),)
        return make_vault(
            0,
            chain=f"eip155:{self.network.chain_id}",
            account=get_evm_account(self.vault),
            caps=caps,
            created_at=1_700_000_000,
        )

    def make_config(self):
        """Its chain, reached over HTTP."""
        from dataclasses import replace

        config = make_sim_config(self.network, self.vault)
        return replace(config, endpoints=(EndpointConfig("http", self.url, self.url),))

    async def _answer(self, request: web.Request) -> web.Response:
        endpoint = self.network.endpoints[0]
        if request.method == "GET":
            status, value = endpoint.beacon.handle(request.path, dict(request.query))
            return web.json_response(value, status=status)
        asked = await request.json()
        answered = await endpoint.execution.make_request(asked["method"], asked["params"])
        return web.json_response(dict(answered) | {"id": asked["id"]})

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        app = web.Application(client_max_size=2**22)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = TestServer(app)
        asyncio.run_coroutine_threadsafe(self._server.start_server(), self._loop).result(30)
        self.url = str(self._server.make_url("/")).rstrip("/")
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
