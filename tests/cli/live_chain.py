"""A simulated EVM chain with the built vault, served over HTTP on the loopback, at the machine's own time."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from chains.evm.codec import encode_token_args, encode_vault_args
from chains.evm.forks import Preset
from chains.evm.sim import SimNetwork
from chains.registry import EndpointConfig, make_sim_config
from contracts.evm import get_artifact
from messages.documents import Amount, CapParameters
from messages.ids import get_evm_account
from tests.builders import DAY, OPERATORS, TOKEN, TREASURER, make_vault
from tests.cli.live_server import CAP, CREATED_AT, LiveServer

SMALL = Preset(slots_per_epoch=4, epochs_per_period=64, committee_size=16)


class LiveChain(LiveServer):
    """One endpoint; ``is_vault`` False puts a token where the vault should be."""

    def __init__(self, chain_id: int = 31337, *, is_vault: bool = True, funded: tuple[bytes, ...] = ()) -> None:
        self.start_clock(600)
        self.network = SimNetwork(chain_id, self.clock, n_endpoints=1, preset=SMALL, funded=funded)
        self.deployer = self.network.make_key("deployer")
        self.network.mine()
        artifact = get_artifact("vault" if is_vault else "erc20")
        caps = [(TOKEN, CAP, 4 * CAP, 16 * CAP)]
        args = encode_vault_args(OPERATORS, 3, TREASURER, DAY, caps) if is_vault else encode_token_args("T", "T", 6)
        self.vault = self.network.deploy(artifact.bytecode, args, self.deployer)
        self.network.finalize()
        self.reach_now()

    @property
    def parameters(self):
        caps = (CapParameters(TOKEN, Amount(CAP), Amount(4 * CAP), Amount(16 * CAP)),)
        return make_vault(
            0,
            chain=f"eip155:{self.network.chain_id}",
            account=get_evm_account(self.vault),
            caps=caps,
            created_at=CREATED_AT,
        )

    def make_config(self):
        config = make_sim_config(self.network, self.vault)
        url = self.url.rstrip("/")
        return replace(config, endpoints=(EndpointConfig("http", url, url),))

    async def answer(self, request: web.Request) -> web.Response:
        endpoint = self.network.endpoints[0]
        if request.method == "GET":
            status, value = endpoint.beacon.handle(request.path, dict(request.query))
            return web.json_response(value, status=status)
        asked = await request.json()
        answered = await endpoint.execution.make_request(asked["method"], asked["params"])
        return web.json_response(dict(answered) | {"id": asked["id"]})
