"""A Cosmos chain of a testnet: wasmd validators on this machine, or given endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chains.cosmos.address import get_comet_chain_id
from chains.cosmos.verifier import CosmosSettings, encode_settings
from messages.canonical import decode_canonical
from relayer.demo.scenario import ChainPlan
from relayer.testnet.cosmos_door import CosmosDoor, Money
from relayer.testnet.devnet import Devnet, GivenDevnet, start_endpoint_proxy
from relayer.testnet.door import wait_until
from relayer.testnet.given import GivenCosmos, open_key
from relayer.testnet.processes import Group, Process
from relayer.testnet.site_cosmos import LiveCosmosSite
from relayer.testnet.wasmd import PREFIX, TRUSTING_PERIOD_S, Wasmd, find_wasmd, start_wasmd

KILLED = 1
"""The validator that `kill_node` ends; users and the proxied endpoint talk to the other one."""


class WasmdDevnet(Devnet):
    """See the module. Endpoints: a proxy before the first validator, and the second one's own RPC."""

    site: LiveCosmosSite

    def __init__(
        self,
        name: str,
        site: LiveCosmosSite,
        network: Wasmd,
        endpoints: list[dict[str, str]],
        proxies: tuple[Process, ...],
    ) -> None:
        super().__init__(name, site, endpoints, proxies)
        self._network = network

    def get_anchor(self, timeout_s: float) -> tuple[bytes, dict[str, Any]]:
        """See `Devnet`: the header after the vault's block is the first that proves it."""
        door, height = self.site.network, self.site.start_height + 1
        wait_until(lambda: door.get_header()[1] >= height, f"block {height} of {self.chain}", timeout_s)
        checkpoint, height, _ = door.get_header(height)
        settings = CosmosSettings(height, PREFIX, trusting_period_s=TRUSTING_PERIOD_S)
        return checkpoint, decode_canonical(encode_settings(settings).encode())

    def describe(self) -> str:
        """See `Devnet`."""
        return f"{self.chain} on wasmd with {len(self._network.validators)} validators"

    def kill_node(self) -> str:
        """See `Devnet`: of two equal validators neither goes on alone, so the chain stands still until it is back."""
        self._network.validators[KILLED].process.kill()
        return f"a validator of {self.chain}, and with it the chain's blocks"

    def start_node(self) -> None:
        """See `Devnet`."""
        self._network.restart(KILLED)


def start(group: Group, plan: ChainPlan, secret: bytes, *, slots_per_epoch: int, faults: bool) -> WasmdDevnet:  # noqa: ARG001  no epochs, no liars here
    """See `start_devnet`."""
    chain_id = get_comet_chain_id(plan.chain)
    network = start_wasmd(group, f"wasmd-{plan.name}", chain_id)
    first, second = network.validators[:2]
    proxy, url = start_endpoint_proxy(group, f"rpc-{plan.name}", first.port)
    endpoints = [{"name": "proxied", "rpc": url}, {"name": "direct", "rpc": second.url}]
    door = CosmosDoor(first.url, chain_id, network.faucet_key, secret)
    return WasmdDevnet(plan.name, LiveCosmosSite(plan.name, plan.chain, door), network, endpoints, (proxy,))


def open_given(path: Path, name: str, given: GivenCosmos, secret: bytes) -> GivenDevnet:
    """See `devnet.open_given`."""
    money = Money(given.denom, given.gas_price, int(given.fund_amount))
    chain_id = given.chain.partition(":")[2] if given.chain_id is None else given.chain_id
    door = CosmosDoor(
        given.endpoints[0].rpc,
        get_comet_chain_id(given.chain, chain_id),
        open_key(path, given),
        secret,
        given.prefix,
        money,
    )
    endpoints = [e.model_dump() for e in given.endpoints]
    checkpoint = bytes.fromhex(given.checkpoint[2:])
    return GivenDevnet(name, LiveCosmosSite(name, given.chain, door), endpoints, checkpoint, lambda: given.settings)


def find_reason() -> str:
    """See `devnet.find_reason`: five minutes of building are not done unasked."""
    if find_wasmd() is None:
        return "wasmd is not built: `relayer testnet run --chains evm,cosmos` builds it with go"
    return ""
